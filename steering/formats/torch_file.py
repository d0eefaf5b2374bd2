"""One tensor in a file of `torch.save`, read without unpickling.

Such a file is a zip archive with the numbers as they are and a pickle that says what they are. `torch.load` with
`weights_only` runs no foreign code, but the pickle may still have it make a gigabyte of zeros or read past the end of
the numbers. This reader knows the dozen pickle instructions that a tensor takes, looks up nothing, and takes numbers
from the archive only, whose checksums it holds them against.
"""

from __future__ import annotations

import io
import math
import pickletools
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from interp.errors import FormatError

_TYPES = {
    "torch DoubleStorage": torch.float64, "torch FloatStorage": torch.float32, "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
}  # fmt: skip
_REBUILD, _HOOKS = "torch._utils _rebuild_tensor_v2", "collections OrderedDict"
_NUMBERS = ("BININT", "BININT1", "BININT2", "LONG1")
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MOST_ENTRIES, _LONGEST_PICKLE = 64, 1 << 16
_ENTRY = b"PK\x01\x02"
"""What an entry in a zip archive's list of contents starts with."""


@dataclass(frozen=True)
class _Global:
    name: str


@dataclass(frozen=True)
class _Call:
    what: Any
    arguments: Any


@dataclass(frozen=True)
class _Stored:
    about: Any


def parse_tensor(data: bytes, path: Path) -> Tensor:
    """The tensor in a file of `torch.save`, of the type it was saved with, on the CPU.

    Args:
        data: What is in the file.
        path: Where it is, for messages.

    Raises:
        FormatError: When it is damaged, or holds anything but one dense floating-point tensor.
    """
    try:
        if data.count(_ENTRY) > _MOST_ENTRIES:  # before zipfile lists millions of them
            raise ValueError("its archive has too many entries")
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _tensor(archive, len(data))
    except zipfile.BadZipFile as error:
        hint = "; save it anew with torch.save of torch 1.6 or later" if "not a zip file" in str(error) else ""
        raise FormatError(f"{path} is no readable file of torch.save: {error}{hint}") from error
    except Exception as error:  # whatever a stranger's bytes make zipfile and pickletools raise
        raise FormatError(f"{path} is no readable file of torch.save: {error}") from error


def _tensor(archive: zipfile.ZipFile, size: int) -> Tensor:
    entries = {entry.filename: entry for entry in archive.infolist()}
    if len(entries) < len(archive.infolist()):
        raise ValueError("its archive has an entry twice")
    for entry in entries.values():
        # Compressed entries could be any size; torch.save writes none.
        if (
            entry.compress_type != zipfile.ZIP_STORED
            or entry.file_size != entry.compress_size
            or entry.file_size > size
        ):
            raise ValueError(f"its entry {entry.filename!r:.60} is compressed")
    pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1 or entries[pickles[0]].file_size > _LONGEST_PICKLE:
        raise ValueError("its archive has no data.pkl of one tensor")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}byteorder" in entries and archive.read(f"{folder}byteorder") != b"little":
        raise ValueError("its bytes are not little-endian")
    dtype, key, count, offset, shape, stride = _described(archive.read(pickles[0]))
    values = archive.read(f"{folder}data/{key}")
    if len(values) != count * dtype.itemsize:
        raise ValueError(f"it has {len(values)} bytes of numbers, where {count} numbers were to be")
    if math.prod(shape) > count or offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True)) >= count:
        raise ValueError(f"shape {shape}, strides {stride} and offset {offset} do not fit {count} numbers")
    return torch.frombuffer(bytearray(values), dtype=dtype).as_strided(shape, stride, offset).clone()


def _described(data: bytes) -> tuple[torch.dtype, str, int, int, tuple[int, ...], tuple[int, ...]]:
    """What the pickle says of the tensor: type, entry and number of what is stored; offset, shape and strides."""
    match _evaluated(data):
        case _Call(
            _Global(name=what),
            (_Stored(("storage", _Global(kind), str(key), str(), int(count))), int(offset), tuple(shape), tuple(stride),
             False, _Call(_Global(name=hooks), ())),
        ) if what == _REBUILD and hooks == _HOOKS and kind in _TYPES and key.isalnum():  # fmt: skip
            sizes: tuple[Any, ...] = (count, offset, *shape, *stride)
            if any(type(n) is not int or n < 0 for n in sizes) or not all(shape) or len(shape) != len(stride):
                raise ValueError(f"it has shape {shape}, strides {stride}, offset {offset} of {count} numbers")
            return _TYPES[kind], key, count, offset, shape, stride
        case other:
            raise ValueError(f"it holds {_summary(other)}, where one floating-point tensor was to be")


def _evaluated(data: bytes) -> Any:
    """What a pickle of a tensor says, with calls and names left as they are: nothing is imported, nothing is called."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    for operation, said, _ in pickletools.genops(data):
        name, argument = operation.name, cast("Any", said)
        if name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in _NUMBERS or name == "BINUNICODE":
            stack.append(argument)
        elif name in ("NEWFALSE", "NEWTRUE"):
            stack.append(name == "NEWTRUE")
        elif name == "GLOBAL":
            if argument not in (_REBUILD, _HOOKS, *_TYPES):
                raise ValueError(f"it asks for {argument.replace(' ', '.')!r:.80}, which no tensor of numbers does")
            stack.append(_Global(argument))
        elif name == "MARK":
            marks.append(len(stack))
        elif name == "TUPLE" or name in _TUPLES:
            at = marks.pop() if name == "TUPLE" else len(stack) - _TUPLES[name]
            if at < 0:
                raise ValueError("its pickle is damaged")
            stack[at:] = [tuple(stack[at:])]
        elif name == "BINPERSID":
            stack.append(_Stored(stack.pop()))
        elif name == "REDUCE":
            arguments = stack.pop()
            stack.append(_Call(stack.pop(), arguments))
        elif name == "STOP":
            if len(stack) != 1 or marks:
                raise ValueError("its pickle is damaged")
            return stack[0]
        elif name != "PROTO":
            raise ValueError(f"its pickle has the instruction {name}, which no tensor of numbers takes")
    raise ValueError("its pickle has no end")


def _summary(value: Any) -> str:
    if isinstance(value, _Call) and isinstance(value.what, _Global):
        return f"a call of {value.what.name.replace(' ', '.')} with other arguments"
    return f"a {type(value).__name__.strip('_').lower()}"
