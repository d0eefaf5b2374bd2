"""What edits share: where they act, and whether their values fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast, get_args

import torch
from torch import Tensor

from interp.errors import DirectionError, EditError
from interp.model.architecture import Architecture
from interp.model.batch import Cells, Phase
from interp.model.sites import check_site

_COARSE = (torch.bfloat16, torch.float16)


@dataclass(frozen=True, eq=False)
class Where:
    """The tokens that an edit acts on."""

    positions: tuple[str | int, ...]
    phase: Phase


def where(positions: Any, phase: str | None) -> tuple[tuple[str | int, ...], Phase]:
    """Positions and phase as `Where` takes them; all positions mean both phases unless one is named."""
    names = (positions,) if isinstance(positions, str | int) else tuple(positions)
    if not names:
        raise EditError("no positions were given")
    chosen = phase or ("both" if names == ("all",) else "prompt")
    if chosen not in get_args(Phase):
        raise EditError(f"unknown phase {phase!r}; known: {', '.join(get_args(Phase))}")
    return names, cast(Phase, chosen)


def describe(edit: Where, site: str, layers: Sequence[int] | None) -> str:
    """Where an edit acts, in words."""
    at = "all layers" if layers is None else f"layers {list(layers)}"
    return f"{site}, {at}, {'+'.join(map(str, edit.positions))}, {edit.phase}"


def as_tensor(value: Any) -> Tensor:
    """A number or array in fp32 on the CPU."""
    return torch.as_tensor(value).detach().float().cpu()


def widened(x: Tensor) -> Tensor:
    """Values in at least fp32, for arithmetic that bf16 is too coarse for."""
    return x.float() if x.dtype in _COARSE else x


def narrowed(new: Tensor, x: Tensor) -> Tensor:
    """Values in the type of what they take the place of."""
    return new if new.dtype is x.dtype else new.to(x.dtype)


def placed(*tensors: Tensor) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Tensors in another's type and on its device, moved there once rather than at every token."""
    moved: dict[tuple[torch.dtype, torch.device], tuple[Tensor, ...]] = {}
    kept = tensors

    def like(x: Tensor) -> tuple[Tensor, ...]:
        nonlocal kept
        if kept[0].dtype is not x.dtype or kept[0].device != x.device:
            key = x.dtype, x.device
            if key not in moved:
                with torch.inference_mode(False):  # what was made in it could not take part in a gradient later
                    moved[key] = tuple(tensor.to(x.device, x.dtype) for tensor in tensors)
            kept = moved[key]
        return kept

    return like


def check_finite(tensor: Tensor) -> Tensor:
    """The tensor, or a `DirectionError` when it holds NaN or infinity."""
    if not bool(torch.isfinite(tensor).all()):
        raise DirectionError("the values of an edit hold NaN or infinity")
    return tensor


def check_number(value: float, name: str) -> float:
    """A finite number, or an `EditError`."""
    if not math.isfinite(value):
        raise EditError(f"{name} is {value}; it must be a finite number")
    return float(value)


def check_vector_site(site: str, numbers: bool = True) -> str:
    """A site whose features an edit can give a vector for.

    Args:
        site: Any site.
        numbers: Whether the edit reckons with the features as numbers, which indices are not.
    """
    check_site(site)
    if site == "pattern":
        raise EditError("a vector fits no pattern, which is as wide as the prompt is long; use interp.edits.patch")
    if numbers and site == "expert_indices":
        raise EditError("expert_indices are names of experts and no quantities; use interp.edits.route")
    return site


def check_width(vector: Tensor, arch: Architecture, site: str, layers: Sequence[int]) -> None:
    """Raise `DirectionError` for a vector of another width than the site's."""
    width = arch.feature(site, layers).width
    if vector.shape != (width,):
        raise DirectionError(
            f"a vector of shape {tuple(vector.shape)} does not fit {site} of this model, which is {width} wide; "
            "was it made for another model?"
        )


def check_same_places(cells: Cells, places: int, what: str) -> None:
    """Regions may be longer in some prompts; by index alone their tokens would be mistaken for one another."""
    sizes = set(cells.sizes[cells.places >= 0].tolist())
    if sizes - {places}:
        raise EditError(
            f"{what} holds {places} positions, but the edit's positions are {max(sizes)} tokens in a prompt that was "
            "run; name single tokens, as Activations.positions does"
        )


def as_experts(values: Tensor, arch: Architecture, layers: Sequence[int]) -> Tensor:
    """Expert indices as integers, or an `EditError` for what is no expert's index."""
    n = arch.feature("router_logits", layers).width
    if not bool(((values == values.round()) & (values >= 0) & (values < n)).all()):
        raise EditError(f"expert_indices are whole numbers from 0 to {n - 1}")
    return values.long()
