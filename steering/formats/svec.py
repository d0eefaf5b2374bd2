"""`svec`: the JSON that IBM's activation-steering saves and loads (Lee et al. 2024, 2409.05907).

An object with `model_type`, `directions` (`{"L": [numbers]}`) and `explained_variances` (`{"L": number}`). Its library
*reads* direction L at the output of block L (`hidden_states[L + 1]`) and *adds* it to the input of block L: its
`LeashLayer` changes what it hands to the block. What a vector does is where it is added, so that direction L is
`resid_pre` of layer L here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from interp.errors import FormatError, RefusalkitError
from interp.model.model import Model
from steering.formats.bytes_of import read_bytes
from steering.formats.exported import Exported
from steering.formats.foreign import provenance_of
from steering.formats.json_file import LARGEST, as_number, parse_json, write_json_file
from steering.formats.models import model_type_for
from steering.formats.places import at_inputs
from steering.vector import SteeringVector

NAME = "svec"
VARIANCES = "explained_variances"
_LAYER = re.compile(r"0|[1-9][0-9]{0,4}")


def write(vector: SteeringVector, path: Path, model: Model | None) -> Exported:
    """Write it as activation-steering reads it."""
    if path.suffix != ".svec":
        raise FormatError(f"activation-steering opens files that end in .svec only, and {path.name} doesn't")
    kind = model_type_for(vector, model, NAME)
    placed = at_inputs(vector, NAME, None if model is None else model.n_layers)
    variances = vector.provenance.get(VARIANCES, {}) if vector.provenance.get("format") == NAME else {}
    about = {
        "model_type": kind,
        "directions": {str(layer): value.tolist() for layer, value in sorted(placed.vectors.items())},
        VARIANCES: dict(variances),
    }
    layers = f"steer with behavior_layer_ids={sorted(placed.vectors)}"
    notes = (*placed.notes, f"{layers}: the client adds in fp16, and to the first prompt of a batch only")
    file = write_json_file(path, about)
    return Exported(file, NAME, (file,), notes)


def read(path: Path) -> SteeringVector:
    """Read what activation-steering would."""
    data = read_bytes(path, LARGEST)
    about = parse_json(data, path)
    try:
        kind = about.get("model_type")
        if not isinstance(kind, str) or not kind:
            raise FormatError("its model_type is no text")
        vectors = {layer: _vector(layer, value) for layer, value in _by_layer(about, "directions").items()}
        variances = {str(k): as_number(v, VARIANCES) for k, v in _by_layer(about, VARIANCES).items()}
        known = {"model_type": kind, VARIANCES: variances or None}
        return SteeringVector(vectors, "resid_pre", provenance=provenance_of(NAME, data, **known))
    except RefusalkitError as error:
        raise type(error)(f"{path} holds no usable vector: {error}") from error


def _by_layer(about: Mapping[str, Any], name: str) -> dict[int, Any]:
    found = about.get(name)
    if not isinstance(found, dict):
        raise FormatError(f"its {name} are no object")
    for key in found:
        if not _LAYER.fullmatch(key):
            raise FormatError(f"its {name} have a layer {key!r:.40}")
    return {int(key): value for key, value in found.items()}


def _vector(layer: int, values: Any) -> torch.Tensor:
    if not isinstance(values, list):
        raise FormatError(f"the direction of layer {layer} is no list of numbers")
    numbers = [as_number(value, f"the direction of layer {layer}") for value in values]
    return torch.tensor(numbers, dtype=torch.float64).float()
