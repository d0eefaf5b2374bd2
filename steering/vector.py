"""`SteeringVector`: vectors for one or several layers, with where they belong and where they came from."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor

from interp.direction import Direction
from interp.edits import Add, add
from interp.errors import DirectionError, FormatError, RefusalkitError
from interp.model.batch import Phase
from interp.model.sites import as_layers, check_site
from interp.tensorfile import digest_of, in_words, read_tensors, write_tensors
from steering.geometry import Other, bases, paired, project, turned

if TYPE_CHECKING:
    from interp.model.model import Model
    from steering.formats.exported import Exported

FORMAT = "refusalkit/steering-vector/2"
_WITHOUT_DIGEST = "refusalkit/steering-vector/1"
METADATA = "steering-vector"
_FIELDS: dict[str, Any] = {
    "site": str, "phase": str, "coefficient": int | float, "layers": list, "positions": list, "provenance": dict
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class SteeringVector:
    """Vectors to add to the residual stream.

    Attributes:
        vectors: Per 0-based layer, a vector `[width]` in fp32.
        site: Where they are added.
        coefficient: What they are multiplied by.
        positions: Prompt tokens they act on, named as for capture.
        phase: `"prompt"`, `"generation"` or `"both"`; left out, both for all positions and the prompt for named
            ones, as for `interp.edits.add`.
        provenance: Model, prompts, method, versions; JSON-able.
    """

    vectors: Mapping[int, Tensor]
    site: str = "resid_pre"
    coefficient: float = 1.0
    positions: tuple[str | int, ...] = ("all",)
    phase: Phase | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_site(self.site)
        if not self.vectors:
            raise DirectionError("a steering vector needs at least one layer")
        clean: dict[int, Tensor] = {}
        for layer, vector in zip(as_layers(self.vectors), self.vectors.values(), strict=True):
            tensor = torch.as_tensor(vector).detach().cpu().float().clone()  # nobody else's changes reach it
            if layer < 0:
                raise DirectionError(f"layer {layer}: a steering vector names its layers from 0 up")
            if tensor.ndim != 1 or not len(tensor):
                raise DirectionError(f"the vector of layer {layer} has shape {tuple(tensor.shape)}, not [width]")
            if not bool(torch.isfinite(tensor).all()):
                raise DirectionError(f"the vector of layer {layer} holds NaN or infinite values")
            clean[layer] = tensor
        if len({len(v) for v in clean.values()}) > 1:
            raise DirectionError(f"the layers' widths differ: { {k: len(v) for k, v in clean.items()} }")
        if not math.isfinite(self.coefficient):
            raise DirectionError(f"the coefficient is {self.coefficient}; it must be a finite number")
        given: Any = self.positions
        where = (given,) if isinstance(given, str | int) else tuple(given)
        if not where:
            raise DirectionError("a steering vector needs at least one position")
        if self.phase is None:
            object.__setattr__(self, "phase", "both" if where == ("all",) else "prompt")
        if self.phase not in get_args(Phase):
            raise DirectionError(f"unknown phase {self.phase!r}; known: {', '.join(get_args(Phase))}")
        object.__setattr__(self, "vectors", dict(sorted(clean.items())))
        object.__setattr__(self, "coefficient", float(self.coefficient))
        object.__setattr__(self, "positions", where)

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

    @classmethod
    def from_probe(cls, probe: Any, coefficient: float = 1.0, *, positive: Any = None, **where: Any) -> SteeringVector:
        """The direction that a linear probe reads along, at the place it was read.

        Its length is the probe's own, which for weights is no length of activations: calibrate it before use.

        Args:
            probe: A fitted linear probe (`probes`), or several of one site and different layers.
            coefficient: Strength.
            positive: The class it points towards; needed when labels are texts.
            **where: `site`, `layer` and `position` where the probe does not know them; `positions` and `phase`.

        Raises:
            ProbeError: When it reads along no one direction, or it is not known where or towards what.
        """
        place = {name: where.pop(name) for name in ("site", "layer", "position") if name in where}
        several = probe if isinstance(probe, list | tuple) else [probe]
        return cls.from_direction([p.to_direction(positive=positive, **place) for p in several], coefficient, **where)

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers, in order."""
        return tuple(self.vectors)

    @property
    def norms(self) -> dict[int, float]:
        """Norm of what is added at each layer, the coefficient included."""
        return {layer: float(v.norm()) * abs(self.coefficient) for layer, v in self.vectors.items()}

    def cosine(self, other: Other) -> dict[int, float]:
        """Cosine with another vector at each layer that both have, the coefficients' signs included.

        Args:
            other: A steering vector; a direction or a vector `[width]` stands for itself at every layer.

        Raises:
            DirectionError: When widths differ, no layer is common, or a vector is zero.
        """
        found: dict[int, float] = {}
        for layer, (own, theirs) in paired(self, other).items():
            if float(own.norm()) == 0 or float(theirs.norm()) == 0:
                raise DirectionError(f"a vector of layer {layer} is zero, so it has no cosine")
            found[layer] = float(torch.nn.functional.cosine_similarity(own, theirs, dim=0))
        return found

    def along(self, *others: Other) -> SteeringVector:
        """The part that lies along others: at each layer, in the span of theirs. With `without`, it sums to the whole.

        Raises:
            DirectionError: When widths differ, or the others lack a layer.
        """
        parts = {layer: project(value, bases(others, layer, len(value))) for layer, value in self.vectors.items()}
        return replace(self, vectors=parts, provenance={"along": len(others), "of": dict(self.provenance)})

    def without(self, *others: Other) -> SteeringVector:
        """The part at right angles to others: they are projected out.

        Raises:
            DirectionError: When widths differ, or the others lack a layer.
        """
        along = self.along(*others)
        parts = {layer: value - along.vectors[layer] for layer, value in self.vectors.items()}
        return replace(self, vectors=parts, provenance={"without": len(others), "of": dict(self.provenance)})

    def random_like(self, seed: int) -> SteeringVector:
        """Random vectors with the same norms and the same cosines among the layers: the control."""
        alike = turned(torch.stack(list(self.vectors.values())), seed)
        vectors = dict(zip(self.vectors, alike, strict=True))
        return replace(self, vectors=vectors, provenance={"random_like": dict(self.provenance), "seed": seed})

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

    def __add__(self, other: Any) -> SteeringVector:
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
        return replace(self, vectors=total, coefficient=1.0, provenance={"sum_of": self._terms() + other._terms()})

    def __sub__(self, other: SteeringVector) -> SteeringVector:
        return self + (-other)

    def _terms(self) -> list[dict[str, Any]]:
        """What it is a sum of: each term's factor, layers and provenance, however the sum was made."""
        if set(self.provenance) == {"sum_of"}:
            terms: list[dict[str, Any]] = self.provenance["sum_of"]
            return [{**term, "coefficient": term["coefficient"] * self.coefficient} for term in terms]
        return [{"coefficient": self.coefficient, "layers": list(self.layers), "provenance": dict(self.provenance)}]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write as safetensors: a tensor `layer.L` per layer, everything else as JSON in the metadata.

        The same vector gives the same bytes; the file appears whole or not at all.

        Raises:
            FormatError: When it cannot be written, or the provenance is no JSON.
        """
        about = {
            "format": FORMAT, "site": self.site, "coefficient": self.coefficient, "positions": list(self.positions),
            "phase": self.phase, "layers": list(self.layers), "provenance": dict(self.provenance),
        }  # fmt: skip
        tensors = {f"layer.{layer}": v for layer, v in self.vectors.items()}
        return write_tensors(path, METADATA, {**about, "digest": digest_of(METADATA, about, tensors)}, tensors)

    def export(
        self, path: str | os.PathLike[str], format: str | None = None, *, model: Model | None = None
    ) -> Exported:
        """Write it for another program; see `steering.export`.

        Args:
            path: The file to write; for `refusal_direction` a folder.
            format: One of `steering.FORMATS`; by default what the path's suffix says.
            model: The model it is for; checked, where given.

        Raises:
            FormatError: When the format cannot say what the vector does, or the file cannot be written.
            DirectionError: When the vector does not fit the model, or its numbers are not finite.
        """
        from steering.formats.exchange import export

        return export(self, path, format, model=model)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SteeringVector:
        """Read what `save` wrote. Nothing in the file is executed, and a changed bit is noticed.

        Raises:
            FormatError: When it is missing, damaged, or something else.
            DirectionError: When its numbers are not finite or do not fit together.
        """
        about, tensors = read_tensors(path, METADATA, (FORMAT, _WITHOUT_DIGEST), _FIELDS)
        try:
            _check_digest(about, tensors)
            _check_lists(about)
            if {f"layer.{layer}" for layer in about["layers"]} != set(tensors):
                raise ValueError(f"it holds {sorted(tensors)} but speaks of layers {about['layers']}")
            vectors = {layer: tensors[f"layer.{layer}"] for layer in about["layers"]}
            where = {name: about[name] for name in ("site", "phase", "provenance")}
            return cls(vectors, coefficient=float(about["coefficient"]), positions=tuple(about["positions"]), **where)
        except RefusalkitError as error:
            kind = DirectionError if isinstance(error, DirectionError) else FormatError
            raise kind(f"{path} holds no usable vector: {error}") from error
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise FormatError(f"the metadata of {path} is damaged: {in_words(error)}") from error


def _check_digest(about: dict[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """That what was saved is what is read; the first version of the format had no digest."""
    digest = about.pop("digest", None)
    if digest != (digest_of(METADATA, about, tensors) if about["format"] == FORMAT else None):
        raise ValueError("its digest does not fit what it holds")
    if set(about) != {"format", *_FIELDS}:
        raise ValueError(f"it has the fields {sorted(about)}")


def _check_lists(about: Mapping[str, Any]) -> None:
    """That layers and positions hold what `save` writes."""
    if any(type(layer) is not int for layer in about["layers"]):
        raise TypeError(f"layers are {about['layers']!r:.40}")
    if any(type(position) not in (int, str) for position in about["positions"]):
        raise TypeError(f"positions are {about['positions']!r:.40}")
