"""What is done to a model: a vector added or its direction ablated, always or where a guard says so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.direction import Direction
from interp.edits import ablate
from interp.errors import RefusalkitError
from interp.model.model import Model
from interp.model.ops import Edit
from interp.provenance import digest_json
from steering import SteeringVector, if_guard, import_vector
from steering.kept_doses import vector_digest

if TYPE_CHECKING:
    from interp.edits.conditions import Condition
    from probes import LatentGuard


@dataclass(frozen=True, eq=False)
class Acting:
    """A vector, and how it acts.

    Attributes:
        vector: The vector; its coefficient is strength 1.
        name: What to call it.
        ablated: The direction that is taken out of everything that writes to the stream, in place of adding the vector.
        guard: Acts on prompts that it flags only.
        any_model: Take a guard of another model.
    """

    vector: SteeringVector
    name: str
    ablated: Direction | None = None
    guard: LatentGuard | None = None
    any_model: bool = False

    @classmethod
    def load(
        cls, vector: Path, *, ablate: bool = False, layer: int | None = None, guard: Path | None = None,
        any_model: bool = False,
    ) -> Acting:  # fmt: skip
        """From files.

        Args:
            vector: A steering vector, of any of `steering.FORMATS`.
            ablate: Ablate its direction.
            layer: Of a vector of several layers: whose direction that is.
            guard: A latent guard.
            any_model: Take a guard of another model.

        Raises:
            FormatError: For a file that cannot be used.
            RefusalkitError: Where it is not said which layer's direction is to be ablated.
        """
        given = import_vector(vector)
        found = None
        if guard is not None:
            from probes import LatentGuard

            found = LatentGuard.load(guard)
        return cls(given, vector.name, direction_of(given, layer, vector.name) if ablate else None, found, any_model)

    def check(self, model: Model) -> None:
        """Fit vector and guard to a model before anything is run.

        Raises:
            RefusalkitError: When widths or layers are not the model's, or the guard is of another one.
        """
        try:
            for edit in self.edits(1.0):
                edit.ops(model.arch)
        except RefusalkitError as error:
            raise type(error)(f"{self.name} does not fit {model.name}: {error}") from error
        self.condition(model)

    def condition(self, model: Model) -> Condition | None:
        """What decides on which prompts it acts; `None` for all."""
        if self.guard is None:
            return None
        return if_guard(self.guard, model, allow_other_model=self.any_model)

    def edits(self, strength: float) -> list[Edit]:
        """The edits at a strength, which an ablation has none of."""
        return [ablate(self.ablated)] if self.ablated is not None else list((self.vector * strength).edits())

    def control(self, strength: float, seed: int) -> list[Edit]:
        """The same along random vectors of the same norm."""
        if self.ablated is not None:
            return [ablate(self.ablated.random_like(seed))]
        return list((self.vector.random_like(seed) * strength).edits())

    def said(self, strength: float) -> str:
        """In words."""
        return "ablated" if self.ablated is not None else f"strength {strength:g}"

    def told(self) -> dict[str, Any]:
        """JSON: everything that decides what it does, and where it came from."""
        return {
            "vector": {"file": self.name, "digest": vector_digest(self.vector), "site": self.vector.site,
                       "layers": list(self.vector.layers), "positions": list(self.vector.positions),
                       "phase": self.vector.phase, "provenance": dict(self.vector.provenance)},
            "ablated_layer": None if self.ablated is None else self.ablated.layer,
            "guard": None if self.guard is None else {"digest": digest_json(dict(self.guard.provenance)),
                                                      "site": self.guard.site, "layers": list(self.guard.layers)},
        }  # fmt: skip


def direction_of(vector: SteeringVector, layer: int | None, name: str) -> Direction:
    """One layer's direction of a vector.

    Raises:
        RefusalkitError: When the vector has several layers and none is named, or not that one.
    """
    if layer is None and len(vector.layers) > 1:
        raise RefusalkitError(
            f"the file holds vectors of layers {list(vector.layers)}, and an ablation takes one: name it with --layer"
        )
    chosen = min(vector.layers) if layer is None else layer
    if chosen not in vector.layers:
        raise RefusalkitError(f"the file has no layer {chosen}; it has {list(vector.layers)}")
    where = "+".join(map(str, vector.positions))
    return Direction(vector.vectors[chosen], vector.site, chosen, where, name, vector.provenance)
