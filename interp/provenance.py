"""Provenance: what has to be known of a number to trust it, and where files are cached."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

_PACKAGES = ("refusalkit", "torch", "transformers", "tokenizers", "numpy", "scikit-learn")
_SETTLED = 2.0
"""Seconds after its last change from which a file's time of change can be trusted."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


def digest_text(text: str) -> str:
    """SHA-256 of a text, shortened to 16 hexadecimal digits."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def digest_json(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form, shortened to 16 hexadecimal digits."""
    return digest_text(json.dumps(value, sort_keys=True, ensure_ascii=False, default=str))


def digest_files(paths: Iterable[Path]) -> str:
    """SHA-256 over names and contents of files, shortened to 16 digits; cached by path, size and time of change."""
    total = hashlib.sha256()
    for path in sorted(paths):
        total.update(path.name.encode())
        total.update(_digest_file(path).encode())
    return total.hexdigest()[:16]


def cache_dir(*parts: str) -> Path:
    """A folder below the project's cache (`REFUSALKIT_CACHE`, else `~/.cache/refusalkit`), made when missing."""
    root = Path(os.environ.get("REFUSALKIT_CACHE") or Path.home() / ".cache" / "refusalkit")
    folder = root.joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def versions(*more: str) -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on, `more` among them."""
    return {"python": platform.python_version(), **{package: _version(package) for package in (*_PACKAGES, *more)}}


@cache
def _version(package: str) -> str:
    """A package's version, looked up once: parsing what is installed takes longer than capturing a prompt."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of it."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text so that a reader sees the old file or the new one, never half of it."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8", newline="\n")
    os.replace(partial, path)


def _digest_file(path: Path) -> str:
    """Content digest of a file, remembered under its path, size and time of change.

    A file that was changed just now is not remembered: the clock of a file system is coarse, so that a second change
    of the same size could leave size and time as they are. Nor is one that changed while it was read.
    """
    state = path.stat()
    key = digest_text(f"{path.resolve()}|{state.st_size}|{state.st_mtime_ns}|{state.st_ino}")
    note = _digest_note(key)
    if note is not None and (known := _read_note(note)):
        return known
    total = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            total.update(block)
        after = os.fstat(file.fileno())
    same = (after.st_size, after.st_mtime_ns) == (state.st_size, state.st_mtime_ns)
    if note is not None and same and time.time() - state.st_mtime >= _SETTLED:
        with contextlib.suppress(OSError):  # a cache that cannot be written costs time, not the answer
            partial = note.with_name(f"{key}.{os.getpid()}.partial")
            partial.write_text(total.hexdigest())
            os.replace(partial, note)
    return total.hexdigest()


def _digest_note(key: str) -> Path | None:
    try:
        return cache_dir("digests") / key
    except OSError:
        return None


def _read_note(note: Path) -> str | None:
    try:
        known = note.read_text(encoding="ascii")
    except (OSError, ValueError):
        return None
    return known if _SHA256.fullmatch(known) else None
