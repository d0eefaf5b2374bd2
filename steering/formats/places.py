"""Where vectors act, in the words of formats that know one place only: the output, or the input, of a block.

`resid_post` of block L is `resid_pre` of block L + 1. The last block's output is the input of none, and the first
block's input the output of none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from interp.errors import DirectionError, FormatError
from steering.vector import SteeringVector


@dataclass(frozen=True)
class Placed:
    """Vectors by block, ready to be written.

    Attributes:
        vectors: Per 0-based block, what is added there `[width]`, the coefficient included.
        notes: What of the steering vector they don't say.
    """

    vectors: Mapping[int, Tensor]
    notes: tuple[str, ...]


def at_outputs(vector: SteeringVector, form: str) -> Placed:
    """What is added to the outputs of blocks.

    Raises:
        FormatError: When it acts at other sites, or not on all tokens.
        DirectionError: When a product with the coefficient is not finite.
    """
    _check_everywhere(vector, form, "the output of a block")
    layers, notes = dict(zip(vector.layers, vector.layers, strict=True)), _notes(vector)
    if vector.site == "resid_pre":
        if 0 in layers:
            raise FormatError(
                f"{form} adds to the output of a block, and what enters block 0 (resid_pre of layer 0) is the output "
                "of none: leave layer 0 out, or use the format 'safetensors' or 'svec'"
            )
        layers = {layer: layer - 1 for layer in layers}
        notes += (f"resid_pre of layers {list(layers)} is written as the output of blocks {list(layers.values())}",)
    return Placed({to: _folded(vector, layer) for layer, to in layers.items()}, notes)


def at_inputs(vector: SteeringVector, form: str, n_layers: int | None) -> Placed:
    """What is added to the inputs of blocks.

    Args:
        vector: The vector.
        form: The format's name.
        n_layers: How many blocks the model has, where that is known.

    Raises:
        FormatError: When it acts at other sites, or not on all tokens.
        DirectionError: When a product with the coefficient is not finite.
    """
    _check_everywhere(vector, form, "the input of a block")
    layers, notes = dict(zip(vector.layers, vector.layers, strict=True)), _notes(vector)
    if vector.site == "resid_post":
        layers = {layer: layer + 1 for layer in layers}
        last = max(layers)
        if n_layers is not None and last >= n_layers - 1:
            raise FormatError(
                f"{form} adds to the input of a block, and what leaves the last one (resid_post of layer {last}) is "
                "the input of none: leave that layer out, or use the format 'safetensors' or 'gguf'"
            )
        notes += (f"resid_post of layers {list(layers)} is written as the input of blocks {list(layers.values())}",)
        if n_layers is None:
            notes += (f"if layer {last} is the model's last, there is no such block: give model= to have that checked",)
    return Placed({to: _folded(vector, layer) for layer, to in layers.items()}, notes)


def _check_everywhere(vector: SteeringVector, form: str, where: str) -> None:
    if vector.site not in ("resid_pre", "resid_post"):
        raise FormatError(
            f"{form} can only add to {where}, and this vector acts at {vector.site}: use the format 'safetensors'"
        )
    if vector.positions != ("all",) or vector.phase != "both":
        at = "+".join(map(str, vector.positions))
        raise FormatError(
            f"{form} can only add at every token of prompt and answer, and this vector acts at {at}, phase "
            f"{vector.phase}: use the format 'safetensors', or, if acting everywhere is meant, "
            "dataclasses.replace(vector, positions=('all',), phase='both'), which is another intervention: check it"
        )


def _notes(vector: SteeringVector) -> tuple[str, ...]:
    notes = ("the provenance is left behind",) if vector.provenance else ()
    if vector.coefficient != 1:
        notes = (f"the coefficient {vector.coefficient:g} is multiplied into the vectors", *notes)
    return notes


def _folded(vector: SteeringVector, layer: int) -> Tensor:
    folded = vector.vectors[layer] * vector.coefficient
    if not bool(torch.isfinite(folded).all()):
        raise DirectionError(f"layer {layer} times the coefficient {vector.coefficient:g} is no finite number in fp32")
    return folded
