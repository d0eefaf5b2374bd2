"""GGUF files small enough to be read whole: written to the byte, read without trust.

Of the format (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md) this holds what control vectors use: one-line
metadata and fp32 vectors. The reader is ours because `gguf.GGUFReader` takes a file at its word: it maps it, follows
counts of 2^63 and arrays in arrays, and reads a tensor beyond the file's end as a shorter one. What this one accepts,
llama.cpp does: tensors follow each other without gap or overlap, each name stands once, what pads is zero.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.errors import FormatError
from interp.tensorfile import write_whole

MAGIC, VERSIONS, ALIGNMENT = b"GGUF", (2, 3), 32
_MOST_ITEMS, _LONGEST_NAME = 1 << 16, 1 << 16
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_UINT32, _STRING, _ARRAY, _F32 = 4, 8, 9, 0


@dataclass(frozen=True)
class UInt32:
    """A number that is to be written as an unsigned 32-bit one."""

    value: int


def write_gguf(path: Path, metadata: Mapping[str, str | UInt32], tensors: Mapping[str, Tensor]) -> Path:
    """Write vectors `[width]` as fp32. The same content gives the same bytes; the file appears whole or not at all.

    Raises:
        FormatError: When it cannot be written.
    """
    head = [MAGIC, struct.pack("<IQQ", VERSIONS[-1], len(tensors), len(metadata))]
    for key, value in metadata.items():
        kind, packed = (_STRING, _text(value)) if isinstance(value, str) else (_UINT32, struct.pack("<I", value.value))
        head += [_text(key), struct.pack("<I", kind), packed]
    body: list[bytes] = []
    offset = 0
    for name, tensor in tensors.items():
        data = np.ascontiguousarray(tensor.numpy(), "<f4").tobytes()
        head += [_text(name), struct.pack("<IQIQ", 1, len(tensor), _F32, offset)]
        body += [data, bytes(-len(data) % ALIGNMENT)]
        offset += len(body[-2]) + len(body[-1])
    start = b"".join(head)
    return write_whole(path, start + bytes(-len(start) % ALIGNMENT) + b"".join(body))


def parse_gguf(data: bytes, path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Metadata and vectors of a GGUF file.

    Args:
        data: What is in it.
        path: Where it is, for messages.

    Returns:
        Metadata: texts, numbers, flags, and tuples of them. Tensors: fp32 `[width]`.

    Raises:
        FormatError: When it is damaged, or holds something else than fp32 vectors.
    """
    try:
        return _parsed(data)
    except (struct.error, UnicodeDecodeError, ValueError) as error:
        raise FormatError(f"{path} is no readable GGUF file: {error}") from error


def _parsed(data: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if data[:4] != MAGIC:
        raise ValueError("it does not start with GGUF")
    at = _Reader(data, 4)
    version = at.number("I")
    if version not in VERSIONS:
        raise ValueError(f"its version is {version}; versions 2 and 3, little-endian, can be read")
    n_tensors, n_entries = at.count("tensors"), at.count("metadata entries")
    metadata: dict[str, Any] = {}
    for _ in range(n_entries):
        key = at.text()
        if key in metadata:
            raise ValueError(f"the metadata has {key!r} twice")
        metadata[key] = at.value(at.number("I"))
    shapes: dict[str, tuple[int, int]] = {}
    for _ in range(n_tensors):
        name = at.text()
        if name in shapes:
            raise ValueError(f"it has two tensors {name!r}")
        dimensions = at.number("I")
        if dimensions != 1:
            raise ValueError(f"the tensor {name!r} has {dimensions} dimensions; a control vector's have one")
        width, kind, offset = at.number("Q"), at.number("I"), at.number("Q")
        if kind != _F32:
            raise ValueError(f"the tensor {name!r} is of GGML type {kind}; clients take fp32 (type 0) only")
        shapes[name] = (width, offset)
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if type(alignment) is not int or not 0 < alignment <= 1 << 16 or alignment & (alignment - 1):
        raise ValueError(f"its alignment is {alignment!r}, no power of two")
    return metadata, _vectors(data, at.padding(alignment), shapes, alignment)


def _vectors(data: bytes, start: int, shapes: Mapping[str, tuple[int, int]], alignment: int) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    at = _Reader(data, start)
    for index, (name, (width, offset)) in enumerate(shapes.items(), 1):
        if at.at - start != offset:
            raise ValueError(
                f"the tensor {name!r} is said to be at {offset}, where the one before ends at {at.at - start}"
            )
        values = np.frombuffer(at.take(4 * width), "<f4")
        tensors[name] = torch.from_numpy(values.astype(np.float32))
        # The last one's padding may be left out.
        if index < len(shapes) or at.at < len(data):
            at.padding(alignment)
    if at.at != len(data):
        raise ValueError(f"{len(data) - at.at} bytes follow its last tensor")
    return tensors


class _Reader:
    """Bytes, and how far they have been read; no count is believed that the bytes left could not hold."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise ValueError(f"it ends at byte {len(self.data)}, where {size} more were to follow byte {self.at}")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, kind: str) -> Any:
        return struct.unpack(f"<{kind}", self.take(struct.calcsize(f"<{kind}")))[0]

    def count(self, what: str) -> int:
        number: int = self.number("Q")
        if number > _MOST_ITEMS:
            raise ValueError(f"it is said to have {number} {what}, more than any control vector")
        return number

    def text(self, longest: int = _LONGEST_NAME) -> str:
        size = self.number("Q")
        if size > longest:
            raise ValueError(f"it has a name or key of {size} bytes")
        return self.take(size).decode("utf-8")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text(len(self.data))
        if kind in _SCALARS:
            if kind == 7 and self.data[self.at : self.at + 1] not in (b"\0", b"\1"):
                raise ValueError("it has a truth value that is neither 0 nor 1")
            return self.number(_SCALARS[kind])
        if kind != _ARRAY:
            raise ValueError(f"it has metadata of an unknown type {kind}")
        item, count = self.number("I"), self.count("items in an array")
        if item not in _SCALARS and item != _STRING:
            raise ValueError(f"it has an array of items of type {item}")
        return tuple(self.value(item) for _ in range(count))

    def padding(self, alignment: int) -> int:
        """Past what pads to the next multiple, which must be zero."""
        if any(self.take(-self.at % alignment)):
            raise ValueError("bytes between its parts are not zero")
        return self.at


def _text(text: str) -> bytes:
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data
