"""Does a planning probe of one set of prompts hold on another? Fit in each, test in each, without refitting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from interp.bootstrap import group_draws
from interp.errors import ProbeError
from probes.planning.baselines import without_input
from probes.planning.examples import PlanExamples, cell
from probes.planning.joining import Design, join
from probes.planning.learning import LINEAR, WIDTHS, Fitted, Parts, Target, fit_kind
from probes.planning.linear import Floats
from probes.planning.scoring import NAMES, RANGES, check_metric, score, score_draws

DRAWS = 500


@dataclass(frozen=True)
class PlanTransfer:
    """Scores of probes at the last prompt token, fitted in one set (rows) and tested in another (columns).

    Attributes:
        table: pandas, a row per pair: `train`, `test`, `layer` (chosen where it was fitted), `metric`, `value`, `low`,
            `high` (95 %), `native` (fitted where it is tested, on the same test rows), `difference`, `difference_low`,
            `difference_high` (to the native, paired), `chance` (majority or mean of the set it was fitted in), `n`.
        metric: The score.
        attribute: What is foretold.
    """

    table: Any
    metric: str
    attribute: str

    def __repr__(self) -> str:
        names = list(dict.fromkeys(self.table["train"]))
        moved = self.table[self.table["train"] != self.table["test"]]
        return (
            f"PlanTransfer of {self.attribute}: {NAMES[self.metric]} of probes fitted in one of {', '.join(names)} and "
            f"tested in each\n  where fitted: {_span(self.table.drop(moved.index)['value'])}; elsewhere: "
            f"{_span(moved['value'])}; without input: {_span(self.table['chance'])}"
        )

    def matrix(self) -> Any:
        """The score, fitted in rows and tested in columns (pandas)."""
        order = list(dict.fromkeys(self.table["train"]))
        return self.table.pivot(index="train", columns="test", values="value").loc[order, order]

    def to_frame(self) -> Any:
        """One row per pair (pandas)."""
        return self.table

    def plot(self) -> Any:
        """A map of the pairs (plotly)."""
        from probes.figures.planning import plan_transfer_map

        return plan_transfer_map(self)


def plan_transfer(
    sets: Mapping[str, PlanExamples],
    *,
    kind: str = LINEAR,
    metric: str | None = None,
    widths: Sequence[int] = WIDTHS,
    seed: int = 0,
    draws: int = DRAWS,
) -> PlanTransfer:
    """Fit a probe in each set, choosing its layer there, and test it on the test rows of each.

    Test rows whose group is among the training or validation rows of another set are left out for all, so that no
    probe has seen the groups that it is tested on.

    Args:
        sets: By name; of one attribute, with the same layers.
        kind: `"linear"` or `"mlp"`.
        metric: As for `fit_plan`.
        widths: Widths of the network.
        seed: Of splits, bootstrap and first weights.
        draws: Bootstrap draws of groups.

    Raises:
        ProbeError: For fewer than two sets, or sets that differ in attribute, layers, width or classes.
    """
    first = _alike(sets)
    metric = check_metric(metric, first.kind)
    classes = tuple(np.unique(np.concatenate([e.labels for e in sets.values()])).tolist()) if first.classes else ()
    parts = {name: e.split(seed) for name, e in sets.items()}
    seen = {name: set(e.groups[parts[name] != "test"].tolist()) for name, e in sets.items()}
    tested = {
        name: np.array([
            i for i in np.flatnonzero(parts[name] == "test")
            if not any(e.groups[i] in s for other, s in seen.items() if other != name)
        ], dtype=np.int64)
        for name, e in sets.items()
    }  # fmt: skip
    for name, rows in tested.items():
        if len(set(sets[name].groups[rows].tolist())) < 2:
            raise ProbeError(f"nearly all test groups of {name!r} are in another set too: give sets of other prompts")
    found: dict[tuple[str, str], tuple[Floats, int]] = {}
    chance: dict[tuple[str, str], Floats] = {}
    for source in sets:
        probe, layer, train = _chosen(sets, source, parts[source], tested, classes, kind, metric, widths, seed)
        for target, rows in tested.items():
            found[source, target] = probe[target], layer
            chance[source, target] = without_input(train, len(rows))
    table: list[dict[str, Any]] = []
    for (source, target), (predicted, layer) in found.items():
        examples, at = sets[target], tested[target]
        truth = Target.of(examples.labels, classes).y[at]
        weights = group_draws(examples.groups[at], draws, seed)
        design = Design(1, float((parts[source] == "train").sum()), len(at), len(set(examples.groups[at].tolist())))
        native = found[target, target][0]
        values = [score(metric, truth, p) for p in (predicted, native, chance[source, target])]
        drawn = [score_draws(metric, truth, p, weights) for p in (predicted, native)]
        low, high = join(values[:1], drawn[:1], design).interval(within=RANGES[metric])
        gap = join([values[0] - values[1]], [drawn[0] - drawn[1]], design)
        table.append({
            "train": source, "test": target, "layer": layer, "metric": metric, "value": values[0], "low": low,
            "high": high, "native": values[1], "difference": gap.value, "difference_low": gap.interval()[0],
            "difference_high": gap.interval()[1], "chance": values[2], "n": len(at),
        })  # fmt: skip
    import pandas as pd

    return PlanTransfer(pd.DataFrame(table), metric, first.attribute)


def _span(values: Any) -> str:
    return f"{values.min():.2f} to {values.max():.2f}"


def _chosen(
    sets: Mapping[str, PlanExamples], source: str, part: Any, tested: Mapping[str, Any], classes: tuple[Any, ...],
    kind: str, metric: str, widths: Sequence[int], seed: int,
) -> tuple[dict[str, Floats], int, Target]:  # fmt: skip
    """Predictions for each set by the probe of the best layer on validation rows, that layer, and training labels."""
    own = sets[source]
    target = Target.of(own.labels, own.classes)
    train, val = (target.with_labels(target.y[part == p]) for p in ("train", "val"))
    best: tuple[float, Fitted, int] | None = None
    ends = np.cumsum([len(rows) for rows in tested.values()])[:-1]
    for i, layer in enumerate(own.layers):
        x = cell(own.prompt[:, i], f"{source!r}, layer {layer}")
        new = np.concatenate([cell(sets[n].prompt[rows, i], f"{n!r}, layer {layer}") for n, rows in tested.items()])
        both = np.concatenate([x, new])
        split = (np.flatnonzero(part == "train"), np.flatnonzero(part == "val"), np.arange(len(x), len(both)))
        fitted = fit_kind(kind, Parts.of(both, *split), train, val, widths=widths, seed=seed)
        reached = score(metric, val.y, fitted.val)
        if best is None or reached > best[0]:
            best = reached, fitted, layer
    assert best is not None
    # Class numbers of one set are not those of all.
    moved = np.array([classes.index(c) for c in own.classes], dtype=np.float64)

    def named(values: Floats) -> Floats:
        return moved[values.astype(np.intp)] if classes else values

    predicted = dict(zip(tested, np.split(named(best[1].test), ends), strict=True))
    return predicted, best[2], Target(named(train.y), classes)


def _alike(sets: Mapping[str, PlanExamples]) -> PlanExamples:
    if len(sets) < 2:
        raise ProbeError("transfer needs two sets of prompts or more")
    first_name, first = next(iter(sets.items()))
    for name, examples in sets.items():
        for what in ("attribute", "kind", "layers"):
            one, other = getattr(first, what), getattr(examples, what)
            if one != other:
                raise ProbeError(f"{first_name!r} and {name!r} differ in {what}: {one!r} and {other!r}")
        if first.prompt.shape[2] != examples.prompt.shape[2]:
            raise ProbeError(f"states of {first_name!r} and {name!r} differ in width: they are of two models")
    return first
