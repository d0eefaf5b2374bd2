"""One seed: split, fit every cell, choose on validation rows, look at the test rows once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from interp.bootstrap import group_draws
from probes.planning.baselines import (
    MAJORITY,
    MEAN,
    SHUFFLED,
    Split,
    dealt_anew,
    of_prompt,
    so_far,
    without_input,
)
from probes.planning.examples import PROMPT, PlanExamples, cell
from probes.planning.learning import KINDS, LINEAR, MLP, Fitted, Parts, Target, fit_kind
from probes.planning.linear import Floats
from probes.planning.scoring import score, score_draws

SHUFFLES = 5
_VAL_DRAWS = 200
Key = tuple[str, int, str]
"""Position, layer, kind of probe."""


@dataclass(frozen=True, eq=False)
class Choice:
    """What was chosen for a position on validation rows.

    Attributes:
        layer: The layer.
        kind: Kind of probe.
        setting: Its penalty, or width and penalty.
        val: Its score on validation rows.
    """

    layer: int
    kind: str
    setting: tuple[float, ...]
    val: float


@dataclass(frozen=True, eq=False)
class Round:
    """What one seed found.

    Attributes:
        seed: The seed.
        split: Numbers of the training, validation and test rows.
        truth: Labels of the test rows, `[test row]`: numbers or class numbers.
        draws: Bootstrap draws of the groups of test rows, `[draw, test row]`.
        cells: Predictions of test rows, and validation score, of each cell.
        chosen: For each position, what was chosen.
        baselines: For each position, predictions of test rows by each baseline: `[test row]`, or `[fit, test row]` for
            those that are averaged over several fits.
    """

    seed: int
    split: Split
    truth: Floats
    draws: Floats
    cells: dict[Key, tuple[Floats, float]]
    chosen: dict[str, Choice]
    baselines: dict[str, dict[str, Floats]]
    _kept: dict[tuple[str, int], tuple[float, Floats]] = field(default_factory=dict, repr=False)

    def predicted(self, position: str) -> Floats:
        """Predictions of test rows by the probe that was chosen for a position."""
        choice = self.chosen[position]
        return self.cells[position, choice.layer, choice.kind][0]

    def scored(self, metric: str, predicted: Floats) -> tuple[float, Floats]:
        """A score of the test rows, and of each draw of them; of several fits, the mean."""
        key = (metric, id(predicted))
        if key not in self._kept:
            rows = np.atleast_2d(predicted)
            value = float(np.mean([score(metric, self.truth, p) for p in rows]))
            self._kept[key] = value, np.mean([score_draws(metric, self.truth, p, self.draws) for p in rows], axis=0)
        return self._kept[key]


def cells_of(examples: PlanExamples, kinds: Sequence[str]) -> list[tuple[str, int, int, tuple[str, ...]]]:
    """What is to be fitted: position, number of the segment (-1 for the prompt), layer, kinds of probe.

    Along the answer probes are linear: the curve then compares like with like, and costs what it is worth.
    """
    found = [(PROMPT, -1, layer, tuple(kinds)) for layer in examples.layers]
    along = kinds if LINEAR not in kinds else (LINEAR,)
    for s, segment in enumerate(examples.segments):
        found += [(segment.name, s, layer, tuple(along)) for layer in examples.along_layers]
    return found


def one_round(
    examples: PlanExamples,
    seed: int,
    *,
    kinds: Sequence[str] = KINDS,
    widths: Sequence[int],
    metric: str,
    draws: int,
    advance: Callable[[int], None] = lambda _n: None,
) -> Round:
    """Everything for one seed.

    Args:
        examples: The examples.
        seed: Of the split, the bootstrap, shuffled labels and first weights of networks.
        kinds: Kinds of probe to choose from.
        widths: Widths of the network.
        metric: The score by which layer and kind are chosen.
        draws: Bootstrap draws.
        advance: Called after each cell.

    Raises:
        ProbeError: When groups are too few to reach every part, or a state is not finite.
    """
    part = examples.split(seed)
    split: Split = (np.flatnonzero(part == "train"), np.flatnonzero(part == "val"), np.flatnonzero(part == "test"))
    target = Target.of(examples.labels, examples.classes)
    train, val, truth = (target.with_labels(target.y[rows]) for rows in split)
    cells: dict[Key, tuple[Floats, float]] = {}
    fitted: dict[Key, Fitted] = {}
    for position, s, layer, fit_kinds in cells_of(examples, kinds):
        parts = Parts.of(_states(examples, s, layer), *split)
        for kind in fit_kinds:
            found = fit_kind(kind, parts, train, val, widths=widths, seed=seed)
            fitted[position, layer, kind] = found
            cells[position, layer, kind] = (found.test, score(metric, val.y, found.val))
        advance(1)
    val_draws = group_draws(examples.groups[split[1]], _VAL_DRAWS, seed)
    chosen: dict[str, Choice] = {}
    for position in (PROMPT, *(s.name for s in examples.segments)):
        chosen[position] = _choose(position, fitted, cells, val.y, val_draws, metric)
    return Round(
        seed, split, truth.y, group_draws(examples.groups[split[2]], draws, seed), cells, chosen,
        _baselines(examples, split, train, val, chosen, widths, seed),
    )  # fmt: skip


def _choose(
    position: str, fitted: dict[Key, Fitted], cells: dict[Key, tuple[Floats, float]], truth: Floats, draws: Floats,
    metric: str,
) -> Choice:  # fmt: skip
    """The layer with the best validation score; a network only where it gains more than one standard error."""
    best: dict[str, Key] = {}
    for key in (k for k in cells if k[0] == position):
        # Of equal scores the one with less loss, as scores of few rows are coarse.
        if key[2] not in best or _rank(cells, fitted, key) > _rank(cells, fitted, best[key[2]]):
            best[key[2]] = key
    taken = best[next(k for k in KINDS if k in best)]
    if LINEAR in best and MLP in best:
        gains = score_draws(metric, truth, fitted[best[MLP]].val, draws)
        gains = gains - score_draws(metric, truth, fitted[best[LINEAR]].val, draws)
        if cells[best[MLP]][1] - cells[best[LINEAR]][1] > float(np.nanstd(gains)):
            taken = best[MLP]
    return Choice(taken[1], taken[2], fitted[taken].setting, cells[taken][1])


def _rank(cells: dict[Key, tuple[Floats, float]], fitted: dict[Key, Fitted], key: Key) -> tuple[float, float]:
    return round(cells[key][1], 9), -fitted[key].loss


def _baselines(
    examples: PlanExamples, split: Split, train: Target, val: Target, chosen: dict[str, Choice],
    widths: Sequence[int], seed: int,
) -> dict[str, dict[str, Floats]]:  # fmt: skip
    """For each position, the predictions that it is compared with."""
    simple = without_input(train, len(split[2]))
    shared = {MAJORITY if examples.classes else MEAN: simple}
    asked = of_prompt(examples, split, train, val, chosen[PROMPT].kind, widths, seed)
    found: dict[str, dict[str, Floats]] = {}
    for s, (position, choice) in enumerate(chosen.items(), start=-1):
        x = _states(examples, s, choice.layer)
        shuffled = _shuffled(examples, x, split, train, val, choice, seed)
        found[position] = {**shared, SHUFFLED: shuffled, **asked}
        if s >= 0:
            found[position] |= so_far(examples, s, split, train, val)
    return found


def _shuffled(
    examples: PlanExamples, x: Floats, split: Split, train: Target, val: Target, choice: Choice, seed: int
) -> Floats:
    """The chosen probe fitted to labels dealt anew, a few times: `[fit, test row]`."""
    parts = Parts.of(x, *split)
    rng = np.random.default_rng([seed, 11])
    found: list[Floats] = []
    for _ in range(SHUFFLES):
        anew = train.with_labels(dealt_anew(train.y, examples.groups[split[0]], rng))
        if train.classes and len(np.unique(anew.y)) < len(train.classes):
            anew = train.with_labels(rng.permutation(train.y))  # a class went missing with a group
        found.append(fit_kind(choice.kind, parts, anew, val, seed=seed, setting=choice.setting).test)
    return np.stack(found)


def _states(examples: PlanExamples, segment: int, layer: int) -> NDArray[np.float64]:
    where = f"attribute {examples.attribute!r}, layer {layer}"
    if segment < 0:
        return cell(examples.prompt[:, examples.layers.index(layer)], f"{where}, last prompt token")
    assert examples.along is not None
    states = examples.along[:, segment, examples.along_layers.index(layer)]
    return cell(states, f"{where}, segment {examples.segments[segment].name!r}")
