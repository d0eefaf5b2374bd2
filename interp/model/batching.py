"""Batches: prompts sorted by length under a budget of padded tokens, so that little is computed for nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from interp.text.encoded import Encoded

TOKEN_BUDGET = 2048


def plan(lengths: Sequence[int], budget: int = TOKEN_BUDGET, rows: int | None = None) -> list[list[int]]:
    """Indices batch by batch: sorted by length, at most `budget` padded tokens (or one prompt) and `rows` rows."""
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    batches: list[list[int]] = []
    for i in order:
        last = batches[-1] if batches else None
        if last is not None and lengths[i] * (len(last) + 1) <= budget and (rows is None or len(last) < rows):
            last.append(i)
        else:
            batches.append([i])
    return batches


def pad(encoded: Sequence[Encoded], token: int, left: bool, device: torch.device) -> tuple[Tensor, Tensor, list[int]]:
    """Token ids and attention mask `[batch, width]`, and each row's left padding."""
    width = max(len(e) for e in encoded)
    pads = [width - len(e) if left else 0 for e in encoded]
    ids = torch.full((len(encoded), width), token, dtype=torch.long)
    mask = torch.zeros((len(encoded), width), dtype=torch.long)
    for row, (item, start) in enumerate(zip(encoded, pads, strict=True)):
        ids[row, start : start + len(item)] = torch.tensor(item.ids)
        mask[row, start : start + len(item)] = 1
    return ids.to(device), mask.to(device), pads
