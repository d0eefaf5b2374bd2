"""Files that were damaged, or made to do harm: seeded, so that the same number gives the same file."""

from __future__ import annotations

import io
import pickle
import struct
import subprocess
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

ABSURD = [0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**63 - 1, 2**63, 2**64 - 1]
FRAGMENTS = [
    b"NaN", b"Infinity", b"1e999", b"-1", b"1e-400", b"null", b"true", b'"', b"{", b"}", b"[", b"]", b",", b":", b"0",
    b'"1":', b'"1": [1.0], ', b'"directions": {}, ', b"[[[[", b"[" * 3000, b'{"a":' * 3000, b"9" * 400, b"9" * 5000,
    b"\x00", b"\xff\xfe", b"\\ud800", b"\x7f\xc0\x00\x00", struct.pack("<f", float("nan")),
    struct.pack("<f", float("inf")), b"direction.", b"__metadata__", b"cos\nsystem\n(S'true'\ntR.", b"PK\x05\x06",
]  # fmt: skip


def damaged(rng: np.random.Generator, data: bytes, others: list[bytes]) -> bytes:
    """Bytes with one to three things done to them, mostly one; half of them near the start, where headers are."""
    found = bytearray(data)
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        end = len(found) if rng.random() < 0.5 else min(len(found), 300)
        at = int(rng.integers(0, end + 1))
        kind = rng.choice(
            ["bit", "bit", "bit", "bits", "cut", "out", "fragment", "count", "splice", "again", "zeros", "tail"]
        )
        size = int(rng.integers(1, 24))
        if kind == "bit" and at < len(found):
            found[at] ^= 1 << int(rng.integers(0, 8))
        elif kind == "bits":
            found[at : at + size] = rng.bytes(len(found[at : at + size]))
        elif kind == "cut":
            del found[at:]
        elif kind == "out":
            del found[at : at + size]
        elif kind == "fragment":
            fragment = FRAGMENTS[int(rng.integers(0, len(FRAGMENTS)))]
            found[at : at + (len(fragment) if rng.random() < 0.5 else 0)] = fragment
        elif kind == "count":
            width = int(rng.choice([4, 8]))
            number = ABSURD[int(rng.integers(0, len(ABSURD)))] % 2 ** (8 * width)
            found[at : at + width] = number.to_bytes(width, "little")
        elif kind == "splice":
            other = others[int(rng.integers(0, len(others)))]
            start = int(rng.integers(0, len(other) + 1))
            found[at : at + 4 * size] = other[start : start + 4 * size]
        elif kind == "again":
            found[at:at] = found[at : at + 4 * size]
        elif kind == "zeros":
            found[at : at + size] = bytes(len(found[at : at + size]))
        elif kind == "tail":
            found += rng.bytes(size)
    return bytes(found)


class Payload:
    """What leaves a file behind when it is unpickled."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.reduced = (call, arguments)

    def __reduce__(self) -> Any:
        return self.reduced


def archive(entries: Iterable[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive laid out as torch.save does."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as file:
        for name, data in entries:
            file.writestr(f"archive/{name}", data)
    return packed.getvalue()


def repacked(data: bytes, **changed: bytes) -> bytes:
    """A file of torch.save with entries replaced (`data_pkl` for `data.pkl`), and its checksums right again."""
    new = {"data.pkl": changed.pop("data_pkl", None), "data/0": changed.pop("data_0", None)}
    assert not changed
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        held = [(name.partition("/")[2], file.read(name)) for name in file.namelist()]
    return archive((name, new.get(name) or content) for name, content in held)


def saved(value: Any, **options: Any) -> bytes:
    """What torch.save makes of a value."""
    packed = io.BytesIO()
    torch.save(value, packed, **options)
    return packed.getvalue()


def memo_far_away() -> bytes:
    """A good file of `[0, 1, 2, 3]`, whose pickle has Python's own reader make a table of two billion entries."""
    good = saved(torch.arange(4.0))
    with zipfile.ZipFile(io.BytesIO(good)) as file:
        told = file.read("archive/data.pkl")
    far = told.replace(b"q\x00(", b"r\xff\xff\xff\x7f(", 1)
    assert far != told
    return repacked(good, data_pkl=far)


def payloads(canary: Path) -> dict[str, bytes]:
    """Files of torch.save that would leave a file at `canary`, ask for gigabytes, or hold something else."""
    good = saved(torch.arange(4.0))
    with zipfile.ZipFile(io.BytesIO(good)) as file:
        told = file.read("archive/data.pkl")
    count, shape = b"cpuq\x04K\x04t", b"K\x00K\x04\x85q\x06K\x01\x85"
    assert count in told and shape in told
    touch = Payload(subprocess.call, ["touch", str(canary)])
    lies = {
        "more numbers than there are": told.replace(count, b"cpuq\x04J\xff\xff\xff\x7ft"),
        "a shape beyond the numbers": told.replace(shape, b"K\x00J\xff\xff\xff\x7f\x85q\x06K\x01\x85"),
        "a shape of one number often": told.replace(shape, b"K\x00J\xff\xff\xff\x7f\x85q\x06K\x00\x85"),
        "an offset beyond the numbers": told.replace(shape, b"K\x7fK\x04\x85q\x06K\x01\x85"),
        "a negative offset": told.replace(shape, b"J\xff\xff\xff\xffK\x04\x85q\x06K\x01\x85"),
        "a negative stride": told.replace(shape, b"K\x03K\x04\x85q\x06J\xff\xff\xff\xff\x85"),
        "an empty shape": told.replace(shape, b"K\x00K\x00\x85q\x06K\x01\x85"),
        "a shape without strides": told.replace(shape, b"K\x00K\x04\x85q\x06)"),
        "a storage outside the archive": told.replace(b"X\x01\x00\x00\x000", b"X\x04\x00\x00\x00../0"),
        "a name looked up": told.replace(b"ctorch\nFloatStorage", b"cos\nsystem"),
        "a name from the stack": told[:2] + b"\x8c\x02os\x8c\x06system\x93" + told[2:],
        "a huge number": told.replace(shape, b"K\x00\x8b\xff\xff\xff\x7f\x85q\x06K\x01\x85"),
        "no end": told[:-1],
        "nothing": b"",
        "an empty stack": b"\x80\x02R.",
        "a gigabyte of zeros": pickle.dumps(Payload(bytearray, 1 << 34), 2),
        "a call": pickle.dumps(touch, 2),
        "a call by name": pickle.dumps(Payload(eval, f"open({str(canary)!r}, 'w')"), 4),
        "a call in a call": pickle.dumps(Payload(torch.tensor, touch), 2),
    }
    files = {name: repacked(good, data_pkl=lie) for name, lie in lies.items() if lie}
    files |= {
        "a bare pickle": pickle.dumps(touch),
        "the format of before 1.6": saved(torch.arange(4.0), _use_new_zipfile_serialization=False),
        "the format of before 1.6, with a call": saved([touch], _use_new_zipfile_serialization=False),
        "a list": saved([torch.arange(4.0)]),
        "a call saved": saved({"direction": touch}),
        "whole numbers": saved(torch.arange(4)),
        "complex numbers": saved(torch.ones(4, dtype=torch.complex64)),
        "a sparse tensor": saved(torch.eye(3).to_sparse()),
        "a parameter": saved(torch.nn.Parameter(torch.ones(4))),
        "no numbers": saved(torch.ones(0)),
        "one number": saved(torch.tensor(1.0)),
        "a matrix": saved(torch.ones(4, 4)),
        "NaN": saved(torch.tensor([1.0, float("nan")])),
        "overflow": saved(torch.tensor([1e300], dtype=torch.float64)),
        "numbers of another length": repacked(good, data_0=bytes(12)),
        "compressed": archive([("data.pkl", told), ("data/0", bytes(16))], zipfile.ZIP_DEFLATED),
        "a bomb": archive([("data.pkl", told), ("data/0", bytes(1 << 26))], zipfile.ZIP_DEFLATED),
        "no pickle": archive([("data/0", bytes(16))]),
        "no data": archive([("data.pkl", told)]),
        "another byte order": archive([("data.pkl", told), ("data/0", bytes(16)), ("byteorder", b"big")]),
        "many entries": archive([("data.pkl", told), *((f"data/{i}", bytes(16)) for i in range(99))]),
    }
    return files
