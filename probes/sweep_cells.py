"""One cell of a sweep: a probe chosen on validation rows and scored on test rows, between its own controls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interp.activations.labelled import Labelled, no_layer
from interp.errors import NonFiniteError, PositionError, PromptError, SiteError
from interp.text.prompts import HARMFUL, Prompt
from probes.learners import Flags, Floats, Learner
from probes.resampling import aurocs, permuted_labels
from probes.splits import Rows, grouped_folds, grouped_split

_NO_DIFFERENCE = 1e-5
DEFAULT_FOLDS = 5


@dataclass(frozen=True)
class Split:
    """Who is fitted, chosen and tested on.

    Attributes:
        dev: Rows for fitting and choosing.
        test: Rows that nothing is chosen on.
        folds: Positions within `dev`: to fit on, and to choose by.
        how: In words.
    """

    dev: Rows
    test: Rows
    folds: tuple[tuple[Rows, Rows], ...]
    how: str


@dataclass(frozen=True)
class Cell:
    """What was measured at one place.

    Attributes:
        strength: The chosen strength of the penalty.
        cv: AUROC on validation rows, mean over folds, at the chosen strength.
        scores: Decision values of the test rows.
        shuffled: The same of fits to permuted labels, `[draw, test row]`.
        random: Projections on random directions, `[draw, test row]`.
        constant: Whether the activations do not vary there.
    """

    strength: float | None
    cv: float
    scores: Floats
    shuffled: Floats
    random: Floats
    constant: bool


@dataclass(frozen=True)
class Task:
    """Labels, split and permuted labels: what all cells have in common.

    Attributes:
        y: One flag per row.
        groups: One per row.
        split: Who is fitted, chosen and tested on.
        shuffled: Permuted labels of the development rows `[draw, dev row]`.
        shuffled_test: Permuted labels of the test rows `[draw, test row]`.
        n_random: How many random directions.
        seed: For them.
    """

    y: Flags
    groups: NDArray[Any]
    split: Split
    shuffled: Flags
    shuffled_test: Flags
    n_random: int
    seed: int

    @property
    def y_dev(self) -> Flags:
        """Labels for fitting and choosing."""
        return self.y[self.split.dev]

    @property
    def y_test(self) -> Flags:
        """Labels for testing."""
        return self.y[self.split.test]


def make_task(y: Flags, groups: NDArray[Any], split: Split, n_shuffles: int, n_random: int, seed: int) -> Task:
    """The task, with labels permuted apart in the development and the test rows.

    Both are permuted: a fit to permuted labels alone falls, with a random sign, along whatever varies most, and that
    may well be the true label.
    """
    rng = np.random.default_rng([seed, 1])
    dev, test = split.dev, split.test
    return Task(
        y, groups, split, permuted_labels(y[dev], groups[dev], n_shuffles, rng),
        permuted_labels(y[test], groups[test], n_shuffles, rng), n_random, seed,
    )  # fmt: skip


def measure_cell(learner: Learner, task: Task, x: NDArray[Any], controls: bool = True) -> Cell:
    """Choose the strength on validation rows, fit all development rows with it, score the test rows."""
    dev, test = x[task.split.dev], x[task.split.test]
    centred = dev - dev.mean(0)
    if np.linalg.norm(centred) <= _NO_DIFFERENCE * max(float(np.linalg.norm(dev)), 1e-300):
        # What varies is rounding, which goes by the batch and so by the length of the prompt.
        flat, n = np.zeros(len(test)), len(task.shuffled)
        return Cell(learner.grid[0], 0.5, flat, np.tile(flat, (n, 1)), np.tile(flat, (task.n_random, 1)), True)
    y = task.y_dev
    per_fold = [
        aurocs(learner.scores(dev[fit], y[fit][None], learner.grid, dev[held])[0], y[held])
        for fit, held in task.split.folds
    ]
    cv = np.mean(per_fold, axis=0)
    chosen = int(np.argmax(np.round(cv, 9)))  # ties go to the stronger penalty
    strength = learner.grid[chosen]
    targets = np.concatenate([y[None], task.shuffled]) if controls else y[None]
    scores = learner.scores(dev, targets, [strength], test)[:, 0]
    random = random_projections(dev, y, test, task.n_random, task.seed) if controls else np.empty((0, len(test)))
    return Cell(strength, float(cv[chosen]), scores[0], scores[1:], random, False)


def random_projections(x: NDArray[Any], y: Flags, new: NDArray[Any], n: int, seed: int) -> Floats:
    """Standardised activations along random directions `[draw, row of new]`, each turned the way `x` and `y` say."""
    mean, scale = x.mean(0), x.std(0)
    scale[scale == 0] = 1.0
    noise = np.random.default_rng([seed, 2]).normal(size=(x.shape[1], n))
    sign = np.where(aurocs(((x - mean) / scale @ noise).T, y) < 0.5, -1.0, 1.0)
    return sign[:, None] * ((new - mean) / scale @ noise).T


def cells(
    acts: Labelled, sites: Sequence[str], layers: Sequence[int], positions: Sequence[str]
) -> Iterator[tuple[str, int, str, NDArray[np.float64]]]:
    """Every place with its activations `[row, feature]`; of a store, one layer is in memory at a time.

    Raises:
        NonFiniteError: For a NaN or an infinite activation; names the place.
    """
    columns = [acts.column(position) for position in positions]
    for site in sites:
        for layer in layers:
            block = acts.sel(site, layer)
            for position, column in zip(positions, columns, strict=True):
                x = block[:, column].double().numpy()
                if not np.isfinite(x).all():
                    raise NonFiniteError(f"{site}[{layer}] at {position} holds NaN or infinite activations")
                yield site, layer, position, x


def places(
    acts: Labelled, sites: Any, layers: Any, positions: Any
) -> tuple[tuple[str, ...], tuple[int, ...], tuple[str, ...]]:
    """What is swept, all by default.

    Raises:
        SiteError, PositionError: For what was not captured.
    """
    if acts.ragged:
        raise PositionError(
            f"rows are tokens here (positions {', '.join(acts.positions)}), and a sweep needs a row per prompt: "
            "capture single positions"
        )

    def listed(value: Any, single: type | tuple[type, ...], default: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(default) if value is None else (value,) if isinstance(value, single) else tuple(value)

    chosen = (
        listed(sites, str, [s for s in acts.sites if s != "pattern"]), listed(layers, int, acts.layers),
        tuple(str(p) for p in listed(positions, (str, int), acts.positions)),
    )  # fmt: skip
    for site in chosen[0]:
        if site not in acts.sites:
            raise SiteError(f"{site!r} was not captured; captured: {', '.join(acts.sites)}")
    for layer in chosen[1]:
        if layer not in acts.layers:
            raise no_layer(layer, acts.layers)
    for position in chosen[2]:
        acts.column(position)
    if not all(chosen):
        raise SiteError("there is nothing to sweep: name at least one site, layer and position")
    return chosen


def binary_labels(labels: Sequence[Any] | NDArray[Any], n: int, positive: str | None) -> tuple[Flags, str, str]:
    """Labels as flags, and the names of the positive and the negative class.

    Raises:
        PromptError: When labels are missing, of one class, of more than two, or not clearly positive or negative.
    """
    named = list(np.asarray(labels, dtype=object).tolist())
    if len(named) != n:
        raise PromptError(f"{len(named)} labels were given for {n} rows: give one for each")
    if (bare := sum(label is None for label in named)) == n:
        raise PromptError("the prompts have no labels: give labels=, or use prompts that are labelled")
    if bare:
        raise PromptError(f"{bare} of {n} rows have no label: label them, or leave them out with .take(...)")
    kinds = sorted(set(named), key=str)
    if len(kinds) == 1:
        raise PromptError(f"every row is labelled {kinds[0]!r}: a probe needs two classes")
    wanted: Any = positive
    if wanted is None:
        wanted = next((k for k in kinds if k == HARMFUL or k is True or k == 1), None)
        if wanted is None or len(kinds) > 2:
            raise PromptError(f"which class is positive? Name one of {', '.join(map(str, kinds[:6]))} as positive=")
    if wanted not in kinds:
        raise PromptError(f"no row is labelled {wanted!r}; there are {', '.join(map(str, kinds[:6]))}")
    rest = [str(k) for k in kinds if k != wanted]
    return np.array([label == wanted for label in named]), str(wanted), rest[0] if len(rest) == 1 else "others"


def make_split(
    prompts: Sequence[Prompt], y: Flags, names: tuple[str, str], groups: NDArray[Any], cv: int | None, test: float,
    seed: int,
) -> Split:  # fmt: skip
    """The prompts' own split where it has train and test; else a new one by groups.

    `names` are those of the classes, positive and negative, for the messages.

    Raises:
        PromptError: When a group straddles the prompts' own split, a class is missing from a part, or has too few
            groups.
    """
    own, classes = np.array([p.split or "" for p in prompts]), np.where(y, *names)
    if {"train", "test"} <= set(own.tolist()):
        if bare := int((own == "").sum()):
            raise PromptError(
                f"{bare} of {len(own)} prompts have no split, but others have: give one to all or to none"
            )
        _whole(own, groups)
        part, how = own, "the prompts' own split"
    else:
        part = grouped_split(classes, groups, 1 - test, 0, test, seed)
        how = f"a grouped split (seed {seed})"
    dev, held = np.flatnonzero(np.isin(part, ("train", "val"))), np.flatnonzero(part == "test")
    for name, rows in (("to learn from", dev), ("to test on", held)):
        if y[rows].all() or not y[rows].any():
            raise PromptError(f"there are no prompts of one class {name}: add some, or give the split both classes")
    if cv is None and (part == "val").any():
        fit, choose = np.flatnonzero(part[dev] == "train"), np.flatnonzero(part[dev] == "val")
        for name, rows in (("train", fit), ("val", choose)):
            if y[dev][rows].all() or not y[dev][rows].any():
                raise PromptError(f"the {name} prompts are all of one class: add some, or give cv= to make folds")
        return Split(dev, held, ((fit, choose),), f"{how}: chosen on val")
    k = DEFAULT_FOLDS if cv is None else cv
    return Split(dev, held, grouped_folds(classes[dev], groups[dev], k, seed), f"{how}: chosen by {k} grouped folds")


def _whole(part: NDArray[Any], groups: NDArray[Any]) -> None:
    where: dict[Any, str] = {}
    for group, name in zip(groups.tolist(), part.tolist(), strict=True):
        if where.setdefault(group, name) != name:
            raise PromptError(
                f"the group {group!r} is in both {where[group]} and {name}, so that near copies would be tested on: "
                "split again with prompts.split(seed=0)"
            )
