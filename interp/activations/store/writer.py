"""The writer: takes batches in any order, puts rows where they belong, and says done only what is on the disk."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from interp.activations.store.files import DTYPES, Array, opened, rename, runs, sync_files, sync_folder, write_at
from interp.activations.store.journal import Journal
from interp.activations.store.manifest import JOURNAL, About, Plan, write_segment
from interp.activations.store.segment import Segment, sum_up
from interp.errors import StoreError

GATHER = 64 << 20
"""Bytes gathered before they are written: long runs instead of single rows."""
SYNC_BYTES = 256 << 20
SYNC_SECONDS = 10.0


class Writer:
    """Fills one segment. Whoever makes one holds the store's lock.

    What was journalled before is trusted: its rows are not read again. They are checked like all others when they are
    read, as their checksums were taken from what was computed and not from what was found on the disk.

    Args:
        folder: The segment's folder.
        about: What is common to the store.
        plan: The segment's plan; its file is there already.
    """

    def __init__(self, folder: Path, about: About, plan: Plan) -> None:
        self._folder, self._about, self._plan = folder, about, plan
        self._arrays = plan.arrays(folder, about)
        self._checksums = plan.checksums(folder, about)
        self._journal = Journal(folder, plan)
        self._pending: list[tuple[int, Mapping[str, Tensor]]] = []
        self._pending_bytes = 0
        self._written: list[int] = []
        self._unsynced = 0
        self._synced_at = time.monotonic()
        if not self._intact():
            self._allocate()

    @property
    def batches(self) -> tuple[tuple[int, ...], ...]:
        """Prompts of each batch, as planned when the segment was begun."""
        return self._plan.batches

    @property
    def missing(self) -> list[int]:
        """Numbers of the batches that are still to be computed."""
        done = self._journal.done
        return [number for number in range(len(self._plan.batches)) if number not in done]

    def add(self, number: int, values: Mapping[str, Tensor]) -> None:
        """Take a batch: per site `[layer, cell, width]` as in `Step.reads`, a row having one cell per position.

        Raises:
            StoreError: When the disk is full or fails; what was synced before stays done.
        """
        self._pending.append((number, values))
        self._pending_bytes += sum(value.numel() * value.element_size() for value in values.values())
        if self._pending_bytes >= GATHER:
            self._write()
        late = time.monotonic() - self._synced_at >= SYNC_SECONDS
        if late or self._unsynced + self._pending_bytes >= SYNC_BYTES:
            self.sync()

    def sync(self) -> None:
        """Bring all that was added to the disk, and then write down that it is done."""
        self._write()
        if self._written:
            sync_files([array.partial for array in (*self._arrays.values(), self._checksums)])
            self._journal.add(self._written)
            self._written, self._unsynced = [], 0
        self._synced_at = time.monotonic()

    def seal(self) -> None:
        """Finish: all rows are there, so say so, and give the files their names."""
        self.sync()
        if self.missing:
            raise StoreError(f"{self._folder}: {len(self.missing)} batches are missing, so it cannot be finished")
        segment = Segment(self._folder, self._about, self._plan.digest)
        sums = {array.path.name: sum_up(segment.kept_checksums(key)) for key, array in self._arrays.items()}
        write_segment(self._folder, self._plan, sums)
        finish(segment)

    def _intact(self) -> bool:
        """Whether the unfinished files are as they were left; if not, nothing in them is trusted."""
        if not self._journal.usable:
            return False
        try:
            for array in (*self._arrays.values(), self._checksums):
                array.check()
        except StoreError:
            return False
        return True

    def _allocate(self) -> None:
        (self._folder / JOURNAL).unlink(missing_ok=True)
        sync_folder(self._folder)  # or a power cut could bring it back beside emptied files
        for array in (*self._arrays.values(), self._checksums):
            array.allocate()
        sync_files([array.partial for array in (*self._arrays.values(), self._checksums)])
        self._journal.create()

    def _write(self) -> None:
        if not self._pending:
            return
        prompts = np.array([i for number, _ in self._pending for i in self._plan.batches[number]], dtype=np.int64)
        order = np.argsort(prompts)
        sizes = np.diff(self._plan.rows)[prompts]
        starts = np.empty_like(sizes)
        starts[order] = np.cumsum(sizes[order]) - sizes[order]
        target = torch.from_numpy(spread(starts, sizes))  # for each row that is pending, its place among the sorted
        ordered = prompts[order]
        ends = np.concatenate([[0], np.cumsum(sizes[order])])
        sums = np.empty((len(self._arrays), len(prompts)), dtype="<u8")
        for place, ((site, layer), array) in enumerate(self._arrays.items()):
            rows = torch.empty(len(target), *array.shape[1:], dtype=DTYPES[array.dtype])
            at, depth = 0, self._about.layers.index(layer)
            for _, values in self._pending:
                part = values[site][depth].reshape(-1, *array.shape[1:])
                rows[target[at : at + len(part)]] = part
                at += len(part)
            sums[place] = self._put(array, rows, ordered, ends)
        n = len(self._plan.prompts)
        with opened(self._checksums.partial, os.O_RDWR) as fd:
            for place in range(len(self._arrays)):
                at = 0
                for a, b in runs(ordered.tolist()):
                    offset = len(self._checksums.header) + (place * n + a) * 8
                    write_at(fd, sums[place, at : at + b - a], offset)
                    at += b - a
        self._written += [number for number, _ in self._pending]
        self._unsynced += self._pending_bytes
        self._pending, self._pending_bytes = [], 0

    def _put(
        self, array: Array, rows: Tensor, prompts: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> NDArray[np.uint64]:
        """Write the rows of prompts (ascending) to their places; gives each prompt's checksum."""
        view = rows.reshape(-1).view(torch.uint8).numpy().data
        row_bytes = array.n_bytes // array.shape[0]
        start, at = len(array.header), 0
        with opened(array.partial, os.O_RDWR, view.nbytes) as fd:
            for a, b in runs(prompts.tolist()):
                first, last = int(self._plan.rows[a]) * row_bytes, int(self._plan.rows[b]) * row_bytes
                write_at(fd, view[at : at + last - first], start + first)
                at += last - first
        bounds = (ends * row_bytes).tolist()
        pairs = zip(bounds, bounds[1:], strict=False)
        return np.array([xxhash.xxh3_64_intdigest(view[a:b]) for a, b in pairs], dtype=np.uint64)


def finish(segment: Segment) -> None:
    """Give a sealed segment's files their names; a kill in between is made good by doing it again."""
    left = [array for array in (*segment.arrays.values(), segment.checksums) if not array.path.is_file()]
    for array in left:
        rename(array.partial, array.path)
    (segment.folder / JOURNAL).unlink(missing_ok=True)
    sync_folder(segment.folder)


def spread(starts: NDArray[np.int64], sizes: NDArray[np.int64] | Sequence[int]) -> NDArray[np.int64]:
    """Ranges one after another: `starts[0], starts[0] + 1, ...`, as many as `sizes[0]`, then the next."""
    lengths = np.asarray(sizes, dtype=np.int64)
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))
