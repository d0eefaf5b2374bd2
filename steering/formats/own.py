"""`safetensors`: our own files, which lose nothing (`SteeringVector.save` and `load`)."""

from __future__ import annotations

from pathlib import Path

from interp.model.model import Model
from steering.formats.exported import Exported
from steering.formats.models import check_fits
from steering.vector import SteeringVector

NAME = "safetensors"


def write(vector: SteeringVector, path: Path, model: Model | None) -> Exported:
    """Write it whole."""
    if model is not None:
        check_fits(vector, model)
    file = vector.save(path)
    return Exported(file, NAME, (file,), ())


def read(path: Path) -> SteeringVector:
    """Read what `write` wrote."""
    return SteeringVector.load(path)
