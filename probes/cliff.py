"""The refusal cliff of a model: does the decision to refuse hold along the thought, and fall off at its end?

After "Refusal Falls off a Cliff" (arXiv 2510.06036), with controls: harmless traces, shuffled labels, and scores that
change places within each trace. A trace falls when it stands above the level between the classes in its late thought
and below it at the last token before the answer. A cliff is claimed when more harmful than harmless traces fall, by
more than in any control.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, cast

import numpy as np

from interp.errors import PromptError
from interp.model.model import Model
from interp.stats import Rate, newcombe
from interp.text.judge import Judge, judge
from interp.text.prompts import HARMFUL, HARMLESS
from interp.tracing.scores import TraceScores
from interp.tracing.trace import trace
from interp.tracing.traces import Traces
from probes.cliff_finding import find_cliff
from probes.decided import decisions
from probes.plateau import Plateau
from probes.prober import Method, RefusalProber, refusal_prober

_MIN_EACH = 8


@dataclass(frozen=True, eq=False)
class RefusalCliff:
    """What was found along the thoughts of a model.

    Attributes:
        found: Whether a cliff is claimed.
        reason: Why, or why not, in a sentence.
        table: pandas, one row per held-out trace: see `probes.plateau`, and `falls`, whether it shows the cliff.
        level: Between the plateaus of harmful and of harmless training traces: above is refusing.
        min_drop: Half the distance of those plateaus: the least drop that counts.
        harmful: Held-out harmful traces that show it.
        harmless: Harmless ones.
        difference: 95 % interval of the difference (Newcombe).
        shuffled_labels: Harmful minus harmless rate, with the labels of training and held-out traces shuffled, and
            prober and level fitted anew.
        shuffled_places: Harmful minus harmless rate, with scores that change places within each trace.
        behaviour: Refusal after thinking, and without (where thinking can be switched off), by label.
        scores: Scores of the held-out traces, `None` where nothing could be scored.
        prober: The prober, where one was fitted.
        transfer: How the prober does along held-out thoughts; `None` where a score was given.
        plateau: How the plateau was taken.
        provenance: Model, template, prompts, settings.
    """

    found: bool
    reason: str
    table: Any
    level: float
    min_drop: float
    harmful: Rate
    harmless: Rate
    difference: tuple[float, float]
    shuffled_labels: tuple[float, ...]
    shuffled_places: tuple[float, ...]
    behaviour: Mapping[str, Rate]
    scores: TraceScores | None
    prober: RefusalProber | None
    transfer: Any
    plateau: Mapping[str, Any]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"RefusalCliff({'found' if self.found else 'none'}: {self.reason})"

    @property
    def falls_at(self) -> Mapping[str, int]:
        """At which token the harmful traces that show the cliff fall."""
        shown = self.table[self.table["falls"] & (self.table["label"] == HARMFUL)] if len(self.table) else self.table
        return {str(k): int(v) for k, v in shown["fall"].value_counts().items()} if len(shown) else {}

    def to_frame(self) -> Any:
        """One row per held-out trace (pandas)."""
        return self.table

    def plot(self, bins: int = 10) -> Any:
        """The score along the thought, by label, with its band (plotly)."""
        from probes.figures import trace_curve

        if self.scores is None:
            raise PromptError(f"there is nothing to draw: {self.reason}")
        return trace_curve(self.scores, bins=bins, level=self.level)


def refusal_cliff(
    model: Model,
    traces: Traces,
    *,
    score: Any = None,
    layer: int | None = None,
    space: Any = None,
    method: Method = "spread",
    plateau: Plateau = "mean",
    window: float = 0.25,
    quantile: float = 0.9,
    n_shuffles: int = 5,
    judged: Judge = judge,
    seed: int = 0,
    progress: bool = False,
) -> RefusalCliff:
    """Look for the refusal cliff.

    The prober, its layer and the level are taken from training traces; everything that is reported is held out.

    Args:
        model: The model, in thinking mode.
        traces: Traces with labels harmful and harmless, from `interp.rollouts` or `interp.traces`. Where they are not
            split, groups are split in halves. Traces without a whole thought and an answer are left out.
        score: Anything that `interp.trace` takes; by default a prober is fitted on the training traces.
        layer: For a score that does not know its own.
        space: Likewise.
        method: How the prober is fitted: `"spread"` or `"paper"`.
        plateau: `"mean"`, `"max"` or `"quantile"` of the window; see `probes.plateau`.
        window: Share of the thought that is the window.
        quantile: For `plateau="quantile"`.
        n_shuffles: Controls of either kind.
        judged: Judges answers.
        seed: For splits, controls and bootstraps.
        progress: Show a progress bar.

    Raises:
        PromptError: When there are fewer than 8 usable traces of a label in a split.
    """
    usable = _usable(traces)
    if not any(p.split for p in usable.prompts):
        usable = usable.split(0.5, 0.0, 0.5, seed=seed)
    train, test = usable.take([p.split in ("train", "val") for p in usable.prompts]), usable.test
    for part, name in ((train, "train"), (test, "test")):
        for label in (HARMFUL, HARMLESS):
            if (n := part.labels.count(label)) < _MIN_EACH:
                raise PromptError(
                    f"{n} {label} traces are there to {name} on, with a whole thought and an answer; "
                    f"{_MIN_EACH} are needed"
                )
    settings: dict[str, Any] = {"plateau": plateau, "window": window, "quantile": quantile}
    told = {"settings": settings, "seed": seed}
    held = decisions(model, test, judged=judged, progress=progress)
    behaviour = _behaviour(test, held.after, held.direct)
    prober: RefusalProber | None = None
    if score is None:
        known = decisions(model, train, judged=judged, progress=progress)
        try:
            prober = refusal_prober(
                model, train, method=method, layers=layer, decided=known, seed=seed, progress=progress
            )
        except PromptError as error:
            return _nothing(str(error), behaviour, settings, model.provenance() | told)
        score, layer, space = prober, None, None

    def scored(part: Traces, by: Any) -> TraceScores:
        return trace(model, part, by, layer, space=space, progress=progress)

    fitted, scores = scored(train, score), scored(test, score)
    shuffled: list[float] = []
    for i in range(n_shuffles if prober is not None else 0):
        one, other = _relabelled(train, seed + i), _relabelled(test, seed + n_shuffles + i)
        by = cast(RefusalProber, prober).relabelled([v == HARMFUL for v in one.labels])
        control = find_cliff(scored(one, by), scored(other, by), **settings, n_shuffles=0, seed=seed)
        shuffled.append(control.harmful.value - control.harmless.value)
    finding = find_cliff(fitted, scores, **settings, n_shuffles=n_shuffles, controls=shuffled, seed=seed)
    intended = np.asarray([bool(v) for v in held.intended])
    transfer = None
    if prober is not None and 0 < intended.sum() < len(intended):
        transfer = prober.transfer(model, test, intended, seed=seed)
    return RefusalCliff(
        **{f.name: getattr(finding, f.name) for f in fields(finding)},
        difference=newcombe(finding.harmful, finding.harmless),
        shuffled_labels=tuple(shuffled), behaviour=behaviour, scores=scores, prober=prober, transfer=transfer,
        plateau=settings, provenance=dict(scores.provenance) | told | {"traces": usable.prompts.digest},
    )  # fmt: skip


def _relabelled(traces: Traces, seed: int) -> Traces:
    """The control: labels dealt out anew among the traces."""
    labels = np.random.default_rng(seed).permutation(np.asarray(traces.labels, dtype=object)).tolist()
    prompts = [replace(p, label=label) for p, label in zip(traces.prompts, labels, strict=True)]
    return replace(traces, traces=tuple(replace(t, prompt=p) for t, p in zip(traces, prompts, strict=True)))


def _usable(traces: Traces) -> Traces:
    if not len(traces):
        raise PromptError("no traces were given")
    kept = traces.take([s == "whole" and bool(t.answer.strip()) for s, t in zip(traces.status, traces, strict=True)])
    if not len(kept):
        traces.require_whole()  # says what is wrong with the first
        raise PromptError(f"none of the {len(traces)} traces has an answer after its thought")
    return kept


def _behaviour(traces: Traces, after: Sequence[bool | None], direct: Sequence[bool] | None) -> dict[str, Rate]:
    found: dict[str, Rate] = {}
    kinds: dict[str, Sequence[bool | None]] = {"after thinking": after}
    if direct is not None:
        kinds["without thinking"] = direct
    for name, refused in kinds.items():
        for label in (HARMFUL, HARMLESS):
            own = [bool(r) for r, given in zip(refused, traces.labels, strict=True) if given == label]
            found[f"{label}, {name}"] = Rate(sum(own), len(own))
    return found


def _nothing(
    why: str, behaviour: Mapping[str, Rate], settings: Mapping[str, Any], provenance: Mapping[str, Any]
) -> RefusalCliff:
    import pandas as pd

    return RefusalCliff(
        found=False, reason=f"nothing to follow: {why}", table=pd.DataFrame(), level=float("nan"),
        min_drop=float("nan"),
        harmful=Rate(0, 0), harmless=Rate(0, 0), difference=(float("nan"), float("nan")), shuffled_labels=(),
        shuffled_places=(), behaviour=behaviour, scores=None, prober=None, transfer=None, plateau=settings,
        provenance=provenance,
    )  # fmt: skip
