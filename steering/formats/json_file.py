"""JSON files, read without trust: each key once, numbers that are numbers, no more nesting than a reader can follow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from interp.errors import FormatError
from interp.tensorfile import write_whole

LARGEST = 1 << 26
"""Bytes: JSON takes many times its size in memory."""


def parse_json(data: bytes, path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        data: What is in it.
        path: Where it is, for messages.

    Raises:
        FormatError: When it is no JSON object.
    """
    try:
        found = json.loads(data.decode("utf-8"), parse_constant=_refuse, object_pairs_hook=_once)
        if not isinstance(found, dict):
            raise ValueError(f"it holds a {type(found).__name__}, no object")
    except (ValueError, RecursionError, MemoryError) as error:
        raise FormatError(f"{path} is no readable JSON object: {error}") from error
    return found


def write_json_file(path: Path, value: Any) -> Path:
    """Write JSON; the same value gives the same bytes.

    Raises:
        FormatError: When it cannot be written.
    """
    return write_whole(path, (json.dumps(value, allow_nan=False) + "\n").encode())


def as_number(value: Any, what: str) -> float:
    """A number of a JSON file.

    Raises:
        FormatError: When it is none, or too large for one.
    """
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise FormatError(f"{what} holds {value!r:.40}, no number")
    try:
        return float(value)
    except OverflowError:
        raise FormatError(f"{what} holds a number too large for one") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"it has {twice!r:.60} twice")
    return found


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
