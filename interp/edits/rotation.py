"""Angular steering: turning activations in a plane, so that their length stays what it was."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn.functional import linear

from interp.direction import Direction
from interp.edits.fitting import (
    Where,
    as_tensor,
    check_number,
    check_vector_site,
    check_width,
    describe,
    narrowed,
    placed,
    where,
    widened,
)
from interp.errors import DirectionError, EditError
from interp.model.architecture import Architecture
from interp.model.batch import Cells, Phase
from interp.model.ops import Op
from interp.model.sites import as_layers, check_layers

_PARALLEL = 1e-4
"""Sine below which two vectors span no plane in fp32."""


@dataclass(frozen=True, eq=False)
class Rotate(Where):
    """Turns the part that lies in a plane to an angle; make it with `rotate`."""

    plane: Tensor
    degrees: float
    site: str
    layers: tuple[int, ...]

    def __repr__(self) -> str:
        return f"rotate(to {self.degrees:g} degrees at {describe(self, self.site, self.layers)})"

    def ops(self, arch: Architecture) -> Sequence[Op]:
        """The edit fitted to a model."""
        layers = check_layers(self.layers, arch.n_layers)
        check_width(self.plane[0], arch, self.site, layers)
        angle = math.radians(self.degrees)
        aim = torch.tensor([math.cos(angle), math.sin(angle)])
        like = placed(self.plane, self.plane.T.contiguous(), aim)

        def change(x: Tensor, _cells: Cells | None) -> Tensor:
            wide = widened(x)
            plane, back, aim = like(wide)
            within = linear(wide, plane)
            length = torch.linalg.vector_norm(within, dim=-1, keepdim=True)
            return narrowed(wide + linear(length * aim - within, back), x)

        return [Op(self.site, layer, change, self.positions, self.phase, self, uniform=True) for layer in layers]


def rotate(
    direction: Direction | ArrayLike,
    toward: Direction | ArrayLike,
    degrees: float,
    *,
    site: str | None = None,
    layer: int | Sequence[int] | None = None,
    positions: str | int | Sequence[str | int] = "all",
    phase: Phase | None = None,
) -> Rotate:
    """Turn activations to an angle in the plane of two vectors (angular steering, Vu and Nguyen 2025, 2510.26243).

    What lies in the plane keeps its length and gets the angle; what is outside it stays. At 0 degrees it points along
    the direction, at 180 against it, at 90 along the part of `toward` that is at right angles to it.

    Args:
        direction: A `Direction`, or a vector `[d]` together with `site` and `layer`.
        toward: Spans the plane with it: in the paper, the first principal component of the candidate directions.
        degrees: The angle, from the direction.
        site: Defaults to the direction's own.
        layer: One or several; defaults to the direction's own.
        positions: Tokens.
        phase: `"prompt"`, `"generation"` or `"both"`.

    Raises:
        DirectionError: For vectors that are zero, not finite, of two widths, or span no plane.
    """
    if isinstance(direction, Direction):
        site, layer = site or direction.site, direction.layer if layer is None else layer
    if site is None or layer is None:
        raise EditError("a bare vector needs site= and layer=")
    one, two = (_unit(d.vector if isinstance(d, Direction) else as_tensor(d)) for d in (direction, toward))
    if one.shape != two.shape:
        raise DirectionError(f"widths {len(one)} and {len(two)} differ: the two vectors span no plane")
    rest = two - (two @ one) * one
    if float(rest.norm()) < _PARALLEL:
        raise DirectionError("the two vectors point the same way or opposite ways, and span no plane: give another")
    plane = torch.stack([one, rest / rest.norm()])
    names, chosen = where(positions, phase)
    return Rotate(names, chosen, plane, check_number(degrees, "degrees"), check_vector_site(site), as_layers(layer))


def _unit(vector: Tensor) -> Tensor:
    if vector.ndim != 1 or not bool(torch.isfinite(vector).all()) or float(vector.norm()) == 0:
        raise DirectionError("a rotation needs two finite, non-zero vectors")
    return vector / vector.norm()
