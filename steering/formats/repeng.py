"""`repeng`: control vectors as repeng's `ControlVector.export_gguf` and `import_gguf` write and read them.

repeng adds `direction.L` to the output of block L, block 0 too, for the layers its `ControlModel` was made with.
"""

from __future__ import annotations

from pathlib import Path

from interp.model.model import Model
from steering.formats.control_vector import read_control_vector, write_control_vector
from steering.formats.exported import Exported
from steering.formats.models import model_type_for
from steering.formats.places import at_outputs
from steering.vector import SteeringVector

NAME = "repeng"


def write(vector: SteeringVector, path: Path, model: Model | None) -> Exported:
    """Write it as repeng reads it."""
    kind = model_type_for(vector, model, NAME)
    placed = at_outputs(vector, NAME)
    notes = (*placed.notes, f"make the ControlModel with layers {sorted(placed.vectors)}: repeng asks for all it has")
    if 0 in placed.vectors:
        notes += ("it has block 0: llama.cpp would refuse the file",)
    file = write_control_vector(path, placed.vectors, kind)
    return Exported(file, NAME, (file,), notes)


def read(path: Path) -> SteeringVector:
    """Read what repeng would."""
    return read_control_vector(path, NAME)
