"""One block's values shown to a visit, from whatever form a backend meets them in."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from einops import rearrange
from torch import Tensor

Visit = Callable[[int, str, Tensor], Tensor]
"""Called with layer, site and `x[batch, token, feature]`; what it returns takes the place of `x`."""


class BlockVisit:
    """Shows the wanted sites of one block, in the order of the forward.

    Every method takes a value and returns what should go on in its place: the same object when nothing changed.

    Args:
        layer: 0-based block.
        sites: The wanted sites; values of others pass through.
        visit: What they are shown to.
    """

    def __init__(self, layer: int, sites: Collection[str], visit: Visit) -> None:
        self.layer = layer
        self.sites = frozenset(sites)
        self._visit = visit
        self._batch = 0
        self._entered: Tensor | None = None

    def see(self, site: str, x: Tensor) -> Tensor:
        """A value `[batch, token, feature]`."""
        return self._visit(self.layer, site, x) if site in self.sites else x

    def enter(self, x: Tensor) -> Tensor:
        """The stream as it enters the block: `resid_pre`."""
        self._batch = x.shape[0]
        new = self.see("resid_pre", x)
        self._entered = new if "resid_mid" in self.sites else None
        return new

    def attention(self, x: Tensor) -> Tensor:
        """What attention adds: `attn_out`, and `resid_mid`, a change of which is added to it."""
        new = self.see("attn_out", x)
        if self._entered is not None:
            middle, self._entered = self._entered + new, None
            changed = self.see("resid_mid", middle)
            if changed is not middle:
                new = new + (changed - middle)
        return new

    def heads(self, site: str, x: Tensor) -> Tensor:
        """Queries, keys or values `[batch, head, token, width]`."""
        if site not in self.sites:
            return x
        flat = rearrange(x, "b h t d -> b t (h d)")
        new = self.see(site, flat)
        return x if new is flat else rearrange(new, "b t (h d) -> b h t d", h=x.shape[1])

    def pattern(self, weights: Tensor) -> Tensor:
        """Attention weights `[batch, head, query, key]`."""
        if "pattern" not in self.sites:
            return weights
        flat = rearrange(weights, "b h q k -> b q (h k)")
        new = self.see("pattern", flat)
        return weights if new is flat else rearrange(new, "b q (h k) -> b h q k", h=weights.shape[1])

    def tokens(self, site: str, x: Tensor) -> Tensor:
        """A value whose rows are the tokens of all prompts one after another, as a mixture of experts has them."""
        if site not in self.sites:
            return x
        shaped = x if x.ndim == 3 else x.reshape(self._batch, -1, x.shape[-1])
        new = self.see(site, shaped)
        return x if new is shaped else new.reshape(x.shape)

    def experts(self, indices: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The experts chosen and their weights: `expert_indices`, both together (`routing`), `expert_weights`."""
        indices = self.tokens("expert_indices", indices)
        if "routing" in self.sites:
            # As floats, in which an index is exact.
            wide = torch.promote_types(weights.dtype, torch.float32)
            both = torch.cat([indices.to(wide), weights.to(wide)], -1)
            new = self.tokens("routing", both)
            if new is not both:
                k = indices.shape[-1]
                indices, weights = new[..., :k].to(indices.dtype), new[..., k:].to(weights.dtype)
        return indices, self.tokens("expert_weights", weights)


class BlockVisits(BlockVisit):
    """Several visits of one block, one after another, for a backend that meets each value once.

    Each keeps its own middle of the stream: an inner visit is shown as `attn_out` what an outer one's change of
    `resid_mid` has made of it, as with hooks of each their own.
    """

    def __init__(self, each: Sequence[BlockVisit]) -> None:
        super().__init__(each[0].layer, frozenset[str]().union(*(shown.sites for shown in each)), _nothing)
        self._each = tuple(each)

    def see(self, site: str, x: Tensor) -> Tensor:
        """A value `[batch, token, feature]`."""
        for shown in self._each:
            x = shown.see(site, x)
        return x

    def enter(self, x: Tensor) -> Tensor:
        """The stream as it enters the block."""
        self._batch = x.shape[0]
        for shown in self._each:
            x = shown.enter(x)
        return x

    def attention(self, x: Tensor) -> Tensor:
        """What attention adds, and the middle of the stream."""
        for shown in self._each:
            x = shown.attention(x)
        return x

    def experts(self, indices: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The experts chosen and their weights."""
        for shown in self._each:
            indices, weights = shown.experts(indices, weights)
        return indices, weights


def _nothing(_layer: int, _site: str, x: Tensor) -> Tensor:
    return x
