"""`Store`: activations on disk behind the interface of those in memory."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from interp.activations.activations import Activations, joined_owners, joined_provenance
from interp.activations.labelled import Labelled, Rows
from interp.activations.store.files import DTYPES
from interp.activations.store.manifest import About, SiteFormat, read_manifest
from interp.activations.store.segment import Segment, blocks
from interp.errors import SiteError, StoreError
from interp.progress import progress_bar
from interp.text.prompts import PromptSet

if TYPE_CHECKING:
    from interp.activations.store.statistics import Statistics

_BLOCK = 16 << 20


class Store(Labelled):
    """Activations on disk; open one with `interp.open_store`.

    It has what `Activations` has, and reads lazily: choosing a layer reads that layer's file alone, choosing rows those
    rows. Whatever is read is checked against its checksum. A store that is still being captured can be read where it is
    done.

    Attributes:
        layers: 0-based layers.
        positions: Position names; `inst[*]` and the like where rows are tokens.
        prompts: The prompts, with their labels.
        n_heads: Heads that the features of `z`, `q` and `pattern` divide into.
        n_kv_heads: Heads that the features of `k` and `v` divide into.
        provenance: Model, chat format, prompts, versions.
        offsets: int64 `[n_prompts + 1]`: rows `offsets[i]` to `offsets[i + 1]` are prompt `i`'s.
    """

    def __init__(
        self,
        path: Path,
        about: About,
        segments: Sequence[Segment],
        rows: NDArray[np.int64] | None = None,
        owners: tuple[PromptSet, NDArray[np.int64]] | None = None,
    ) -> None:
        self.path = path
        self._about, self._segments, self._rows = about, list(segments), rows
        ends = np.cumsum([0, *(int(s.plan.rows[-1]) for s in self._segments)])
        self._bounds: list[int] = ends.tolist()
        self.layers, self.positions = about.layers, about.positions
        self.n_heads, self.n_kv_heads = about.n_heads, about.n_kv_heads
        parts = [(PromptSet(s.plan.prompts, s.plan.name), s.plan.rows) for s in self._segments]
        self.prompts, self.offsets = owners or joined_owners(parts)
        self.provenance = joined_provenance([_provenance(s) for s in self._segments])

    def __repr__(self) -> str:
        sites = ", ".join(f"{s.site} {s.dtype} {s.width}" for s in self._about.sites)
        state = "" if self.complete else f", {int((~self.done).sum())} still to be captured"
        return (
            f"Store({str(self.path)!r}: {len(self)} rows{state}; {sites}; layers {self.layers}, "
            f"positions {self.positions})"
        )

    @property
    def sites(self) -> tuple[str, ...]:
        """The captured sites."""
        return tuple(s.site for s in self._about.sites)

    @property
    def formats(self) -> tuple[SiteFormat, ...]:
        """Each site with its type and width."""
        return self._about.sites

    @cached_property
    def done(self) -> NDArray[np.bool_]:
        """For each row, whether it was captured when the store was opened."""
        per_row = [np.repeat(s.done, np.diff(s.plan.rows)) for s in self._segments]
        found = np.concatenate(per_row)
        return found if self._rows is None else found[self._rows]

    @property
    def complete(self) -> bool:
        """Whether every row is there."""
        return bool(self.done.all())

    def sel(self, site: str | None = None, layer: int | None = None, position: str | int | None = None) -> Tensor:
        """Read by name; every axis that is named is dropped. Without a layer, all of them are read.

        Args:
            site: May be left out when one site was captured.
            layer: 0-based layer; only its file is read.
            position: Position name.

        Returns:
            A tensor of its own, e.g. `[row, feature]` for one layer and one position.

        Raises:
            SiteError, PositionError: For what was not captured; the message lists what was.
            StoreError: For rows that are not captured yet, and for damage.
        """
        return self._select(site, layer, position, None)

    def of(
        self, prompt: int, site: str | None = None, layer: int | None = None, position: str | int | None = None
    ) -> Tensor:
        """One prompt's rows of `sel(site, layer, position)`, read alone."""
        return self._select(site, layer, position, np.arange(*self._rows_of(prompt)))

    def take(self, rows: Rows) -> Store:
        """The same store for some of the rows, by index or mask; nothing is read.

        Raises:
            PromptError: For a row that is not there, or a mask of another length.
        """
        index = self._index(rows)
        chosen = index if self._rows is None else self._rows[index]
        return Store(self.path, self._about, self._segments, chosen, self._owners(index))

    def load(self, sites: str | Sequence[str] | None = None, layers: Sequence[int] | None = None) -> Activations:
        """Read into memory: all, or some of the sites and layers."""
        names = [sites] if isinstance(sites, str) else list(sites or self.sites)
        chosen = tuple(self.layers if layers is None else layers)
        data = {self._site(site): torch.stack([self.sel(site, layer) for layer in chosen], 1) for site in names}
        return Activations(
            data,
            chosen,
            self.positions,
            self.prompts,
            self.n_heads,
            dict(self.provenance),
            self.offsets,
            self.n_kv_heads,
        )

    def blocks(
        self, site: str | None = None, layer: int | None = None, size: int = _BLOCK
    ) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Go through one layer in blocks of rows, for what is larger than memory.

        Args:
            site: May be left out when one site was captured.
            layer: 0-based layer; may be left out when there is one.
            size: Bytes of a block, about.

        Yields:
            Row numbers, and their values `[row, position, feature]`.
        """
        site = self._site(site)
        if layer is None and len(self.layers) > 1:
            raise SiteError(f"several layers were captured, name one of {self.layers}")
        layer = self.layers[0 if layer is None else self._layer(layer)]
        width = next(s.width * DTYPES[s.dtype].itemsize for s in self._about.sites if s.site == site)
        row_bytes = width * len(self.positions)
        if self.ragged and self._rows is None:  # by whole prompts, as they are read whole
            sizes = np.diff(self.offsets) * row_bytes
            parts = blocks(np.arange(len(sizes)), sizes, size)
            ranges = ((int(self.offsets[part[0]]), int(self.offsets[part[-1] + 1])) for part in parts)
        else:
            step = max(1, size // row_bytes)
            ranges = ((at, min(at + step, len(self))) for at in range(0, len(self), step))
        for first, last in ranges:
            rows = np.arange(first, last)
            if len(rows):
                yield rows, self._read(site, layer, rows)

    def statistics(
        self, labels: ArrayLike | None = None, site: str | None = None, layers: Sequence[int] | None = None
    ) -> Statistics:
        """Count, mean and variance of every class, streamed: memory does not grow with the number of rows.

        Args:
            labels: One per row; the prompts' labels by default.
            site: May be left out when one site was captured.
            layers: All by default.
        """
        from interp.activations.store.statistics import statistics

        return statistics(self, labels, site, layers)

    def verify(self, progress: bool = False) -> None:
        """Read everything that is done and check every checksum.

        Raises:
            StoreError: When something is damaged; names file and prompt.
        """
        total = sum(array.n_bytes for s in self._segments for array in s.arrays.values())
        with progress_bar("checking", total, progress) as advance:
            for segment in {s.folder: s for s in self._segments}.values():
                # Opened anew: names, headers and sizes are checked again, too.
                for n in Segment(segment.folder, segment.about, segment.plan.digest).verify():
                    advance(n)

    def describe(self) -> dict[str, Any]:
        """What is in it, as JSON: for a table or a command."""
        return {
            "path": str(self.path),
            "rows": len(self),
            "prompts": len(self.prompts),
            "complete": self.complete,
            "rows_done": int(self.done.sum()),
            "labels": {str(k): n for k, n in Counter(p.label for p in self.prompts).items()},
            "sites": {s.site: {"dtype": s.dtype, "width": s.width} for s in self._about.sites},
            "layers": list(self.layers),
            "positions": list(self.positions),
            "ragged": self.ragged,
            "bytes": sum(array.size for s in self._segments for array in s.arrays.values()),
            "segments": [
                {
                    "folder": s.folder.name, "prompts": len(s.plan.prompts), "name": s.plan.name,
                    "sealed": s.sealed is not None, "done": int(s.done.sum()),
                }
                for s in self._segments
            ],
            "provenance": dict(self.provenance),
        }  # fmt: skip

    def segment(self, number: int) -> Store:
        """The rows of one capture of several that were appended."""
        if not 0 <= number < len(self._segments):
            raise StoreError(f"{self.path} has no segment {number}: it has {len(self._segments)}")
        if len(self._segments) == 1 and self._rows is None:
            return self
        return Store(self.path, self._about, [self._segments[number]])

    @classmethod
    def joined(cls, stores: Sequence[Store]) -> Store:
        """Stores one after another, still on disk; `interp.join` checks that they fit, and is what to call."""
        segments: list[Segment] = []
        rows: list[NDArray[np.int64]] = []
        start = 0
        for store in stores:
            own = np.arange(store._bounds[-1]) if store._rows is None else store._rows
            rows.append(own + start)
            start += store._bounds[-1]
            segments += store._segments
        first = stores[0]
        whole = all(store._rows is None for store in stores)
        owners = joined_owners([(store.prompts, store.offsets) for store in stores])
        return cls(first.path, first._about, segments, None if whole else np.concatenate(rows), owners)

    def _select(
        self, site: str | None, layer: int | None, position: str | int | None, rows: NDArray[np.int64] | None
    ) -> Tensor:
        site = self._site(site)
        column = None if position is None else self.column(position)

        def one(number: int) -> Tensor:
            value = self._read(site, number, rows)
            if column is None:
                return value
            # A copy where the rest would be kept alive by it.
            return value[:, column].contiguous() if value.shape[1] > 1 else value[:, column]

        if layer is not None:
            return one(self.layers[self._layer(layer)])
        return torch.stack([one(number) for number in self.layers], 1)

    def _read(self, site: str, layer: int, rows: NDArray[np.int64] | None) -> Tensor:
        """Some of the view's rows (all for `None`) of one file per segment, `[row, position, feature]`."""
        if rows is None and self._rows is None:
            parts = [segment.read(site, layer) for segment in self._segments]
            return parts[0] if len(parts) == 1 else torch.cat(parts)
        wanted = rows if self._rows is None else (self._rows if rows is None else self._rows[rows])
        assert wanted is not None
        about = next(s for s in self._about.sites if s.site == site)
        out = torch.empty(len(wanted), len(self.positions), about.width, dtype=DTYPES[about.dtype])
        for segment, start, stop in zip(self._segments, self._bounds, self._bounds[1:], strict=False):
            here = np.flatnonzero((wanted >= start) & (wanted < stop))
            if not len(here):
                continue
            local = wanted[here] - start
            offsets = segment.plan.rows
            owner = np.searchsorted(offsets, local, side="right") - 1
            prompts, place = np.unique(owner, return_inverse=True)
            sizes = np.diff(offsets)[prompts]
            value = segment.read(site, layer, prompts)
            at = (np.cumsum(sizes) - sizes)[place] + local - offsets[owner]
            ordered = len(here) == len(wanted) == len(value) and bool((at == np.arange(len(at))).all())
            if ordered:
                return value
            out[torch.from_numpy(here)] = value[torch.from_numpy(at)]
        return out


def open_store(path: str | os.PathLike[str]) -> Store:
    """Open a store that `interp.capture(..., out=path)` wrote, finished or not.

    Reads the JSON, and of each file its header and size; values are read when they are selected.

    Raises:
        StoreError: When there is no store, or something in it is missing, cut, edited or damaged.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise StoreError(f"there is no store at {folder}: give the folder that was captured into")
    about, listed = read_manifest(folder)
    return Store(folder, about, [Segment(folder / name, about, digest) for name, digest in listed])


def _provenance(segment: Segment) -> Mapping[str, Any]:
    about, plan = segment.about, segment.plan
    versions = {k: v for k, v in plan.versions.items() if k != "device"}
    prompts = {"name": plan.name, "digest": plan.texts, "n": len(plan.prompts)}
    return {**about.model, "versions": versions, "prompts": prompts, "edited": bool(about.edits)}
