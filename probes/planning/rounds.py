"""One seed: split, fit every cell, choose on validation rows, look at the test rows once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from interp.bootstrap import group_draws
from probes.planning.baselines import MAJORITY, MEAN, SHUFFLED, Split, dealt_anew, of_prompt, so_far, without_input
from probes.planning.examples import PROMPT, PlanExamples, cell
from probes.planning.learning import KINDS, LINEAR, Parts, Target, fit_kind
from probes.planning.linear import Floats
from probes.planning.scoring import score, score_draws

SHUFFLES = 5
Key = tuple[str, int, str]
"""Position, layer, kind of probe."""


@dataclass(frozen=True, eq=False)
class Cell:
    """A probe of one cell.

    Attributes:
        test: Predictions of test rows.
        val: Score on validation rows.
        loss: Loss on validation rows.
        setting: Penalty, or width and penalty, chosen by that loss.
    """

    test: Floats
    val: float
    loss: float
    setting: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Round:
    """What one seed found.

    Attributes:
        seed: The seed.
        split: Numbers of the training, validation and test rows.
        truth: Labels of the test rows, `[test row]`: numbers or class numbers.
        draws: Bootstrap draws of the groups of test rows, `[draw, test row]`.
        cells: The probe of each cell.
        chosen: For each position and kind of probe, the layer that was chosen on validation rows.
        baselines: For each position and kind of probe, predictions of test rows by each baseline: `[test row]`, or
            `[fit, test row]` for those that are averaged over several fits.
    """

    seed: int
    split: Split
    truth: Floats
    draws: Floats
    cells: dict[Key, Cell]
    chosen: dict[tuple[str, str], int]
    baselines: dict[tuple[str, str], dict[str, Floats]]
    _kept: dict[tuple[str, int], tuple[float, Floats]] = field(default_factory=dict, repr=False)

    def probe(self, position: str, kind: str) -> Cell:
        """The probe of the layer that was chosen for a position."""
        return self.cells[position, self.chosen[position, kind], kind]

    def scored(self, metric: str, predicted: Floats) -> tuple[float, Floats]:
        """A score of the test rows, and of each draw of them; of several fits, the mean."""
        key = (metric, id(predicted))
        if key not in self._kept:
            rows = np.atleast_2d(predicted)
            value = float(np.mean([score(metric, self.truth, p) for p in rows]))
            self._kept[key] = value, np.mean([score_draws(metric, self.truth, p, self.draws) for p in rows], axis=0)
        return self._kept[key]


def deciding_kind(kinds: Sequence[str]) -> str:
    """The kind of probe that claims rest on: linear where there is one (see `probes.planning.baselines`)."""
    return LINEAR if LINEAR in kinds else kinds[0]


def cells_of(examples: PlanExamples, kinds: Sequence[str]) -> list[tuple[str, int, int, tuple[str, ...]]]:
    """What is to be fitted: position, number of the segment (-1 for the prompt), layer, kinds of probe.

    Along what is written there are probes of the deciding kind alone: the curve is made of them.
    """
    cells = [(PROMPT, -1, layer, tuple(kinds)) for layer in examples.layers]
    for s, segment in enumerate(examples.segments):
        cells += [(segment.name, s, layer, (deciding_kind(kinds),)) for layer in examples.along_layers]
    return cells


def one_round(
    examples: PlanExamples,
    seed: int,
    *,
    kinds: Sequence[str] = KINDS,
    widths: Sequence[int],
    metric: str,
    draws: int,
    known: Round | None = None,
    advance: Callable[[int], None] = lambda _n: None,
) -> Round:
    """Everything for one seed.

    Args:
        examples: The examples.
        seed: Of the split, the bootstrap, shuffled labels and first weights of networks.
        kinds: Kinds of probe.
        widths: Widths of the network.
        metric: The score by which the layer is chosen.
        draws: Bootstrap draws.
        known: A round with the same split, whose linear probes are the same too.
        advance: Called after each cell.

    Raises:
        ProbeError: When groups are too few to reach every part, or a state is not finite.
    """
    part = examples.split(seed)
    split: Split = (np.flatnonzero(part == "train"), np.flatnonzero(part == "val"), np.flatnonzero(part == "test"))
    target = Target.of(examples.labels, examples.classes)
    train, val, truth = (target.with_labels(target.y[rows]) for rows in split)
    cells: dict[Key, Cell] = {}
    for position, s, layer, wanted in cells_of(examples, kinds):
        again = [kind for kind in wanted if known is not None and kind == LINEAR]
        for kind in again:
            assert known is not None
            cells[position, layer, kind] = known.cells[position, layer, kind]
        if len(again) < len(wanted):
            parts = Parts.of(_states(examples, s, layer), *split)
            for kind in (k for k in wanted if k not in again):
                found = fit_kind(kind, parts, train, val, widths=widths, seed=seed)
                reached = score(metric, val.y, found.val)
                cells[position, layer, kind] = Cell(found.test, reached, found.loss, found.setting)
        advance(1)
    chosen = {(p, kind): _best_layer(cells, p, kind) for p, kind in dict.fromkeys((p, k) for p, _, k in cells)}
    found = Round(seed, split, truth.y, group_draws(examples.groups[split[2]], draws, seed), cells, chosen, {})
    for position, kind in chosen:
        found.baselines[position, kind] = _baselines(examples, found, position, kind, train, val, widths)
    return found


def _best_layer(cells: dict[Key, Cell], position: str, kind: str) -> int:
    """The layer with the best validation score; of equal ones, as scores of few rows are coarse, that of less loss."""
    layers = [layer for p, layer, k in cells if (p, k) == (position, kind)]

    def rank(layer: int) -> tuple[float, float]:
        found = cells[position, layer, kind]
        return round(found.val, 9), -found.loss

    return max(layers, key=rank)


def _baselines(
    examples: PlanExamples, found: Round, position: str, kind: str, train: Target, val: Target, widths: Sequence[int]
) -> dict[str, Floats]:
    """Predictions of test rows that a probe is compared with; those of the prompt are the same for every segment."""
    nothing = {MAJORITY if examples.classes else MEAN: without_input(train, len(found.split[2]))}
    nothing[SHUFFLED] = _shuffled(examples, found, position, kind, train, val)
    if position == PROMPT:
        return {**nothing, **of_prompt(examples, found.split, train, val, kind, widths, found.seed)}
    shared = {name: p for name, p in found.baselines[PROMPT, kind].items() if name != SHUFFLED}
    segment = [s.name for s in examples.segments].index(position)
    return {**shared, SHUFFLED: nothing[SHUFFLED], **so_far(examples, segment, found.split, train, val)}


def _shuffled(
    examples: PlanExamples, found: Round, position: str, kind: str, train: Target, val: Target
) -> NDArray[np.float64]:
    """The chosen probe fitted to labels dealt anew, a few times: `[fit, test row]`."""
    segment = [PROMPT, *(s.name for s in examples.segments)].index(position) - 1
    parts = Parts.of(_states(examples, segment, found.chosen[position, kind]), *found.split)
    rng = np.random.default_rng([found.seed, 11])
    setting = found.probe(position, kind).setting
    predicted: list[Floats] = []
    for _ in range(SHUFFLES):
        anew = train.with_labels(dealt_anew(train.y, examples.groups[found.split[0]], rng))
        if train.classes and len(np.unique(anew.y)) < len(train.classes):
            anew = train.with_labels(rng.permutation(train.y))  # a class went missing with a group
        predicted.append(fit_kind(kind, parts, anew, val, seed=found.seed, setting=setting).test)
    return np.stack(predicted)


def _states(examples: PlanExamples, segment: int, layer: int) -> NDArray[np.float64]:
    where = f"attribute {examples.attribute!r}, layer {layer}"
    if segment < 0:
        return cell(examples.prompt[:, examples.layers.index(layer)], f"{where}, last prompt token")
    assert examples.along is not None
    states = examples.along[:, segment, examples.along_layers.index(layer)]
    return cell(states, f"{where}, segment {examples.segments[segment].name!r}")
