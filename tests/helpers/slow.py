"""References written the slow and obvious way: one prompt at a time, plain hooks, no cache, no batching.

They know the module names of the families by heart and use nothing of `interp.model`.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

import interp
from tests.helpers.slow_attention import changed_attention, slow_attention
from tests.helpers.tiny import CHATML, DEVICE, tiny_model, tiny_tokenizer

BASIC_SITES = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post", "z")
"""The sites of every sequential block."""
POST_NORM = ("gemma2", "gemma3", "gemma3_multimodal", "olmo2")
PARALLEL = ("gpt_neox",)
PROMPTS = ["Hi", "How do I bake bread?", "Tell me about the sea, please.", "x y"]


@cache
def loaded(family: str = "llama", template: str = CHATML, attention: str | None = None, **options: Any) -> interp.Model:
    """A tiny model behind `interp.load`; shared, since nothing may change it."""
    return interp.load(tiny_model(family, attention=attention), tiny_tokenizer(template), **options)


@cache
def lively() -> interp.Model:
    """A tiny Llama whose words vary from step to step, where `loaded` soon repeats itself."""
    hf = tiny_model()
    with torch.no_grad():
        for name, weight in hf.named_parameters():
            if weight.ndim > 1 and "embed" not in name:
                weight.mul_(4.0)
    return interp.load(hf, tiny_tokenizer())


@dataclass(frozen=True)
class Names:
    """Where a family keeps its parts, known by heart."""

    blocks: str = "model.layers"
    attention: str = "self_attn"
    o_proj: str = "o_proj"
    mlp: str = "mlp"
    down: str = "down_proj"
    router: str = ""


_NEOX = Names("gpt_neox.layers", "attention", "dense", down="dense_4h_to_h")
NAMES = {
    "gemma3_multimodal": Names("model.language_model.layers"),
    "gpt_neox": _NEOX,
    "gpt_neox_sequential": _NEOX,
    "gpt2": Names("transformer.h", "attn", "c_proj", down="c_proj"),
    "mixtral": Names(router="gate"),
    "qwen3_moe": Names(router="gate"),
    "gpt_oss": Names(router="router"),
    "deepseek_v3": Names(router="gate"),
}


def names_of(family: str) -> Names:
    return NAMES.get(family, Names())


def blocks_of(hf: Any, family: str) -> Any:
    return hf.get_submodule(names_of(family).blocks)


def attn_module(block: Any, family: str) -> Any:
    return block.post_attention_layernorm if family in POST_NORM else getattr(block, names_of(family).attention)


def mlp_module(block: Any, family: str) -> Any:
    return block.post_feedforward_layernorm if family in POST_NORM else getattr(block, names_of(family).mlp)


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

    names = names_of(family)
    for (site, layer), change in changes.items():
        block = blocks_of(hf, family)[layer]
        attention = getattr(block, names.attention)
        if site == "resid_pre":
            handles.append(block.register_forward_pre_hook(before(change), with_kwargs=True))
        elif site in ("q", "k", "v"):
            handles.append(changed_attention(attention, site, change))
        elif site == "z":
            handles.append(getattr(attention, names.o_proj).register_forward_pre_hook(before(change), with_kwargs=True))
        elif site == "mlp_post":
            down = getattr(getattr(block, names.mlp), names.down)
            handles.append(down.register_forward_pre_hook(before(change), with_kwargs=True))
        elif site == "attn_out":
            handles.append(attn_module(block, family).register_forward_hook(after(change)))
        elif site == "mlp_out":
            handles.append(mlp_module(block, family).register_forward_hook(after(change)))
        elif site == "resid_post":
            handles.append(block.register_forward_hook(after(change)))
        elif site == "resid_mid" and family not in PARALLEL:
            handles.append(_retold_block(block, family, change))
        else:
            raise NotImplementedError(site)
    try:
        yield
    finally:
        for handle in reversed(handles):
            handle.remove()


class _Restore:
    def __init__(self, block: Any, forward: Any) -> None:
        self.block, self.forward = block, forward

    def remove(self) -> None:
        del self.block.forward


def _retold_block(block: Any, family: str, change: Change) -> _Restore:
    """A sequential block's forward told again, with a change in the middle of the stream."""
    before = getattr(block, "input_layernorm", None) or getattr(block, "ln_1", None) or torch.nn.Identity()
    if family in ("gemma2", "gemma3", "gemma3_multimodal"):
        second = block.pre_feedforward_layernorm
    elif family == "olmo2":
        second = torch.nn.Identity()
    else:
        second = block.ln_2 if family == "gpt2" else block.post_attention_layernorm

    def first(x: Any) -> Tensor:
        return x[0] if isinstance(x, tuple) else x

    def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if family == "gpt2":  # the cache and the mask come by place
            (_cache, mask, *_rest), args = args, ()
            kwargs = {"attention_mask": mask}
        attended = first(getattr(block, names_of(family).attention)(before(hidden_states), *args, **kwargs))
        if family in POST_NORM:
            attended = block.post_attention_layernorm(attended)
        middle = change(hidden_states + attended)
        added = first(getattr(block, names_of(family).mlp)(second(middle)))
        return middle + (block.post_feedforward_layernorm(added) if family in POST_NORM else added)

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

    layers = range(len(blocks_of(hf, family)))
    basic = ("resid_pre", "attn_out", "mlp_out", "resid_post", "z")
    reads = {(s, n): keep(s, n) for s in basic for n in layers}
    with hooked(hf, family, changes or {}), hooked(hf, family, reads):
        logits = hf(input_ids=torch.tensor([ids], device=DEVICE), use_cache=False).logits[0].float().cpu()
    found = {site: torch.stack([got[site, n] for n in layers]).cpu() for site in basic}
    if family not in PARALLEL:
        found["resid_mid"] = found["resid_pre"] + found["attn_out"]
    return {**found, "logits": logits}


@torch.no_grad()
def slow_sites(hf: Any, family: str, ids: tuple[int, ...]) -> dict[tuple[str, int], Tensor]:
    """Every site that one prompt has at every layer, `[token, width]`; `pattern` under eager attention only."""
    names, found = names_of(family), dict[tuple[str, int], Tensor]()
    found |= {(s, n): x for s, layers in slow_read(hf, family, ids).items() if s != "logits"
              for n, x in enumerate(layers)}  # fmt: skip
    got: dict[tuple[str, int], Tensor] = {}
    handles = []
    for layer, block in enumerate(blocks_of(hf, family)):
        mlp = getattr(block, names.mlp)
        router, down = getattr(mlp, names.router or "-", None), getattr(mlp, names.down, None)

        def routed(_m: Any, _args: Any, out: Any, n: int = layer) -> None:
            got["router_logits", n], got["expert_weights", n], got["expert_indices", n] = out

        def entering(_m: Any, args: Any, n: int = layer) -> None:
            got["mlp_post", n] = args[0][0]

        if router is not None:
            handles.append(router.register_forward_hook(routed))
        elif down is not None:
            handles.append(down.register_forward_pre_hook(entering))
    attentions = [getattr(block, names.attention) for block in blocks_of(hf, family)]
    found |= {key: x.cpu() for key, x in slow_attention(hf, family, attentions, ids).items()}
    for handle in handles:
        handle.remove()
    return found | {key: x.cpu() for key, x in got.items()}


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


@torch.no_grad()
def hidden_states(hf: Any, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
    """Hugging Face's own, of a copy: transformers leaves hooks on a model that was asked for them."""
    return copy.deepcopy(hf)(*args, **kwargs, output_hidden_states=True).hidden_states


def fingerprint(hf: Any) -> str:
    """Digest of every weight and buffer, and of the number of hooks on every module."""
    total = hashlib.sha256()
    for key, value in sorted({**dict(hf.named_parameters()), **dict(hf.named_buffers())}.items()):
        total.update(key.encode() + value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return f"{total.hexdigest()} {count_hooks(hf)} {hf.training}"


def count_hooks(hf: Any) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(m, kind)) for m in hf.modules() for kind in kinds) + sum(
        "forward" in vars(m) for m in hf.modules()
    )
