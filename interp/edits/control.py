"""Controls for edits: the same change in a random direction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from interp.edits.conditioned import ForPrompts, When
from interp.edits.edits import Ablate, Add, SetTo
from interp.edits.heads import ScaleHeads
from interp.edits.rotation import Rotate
from interp.edits.window import During
from interp.errors import EditError
from interp.model.architecture import Architecture

_VECTOR = {Add: "vector", Ablate: "unit", SetTo: "value", Rotate: "plane"}
_AROUND = (During, When, ForPrompts)


def random_like(edits: Sequence[Any], arch: Architecture, seed: int) -> list[Any]:
    """The same edits with random directions in place of theirs: what any direction of this size would have done.

    Vectors become random ones with the same norms and the same cosines among each other, so that a vector that is
    added at several layers stays one. Heads become as many other heads of the same layers.

    Args:
        edits: Flat edits: `add`, `ablate`, `set_to`, `rotate`, `scale_heads`, and windows and conditions around these,
            which stay as they are.
        arch: The model's parts.
        seed: Seed.

    Raises:
        EditError: For an edit that has no random counterpart (an ablation to a reference among them: the reference is
            its own direction's mean, and another direction has another), or when a layer has too few other heads.
    """
    source = torch.Generator().manual_seed(seed)
    flat = _leaves(edits)
    for edit in flat:
        alike = type(edit) in _VECTOR or isinstance(edit, ScaleHeads)
        if not alike or (isinstance(edit, Ablate) and edit.to is not None):
            raise EditError(f"{edit!r} has no random counterpart: give your own controls=, or none with n_random=0")
    made: list[Any] = list(flat)
    by_width: dict[int, list[tuple[int, Tensor]]] = {}
    for place, edit in enumerate(flat):
        if isinstance(edit, ScaleHeads):
            made[place] = replace(edit, heads=_other_heads(edit, arch, source))
        else:
            given: Tensor = getattr(edit, _VECTOR[type(edit)])
            by_width.setdefault(given.shape[-1], []).append((place, given.view(-1, given.shape[-1])))
    for members in by_width.values():
        turned = turned_together(torch.cat([given for _, given in members]).double(), source)
        for (place, _), own in zip(members, turned.split([len(g) for _, g in members]), strict=True):
            name = _VECTOR[type(flat[place])]
            made[place] = replace(flat[place], **{name: own.float() if name == "plane" else own[0].float()})
    left = iter(made)
    return [_rebuilt(edit, left) for edit in edits]


def _leaves(edits: Sequence[Any]) -> list[Any]:
    """The edits themselves, without windows and conditions around them."""
    return [leaf for edit in edits for leaf in (_leaves(edit.inner) if isinstance(edit, _AROUND) else [edit])]


def _rebuilt(edit: Any, made: Iterator[Any]) -> Any:
    """The same windows and conditions around other edits."""
    if not isinstance(edit, _AROUND):
        return next(made)
    changes: dict[str, Any] = {"inner": tuple(_rebuilt(inner, made) for inner in edit.inner)}
    return replace(edit, **changes, **({"log": None} if isinstance(edit, When) else {}))


def turned_together(vectors: Tensor, source: torch.Generator) -> Tensor:
    """Vectors `[n, d]` turned together by a random rotation: norms and cosines are kept."""
    n, d = vectors.shape
    within = torch.linalg.qr(vectors.T)[1]  # vectors = within.T @ an orthonormal frame, of which another is as good
    frame = torch.linalg.qr(torch.randn(d, min(n, d), generator=source, dtype=torch.float64))[0]
    return within.T @ frame.T


def _other_heads(edit: ScaleHeads, arch: Architecture, source: torch.Generator) -> tuple[tuple[int, int], ...]:
    found: list[tuple[int, int]] = []
    for layer in sorted({layer for layer, _ in edit.heads}):
        own = {head for at, head in edit.heads if at == layer}
        others = [head for head in range(arch.n_heads) if head not in own]
        if len(others) < len(own):
            raise EditError(
                f"layer {layer} has {len(others)} other heads, too few for a control of {len(own)}: give your own "
                "controls=, or none with n_random=0"
            )
        drawn = torch.randperm(len(others), generator=source)[: len(own)]
        found += [(layer, others[i]) for i in drawn.tolist()]
    return tuple(found)
