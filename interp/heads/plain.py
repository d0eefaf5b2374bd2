"""The plain pass over a batch, and what the passes that go on from it need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from interp.model.attention_tap import Around, around_attention
from interp.model.batching import pad
from interp.model.model import Model
from interp.text.encoded import Encoded


@dataclass(eq=False)
class Plain:
    """What one plain pass left.

    Attributes:
        rows: The prompts' indices.
        width: Columns of the batch, padding on the right included.
        ends: Each row's last given token.
        entering: For each block, the stream that entered it `[batch, token, d_model]`.
        arguments: For each block, what else it was called with.
        z: For each block, its heads' outputs `[batch, token, n_heads * d_head]`.
        shapes: For each block, how many things its attention returned, 0 for a bare tensor.
        keys: For each block, the keys, values and mask that its attention function was called with, where it was.
        leaving: The stream after the last block that was run, at the last given token `[batch, d_model]`.
    """

    rows: Sequence[int]
    width: int
    ends: Tensor
    entering: list[Tensor] = field(default_factory=list[Tensor])
    arguments: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(
        default_factory=list[tuple[tuple[Any, ...], dict[str, Any]]]
    )
    z: list[Tensor] = field(default_factory=list[Tensor])
    shapes: list[int] = field(default_factory=list[int])
    keys: dict[int, tuple[Tensor, Tensor, Any]] = field(default_factory=dict[int, tuple[Tensor, Tensor, Any]])
    leaving: Tensor = field(default_factory=lambda: torch.empty(0))


class _Enough(Exception):
    """The last block that is needed has run."""


@torch.inference_mode()
def plain_pass(model: Model, encoded: Sequence[Encoded], rows: Sequence[int], last: int, keys: bool) -> Plain:
    """Run a batch through blocks 0 to `last`, as `Model` runs it, and keep what later passes go on from.

    Args:
        model: The model, on plain hooks and without open edits.
        encoded: All prompts.
        rows: Those of the batch.
        last: Last block needed.
        keys: Whether to keep the attention's keys, values and masks.
    """
    arch, items = model.arch, [encoded[i] for i in rows]
    ids, _, _ = pad(items, model.pad_id, left=False, device=model.device)
    ends = torch.tensor([len(e) - 1 for e in items], device=model.device)
    found = Plain(rows, ids.shape[1], ends)
    with ExitStack() as stack:
        for layer in range(last + 1):
            on = [
                arch.blocks[layer].register_forward_pre_hook(_entering(found), with_kwargs=True),
                arch.module(layer, "o_proj").register_forward_pre_hook(_z(found)),
                arch.module(layer, "attention").register_forward_hook(_shape(found)),
            ]
            for handle in on:
                stack.callback(handle.remove)
        stack.callback(arch.blocks[last].register_forward_hook(_leaving(found)).remove)
        if keys:
            watched = {arch.module(layer, "attention"): _keys(found, layer) for layer in range(last + 1)}
            stack.enter_context(around_attention(watched))
        positions = torch.arange(ids.shape[1], device=ids.device)[None].expand_as(ids)
        with suppress(_Enough):
            arch.backbone(input_ids=ids, position_ids=positions, use_cache=False)
    return found


def first(output: Any) -> Tensor:
    """What a block or attention gives, or the first of several things."""
    return output[0] if isinstance(output, tuple) else output


def at_ends(x: Tensor, ends: Tensor) -> Tensor:
    """Rows `[batch, feature]` of `[batch, token, feature]` at one token each."""
    ends = ends.to(x.device)
    return x[torch.arange(len(x), device=x.device), ends]


def map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Change the tensors in nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return change(value)
    if type(value) in (tuple, list):
        return type(value)(map_tensors(v, change) for v in value)
    if type(value) is dict:
        return {k: map_tensors(v, change) for k, v in value.items()}
    return value


def _entering(found: Plain) -> Callable[..., None]:
    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found.entering.append(args[0] if args else kwargs["hidden_states"])
        found.arguments.append((args[1:], {k: v for k, v in kwargs.items() if k != "hidden_states"}))

    return hook


def _z(found: Plain) -> Callable[..., None]:
    def hook(_module: nn.Module, args: tuple[Any, ...]) -> None:
        found.z.append(args[0])

    return hook


def _shape(found: Plain) -> Callable[..., None]:
    def hook(_module: nn.Module, _args: Any, output: Any) -> None:
        found.shapes.append(len(output) if isinstance(output, tuple) else 0)

    return hook


def _leaving(found: Plain) -> Callable[..., None]:
    def hook(_module: nn.Module, _args: Any, output: Any) -> None:
        found.leaving = at_ends(first(output), found.ends)
        raise _Enough

    return hook


def _keys(found: Plain, layer: int) -> Around:
    def around(
        function: Callable[..., Any], module: nn.Module, q: Tensor, k: Tensor, v: Tensor, args: Any, kwargs: Any
    ) -> Any:
        found.keys[layer] = k, v, args[0] if args else kwargs.get("attention_mask")
        return function(module, q, k, v, *args, **kwargs)

    return around
