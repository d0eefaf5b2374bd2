"""From edits of the stream to what they do to each writer: an affine map, low-rank but for its shift.

Everything that writes to the stream (the embedding, every attention, every MLP) is linear in its last weights, so a
projection of what it writes is a projection of those weights, and an addition to it a bias (Arditi et al. 2024,
section 2.4 and appendix E).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from interp.edits import Ablate, Add
from interp.errors import EditError
from interp.model.architecture import Architecture

Place = tuple[int, str]
"""A writer: its layer, and `embed`, `attn` or `mlp`."""
_STEPS = {"resid_pre": 2, "attn_out": 0, "resid_mid": 1, "mlp_out": 0, "resid_post": 1}
"""What reaches a writer's output first: what is done to it alone, then to the stream behind it."""


@dataclass(frozen=True, eq=False)
class Change:
    """`y -> y + out (into' y) + shift`, in fp64.

    Attributes:
        out: `[d, rank]`.
        into: `[d, rank]`; orthonormal, and minus `out`, where a subspace is projected out.
        shift: `[d]`.
    """

    out: Tensor
    into: Tensor
    shift: Tensor

    @property
    def rank(self) -> int:
        """Dimensions of what it reads, and of what it writes."""
        return self.out.shape[1]

    @property
    def shifts(self) -> bool:
        """Whether it adds something whatever is written."""
        return bool(self.shift.any())

    @property
    def projects(self) -> bool:
        """Whether it takes a subspace out, whole and at right angles, and adds nothing."""
        return not self.shifts and bool(torch.allclose(self.out, -self.into, atol=1e-9))

    def linear(self, y: Tensor) -> Tensor:
        """What is to be added to values `[..., d]`; the shift left out."""
        return (y @ self.into.to(y)) @ self.out.T.to(y)


def plan(edits: Sequence[Any], arch: Architecture) -> dict[Place, Change]:
    """What a list of edits does to each writer.

    Args:
        edits: Flat edits: `interp.edits.ablate` (to zero, at writers) and `interp.edits.add`, at all tokens.
        arch: The model's parts.

    Raises:
        EditError: For what no weights can do: another edit, single tokens, sites that are no sums of what is written.
        DirectionError: For a vector of another width.
        SiteError: For a layer out of range, or a site that the model lacks.
    """
    steps: dict[Place, list[tuple[int, Any]]] = {}
    for edit in edits:
        _check(edit)
        for op in edit.ops(arch):
            arch.need(op.site, (op.layer,))
            steps.setdefault(_writer(edit, op.site, op.layer), []).append((_step(op.site, op.layer), edit))
    return {place: _joined([edit for _, edit in sorted(own, key=_first)]) for place, own in sorted(steps.items())}


def _first(step: tuple[int, Any]) -> int:
    return step[0]


def _check(edit: Any) -> None:
    if not isinstance(edit, Ablate | Add):
        raise EditError(
            f"{edit!r} cannot be written into weights: what can is interp.edits.ablate, and interp.edits.add at a "
            "residual site, attn_out or mlp_out"
        )
    if edit.positions != ("all",) or edit.phase != "both":
        raise EditError(f"weights act on every token, but {edit!r} acts on some: leave out positions and phase")
    if isinstance(edit, Ablate) and edit.to is not None:
        raise EditError(
            f"{edit!r}: an ablation to a reference is an edit of the stream, which no single writer makes; ablate to "
            "zero, or keep it a run-time edit"
        )


def _writer(edit: Any, site: str, layer: int) -> Place:
    if site not in _STEPS:
        raise EditError(f"{edit!r} cannot be written into weights: {site} is nothing that is added to the stream")
    if site == "resid_pre" and layer == 0:
        return (0, "embed")
    if isinstance(edit, Ablate) and _STEPS[site]:
        raise EditError(
            f"{edit!r} cannot be written into weights: {site} is a sum over writers, of which the later ones would "
            "have to undo what the earlier ones wrote; ablate at the writers, as interp.edits.ablate does by default"
        )
    if site == "resid_pre":
        return (layer - 1, "mlp")
    return (layer, "attn" if site in ("attn_out", "resid_mid") else "mlp")


def _step(site: str, layer: int) -> int:
    return 0 if site == "resid_pre" and layer == 0 else _STEPS[site]


def _joined(edits: Sequence[Any]) -> Change:
    """One change that does what several do one after another."""
    width = len(edits[0].unit if isinstance(edits[0], Ablate) else edits[0].vector)
    basis = orthonormal([edit.unit for edit in edits if isinstance(edit, Ablate)], width)
    linear, shift = torch.eye(basis.shape[1], dtype=torch.float64), torch.zeros(width, dtype=torch.float64)
    for edit in edits:
        if isinstance(edit, Ablate):
            unit = edit.unit.double() / edit.unit.double().norm()
            within = basis.T @ unit  # unit lies in the span, so that what it takes is known by its coordinates
            linear = linear - torch.outer(within, within @ linear)
            shift = shift - unit * (unit @ shift)
        else:
            shift = shift + edit.vector.double() * edit.coef
    return Change(basis @ (linear - torch.eye(len(linear)).to(linear)), basis, shift)


def orthonormal(vectors: Sequence[Tensor], width: int) -> Tensor:
    """An orthonormal basis `[d, rank]`, fp64, of what vectors span; those that add nothing are left out."""
    if not vectors:
        return torch.zeros(width, 0, dtype=torch.float64)
    units = torch.stack([v.double() / v.double().norm() for v in vectors], 1)
    left, sizes, _ = torch.linalg.svd(units, full_matrices=False)
    return left[:, sizes > 1e-6 * sizes[0]]
