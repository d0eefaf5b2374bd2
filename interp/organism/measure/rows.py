"""A row of the behaviour card."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypedDict


class Row(TypedDict):
    """One figure: `k` of `n` where it is a rate (else both None), its value, and the floor it must meet.

    `sense` is `>=`, `<=` or `in` (floor is then a pair), or `info` where nothing is asked.
    """

    variant: str
    name: str
    k: int | None
    n: int | None
    value: float
    floor: Any
    sense: str


def rate(variant: str, name: str, outcomes: Iterable[bool], sense: str = "info", floor: Any = None) -> Row:
    """A row of counted outcomes."""
    found = [bool(outcome) for outcome in outcomes]
    k, n = sum(found), len(found)
    return Row(variant=variant, name=name, k=k, n=n, value=k / n, floor=floor, sense=sense)


def figure(variant: str, name: str, value: float, n: int, sense: str = "info", floor: Any = None) -> Row:
    """A row of a value that is no rate (an AUROC, a cosine), over `n` prompts."""
    return Row(variant=variant, name=name, k=None, n=n, value=float(value), floor=floor, sense=sense)


def passes(row: Row) -> bool:
    """Does the row meet its floor?"""
    match row["sense"]:
        case ">=":
            return row["value"] >= row["floor"]
        case "<=":
            return row["value"] <= row["floor"]
        case "in":
            low, high = row["floor"]
            return low <= row["value"] <= high
        case _:
            return True
