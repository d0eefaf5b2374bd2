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


class AuditFolder:
    """Keeps each stage's result as JSON, under a key made of everything that decides it.

    Args:
        path: The folder; made when missing.
        key: What decides the results: model, chat format, prompts, settings, versions.
        force: Throw away what an earlier audit left.

    Raises:
        RefusalkitError: When the folder cannot be written, or holds an audit with other arguments.
    """

    def __init__(self, path: Path, key: dict[str, Any], force: bool) -> None:
        self.path = path
        self.work = path / _WORK
        try:
            if force and self.work.exists():
                shutil.rmtree(self.work)
            self.work.mkdir(parents=True, exist_ok=True)
            (path / "vectors").mkdir(exist_ok=True)
            self._claim(key)
        except OSError as error:
            raise RefusalkitError(
                f"cannot write to {path}: {error.strerror or error}; choose another folder with --out"
            ) from error

    def stage(self, name: str, compute: Callable[[], Any]) -> Any:
        """The stage's result: read back when it was finished before, computed and kept otherwise."""
        file = self.work / f"{name}.json"
        if file.is_file():
            try:
                return json.loads(file.read_text(encoding="utf-8"))["result"]
            except (ValueError, KeyError, TypeError):
                file.unlink()  # damaged: do it again
        start = time.perf_counter()
        result = compute()
        try:
            write_json(file, {"seconds": round(time.perf_counter() - start, 2), "result": result})
        except OSError as error:
            raise RefusalkitError(f"cannot write {file}: {error.strerror or error}; is the disk full?") from error
        return json.loads(file.read_text(encoding="utf-8"))["result"]

    def seconds(self) -> dict[str, float]:
        """How long each finished stage took when it ran."""
        found: dict[str, float] = {}
        for file in sorted(self.work.glob("*.json")):
            value = json.loads(file.read_text(encoding="utf-8"))
            if isinstance(value, dict) and "seconds" in value:
                found[file.stem] = value["seconds"]
        return found

    def write(self, name: str, text: str) -> Path:
        """Write a file of the audit so that it is there whole or not at all."""
        target = self.path / name
        partial = target.with_name(target.name + ".partial")
        try:
            partial.write_text(text, encoding="utf-8")
            partial.replace(target)
        except OSError as error:
            raise RefusalkitError(f"cannot write {target}: {error.strerror or error}") from error
        return target

    def _claim(self, key: dict[str, Any]) -> None:
        note = self.work / "key.json"
        mine = digest_json(key)
        if note.is_file():
            try:
                theirs = json.loads(note.read_text(encoding="utf-8"))
                same, parts = theirs["digest"] == mine, theirs["parts"]
            except (ValueError, KeyError, TypeError) as error:
                raise FormatError(
                    f"{note} is damaged, so it cannot be known what this folder holds; use --force to start over"
                ) from error
            if same:
                return
            differ = [name for name in key if parts.get(name) != digest_json(key[name])]
            raise RefusalkitError(
                f"{self.path} holds an audit with other {', '.join(differ) or 'arguments'}; choose another --out, or "
                "--force to replace it"
            )
        write_json(note, {"digest": mine, "parts": {name: digest_json(part) for name, part in key.items()}})
