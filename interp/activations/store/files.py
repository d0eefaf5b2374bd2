"""Files of a store: safetensors of a known header, preallocated, filled in place, and read by exact offsets."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import torch

from interp.errors import StoreError

PARTIAL = ".partial"
_PAGE = 4096
_SYNCS_AT_ONCE = 8
_PIECES_AT_ONCE = 1024
"""What Linux and macOS take in one call."""

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U64": torch.uint64, "U8": torch.uint8,
    "BOOL": torch.bool,
}  # fmt: skip
NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Array:
    """One tensor in a file of its own.

    Attributes:
        path: Where it is when it is finished.
        key: The tensor's name in the file.
        dtype: The type, in safetensors' words.
        shape: Its shape.
        about: What the header says of it, so that a file of another store is not taken for this one's.
    """

    path: Path
    key: str
    dtype: str
    shape: tuple[int, ...]
    about: tuple[tuple[str, str], ...]

    @property
    def partial(self) -> Path:
        """Where it is until it is finished."""
        return self.path.with_name(self.path.name + PARTIAL)

    @cached_property
    def header(self) -> bytes:
        """The header, padded so that data begin at a page; the same bytes whenever and wherever it is made."""
        entry = {"dtype": self.dtype, "shape": list(self.shape), "data_offsets": [0, self.n_bytes]}
        text = json.dumps({"__metadata__": dict(self.about), self.key: entry}, separators=(",", ":")).encode()
        text += b" " * (-(len(text) + 8) % _PAGE)
        return len(text).to_bytes(8, "little") + text

    @property
    def n_bytes(self) -> int:
        """Bytes of data."""
        return prod(self.shape) * DTYPES[self.dtype].itemsize

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return len(self.header) + self.n_bytes

    def here(self) -> Path:
        """The file: finished or not.

        Raises:
            StoreError: When there is neither.
        """
        for path in (self.path, self.partial):
            if path.is_file():
                return path
        raise StoreError(f"{self.path} is missing: copy it back, or capture into another folder")

    def allocate(self) -> None:
        """Make the unfinished file at its final size, so that a full disk is met now and not in the middle."""
        with opened(self.partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC, self.size) as fd:
            _reserve(fd, self.size)
            write_at(fd, self.header, 0)

    def check(self) -> None:
        """Check size and header, which is known to the byte.

        Raises:
            StoreError: When the file is not what it should be.
        """
        path, header = self.here(), self.header
        with opened(path, os.O_RDONLY) as fd:
            size = os.fstat(fd).st_size
            if size != self.size:
                cut = "it was cut off" if size < self.size else "something was added to it"
                raise StoreError(f"{path} has {size:,} bytes where {self.size:,} belong: {cut}; copy it again")
            found = os.pread(fd, len(header), 0)
        if found != header:
            raise StoreError(
                f"the header of {path} is not the one that was written: the file is damaged or belongs to another store"
            )


@contextlib.contextmanager
def opened(path: Path, flags: int, needed: int | None = None) -> Generator[int]:
    """A file descriptor; `needed` bytes are to be written, for the message.

    Raises:
        StoreError: When it cannot be opened, read or written; names what a full disk lacks.
    """
    try:
        fd = os.open(path, flags | getattr(os, "O_CLOEXEC", 0), 0o666)
        try:
            yield fd
        finally:
            os.close(fd)
    except OSError as error:
        raise explain(error, path, needed) from error


def explain(error: OSError, path: Path, needed: int | None = None) -> StoreError:
    """What went wrong with a file, in words that help."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        wanted = f"{needed:,} bytes are needed there and " if needed is not None else ""
        return StoreError(
            f"the disk is full at {path}: {wanted}{free_bytes(path):,} bytes are free; make room and make the same "
            "call again, nothing that was finished is lost"
        )
    return StoreError(f"cannot use {path}: {error.strerror or error}; check the folder and its permissions")


def free_bytes(path: Path) -> int:
    """Bytes free to us where a file is or would be."""
    for place in (path, *path.parents):
        with contextlib.suppress(OSError):
            state = os.statvfs(place)
            return state.f_bavail * state.f_frsize
    return 0


def write_at(fd: int, data: Any, offset: int) -> None:
    """Write all of a buffer at an offset."""
    view = memoryview(data).cast("B")
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def write_pieces(fd: int, pieces: Sequence[memoryview], offset: int) -> None:
    """Write buffers one after another from an offset, without joining them first."""
    for start in range(0, len(pieces), _PIECES_AT_ONCE):
        several = pieces[start : start + _PIECES_AT_ONCE]
        size = sum(map(len, several))
        written = os.pwritev(fd, several, offset)
        if written < size:
            write_at(fd, b"".join(several)[written:], offset + written)
        offset += size


def read_at(fd: int, view: memoryview, offset: int) -> bool:
    """Fill a buffer from an offset; whether there was enough."""
    while view:
        got = os.preadv(fd, [view], offset)
        if not got:
            return False
        view, offset = view[got:], offset + got
    return True


def sync_files(paths: Sequence[Path]) -> None:
    """Bring the data of files to the disk, several at once: their commits are then joined into few."""

    def sync(path: Path) -> None:
        with opened(path, os.O_RDWR) as fd:
            os.fsync(fd)

    if len(paths) < 2:
        for path in paths:
            sync(path)
        return
    with ThreadPoolExecutor(min(_SYNCS_AT_ONCE, len(paths))) as pool:
        list(pool.map(sync, paths))


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk: a rename is only then certain."""
    with opened(folder, os.O_RDONLY) as fd, contextlib.suppress(OSError):  # some file systems cannot, and need not
        os.fsync(fd)


def write_synced(path: Path, data: bytes) -> None:
    """Write a small file so that, also after a crash, it is there whole or not at all."""
    partial = path.with_name(path.name + PARTIAL)
    with opened(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as fd:
        write_at(fd, data, 0)
        os.fsync(fd)
    rename(partial, path)
    sync_folder(path.parent)


def rename(source: Path, target: Path) -> None:
    """Rename a file over another.

    Raises:
        StoreError: When that fails.
    """
    try:
        os.replace(source, target)
    except OSError as error:
        raise explain(error, target) from error


def runs(indices: Iterable[int]) -> list[tuple[int, int]]:
    """Ascending indices as half-open ranges."""
    found: list[tuple[int, int]] = []
    for i in indices:
        if found and found[-1][1] == i:
            found[-1] = (found[-1][0], i + 1)
        else:
            found.append((i, i + 1))
    return found


def _reserve(fd: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(fd, 0, size)
            return
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
    os.ftruncate(fd, size)
