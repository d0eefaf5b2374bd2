"""Where a capture into a folder begins: make the store, go on with it, append to it, or refuse to mix."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Generator, Sequence
from dataclasses import fields
from pathlib import Path

from filelock import FileLock, Timeout

from interp.activations.store.files import PARTIAL, explain, free_bytes, sync_folder
from interp.activations.store.manifest import (
    CHECKSUMS,
    JOURNAL,
    MANIFEST,
    SEGMENT,
    About,
    Plan,
    read_manifest,
    read_segment,
    write_manifest,
    write_segment,
)
from interp.activations.store.segment import Segment
from interp.activations.store.writer import Writer, finish
from interp.errors import StoreError
from interp.text.prompts import Prompt

LOCK = ".lock"
_DECISIVE = ("torch", "transformers", "tokenizers", "device")
"""What must not change between a capture's beginning and its end, if the numbers are to be the same."""


@contextlib.contextmanager
def locked(path: Path) -> Generator[None]:
    """Hold a store's lock; the system lets go of it when the process ends, however it ends.

    Raises:
        StoreError: When another writer has it, or the folder cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path / LOCK, timeout=0)
        lock.acquire()
    except Timeout:
        raise StoreError(
            f"another capture is writing to {path}: wait until it ends, or capture into another folder"
        ) from None
    except OSError as error:
        raise explain(error, path) from error
    try:
        yield
    finally:
        lock.release()


def begin(path: Path, about: About, plan: Plan, append: bool) -> tuple[int, Writer | None]:
    """The segment for these prompts, found or made, and its writer; no writer when it is finished.

    Raises:
        StoreError: When the folder holds something else, naming what differs, or the disk is too small.
    """
    if not (path / MANIFEST).is_file():
        _check_ours(path)
        return 0, _create(path, about, plan, [])
    kept, listed = read_manifest(path)
    if differences := kept.differences(about):
        raise StoreError(
            f"{path} holds a capture of other things ({'; '.join(differences)}): capture into another folder"
        )
    found = [read_segment(path / folder, kept, digest) for folder, digest in listed]
    for number, ((folder, digest), (old, sealed)) in enumerate(zip(listed, found, strict=True)):
        if old.contents != plan.contents:
            continue
        if sealed is not None:
            segment = Segment(path / folder, kept, digest)
            finish(segment.folder, [*segment.arrays.values(), segment.checksums])
            return number, None
        if changed := [k for k in _DECISIVE if old.versions.get(k) != plan.versions.get(k)]:
            raise StoreError(
                f"{path} was begun with "
                + ", ".join(f"{k} {old.versions.get(k)} (now {plan.versions.get(k)})" for k in changed)
                + ": the rest would not be the same numbers; go back to that, or capture into another folder"
            )
        return number, Writer(path / folder, kept, old)
    if not append:
        known = {d for old, _ in found for d in old.digests}
        shared = sum(d in known for d in plan.digests)
        if shared == len(plan.digests):
            raise StoreError(
                f"{path} holds these prompts, but {_otherwise(plan, [old for old, _ in found])}: make the call with "
                "those it was captured with, give append=True to add them a second time, or another folder"
            )
        raise StoreError(
            f"{path} holds other prompts ({shared} of the {len(plan.digests)} asked for are among its "
            f"{sum(len(old.prompts) for old, _ in found)}): give append=True to add them, or another folder"
        )
    if found[-1][1] is None:
        raise StoreError(
            f"{path}: the capture of {found[-1][0].name!r} ({len(found[-1][0].prompts)} prompts) was not finished: "
            "make that call again before appending more"
        )
    return len(listed), _create(path, about, plan, listed)


def _otherwise(plan: Plan, kept: Sequence[Plan]) -> str:
    """How prompts that are all there differ from what is there."""
    known = {digest: prompt for old in kept for digest, prompt in zip(old.digests, old.prompts, strict=True)}
    pairs = [(known[digest], prompt) for digest, prompt in zip(plan.digests, plan.prompts, strict=True)]
    for field in fields(Prompt):
        there, here = next(
            ((getattr(a, field.name), getattr(b, field.name)) for a, b in pairs
             if getattr(a, field.name) != getattr(b, field.name)), (None, None),
        )  # fmt: skip
        if there != here:
            return f"with another {field.name} ({there!r} there, {here!r} asked for)"
    n = sum(len(old.digests) for old in kept)
    return "in another order" if n == len(plan.digests) else f"they are {len(plan.digests)} of its {n}"


def _create(path: Path, about: About, plan: Plan, listed: list[tuple[str, str]]) -> Writer:
    """Make a segment. The manifest is written last: until then nothing refers to the folder, and it may be redone."""
    for folder in path.glob("seg-*"):
        if folder.name not in {name for name, _ in listed}:
            _remove_orphan(folder)
    number = 1 + max((int(name.removeprefix("seg-")) for name, _ in listed), default=-1)
    folder = path / f"seg-{number:04d}"
    files = [*plan.arrays(folder, about).values(), plan.checksums(folder, about)]
    needed = sum(array.size for array in files)
    if (free := free_bytes(path)) < needed:
        raise StoreError(
            f"the disk is too small for {path}: {needed:,} bytes are needed and {free:,} are free; make room, or "
            "capture fewer sites, layers or positions"
        )
    try:
        folder.mkdir()
        write_segment(folder, plan, None)
        writer = Writer(folder, about, plan)
        sync_folder(path)
        write_manifest(path, about, [*listed, (folder.name, plan.digest)])
    except StoreError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise StoreError(f"{error} (the whole takes {needed:,} bytes)") from error
    except OSError as error:
        raise explain(error, folder, needed) from error
    return writer


def _check_ours(path: Path) -> None:
    """A folder without a manifest must be empty, but for what a killed beginning left."""
    for entry in path.iterdir():
        if entry.name not in (LOCK, MANIFEST + PARTIAL) and not (entry.is_dir() and entry.name.startswith("seg-")):
            raise StoreError(f"{path} is not empty and no store ({entry.name} is in it): capture into another folder")


def _remove_orphan(folder: Path) -> None:
    """Remove a segment that was never listed; but not one with data, whose manifest may have been lost."""
    names = {entry.name for entry in folder.iterdir()}
    known = {JOURNAL, SEGMENT, CHECKSUMS, *(n for n in names if n.endswith(".safetensors"))}
    foreign = sorted(n for n in names if n.removesuffix(PARTIAL) not in known and not n.endswith(PARTIAL))
    journal = folder / JOURNAL
    if foreign or any(n.endswith(".safetensors") for n in names) or (journal.is_file() and _lines(journal) > 1):
        raise StoreError(
            f"{folder} holds data that no {MANIFEST} lists: put the manifest back, or move the folder away"
        )
    shutil.rmtree(folder)


def _lines(journal: Path) -> int:
    return journal.read_bytes().count(b"\n")
