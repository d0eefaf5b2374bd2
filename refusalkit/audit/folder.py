"""The output folder of an audit: stages that are finished once, and never mixed with those of another audit."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from interp.errors import FormatError, RefusalkitError
from interp.provenance import digest_json, write_json

_WORK = ".work"
_RESULTS = ("audit.json", "report.html", "vectors/refusal.safetensors")


class AuditFolder:
    """Keeps each stage's result as JSON, under a key made of everything that decides it.

    Args:
        path: The folder; made when missing.
        key: What decides the results: model, chat format, prompts, settings, versions.
        force: Throw away what an earlier audit left, its results included: they would pass for the new one's.

    Raises:
        RefusalkitError: When the folder cannot be written, or holds an audit with other arguments.
    """

    def __init__(self, path: Path, key: dict[str, Any], force: bool) -> None:
        self.path = path
        self.work = path / _WORK
        self._seconds: dict[str, float] = {}
        try:
            if force:
                for name in _RESULTS:
                    (path / name).unlink(missing_ok=True)
                if self.work.exists():
                    shutil.rmtree(self.work)
            self.work.mkdir(parents=True, exist_ok=True)
            self._claim(key)
        except OSError as error:
            raise RefusalkitError(
                f"cannot write to {path}: {error.strerror or error}; choose another folder with --out"
            ) from error

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
                    return result
            except (ValueError, KeyError, TypeError):
                pass  # damaged: do it again
        start = time.perf_counter()
        result = compute()
        self._seconds[name] = round(time.perf_counter() - start, 2)
        self.write_json(file, {"seconds": self._seconds[name], "result": result})
        return json.loads(file.read_text(encoding="utf-8"))["result"]

    def seconds(self) -> dict[str, float]:
        """How long each stage took when it ran."""
        return dict(sorted(self._seconds.items()))

    def write_json(self, file: Path, value: Any) -> None:
        """Write JSON so that it is there whole or not at all."""
        try:
            write_json(file, value)
        except OSError as error:
            raise _unwritten(file, error) from error

    def write(self, name: str, text: str) -> Path:
        """Write a file of the audit so that it is there whole or not at all."""
        target = self.path / name
        partial = target.with_name(target.name + ".partial")
        try:
            partial.write_text(text, encoding="utf-8")
            partial.replace(target)
        except OSError as error:
            raise _unwritten(target, error) from error
        return target

    def _claim(self, key: dict[str, Any]) -> None:
        note = self.work / "key.json"
        mine = digest_json(key)
        if note.is_file() or any(file.suffix != ".partial" for file in self.work.iterdir()):
            try:
                theirs = json.loads(note.read_text(encoding="utf-8"))
                same, parts = theirs["digest"] == mine, dict(theirs["parts"])
            except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
                raise FormatError(
                    f"{note} is missing or damaged, so it cannot be known what this folder holds; choose another "
                    "--out, or --force to start over"
                ) from error
            if same:
                return
            differ = [name for name in key if parts.get(name) != digest_json(key[name])]
            raise RefusalkitError(
                f"{self.path} holds an audit with other {', '.join(differ) or 'arguments'}; choose another --out, or "
                "--force to replace it"
            )
        write_json(note, {"digest": mine, "parts": {name: digest_json(part) for name, part in key.items()}})


def _unwritten(file: Path, error: OSError) -> RefusalkitError:
    return RefusalkitError(
        f"cannot write {file}: {error.strerror or error}; make room or choose another --out (what is finished is kept, "
        "the same command goes on from there)"
    )
