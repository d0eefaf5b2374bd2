"""`refusalkit steer --prompts` killed while it answers writes nothing twice, and ends as if it had not been."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

import interp
from steering import SteeringVector, contrast_vector
from tests.helpers.command import tree

CODE = "from refusalkit.cli import main; main()"


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with prompts and a vector."""
    folder, prompts = tmp_path_factory.mktemp("given"), interp.prompts("organism")
    some = prompts.val.harmful.sample(20, 0) + prompts.val.harmless.sample(20, 0)
    some.save(folder / "asked.jsonl")
    pairs = list(zip(prompts.train.harmful[:8], prompts.train.harmless[:8], strict=True))
    vector: SteeringVector = contrast_vector(interp.load("organism:chat"), pairs, layers=[4])
    vector.save(folder / "v.safetensors")
    return folder


def start(given: Path, out: Path) -> subprocess.Popen[str]:
    command = [
        sys.executable, "-c", CODE, "steer", "organism:chat", "--vector", str(given / "v.safetensors"),
        "--split", "val", "--strength", "0.5,1", "--max-new-tokens", "12", "--quiet",
        "--prompts", str(given / "asked.jsonl"), "--out", str(out),
    ]  # fmt: skip
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(given: Path, out: Path) -> str:
    process = start(given, out)
    printed, complaint = process.communicate(timeout=300)
    assert process.returncode == 0, complaint
    return printed.replace(str(out), "")


def answers(out: Path) -> dict[str, bytes]:
    """What is kept so far; locks, which come and go, left out."""
    return {file.name: file.read_bytes() for file in (out / "answers").glob("[!.]*.jsonl")}


def test_a_comparison_that_is_killed_goes_on_where_it_was(given: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = start(given, killed)
    while "plain.jsonl" not in answers(killed) and process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.1)
    process.kill()
    process.communicate()
    kept = answers(killed)
    printed = finish(given, killed)
    assert set(kept) < set(answers(killed)), "it ended before it was killed"
    for name, was in kept.items():
        assert (killed / "answers" / name).read_bytes().startswith(was[: was.rfind(b"\n") + 1])
    assert finish(given, whole) == printed
    assert tree(killed) == tree(whole)
