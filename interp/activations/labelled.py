"""What activations in memory and on disk have in common: names along the axes, and the prompts beside the rows."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from interp.errors import PositionError, PromptError, SiteError
from interp.text.prompts import PromptSet

Rows = Sequence[int] | NDArray[Any]


class Labelled(ABC):
    """Activations `[row, layer, position, feature]` per site, with names; see `Activations` and `Store`.

    A row is a prompt; or, where a whole region was captured (`positions == ("inst[*]",)`), a token, all tokens of a
    prompt one after another.
    """

    layers: tuple[int, ...]
    positions: tuple[str, ...]
    prompts: PromptSet
    n_heads: int
    n_kv_heads: int | None
    provenance: Mapping[str, Any]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return int(self.offsets[-1])

    @property
    @abstractmethod
    def sites(self) -> tuple[str, ...]:
        """The captured sites."""

    @abstractmethod
    def sel(self, site: str | None = None, layer: int | None = None, position: str | int | None = None) -> Tensor:
        """Select by name; every axis that is named is dropped."""

    @abstractmethod
    def of(
        self, prompt: int, site: str | None = None, layer: int | None = None, position: str | int | None = None
    ) -> Tensor:
        """One prompt's rows of `sel(site, layer, position)`."""

    @property
    def ragged(self) -> bool:
        """Whether rows are tokens."""
        return is_ragged(self.positions)

    @property
    def labels(self) -> NDArray[Any]:
        """The prompts' labels, one per row."""
        return self._per_row([p.label for p in self.prompts])

    @property
    def groups(self) -> NDArray[Any]:
        """The prompts' groups, one per row; prompts of one group belong on one side of a split."""
        return self._per_row([p.group for p in self.prompts])

    def heads(self, site: str = "z") -> Tensor:
        """A site with its heads apart: `[row, layer, position, head, width]`.

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

    def to_npz(
        self,
        path: str | os.PathLike[str],
        site: str | None = None,
        layers: int | Sequence[int] | None = None,
        positions: str | int | Sequence[str | int] | None = None,
    ) -> Path:
        """Write a slice as `.npz`, without pickling anything.

        It has `values` `[row, layer, position, feature]`, `ids`, `labels`, `groups`, `layers`, `positions` and
        `offsets`. bfloat16 becomes float32, since NumPy has none.

        Args:
            path: The file; written whole or not at all.
            site: May be left out where there is one.
            layers: All by default.
            positions: All by default.

        Raises:
            SiteError, PositionError: For what was not captured.
            FormatError: When the file cannot be written.
        """
        from interp.activations.export import to_npz

        return to_npz(self, Path(path), site, layers, positions)

    def to_parquet(
        self,
        path: str | os.PathLike[str],
        site: str | None = None,
        layers: int | Sequence[int] | None = None,
        positions: str | int | Sequence[str | int] | None = None,
    ) -> Path:
        """Write a slice as parquet, one line per row, layer and position.

        Columns are `row`, `prompt`, `id`, `label`, `group`, `layer`, `position` and `values`, a list of fixed size. It
        is written block by block, so that it may be larger than memory. Arguments and errors as in `to_npz`.
        """
        from interp.activations.export import to_parquet

        return to_parquet(self, Path(path), site, layers, positions)

    def _per_row(self, values: Sequence[Any]) -> NDArray[Any]:
        found = np.empty(len(values), dtype=object)
        found[:] = values
        return np.repeat(found, np.diff(self.offsets)) if self.ragged else found

    def _site(self, site: str | None) -> str:
        if site is None:
            if len(self.sites) > 1:
                raise SiteError(f"several sites were captured, name one of {', '.join(self.sites)}")
            return next(iter(self.sites))
        if site not in self.sites:
            raise SiteError(f"{site!r} was not captured; captured: {', '.join(self.sites)}")
        return site

    def _layer(self, layer: int) -> int:
        if layer not in self.layers:
            raise no_layer(layer, self.layers)
        return self.layers.index(layer)

    def column(self, position: str | int) -> int:
        """Place of a position along the third axis; `PositionError` lists what there is."""
        if self.ragged and f"{position}[*]" in self.positions:
            return 0
        if str(position) not in self.positions:
            raise PositionError(f"{position!r} was not captured; captured: {', '.join(self.positions)}")
        return self.positions.index(str(position))

    def _index(self, rows: Rows) -> NDArray[np.int64]:
        """Row numbers of an index or a mask."""
        index = np.asarray(rows)
        if index.dtype == bool:
            if index.shape != (len(self),):
                raise PromptError(f"a mask over {index.shape} was given; there are {len(self)} rows")
            return np.flatnonzero(index)
        index = index.astype(np.int64) if not index.size else index
        if index.ndim != 1 or index.dtype.kind not in "iu":
            raise PromptError(f"rows are chosen by a list of whole numbers or a mask, not by {rows!r:.60}")
        bad = index[(index < -len(self)) | (index >= len(self))]
        if len(bad):
            raise PromptError(f"there is no row {int(bad[0])}: there are {len(self)}")
        return np.where(index < 0, index + len(self), index).astype(np.int64)

    def _owners(self, index: NDArray[np.int64]) -> tuple[PromptSet, NDArray[np.int64]]:
        """The prompts of chosen rows, and their offsets: rows of one prompt that stand together stay together."""
        if not self.ragged:
            chosen, offsets = index, np.arange(len(index) + 1)
        else:
            owner = np.searchsorted(self.offsets, index, side="right") - 1
            new = np.flatnonzero(np.diff(owner, prepend=-1))
            chosen, offsets = owner[new], np.append(new, len(index))
        return PromptSet(tuple(self.prompts[int(i)] for i in chosen), self.prompts.name), offsets.astype(np.int64)

    def _rows_of(self, prompt: int) -> tuple[int, int]:
        n = len(self.prompts)
        if not -n <= prompt < n:
            raise PromptError(f"there is no prompt {prompt}: there are {n}")
        return int(self.offsets[prompt % n]), int(self.offsets[prompt % n + 1])


def no_layer(layer: int, layers: Sequence[int]) -> SiteError:
    """The error for a layer that was not captured."""
    text = f"layer {layer} was not captured; captured: {', '.join(map(str, layers))}"
    if str(layer).startswith("-"):
        text += " (how many layers the model has is not known here, so none can be counted from the last)"
    return SiteError(text)


def is_ragged(positions: Sequence[str]) -> bool:
    """Whether position names stand for every token of a region."""
    return positions[0].endswith("[*]")
