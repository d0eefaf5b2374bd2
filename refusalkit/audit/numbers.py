"""How numbers are written in the findings and the report: what lies between 0 and 1 is a fraction, never a percent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from probes.figures.style import fraction


def interval(value: Mapping[str, Any]) -> str:
    """`0.93 [0.90, 0.95]` of a mapping with `value`, `low` and `high`: a rate, a difference of rates, an AUROC."""
    return f"{fraction(value['value'])} [{fraction(value['low'])}, {fraction(value['high'])}]"


def number(value: Any, digits: int = 2) -> str:
    """A number with so many decimals (few digits for very small and very large ones), `–` when there is none."""
    if value is None or isinstance(value, str | bool) or not math.isfinite(value):
        return "–"
    if isinstance(value, int):
        return str(value)
    if value and (abs(value) < 0.5 * 10**-digits or abs(value) >= 1e6):
        return f"{value:.1e}".replace("-", "−")
    return f"{value:.{digits}f}".replace("-", "−")


def seconds(value: Any) -> str:
    """A duration in words."""
    if value is None:
        return "–"
    return f"{value:.1f} s" if value < 100 else f"{value / 60:.1f} min"
