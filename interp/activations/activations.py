"""`Activations`: a labelled array per site, with the prompts beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from interp.activations.labelled import Labelled, Rows
from interp.text.prompts import PromptSet


@dataclass(frozen=True, eq=False)
class Activations(Labelled):
    """Captured activations, `[row, layer, position, feature]` per site.

    Residual sites are before the final norm, always (`interp.model.sites`). A row is a prompt; or, where a region that
    is as long as the prompt was captured (`positions=["inst"]`), a token: all tokens of the first prompt, then those of
    the next, with one position, named `inst[*]`.

    Attributes:
        data: Per site, a tensor `[row, layer, position, feature]`.
        layers: 0-based layers along the second axis.
        positions: Names along the third axis; the tokens of a region carry their index (`post_inst[-1]`).
        prompts: The prompts along the first axis, with their labels.
        n_heads: Heads that the features of `z`, `q` and `pattern` divide into.
        provenance: Model, chat format, sites, versions.
        offsets: int64 `[n_prompts + 1]`: rows `offsets[i]` to `offsets[i + 1]` are prompt `i`'s.
        n_kv_heads: Heads that the features of `k` and `v` divide into; `None` for as many as `n_heads`.
    """

    data: Mapping[str, Tensor]
    layers: tuple[int, ...]
    positions: tuple[str, ...]
    prompts: PromptSet
    n_heads: int
    provenance: Mapping[str, Any] = field(default_factory=dict)
    offsets: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    n_kv_heads: int | None = None

    def __post_init__(self) -> None:
        if not len(self.offsets):
            object.__setattr__(self, "offsets", np.arange(len(self.prompts) + 1))

    def __repr__(self) -> str:
        shapes = ", ".join(f"{site} {list(value.shape)}" for site, value in self.data.items())
        return f"Activations({shapes}; layers {self.layers}, positions {self.positions})"

    @property
    def sites(self) -> tuple[str, ...]:
        """The captured sites."""
        return tuple(self.data)

    def sel(self, site: str | None = None, layer: int | None = None, position: str | int | None = None) -> Tensor:
        """Select by name; every axis that is named is dropped.

        Args:
            site: May be left out when one site was captured.
            layer: 0-based layer, as in `layers`; none is counted from the last, which may not have been captured.
            position: Position name.

        Returns:
            A view of the captured tensor, e.g. `[row, feature]` for one layer and one position.

        Raises:
            SiteError, PositionError: For what was not captured; the message lists what was.
        """
        value = self.data[self._site(site)]
        if position is not None:
            value = value[:, :, self.column(position)]
        if layer is not None:
            value = value[:, self._layer(layer)]
        return value

    def of(
        self, prompt: int, site: str | None = None, layer: int | None = None, position: str | int | None = None
    ) -> Tensor:
        """One prompt's rows of `sel(site, layer, position)`, a view."""
        first, last = self._rows_of(prompt)
        return self.sel(site, layer, position)[first:last]

    def take(self, rows: Rows) -> Activations:
        """The same for some of the rows, by index or mask.

        Raises:
            PromptError: For a row that is not there, or a mask of another length.
        """
        index = self._index(rows)
        kept, offsets = self._owners(index)
        data = {site: value[index] for site, value in self.data.items()}
        return Activations(
            data, self.layers, self.positions, kept, self.n_heads, self.provenance, offsets, self.n_kv_heads
        )


def join_in_memory(parts: list[Activations]) -> Activations:
    """Activations one after another; `interp.join` checks that they fit."""
    import torch

    first = parts[0]
    data = {site: torch.cat([p.data[site] for p in parts]) for site in first.sites}
    kept, offsets = joined_owners([(p.prompts, p.offsets) for p in parts])
    provenance = joined_provenance([cast("dict[str, Any]", p.provenance) for p in parts])
    return Activations(data, first.layers, first.positions, kept, first.n_heads, provenance, offsets, first.n_kv_heads)


def joined_owners(parts: list[tuple[PromptSet, NDArray[np.int64]]]) -> tuple[PromptSet, NDArray[np.int64]]:
    """Prompts one after another, and the offsets of their rows."""
    name = "+".join(dict.fromkeys(prompts.name for prompts, _ in parts))
    sizes = np.concatenate([np.diff(offsets) for _, offsets in parts])
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return PromptSet(tuple(prompt for prompts, _ in parts for prompt in prompts), name), offsets


def joined_provenance(parts: list[Mapping[str, Any]]) -> dict[str, Any]:
    """What all have in common, and each one's prompts; what differs is listed under `joined`."""
    if len(parts) == 1:
        return dict(parts[0])
    common = {k: v for k, v in parts[0].items() if all(k in p and p[k] == v for p in parts)}
    return {**common, "joined": [{k: v for k, v in p.items() if k not in common} for p in parts]}
