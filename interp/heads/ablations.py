"""What is done to a head in a sweep: to nothing, to a mean, to another prompt's value, or to a share of itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from interp.edits import scale_heads, set_heads
from interp.errors import EditError, PositionError, PromptError
from interp.heads.plain import Plain
from interp.model.model import Model
from interp.model.ops import Edit
from interp.text.encoded import Encoded
from interp.text.positions import REGIONS

How = Literal["zero", "mean", "resample"] | float
Heads = Sequence[tuple[int, int]]
Positions = tuple[str | int, ...]
_FIXED = ("post_inst", "think_close")


@dataclass(eq=False)
class Ablation:
    """A change of heads, fitted to prompts.

    Attributes:
        positions: Which tokens, as they were named.
        columns: The same for each prompt, as token indices.
        lengths: Tokens of each prompt.
        n_heads: Heads per layer.
        layers: Layers along the layer axis of what follows.
        factor: What heads are multiplied by, where they are scaled.
        pooled: `[layer, n_heads * d_head]`: what they become, where that is the same at every token.
        values: For each prompt `[cell, layer, n_heads * d_head]`: what they become at its columns, else.
    """

    positions: Positions
    columns: list[list[int]]
    lengths: list[int]
    n_heads: int
    layers: tuple[int, ...] = ()
    factor: float | None = None
    pooled: Tensor | None = None
    values: list[Tensor] | None = None
    _batch: tuple[Plain | None, dict[int | str, Tensor]] = field(
        default_factory=lambda: (None, dict[int | str, Tensor]())
    )

    @property
    def everywhere(self) -> bool:
        """Whether every token of every prompt is changed."""
        return all(len(c) == n for c, n in zip(self.columns, self.lengths, strict=True))

    @property
    def at_the_end(self) -> bool:
        """Whether nothing but the last given token of every prompt is changed."""
        return all(c == [n - 1] for c, n in zip(self.columns, self.lengths, strict=True))

    def apply(self, z: Tensor, plain: Plain, layer: int, head: int) -> Tensor:
        """A head's outputs `[batch, token, d_head]`, changed."""
        new = z * self.factor if self.factor is not None else self._value(plain, layer, head, z)
        if self.everywhere:
            return new  # what stands behind a prompt's end reaches nothing
        return torch.where(self._mask(plain, z)[..., None], new, z)

    def apply_at_ends(self, z: Tensor, plain: Plain, layer: int, head: int) -> Tensor:
        """A head's outputs at each prompt's last given token `[batch, d_head]`, changed."""
        if self.factor is not None:
            return z * self.factor
        new = self._value(plain, layer, head, z)
        if new.ndim == 1:
            return new.expand_as(z)
        rows = torch.arange(len(z), device=z.device)
        return new[rows, plain.ends.to(z.device)]

    def for_rows(self, rows: Sequence[int]) -> Ablation:
        """The same for some of the prompts."""
        values = None if self.values is None else [self.values[i] for i in rows]
        columns, lengths = [self.columns[i] for i in rows], [self.lengths[i] for i in rows]
        return replace(self, columns=columns, lengths=lengths, values=values, _batch=(None, {}))

    def edit(self, heads: Heads) -> Edit:
        """The same as an edit, for the slow and obvious way."""
        if self.factor is not None:
            return scale_heads(heads, self.factor, positions=self.positions)
        at = [(self.layers.index(layer), head) for layer, head in heads]
        if self.pooled is not None:
            shaped = rearrange(self.pooled, "l (h d) -> l h d", h=self.n_heads)
            return set_heads(heads, torch.stack([shaped[place] for place in at]), positions=self.positions)
        assert self.values is not None
        every: list[Tensor] = []
        for columns, length, own in zip(self.columns, self.lengths, self.values, strict=True):
            shaped = rearrange(own, "c l (h d) -> l h c d", h=self.n_heads)
            tokens = torch.zeros(len(heads), length, shaped.shape[-1])
            tokens[:, columns] = torch.stack([shaped[place] for place in at]).float()
            every.append(tokens)
        return set_heads(heads, every, positions=self.positions)

    def _value(self, plain: Plain, layer: int, head: int, like: Tensor) -> Tensor:
        """What a head becomes: `[d_head]` or `[batch, token, d_head]`."""
        place, own = self.layers.index(layer), slice(head * like.shape[-1], (head + 1) * like.shape[-1])
        if self.pooled is not None:
            return self.pooled[place, own].to(like)
        assert self.values is not None
        kept = self._kept(plain)
        if layer not in kept:
            whole = torch.zeros(len(plain.rows), plain.width, self.values[0].shape[-1])
            for row, i in enumerate(plain.rows):
                whole[row, self.columns[i]] = self.values[i][:, place].float()
            kept[layer] = whole.to(like)
        return kept[layer][..., own]

    def _mask(self, plain: Plain, like: Tensor) -> Tensor:
        kept = self._kept(plain)
        if "mask" not in kept:
            mask = torch.zeros(len(plain.rows), plain.width, dtype=torch.bool)
            for row, i in enumerate(plain.rows):
                mask[row, self.columns[i]] = True
            kept["mask"] = mask.to(like.device)
        return kept["mask"]

    def _kept(self, plain: Plain) -> dict[int | str, Tensor]:
        if self._batch[0] is not plain:
            self._batch = (plain, {})
        return self._batch[1]


def fit_ablation(
    model: Model,
    encoded: Sequence[Encoded],
    how: How,
    positions: Positions,
    layers: tuple[int, ...],
    reference: Sequence[Encoded] | None,
    seed: int,
    token_budget: int,
) -> Ablation:
    """Fit a change of heads to prompts: find its tokens, and run the reference prompts where it needs their values.

    Raises:
        EditError: For an unknown change.
        PositionError: For a position that a prompt lacks.
        PromptError: When there is no other prompt to resample from.
    """
    columns = [_columns(e, positions) for e in encoded]
    fitted = Ablation(positions, columns, [len(e) for e in encoded], model.n_heads, layers)
    if isinstance(how, float | int) and not isinstance(how, bool):
        if not np.isfinite(how):
            raise EditError(f"heads cannot be scaled by {how}")
        fitted.factor = float(how)
    elif how == "zero":
        fitted.factor = 0.0
    elif how == "mean":
        _fit_mean(fitted, model, encoded if reference is None else reference, token_budget)
    elif how == "resample":
        _fit_resample(fitted, model, encoded, reference, seed, token_budget)
    else:
        raise EditError(f"unknown ablation {how!r}; known: zero, mean, resample, or a number to scale by")
    return fitted


def _columns(encoded: Encoded, positions: Positions) -> list[int]:
    found = [c for name in positions for c in encoded.columns(name)]
    if len(set(found)) < len(found):
        raise PositionError(f"positions {list(positions)} name a token of {encoded.prompt.text[:40]!r} twice")
    return sorted(found)


def _fit_mean(fitted: Ablation, model: Model, reference: Sequence[Encoded], token_budget: int) -> None:
    """A mean for every position where positions are single tokens, else one over all of a region's tokens."""
    names = fitted.positions
    columns = [_columns(e, names) for e in reference]
    sizes = {len(c) for c in (*columns, *fitted.columns)}
    by_place = not any(name in REGIONS and name not in _FIXED for name in names) and len(sizes) == 1
    width = model.width("z", (), fitted.layers)
    total, count = torch.zeros(max(sizes) if by_place else 1, len(fitted.layers), width, dtype=torch.float64), 0
    for step in model.steps(reference, [(("z", fitted.layers), columns)], stop=True, token_budget=token_budget):
        cells = step.reads["z"].double().transpose(0, 1)
        if by_place:
            total += rearrange(cells, "(b p) l w -> b p l w", b=len(step.rows)).sum(0)
            count += len(step.rows)
        else:
            total[0] += cells.sum(0)
            count += len(cells)
    mean = (total / count).float()
    if by_place:
        fitted.values = [mean] * len(fitted.columns)
    else:
        fitted.pooled = mean[0]


def _fit_resample(
    fitted: Ablation,
    model: Model,
    encoded: Sequence[Encoded],
    reference: Sequence[Encoded] | None,
    seed: int,
    token_budget: int,
) -> None:
    """Each prompt gets another's values, token for token from the end: the template's tokens meet their like.

    Where the other region is shorter, it is gone through again.
    """
    rng = np.random.default_rng(seed)
    if reference is None:
        if len(encoded) < 2:
            raise PromptError("resampling takes another prompt's values: give several prompts, or reference=")
        order = rng.permutation(len(encoded))
        partner = np.empty(len(encoded), dtype=np.int64)
        partner[order] = np.roll(order, 1)  # nobody is their own
        source = encoded
    else:
        partner, source = rng.integers(0, len(reference), len(encoded)), reference
    columns = [_columns(e, fitted.positions) for e in source]
    taken: list[Tensor] = [torch.empty(0)] * len(source)
    for step in model.steps(source, [(("z", fitted.layers), columns)], stop=True, token_budget=token_budget):
        cells = step.reads["z"].transpose(0, 1)
        for row, own in zip(step.rows, cells.split([len(columns[i]) for i in step.rows]), strict=True):
            taken[row] = own.clone()
    fitted.values = []
    for own, other in zip(fitted.columns, partner.tolist(), strict=True):
        back = torch.arange(len(own) - 1, -1, -1)
        fitted.values.append(taken[other][len(columns[other]) - 1 - back % len(columns[other])])
