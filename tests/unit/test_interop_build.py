"""`make interop` builds llama.cpp once, and says why when it can't."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from scripts import llama_cpp


def refuse(*_: Any, **__: Any) -> None:
    raise AssertionError("something was run")


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(llama_cpp, "HOME", tmp_path / ".interop")
    monkeypatch.setattr(llama_cpp, "STAMP", tmp_path / ".interop" / "ready")
    monkeypatch.setattr(llama_cpp, "LOG", tmp_path / "build.log")


def test_without_a_compiler_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(SystemExit, match="no C\\+\\+ compiler here"):
        llama_cpp.build()
    assert not llama_cpp.ready() and not llama_cpp.HOME.exists()


def test_what_is_built_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    llama_cpp.HOME.mkdir()
    llama_cpp.STAMP.write_text(llama_cpp._stamp())
    monkeypatch.setattr(subprocess, "Popen", refuse)
    llama_cpp.build()
    assert "llama.cpp is built" in capsys.readouterr().out


def test_another_version_is_built_anew() -> None:
    llama_cpp.HOME.mkdir()
    llama_cpp.STAMP.write_text("0.0.1\n")
    assert not llama_cpp.ready()


def test_a_step_that_fails_ends_with_the_end_of_the_log() -> None:
    with pytest.raises(SystemExit, match="bad news\n\nThis failed: sh"):
        llama_cpp._run(["sh", "-c", "echo bad news; exit 3"])
