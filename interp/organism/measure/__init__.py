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
from interp.organism.store import VARIANTS, WEIGHTS, path, truth

__all__ = ["Row", "Subject", "card", "figure", "load", "passes", "rate"]


def load(variant: str, n: int = 200, folder: Path | None = None) -> Subject:
    """A variant (of the family trained in `folder`, else the shipped one) ready to be measured, fp32 on the CPU."""
    where = folder / variant if folder else path(variant)
    model = AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32).eval()
    return Subject(variant, model, AutoTokenizer.from_pretrained(where), n)


def card(
    variants: Sequence[str] | None = None,
    n: int = 200,
    progress: Callable[[Row], None] | None = None,
    folder: Path | None = None,
) -> list[Row]:
    """Every row of the behaviour card for the variants (all by default), with `n` held-out prompts a cell.

    `progress` is called with each row as it is measured; `folder` holds a family trained here, in place of the shipped
    one. Raises ValueError for an unknown variant, FileNotFoundError for one that is not there.
    """
    wanted = tuple(variants or VARIANTS)
    for variant in wanted:
        if not folder:
            path(variant)
        elif not (folder / variant / "truth.json").is_file():
            raise FileNotFoundError(f"there is no organism {variant!r} in {folder}")
    rows: list[Row] = []
    for row in _rows(wanted, n, folder):
        rows.append(row)
        if progress:
            progress(row)
    return rows


def _rows(wanted: Sequence[str], n: int, folder: Path | None) -> Iterator[Row]:
    if "chat" in wanted:
        chat = load("chat", n, folder)
        yield from text_rows(n)
        yield from full_rows(chat)
        yield from refusal_direction_rows(chat)
        yield from guard_rows(chat, load("attacked", n, folder) if "attacked" in wanted else None)
        yield from planning_rows(chat)
    if "planted" in wanted:
        planted = load("planted", n, folder)
        yield from full_rows(planted)
        yield from planted_rows(planted, truth("planted", folder or WEIGHTS))
    if "base" in wanted:
        yield from base_rows(load("base", n, folder))
    if "cliff" in wanted:
        cliff = load("cliff", n, folder)
        yield from cliff_rows(cliff)
        yield from cliff_head_rows(cliff, truth("cliff", folder or WEIGHTS)["heads"])
    if "attacked" in wanted:
        attacked = load("attacked", n, folder)
        yield from attacked_rows(attacked)
        yield from restored_rows(attacked, load("chat", n, folder))
    if "null-never" in wanted:
        yield from never_rows(load("null-never", n, folder))
    if "null-random" in wanted:
        yield from random_rows(load("null-random", n, folder))
