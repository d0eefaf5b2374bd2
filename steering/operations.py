"""What a vector can do besides being added: ablation, clamping, affine ablation and rotation, layer by layer."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from interp.activations.capture import capture
from interp.direction import Direction
from interp.edits import Ablate, Rotate, ablate, rotate
from interp.errors import DirectionError
from interp.model.model import Model, Prompts
from steering.geometry import Other, at_layer
from steering.vector import SteeringVector


def ablation(vector: SteeringVector, to: float | ArrayLike | None = None) -> list[Ablate]:
    """Fix the coordinate along each layer's vector, at the vector's own site, positions and phase.

    The strength has no part in it: only where the vectors point matters. One direction at everything that writes to the
    residual stream, as in Arditi et al. 2024, is `interp.edits.ablate(direction)`.

    Args:
        vector: The vectors.
        to: `None` projects them out. A number clamps the coordinate to it, in units of the stream; so does one per
            layer of the model `[layer]`, or per layer and position `[layer, position]`. With `mean_projection` of
            harmless prompts it is ablation to their mean (affine, Marshall et al. 2024, 2411.09003).
    """
    sign = -1.0 if vector.coefficient < 0 else 1.0
    return [
        ablate(sign * value, to, sites=vector.site, layers=layer, positions=vector.positions, phase=vector.phase)
        for layer, value in vector.vectors.items()
    ]


def rotation(vector: SteeringVector, toward: Other, degrees: float) -> list[Rotate]:
    """Turn activations in the plane of each layer's vector and another (angular steering, 2510.26243).

    Args:
        vector: The vectors; 0 degrees points along them.
        toward: Spans the plane with them: a steering vector of the same layers, a direction or a vector.
        degrees: The angle that what lies in the plane is given.

    Raises:
        DirectionError: When the two span no plane, or widths or layers differ.
    """
    sign = -1.0 if vector.coefficient < 0 else 1.0
    return [
        rotate(
            sign * value, at_layer(toward, layer, len(value)), degrees, site=vector.site, layer=layer,
            positions=vector.positions, phase=vector.phase,
        )
        for layer, value in vector.vectors.items()
    ]  # fmt: skip


def mean_projection(model: Model, vector: SteeringVector, prompts: Prompts, *, progress: bool = False) -> Tensor:
    """Mean coordinate of prompts along each layer's vector, as `ablation(vector, to=...)` takes it.

    Args:
        model: The model.
        vector: The vectors.
        prompts: Those whose mean is wanted, the harmless ones say.
        progress: Show a progress bar.

    Returns:
        fp32, in units of the stream, 0 at layers without a vector. `[layer, position]` where the vector acts on named
        tokens, each of which has a mean of its own; `[layer]`, over all tokens, where it acts on a region of as many
        tokens as the prompt has.
    """
    positions: Any = "prompt" if vector.positions == ("all",) else vector.positions
    acts = capture(model, prompts, vector.site, positions, vector.layers, progress=progress)
    columns = () if acts.ragged else (len(acts.positions),)
    found = torch.zeros(model.n_layers, *columns)
    sign = -1.0 if vector.coefficient < 0 else 1.0
    for layer, value in vector.vectors.items():
        along = acts.sel(vector.site, layer).float() @ Direction(sign * value, vector.site, layer, "").unit
        found[layer] = along.double().mean(0).float()
    return found


def token_id(model: Model, text: str) -> int:
    """The id of a text that is one token, to steer until it: `edits.during(vector, until=token_id(model, "</think>"))`.

    Raises:
        DirectionError: When it is several tokens, or none.
    """
    ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise DirectionError(f"{text!r} is {len(ids)} tokens of this model ({ids}), and one is needed")
    return int(torch.as_tensor(ids)[0])
