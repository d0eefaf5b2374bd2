"""`easysteer`: control vectors as EasySteer (steering for vLLM) writes and reads them.

repeng's layout with `controlvector.method`, the text that says how the vector was found. EasySteer adds `direction.L`
to the output of block L, block 0 too, with its algorithm `direct`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interp.errors import FormatError
from interp.model.model import Model
from steering.formats.control_vector import UNKNOWN_METHOD, read_control_vector, write_control_vector
from steering.formats.exported import Exported
from steering.formats.models import model_type_for
from steering.formats.places import at_outputs
from steering.vector import SteeringVector

NAME = "easysteer"


def write(vector: SteeringVector, path: Path, model: Model | None) -> Exported:
    """Write it as EasySteer reads it."""
    if path.suffix != ".gguf":
        raise FormatError(f"EasySteer opens files that end in .gguf only, and {path.name} doesn't")
    kind = model_type_for(vector, model, NAME)
    placed = at_outputs(vector, NAME)
    said: Any = vector.provenance.get("method")
    method: str = said if isinstance(said, str) and said else UNKNOWN_METHOD
    notes = (*placed.notes, "steer prompt and generation, scale 1, not normalised: the file does not say so")
    file = write_control_vector(path, placed.vectors, kind, method)
    return Exported(file, NAME, (file,), notes)


def read(path: Path) -> SteeringVector:
    """Read what EasySteer would."""
    return read_control_vector(path, NAME)
