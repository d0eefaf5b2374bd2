"""Vectors beside each other: which ones belong together, spans and projections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp.direction import Direction
from interp.edits.control import turned_together
from interp.errors import DirectionError

if TYPE_CHECKING:
    from steering.vector import SteeringVector

    Other = SteeringVector | Direction | Tensor
else:
    Other = object


def at_layer(other: Other, layer: int, width: int) -> Tensor:
    """Another vector at a layer `[width]`, its coefficient included.

    Raises:
        DirectionError: When it has none there, or of another width.
    """
    if isinstance(other, Direction):
        value = other.vector
    elif isinstance(other, Tensor):
        value = other.detach().cpu().float()
    else:
        if layer not in other.vectors:
            raise DirectionError(f"{other!r} has no vector at layer {layer}; it has layers {list(other.layers)}")
        value = other.coefficient * other.vectors[layer]
    if value.shape != (width,):
        raise DirectionError(f"widths {width} and {tuple(value.shape)} differ; the vectors are of different models")
    return value


def paired(vector: SteeringVector, other: Other) -> dict[int, tuple[Tensor, Tensor]]:
    """Both vectors at every layer that both have, coefficients included."""
    common = vector.layers
    if not isinstance(other, Direction | Tensor):
        common = tuple(layer for layer in common if layer in other.vectors)
        if not common:
            raise DirectionError(f"layers {list(vector.layers)} and {list(other.layers)} have none in common")
    return {
        layer: (vector.coefficient * vector.vectors[layer], at_layer(other, layer, len(vector.vectors[layer])))
        for layer in common
    }


def bases(others: Sequence[Other], layer: int, width: int) -> Tensor:
    """Orthonormal rows `[k, width]` that span others at a layer.

    Raises:
        DirectionError: For none, or others that are all zero.
    """
    if not others:
        raise DirectionError("name the vectors or directions to project on")
    rows = torch.stack([at_layer(other, layer, width) for other in others]).double()
    norms = rows.norm(dim=-1, keepdim=True)
    if bool((norms == 0).any()):
        raise DirectionError(f"a vector to project on is zero at layer {layer}, so it points nowhere")
    _, values, basis = torch.linalg.svd(rows / norms, full_matrices=False)
    return basis[values > 1e-6 * values[0]]


def project(vector: Tensor, basis: Tensor) -> Tensor:
    """The part of a vector in the span of orthonormal rows."""
    return ((vector.double() @ basis.T) @ basis).float()


def turned(vectors: Tensor, seed: int) -> Tensor:
    """Vectors `[n, d]` turned together by a random rotation, in fp32."""
    return turned_together(vectors.double(), torch.Generator().manual_seed(seed)).float()
