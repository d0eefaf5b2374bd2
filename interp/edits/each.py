"""A vector for each prompt: several conditions, signs or control directions in one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from numpy.typing import ArrayLike
from torch import Tensor

from interp.edits.fitting import Where, as_tensor, check_finite, check_vector_site, check_width, describe, where
from interp.errors import EditError
from interp.model.architecture import Architecture
from interp.model.batch import Cells
from interp.model.ops import Op
from interp.model.sites import as_layers, check_layers


@dataclass(frozen=True, eq=False)
class AddEach(Where):
    """Adds to each prompt a vector of its own; make it with `add_each`."""

    vectors: Tensor
    site: str
    layers: tuple[int, ...]

    def __repr__(self) -> str:
        return f"add_each({list(self.vectors.shape)} at {describe(self, self.site, self.layers)})"

    def ops(self, arch: Architecture) -> Sequence[Op]:
        """The edit fitted to a model."""
        layers = check_layers(self.layers, arch.n_layers)
        check_width(self.vectors[0], arch, self.site, layers)

        def change(x: Tensor, cells: Cells | None) -> Tensor:
            assert cells is not None
            if int(cells.rows.max()) >= len(self.vectors):
                raise EditError(
                    f"there are vectors for {len(self.vectors)} prompts, but prompt {int(cells.rows.max())} was run "
                    "(counted from 0); give one for each prompt, in the order they are run"
                )
            return x + self.vectors.to(x)[cells.rows.to(x.device)]

        return [Op(self.site, layer, change, self.positions, self.phase, self) for layer in layers]


def add_each(
    vectors: ArrayLike,
    *,
    site: str,
    layer: int | Sequence[int],
    positions: str | int | Sequence[str | int] = "prompt",
) -> AddEach:
    """Add to each prompt its own vector, while the prompt is read.

    Args:
        vectors: `[prompt, d]`, in the order the prompts are run.
        site: Where.
        layer: One or several, 0-based.
        positions: Prompt tokens; all of them by default. `"all"`, which names generated tokens too, is not taken.

    Raises:
        EditError: For another shape, or `"all"`; when it is run, for more prompts than vectors.
    """
    tensor = check_finite(as_tensor(vectors))
    if tensor.ndim != 2 or not tensor.numel():
        raise EditError(f"vectors are [prompt, d], but shape {tuple(tensor.shape)} was given")
    names, phase = where(positions, "prompt")
    if "all" in names:
        raise EditError("a vector for each prompt is added to prompt tokens: name them, or 'prompt' for all of them")
    return AddEach(names, phase, tensor, check_vector_site(site), as_layers(layer))
