"""JSON from strangers: read with bounds, checked against its own digest, and taken apart with its types checked."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

from interp.activations.store.files import opened, write_synced
from interp.errors import StoreError

_LARGEST = 1 << 31
T = TypeVar("T")


def digest_of(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write_signed(path: Path, value: Mapping[str, Any]) -> None:
    """Write an object with its own digest in it, whole or not at all, and bring it to the disk."""
    signed = {**value, "digest": digest_of(value)}
    write_synced(path, (json.dumps(signed, ensure_ascii=True, allow_nan=False) + "\n").encode())


def read_signed(path: Path, form: str) -> dict[str, Any]:
    """Read what `write_signed` wrote, without its digest.

    Raises:
        StoreError: When it is missing, damaged, edited, or of another format.
    """
    with opened(path, os.O_RDONLY) as fd:
        size = os.fstat(fd).st_size
        if size > _LARGEST:
            raise StoreError(f"{path} has {size:,} bytes, too many for what it should be: is this a store?")
        with os.fdopen(os.dup(fd), "rb") as file:
            data = file.read()
    try:
        found = json.loads(data.decode("utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path} is damaged: it is no JSON ({error}); copy it again") from error
    if not isinstance(found, dict) or "format" not in found:
        raise StoreError(f"{path} is not {form}: it has no format; give the folder of a store")
    value = cast("dict[str, Any]", found)
    if value["format"] != form:
        raise StoreError(f"{path} has the format {value['format']!r:.80}, and {form!r} is what this version reads")
    signature = value.pop("digest", None)
    try:
        mine = digest_of(value)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path} is damaged: {error}") from error
    if signature != mine:
        raise StoreError(
            f"{path} was edited or damaged: what it says is not what its digest was made of; copy it again"
        )
    return value


class Fields:
    """An object's fields, each taken with its type checked.

    Args:
        path: Where it was read, for messages.
        value: What should be an object.
        name: What it is called there.
    """

    def __init__(self, path: Path, value: Any, name: str) -> None:
        self._path, self._name = path, name
        if not isinstance(value, dict):
            self.fail("is no object")
        self.values = cast("dict[str, Any]", value)

    def fail(self, what: str) -> NoReturn:
        """Raise `StoreError` saying where."""
        raise StoreError(f"{self._path} is damaged: {self._name} {what}; copy it again")

    def get(self, key: str, kind: type[T]) -> T:
        """A field of a type; `True` is no number."""
        if key not in self.values:
            self.fail(f"has no {key!r}")
        value = self.values[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            self.fail(f"has a {key!r} of another type ({value!r:.40})")
        return value

    def several(self, key: str, kind: type[T]) -> list[T]:
        """A list of one type."""
        values = cast("list[Any]", self.get(key, list))
        for value in values:
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
                self.fail(f"has a {key!r} that holds something else ({value!r:.40})")
        return values

    def number(self, key: str, low: int, high: int) -> int:
        """A whole number within bounds."""
        value = self.get(key, int)
        if not low <= value <= high:
            self.fail(f"has a {key!r} of {value!r:.40}, outside {low} to {high}")
        return value


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
