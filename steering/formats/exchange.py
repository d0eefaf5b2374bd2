"""Export to, and import from, the formats of other programs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType

from interp.errors import FormatError
from interp.model.model import Model
from steering.formats import easysteer, llama_cpp, own, refusal_direction, repeng, svec
from steering.formats.control_vector import kind_of
from steering.formats.exported import Exported
from steering.formats.models import check_fits
from steering.vector import SteeringVector

_MODULES: dict[str, ModuleType] = {
    module.NAME: module for module in (own, llama_cpp, repeng, svec, easysteer, refusal_direction)
}
_SUFFIXES = {".safetensors": own.NAME, ".gguf": llama_cpp.NAME, ".svec": svec.NAME}

FORMATS: Mapping[str, str] = MappingProxyType(
    {
        "safetensors": "ours: everything, with a digest",
        "gguf": "llama.cpp control vector: block outputs, all tokens; never block 0",
        "repeng": "GGUF as repeng writes and reads it: block outputs, all tokens",
        "svec": "JSON of IBM's activation-steering: block inputs, all tokens",
        "easysteer": "GGUF of EasySteer (vLLM), with its method: block outputs, all tokens",
        "refusal_direction": "folder of Arditi et al.: direction.pt and its metadata; one block's input, all tokens",
    }
)
"""Formats that vectors are exported to and imported from, by name."""


def export(
    vector: SteeringVector, path: str | os.PathLike[str], format: str | None = None, *, model: Model | None = None
) -> Exported:
    """Write a steering vector for another program, so that it does there what it does here.

    Args:
        vector: The vector.
        path: The file to write; for `refusal_direction` a folder.
        format: One of `steering.FORMATS`; by default what the path's suffix says.
        model: The model it is for. With it, width, layers and type of model are checked; some formats have to say the
            type, and ask for it where the vector's provenance doesn't tell.

    Returns:
        What was written, and what the format cannot carry.

    Raises:
        FormatError: When the format cannot say what the vector does, or the file cannot be written.
        DirectionError: When the vector does not fit the model, or its numbers are not finite.
    """
    target = Path(path)
    return _module(format or _by_suffix(target)).write(vector, target, model)


def import_vector(
    path: str | os.PathLike[str], format: str | None = None, *, model: Model | None = None
) -> SteeringVector:
    """Read a steering vector that another program wrote. Nothing in the file is executed.

    What it adds, and where, is what the other program would add. Its provenance says what the file does, and names
    what is `unknown`.

    Args:
        path: The file; for `refusal_direction` a folder, or a file in it.
        format: One of `steering.FORMATS`; by default found by suffix and content.
        model: The model it is for: width, layers and type of model are checked.

    Raises:
        FormatError: When the file is missing, damaged, or something else.
        DirectionError: When its numbers are not finite or do not fit together, or it does not fit the model.
    """
    source = Path(path)
    if not source.exists():
        raise FormatError(f"there is no vector file at {source}")
    vector: SteeringVector = _module(format or _by_content(source)).read(source)
    if model is not None:
        check_fits(vector, model, str(source))
    return vector


def _module(format: str) -> ModuleType:
    if format not in _MODULES:
        raise FormatError(f"there is no format {format!r}; known: {', '.join(FORMATS)}")
    return _MODULES[format]


def _by_suffix(path: Path) -> str:
    if path.is_dir():
        return refusal_direction.NAME
    if path.suffix.lower() not in _SUFFIXES:
        raise FormatError(f"{path} does not say which format is wanted; give one of: {', '.join(FORMATS)}")
    return _SUFFIXES[path.suffix.lower()]


def _by_content(path: Path) -> str:
    if path.is_dir() and not refusal_direction.holds(path):
        raise FormatError(_folder(path))
    if path.is_dir() or refusal_direction.holds(path):
        return refusal_direction.NAME
    found = _SUFFIXES.get(path.suffix.lower(), own.NAME)  # ours may have any name
    return kind_of(path) if found == llama_cpp.NAME else found


def _folder(path: Path) -> str:
    """What a folder that holds no vector of any format is, and what may have been meant."""
    inside = sorted(p for p in path.iterdir() if p.is_file() and p.suffix.lower() in _SUFFIXES)
    named = [p for p in inside if p.name == "vector.safetensors"]
    if (path / "config.json").is_file():
        return f"{path} is a folder of a model, not a vector: make one of it with refusalkit vector train"
    if named or len(inside) == 1:
        return f"{path} is a folder; did you mean {(named or inside)[0]}?"
    there = f"; it has {', '.join(p.name for p in inside[:5])}" if inside else ""
    return (
        f"{path} is a folder without {refusal_direction.DIRECTION}, which a folder of {refusal_direction.NAME} holds: "
        f"name a vector's file{there}"
    )
