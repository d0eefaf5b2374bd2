"""`Direction`: one vector in a model's residual stream, with where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from interp.errors import DirectionError


@dataclass(frozen=True, eq=False)
class Direction:
    """A direction at a site.

    Attributes:
        vector: `[d]`, fp32, not normalised: its length is the difference of the means it was made from.
        site: Site it was read at.
        layer: 0-based layer.
        position: Name of the token it was read at.
        name: What it is a direction of.
        provenance: Model, prompts, method, versions.
    """

    vector: Tensor
    site: str
    layer: int
    position: str
    name: str = "direction"
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        vector = torch.as_tensor(self.vector).detach().cpu().float().clone()  # nobody else's changes reach it
        if vector.ndim != 1 or not len(vector):
            raise DirectionError(f"a direction is one vector, but shape {tuple(vector.shape)} was given")
        if not bool(torch.isfinite(vector).all()):
            raise DirectionError(f"the direction {self.name!r} holds NaN or infinite values")
        if float(vector.norm()) == 0:
            raise DirectionError(f"the direction {self.name!r} is zero, so it points nowhere")
        object.__setattr__(self, "vector", vector)

    def __repr__(self) -> str:
        return (
            f"Direction({self.name!r}, {self.site}[{self.layer}] at {self.position}, d={len(self.vector)}, "
            f"norm {self.norm:.3g})"
        )

    @property
    def norm(self) -> float:
        """L2 norm."""
        return float(self.vector.norm())

    @property
    def unit(self) -> Tensor:
        """The vector at length 1."""
        return self.vector / self.vector.norm()

    def cosine(self, other: Direction | Tensor) -> float:
        """Cosine with another direction of the same width."""
        with_ = other.vector if isinstance(other, Direction) else other.float()
        if with_.shape != self.vector.shape:
            raise DirectionError(f"widths {len(self.vector)} and {tuple(with_.shape)} cannot be compared")
        return float(torch.nn.functional.cosine_similarity(self.vector, with_, dim=0))

    def random_like(self, seed: int) -> Direction:
        """A random direction of the same norm at the same place: the control."""
        noise = torch.randn(len(self.vector), generator=torch.Generator().manual_seed(seed))
        return replace(self, vector=noise / noise.norm() * self.norm, name=f"random {seed}", provenance={"seed": seed})
