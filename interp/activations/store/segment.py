"""One segment: where its rows are, which of them are done, and reading them with their checksums checked."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from interp.activations.store.files import DTYPES, Array, opened, read_at, runs
from interp.activations.store.journal import Journal
from interp.activations.store.manifest import About, read_segment
from interp.errors import StoreError

_BLOCK = 1 << 25


class Segment:
    """What one capture left in a store.

    Opening reads the segment's JSON and the headers and sizes of its files, no data.

    Args:
        folder: Its folder.
        about: What is common to the store.
        digest: The plan's digest, from the manifest.

    Raises:
        StoreError: When a file is missing, cut, damaged or of another store.
    """

    def __init__(self, folder: Path, about: About, digest: str) -> None:
        self.folder, self.about = folder, about
        self.plan, self.sealed = read_segment(folder, about, digest)
        self.arrays = self.plan.arrays(folder, about)
        self.checksums = self.plan.checksums(folder, about)
        self._places = {key: i for i, key in enumerate(self.arrays)}
        for array in (*self.arrays.values(), self.checksums):
            array.check()

    @cached_property
    def done(self) -> NDArray[np.bool_]:
        """For each prompt, whether it was captured (as of the first look)."""
        found = np.full(len(self.plan.prompts), self.sealed is not None)
        if self.sealed is None:
            for number in Journal(self.folder, self.plan).done:
                found[list(self.plan.batches[number])] = True
        return found

    def read(self, site: str, layer: int, prompts: NDArray[np.int64] | None = None) -> Tensor:
        """Rows of some prompts (ascending) or all, `[row, position, feature]`, checked against their checksums.

        Raises:
            StoreError: For rows that are not captured yet, and for damage; names file and prompt.
        """
        array = self.arrays[site, layer]
        wanted = np.arange(len(self.plan.prompts)) if prompts is None else prompts
        self._require(wanted)
        sizes = np.diff(self.plan.rows)[wanted]
        row_bytes = array.n_bytes // array.shape[0]
        out = np.empty(int(sizes.sum()) * row_bytes, dtype=np.uint8)
        view, filled, start = out.data, 0, len(array.header)
        path = array.here()
        with opened(path, os.O_RDONLY) as fd:
            for a, b in _ranges(wanted):
                first, last = int(self.plan.rows[a]) * row_bytes, int(self.plan.rows[b]) * row_bytes
                if not read_at(fd, view[filled : filled + last - first], start + first):
                    raise StoreError(f"{path} was cut off: copy it again")
                filled += last - first
        ends = np.concatenate([[0], np.cumsum(sizes)]) * row_bytes
        self._check(array, (site, layer), wanted, view, ends)
        values = torch.from_numpy(out).view(DTYPES[array.dtype])
        return values.reshape(-1, *array.shape[1:])

    def verify(self) -> Iterator[int]:
        """Check every done prompt's checksum in every file; yields bytes as they are checked."""
        rows = self.plan.rows
        done = np.flatnonzero(self.done)
        for (site, layer), array in self.arrays.items():
            row_bytes = array.n_bytes // array.shape[0]
            for part in blocks(done, np.diff(rows)[done] * row_bytes, _BLOCK):
                self.read(site, layer, part)
                yield int((rows[part + 1] - rows[part]).sum()) * row_bytes

    def kept_checksums(self, key: tuple[str, int]) -> NDArray[np.uint64]:
        """The checksums of one array's prompts, as they were written down."""
        out = read_checksums(self.checksums, self._places[key])
        name = self.arrays[key].path.name
        if self.sealed is not None and sum_up(out) != self.sealed[name]:
            path = self.checksums.here()
            raise StoreError(f"{path} is damaged: its checksums for {name} are not those that were written")
        return out

    def _require(self, prompts: NDArray[np.int64]) -> None:
        missing = prompts[~self.done[prompts]]
        if len(missing):
            raise StoreError(
                f"{self.folder}: {len(missing)} of the {len(prompts)} prompts wanted are not captured yet (the first "
                f"is {self.plan.prompts[missing[0]].text[:60]!r}): make the same interp.capture call again to finish "
                "it, or take what is there with store.take(store.done)"
            )

    def _check(
        self, array: Array, key: tuple[str, int], prompts: NDArray[np.int64], view: memoryview, ends: NDArray[Any]
    ) -> None:
        kept = self.kept_checksums(key)[prompts]
        digest = xxhash.xxh3_64_intdigest
        bounds = ends.tolist()
        found = [digest(view[a:b]) for a, b in zip(bounds, bounds[1:], strict=False)]
        wrong = np.flatnonzero(np.array(found, dtype=np.uint64) != kept)
        if len(wrong):
            prompt = self.plan.prompts[int(prompts[wrong[0]])]
            raise StoreError(
                f"{array.here()} is damaged: the values of {len(wrong)} prompts are not those that were written, "
                f"first of {prompt.text[:60]!r} (number {int(prompts[wrong[0]])}); copy the file again or capture anew"
            )


def read_checksums(array: Array, place: int) -> NDArray[np.uint64]:
    """One line of a file of checksums."""
    n, path = array.shape[1], array.here()
    out = np.empty(n, dtype="<u8")
    with opened(path, os.O_RDONLY) as fd:
        if not read_at(fd, out.data.cast("B"), len(array.header) + place * n * 8):
            raise StoreError(f"{path} was cut off: copy it again")
    return out


def sum_up(checksums: NDArray[np.uint64]) -> str:
    """One checksum over an array's checksums."""
    return xxhash.xxh3_64_hexdigest(np.ascontiguousarray(checksums, dtype="<u8").tobytes())


def blocks(indices: NDArray[np.int64], sizes: NDArray[Any], limit: int) -> Iterator[NDArray[np.int64]]:
    """Indices in consecutive parts of at most `limit` in total size, or of one."""
    start, total = 0, 0
    for i, size in enumerate(sizes.tolist()):
        if i > start and total + size > limit:
            yield indices[start:i]
            start, total = i, 0
        total += size
    if start < len(indices):
        yield indices[start:]


def _ranges(prompts: Iterable[int]) -> list[tuple[int, int]]:
    found = np.asarray(prompts)
    whole = len(found) and found[-1] - found[0] + 1 == len(found)
    return [(int(found[0]), int(found[-1]) + 1)] if whole else runs(found.tolist())
