"""The tables of an evaluation: one row per arm and cell, a cell being a set, a label and a category."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from interp.stats import Rate
from interp.stats_change import newcombe_paired
from interp.text.prompts import HARMFUL, HARMLESS, PromptSet

if TYPE_CHECKING:
    from probes.evaluation_result import Arm, Evaluation
    from probes.price import Price

UNLABELLED = "unlabelled"
ALL, ALL_SETS = "all", "all sets"
OUTCOMES = ("refused", "complied", "partial", "empty")


@dataclass(frozen=True)
class Cell:
    """Some prompts of one or all sets.

    Attributes:
        set: The set's name, or "all sets".
        label: "harmful", "harmless", the user's own word, or "unlabelled".
        category: The category, or "all".
        masks: For each set, which of its prompts.
    """

    set: str
    label: str
    category: str
    masks: tuple[NDArray[np.bool_], ...]

    @property
    def n(self) -> int:
        """How many prompts."""
        return int(sum(mask.sum() for mask in self.masks))

    def outcome(self, arm: Arm, what: str) -> NDArray[np.bool_]:
        """What an arm did with these prompts."""
        return np.concatenate([arm.outcome(i, what)[mask] for i, mask in enumerate(self.masks)])


def cells_of(sets: Sequence[PromptSet]) -> list[Cell]:
    """Each label of each set, with its categories below; over several sets, each label of them all at the end."""
    found: list[Cell] = []
    for place, prompts in enumerate(sets):
        labels = np.array([p.label or UNLABELLED for p in prompts])
        categories = np.array([p.category or "" for p in prompts])
        for label in _in_order(labels):
            here = labels == label
            inside = sorted({str(c) for c in categories[here] if c})
            for category in (ALL, *inside):
                mask = here if category == ALL else here & (categories == category)
                masks = [np.zeros(len(s), dtype=bool) for s in sets]
                masks[place] = mask
                found.append(Cell(prompts.name, label, category, tuple(masks)))
    if len(sets) > 1:
        every = [np.array([p.label or UNLABELLED for p in s]) for s in sets]
        for label in _in_order(np.concatenate(every)):
            found.append(Cell(ALL_SETS, label, ALL, tuple(labels == label for labels in every)))
    return found


def rate_table(evaluation: Evaluation) -> Any:
    """One row per cell and arm (pandas)."""
    import pandas as pd

    rows: list[dict[str, Any]] = []
    plain = evaluation.arms[0]
    for cell in evaluation.cells():
        before = cell.outcome(plain, "refused")
        for arm in evaluation.arms:
            row: dict[str, Any] = {"set": cell.set, "label": cell.label, "category": cell.category, "arm": arm.name}
            row["n"] = cell.n
            for what in OUTCOMES:
                rate = Rate(int(cell.outcome(arm, what).sum()), cell.n)
                row |= dict(zip((what, f"{what}_low", f"{what}_high"), (rate.value, *rate.interval), strict=True))
            if arm is not plain:
                names = ("change", "change_low", "change_high")
                row |= dict(zip(names, newcombe_paired(before, cell.outcome(arm, "refused")), strict=True))
            rows.append(row)
    columns = ["set", "label", "category", "arm", "n"]
    columns += [f"{what}{end}" for what in OUTCOMES for end in ("", "_low", "_high")]
    return pd.DataFrame(rows, columns=[*columns, "change", "change_low", "change_high"])


def price_table(prices: Sequence[Price]) -> Any:
    """One row per arm (pandas)."""
    import pandas as pd

    columns = [f"{name}{end}" for name in ("kl", "perplexity", "ratio") for end in ("", "_low", "_high")]
    return pd.DataFrame([p.to_row() for p in prices], columns=["arm", *columns, "kl_worst_prompt", "n", "tokens"])


def _in_order(labels: NDArray[Any]) -> list[str]:
    """Harmful first, then harmless, then the user's own words, then those without."""
    there = {str(label) for label in labels}
    own = sorted(there - {HARMFUL, HARMLESS, UNLABELLED})
    return [label for label in (HARMFUL, HARMLESS, *own, UNLABELLED) if label in there]
