"""`refusalkit audit` killed at random moments ends, when it is run again, as if it had never been killed."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from tests.helpers.command import SMALL, results
from tests.helpers.forks import COMMAND, Fork, Forks, run_whole

SHORT = ("--skip", "knows,guard,plans")
"""What is killed at each of its writes in `test_half_written.py`; stages and the thoughts' own file are left."""
LEAST = 0.1
"""Seconds in which there is nothing to interrupt yet."""


def arguments(out: Path, *more: str) -> tuple[object, ...]:
    return "audit", "organism:chat", *SMALL, *more, "--quiet", "--out", out


def begun(out: Path) -> Path:
    return out / ".work" / "key.json"


def start(forks: Forks, out: Path, *more: str) -> Fork:
    """An audit that has begun to write."""
    process = forks.start(COMMAND, *arguments(out, *more))
    while not begun(out).exists() and process.poll() is None:
        time.sleep(0.02)
    return process


def rounds(forks: Forks, kills: int, seed: int, folder: Path, *more: str) -> None:
    printed = run_whole(COMMAND, *arguments(folder / "whole", *more))  # as a user starts it
    took = 0.7 * (time.time() - begun(folder / "whole").stat().st_mtime)  # a fork need not import anything more
    want = results(folder / "whole")
    rng = random.Random(seed)
    done, turn = 0, 0
    while done < kills:
        out = folder / f"killed-{turn}"
        killed = True
        while done < kills and killed:
            process = start(forks, out, *more)
            process.wait(rng.uniform(min(LEAST, took / 2), took))
            killed = process.kill()
            done += killed
        again = forks.start(COMMAND, *arguments(out, *more)).finish()
        assert again.replace(str(out), "") == printed.replace(str(folder / "whole"), "")
        assert {k: v for k, v in results(out).items() if not k.endswith(".partial")} == want
        turn += 1
        assert turn < 10 * kills


def test_an_audit_killed_three_times_ends_as_if_it_never_was(forks: Forks, tmp_path: Path) -> None:
    rounds(forks, 3, 0, tmp_path, *SHORT)


@pytest.mark.soak
def test_an_audit_killed_thirty_times_ends_as_if_it_never_was(forks: Forks, tmp_path: Path) -> None:
    rounds(forks, 30, 1, tmp_path)


def test_an_interrupted_audit_says_how_to_go_on(forks: Forks, tmp_path: Path) -> None:
    process = start(forks, tmp_path / "out")
    while process.poll() is None:  # pressed again, as a user would: Python drops one that falls into a finaliser
        process.signal(signal.SIGINT)
        process.wait(5)
    assert process.returncode == 130
    assert "the same command goes on from there" in process.err
    assert "Traceback" not in process.err
