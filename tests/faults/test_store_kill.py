"""A capture into a store that dies, at whatever instant, is finished by the next call, to the byte."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

import interp
from interp.activations.store.begin import LOCK
from interp.activations.store.manifest import JOURNAL
from interp.errors import StoreError
from tests.helpers.command import tree
from tests.helpers.forks import Forks
from tests.helpers.slow_capture import CODE, PROMPTS, capture

CALLS = ("pwrite", "pwritev", "fsync", "replace", "posix_fallocate", "ftruncate", "mkdir", "unlink")


def contents(out: Path) -> dict[str, bytes]:
    return {name: data for name, data in tree(out).items() if name != LOCK}


def rounds(forks: Forks, kills: int, seed: int, folder: Path) -> None:
    rng = random.Random(seed)
    want = {}
    for positions in ("post_inst", "inst"):
        forks.start(CODE, folder / positions, positions, 0).finish()
        want[positions] = contents(folder / positions)
    done = torn = turn = 0
    while done < kills:
        positions = rng.choice(["post_inst", "inst"])
        out = folder / f"killed-{turn}"
        for _ in range(8):
            process = forks.start(CODE, out, positions, 0.002)
            process.wait(rng.uniform(0, 0.7))
            if not process.kill():
                assert process.returncode == 0, process.err
                break
            done += 1
            torn += bool(list(out.rglob("*.partial")))
        forks.start(CODE, out, positions, 0).finish()
        assert contents(out) == want[positions]
        interp.open_store(out).verify()
        shutil.rmtree(out)
        turn += 1
    assert torn >= kills // 3  # they did land in the middle


def test_a_capture_killed_ten_times_leaves_the_bytes_of_one_that_was_not(forks: Forks, tmp_path: Path) -> None:
    rounds(forks, 10, 0, tmp_path)


@pytest.mark.soak
def test_a_capture_killed_300_times_leaves_the_bytes_of_one_that_was_not(forks: Forks, tmp_path: Path) -> None:
    rounds(forks, 300, 1, tmp_path)


class Killed(BaseException):
    """What stands for a kill or a power cut: nothing catches it, and nothing can be done after it."""


def joined(data: Any) -> bytes:
    return b"".join(data) if isinstance(data, list) else bytes(data)


class Machine:
    """Counts the calls that change files, dies at one of them, and forgets what was not synced.

    A power cut may keep or lose any write that was not synced; here all of them are turned to garbage, which is the
    worst of it. Bytes of a file are synced with any descriptor of it.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, die_at: int | None, forget: bool) -> None:
        self.calls, self._die_at, self._forget, self.dead = 0, die_at, forget, False
        self._unsynced: dict[int, list[tuple[int, int]]] = {}
        self._plain = {name: getattr(os, name) for name in CALLS}
        for name in CALLS:
            monkeypatch.setattr(os, name, self._guarded(name))

    def _guarded(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.dead or self.calls == self._die_at:
                if not self.dead and name.startswith("pwrite"):  # the one it dies in is half done
                    data = joined(args[1])
                    self._plain["pwrite"](args[0], data[: len(data) // 2], args[2])
                    self._note(args[0], data[: len(data) // 2], args[2])
                self.dead = True
                raise Killed
            self.calls += 1
            # What is written while a sync runs may be missed by it.
            before = list(self._unsynced.get(os.fstat(args[0]).st_ino, ())) if name == "fsync" else []
            found = self._plain[name](*args, **kwargs)
            if name.startswith("pwrite"):
                self._note(args[0], joined(args[1]), args[2])
            elif before:
                later = self._unsynced[os.fstat(args[0]).st_ino][len(before) :]
                self._unsynced[os.fstat(args[0]).st_ino] = later
            return found

        return call

    def _note(self, fd: int, data: Any, offset: int) -> None:
        self._unsynced.setdefault(os.fstat(fd).st_ino, []).append((offset, len(data)))

    def cut_power(self, folder: Path) -> None:
        """Turn what was not synced to garbage."""
        if not self._forget:
            return
        for file in folder.rglob("*"):
            if file.is_file():
                with file.open("r+b") as open_file:
                    for offset, n in self._unsynced.get(file.stat().st_ino, []):
                        open_file.seek(offset)
                        open_file.write(b"\xa5" * n)


def deaths(folder: Path, monkeypatch: pytest.MonkeyPatch, positions: str, forget: bool, step: int, start: int) -> int:
    """Die at every `step`-th call, each time in a new folder, and finish; gives how many calls there are."""
    want = contents(capture(folder / "whole", positions).path)
    at = start
    while True:
        out = folder / f"died-{at}"
        with monkeypatch.context() as patch:
            machine = Machine(patch, at, forget)
            with contextlib.suppress(Killed):
                capture(out, positions)
        if not machine.dead:
            assert machine.calls > 60
            return machine.calls
        machine.cut_power(out)
        with_trouble(out, positions)
        capture(out, positions)
        assert contents(out) == want, at
        shutil.rmtree(out)
        at += step


def with_trouble(out: Path, positions: str) -> None:
    """What a reader meets in the ruins: rows that are right, or a `StoreError`."""
    try:
        store = interp.open_store(out)
        found = store.take(store.done)
        if len(found):
            found.load()
        store.verify()
    except StoreError:
        pass


@pytest.mark.parametrize("forget", [False, True], ids=["kill", "power cut"])
@pytest.mark.parametrize("positions", ["post_inst", "inst"])
def test_a_death_at_any_system_call_costs_nothing(
    positions: str, forget: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaths(tmp_path, monkeypatch, positions, forget, step=11, start=len(positions) % 11 + 2 * forget)


@pytest.mark.soak
@pytest.mark.parametrize("forget", [False, True], ids=["kill", "power cut"])
@pytest.mark.parametrize("positions", ["post_inst", "inst"])
def test_a_death_at_every_system_call_costs_nothing(
    positions: str, forget: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaths(tmp_path, monkeypatch, positions, forget, step=1, start=0)


def test_rows_are_done_only_when_their_data_were_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a power cut at any call, what the store calls done is what was computed."""
    truth = capture(tmp_path / "whole").load()
    seen = 0
    for at in range(20, 200, 7):
        out = tmp_path / f"died-{at}"
        with monkeypatch.context() as patch:
            machine = Machine(patch, at, forget=True)
            with contextlib.suppress(Killed):
                capture(out)
        machine.cut_power(out)
        try:
            store = interp.open_store(out)
        except StoreError:
            continue  # it was not begun, or is finished but for a name
        rows = store.done
        for site in truth.sites:
            assert (store.take(rows).sel(site) == truth.take(rows).sel(site)).all()
        seen += 0 < rows.sum() < len(PROMPTS)
    assert seen >= 3


def full(monkeypatch: pytest.MonkeyPatch, name: str, after: int) -> None:
    """A disk that is full after some calls."""
    plain, left = getattr(os, name), [after]

    def call(*args: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return plain(*args)

    monkeypatch.setattr(os, name, call)


@pytest.mark.parametrize("after", [0, 3])
def test_a_disk_that_fills_up_while_room_is_made_leaves_nothing(
    after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "store"
    with monkeypatch.context() as patch:
        full(patch, "posix_fallocate", after)
        with pytest.raises(StoreError, match=r"the disk is full.*bytes are needed.*[\d,]+ bytes are free"):
            capture(out)
    assert contents(out) == {}
    assert contents(capture(out).path) == contents(capture(tmp_path / "whole").path)


@pytest.mark.parametrize(
    ("call", "after"), [("pwrite", 0), ("pwrite", 1), ("pwrite", 9), ("pwrite", 30), ("pwritev", 1), ("pwritev", 30)]
)
def test_a_disk_that_fills_up_in_the_middle_loses_nothing(
    call: str, after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "store"
    with monkeypatch.context() as patch:
        full(patch, call, after)
        with pytest.raises(StoreError, match=r"the disk is full.*[\d,]+ bytes are free; make room"):
            capture(out)
    assert contents(capture(out).path) == contents(capture(tmp_path / "whole").path)


@pytest.mark.parametrize("after", [1, 5, 12])
def test_once_a_sync_failed_nothing_more_is_called_done(
    after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux reports lost data once: a second sync that succeeds proves nothing of what the first one lost."""
    out, plain, synced = tmp_path / "store", os.fsync, [0]
    called_done: list[str] = []

    def fsync(fd: int) -> None:
        name = os.readlink(f"/proc/self/fd/{fd}")
        begun = (out / "seg-0000" / JOURNAL).exists()
        synced[0] += begun and name.endswith(".partial")
        if begun and synced[0] == after and name.endswith(".partial"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if synced[0] > after and name.endswith(JOURNAL):
            called_done.append(name)
        plain(fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(StoreError, match="cannot use"):
            capture(out)
    assert called_done == []
    assert contents(capture(out).path) == contents(capture(tmp_path / "whole").path)


def test_short_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    want, plain = contents(capture(tmp_path / "whole").path), os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: plain(fd, data[: max(1, len(data) // 3)], offset))
    monkeypatch.setattr(os, "pwritev", lambda fd, data, offset: plain(fd, joined(data)[: len(data[0]) + 5], offset))
    assert contents(capture(tmp_path / "store").path) == want


def test_unfinished_files_that_were_damaged_are_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    want = contents(capture(tmp_path / "whole").path)
    damages = (
        lambda file: file.unlink(),
        lambda file: file.write_bytes(file.read_bytes()[:-1]),
        lambda file: file.write_bytes(b"x" + file.read_bytes()[1:]),
    )
    for i, damage in enumerate(damages):
        out = tmp_path / f"damaged-{i}"
        with monkeypatch.context() as patch:
            Machine(patch, 190, forget=False)
            with pytest.raises(Killed):
                capture(out)
        assert interp.open_store(out).done.any()
        damage(out / "seg-0000" / "z.01.safetensors.partial")
        with pytest.raises(StoreError, match=r"z\.01\.safetensors"):
            interp.open_store(out)
        capture(out)
        assert contents(out) == want
