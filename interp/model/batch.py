"""What is being run: prompts with their padding, and which of their tokens is which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from interp.text.encoded import Encoded

Phase = Literal["prompt", "generation", "both"]


@dataclass(frozen=True)
class Cells:
    """Which tokens an edit is given.

    Attributes:
        rows: The prompt's index.
        places: The place among the edit's positions; -1 for a generated token.
        sizes: How many tokens the edit's positions are in this prompt; 0 for a generated token.
        pads: The prompt's left padding, in tokens.
        columns: The token's index in its text, padding not counted.
        numbers: The token's number among the generated ones, counted from 0; -1 for a prompt token.
        batch: What is being run, where an edit may keep notes.
    """

    rows: Tensor
    places: Tensor
    sizes: Tensor
    pads: Tensor
    columns: Tensor
    numbers: Tensor
    batch: Batch


@dataclass
class Batch:
    """What is being run.

    Attributes:
        encoded: The rows' prompts.
        rows: Their indices in the run.
        pads: Their left padding.
        device: Where token ids are.
        past: How many columns are cached already.
        wordless: Whether every row ended with its first token, so that there was no generated token to edit.
        written: For each prompt of the run, the tokens written so far; empty where nothing is written.
        notes: What edits have found out about these rows; gone when the batch is done.
    """

    encoded: Sequence[Encoded]
    rows: list[int]
    pads: list[int]
    device: torch.device
    past: int = 0
    wordless: bool = False
    written: Sequence[Sequence[int]] = ()
    notes: dict[Any, Any] = field(default_factory=dict[Any, Any])

    @property
    def width(self) -> int:
        """Columns of the pass over the prompts, padding included."""
        return max(len(item) + pad for item, pad in zip(self.encoded, self.pads, strict=True))

    def generated(self, b: int) -> list[int]:
        """The tokens of a row that count as generated: those of a given answer, and those written so far."""
        item = self.encoded[b]
        return [*item.ids[item.n_prompt :], *(self.written[self.rows[b]] if self.written else ())]

    def numbers(self, b: Tensor, columns: Tensor) -> Tensor:
        """The numbers of tokens among the generated ones, from the batch's rows and columns without padding."""
        n_prompt = torch.tensor([item.n_prompt for item in self.encoded], device=columns.device)
        return (columns - n_prompt[b]).clamp(min=-1)

    def cells(self, positions: tuple[str | int, ...], phase: Phase) -> tuple[Tensor, Tensor, Cells] | None:
        """Batch indices, columns and `Cells` that a selection picks in a pass over the prompts; `None` for none."""
        picked: list[tuple[int, int, int, int, int, int]] = []
        for b, (item, row, pad) in enumerate(zip(self.encoded, self.rows, self.pads, strict=True)):
            chosen: dict[int, int] = {}
            place = 0
            if phase != "generation":
                for name in positions:
                    for column in item.columns(name):
                        if name != "all" or column < item.n_prompt:
                            chosen.setdefault(column, place)
                        place += 1
            if phase != "prompt":
                for column in range(item.n_prompt, len(item)):
                    chosen.setdefault(column, -1)
            picked += [(b, column + pad, row, at, place if at >= 0 else 0, pad) for column, at in chosen.items()]
        if not picked:
            return None
        b, t, row, place, size, shift = torch.tensor(picked, device=self.device).unbind(1)
        return b, t, Cells(row, place, size, shift, t - shift, self.numbers(b, t - shift), self)

    def history(
        self, positions: tuple[str | int, ...], phase: Phase, dropped: int
    ) -> tuple[Tensor, Tensor, Cells] | None:
        """What `cells` gives, over all columns so far, of which the first `dropped` are gone (a sliding cache)."""
        found = self.cells(positions, phase)
        parts: list[tuple[Tensor, ...]] = []
        if found is not None:
            b, t, cells = found
            parts.append((b, t, cells.rows, cells.places, cells.sizes, cells.pads, cells.columns, cells.numbers))
        if phase != "prompt":
            later = torch.arange(self.width, self.past + 1, device=self.device)
            b = torch.arange(len(self.rows), device=self.device).repeat_interleave(len(later))
            t = later.repeat(len(self.rows))
            row, pad = (torch.tensor(x, device=self.device)[b] for x in (self.rows, self.pads))
            numbers = self.numbers(b, t - pad)
            parts.append((b, t, row, torch.full_like(b, -1), torch.zeros_like(b), pad, t - pad, numbers))
        if not parts:
            return None
        b, t, row, place, size, pad, column, number = (torch.cat(part) for part in zip(*parts, strict=True))
        kept = t >= dropped
        if not bool(kept.any()):
            return None
        cells = Cells(row[kept], place[kept], size[kept], pad[kept], column[kept], number[kept], self)
        return b[kept], t[kept] - dropped, cells

    def newest(self, device: torch.device) -> Cells:
        """The one new token of every row, in a step of generation."""
        key = (Batch, device, *self.rows)  # rows that have ended leave the batch
        if key not in self.notes:
            rows, pads, n_prompt = (
                torch.tensor(x, device=device) for x in (self.rows, self.pads, [e.n_prompt for e in self.encoded])
            )
            self.notes[key] = rows, torch.full_like(rows, -1), torch.zeros_like(rows), pads, pads + n_prompt
        rows, places, sizes, pads, begun = self.notes[key]
        return Cells(rows, places, sizes, pads, self.past - pads, self.past - begun, self)

    def is_everything(self, positions: tuple[str | int, ...], phase: Phase) -> bool:
        """Whether a selection picks every token of a prompt pass (padding, which nothing reads, included)."""
        return positions == ("all",) and (
            phase == "both" or (phase == "prompt" and all(len(e) == e.n_prompt for e in self.encoded))
        )

    def tokens(self, device: torch.device) -> Tensor:
        """Where a pass over the prompts has tokens rather than padding, `[batch, column]`."""
        first, size = (torch.tensor(x, device=device)[:, None] for x in (self.pads, [len(e) for e in self.encoded]))
        columns = torch.arange(self.width, device=device)
        return (columns >= first) & (columns < first + size)
