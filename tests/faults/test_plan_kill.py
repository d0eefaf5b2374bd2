"""`refusalkit plan` killed while answers are written writes none of them twice, and ends as if it had not been."""

from __future__ import annotations

import time
from pathlib import Path

import interp
from interp import PromptSet
from tests.helpers.command import tree
from tests.helpers.forks import COMMAND, Forks, run_whole

ASK = ("plan", "organism:chat", "--attribute", "list_length", "--probe", "linear", "--seeds", "0", "--segments", "0",
       "--max-new-tokens", "40", "--batch-size", "4", "--no-ask", "--quiet")  # fmt: skip


def arguments(out: Path) -> tuple[object, ...]:
    return *ASK, "--prompts", out.parent / "lists.jsonl", "--out", out


def answers(out: Path) -> bytes:
    file = out / "answers.jsonl"
    return file.read_bytes() if file.exists() else b""


def test_a_run_killed_in_generation_writes_no_answer_twice(forks: Forks, tmp_path: Path) -> None:
    several = interp.prompts("organism:list")
    PromptSet((*several.train[:70], *several.val[:20], *several.test[:30])).save(tmp_path / "lists.jsonl")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    printed = run_whole(COMMAND, *arguments(whole)).replace(str(whole), "")
    kept = b""
    for wanted in (20, 60):  # lines
        process = forks.start(COMMAND, *arguments(killed))
        while answers(killed).count(b"\n") < wanted and process.poll() is None:
            time.sleep(0.01)
        assert process.kill(), "it ended before it was killed"
        now = answers(killed)
        assert now.startswith(kept) and b"\n" in now[len(kept) :]  # what was there is there, and more
        kept = now[: now.rfind(b"\n") + 1]
    assert kept.count(b"\n") < answers(whole).count(b"\n")  # it was in generation
    assert forks.start(COMMAND, *arguments(killed)).finish().replace(str(killed), "") == printed
    assert answers(killed).startswith(kept)
    assert tree(killed) == tree(whole)
