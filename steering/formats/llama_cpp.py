"""`gguf`: llama.cpp's control vectors (`llama-cli --control-vector`, `llama_set_adapter_cvec`).

llama.cpp adds `direction.L` to the output of block L. It refuses a whole file that has a `direction.0`, so that block 0
is never steered there, and takes fp32 only; it does not look at the model's type.
"""

from __future__ import annotations

from pathlib import Path

from interp.errors import FormatError
from interp.model.model import Model
from steering.formats.control_vector import read_control_vector, write_control_vector
from steering.formats.exported import Exported
from steering.formats.models import check_fits, types_in
from steering.formats.places import at_outputs
from steering.vector import SteeringVector

NAME = "gguf"
_BLOCK_0 = (
    "llama.cpp never steers block 0, and refuses the whole file when it names it (direction.0, resid_post of layer 0, "
    "which is resid_pre of layer 1)"
)


def write(vector: SteeringVector, path: Path, model: Model | None) -> Exported:
    """Write it as llama.cpp reads it."""
    if model is not None:
        check_fits(vector, model)
    placed = at_outputs(vector, NAME)
    if 0 in placed.vectors:
        raise FormatError(f"{_BLOCK_0}: leave that layer out")
    known = {str(model.hf.config.model_type)} if model is not None else types_in(vector.provenance)
    notes = placed.notes
    if len(known) != 1:
        notes += ("the type of the model is not known, so the file does not say it: give model=",)
    file = write_control_vector(path, placed.vectors, known.pop() if len(known) == 1 else None)
    return Exported(file, NAME, (file,), notes)


def read(path: Path) -> SteeringVector:
    """Read what llama.cpp would."""
    vector = read_control_vector(path, NAME)
    if 0 in vector.vectors:
        raise FormatError(f"{path}: {_BLOCK_0}. If it was made by repeng, import it as 'repeng'")
    return vector
