"""Edits written into a second model's weights, and believed only after a forward agrees with the run-time edits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from interp.direction import Direction
from interp.edits import ablate
from interp.errors import DirectionError, EditError, ModelError
from interp.model.model import Model
from interp.model.ops import Op, flatten_edits
from steering.weights.agreement import Agreement, Judge
from steering.weights.plan import Change, Place, orthonormal, plan
from steering.weights.shell import Shell, changed_weight
from steering.weights.writers import Part, check_whole, writer_parts


def as_edits(given: Any) -> list[Any]:
    """What the weights are to do, as the flat list of run-time edits that does the same.

    A `Direction` or a vector is ablated; several of them are a subspace, orthonormalised and ablated; edits, and what
    has edits (a steering vector), stand for themselves.
    """
    if isinstance(given, Direction):
        return [ablate(given)]
    if _is_edit(given):
        return flatten_edits(given)
    if isinstance(given, list | tuple) and any(_is_edit(one) or isinstance(one, list | str) for one in given):
        return flatten_edits(given)
    several = _vectors(given)
    if len(several) == 1:
        return [ablate(several[0])]
    units = [ablate(one).unit for one in several]
    if len({len(unit) for unit in units}) > 1:
        raise DirectionError(f"the directions' widths differ: {sorted({len(unit) for unit in units})}")
    return [ablate(unit) for unit in orthonormal(units, len(units[0])).T]


def _is_edit(given: Any) -> bool:
    return hasattr(given, "ops") or hasattr(given, "edits")


def _vectors(given: Any) -> list[Any]:
    """Directions, or rows of an array, one by one."""
    if isinstance(given, list | tuple) and any(isinstance(one, Direction | Tensor) for one in given):
        return list(given)
    try:
        array = torch.as_tensor(given).detach().float().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise EditError(f"{given!r:.60} is no edit, direction or vector") from error
    if array.ndim not in (1, 2) or not array.numel():
        raise DirectionError(f"directions are a vector [d] or several [n, d], not {list(array.shape)}")
    return [array] if array.ndim == 1 else list(array)


def check_ready(model: Model) -> None:
    """Raise `ModelError` or `EditError` where the model's weights are not simply what it computes with."""
    if model.backend.name != "hooks":
        raise ModelError(f"the backend {model.backend.name} runs a copy of the weights: load it with backend='hooks'")
    if model.standing:
        raise EditError("the model is inside an `edited` block, whose edits would pass for its weights: leave it")
    if any(module.training for module in model.hf.modules()):
        raise ModelError("the model is in training mode, so dropout would blur the comparison; call model.hf.eval()")
    check_whole(model.hf)


def changes_for(model: Model, edits: Sequence[Any]) -> tuple[dict[Place, Change], list[Place]]:
    """What the edits do to each writer's last weights, and the writers that a norm follows.

    For the latter the change is not what the edits do, but the nearest to it.

    Raises:
        EditError: For edits that no weights can do.
        ModelError: For weights that cannot be changed.
    """
    check_ready(model)
    changes = plan(edits, model.arch)
    normed = [place for place in changes if post_norm(model, place) is not None]
    for place in normed:
        if changes[place].shifts:
            raise ModelError(_norm_says(model, "what is added to it would be divided by a norm that it changes"))
    for place in changes:
        writer_parts(model.hf, model.arch, place)  # what cannot be changed is said before anything is run
    return {p: nearest_change(model, p, c) if p in normed else c for p, c in changes.items()}, normed


def write(model: Model, edits: Sequence[Any], nearest: bool) -> tuple[Shell, dict[Place, Change], Agreement]:
    """A second model around the user's weights, with the edits in those that write to the stream.

    Raises:
        EditError: For edits that no weights can do, or that change no logit.
        ModelError: Where the architecture has no place for them, and when the forwards do not agree.
        DirectionError: When a result overflows the weights' type.
    """
    changes, normed = changes_for(model, edits)
    shell, judge = Shell(model.hf, model.arch), Judge(model, edits)
    for place, change in changes.items():
        put_change(model, shell, place, change)
    agreed = judge(shell, plan(edits, model.arch), exact=not normed)
    check_agreed(model, agreed, bool(normed), nearest)
    return shell, changes, agreed


def check_agreed(model: Model, agreed: Agreement, normed: bool, nearest: bool) -> None:
    """Raise `ModelError` for weights that are the nearest only, when that was not asked for."""
    if normed and not nearest:
        raise ModelError(
            _norm_says(
                model,
                "projecting what goes in changes the norm it is divided by, so that norm(W' h) = (I - r r') norm(W h) "
                "has no solution W'. The nearest weights write the same but for its length; their logits differ from "
                f"the run-time edit's by up to {agreed.error:.2g} standard deviations, and in the middle by "
                f"{agreed.median:.2g} (the edit moves them by {agreed.effect:.2g})",
            )
            + "; use run-time edits, or take the nearest with nearest=True"
        )


def _norm_says(model: Model, why: str) -> str:
    return f"{type(model.hf).__name__} has a norm between writers and stream, and no weights equal this edit: {why}"


def post_norm(model: Model, place: Place) -> nn.Module | None:
    """The norm between a writer's last weights and the stream, if there is one."""
    layer, kind = place
    layout = model.arch.layouts[layer]
    name = {"attn": layout.attention_post_norm, "mlp": layout.mlp_post_norm}.get(kind)
    return model.arch.blocks[layer].get_submodule(name) if name else None


@torch.inference_mode()
def nearest_change(model: Model, place: Place, change: Change) -> Change:
    """The change before a norm after which what is written is the projection but for its length.

    With gains `G`, `G x' = (I - r r') G x` for `x' = x - G^-1 r r'G x`: an oblique projection, of which the norm then
    sees another length. (Projecting at right angles to `G r`, as is said of this case elsewhere, leaves nothing along
    `r` either, but turns the rest: on random models its logits are three to eight times further off.)
    """
    norm = post_norm(model, place)
    assert norm is not None
    weight = next(norm.parameters())
    gain = norm(torch.ones(1, model.d_model, dtype=weight.dtype, device=weight.device))[0].double().cpu()[:, None]
    if bool((gain == 0).any()):
        raise ModelError(_norm_says(model, "some of its gains are zero, so that it cannot write every vector"))
    return replace(change, out=-change.into / gain, into=change.into * gain)


def put_change(model: Model, shell: Shell, place: Place, change: Change) -> None:
    """Change every tensor of one writer."""
    parts = writer_parts(shell.hf, shell.arch, place)
    shares = shift_shares(model, place, parts) if change.shifts else {}
    if change.shifts and not shares and shell.grow_bias(place):
        parts = writer_parts(shell.hf, shell.arch, place)
        shares = shift_shares(model, place, parts)
    if change.shifts and not shares:
        raise ModelError(no_bias(model, place))
    for part in parts:
        if not change.rank and part.path not in shares:
            continue
        new = changed_weight(shell.hf.get_parameter(part.path), part, change, shares.get(part.path, 0.0))
        if not bool(torch.isfinite(new).all()):
            raise DirectionError(f"{part.path} would hold infinite values in {new.dtype}: the vector is too long")
        shell.put(part.path, new)


def shift_shares(model: Model, place: Place, parts: Sequence[Part]) -> Mapping[str, float]:
    """Which tensors take an addition, and by what factor; empty where none can."""
    if place[1] == "embed":
        path = next(p.path for p in parts if p.kind == "embedding")
        return {path: 1.0 / embedding_scale(model)}
    biases = [p for p in parts if p.bias]
    # A bias outside a mixture is added once. Those of experts are weighted, by what sums to 1 in the mixtures with one.
    outside = [p for p in biases if p.kind != "experts" and ".experts." not in p.path]
    if outside:
        return {outside[-1].path: 1.0}
    return {p.path: 1.0 for p in biases}


@torch.inference_mode()
def embedding_scale(model: Model) -> float:
    """What the stream's first state multiplies a row of the embedding by (Gemma: the root of the width)."""
    table = model.hf.get_input_embeddings().weight
    first, second = (int(i) for i in (table.float() - table.float().mean(0)).norm(dim=1).topk(2).indices)
    seen: list[Tensor] = []
    for token in (first, second):
        with model.edited(_Look(seen)):
            model.hf(input_ids=torch.tensor([[token]], device=model.device), use_cache=False)
    moved, apart = (seen[0] - seen[1]).double(), (table[first] - table[second]).double()
    scale = float(moved @ apart / (apart @ apart))
    if scale == 0 or float((moved - scale * apart).norm() / moved.norm()) > 1e-2:
        raise ModelError(f"{type(model.hf).__name__}: its first state is no multiple of the embedding")
    return scale


class _Look:
    """Looks at the stream as it enters the first block."""

    def __init__(self, seen: list[Tensor]) -> None:
        self.seen = seen

    def ops(self, arch: Any) -> list[Op]:
        del arch

        def change(x: Tensor, _cells: Any) -> Tensor:
            self.seen.append(x.reshape(-1, x.shape[-1])[-1].clone())
            return x

        return [Op("resid_pre", 0, change, ("all",), "both", self)]


def no_bias(model: Model, place: Place) -> str:
    """Why an addition has no place."""
    what = "attention" if place[1] == "attn" else "MLP"
    return (
        f"the {what} of layer {place[0]} of {type(model.hf).__name__} has no bias, and its configuration has no "
        "setting for one that plain transformers would load: keep the vector a run-time edit, export it as an adapter "
        "(steering.lora), or add at resid_pre of layer 0, which is the embedding"
    )
