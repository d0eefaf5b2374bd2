"""Windows over what is generated: some of the answer's tokens, until a token, or less and less."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from interp.errors import EditError
from interp.model.architecture import Architecture
from interp.model.batch import Cells
from interp.model.ops import Edit, Edits, Op, Weight, flatten_edits

_OUTSIDE = "met no token of what was run in its window; check its bounds, its end tokens, positions and phase"


@dataclass(frozen=True, eq=False)
class During:
    """Edits within a window of generated tokens; make it with `during`."""

    inner: tuple[Edit, ...]
    start: int
    stop: int | None
    until: frozenset[int]
    decay: float

    def __repr__(self) -> str:
        end = "" if self.stop is None else self.stop
        more = f", until {sorted(self.until)}" if self.until else ""
        more += f", decay {self.decay:g}" if self.decay != 1 else ""
        return f"during(generated[{self.start}:{end}]{more}, {list(self.inner)})"

    def ops(self, arch: Architecture) -> Sequence[Op]:
        """The edits fitted to a model."""
        found = [op for edit in self.inner for op in edit.ops(arch)]
        if all(op.phase == "prompt" for op in found):
            raise EditError(
                f"a window is one of generated tokens, and {list(self.inner)} act on the prompt alone; give them "
                "phase='both' or 'generation'"
            )
        return [replace(op, window=multiplied(op.window, self._weight), owner=self, hint=_OUTSIDE) for op in found]

    def _weight(self, cells: Cells) -> Tensor:
        """All of a change for prompt tokens, which the edits' own positions decide on."""
        number = cells.numbers
        inside = number >= self.start
        if self.stop is not None:
            inside &= number < self.stop
        if self.until:
            inside &= number < self._ends(cells)
        inside |= number < 0
        return inside if self.decay == 1 else self.decay ** (number - self.start).clamp(min=0) * inside

    def _ends(self, cells: Cells) -> Tensor:
        """For each cell, the number of its row's first end token among those known; beyond all where there is none."""
        batch = cells.batch
        known: dict[int, tuple[int, int]] = batch.notes.setdefault(self, {})  # looked at so far, first end
        for b, row in enumerate(batch.rows):
            seen, first = known.get(row, (0, _NEVER))
            tokens = batch.generated(b)
            if first == _NEVER:
                first = next((i for i in range(seen, len(tokens)) if tokens[i] in self.until), _NEVER)
            known[row] = (len(tokens), first)
        first_of = {row: first for row, (_, first) in known.items()}
        return torch.tensor([first_of[row] for row in cells.rows.tolist()], device=cells.rows.device)


_NEVER = 1 << 40


def during(
    edits: Edits,
    start: int = 0,
    stop: int | None = None,
    *,
    until: int | Sequence[int] = (),
    decay: float = 1.0,
) -> During:
    """Let edits act on some of the generated tokens only.

    Which tokens of the prompt they act on is for their own `positions` and `phase` to say. Generated token `i` is the
    i-th that is written, from 0; an edit of it changes what is written after it. A window counts in tokens and not in
    steps of decoding, so a given answer (a `Trace`) is edited as one that is written.

    Args:
        edits: One or several edits, or a steering vector; some of them must act on generated tokens.
        start: The first generated token.
        stop: The one after the last; to the end of the answer by default.
        until: Token ids: the first of them that is written, and everything after it, is left alone. Each row has its
            own end.
        decay: Of a change, token `i` gets the share `decay ** (i - start)`.

    Raises:
        EditError: For an empty window or a decay outside (0, 1]; when it is run, for edits of the prompt alone, and
            when no token met its window.
    """
    ends = frozenset([until] if isinstance(until, int) else until)
    if start < 0 or (stop is not None and stop <= start):
        raise EditError(f"generated tokens {start} to {stop} are no window: it is counted from 0, and stop is after it")
    if not 0 < decay <= 1:
        raise EditError(f"decay is {decay}; it is the share that is left from token to token, above 0 and at most 1")
    if start == 0 and stop is None and not ends and decay == 1:
        raise EditError("the window is the whole answer: say start, stop, until or decay, or use the edits as they are")
    inner = tuple(flatten_edits(edits))
    if not inner:
        raise EditError("there are no edits to act during the window")
    return During(inner, start, stop, ends, float(decay))


def multiplied(one: Weight | None, other: Weight) -> Weight:
    """Both weights at once."""
    return other if one is None else lambda cells: one(cells) * other(cells)
