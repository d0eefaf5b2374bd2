"""What a client has to add, and where: a vector fitted to a model."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from interp.errors import DirectionError, SiteError
from steering.vector import SteeringVector

EVERYWHERE = "dataclasses.replace(vector, positions=('all',), phase='both')"


@dataclass(frozen=True)
class Addition:
    """A vector added to the stream at a block.

    Attributes:
        layer: 0-based block.
        enters: Whether it is added to what enters the block, rather than to what leaves it.
        value: What is added, the coefficient included.
    """

    layer: int
    enters: bool
    value: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """The stream `[batch, token, width]` with the vector added at every token."""
        return x + self.value.to(x)


def additions(vector: SteeringVector, n_layers: int, width: int) -> list[Addition]:
    """A vector's additions, in the order in which a forward meets them.

    Raises:
        SiteError: When it acts elsewhere than on the stream between blocks, or on a layer that the model lacks.
        DirectionError: When its width is another.
    """
    if vector.site not in ("resid_pre", "resid_post"):
        raise SiteError(
            f"a client adds to the stream that enters or leaves a block (resid_pre, resid_post), but this vector acts "
            f"at {vector.site}; use model.generate(edits=vector) of interp.load, which reaches every site"
        )
    beyond = [layer for layer in vector.layers if layer >= n_layers]
    if beyond:
        raise SiteError(f"layer {beyond[0]} is out of range: this model has layers 0 to {n_layers - 1}")
    found = [
        Addition(layer, vector.site == "resid_pre", vector.coefficient * value)
        for layer, value in vector.vectors.items()
    ]
    if len(found[0].value) != width:
        raise DirectionError(
            f"a vector of width {len(found[0].value)} does not fit the stream of this model, which is {width} wide; "
            "was it made for another model?"
        )
    return found


def acts_everywhere(vector: SteeringVector) -> bool:
    """Whether it acts on every token, of prompt and answer alike."""
    return vector.positions == ("all",) and vector.phase == "both"
