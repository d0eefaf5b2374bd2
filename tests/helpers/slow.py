"""References written the slow and obvious way: one prompt at a time, plain hooks, no cache, no batching.

They know the module names of the families by heart and use nothing of `interp.model`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

import interp
from tests.helpers.tiny import CHATML, tiny_model, tiny_tokenizer

BASIC_SITES = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post", "z")
"""The sites of every sequential block."""
POST_NORM = ("gemma2", "olmo2")
PROMPTS = ["Hi", "How do I bake bread?", "Tell me about the sea, please.", "x y"]


@cache
def loaded(family: str = "llama", template: str = CHATML, **options: Any) -> interp.Model:
    """A tiny model behind `interp.load`; shared, since nothing may change it."""
    return interp.load(tiny_model(family), tiny_tokenizer(template), **options)


@cache
def lively() -> interp.Model:
    """A tiny Llama whose words vary from step to step, where `loaded` soon repeats itself."""
    hf = tiny_model()
    with torch.no_grad():
        for name, weight in hf.named_parameters():
            if weight.ndim > 1 and "embed" not in name:
                weight.mul_(4.0)
    return interp.load(hf, tiny_tokenizer())


def attn_module(block: Any, family: str) -> Any:
    return block.post_attention_layernorm if family in POST_NORM else block.self_attn


def mlp_module(block: Any, family: str) -> Any:
    return block.post_feedforward_layernorm if family in POST_NORM else block.mlp


Change = Callable[[Tensor], Tensor]


@contextmanager
def hooked(hf: Any, family: str, changes: dict[tuple[str, int], Change]) -> Iterator[None]:
    """Apply a change `[batch, token, width] -> same` at each (site, layer) by an ordinary hook."""
    handles = []

    def before(change: Change) -> Any:
        def hook(_m: Any, args: Any, kwargs: Any) -> Any:
            if args:
                return (change(args[0]), *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

        return hook

    def after(change: Change) -> Any:
        def hook(_m: Any, _args: Any, out: Any) -> Any:
            return (change(out[0]), *out[1:]) if isinstance(out, tuple) else change(out)

        return hook

    for (site, layer), change in changes.items():
        block = hf.model.layers[layer]
        if site == "resid_pre":
            handles.append(block.register_forward_pre_hook(before(change), with_kwargs=True))
        elif site == "z":
            handles.append(block.self_attn.o_proj.register_forward_pre_hook(before(change), with_kwargs=True))
        elif site == "attn_out":
            handles.append(attn_module(block, family).register_forward_hook(after(change)))
        elif site == "mlp_out":
            handles.append(mlp_module(block, family).register_forward_hook(after(change)))
        elif site == "resid_post":
            handles.append(block.register_forward_hook(after(change)))
        elif site == "resid_mid" and family not in POST_NORM:
            # In a block with norms before, what the second norm is given is the middle of the stream; moving the
            # stream itself takes the block apart.
            handles.append(_retold_block(block, change))
        else:
            raise NotImplementedError(site)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Restore:
    def __init__(self, block: Any, forward: Any) -> None:
        self.block, self.forward = block, forward

    def remove(self) -> None:
        del self.block.forward


def _retold_block(block: Any, change: Change) -> _Restore:
    def forward(hidden_states: Tensor, **kwargs: Any) -> Tensor:
        attended = block.self_attn(hidden_states=block.input_layernorm(hidden_states), **kwargs)[0]
        middle = change(hidden_states + attended)
        return middle + block.mlp(block.post_attention_layernorm(middle))

    old = block.forward
    block.forward = forward
    return _Restore(block, old)


@torch.no_grad()
def slow_read(
    hf: Any, family: str, ids: tuple[int, ...], changes: dict[Any, Change] | None = None
) -> dict[str, Tensor]:
    """Every site of one prompt, `[layer, token, width]`, and the `logits` `[token, vocabulary]`."""
    got: dict[tuple[str, int], Tensor] = {}

    def keep(site: str, layer: int) -> Change:
        def change(x: Tensor) -> Tensor:
            got[site, layer] = x[0].clone()
            return x

        return change

    layers = range(len(hf.model.layers))
    reads = {(s, n): keep(s, n) for s in ("resid_pre", "attn_out", "mlp_out", "resid_post", "z") for n in layers}
    with hooked(hf, family, changes or {}), hooked(hf, family, reads):
        logits = hf(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()
    found = {
        site: torch.stack([got[site, n] for n in layers])
        for site in ("resid_pre", "attn_out", "mlp_out", "resid_post", "z")
    }
    found["resid_mid"] = found["resid_pre"] + found["attn_out"]
    return {**found, "logits": logits}


@torch.no_grad()
def slow_greedy(
    hf: Any,
    family: str,
    ids: tuple[int, ...],
    steps: int,
    changes: Callable[[int], dict[Any, Change]] = lambda _n_prompt: {},
    ends: tuple[int, ...] = (),
) -> tuple[list[int], list[Tensor]]:
    """Greedy tokens and their logits, the whole text run again for every token, without a cache."""
    tokens, scores = list(ids), []
    for _ in range(steps):
        logits = slow_read(hf, family, tuple(tokens), changes(len(ids)))["logits"][-1]
        scores.append(logits)
        tokens.append(int(logits.argmax()))
        if tokens[-1] in ends:
            break
    return tokens[len(ids) :], scores


def at(columns: list[int] | slice, change: Change) -> Change:
    """A change at some tokens only."""

    def masked(x: Tensor) -> Tensor:
        x = x.clone()
        x[:, columns] = change(x[:, columns])
        return x

    return masked


def fingerprint(hf: Any) -> str:
    """Digest of every weight and buffer, and of the number of hooks on every module."""
    total = hashlib.sha256()
    for key, value in sorted({**dict(hf.named_parameters()), **dict(hf.named_buffers())}.items()):
        total.update(key.encode() + value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return f"{total.hexdigest()} {count_hooks(hf)} {hf.training}"


def count_hooks(hf: Any) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(m, kind)) for m in hf.modules() for kind in kinds) + sum(
        "forward" in vars(m) for m in hf.modules()
    )
