"""Tensors and what is said of them in one safetensors file: written whole or not at all, read without trust."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from interp.errors import FormatError


def write_tensors(
    path: str | os.PathLike[str], entry: str, about: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> Path:
    """Write tensors, and a JSON object of them in the file's metadata.

    The same content gives the same bytes; the file appears whole or not at all.

    Args:
        path: The file.
        entry: Name of the metadata entry, which says what kind of file it is.
        about: JSON-able; its `format` names kind and version.
        tensors: By name.

    Raises:
        FormatError: When it cannot be written, or what is said of it is no JSON.
    """
    from safetensors.torch import save

    # One entry only: safetensors writes several in an order that differs from run to run.
    data = save(dict(tensors), metadata={entry: _as_json(entry, about)})
    return write_whole(Path(path), data)


def write_whole(path: Path, data: bytes) -> Path:
    """Write a file that appears whole or not at all.

    Raises:
        FormatError: When it cannot be written.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    except OSError as error:
        raise FormatError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    return path


def read_tensors(
    path: str | os.PathLike[str], entry: str, form: str | tuple[str, ...], fields: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what `write_tensors` wrote. Nothing in the file is executed.

    Args:
        path: The file.
        entry: Name of the metadata entry.
        form: What `format` must be, or may be.
        fields: What must be said of the tensors, and the type of each; `True` is no number.

    Returns:
        What is said of the tensors, every field of its type, and the tensors.

    Raises:
        FormatError: When it is missing, damaged, or something else.
    """
    from safetensors import safe_open

    source, kind = Path(path), entry.replace("-", " ")
    if not source.is_file():
        raise FormatError(f"there is no {kind.split()[-1]} file at {source}")
    try:
        with safe_open(str(source), framework="pt") as file:
            text = (file.metadata() or {}).get(entry)
            tensors = {name: file.get_tensor(name) for name in file.keys()} if text else {}  # noqa: SIM118
    except Exception as error:  # whatever a stranger's bytes make safetensors and torch raise
        raise FormatError(f"{source} is no readable safetensors file: {error}") from error
    if not text:
        raise FormatError(f"{source} is not a {kind} of this project: its metadata has no {entry!r}")
    try:
        about = json.loads(text, parse_constant=_refuse)
        forms = (form,) if isinstance(form, str) else form
        if not isinstance(about, dict) or about.get("format") not in forms:
            raise ValueError(f"its format is not {' or '.join(map(repr, forms))}")
        for name, type_ in fields.items():
            if not isinstance(about[name], type_) or isinstance(about[name], bool):
                raise TypeError(f"{name} is {about[name]!r:.40}")
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise FormatError(f"the metadata of {source} is damaged: {in_words(error)}") from error
    return about, tensors


def in_words(error: Exception) -> str:
    """What is wrong, without the names that Python has for it."""
    if isinstance(error, KeyError):
        return f"it lacks {', '.join(map(str, error.args))}"
    return str(error) or type(error).__name__


def digest_of(entry: str, about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors and what is said of them, so that a changed bit is noticed. It proves no origin."""
    total = hashlib.sha256(_as_json(entry, about).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        total.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def _as_json(entry: str, about: Mapping[str, Any]) -> str:
    try:
        # Keys are texts before they are sorted: what is read again is in the same order.
        return json.dumps(json.loads(json.dumps(dict(about), allow_nan=False)), sort_keys=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise FormatError(f"the {entry}'s provenance cannot be written as JSON: {error}") from error


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
