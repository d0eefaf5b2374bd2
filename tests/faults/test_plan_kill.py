"""`refusalkit plan` killed while answers are written writes none of them twice, and ends as if it had not been."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import interp
from interp import PromptSet
from tests.helpers.command import tree

CODE = "from refusalkit.cli import main; main()"
ASK = ("plan", "organism:chat", "--attribute", "list_length", "--probe", "linear", "--seeds", "0", "--segments", "0",
       "--max-new-tokens", "40", "--batch-size", "4", "--no-ask", "--quiet")  # fmt: skip


def start(out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CODE, *ASK, "--prompts", str(out.parent / "lists.jsonl"), "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(out: Path) -> str:
    process = start(out)
    printed, complaint = process.communicate(timeout=300)
    assert process.returncode == 0, complaint
    return printed.replace(str(out), "")


def answers(out: Path) -> bytes:
    file = out / "answers.jsonl"
    return file.read_bytes() if file.exists() else b""


def test_a_run_killed_in_generation_writes_no_answer_twice(tmp_path: Path) -> None:
    several = interp.prompts("organism:list")
    PromptSet((*several.train[:120], *several.val[:40], *several.test[:40])).save(tmp_path / "lists.jsonl")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    printed = finish(whole)
    kept = b""
    for wanted in (20, 90):  # lines
        process = start(killed)
        while answers(killed).count(b"\n") < wanted and process.poll() is None:
            time.sleep(0.01)
        assert process.poll() is None, "it ended before it was killed"
        process.kill()
        process.communicate()
        now = answers(killed)
        assert now.startswith(kept) and b"\n" in now[len(kept) :]  # what was there is there, and more
        kept = now[: now.rfind(b"\n") + 1]
    assert kept.count(b"\n") < answers(whole).count(b"\n")  # it was in generation
    assert finish(killed) == printed
    assert answers(killed).startswith(kept)
    assert tree(killed) == tree(whole)
