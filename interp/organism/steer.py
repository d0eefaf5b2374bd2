"""The few interventions the card needs, as plain PyTorch hooks: so that it checks the other rooms and not itself."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


def blocks(model: PreTrainedModel) -> nn.ModuleList:
    """The decoder blocks of a Llama-like model."""
    return model.base_model.layers  # pyright: ignore[reportReturnType]


def _unit(direction: Tensor) -> Tensor:
    return direction / direction.norm()


@contextmanager
def added(model: PreTrainedModel, layer: int, change: Tensor) -> Generator[None]:
    """Add `change` [batch, prompt, width] to the input of block `layer`, while the prompt is read."""

    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        hidden = args[0]
        if hidden.shape[1] != change.shape[1]:
            return None
        return (hidden + change, *args[1:]), kwargs

    handle = blocks(model)[layer].register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def ablated(model: PreTrainedModel, direction: Tensor) -> Generator[None]:
    """Project the direction out of everything written to the residual stream, at every position (Arditi et al.)."""
    unit = _unit(direction)

    def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
        value = output[0] if isinstance(output, tuple) else output
        value = value - (value @ unit)[..., None] * unit
        return (value, *output[1:]) if isinstance(output, tuple) else value

    writers: list[Any] = [model.get_input_embeddings()]
    for block in blocks(model):
        writers += [block.self_attn, block.mlp]
    handles = [writer.register_forward_hook(hook) for writer in writers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def held(model: PreTrainedModel, direction: Tensor, level: float, tokens: int) -> Generator[None]:
    """Set the direction's coordinate to `level` at every block's input: last `tokens` of the prompt, all generated."""
    unit = _unit(direction)

    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        hidden = args[0].clone()
        tail = hidden[:, -tokens:]
        hidden[:, -tokens:] = tail + (level - tail @ unit)[..., None] * unit
        return (hidden, *args[1:]), kwargs

    handles = [block.register_forward_pre_hook(hook, with_kwargs=True) for block in blocks(model)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def hidden_states(model: PreTrainedModel, ids: Tensor, mask: Tensor) -> Tensor:
    """Inputs of every block and the last block's output, before the final norm: [layers + 1, batch, length, width]."""
    kept: list[Tensor] = []
    handles = [
        block.register_forward_pre_hook(lambda _m, args: kept.append(args[0].clone())) for block in blocks(model)
    ]
    handles.append(blocks(model)[-1].register_forward_hook(
        lambda _m, _a, out: kept.append((out[0] if isinstance(out, tuple) else out).clone())
    ))  # fmt: skip
    try:
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        model.base_model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(kept)


@contextmanager
def without_heads(model: PreTrainedModel, heads: Sequence[tuple[int, int]]) -> Generator[None]:
    """Zero the output of attention heads, given as (block, head), before the output projection."""
    size = int(model.config.head_dim)

    def silence(head: int) -> Any:
        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            value = args[0].clone()
            value[..., head * size : (head + 1) * size] = 0.0
            return (value, *args[1:])

        return hook

    projections: list[tuple[Any, int]] = [(blocks(model)[layer].self_attn, head) for layer, head in heads]
    handles = [attention.o_proj.register_forward_pre_hook(silence(head)) for attention, head in projections]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
