"""Whatever is done to a file of a steering vector, nothing in it is executed, and what comes out of it is known.

Importing gives an error that names the file, or a vector. Our own files have a digest over all they say: only the
vector that was saved comes out. The formats of others have none over numbers, layers and names (the archives of
`refusal_direction` have checksums, its metadata don't), so that a number changed within them is another good file.
There, what comes out is finite, and is what the format's own reader finds in the same bytes: never something made of
half a file.
"""

from __future__ import annotations

import json
import os
import resource
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import steering
from interp.errors import RefusalkitError
from steering import SteeringVector
from tests.helpers.hostile_files import damaged, memo_far_away, payloads, saved
from tests.helpers.vector_files import as_its_reader_reads

NAMES = {
    "safetensors": "v.safetensors", "gguf": "v.gguf", "repeng": "v.gguf", "svec": "v.svec", "easysteer": "v.gguf",
    "refusal_direction": "run",
}  # fmt: skip
CASES, MANY = 500, 6000
_MEMORY = 256
"""MiB that a test may take in all, where hostile counts ask for gigabytes."""


def made(format: str) -> SteeringVector:
    rng = np.random.default_rng(0)
    layers = (3,) if format == "refusal_direction" else (2, 3, 10)
    vectors = {layer: torch.tensor(rng.normal(size=6), dtype=torch.float32) for layer in layers}
    site = "resid_pre" if format in ("svec", "refusal_direction") else "resid_post"
    about = {"model_type": "llama", "method": "by hand", "position": -2, "text": "ü"}
    return SteeringVector(vectors, site, 0.5, provenance=about)


def imported(path: Path, format: str) -> SteeringVector | None:
    """The vector, or nothing after an error that names the file."""
    try:
        found = steering.import_vector(path, format)
    except RefusalkitError as error:
        assert path.stem in str(error)
        return None
    assert found.coefficient in (1.0, 0.5) and all(bool(torch.isfinite(v).all()) for v in found.vectors.values())
    return found


def same(a: SteeringVector, b: SteeringVector) -> bool:
    fields = ("site", "layers", "coefficient", "positions", "phase")
    alike = all(getattr(a, name) == getattr(b, name) for name in fields)
    return alike and all(torch.equal(a.vectors[n], b.vectors[n]) for n in a.layers)


def run(format: str, cases: range, folder: Path, many: list[bytes]) -> dict[str, int]:
    """Damage a file in many ways; how often that was refused, made no difference, or gave another good file."""
    done = made(format).export(folder / NAMES[format], format)
    whole = {file: file.read_bytes() for file in done.files}
    sound = steering.import_vector(done.path, format)
    counts = {"refused": 0, "no difference": 0, "another": 0}
    for case in cases:
        rng = np.random.default_rng([len(format), case])
        hit = done.files[int(rng.integers(0, len(done.files)))]
        hit.write_bytes(damaged(rng, whole[hit], many))
        found = imported(done.path, format)
        if found is None:
            counts["refused"] += 1
        elif same(found, sound):
            counts["no difference"] += 1
            assert format != "safetensors" or found.provenance == sound.provenance, f"case {case}: nobody noticed"
        else:
            counts["another"] += 1
            assert format != "safetensors", f"case {case}: nobody noticed"
            theirs = as_its_reader_reads(format, done.path)
            assert set(theirs) == set(found.layers), f"case {case}"
            assert all(torch.equal(found.vectors[n], theirs[n]) for n in found.layers), f"case {case}"
        hit.write_bytes(whole[hit])
    assert same(steering.import_vector(done.path, format), sound)
    return counts


@pytest.fixture
def others(tmp_path: Path) -> list[bytes]:
    """Sound files of every format, to take pieces from."""
    files = [made(format).export(tmp_path / f"{format}-{name}", format).files for format, name in NAMES.items()]
    return [file.read_bytes() for group in files for file in group]


@pytest.mark.parametrize("format", NAMES)
def test_500_damaged_files_of_every_format(format: str, tmp_path: Path, others: list[bytes]) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counts = run(format, range(CASES), tmp_path, others)
    assert sum(counts.values()) == CASES and counts["refused"] > CASES // 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < _MEMORY * 1024


@pytest.mark.soak
@pytest.mark.parametrize("format", NAMES)
def test_very_many_damaged_files_of_every_format(format: str, tmp_path: Path, others: list[bytes]) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert sum(run(format, range(CASES, CASES + MANY), tmp_path, others).values()) == MANY
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < _MEMORY * 1024


# --- one thing at a time ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", NAMES)
def test_a_file_cut_anywhere_is_refused(format: str, tmp_path: Path) -> None:
    done = made(format).export(tmp_path / NAMES[format], format)
    for file in done.files:
        whole = file.read_bytes()
        for length in range(0, len(whole), max(1, len(whole) // 150)):
            file.write_bytes(whole[:length])
            found = imported(done.path, format)
            # What pads a last tensor to 32 bytes may be missing, and so may the line's end of a JSON file.
            assert found is None or not whole[length:].strip(b"\0\n"), f"{file.name} cut at {length}"
        file.write_bytes(whole)


def test_every_flipped_bit_of_our_own_file_is_noticed(tmp_path: Path) -> None:
    file = made("safetensors").export(tmp_path / "v.safetensors").path
    whole = file.read_bytes()
    for at in range(len(whole)):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        assert imported(file, "safetensors") is None, f"byte {at}"


def test_a_flipped_bit_of_a_direction_is_noticed_by_the_archives_checksum(tmp_path: Path) -> None:
    done = made("refusal_direction").export(tmp_path / "run", "refusal_direction")
    sound, whole = steering.import_vector(done.path), done.files[0].read_bytes()
    changed = 0
    for at in range(0, len(whole), 3):
        done.files[0].write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        found = imported(done.path, "refusal_direction")
        assert found is None or same(found, sound), f"byte {at}"
        changed += found is None
    assert changed > 50


def test_pickles_that_would_do_harm_are_refused_and_do_none(tmp_path: Path) -> None:
    canary, before = tmp_path / "executed", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    hostile = payloads(canary)
    (tmp_path / "direction_metadata.json").write_text('{"pos": -1, "layer": 0}')
    for file in ("direction.pt", "mean_diffs.pt"):
        for name, data in hostile.items():
            (tmp_path / file).write_bytes(data)
            assert imported(tmp_path / file, "refusal_direction") is None, name
            assert not canary.exists(), name
        (tmp_path / file).unlink()
    (tmp_path / "direction.pt").write_bytes(memo_far_away())
    assert steering.import_vector(tmp_path).vectors[0].tolist() == [0, 1, 2, 3]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < _MEMORY * 1024
    # The control: the same call, unpickled as people do, leaves its mark.
    (tmp_path / "direction.pt").write_bytes(hostile["a call saved"])
    torch.load(tmp_path / "direction.pt", weights_only=False)
    assert canary.exists()


def gguf(*, n_tensors: int = 1, n_entries: int = 1, entries: bytes = b"", tensor: bytes | None = None) -> bytes:
    """A GGUF file from parts; by default a good one."""
    told = text("general.architecture") + struct.pack("<I", 8) + text("controlvector") + entries
    tensor = info() if tensor is None else tensor
    head = b"GGUF" + struct.pack("<IQQ", 3, n_tensors, n_entries) + told + tensor
    return head + bytes(-len(head) % 32) + struct.pack("<8f", *range(8))


def text(value: str, size: int | None = None) -> bytes:
    return struct.pack("<Q", len(value) if size is None else size) + value.encode()


def info(name: str = "direction.1", dims: tuple[int, ...] = (8,), kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def entry(kind: int, value: bytes, key: str = "k") -> bytes:
    return text(key) + struct.pack("<I", kind) + value


NESTED = struct.pack("<IQ", 9, 1) * 5000
HOSTILE = {
    "another version": b"GGUF" + struct.pack("<I", 1) + bytes(64),
    "the other byte order": b"GGUF" + struct.pack(">I", 3) + bytes(64),
    "more tensors than bytes": gguf(n_tensors=2**63),
    "more entries than bytes": gguf(n_entries=2**64 - 1),
    "few more tensors": gguf(n_tensors=2),
    "fewer tensors": gguf(n_tensors=0),
    "a key twice": gguf(n_entries=2, entries=entry(4, bytes(4), "general.architecture")),
    "a text without end": gguf(n_entries=2, entries=entry(8, text("x", 2**62))),
    "a text that is none": gguf(n_entries=2, entries=entry(8, struct.pack("<Q", 2) + b"\xff\xfe")),
    "an unknown type": gguf(n_entries=2, entries=entry(13, bytes(8))),
    "a truth value of 7": gguf(n_entries=2, entries=entry(7, b"\7")),
    "arrays in arrays": gguf(n_entries=2, entries=entry(9, NESTED)),
    "an array without end": gguf(n_entries=2, entries=entry(9, struct.pack("<IQ", 4, 2**61))),
    "an array of texts without end": gguf(n_entries=2, entries=entry(9, struct.pack("<IQ", 8, 2**61))),
    "an alignment of 0": gguf(n_entries=2, entries=entry(4, bytes(4), "general.alignment")),
    "an alignment of 3": gguf(n_entries=2, entries=entry(4, struct.pack("<I", 3), "general.alignment")),
    "an alignment of 2^31": gguf(n_entries=2, entries=entry(4, struct.pack("<I", 2**31), "general.alignment")),
    "a tensor twice": gguf(n_tensors=2, tensor=info() + info()),
    "a tensor upon another": gguf(n_tensors=2, tensor=info(dims=(4,)) + info("direction.2", (4,), offset=0)),
    "a tensor beyond the end": gguf(tensor=info(offset=2**40)),
    "a tensor longer than the file": gguf(tensor=info(dims=(2**62,))),
    "a tensor whose size overflows": gguf(tensor=info(dims=(2**62 + 1,))),
    "no width": gguf(tensor=info(dims=(0,))),
    "many dimensions": gguf(tensor=info(dims=(1,) * 200)),
    "no dimensions": gguf(tensor=info(dims=())),
    "quantised numbers": gguf(tensor=info(kind=8)),
    "another layer twice": gguf(n_tensors=2, tensor=info(dims=(4,)) + info("direction.01", (4,), offset=32)),
    "a layer beyond all": gguf(tensor=info("direction.99999999999999999999")),
    "a layer of other digits": gguf(tensor=info("direction.١")),
    "something behind": gguf() + b"x",
    "something between": gguf()[:-33] + b"x" + gguf()[-32:],
}


def test_the_file_made_by_hand_is_a_good_one(tmp_path: Path) -> None:
    (tmp_path / "v.gguf").write_bytes(gguf())
    found = imported(tmp_path / "v.gguf", "gguf")
    assert found is not None and found.vectors[1].tolist() == list(range(8))


@pytest.mark.parametrize("name", HOSTILE)
def test_gguf_files_that_lie_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "v.gguf").write_bytes(HOSTILE[name])
    for format in ("gguf", "repeng", "easysteer"):
        assert imported(tmp_path / "v.gguf", format) is None
    with pytest.raises(RefusalkitError, match=r"v\.gguf"):
        steering.import_vector(tmp_path / "v.gguf")


@pytest.mark.parametrize("format", NAMES)
def test_what_is_no_plain_file_is_refused_without_waiting(format: str, tmp_path: Path) -> None:
    done = made(format).export(tmp_path / NAMES[format], format)
    ways: list[Callable[[Path], Any]] = [
        Path.mkdir, lambda p: os.mkfifo(p), lambda p: p.symlink_to(p), lambda p: p.symlink_to("/dev/zero"),
        lambda p: p.symlink_to("nowhere"),
    ]  # fmt: skip
    for file in done.files:
        for make in ways:
            file.unlink()
            make(file)
            assert imported(done.path, format) is None
            file.rmdir() if file.is_dir() else file.unlink()
            file.write_bytes(b"")
        assert imported(done.path, format) is None, "an empty file"


@pytest.mark.parametrize("format", NAMES)
def test_a_file_of_another_format_is_refused(format: str, tmp_path: Path, others: list[bytes]) -> None:
    done = made(format).export(tmp_path / NAMES[format], format)
    sound = steering.import_vector(done.path, format)
    for other in (*others, saved(torch.ones(3)), json.dumps({"weights": [1.0]}).encode(), b"\x80\x04N."):
        hit = done.files[0]
        hit.write_bytes(other)
        found = imported(done.path, format)
        # The three programs that read GGUF read each other's.
        assert found is None or same(found, sound) or (format == "refusal_direction" and other[:2] == b"PK")
