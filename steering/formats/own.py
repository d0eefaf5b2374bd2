"""`safetensors`: our own files, which lose nothing (`SteeringVector.save` and `load`)."""

from __future__ import annotations

from pathlib import Path

from interp.errors import FormatError
from interp.model.model import Model
from steering.formats.exported import Exported
from steering.formats.models import check_fits
from steering.vector import METADATA, SteeringVector

NAME = "safetensors"


def write(vector: SteeringVector, path: Path, model: Model | None) -> Exported:
    """Write it whole."""
    if model is not None:
        check_fits(vector, model)
    file = vector.save(path)
    return Exported(file, NAME, (file,), ())


def read(path: Path) -> SteeringVector:
    """Read what `write` wrote; of other safetensors files it is said what they hold."""
    _check_ours(path)
    return SteeringVector.load(path)


def _check_ours(path: Path) -> None:
    """Say what a readable safetensors file is that holds no vector of ours; `SteeringVector.load` says all else."""
    from safetensors import safe_open

    if not path.is_file():
        return
    try:
        with safe_open(str(path), framework="pt") as file:
            if METADATA in (file.metadata() or {}):
                return
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    except Exception:  # whatever a stranger's bytes make safetensors raise: it is read again, and said
        return
    names = [f"{name} {list(shape)}" for name, shape in shapes.items()]
    held = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    what = f"{path} is a safetensors file, but not a steering vector of this project: its metadata has no {METADATA!r}"
    if any(len(shape) > 1 for shape in shapes.values()) or (path.parent / "config.json").is_file():
        raise FormatError(
            f"{what}, and it holds {held}, which looks like a model's weights: make a vector with "
            "refusalkit vector train"
        )
    raise FormatError(
        f"{what}, so it does not say where its tensors ({held or 'none'}) act: in Python, "
        "steering.SteeringVector({4: tensor}, site='resid_pre').save(FILE) makes a vector of one"
    )
