"""One folder, one writer: a second audit is told so, and a killed one leaves no lock behind."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from interp.errors import PromptError, RefusalkitError
from interp.model.generate import Completion
from interp.model.generate_onto import Kind, generate_onto
from interp.model.load import load
from refusalkit.audit.folder import AuditFolder, check_free
from refusalkit.audit.pipeline import audit
from tests.helpers.command import LOOSE, SMALL, refused, tree
from tests.helpers.forks import COMMAND, Forks

SKIPPED = ("knows", "guard", "thinking", "plans")


def test_a_second_audit_of_the_same_folder_is_refused_until_the_first_is_killed(forks: Forks, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("audit", "organism:chat", *SMALL, "--skip", ",".join(SKIPPED), "--quiet", "--out", out)
    first = forks.start(COMMAND, *arguments)
    while not (out / ".work" / "key.json").exists() and first.poll() is None:
        time.sleep(0.02)
    message = refused(*arguments)
    assert f"another audit is writing to {out}; wait until it ends" in message
    assert "another audit" in refused(*arguments, "--force")
    assert first.poll() is None  # it went on
    assert first.kill()  # SIGKILL: it cannot tidy up
    forks.start(COMMAND, *arguments).finish()
    assert (out / "report.html").is_file()


def test_the_lock_is_held_from_the_first_write_to_the_last(tmp_path: Path) -> None:
    with AuditFolder(tmp_path, {"a": 1}, force=False) as folder:
        for force in (False, True):
            with pytest.raises(RefusalkitError, match="another audit is writing"):
                AuditFolder(tmp_path, {"a": 1}, force=force)
        with pytest.raises(RefusalkitError, match="another audit is writing"):
            check_free(tmp_path)
        folder.stage("one", lambda: 1)
    check_free(tmp_path)
    with AuditFolder(tmp_path, {"a": 1}, force=False) as folder:
        assert folder.stage("one", lambda: 2) == 1


def test_an_error_frees_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), AuditFolder(tmp_path, {"a": 1}, force=False) as folder:
        folder.stage("one", lambda: 1 / 0)
    with pytest.raises(RefusalkitError, match="other a "):
        AuditFolder(tmp_path, {"a": 2}, force=False)  # not ours: refused, and let go
    AuditFolder(tmp_path, {"a": 1}, force=False).__exit__()


def test_the_lock_is_nothing_that_a_folder_holds(tmp_path: Path) -> None:
    """A folder with a lock alone is empty, and starting over leaves the lock that is held."""
    (tmp_path / ".work").mkdir()
    (tmp_path / ".work" / "lock").touch()
    with AuditFolder(tmp_path, {"a": 1}, force=False):
        pass
    with AuditFolder(tmp_path, {"b": 2}, force=True):
        with pytest.raises(RefusalkitError, match="another audit is writing"):
            check_free(tmp_path)
        assert {name for name in tree(tmp_path)} == {".work/key.json", ".work/lock"}


def test_two_audits_in_one_process_follow_each_other(tmp_path: Path) -> None:
    model = load("organism:chat")
    first = audit(model, tmp_path / "out", settings=LOOSE, skip=SKIPPED)
    assert audit(model, tmp_path / "out", settings=LOOSE, skip=SKIPPED) == first


def test_what_a_model_writes_onto_disk_has_one_writer(tmp_path: Path) -> None:
    """Answers of `steer` and `calibrate`, rollouts: another's lines would come between, and cut each other short."""
    model, out, refusals = load("organism:chat"), tmp_path / "answers.jsonl", list[str]()
    encoded, kind = model.encode(["Hello there.", "Say this."]), Kind("test/1", "answers", "answering")
    settings: dict[str, Any] = {"max_new_tokens": 2, "batch_size": 1, "token_budget": 64}

    def row(index: int, completion: Completion) -> dict[str, Any]:
        return {"index": index, "text": completion.text}

    def meanwhile(index: int, completion: Completion) -> dict[str, Any]:
        with pytest.raises(PromptError) as refusal:
            generate_onto(model, encoded, kind, out, row, "prompts", {}, **settings)
        refusals.append(str(refusal.value))
        return row(index, completion)

    first = generate_onto(model, encoded, kind, out, meanwhile, "prompts", {}, **settings)
    assert len(refusals) == 2 and refusals[0].startswith(f"another process is writing answers to {out}: wait until")
    assert generate_onto(model, encoded, kind, out, row, "prompts", {}, **settings) == first
    assert [file.name for file in tmp_path.iterdir()] == [out.name]
    out.parent.chmod(0o500)  # a folder that nobody can write to is read as it is
    try:
        assert generate_onto(model, encoded, kind, out, row, "prompts", {}, **settings) == first
    finally:
        out.parent.chmod(0o700)
