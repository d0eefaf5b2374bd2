"""The refusal prober: how strongly a hidden state says that the answer will be a refusal.

Two ways to fit it. `"paper"`: the last token after the thought, last layer, after the final norm, answers that refuse a
harmful prompt against answers to harmless ones (arXiv 2510.06036, section 3 and official code; theirs is the same
logistic regression, stopped after five epochs). `"spread"`, ours: late tokens of the thought, and the tokens that
decide, with and without thinking; a probe that never saw a thought transfers poorly to one, and the paper follows it
there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interp.errors import ProbeError, PromptError
from interp.model.model import Model
from interp.stats import auroc, auroc_interval
from interp.text.prompts import HARMFUL
from interp.tracing.trace import trace
from interp.tracing.traces import Traces
from probes.decided import Decisions, decisions
from probes.estimators import LogisticProbe
from probes.estimators.base import Place
from probes.prober_fit import fit_rows, folds_of, validate
from probes.prober_rows import KINDS, Rows, balanced, read_rows, rows_of, truth_of, usable_kinds

Method = Literal["spread", "paper"]
_PARTS = {"late": "late thought", "decision": "after the thought", "direct": "without thinking"}


@dataclass(frozen=True, eq=False)
class RefusalProber:
    """A fitted prober; give it to `interp.trace` as the score.

    Attributes:
        probe: Logistic regression on one layer; its classes are False and True (refuses).
        method: `"spread"` or `"paper"`.
        layer: 0-based layer of `resid_post`.
        space: `"site"`: before the final norm; `"normed"`: after it.
        kinds: Which tokens it was fitted on: `late`, `decision`, `direct`.
        left_out: Which were left out, and why.
        table: pandas, one row per layer tried, cross-validated over groups: `late`, `decision`, `direct` (AUROC of
            refused against answered), `agreement` (how often the score after the thought says what the answer does,
            mean over classes), `late_right` (how often the late thought and the decision without thinking are on the
            right side of one half), `chosen`.
        beside: The probe of the same layer fitted on decisions alone, to show what it misses; `None` where it is the
            same.
        fitted_on: Rows, labels and groups of the fit; for controls.
        n: Refused and answered traces.
        provenance: Model, template, prompts.
    """

    probe: LogisticProbe
    method: Method
    layer: int
    space: Literal["site", "normed"]
    kinds: tuple[str, ...]
    left_out: Mapping[str, str]
    table: Any
    beside: LogisticProbe | None
    fitted_on: Rows
    n: tuple[int, int]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        norm = "after the final norm" if self.space == "normed" else "before the final norm"
        return (
            f"RefusalProber({self.method!r}, resid_post[{self.layer}] {norm}, fitted on {', '.join(self.kinds)}; "
            f"{self.n[0]} refused, {self.n[1]} answered)"
        )

    @property
    def place_(self) -> Place:
        """Site and layer, as `interp.trace` asks for them."""
        return Place("resid_post", self.layer)

    @property
    def n_features_in_(self) -> int:
        """Width it was fitted to."""
        return self.probe.n_features_in_

    @property
    def classes_(self) -> NDArray[Any]:
        """False and True."""
        return self.probe.classes_

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Probabilities `[n, 2]`; the second is refusal."""
        return self.probe.predict_proba(X)

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Log-odds of refusal `[n]`."""
        return self.probe.decision_function(X)

    def relabelled(self, refused: Sequence[bool]) -> RefusalProber:
        """The same fit with other labels, one for each of the traces it was fitted on: for controls."""
        rows = self.fitted_on
        y = np.asarray(refused, dtype=bool)[rows.trace]
        return replace(self, probe=fit_rows(replace(rows, y=y), self.probe.C), beside=None)

    def transfer(self, model: Model, traces: Traces, refused: ArrayLike, *, bins: int = 10, seed: int = 0) -> Any:
        """How well it tells refused from answered prompts along the thought, on other traces (pandas).

        One row per place and probe: `probe` (this one, and the one fitted on decisions alone), `column`, `auroc`,
        `low`, `high` (bootstrap over groups), `n`.

        Args:
            model: The model.
            traces: Held-out traces.
            refused: For each, whether its prompt is refused (with thinking off, or by a model without a cliff).
            bins: Bins of the thought.
            seed: For the bootstrap.
        """
        import pandas as pd

        y = np.asarray(refused, dtype=bool)
        rows: list[dict[str, Any]] = []
        several = {"prober": self.probe} | ({} if self.beside is None else {"decisions alone": self.beside})
        for name, probe in several.items():
            scored = trace(model, traces, replace(self, probe=probe)).aligned(bins, prompt_bins=0, answer_bins=0)
            for c, column in enumerate(scored.columns):
                values = scored.values[:, 0, c]
                there = ~np.isnan(values)
                if len(set(y[there].tolist())) < 2:
                    continue
                groups = np.asarray(scored.groups)[there]
                low, high = auroc_interval(values[there], y[there], groups, seed=seed)
                rows.append(
                    {"probe": name, "column": column, "auroc": auroc(values[there], y[there]), "low": low, "high": high,
                     "n": int(there.sum())}
                )  # fmt: skip
        return pd.DataFrame(rows)


def refusal_prober(
    model: Model,
    traces: Traces,
    *,
    method: Method = "spread",
    layers: int | Sequence[int] | None = None,
    normed: bool | None = None,
    decided: Decisions | None = None,
    late_tokens: int = 12,
    C: float = 0.01,
    folds: int = 5,
    seed: int = 0,
    progress: bool = False,
) -> RefusalProber:
    """Fit the refusal prober.

    Positive are prompts that the model refuses; negative are harmless ones that it answers. Harmful prompts that it
    answers are neither. The layer, where several are given, is the one whose score is right about the late thought and
    says what the answer after it does, cross-validated over groups of the traces given; of equals, the deepest.

    Args:
        model: The model, in thinking mode.
        traces: Training traces with labels harmful and harmless; every thought whole.
        method: `"spread"` (ours) or `"paper"`.
        layers: Layers to choose from; by default all, and the last for the paper's.
        normed: Read after the final norm; by default only for the paper's. The two must not be mixed: weights fitted
            after the norm mean nothing before it.
        decided: What the model decided, from `decisions`; made when left out.
        late_tokens: Most tokens of the last quarter of a thought, spread evenly. The kinds of tokens weigh the same,
            however many there are of each.
        C: Inverse strength of the penalty, on standardised features.
        folds: Folds over groups.
        seed: For balancing and folds.
        progress: Show a progress bar.

    Raises:
        PromptError: When traces are not whole, or the model refuses nothing, or everything.
    """
    import pandas as pd

    if method not in ("spread", "paper"):
        raise ProbeError(f"there is no method {method!r}; known: spread, paper")
    traces.require_whole()
    if HARMFUL not in traces.labels:
        raise PromptError("the prober needs traces of prompts labelled harmful and of others; these have no such label")
    normed = method == "paper" if normed is None else normed
    if layers is None:
        layers = model.n_layers - 1 if method == "paper" else None
    chosen = model.layers_for(["resid_post"], layers)
    decided = decided or decisions(model, traces, progress=progress)
    wanted = ("decision",) if method == "paper" else KINDS
    read = read_rows(model, traces, decided, chosen, wanted, normed, late_tokens, progress)
    truth = truth_of(traces, decided, wanted)
    kinds, left_out = usable_kinds(truth, traces)
    if not kinds or kinds == ("late",):
        raise PromptError(
            "no refusal prober can be fitted: " + "; ".join(f"{_PARTS[k]}: {w}" for k, w in left_out.items())
        )
    groups = np.unique(np.asarray(traces.groups), return_inverse=True)[1]
    label = np.asarray([v == HARMFUL for v in traces.labels])
    after = [decided.after[i] for i in range(len(traces))]
    fold_of = folds_of(groups, folds, seed)
    keep = balanced(truth, kinds, seed)
    scored: list[dict[str, Any]] = []
    for place, layer in enumerate(chosen):
        rows = rows_of(read, truth, keep, kinds, place)
        scored.append({"layer": layer, **validate(rows, read, place, truth, fold_of, after, label, C)})
    table = pd.DataFrame(scored)
    merit = table["late_right"].fillna(1.0) + table["agreement"].fillna(1.0)
    best = int(np.flatnonzero(merit >= merit.max() - 1e-9)[-1])
    table["chosen"] = [i == best for i in range(len(table))]
    rows = rows_of(read, truth, keep, kinds, best)
    alone = rows.of(rows.kind != "late")
    return RefusalProber(
        probe=fit_rows(rows, C), method=method, layer=chosen[best],
        space="normed" if normed else "site", kinds=kinds, left_out=left_out, table=table,
        beside=fit_rows(alone, C) if "late" in kinds else None, fitted_on=rows,
        n=(len(set(rows.trace[rows.y].tolist())), len(set(rows.trace[~rows.y].tolist()))),
        provenance={**model.provenance(), "traces": traces.prompts.digest, "method": method},
    )  # fmt: skip
