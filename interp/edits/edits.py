"""The edits of activations, as frozen values and the functions that make them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from interp.direction import Direction
from interp.edits.fitting import (
    Where,
    as_experts,
    as_tensor,
    check_finite,
    check_number,
    check_same_places,
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

WRITERS = "writers"
STREAM = "stream"


@dataclass(frozen=True, eq=False)
class Add(Where):
    """Adds `coef * vector`; make it with `add`."""

    vector: Tensor
    coef: float
    site: str
    layers: tuple[int, ...]

    def __repr__(self) -> str:
        return f"add({self.coef:g} x |{float(self.vector.norm()):.3g}| at {describe(self, self.site, self.layers)})"

    def ops(self, arch: Architecture) -> Sequence[Op]:
        """The edit fitted to a model."""
        layers = check_layers(self.layers, arch.n_layers)
        check_width(self.vector, arch, self.site, layers)
        like = placed(self.vector * self.coef)

        def change(x: Tensor, _cells: Cells | None) -> Tensor:
            (added,) = like(x)
            return x + added

        return [Op(self.site, layer, change, self.positions, self.phase, self, uniform=True) for layer in layers]


@dataclass(frozen=True, eq=False)
class Ablate(Where):
    """Fixes the coordinate along a direction; make it with `ablate`."""

    unit: Tensor
    to: Tensor | None
    sites: tuple[str, ...]
    layers: tuple[int, ...] | None

    def __repr__(self) -> str:
        target = "0" if self.to is None else f"a reference {list(self.to.shape)}"
        return f"ablate(to {target} at {describe(self, '+'.join(self.sites), self.layers)})"

    def ops(self, arch: Architecture) -> Sequence[Op]:
        """The edit fitted to a model."""
        layers = check_layers(self.layers, arch.n_layers)
        found: list[Op] = []
        for site, layer in _expand(self.sites, layers, arch.n_layers):
            check_width(self.unit, arch, site, (layer,))
            change = self._change(site, layer, arch.n_layers)
            uniform = self.to is None or self.to.ndim < 2
            found.append(Op(site, layer, change, self.positions, self.phase, self, uniform=uniform))
        return found

    def _change(self, site: str, layer: int, n_layers: int) -> Callable[[Tensor, Cells | None], Tensor]:
        target = self.to
        if target is not None and target.ndim:
            points = target.shape[0]
            if points not in (n_layers, n_layers + 1):
                raise EditError(
                    f"the reference has {points} layers; it needs one value per layer ({n_layers}), or one more for "
                    "the end of the last"
                )
            # n + 1 values stand for the points of the stream, where the end of a block is the start of the next one.
            target = target[layer + 1 if points > n_layers and site == "resid_post" else layer]
        like = placed(self.unit) if target is None else placed(self.unit, target)

        def change(x: Tensor, cells: Cells | None) -> Tensor:
            # Few calls: a step of generation has so few numbers that each call costs more than its arithmetic.
            wide = widened(x)
            unit, *reference = like(wide)
            excess = (wide * unit).sum(-1, keepdim=True)
            for goal in reference:
                if goal.ndim:
                    if cells is None:
                        raise EditError("a reference with a value per position needs the positions named")
                    check_same_places(cells, len(goal), "the reference")
                    goal = goal[cells.places.to(x.device)][:, None]
                excess = excess - goal
            return narrowed(torch.addcmul(wide, excess, unit, value=-1), x)

        return change


@dataclass(frozen=True, eq=False)
class SetTo(Where):
    """Overwrites activations; make it with `set_to`."""

    value: Tensor
    site: str
    layers: tuple[int, ...]

    def __repr__(self) -> str:
        return f"set_to({describe(self, self.site, self.layers)})"

    def ops(self, arch: Architecture) -> Sequence[Op]:
        """The edit fitted to a model."""
        layers = check_layers(self.layers, arch.n_layers)
        check_width(self.value, arch, self.site, layers)
        like = placed(as_experts(self.value, arch, layers) if self.site == "expert_indices" else self.value)

        def change(x: Tensor, _cells: Cells | None) -> Tensor:
            (value,) = like(x)
            return value.expand_as(x)

        return [Op(self.site, layer, change, self.positions, self.phase, self, uniform=True) for layer in layers]


def add(
    direction: Direction | ArrayLike,
    coef: float = 1.0,
    *,
    site: str | None = None,
    layer: int | Sequence[int] | None = None,
    positions: str | int | Sequence[str | int] = "all",
    phase: Phase | None = None,
) -> Add:
    """Add `coef` times a vector (activation addition, Arditi et al. 2024, section 2.4).

    Args:
        direction: A `Direction`, or a vector `[d]` together with `site` and `layer`.
        coef: Strength; 1 adds the vector as it is, -1 subtracts it.
        site: Defaults to the direction's own.
        layer: One or several; defaults to the direction's own.
        positions: Tokens; see `interp.text.positions`.
        phase: `"prompt"`, `"generation"` or `"both"`.
    """
    vector, site, layers = _vector(direction, site, layer)
    return Add(*where(positions, phase), vector, check_number(coef, "coef"), check_vector_site(site), layers)


def ablate(
    direction: Direction | ArrayLike,
    to: float | ArrayLike | None = None,
    *,
    sites: str | Sequence[str] | None = None,
    layers: int | Sequence[int] | None = None,
    positions: str | int | Sequence[str | int] = "all",
    phase: Phase | None = None,
) -> Ablate:
    """Fix the coordinate along a direction (directional ablation, Arditi et al. 2024, section 2.4).

    To zero, `x - r r'x`, at everything that writes to the residual stream: the embedding (`resid_pre` of layer 0),
    every `attn_out` and every `mlp_out`. To a reference (affine ablation), `x - r (r'x - to)`, along the stream itself:
    `resid_pre` of every layer and the end of the last, since a mean belongs to the stream and not to a writer.

    Args:
        direction: A `Direction` or a vector `[d]`; only where it points matters.
        to: `None` for zero; otherwise a number, one per layer `[layers]` (or `[layers + 1]`, the last for the end of
            the stack), or `[layers + 1, positions]` in the order of the tokens that `positions` name. Generated
            tokens take the last position's value.
        sites: `"writers"`, `"stream"`, or site names; chosen by `to` when left out.
        layers: All by default.
        positions: Tokens.
        phase: `"prompt"`, `"generation"` or `"both"`.
    """
    vector = direction.vector if isinstance(direction, Direction) else as_tensor(direction)
    if vector.ndim != 1 or float(vector.norm()) == 0 or not bool(torch.isfinite(vector).all()):
        raise DirectionError("ablate needs one finite, non-zero vector")
    reference = None if to is None else as_tensor(to)
    if reference is not None and not bool(torch.isfinite(reference).all()):
        raise DirectionError("the reference to ablate to holds NaN or infinite values")
    chosen = sites if sites is not None else (WRITERS if reference is None else STREAM)
    names = (chosen,) if isinstance(chosen, str) else tuple(chosen)
    for name in names:
        if name not in (WRITERS, STREAM):
            check_vector_site(name)
    if reference is not None and reference.ndim > 2:
        raise DirectionError(f"a reference is a number, [layers] or [layers, positions], not {list(reference.shape)}")
    wanted = None if layers is None else as_layers(layers)
    return Ablate(*where(positions, phase), vector / vector.norm(), reference, names, wanted)


def set_to(
    value: ArrayLike,
    *,
    site: str,
    layer: int | Sequence[int],
    positions: str | int | Sequence[str | int] = "all",
    phase: Phase | None = None,
) -> SetTo:
    """Overwrite activations with one vector `[width]`."""
    vector = check_finite(as_tensor(value))
    return SetTo(*where(positions, phase), vector, check_vector_site(site, numbers=False), as_layers(layer))


def _vector(direction: Any, site: str | None, layer: Any) -> tuple[Tensor, str, tuple[int, ...]]:
    if isinstance(direction, Direction):
        return direction.vector, site or direction.site, as_layers(direction.layer if layer is None else layer)
    if site is None or layer is None:
        raise EditError("a bare vector needs site= and layer=")
    return check_finite(as_tensor(direction)), site, as_layers(layer)


def _expand(sites: Sequence[str], layers: Sequence[int], n_layers: int) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    for name in sites:
        if name == WRITERS:
            found += [("resid_pre", 0)] if 0 in layers else []
            found += [(site, layer) for layer in layers for site in ("attn_out", "mlp_out")]
        elif name == STREAM:
            found += [("resid_pre", layer) for layer in layers]
            found += [("resid_post", n_layers - 1)] if n_layers - 1 in layers else []
        else:
            found += [(name, layer) for layer in layers]
    return found
