"""The journal: which batches are on the disk, one line each time that data were synced, and never before.

A line is a CRC and a JSON list of batch numbers. Reading ends at the first line that is not whole: what a kill or a
power cut left behind it is overwritten.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from interp.activations.store.files import opened, write_at, write_synced
from interp.activations.store.manifest import JOURNAL, Plan


class Journal:
    """The done-map of one segment.

    Args:
        folder: The segment's folder.
        plan: Its plan; the journal of another one counts as empty.

    Attributes:
        done: Numbers of the finished batches.
    """

    def __init__(self, folder: Path, plan: Plan) -> None:
        self._path = folder / JOURNAL
        self._head = _line(plan.digest)
        self.done: set[int] = set()
        self._end = 0
        if self._path.is_file():
            self._read(len(plan.batches))

    def create(self) -> None:
        """Start an empty one."""
        write_synced(self._path, self._head)
        self.done, self._end = set(), len(self._head)

    @property
    def usable(self) -> bool:
        """Whether there is one, and of this plan."""
        return self._end > 0

    def add(self, batches: Iterable[int]) -> None:
        """Write down that batches are done; their data must have been synced."""
        numbers = sorted(batches)
        line = _line(numbers)
        with opened(self._path, os.O_RDWR) as fd:
            os.ftruncate(fd, self._end)
            write_at(fd, line, self._end)
            os.fsync(fd)
        self._end += len(line)
        self.done |= set(numbers)

    def _read(self, n_batches: int) -> None:
        with opened(self._path, os.O_RDONLY) as fd:
            data = os.pread(fd, os.fstat(fd).st_size, 0)
        if not data.startswith(self._head):
            return
        self._end = len(self._head)
        while (stop := data.find(b"\n", self._end)) >= 0:
            numbers = _numbers(data[self._end : stop], n_batches)
            if numbers is None:
                return
            self.done |= numbers
            self._end = stop + 1


def _line(value: Any) -> bytes:
    text = json.dumps(value, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _numbers(line: bytes, n_batches: int) -> set[int] | None:
    crc, _, text = line.partition(b" ")
    if crc != b"%08x" % zlib.crc32(text):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, list):
        return None
    numbers = cast("list[Any]", value)
    if not all(type(i) is int and 0 <= i < n_batches for i in numbers):
        return None
    return set(numbers)
