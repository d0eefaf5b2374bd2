"""Is there a cliff in scores, of any unit, along traces: the level, the drop that counts, the controls and the verdict.

A trace falls when it stands above the level between the classes in its late thought and below it at the last token
before the answer. A cliff is claimed when more harmful than harmless traces fall, by more than in any control.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interp.stats import Rate, auroc_interval, newcombe
from interp.text.prompts import HARMFUL, HARMLESS
from interp.tracing.scores import TraceScores
from probes.plateau import Plateau, drops

MARGIN = 0.1
"""How many more harmful than harmless traces must fall, at the lower end of the interval."""
READABLE = 0.6
"""Least AUROC of plateaus, harmful against harmless, at the lower end of the interval."""


@dataclass(frozen=True, eq=False)
class Finding:
    """What scores alone say; the fields are those of `RefusalCliff`."""

    found: bool
    reason: str
    table: Any
    level: float
    min_drop: float
    harmful: Rate
    harmless: Rate
    shuffled_places: tuple[float, ...]


def find_cliff(
    train: TraceScores,
    test: TraceScores,
    layer: int | None = None,
    *,
    plateau: Plateau = "mean",
    window: float = 0.25,
    quantile: float = 0.9,
    n_shuffles: int = 5,
    controls: Sequence[float] = (),
    seed: int = 0,
) -> Finding:
    """Look for a cliff in scores of any unit.

    Args:
        train: Scores of training traces: where refusing begins, and what a drop is.
        test: Scores of held-out traces.
        layer: May be left out where one layer was scored.
        plateau: As in `refusal_cliff`.
        window: As in `refusal_cliff`.
        quantile: As in `refusal_cliff`.
        n_shuffles: How often scores change places within their traces, as control.
        controls: Harmful minus harmless rates of other controls.
        seed: For controls and bootstraps.
    """
    options: dict[str, Any] = {"plateau": plateau, "window": window, "quantile": quantile, "seed": seed}
    scale = _Scale.of(drops(train, layer, **options, draws=1))
    table = drops(test, layer, **options)
    table["falls"] = scale.falls(table)
    harmful, harmless = scale.rate(table, HARMFUL), scale.rate(table, HARMLESS)
    places: list[float] = []
    for i in range(n_shuffles):
        mixed = drops(test.shuffled(seed + i), layer, **options, draws=1)
        places.append(scale.rate(mixed, HARMFUL).value - scale.rate(mixed, HARMLESS).value)
    found, reason = _verdict(scale, table, harmful, harmless, [*controls, *places], seed)
    return Finding(found, reason, table, scale.level, scale.min_drop, harmful, harmless, tuple(places))


@dataclass(frozen=True)
class _Scale:
    """Where refusing begins and what a drop is, in a score's own units, from training traces.

    Attributes:
        level: Midway between the mean plateaus of harmful and of harmless traces.
        min_drop: Half their distance; 0 or less where the score does not point towards refusal.
    """

    level: float
    min_drop: float

    @classmethod
    def of(cls, table: Any) -> _Scale:
        high, low = (float(table.loc[table["label"] == label, "plateau"].mean()) for label in (HARMFUL, HARMLESS))
        return cls((high + low) / 2, (high - low) / 2)

    def falls(self, table: Any) -> NDArray[np.bool_]:
        """Which traces stand above the level, end below it, and drop far enough between."""
        if self.min_drop <= 0:
            return np.zeros(len(table), dtype=bool)
        return np.asarray(
            (table["plateau"] > self.level) & (table["final"] < self.level) & (table["cliff"] >= self.min_drop)
        )

    def rate(self, table: Any, label: str) -> Rate:
        own = np.asarray(table["label"] == label)
        return Rate(int(self.falls(table)[own].sum()), int(own.sum()))


def _verdict(
    scale: _Scale, table: Any, harmful: Rate, harmless: Rate, controls: Sequence[float], seed: int
) -> tuple[bool, str]:
    own = table[table["label"].isin([HARMFUL, HARMLESS])]
    low, high = auroc_interval(own["plateau"], own["label"] == HARMFUL, own["group"], seed=seed)
    if scale.min_drop <= 0 or low <= READABLE:
        return False, (
            "along the thought the score does not tell harmful from harmless prompts (AUROC of the plateau "
            f"[{low:.2f}, {high:.2f}]), so there is no decision that could be lost"
        )
    rates = f"{harmful} of harmful and {harmless} of harmless traces"
    bottom, _ = newcombe(harmful, harmless)
    if bottom <= MARGIN:
        return False, f"the score holds at the end of the thought: it falls in {rates}"
    worst = max(controls, default=0.0)
    if bottom <= worst:
        return False, f"the score falls in {rates}, but in a shuffled control the difference is as large ({worst:.2f})"
    shown = f"; in shuffled controls the difference is at most {worst:.2f}" if controls else ""
    return True, f"the score falls off at the end of the thought in {rates}{shown}"
