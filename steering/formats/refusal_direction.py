"""`refusal_direction`: the files of Arditi et al. (2024, 2406.11717), `andyrdt/refusal_direction`.

A folder with `direction.pt`, the vector `[width]`, and `direction_metadata.json` with `layer` and `pos`; or, in place
of the vector, `mean_diffs.pt`, the differences in means `[position, layer, width]` that it was chosen from, which their
runs keep in `generate_directions`. Means are of the inputs of blocks; positions count from the end of the prompt. Their
activation addition adds the vector to the input of that block, at every token.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.errors import DirectionError, FormatError, RefusalkitError
from interp.model.model import Model
from interp.tensorfile import write_whole
from steering.formats.bytes_of import read_bytes
from steering.formats.exported import Exported
from steering.formats.foreign import provenance_of
from steering.formats.json_file import LARGEST, parse_json, write_json_file
from steering.formats.models import check_fits
from steering.formats.places import at_inputs
from steering.formats.torch_file import parse_tensor
from steering.vector import SteeringVector

NAME = "refusal_direction"
DIRECTION, MEANS, ABOUT = "direction.pt", "mean_diffs.pt", "direction_metadata.json"
_FROM_END = re.compile(r"(?:post_inst\[)?-([1-9][0-9]{0,3})\]?")


def write(vector: SteeringVector, path: Path, model: Model | None) -> Exported:
    """Write a folder as a run of theirs leaves it."""
    if model is not None:
        check_fits(vector, model)
    placed = at_inputs(vector, NAME, None if model is None else model.n_layers)
    if len(placed.vectors) != 1:
        raise FormatError(f"{NAME} holds one direction of one layer, and this vector has layers {list(vector.layers)}")
    (layer, value), = placed.vectors.items()  # fmt: skip
    position = _position(vector)
    notes = placed.notes
    if position is None:
        notes += ("it is not known which token it was read at, counted from the end of the prompt: pos is null",)
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / ABOUT).unlink(missing_ok=True)  # what says the old layer must not stand beside a new direction
    except OSError as error:
        raise FormatError(f"cannot write the folder {path}: {error.strerror or error}") from error
    packed = io.BytesIO()
    torch.save(value, packed)
    files = (
        write_whole(path / DIRECTION, packed.getvalue()),
        write_json_file(path / ABOUT, {"pos": position, "layer": layer}),
    )
    return Exported(path, NAME, files, notes)


def read(path: Path) -> SteeringVector:
    """Read a folder of theirs, or a tensor in one."""
    source, about = _found(path)
    position, layer = _place(about)
    data = read_bytes(source)
    try:
        value = _vector(parse_tensor(data, source), source.name, position, layer)
        if source.name == DIRECTION and (means := _means(source.parent)) is not None:
            _check_agrees(value, means, position, layer)
        known = {"position": position, "method": "difference in means" if source.name == MEANS else None}
        return SteeringVector({layer: value}, "resid_pre", provenance=provenance_of(NAME, data, **known))
    except RefusalkitError as error:
        raise type(error)(f"{source} holds no usable vector: {error}") from error


def holds(path: Path) -> bool:
    """Whether a path is such a folder, or a tensor in one."""
    return path.suffix == ".pt" or any((path / name).is_file() for name in (DIRECTION, MEANS, ABOUT))


def _found(path: Path) -> tuple[Path, Path]:
    """The tensor and the file that says where it belongs."""
    if path.is_dir():
        tensors = [path / DIRECTION, path / MEANS, path / "generate_directions" / MEANS]
        source = next((file for file in tensors if file.is_file()), tensors[0])
    else:
        source = path
    places = [source.parent / ABOUT, *([source.parent.parent / ABOUT] if source.name == MEANS else [])]
    return source, next((file for file in places if file.is_file()), places[0])


def _place(path: Path) -> tuple[int | None, int]:
    about = parse_json(read_bytes(path, LARGEST), path)
    position, layer = about.get("pos"), about.get("layer")
    if type(layer) is not int or not 0 <= layer < 1 << 16:
        raise FormatError(f"{path}: the layer is {layer!r:.40}, where a number from 0 was to be")
    if "pos" not in about or (position is not None and (type(position) is not int or not -(1 << 16) < position < 0)):
        raise FormatError(f"{path}: pos is {position!r:.40}, where a negative number was to be, counted from the end")
    return position, layer


def _vector(tensor: Tensor, name: str, position: int | None, layer: int) -> Tensor:
    if name != MEANS:
        if tensor.ndim != 1:
            raise DirectionError(f"it has shape {list(tensor.shape)}, where a direction [width] was to be")
        return tensor.float()
    if tensor.ndim != 3:
        raise DirectionError(f"it has shape {list(tensor.shape)}, where means [position, layer, width] were to be")
    if position is None:
        raise FormatError(f"{ABOUT} does not say the position, so it is not known which of the means is meant")
    if -position > tensor.shape[0] or layer >= tensor.shape[1]:
        raise DirectionError(
            f"it has {tensor.shape[0]} positions and {tensor.shape[1]} layers; {ABOUT} says {position} and {layer}"
        )
    return tensor[position, layer].float()


def _means(folder: Path) -> tuple[Path, Tensor] | None:
    for file in (folder / MEANS, folder / "generate_directions" / MEANS):
        if file.is_file():
            return file, parse_tensor(read_bytes(file), file)
    return None


def _check_agrees(value: Tensor, means: tuple[Path, Tensor], position: int | None, layer: int) -> None:
    """A direction is one of the means it was chosen from."""
    file, tensor = means
    if position is not None and not torch.equal(_vector(tensor, MEANS, position, layer), value):
        raise DirectionError(
            f"it is not what {file} has at position {position} of layer {layer}: they are not of one run, or {ABOUT} "
            "is of another"
        )


def _position(vector: SteeringVector) -> int | None:
    """The token it was read at, from the end of the prompt, where the provenance says one."""
    directions: Any = vector.provenance.get("directions") or [vector.provenance]
    said = str(directions[0].get("position")) if len(directions) == 1 else ""
    if said in ("t_post_inst", "last"):
        return -1
    found = _FROM_END.fullmatch(said)
    return -int(found[1]) if found else None
