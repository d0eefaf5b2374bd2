"""`Activations`: a labelled array per site, with the prompts beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from einops import rearrange
from torch import Tensor

from interp.errors import PositionError, SiteError
from interp.text.prompts import PromptSet


@dataclass(frozen=True)
class Activations:
    """Captured activations, `[example, layer, position, feature]` per site.

    Residual sites are before the final norm, always (`interp.model.sites`).

    Attributes:
        data: Per site, a tensor `[example, layer, position, feature]`.
        layers: 0-based layers along the second axis.
        positions: Names along the third axis; the tokens of a region carry their index (`post_inst[-1]`).
        prompts: The prompts along the first axis, with their labels.
        n_heads: Heads that the features of `z`, `q` and `pattern` divide into.
        provenance: Model, chat format, sites, versions.
        n_kv_heads: Heads that the features of `k` and `v` divide into; `None` for as many as `n_heads`.
    """

    data: Mapping[str, Tensor]
    layers: tuple[int, ...]
    positions: tuple[str, ...]
    prompts: PromptSet
    n_heads: int
    provenance: Mapping[str, Any] = field(default_factory=dict)
    n_kv_heads: int | None = None

    def __repr__(self) -> str:
        shapes = ", ".join(f"{site} {list(value.shape)}" for site, value in self.data.items())
        return f"Activations({shapes}; layers {self.layers}, positions {self.positions})"

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def sites(self) -> tuple[str, ...]:
        """The captured sites."""
        return tuple(self.data)

    @property
    def labels(self) -> np.ndarray[Any, Any]:
        """The prompts' labels, one per example."""
        return np.array([p.label for p in self.prompts], dtype=object)

    @property
    def groups(self) -> np.ndarray[Any, Any]:
        """The prompts' groups, one per example; prompts of one group belong on one side of a split."""
        return np.array([p.group for p in self.prompts], dtype=object)

    def sel(self, site: str | None = None, layer: int | None = None, position: str | int | None = None) -> Tensor:
        """Select by name; every axis that is named is dropped.

        Args:
            site: May be left out when one site was captured.
            layer: 0-based layer.
            position: Position name.

        Returns:
            A view of the captured tensor, e.g. `[example, feature]` for one layer and one position.

        Raises:
            SiteError, PositionError: For what was not captured; the message lists what was.
        """
        if site is None:
            if len(self.data) > 1:
                raise SiteError(f"several sites were captured, name one of {', '.join(self.data)}")
            site = next(iter(self.data))
        if site not in self.data:
            raise SiteError(f"{site!r} was not captured; captured: {', '.join(self.data)}")
        value = self.data[site]
        if position is not None:
            if str(position) not in self.positions:
                raise PositionError(f"{position!r} was not captured; captured: {', '.join(self.positions)}")
            value = value[:, :, self.positions.index(str(position))]
        if layer is not None:
            if layer not in self.layers:
                raise SiteError(f"layer {layer} was not captured; captured: {self.layers}")
            value = value[:, self.layers.index(layer)]
        return value

    def heads(self, site: str = "z") -> Tensor:
        """A site with its heads apart: `[example, layer, position, head, width]`.

        Args:
            site: `z`, `q`, `k`, `v` (the last two have key and value heads) or `pattern`, whose width is the keys:
                the tokens of the longest prompt, counted from each prompt's first.

        Raises:
            SiteError: For a site without heads, or one that was not captured.
        """
        heads = {"z": self.n_heads, "q": self.n_heads, "k": self.n_kv_heads, "v": self.n_kv_heads,
                 "pattern": self.n_heads}  # fmt: skip
        if site not in heads:
            raise SiteError(f"{site} has no heads; the sites that have are {', '.join(heads)}")
        return rearrange(self.sel(site), "n l p (h d) -> n l p h d", h=heads[site] or self.n_heads)

    def take(self, rows: Sequence[int] | np.ndarray[Any, Any]) -> Activations:
        """The same for some of the examples, by index or mask."""
        index = np.asarray(rows)
        index = np.flatnonzero(index) if index.dtype == bool else index
        chosen = [int(i) for i in index]
        kept = PromptSet(tuple(self.prompts[i] for i in chosen), self.prompts.name)
        data = {site: value[chosen] for site, value in self.data.items()}
        return Activations(data, self.layers, self.positions, kept, self.n_heads, self.provenance, self.n_kv_heads)
