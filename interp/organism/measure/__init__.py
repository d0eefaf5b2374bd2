"""The behaviour card: every figure the organisms are held to, measured on the shipped weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from interp.organism.measure.behaviour import (
    Subject,
    attacked_rows,
    base_rows,
    cliff_rows,
    full_rows,
    never_rows,
    random_rows,
)
from interp.organism.measure.directions import (
    cliff_head_rows,
    planted_rows,
    refusal_direction_rows,
    restored_rows,
)
from interp.organism.measure.readable import guard_rows, planning_rows, text_rows
from interp.organism.measure.rows import Row, figure, passes, rate
from interp.organism.store import VARIANTS, path, truth

__all__ = ["Row", "Subject", "card", "figure", "load", "passes", "rate"]


def load(variant: str, n: int = 200, folder: Path | None = None) -> Subject:
    """A variant (or the same from a trained family's folder) ready to be measured, fp32 on the CPU."""
    where = folder or path(variant)
    model = AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32).eval()
    return Subject(variant, model, AutoTokenizer.from_pretrained(where), n)


def card(
    variants: Sequence[str] | None = None, n: int = 200, progress: Callable[[Row], None] | None = None
) -> list[Row]:
    """Every row of the behaviour card for the variants (all by default), with `n` held-out prompts a cell.

    `progress` is called with each row as it is measured. Raises ValueError for an unknown variant.
    """
    wanted = tuple(variants or VARIANTS)
    for variant in wanted:
        path(variant)
    rows: list[Row] = []
    for row in _rows(wanted, n):
        rows.append(row)
        if progress:
            progress(row)
    return rows


def _rows(wanted: Sequence[str], n: int) -> Iterator[Row]:
    if "chat" in wanted:
        chat = load("chat", n)
        yield from text_rows(n)
        yield from full_rows(chat)
        yield from refusal_direction_rows(chat)
        yield from guard_rows(chat, load("attacked", n) if "attacked" in wanted else None)
        yield from planning_rows(chat)
    if "planted" in wanted:
        planted = load("planted", n)
        yield from full_rows(planted)
        yield from planted_rows(planted, truth("planted"))
    if "base" in wanted:
        yield from base_rows(load("base", n))
    if "cliff" in wanted:
        cliff = load("cliff", n)
        yield from cliff_rows(cliff)
        yield from cliff_head_rows(cliff, truth("cliff")["heads"])
    if "attacked" in wanted:
        attacked = load("attacked", n)
        yield from attacked_rows(attacked)
        yield from restored_rows(attacked, load("chat", n))
    if "null-never" in wanted:
        yield from never_rows(load("null-never", n))
    if "null-random" in wanted:
        yield from random_rows(load("null-random", n))
