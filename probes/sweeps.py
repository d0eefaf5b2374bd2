"""Sweep: a probe at every layer and position, chosen on validation, reported on test, beside its controls.

What the result may claim rests on one test: the cell that is best on validation rows is scored once on test rows, and
its AUROC is held against test labels permuted as their groups allow (`probes.resampling`). However many cells compete,
nothing is chosen on the test rows, so a sweep over noise claims a find with probability alpha at most.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from interp.activations.labelled import Labelled
from interp.bootstrap import group_draws, percentiles
from interp.direction import Direction
from interp.errors import PromptError
from interp.model.model import Model
from interp.progress import progress_bar
from probes.learners import STRENGTHS, decision_values, learner
from probes.resampling import arrangements, auroc_draws, aurocs, p_value
from probes.sweep_cells import Cell, binary_labels, cells, make_split, make_task, measure_cell, places
from probes.sweep_controls import EMBEDDING, Control, compare, drawn_controls, embedding_control, text_controls

if TYPE_CHECKING:
    from probes.causal import CausalCheck
    from probes.causal_evidence import CausalEvidence


@dataclass(frozen=True)
class Sweep:
    """What can be read where, and what the best of it is worth.

    Attributes:
        table: pandas, one row per site, layer and position: `C` (chosen strength; for ridge the inverse of alpha), `cv`
            (AUROC on validation rows, mean over folds), and on test rows `auroc`, `low`, `high` (95 %, bootstrap over
            groups), `shuffled`, `shuffled_high` (the same probe on permuted labels: mean and largest draw), `random`,
            `random_high` (random directions), `constant` (the activations do not vary there).
        probe: The best cell's probe, fitted to all development rows: a scikit-learn estimator.
        direction: Its direction in activation space; `None` where it has none.
        controls: Controls of the best cell.
        p_value: Permutation p-value of the best cell's test AUROC.
        alpha: What it has to stay within.
        positive: The class that is read.
        negative: The other.
        method: Name of the probe.
        n_dev: Rows for fitting and choosing.
        n_test: Rows for testing.
        split: How rows were shared out.
        seed: Of split, permutations, random directions and bootstrap.
        provenance: Model, prompts, versions.
        causal: What became of a causal check, if one was attached.
    """

    table: Any
    probe: Any
    direction: Direction | None
    controls: tuple[Control, ...]
    p_value: float
    alpha: float
    positive: str
    negative: str
    method: str
    n_dev: int
    n_test: int
    split: str
    seed: int
    provenance: dict[str, Any] = field(default_factory=dict)
    causal: CausalEvidence | None = None

    @property
    def best(self) -> dict[str, Any]:
        """The row that is best on validation; nothing was chosen on its test figures. Ties go to the first row."""
        return {str(k): v for k, v in self.table.loc[_best(self.table["cv"])].to_dict().items()}

    @property
    def best_control(self) -> Control:
        """The control that comes closest."""
        return max(self.controls, key=lambda control: control.auroc)

    @property
    def selectivity(self) -> tuple[float, float, float]:
        """The best cell's AUROC minus the best control's, with its 95 % interval, paired over prompts."""
        control = self.best_control
        return control.difference, control.difference_low, control.difference_high

    @property
    def readable(self) -> bool:
        """Whether the best cell separates the classes: its permutation p-value is within alpha."""
        return self.p_value <= self.alpha

    @property
    def found(self) -> bool:
        """Whether it is readable, and read better than by any control: the interval of the selectivity is above 0."""
        return self.readable and self.selectivity[1] > 0

    def __repr__(self) -> str:
        return f"Sweep({self.verdict})"

    @property
    def verdict(self) -> str:
        """What was found and how sure, in a few sentences."""
        from probes.sweep_words import verdict

        return verdict(self)

    def with_causal(self, check: CausalEvidence | CausalCheck) -> Sweep:
        """The same result with a causal check of its direction beside it, which the verdict then speaks of.

        Raises:
            DirectionError: When the check is of another direction than this sweep's.
        """
        from probes.causal_evidence import evidence_for

        return replace(self, causal=evidence_for(self.direction, check))

    def to_frame(self) -> Any:
        """One row per site, layer and position (pandas)."""
        return self.table

    def controls_frame(self) -> Any:
        """One row per control of the best cell (pandas)."""
        import pandas as pd

        return pd.DataFrame([vars(control) for control in self.controls])

    def plot(self) -> Any:
        """AUROC by layer, a line per position, between the controls (plotly)."""
        from probes.figures.sweep import sweep_lines

        return sweep_lines(self)

    def plot_map(self) -> Any:
        """AUROC over layer and position as a map, the best cell marked (plotly)."""
        from probes.figures.sweep import sweep_map

        return sweep_map(self)

    def describe(self) -> dict[str, Any]:
        """Everything but the probe, as JSON: for a file or a report."""
        from probes.sweep_words import described

        return described(self)


def sweep(
    acts: Labelled,
    labels: ArrayLike | Sequence[Any] | None = None,
    *,
    probe: Any = "logistic",
    positive: str | None = None,
    sites: str | Sequence[str] | None = None,
    layers: int | Sequence[int] | None = None,
    positions: str | int | Sequence[str | int] | None = None,
    cv: int | None = None,
    C: Sequence[float] = STRENGTHS,  # noqa: N803  (scikit-learn's name)
    groups: ArrayLike | None = None,
    test: float = 0.25,
    alpha: float = 0.01,
    n_shuffles: int = 10,
    n_random: int = 20,
    n_permutations: int = 9999,
    n_draws: int = 500,
    model: Model | None = None,
    embeddings: ArrayLike | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Sweep:
    """Fit a probe at every layer and position, choose the best on validation, and report it on test.

    Where the prompts come with a split into train and test, it is used, and their val, if any, is what is chosen on;
    else a quarter of the groups is set aside for testing and folds are made of the rest. Groups are never torn apart.

    Args:
        acts: Activations in memory, or a store: of a store one layer is in memory at a time.
        labels: One per row, flags or two words; the prompts' labels by default.
        probe: `"logistic"`, `"ridge"`, `"mean_difference"`, `"whitened_mean_difference"`, `"nearest_centroid"`,
            `"mlp"`, or any scikit-learn classifier, which is used as it is.
        positive: The class to read; `"harmful"`, or the true of two flags, by default.
        sites: All that were captured by default.
        layers: All by default.
        positions: All by default.
        cv: Folds to choose by, also where the prompts have a val split; by default that one, or 5 folds.
        C: Strengths to choose from, for `"logistic"`; for `"ridge"` they are the inverses of alpha.
        groups: One per row; the prompts' groups by default.
        test: Share of the rows to test on, where the prompts have no split.
        alpha: Probability of claiming a find where there is none.
        n_shuffles: Draws of permuted labels, at least one.
        n_random: Random directions, at least one.
        n_permutations: Permutations behind the p-value.
        n_draws: Bootstrap draws behind the intervals.
        model: The model, for the control on the mean of token embeddings.
        embeddings: `[row, width]` for that control, in place of the model.
        seed: For split, permutations, random directions and bootstrap.
        progress: Show a progress bar.

    Returns:
        The result; "nothing found" is one, not an exception.

    Raises:
        PromptError: For missing labels, a single class, or too few groups.
        SiteError, PositionError: For what was not captured.
        NonFiniteError: For NaN or infinite activations.
    """
    import pandas as pd

    if min(n_shuffles, n_random) < 1:
        raise PromptError(f"n_shuffles={n_shuffles}, n_random={n_random}: a result without its controls is none")
    where = places(acts, sites, layers, positions)
    y, name, other = binary_labels(acts.labels if labels is None else np.asarray(labels), len(acts), positive)
    owners = np.asarray(acts.groups if groups is None else groups)
    if len(owners) != len(acts):
        raise PromptError(f"{len(owners)} groups were given for {len(acts)} rows: give one for each")
    split = make_split(list(acts.prompts), y, (name, other), owners, cv, test, seed)
    _can_tell(y[split.test], owners[split.test], alpha, n_permutations)
    task = make_task(y, owners, split, n_shuffles, n_random, seed)
    fits = learner(probe, C, seed)
    weights = group_draws(owners[split.test], n_draws, seed)
    rows: list[dict[str, Any]] = []
    best: Cell | None = None
    with progress_bar("sweeping", math.prod(map(len, where)), progress) as advance:
        for site, layer, position, x in cells(acts, *where):
            cell = measure_cell(fits, task, x)
            if best is None or round(cell.cv, 9) > round(best.cv, 9):
                best = cell
            rows.append({"site": site, "layer": layer, "position": position, **_row(cell, task, weights)})
            advance(1)
    assert best is not None
    table = pd.DataFrame(rows)
    at = rows[_best(table["cv"])]
    at_best = acts.sel(at["site"], at["layer"], at["position"]).double().numpy()
    fitted = fits.estimator(best.strength).fit(at_best[split.dev], task.y_dev)
    # What is reported is what the probe itself gives, not what the shared solver came close to.
    best = replace(best, scores=decision_values(fitted, at_best[split.test]))
    rows[_best(table["cv"])] |= _row(best, task, weights)
    table = pd.DataFrame(rows)
    scored = drawn_controls(task, best) + text_controls(task, acts.prompts.texts)
    embedding = embedding_control(fits, task, acts, at["position"], model, embeddings, progress)
    scored += [] if embedding is None else [embedding]
    provenance = {
        **dict(acts.provenance), "method": f"{fits.name} probe, chosen by a sweep over {len(rows)} places",
        "split": split.how, "seed": seed, "positive": name, "negative": other,
    }  # fmt: skip
    return Sweep(
        table, fitted, _direction(fitted, at, name, provenance), compare(task, best.scores, scored, n_draws, seed),
        p_value(best.scores, task.y_test, owners[split.test], n_permutations, seed), alpha, name, other, fits.name,
        len(split.dev), len(split.test), split.how, seed, provenance,
    )  # fmt: skip


def _row(cell: Cell, task: Any, weights: Any) -> dict[str, Any]:
    y = task.y_test
    low, high = percentiles(auroc_draws(cell.scores, y, weights))
    shuffled = [float(aurocs(s[None], t)[0]) for s, t in zip(cell.shuffled, task.shuffled_test, strict=True)]
    random = aurocs(cell.random, y)
    return {
        "C": math.nan if cell.strength is None else cell.strength, "cv": cell.cv,
        "auroc": float(aurocs(cell.scores[None], y)[0]), "low": low, "high": high,
        "shuffled": float(np.mean(shuffled)), "shuffled_high": float(np.max(shuffled)),
        "random": float(random.mean()), "random_high": float(random.max()), "constant": cell.constant,
    }  # fmt: skip


def _best(cv: Any) -> int:
    """First of the best rows, differences of rounding aside."""
    return int(np.argmax(np.round(np.asarray(cv, dtype=np.float64), 9)))


def _can_tell(y: Any, groups: Any, alpha: float, permutations: int) -> None:
    """Whether a p-value of alpha can come out at all."""
    if not 0 < alpha < 1:
        raise PromptError(f"alpha={alpha}: give a probability between 0 and 1")
    if (permutations + 1) * alpha < 1:
        raise PromptError(
            f"{permutations} permutations cannot show p <= {alpha}: ask for {math.ceil(1 / alpha)} or more"
        )
    ways = arrangements(y, groups)
    if ways < math.log(1 / alpha) - 1e-9:
        raise PromptError(
            f"too few groups to test on: their labels can be permuted in {round(math.exp(ways))} way(s), so that no "
            f"finding could reach p <= {alpha}: add prompts in other groups, or raise alpha"
        )


def _direction(fitted: Any, at: dict[str, Any], name: str, provenance: dict[str, Any]) -> Direction | None:
    vector = getattr(fitted, "direction_", None)
    if vector is None or not np.any(np.asarray(vector)):
        return None
    return Direction(torch.tensor(np.asarray(vector)), at["site"], at["layer"], at["position"], name, provenance)


__all__ = ["EMBEDDING", "Control", "Sweep", "sweep"]
