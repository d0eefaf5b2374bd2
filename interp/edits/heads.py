"""Edits of attention heads: scaled, or with other values in their place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from einops import rearrange
from numpy.typing import ArrayLike
from torch import Tensor

from interp.edits.fitting import Where, as_tensor, check_finite, check_number, where
from interp.errors import DirectionError, EditError, SiteError
from interp.model.architecture import Architecture
from interp.model.batch import Cells, Phase
from interp.model.ops import Op
from interp.model.sites import check_layers

Renorm = Literal["none", "tensor", "token"]
"""What keeps its norm when heads are scaled: nothing, a prompt's heads over all tokens, or those of every token."""
Heads = Sequence[tuple[int, int]]


def check_heads(heads: Heads, arch: Architecture) -> dict[int, list[int]]:
    """Heads by layer, or a `SiteError` that names the one there isn't."""
    by_layer: dict[int, list[int]] = {}
    for layer, head in heads:
        (at,) = check_layers(layer, arch.n_layers)
        if not 0 <= head < arch.n_heads:
            raise SiteError(f"head {head} of layer {layer} is out of range: heads are 0 to {arch.n_heads - 1}")
        by_layer.setdefault(at, []).append(head)
    return by_layer


@dataclass(frozen=True, eq=False)
class ScaleHeads(Where):
    """Scales attention heads at `z`; make it with `scale_heads`."""

    heads: tuple[tuple[int, int], ...]
    factor: float
    renorm: Renorm = "none"

    def __repr__(self) -> str:
        kept = "" if self.renorm == "none" else f", renorm {self.renorm}"
        return f"scale_heads({list(self.heads)} x {self.factor:g} at {'+'.join(map(str, self.positions))}{kept})"

    def ops(self, arch: Architecture) -> Sequence[Op]:
        """The edit fitted to a model."""
        return [
            Op("z", layer, self._change(heads, arch.n_heads), self.positions, self.phase, self,
               tokenwise=self.renorm == "tensor")
            for layer, heads in check_heads(self.heads, arch).items()
        ]  # fmt: skip

    def _change(self, heads: list[int], n_heads: int) -> Callable[[Tensor, Cells | None], Tensor]:
        def change(x: Tensor, cells: Cells | None) -> Tensor:
            out = rearrange(x, "... (h d) -> ... h d", h=n_heads).clone()
            out[..., heads, :] *= self.factor
            return _renormed(x, rearrange(out, "... h d -> ... (h d)"), self.renorm, cells)

        return change


@dataclass(frozen=True, eq=False)
class SetHeads(Where):
    """Puts other values in the place of heads' outputs at `z`; make it with `set_heads`."""

    heads: tuple[tuple[int, int], ...]
    values: Tensor | tuple[Tensor, ...]

    def __repr__(self) -> str:
        return f"set_heads({list(self.heads)} at {'+'.join(map(str, self.positions))})"

    def ops(self, arch: Architecture) -> Sequence[Op]:
        """The edit fitted to a model."""
        ops: list[Op] = []
        for layer in check_heads(self.heads, arch):
            width = arch.feature("z", (layer,)).width // arch.n_heads
            several = (self.values,) if isinstance(self.values, Tensor) else self.values
            if any(v.shape[-1] != width for v in several):
                raise DirectionError(
                    f"values {several[0].shape[-1]} wide do not fit this model's heads, which are {width} wide; were "
                    "they made for another model?"
                )
            mine = [(place, head) for place, (at, head) in enumerate(self.heads) if at % arch.n_layers == layer]
            change = self._change(mine, arch.n_heads)
            ops.append(
                Op("z", layer, change, self.positions, self.phase, self, tokenwise=not isinstance(self.values, Tensor))
            )
        return ops

    def _change(self, mine: list[tuple[int, int]], n_heads: int) -> Callable[[Tensor, Cells | None], Tensor]:
        def change(x: Tensor, cells: Cells | None) -> Tensor:
            out = rearrange(x, "... (h d) -> ... h d", h=n_heads).clone()
            for place, head in mine:
                out[..., head, :] = self._value(place, cells).to(x)
            return rearrange(out, "... h d -> ... (h d)")

        return change

    def _value(self, place: int, cells: Cells | None) -> Tensor:
        if isinstance(self.values, Tensor):
            return self.values[place]
        if cells is None:
            raise EditError("values of single tokens need to know the prompt: run it through model.run or model.logits")
        found: list[Tensor] = []
        for row, column in zip(cells.rows.tolist(), cells.columns.tolist(), strict=True):
            if row >= len(self.values) or column >= self.values[row].shape[1]:
                raise EditError(
                    f"there is no value for token {column} of prompt {row}; give one per token, for the same prompts "
                    "in the same order"
                )
            found.append(self.values[row][place, column])
        return torch.stack(found)


def scale_heads(
    heads: Heads,
    factor: float = 0.0,
    *,
    renorm: Renorm = "none",
    positions: str | int | Sequence[str | int] = "all",
    phase: Phase | None = None,
) -> ScaleHeads:
    """Scale attention heads' outputs before the output projection; 0 ablates them.

    With `renorm`, all heads of the layer are then scaled together so that what enters the output projection is as long
    as before ("Refusal Falls off a Cliff", arXiv 2510.06036, official code). `"tensor"` is the authors' rule, taken
    over the tokens of one prompt rather than of the whole batch, so that a batch gives the numbers of a single prompt;
    while an answer is written, that is the token at hand. `"token"` keeps the length of every token.

    Args:
        heads: Pairs (layer, head).
        factor: 0 switches a head off, 1 leaves it.
        renorm: `"none"`, `"tensor"` or `"token"`.
        positions: Tokens.
        phase: `"prompt"`, `"generation"` or `"both"`.
    """
    if not heads:
        raise EditError("no heads were given")
    if renorm not in get_args(Renorm):
        raise EditError(f"unknown renorm {renorm!r}; known: {', '.join(get_args(Renorm))}")
    pairs = tuple((int(a), int(b)) for a, b in heads)
    return ScaleHeads(*where(positions, phase), pairs, check_number(factor, "factor"), renorm)


def set_heads(
    heads: Heads,
    values: ArrayLike | Sequence[Tensor],
    *,
    positions: str | int | Sequence[str | int] = "all",
    phase: Phase | None = None,
) -> SetHeads:
    """Put other values in the place of heads' outputs before the output projection (mean and resample ablation).

    Args:
        heads: Pairs (layer, head).
        values: One vector per head `[head, d_head]`; or, for every prompt in the order they are run, one per head and
            token `[head, token, d_head]`, of which those at `positions` are used.
        positions: Tokens.
        phase: `"prompt"`, `"generation"` or `"both"`.
    """
    if not heads:
        raise EditError("no heads were given")
    pairs = tuple((int(a), int(b)) for a, b in heads)
    each = isinstance(values, list | tuple) and len(values) > 0 and as_tensor(values[0]).ndim == 3
    found = tuple(check_finite(as_tensor(v)) for v in values) if each else check_finite(as_tensor(values))  # pyright: ignore
    for value in found if isinstance(found, tuple) else (found,):
        if value.ndim != (3 if each else 2) or len(value) != len(pairs):
            raise EditError(f"values of shape {tuple(value.shape)} are not one vector for each of {len(pairs)} heads")
    return SetHeads(*where(positions, phase), pairs, found)


def _renormed(old: Tensor, new: Tensor, renorm: Renorm, cells: Cells | None) -> Tensor:
    if renorm == "none":
        return new
    before, after = (x.float().square().sum(-1) for x in (old, new))
    if renorm == "tensor":
        if cells is None:
            before, after = (x.sum(-1, keepdim=True).expand_as(x) for x in (before, after))
        else:
            rows = cells.rows.to(old.device)
            size = int(rows.max()) + 1
            before, after = (x.new_zeros(size).index_add(0, rows, x)[rows] for x in (before, after))
    # Where every head of the layer is off, nothing is left to be made longer.
    grown = torch.where(after > 0, (before / after.clamp(min=1e-30)).sqrt(), torch.ones_like(after))
    return (new.float() * grown[..., None]).to(new.dtype)
