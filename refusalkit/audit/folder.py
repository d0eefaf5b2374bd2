"""The output folder of an audit: stages that are finished once, and never mixed with those of another audit."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from interp.errors import FormatError, RefusalkitError
from interp.provenance import write_json, write_text
from interp.text.checks import shorten

_WORK = ".work"
_LOCK = "lock"
_RESULTS = ("audit.json", "report.html", "vectors/refusal.safetensors", "guard/harm.safetensors")
_EXPORTS = "exports"


class AuditFolder:
    """Keeps each stage's result as JSON, under a key made of everything that decides it.

    A context: while it is open, the folder is locked against every other audit. The lock is the operating system's, so
    it is free again when its holder ends, however it ends. `kept` names what was read back from an earlier run.

    Args:
        path: The folder; made when missing.
        key: What decides the results, as JSON: model, chat format, prompts, settings, device, versions.
        force: Throw away what an earlier audit left, its results included: they would pass for the new one's.

    Raises:
        RefusalkitError: When the folder cannot be written, holds an audit with another key, or is in use.
    """

    def __init__(self, path: Path, key: dict[str, Any], force: bool) -> None:
        self.path = path
        self.work = path / _WORK
        self.kept: list[str] = []
        self._seconds: dict[str, float] = {}
        try:
            self.work.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(path)
            try:
                if force:
                    self._clear()
                self._claim(key)
            except BaseException:
                self._lock.release()
                raise
        except OSError as error:
            raise RefusalkitError(
                f"cannot write to {path}: {error.strerror or error}; choose another folder with --out"
            ) from error

    def __enter__(self) -> AuditFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def stage(self, name: str, compute: Callable[[], Any], intact: Callable[[Any], bool] = lambda _result: True) -> Any:
        """The stage's result: read back when it was finished before, computed and kept otherwise.

        Args:
            name: The stage.
            compute: Gives its result as JSON.
            intact: Whether what else a finished stage wrote is still there, given its result.
        """
        file = self.work / f"{name}.json"
        if file.is_file():
            try:
                kept = json.loads(file.read_text(encoding="utf-8"))
                result, self._seconds[name] = kept["result"], float(kept["seconds"])
                if intact(result):
                    self.kept.append(name)
                    return result
            except (ValueError, KeyError, TypeError):
                pass  # damaged: do it again
        start = time.perf_counter()
        result = compute()
        self._seconds[name] = round(time.perf_counter() - start, 2)
        self.write_json(file, {"seconds": self._seconds[name], "result": result})
        return json.loads(file.read_text(encoding="utf-8"))["result"]

    def took(self, stage: str, seconds: float) -> None:
        """Note the time of a stage that keeps its own files."""
        self._seconds[stage] = round(seconds, 2)

    def seconds(self) -> dict[str, float]:
        """How long each stage took to compute, in the order of the stages, whichever run computed it."""
        return dict(self._seconds)

    def write_json(self, file: Path, value: Any) -> None:
        """Write JSON so that it is there whole or not at all."""
        try:
            write_json(file, value)
        except OSError as error:
            raise _unwritten(file, error) from error

    def write(self, name: str, text: str) -> Path:
        """Write a file of the audit so that it is there whole or not at all."""
        target = self.path / name
        try:
            write_text(target, text)
        except OSError as error:
            raise _unwritten(target, error) from error
        return target

    def _clear(self) -> None:
        """Everything of an earlier audit goes but the lock, which this one holds."""
        for name in _RESULTS:
            (self.path / name).unlink(missing_ok=True)
        shutil.rmtree(self.path / _EXPORTS, ignore_errors=True)
        for entry in self.work.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name != _LOCK:
                entry.unlink()

    def _claim(self, key: dict[str, Any]) -> None:
        note, mine = self.work / "key.json", json.loads(json.dumps(key, default=str))
        if any(file.suffix != ".partial" and file.name != _LOCK for file in self.work.iterdir()):
            try:
                theirs = dict(json.loads(note.read_text(encoding="utf-8"))["key"])
            except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
                raise FormatError(
                    f"{note} is missing or damaged, so it cannot be known what this folder holds; choose another "
                    "--out, or --force to start over"
                ) from error
            if theirs == mine:
                return
            differ = [_difference(part, theirs.get(part), mine.get(part)) for part in (*mine, *(theirs.keys() - mine))]
            raise RefusalkitError(
                f"{self.path} holds an audit with other {', '.join(filter(None, differ))}; choose another --out, or "
                "--force to replace it"
            )
        write_json(note, {"key": mine})


def check_free(path: Path) -> None:
    """Whether no other audit is writing there, asked early; the folder locks it for good.

    Raises:
        RefusalkitError: When one is.
    """
    if (path / _WORK / _LOCK).is_file():
        _locked(path).release()


def _locked(path: Path) -> FileLock:
    lock = FileLock(path / _WORK / _LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise RefusalkitError(
            f"another audit is writing to {path}; wait until it ends, or choose another --out"
        ) from error
    return lock


def _difference(part: str, theirs: Any, mine: Any) -> str:
    """`settings (seed: 0 there, 1 here)`; empty when there is none."""
    if theirs == mine:
        return ""
    if isinstance(theirs, dict) and isinstance(mine, dict):
        names = [n for n in (*mine, *(theirs.keys() - mine)) if theirs.get(n) != mine.get(n)]
        said = [f"{name}: {_said(theirs.get(name))} there, {_said(mine.get(name))} here" for name in names]
    else:
        said = [f"{_said(theirs)} there, {_said(mine)} here"]
    return f"{part} ({'; '.join(said)})"


def _said(value: Any) -> str:
    return "none" if value is None else shorten(str(value), 60)


def _unwritten(file: Path, error: OSError) -> RefusalkitError:
    return RefusalkitError(
        f"cannot write {file}: {error.strerror or error}; make room or choose another --out (what is finished is kept, "
        "the same command goes on from there)"
    )
