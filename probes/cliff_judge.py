"""Cliff-as-a-Judge: which unsafe answers to repair a model on (arXiv 2510.06036, section 5 and official code).

The misalignment score of an unsafe answer is plateau - final: how far the decision to refuse fell between thought and
answer. The paper's code ranks by the final score alone, ascending. Beside them stand the comparators: a keyword rule,
the judge's own ranking, a draw by chance, and all. What a rule is worth is seen in training, not here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from interp.errors import ProbeError, PromptError
from interp.model.model import Model
from interp.text.encoded import as_prompt
from interp.text.judge import Judge, Verdict, judge
from interp.text.prompts import HARMFUL, HARMLESS
from interp.tracing.scores import TraceScores
from interp.tracing.trace import trace
from interp.tracing.traces import Traces
from probes.plateau import Plateau, drops
from probes.prober import Method, refusal_prober

Rule = Literal["cliff", "final", "keyword", "judge", "random", "all"]
RULES: tuple[Rule, ...] = ("cliff", "final", "keyword", "judge", "random", "all")
_REFUSING = re.compile(
    r"\b(?:(?:should|must|will|would|need to|have to|has to|going to|'ll|better) (?:\w+ )?(?:refuse|decline)|"
    r"(?:can ?not|can't|won't|will not|should not|shouldn't|must not|mustn't|unable to|not able to) "
    r"(?:\w+ )?(?:help|assist|comply|provide|answer|give|support|do (?:this|that|it|so)|fulfil\w*)|"
    r"refus(?:e|ing) (?:to|this|that|the|it)\b|declin(?:e|ing) (?:to|this|that|the|it)\b)"
)


@dataclass(frozen=True, eq=False)
class Picks:
    """Unsafe answers that a rule picked.

    Attributes:
        traces: The picked traces, the first choice first.
        rule: How they were picked.
        size: What was asked for: a number, or a share of the harmful traces.
        n_pool: Harmful traces they were picked from.
        table: pandas, the picked rows of `CliffJudge.table`.
        seed: Seed of the draw, and of ties.
    """

    traces: Traces
    rule: Rule
    size: float
    n_pool: int
    table: Any
    seed: int

    def __len__(self) -> int:
        return len(self.traces)

    def __repr__(self) -> str:
        return f"Picks({len(self)} of {self.n_pool} harmful traces by {self.rule!r})"

    def to_frame(self) -> Any:
        """One row per picked trace (pandas)."""
        return self.table


@dataclass(frozen=True, eq=False)
class CliffJudge:
    """The unsafe answers of a pool, with what each rule ranks them by.

    Attributes:
        pool: The traces that were judged and scored: thoughts whole, an answer there.
        table: pandas, one row per unsafe answer: `trace` (index in the pool), `group`, `verdict`, `verdict_score` (the
            judge's log-odds against full compliance, NaN where it gives none), `keyword` (the thought says that it
            refuses), `plateau`, `final`, `cliff` (the misalignment score) and its interval `low`, `high`.
        n_harmful: Harmful traces of the pool, safe and unsafe.
        scores: Score of every token of the pool.
        score: What they were scored by.
        layer: Of a score that does not know its own.
        space: Likewise.
        left_out: How many traces were of no use, and why.
        provenance: Model, template, prompts, settings.
    """

    pool: Traces
    table: Any
    n_harmful: int
    scores: TraceScores
    score: Any
    layer: int | None = None
    space: Any = None
    left_out: Mapping[str, int] = field(default_factory=dict[str, int])
    provenance: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __repr__(self) -> str:
        return f"CliffJudge({len(self.table)} unsafe answers to {self.n_harmful} harmful prompts)"

    def pick(self, rule: Rule = "cliff", size: float = 0.02, seed: int = 0) -> Picks:
        """Pick the answers to repair on.

        Args:
            rule: `"cliff"`: largest misalignment score first. `"final"`: smallest final score first, as in the paper's
                code. `"keyword"`: answers whose thought says that it refuses, in an order drawn by the seed.
                `"judge"`: what the judge finds most compliant first. `"random"`: drawn by the seed. `"all"`: every
                unsafe answer, whatever the size.
            size: A number of answers, or below 1 (or 1.0) a share of the harmful traces of the pool, rounded down.
            seed: For draws and ties.

        Raises:
            PromptError: When nothing would be picked, or fewer answers are there than asked for.
        """
        if rule not in RULES:
            raise ProbeError(f"there is no rule {rule!r}; known: {', '.join(RULES)}")
        wanted = len(self.table) if rule == "all" else self._number(size)
        rows = self.table.iloc[np.random.default_rng(seed).permutation(len(self.table))]
        if rule == "keyword":
            rows = rows[rows["keyword"]]
        elif rule == "judge":
            # Partial answers refuse in part; a judge that does not weigh leaves the draw to decide among equals.
            rows = rows.assign(partial=rows["verdict"] != "compliance").sort_values(
                ["partial", "verdict_score"], kind="stable"
            )
            rows = rows.drop(columns="partial")
        elif rule in ("cliff", "final"):
            rows = rows.sort_values(rule, ascending=rule == "final", kind="stable")
        if wanted > len(rows):
            what = "unsafe answers whose thought says that it refuses" if rule == "keyword" else "unsafe answers"
            raise PromptError(f"{wanted} answers are to be picked by {rule!r}, but there are {len(rows)} {what}")
        rows = rows.iloc[:wanted].reset_index(drop=True)
        return Picks(self.pool.take(rows["trace"].to_numpy()), rule, size, self.n_harmful, rows, seed)

    def to_frame(self) -> Any:
        """One row per unsafe answer (pandas)."""
        return self.table

    def plot(self, picks: Picks | None = None) -> Any:
        """Plateau against final score of every unsafe answer, picked ones marked (plotly)."""
        from probes.figures import misalignment_plane

        return misalignment_plane(self, picks)

    def _number(self, size: float) -> int:
        if isinstance(size, bool) or not size > 0 or (size > 1 and size != int(size)):
            raise PromptError(f"size={size!r} is neither a whole number of answers nor a share of the pool (0 to 1)")
        if size > 1 or isinstance(size, int):
            return int(size)
        wanted = int(size * self.n_harmful + 1e-9)
        if not wanted:
            raise PromptError(
                f"{size:g} of {self.n_harmful} harmful traces is less than one; give a larger size, or roll out more"
            )
        return wanted


def cliff_as_judge(
    model: Model,
    pool: Traces,
    *,
    score: Any = None,
    layer: int | None = None,
    space: Any = None,
    method: Method = "spread",
    plateau: Plateau = "mean",
    window: float = 0.25,
    quantile: float = 0.9,
    judged: Judge = judge,
    max_fitted: int = 256,
    seed: int = 0,
    progress: bool = False,
) -> CliffJudge:
    """Judge a pool of rollouts, and score its unsafe answers by how far the decision to refuse fell.

    An answer to a harmful prompt is unsafe when the judge finds that it complies, in full or in part. Empty answers
    are neither.

    Args:
        model: The model, in thinking mode.
        pool: Its own traces, from `interp.rollouts` or `interp.traces`, labelled harmful, and some harmless.
        score: Anything that `interp.trace` takes, `found.prober` of a `refusal_cliff` for instance. By default a
            refusal prober is fitted on the pool, which then needs harmless traces.
        layer: For a score that does not know its own.
        space: Likewise.
        method: How the prober is fitted: `"spread"` or `"paper"`.
        plateau: `"mean"`, `"max"` or `"quantile"` of the window; see `probes.drops`. The paper's is the maximum.
        window: Share of the thought that is the window.
        quantile: For `plateau="quantile"`.
        judged: Judges answers.
        max_fitted: Most traces of either label that the prober is fitted on, drawn by the seed.
        seed: For the prober.
        progress: Show a progress bar.

    Raises:
        PromptError: When the pool has no harmful trace with a whole thought and an answer, no unsafe answer, or no
            prober can be fitted on it.
    """
    usable, left_out = _usable(pool)
    harmful = [i for i, label in enumerate(usable.labels) if label == HARMFUL]
    if not harmful:
        raise PromptError("the pool has no traces of prompts labelled harmful; give label='harmful' when reading them")
    verdicts = {i: judged(as_prompt(usable[i]).text, usable[i].answer) for i in harmful}
    unsafe = [i for i in harmful if verdicts[i].label in ("compliance", "partial")]
    if not unsafe:
        raise PromptError(
            f"none of the {len(harmful)} answers to harmful prompts is unsafe, so there is nothing to repair"
        )
    if score is None:
        score = _fit(model, usable, method, layer, max_fitted, seed, progress)
        layer = space = None
    scores = trace(model, usable, score, layer, space=space, progress=progress)
    table = drops(scores, layer, plateau=plateau, window=window, quantile=quantile, seed=seed)
    table = table.iloc[unsafe].reset_index(drop=True)[["trace", "group", "plateau", "final", "cliff", "low", "high"]]
    given: list[Verdict] = [verdicts[i] for i in unsafe]
    table.insert(2, "verdict", [v.label for v in given])
    table.insert(3, "verdict_score", [float("nan") if v.score is None else v.score for v in given])
    table.insert(4, "keyword", [says_refusal(usable[i].thinking or "") for i in unsafe])
    settings = {"plateau": plateau, "window": window, "quantile": quantile, "seed": seed}
    told = {"settings": settings, "pool": usable.prompts.digest}
    return CliffJudge(
        usable, table, len(harmful), scores, score, layer, space, left_out, dict(scores.provenance) | told
    )


def says_refusal(thought: str) -> bool:
    """The keyword rule: whether a thought says that it refuses ("I should refuse", "I cannot help")."""
    return _REFUSING.search(thought.lower().replace("\u2019", "'")) is not None


def _usable(pool: Traces) -> tuple[Traces, dict[str, int]]:
    if not len(pool):
        raise PromptError("the pool holds no traces")
    kept = [s == "whole" and bool(t.answer.strip()) for s, t in zip(pool.status, pool, strict=True)]
    found = pool.take(np.asarray(kept))
    if not len(found):
        pool.require_whole()  # says what is wrong with the first
        raise PromptError(f"none of the {len(pool)} traces of the pool has an answer after its thought")
    left_out = {s: pool.status.count(s) for s in sorted(set(pool.status) - {"whole"})}
    blank = pool.status.count("whole") - len(found)
    return found, left_out | ({"no answer": blank} if blank else {})


def _fit(
    model: Model, pool: Traces, method: Method, layer: int | None, most: int, seed: int, progress: bool
) -> Any:  # fmt: skip
    """A prober on a balanced share of the pool."""
    rng = np.random.default_rng(seed)
    rows: list[int] = []
    for label in (HARMFUL, HARMLESS):
        own = [i for i, given in enumerate(pool.labels) if given == label]
        rows += sorted(int(i) for i in rng.permutation(own)[:most])
    try:
        return refusal_prober(model, pool.take(rows), method=method, layers=layer, seed=seed, progress=progress)
    except PromptError as error:
        raise PromptError(f"{error}; or give score=, a prober fitted on other traces") from error
