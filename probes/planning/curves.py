"""How readable an attribute is along what is written: from where on, and whether it dips or rises."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from probes.planning.claims import Comparisons, first_of
from probes.planning.examples import PROMPT
from probes.planning.joining import Joint, holm
from probes.planning.scoring import RANGES

SHAPES = ("flat", "rise", "fall", "U", "hump")


@dataclass(frozen=True, eq=False)
class Curve:
    """The score of the probe chosen at each position.

    Attributes:
        table: pandas, a row per position: `position`, `region`, `value`, `low`, `high` (95 %, each on its own).
        first: Where it first exceeds every baseline: `"prompt"`, the name of a segment (Holm-corrected), or None.
        shape: `"U"`: some segment in between is below the prompt and below the end; `"hump"`: above both; else
            `"rise"` or `"fall"` from the prompt to the end; `"flat"` where none of this is sure at alpha. Empty without
            segments.
        share_at_prompt: Of what is readable above chance at the best segment, the share that is there at the prompt;
            NaN where nothing is.
    """

    table: Any
    first: str | None
    shape: str
    share_at_prompt: float

    def __str__(self) -> str:
        return f"{self.shape or 'no segments'}, first above every baseline at {self.first or 'no position'}"


def curve_of(
    c: Comparisons, between: Callable[[str, str], Joint], chance: str, planned: bool, alpha: float, margin: float
) -> Curve:
    """The curve of a fit.

    Args:
        c: Scores and differences.
        between: The paired difference of the probes at two positions.
        chance: The baseline that reads nothing.
        planned: Whether the prompt itself exceeds every baseline.
        alpha: One-sided level.
        margin: The smallest difference that counts.
    """
    import pandas as pd

    regions = {PROMPT: PROMPT, **{s.name: s.region for s in c.segments}}
    rows: list[dict[str, Any]] = []
    for name, region in regions.items():
        low, high = c.probe[name].interval(within=RANGES[c.metric])
        rows.append({"position": name, "region": region, "value": c.probe[name].value, "low": low, "high": high})
    first = PROMPT if planned else first_of(c, alpha, margin, prompt_too=False)
    above = {name: c.over[name][chance].value for name in regions}
    top = max(above.values())
    share = max(above[PROMPT], 0.0) / top if top > 0 else math.nan
    return Curve(pd.DataFrame(rows), first, _shape(c, between, alpha), share)


def _shape(c: Comparisons, between: Callable[[str, str], Joint], alpha: float) -> str:
    names = [s.name for s in c.segments]
    if not names:
        return ""
    inner, end = names[:-1], names[-1]
    dips = [max(between(PROMPT, s).p, between(end, s).p) for s in inner]
    humps = [max(between(s, PROMPT).p, between(s, end).p) for s in inner]
    if any(holm(dips, alpha)):
        return "U"
    if any(holm(humps, alpha)):
        return "hump"
    if between(end, PROMPT).p <= alpha:
        return "rise"
    return "fall" if between(PROMPT, end).p <= alpha else "flat"
