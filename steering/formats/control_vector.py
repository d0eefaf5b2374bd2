"""Control vectors in GGUF, as llama.cpp, repeng and EasySteer share them.

`general.architecture` is `controlvector`, `controlvector.model_hint` the type of the model, and
`controlvector.layer_count` the number of tensors. A tensor `direction.L`, fp32 `[width]`, is added to the output of the
block L, counted from 0, at every token.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from interp.errors import DirectionError, FormatError, RefusalkitError
from steering.formats.bytes_of import read_bytes
from steering.formats.foreign import provenance_of
from steering.formats.gguf_file import UInt32, parse_gguf, write_gguf
from steering.vector import SteeringVector

ARCHITECTURE = "controlvector"
HINT, COUNT, METHOD = (f"{ARCHITECTURE}.{name}" for name in ("model_hint", "layer_count", "method"))
UNKNOWN_METHOD = "unknown"
_DIRECTION = re.compile(r"direction\.(0|[1-9][0-9]{0,4})")


def write_control_vector(
    path: Path, vectors: Mapping[int, Tensor], model_type: str | None, method: str | None = None
) -> Path:
    """Write vectors by block; the same ones give the same bytes.

    Raises:
        FormatError: When it cannot be written.
    """
    metadata: dict[str, str | UInt32] = {"general.architecture": ARCHITECTURE}
    if model_type is not None:
        metadata[HINT] = model_type
    if method is not None:
        metadata[METHOD] = method
    metadata[COUNT] = UInt32(len(vectors))
    return write_gguf(path, metadata, {f"direction.{layer}": v for layer, v in sorted(vectors.items())})


def read_control_vector(path: Path, form: str) -> SteeringVector:
    """The vector of a GGUF file. Nothing in the file is executed.

    Args:
        path: The file.
        form: Which program it is for.

    Raises:
        FormatError: When it is missing, damaged, or something else.
        DirectionError: When its numbers are not finite or do not fit together.
    """
    data = read_bytes(path)
    metadata, tensors = parse_gguf(data, path)
    try:
        hint, method = _checked(metadata, len(tensors), form)
        layers = {int(_layer(name)): tensor for name, tensor in tensors.items()}
        return SteeringVector(
            layers, "resid_post", provenance=provenance_of(form, data, model_type=hint, method=method)
        )
    except RefusalkitError as error:
        raise type(error)(f"{path} holds no usable vector: {error}") from error


def kind_of(path: Path) -> str:
    """Which program a control vector is for: EasySteer's have a method, and only repeng has a use for block 0.

    Raises:
        FormatError: When it is missing or damaged.
    """
    metadata, tensors = parse_gguf(read_bytes(path), path)
    if METHOD in metadata:
        return "easysteer"
    return "repeng" if "direction.0" in tensors else "gguf"


def _checked(metadata: Mapping[str, Any], n_tensors: int, form: str) -> tuple[str | None, str | None]:
    architecture = metadata.get("general.architecture")
    if architecture != ARCHITECTURE:
        raise FormatError(f"its architecture is {architecture!r:.60}, where a control vector's is {ARCHITECTURE!r}")
    if not n_tensors:
        raise FormatError("it has no tensors")
    for key in (HINT, METHOD):
        if not isinstance(metadata.get(key, ""), str):
            raise FormatError(f"its {key} is no text")
    hint = metadata.get(HINT)
    if hint is None and form != "gguf":
        raise FormatError(f"it has no {HINT}, which {form} asks for; import it as 'gguf'")
    # Most say how many tensors there are; some, how many layers the model has.
    count = metadata.get(COUNT, n_tensors)
    if type(count) is not int or count < n_tensors:
        raise FormatError(f"it has {n_tensors} tensors, and its {COUNT} is {count!r:.40}")
    method = metadata.get(METHOD)
    return hint or None, None if method in ("", UNKNOWN_METHOD) else method


def _layer(name: str) -> str:
    found = _DIRECTION.fullmatch(name)
    if found is None:
        raise DirectionError(f"it has a tensor {name!r:.60}; a control vector's are called direction.L")
    return found[1]
