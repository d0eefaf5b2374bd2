"""Activation patching: values of another run, attention patterns of another width among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from numpy.typing import ArrayLike
from torch import Tensor

from interp.edits.fitting import (
    Where,
    as_experts,
    as_tensor,
    check_finite,
    check_same_places,
    check_width,
    describe,
    where,
)
from interp.errors import EditError
from interp.model.architecture import Architecture
from interp.model.batch import Cells
from interp.model.ops import Op
from interp.model.sites import check_layers, check_site


@dataclass(frozen=True, eq=False)
class Patch(Where):
    """Puts in activations of another run; make it with `patch`."""

    values: Tensor
    site: str
    layer: int

    def __repr__(self) -> str:
        return f"patch({list(self.values.shape)} at {describe(self, self.site, (self.layer,))})"

    def ops(self, arch: Architecture) -> Sequence[Op]:
        """The edit fitted to a model."""
        (layer,) = check_layers(self.layer, arch.n_layers)
        pattern = self.site == "pattern"
        if not pattern:
            check_width(self.values[0, 0], arch, self.site, (layer,))
        elif self.values.shape[-1] % arch.n_heads:
            raise EditError(f"a pattern {self.values.shape[-1]} wide does not divide into {arch.n_heads} heads")
        given = as_experts(self.values, arch, (layer,)) if self.site == "expert_indices" else self.values

        def change(x: Tensor, cells: Cells | None) -> Tensor:
            assert cells is not None
            n, places = self.values.shape[:2]
            if int(cells.rows.max()) >= n:
                raise EditError(
                    f"the patch holds {n} prompts, but prompt {int(cells.rows.max())} was run (counted from 0); give a "
                    "patch for the same prompts in the same order"
                )
            check_same_places(cells, places, "the patch")
            values = given.to(x)[cells.rows.to(x.device), cells.places.to(x.device)]
            return _fit_patterns(values, x, cells, arch.n_heads) if pattern else values

        return [Op(self.site, layer, change, self.positions, self.phase, self)]


def patch(
    values: ArrayLike,
    *,
    site: str,
    layer: int,
    positions: str | int | Sequence[str | int],
) -> Patch:
    """Put in activations of another run (activation patching), prompt by prompt.

    Args:
        values: `[prompt, position, width]`, for the prompts in the order they are run, and the tokens that
            `positions` name, in order; `Activations.sel(site, layer=...)` gives it. At `pattern`, of any run: tokens
            that the capture's longest prompt lacks get no weight.
        site: Where.
        layer: 0-based.
        positions: Prompt tokens.
    """
    tensor = check_finite(as_tensor(values))
    if tensor.ndim != 3 or not tensor.numel():
        raise EditError(f"a patch is [prompt, position, width], but shape {tuple(tensor.shape)} was given")
    names, phase = where(positions, "prompt")
    if names == ("all",):
        raise EditError("a patch needs its positions named")
    return Patch(names, phase, tensor, check_site(site), layer)


def _fit_patterns(values: Tensor, x: Tensor, cells: Cells, heads: int) -> Tensor:
    """Captured patterns `[cell, heads * tokens]` as wide as the batch's own, `x` `[cell, heads * columns]`.

    A capture has, for every head, one weight per token of its longest prompt; a pass has one per column of the batch,
    which may begin with padding.

    Raises:
        EditError: When a pattern attends to tokens after the one that it is given to.
    """
    given = rearrange(values, "c (h k) -> c h k", h=heads)
    tokens, width = given.shape[-1], x.shape[-1] // heads
    last = cells.columns.to(x.device)
    later = torch.arange(tokens, device=x.device) > last[:, None]
    if bool((given * later[:, None]).any()):
        cell = int((given * later[:, None]).any(-1).any(-1).nonzero()[0])
        raise EditError(
            f"the patch's pattern attends to tokens after number {int(last[cell])} of prompt {int(cells.rows[cell])}, "
            "where it is put in; take it from a token that stands no later in its own prompt"
        )
    keys = torch.arange(width, device=x.device) - cells.pads.to(x.device)[:, None]
    there = (keys >= 0) & (keys < tokens)
    found = given.gather(-1, keys.clamp(0, tokens - 1)[:, None].expand(-1, heads, -1))
    return rearrange(found * there[:, None], "c h k -> c (h k)")
