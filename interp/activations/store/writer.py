"""The writer: takes batches in any order, puts rows where they belong, and says done only what is on the disk."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from interp.activations.store.files import Array, opened, rename, runs, sync_files, sync_folder, write_at, write_pieces
from interp.activations.store.journal import Journal
from interp.activations.store.manifest import JOURNAL, About, Plan, write_segment
from interp.activations.store.segment import read_checksums, sum_up
from interp.errors import StoreError

GATHER = 64 << 20
"""Bytes gathered before they are written: long runs instead of single rows, and no large copy in memory."""
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
        self._syncing: tuple[Future[None], list[int]] | None = None
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
            self._write()
            self._start_sync()

    def sync(self) -> None:
        """Bring all that was added to the disk, and then write down that it is done.

        Raises:
            StoreError: When the disk is full or fails. Once it failed to sync, nothing more is said to be done: the
                system tells of lost data once only.
        """
        self._write()
        self._start_sync()
        self._finish_sync()

    def _start_sync(self) -> None:
        """Begin to sync what is written. The model goes on meanwhile, and the next sync waits for this one."""
        self._finish_sync()
        self._synced_at = time.monotonic()
        if not self._written:
            return
        pool = ThreadPoolExecutor(1)
        files = [array.partial for array in (*self._arrays.values(), self._checksums)]
        self._syncing = pool.submit(sync_files, files), self._written
        pool.shutdown(wait=False)
        self._written, self._unsynced = [], 0

    def _finish_sync(self) -> None:
        if self._syncing is None:
            return
        synced, batches = self._syncing
        synced.result()  # where it fails it stays here, so that every later call fails too
        self._journal.add(batches)
        self._syncing = None

    def seal(self) -> None:
        """Finish: all rows are there, so say so, and give the files their names."""
        self.sync()
        if self.missing:
            raise StoreError(f"{self._folder}: {len(self.missing)} batches are missing, so it cannot be finished")
        sums = {
            array.path.name: sum_up(read_checksums(self._checksums, place))
            for place, array in enumerate(self._arrays.values())
        }
        write_segment(self._folder, self._plan, sums)
        finish(self._folder, [*self._arrays.values(), self._checksums])

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
        owners = [i for number, _ in self._pending for i in self._plan.batches[number]]
        order = np.argsort(owners).tolist()
        ranges = runs(owners[i] for i in order)
        sums = np.empty((len(self._arrays), len(owners)), dtype="<u8")
        # One thread writes while this one cuts and sums up the next layer: the system copies without Python's lock. It
        # is one thread, so that files are written in order, and a layer ahead, so that no more than one waits.
        with ThreadPoolExecutor(1) as pool:
            before: Future[None] | None = None
            for place, (array, pieces) in enumerate(self._gathered(order)):
                sums[place] = [xxhash.xxh3_64_intdigest(piece) for piece in pieces]
                if before is not None:
                    before.result()
                before = pool.submit(self._put, array, pieces, ranges)
            if before is not None:
                before.result()
        n = len(self._plan.prompts)
        with opened(self._checksums.partial, os.O_RDWR, sums.nbytes) as fd:
            for place in range(len(self._arrays)):
                at = 0
                for a, b in ranges:
                    offset = len(self._checksums.header) + (place * n + a) * 8
                    write_at(fd, sums[place, at : at + b - a], offset)
                    at += b - a
        self._written += [number for number, _ in self._pending]
        self._unsynced += self._pending_bytes
        self._pending, self._pending_bytes = [], 0

    def _gathered(self, order: list[int]) -> Iterator[tuple[Array, list[memoryview]]]:
        """Each array with the bytes of every prompt that waits, prompts ascending; nothing is copied."""
        sizes = np.diff(self._plan.rows)
        ends = [np.cumsum(sizes[list(self._plan.batches[number])]) for number, _ in self._pending]
        spans: dict[str, list[tuple[int, int, int]]] = {}
        views: dict[str, list[NDArray[np.uint8]]] = {}
        for (site, layer), array in self._arrays.items():
            if site not in spans:
                row_bytes = array.n_bytes // array.shape[0]
                bounds = [[0, *(rows * row_bytes).tolist()] for rows in ends]
                cuts = [(k, a, b) for k, of in enumerate(bounds) for a, b in pairwise(of)]
                spans[site] = [cuts[i] for i in order]
                views[site] = [_bytes(values[site]) for _, values in self._pending]
            depth = self._about.layers.index(layer)
            rows = [view[depth].data for view in views[site]]
            yield array, [rows[k][a:b] for k, a, b in spans[site]]

    def _put(self, array: Array, pieces: list[memoryview], ranges: list[tuple[int, int]]) -> None:
        """Write the rows of prompts (ascending, as ranges) to their places."""
        row_bytes, at = array.n_bytes // array.shape[0], 0
        with opened(array.partial, os.O_RDWR, sum(map(len, pieces))) as fd:
            for a, b in ranges:
                offset = len(array.header) + int(self._plan.rows[a]) * row_bytes
                write_pieces(fd, pieces[at : at + b - a], offset)
                at += b - a


def _bytes(values: Tensor) -> NDArray[np.uint8]:
    """What is stored of each layer: `[layer, bytes]`."""
    return values.contiguous().flatten(1).view(torch.uint8).numpy()


def finish(folder: Path, arrays: Sequence[Array]) -> None:
    """Give a sealed segment's files their names; a kill in between is made good by doing it again."""
    for array in arrays:
        if not array.path.is_file():
            rename(array.partial, array.path)
    (folder / JOURNAL).unlink(missing_ok=True)
    sync_folder(folder)
