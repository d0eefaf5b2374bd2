"""`SteeringVector`: vectors for one or several layers, with where they belong and where they came from."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from interp.direction import Direction
from interp.edits import Add, add
from interp.errors import DirectionError, FormatError
from interp.model.session import Phase
from interp.model.sites import check_site

FORMAT = "refusalkit/steering-vector/1"


@dataclass(frozen=True, eq=False)
class SteeringVector:
    """Vectors to add to the residual stream.

    Attributes:
        vectors: Per 0-based layer, a vector `[width]` in fp32.
        site: Where they are added.
        coefficient: What they are multiplied by.
        positions: Prompt tokens they act on, named as for capture.
        phase: Prompt tokens, generated tokens, or both.
        provenance: Model, prompts, method, versions; JSON-able.
    """

    vectors: Mapping[int, Tensor]
    site: str = "resid_pre"
    coefficient: float = 1.0
    positions: tuple[str | int, ...] = ("all",)
    phase: Phase = "both"
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_site(self.site)
        if not self.vectors:
            raise DirectionError("a steering vector needs at least one layer")
        clean: dict[int, Tensor] = {}
        for layer, vector in sorted(self.vectors.items()):
            tensor = torch.as_tensor(vector).detach().float().cpu()
            if tensor.ndim != 1:
                raise DirectionError(f"the vector of layer {layer} has shape {tuple(tensor.shape)}, not [width]")
            if not bool(torch.isfinite(tensor).all()):
                raise DirectionError(f"the vector of layer {layer} holds NaN or infinite values")
            clean[int(layer)] = tensor
        if len({len(v) for v in clean.values()}) > 1:
            raise DirectionError(f"the layers' widths differ: { {k: len(v) for k, v in clean.items()} }")
        object.__setattr__(self, "vectors", clean)

    def __repr__(self) -> str:
        norms = ", ".join(f"{layer}: {float(v.norm()):.3g}" for layer, v in self.vectors.items())
        return f"SteeringVector({self.coefficient:g} x {self.site} {{{norms}}} at {'+'.join(map(str, self.positions))})"

    @classmethod
    def from_direction(
        cls, direction: Direction | Sequence[Direction], coefficient: float = 1.0, **where: Any
    ) -> SteeringVector:
        """Vectors at the places their directions were read at.

        Args:
            direction: One, or several at the same site and different layers.
            coefficient: Strength.
            **where: `positions` and `phase`.
        """
        all_ = [direction] if isinstance(direction, Direction) else list(direction)
        if len({d.site for d in all_}) != 1 or len({d.layer for d in all_}) != len(all_):
            raise DirectionError("directions of one steering vector need one site and different layers")
        provenance = {
            "directions": [{"name": d.name, "layer": d.layer, "position": d.position, "norm": d.norm} for d in all_],
            **all_[0].provenance,
        }
        vectors = {d.layer: d.vector for d in all_}
        return cls(vectors, all_[0].site, coefficient, provenance=provenance, **where)

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers, in order."""
        return tuple(self.vectors)

    @property
    def norms(self) -> dict[int, float]:
        """Norm of what is added at each layer, the coefficient included."""
        return {layer: float(v.norm()) * abs(self.coefficient) for layer, v in self.vectors.items()}

    def edits(self) -> list[Add]:
        """The edits it stands for; `model.generate(edits=vector)` asks for them itself."""
        return [
            add(vector, self.coefficient, site=self.site, layer=layer, positions=self.positions, phase=self.phase)
            for layer, vector in self.vectors.items()
        ]

    def __mul__(self, factor: float) -> SteeringVector:
        return replace(self, coefficient=self.coefficient * float(factor))

    __rmul__ = __mul__

    def __neg__(self) -> SteeringVector:
        return self * -1.0

    def __add__(self, other: SteeringVector) -> SteeringVector:
        if not isinstance(other, SteeringVector):
            return NotImplemented
        same = (self.site, self.positions, self.phase) == (other.site, other.positions, other.phase)
        if not same:
            raise DirectionError(
                "vectors that act at different sites, positions or phases cannot be added; apply both: edits=[a, b]"
            )
        width, other_width = (len(next(iter(v.vectors.values()))) for v in (self, other))
        if width != other_width:
            raise DirectionError(f"widths {width} and {other_width} differ; the vectors are of different models")
        total: dict[int, Tensor] = {}
        for vector in (self, other):
            for layer, value in vector.vectors.items():
                total[layer] = total.get(layer, torch.zeros(width)) + vector.coefficient * value
        made_of = [dict(self.provenance), dict(other.provenance)]
        return replace(self, vectors=total, coefficient=1.0, provenance={"sum_of": made_of})

    def __sub__(self, other: SteeringVector) -> SteeringVector:
        return self + (-other)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write as safetensors: a tensor `layer.L` per layer, everything else as JSON in the metadata.

        The same vector gives the same bytes; the file appears whole or not at all.
        """
        from safetensors.torch import save

        about = {
            "site": self.site, "coefficient": self.coefficient, "positions": list(self.positions),
            "phase": self.phase, "layers": list(self.layers), "provenance": self.provenance,
        }  # fmt: skip
        meta = {"format": FORMAT, "about": json.dumps(about, sort_keys=True)}
        data = save({f"layer.{layer}": v.contiguous() for layer, v in self.vectors.items()}, metadata=meta)
        target = Path(path)
        partial = target.with_name(target.name + ".partial")
        try:
            partial.write_bytes(data)
            os.replace(partial, target)
        except OSError as error:
            raise FormatError(f"cannot write {target}: {error.strerror}") from error
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SteeringVector:
        """Read what `save` wrote. Nothing in the file is executed.

        Raises:
            FormatError: When it is missing, damaged, or something else.
            DirectionError: When its numbers are not finite or do not fit together.
        """
        from safetensors import SafetensorError, safe_open

        source = Path(path)
        if not source.is_file():
            raise FormatError(f"there is no vector file at {source}")
        try:
            with safe_open(str(source), framework="pt") as file:
                meta = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        except (SafetensorError, OSError, ValueError) as error:
            raise FormatError(f"{source} is no readable safetensors file: {error}") from error
        if meta.get("format") != FORMAT:
            raise FormatError(
                f"{source} is not a steering vector of this project (format {meta.get('format')!r}, wanted {FORMAT!r})"
            )
        try:
            about = json.loads(meta["about"])
            if {f"layer.{layer}" for layer in about["layers"]} != set(tensors):
                raise FormatError(f"{source} holds {sorted(tensors)} but speaks of layers {about['layers']}")
            vectors = {int(name.removeprefix("layer.")): value for name, value in tensors.items()}
            positions = tuple(p if isinstance(p, int) else str(p) for p in about["positions"])
            phase = about["phase"]
            coefficient, site, provenance = float(about["coefficient"]), str(about["site"]), dict(about["provenance"])
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, FormatError):
                raise
            raise FormatError(f"the metadata of {source} is damaged: {error}") from error
        if phase not in ("prompt", "generation", "both"):
            raise FormatError(f"the metadata of {source} names an unknown phase {phase!r}")
        return cls(vectors, site, coefficient, positions, cast(Phase, phase), provenance)
