"""Strengths as they are typed."""

from __future__ import annotations

import math

from interp.errors import RefusalkitError


def number(text: str) -> float:
    """A finite number.

    Raises:
        RefusalkitError: For what is none.
    """
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise RefusalkitError(f"{text[:40]!r} is no strength; give a number, as 1.5")
    return found
