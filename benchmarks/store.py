"""The store on disk against writing and reading the same bytes raw, with the same syncs; no model in between."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

import interp
from benchmarks.timing import compare
from interp.activations.store import writer
from interp.activations.store.begin import begin, locked
from interp.activations.store.files import sync_files
from interp.activations.store.manifest import About, Plan, SiteFormat
from interp.text.prompts import Prompt

LAYERS, WIDTH, POSITIONS, BATCH = 16, 2048, ("t_inst", "t_post_inst"), 16


def measure(quick: bool) -> dict[str, Any]:
    """Writing, one cold layer, what of the disk was read for it, opening, and time against size."""
    n, rounds = (512, 3) if quick else (4096, 7)
    folder = Path(tempfile.mkdtemp(prefix="refusalkit-store-", dir=os.environ.get("REFUSALKIT_BENCH")))
    try:
        return _measure(folder, n, rounds)
    finally:
        shutil.rmtree(folder)


def _measure(folder: Path, n: int, rounds: int) -> dict[str, Any]:
    store, raw = folder / "store", folder / "raw"
    values = torch.randn(LAYERS, BATCH * len(POSITIONS), WIDTH, generator=torch.Generator().manual_seed(0)).bfloat16()

    def ours(size: int = n) -> None:
        fill(store, values, size)

    def plain() -> None:
        fill_raw(raw, n)

    rows = compare({"raw files, same syncs (floor)": plain, "raw again (A/A)": plain, "store": ours}, rounds)
    ours()
    array = store / "seg-0000" / "resid_post.03.safetensors"
    sums = store / "seg-0000" / "checksums.safetensors"
    found: list[Any] = []

    def cold_layer() -> None:
        drop_cache(array)
        drop_cache(sums)
        found[:] = [opened.sel(layer=3)]

    def cold_bytes() -> None:
        drop_cache(array)
        drop_cache(sums)
        found[:] = [np.fromfile(array, dtype=np.uint8)]

    opened = interp.open_store(store)
    cold = compare({"one layer's bytes, cold (floor)": cold_bytes, "store, one layer, cold": cold_layer}, rounds)
    drop_cache(store)
    before = disk_reads()
    opened.sel(layer=3)
    read = disk_reads() - before
    opening = min(_time(lambda: interp.open_store(store)) for _ in range(rounds))
    quarter = min(_time(lambda: ours(n // 4)) for _ in range(rounds))
    whole = min(_time(ours) for _ in range(rounds))
    verify = min(_time(lambda: interp.open_store(store).verify()) for _ in range(rounds))
    return {
        "rows": [*rows, *cold],
        "target": {"store": 1.15, "store, one layer, cold": 2.0, "seconds_of_4n_to_n": 4.1},
        "megabytes": n * LAYERS * WIDTH * len(POSITIONS) * 2 / 1e6,
        "disk_bytes_read_to_bytes_of_the_layer": read / array.stat().st_size if read else float("nan"),
        "seconds_to_open": opening,
        "seconds_of_4n_to_n": whole / quarter,
        "seconds_to_verify": verify,
    }


def fill(path: Path, values: torch.Tensor, n: int) -> None:
    """A store of `n` prompts, in batches of prompts that stand apart, as sorting by length leaves them."""
    shutil.rmtree(path, ignore_errors=True)
    about = About(
        (SiteFormat("resid_post", "BF16", WIDTH),), tuple(range(LAYERS)), POSITIONS, 16, 16, {"name": "none"}, []
    )
    window = writer.GATHER // (values[0].numel() // BATCH * LAYERS * 2)
    batches: list[tuple[int, ...]] = []
    for start in range(0, n, window):
        order = np.random.default_rng(0).permutation(np.arange(start, min(n, start + window)))
        batches += [tuple(order[i : i + BATCH].tolist()) for i in range(0, len(order), BATCH)]
    prompts = named(n)
    plan = Plan(about.digest, "none", prompts, tuple(str(i) for i in range(n)), "", None, tuple(batches), {})
    with locked(path):
        _, filler = begin(path, about, plan, append=False)
        assert filler is not None
        for number, batch in enumerate(batches):
            filler.add(number, {"resid_post": values[:, : len(batch) * len(POSITIONS)]})
        filler.seal()


@cache
def named(n: int) -> tuple[Prompt, ...]:
    """Prompts are there before they are captured."""
    return tuple(Prompt(f"prompt {i}") for i in range(n))


@cache
def gathered() -> Any:
    """As many bytes as are written at once, from memory and not from the processor's cache."""
    return np.random.default_rng(0).integers(0, 256, writer.GATHER, dtype=np.uint8)


def fill_raw(path: Path, n: int) -> None:
    """The same bytes into as many preallocated files, in as large pieces, synced as often."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    per_file = n * len(POSITIONS) * WIDTH * 2
    files = [path / f"{layer:02d}" for layer in range(LAYERS)]
    for file in files:
        with file.open("wb") as opened:
            os.posix_fallocate(opened.fileno(), 0, per_file)
    piece = writer.GATHER // LAYERS
    data = gathered()
    unsynced = 0
    for start in range(0, per_file, piece):
        for layer, file in enumerate(files):
            with file.open("r+b", buffering=0) as opened:
                part = data[layer * piece :][: min(piece, per_file - start)]
                os.pwrite(opened.fileno(), part.data, start)
        unsynced += piece * LAYERS
        if unsynced >= writer.SYNC_BYTES or start + piece >= per_file:
            sync_files(files)
            unsynced = 0


def drop_cache(path: Path) -> None:
    """Make the system forget what it has of a file, or of all in a folder."""
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def disk_reads() -> int:
    """Bytes that this process made the disk read so far."""
    try:
        lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


def _time(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
