"""`refusalkit audit` killed at random moments ends, when it is run again, as if it had never been killed."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.command import SMALL, results

CODE = "from refusalkit.cli import main; main()"
WARM_UP = 2.0
"""Seconds of imports, in which there is nothing to interrupt yet."""


def start(out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CODE, "audit", "organism:chat", *SMALL, "--quiet", "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(out: Path) -> str:
    process = start(out)
    printed, complaint = process.communicate(timeout=300)
    assert process.returncode == 0, complaint
    return printed


def kill_after(out: Path, seconds: float) -> bool:
    """Whether the run was still going."""
    process = start(out)
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return True
    process.communicate()
    return False


def rounds(kills: int, seed: int, folder: Path) -> None:
    started = time.perf_counter()
    printed = finish(folder / "whole")
    took, want = time.perf_counter() - started, results(folder / "whole")
    rng = random.Random(seed)
    done, turn = 0, 0
    while done < kills:
        out = folder / f"killed-{turn}"
        while done < kills and kill_after(out, rng.uniform(min(WARM_UP, took / 2), took)):
            done += 1
        assert finish(out).replace(str(out), "") == printed.replace(str(folder / "whole"), "")
        assert {k: v for k, v in results(out).items() if not k.endswith(".partial")} == want
        turn += 1
        assert turn < 10 * kills


def test_an_audit_killed_three_times_ends_as_if_it_never_was(tmp_path: Path) -> None:
    rounds(3, 0, tmp_path)


@pytest.mark.soak
def test_an_audit_killed_thirty_times_ends_as_if_it_never_was(tmp_path: Path) -> None:
    rounds(30, 1, tmp_path)


def test_an_interrupted_audit_says_how_to_go_on(tmp_path: Path) -> None:
    process = start(tmp_path / "out")
    while not (tmp_path / "out" / ".work" / "key.json").exists() and process.poll() is None:
        time.sleep(0.05)
    while process.poll() is None:  # pressed again, as a user would: Python drops one that falls into a finaliser
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
    _, complaint = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "the same command goes on from there" in complaint
    assert "Traceback" not in complaint
