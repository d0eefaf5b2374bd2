"""Queries, keys, values and pattern told again from each family's own projections, norms and rotary function.

Nothing of `interp.model` is used, and nothing of the attention interface that it taps.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from tests.helpers.tiny import DEVICE

NORM_OF_EVERY_HEAD = ("qwen3", "qwen3_moe", "gemma3", "gemma3_multimodal")
NORM_OF_ALL_HEADS = ("olmo2",)


@torch.no_grad()
def slow_attention(
    hf: Any, family: str, attentions: Sequence[Any], ids: tuple[int, ...]
) -> dict[tuple[str, int], Tensor]:
    """`q`, `k`, `v` of one prompt at every layer, `[token, head * width]`, and `pattern` where attention is eager."""
    outputs: list[dict[str, Tensor]] = [{} for _ in attentions]
    turns: list[tuple[Tensor, Tensor] | None] = [None for _ in attentions]
    handles = []
    for layer, attention in enumerate(attentions):

        def angles(_m: Any, args: Any, kwargs: Any, n: int = layer) -> None:
            turns[n] = kwargs.get("position_embeddings", args[1] if len(args) > 1 else None)

        handles.append(attention.register_forward_pre_hook(angles, with_kwargs=True))
        for name, child in attention.named_children():

            def note(_m: Any, _args: Any, out: Tensor, n: int = layer, name: str = name) -> None:
                outputs[n][name] = out[0]

            handles.append(child.register_forward_hook(note))
    eager = hf.config.get_text_config()._attn_implementation == "eager"
    asked = {"output_attentions": True} if eager else {}
    result = hf(input_ids=torch.tensor([ids], device=DEVICE), use_cache=False, **asked)
    for handle in handles:
        handle.remove()
    found: dict[tuple[str, int], Tensor] = {}
    for layer, attention in enumerate(attentions):
        parts = _split(family, attention, outputs[layer], turns[layer])
        for site, x in zip("qkv", parts, strict=True):
            found[site, layer] = rearrange(x, "h t d -> t (h d)")
        if eager:
            found["pattern", layer] = rearrange(result.attentions[layer][0], "h q k -> q (h k)")
    return found


def _split(family: str, attention: Any, out: dict[str, Tensor], turn: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values `[head, token, width]` from the outputs of an attention's projections."""
    module = sys.modules[type(attention).__module__]
    if family == "deepseek_v3":
        return _latent(attention, out, turn, module)
    if family == "gpt2":
        q, k, v = (_heads(x, 12) for x in out["c_attn"].chunk(3, -1))
        return q, k, v
    if family.startswith("gpt_neox"):
        mixed = rearrange(out["query_key_value"], "t (h three d) -> three h t d", three=3, d=attention.head_size)
        q, k, v = mixed.unbind(0)
    else:
        d = attention.head_dim
        if family == "phi3":
            heads, groups = attention.config.num_attention_heads, attention.config.num_key_value_heads
            q, k, v = out["qkv_proj"].split([heads * d, groups * d, groups * d], -1)
        else:
            q, k, v = (out[f"{name}_proj"] for name in "qkv")
        if family in NORM_OF_ALL_HEADS:
            q, k = attention.q_norm(q), attention.k_norm(k)
        q, k, v = _heads(q, d), _heads(k, d), _heads(v, d)
        if family in NORM_OF_EVERY_HEAD:
            q, k = attention.q_norm(q), attention.k_norm(k)
    q, k = module.apply_rotary_pos_emb(q[None], k[None], *turn)
    return q[0], k[0], v


def _latent(attention: Any, out: dict[str, Tensor], turn: Any, module: Any) -> tuple[Tensor, Tensor, Tensor]:
    """DeepSeek: keys and values from one latent, one rotated part of the key for all heads."""
    plain, turned = attention.qk_nope_head_dim, attention.qk_rope_head_dim
    q = _heads(out["q_b_proj"], plain + turned)
    latent, k_turned = out["kv_a_proj_with_mqa"].split([attention.kv_lora_rank, turned], -1)
    both = _heads(attention.kv_b_proj(attention.kv_a_layernorm(latent)), plain + attention.v_head_dim)
    q_turned, k_turned = module.apply_rotary_pos_emb_interleave(q[None, ..., plain:], k_turned[None, None], *turn)
    q = torch.cat([q[..., :plain], q_turned[0]], -1)
    k = torch.cat([both[..., :plain], k_turned[0].expand(len(both), -1, -1)], -1)
    return q, k, both[..., plain:]


def _heads(x: Tensor, width: int) -> Tensor:
    return rearrange(x, "t (h d) -> h t d", d=width)


def changed_attention(attention: Any, site: str, change: Callable[[Tensor], Tensor]) -> Any:
    """Change `q`, `k` or `v` `[batch, token, feature]` of one module in its family's own eager attention function."""
    module = sys.modules[type(attention).__module__]
    original = module.eager_attention_forward
    place = "qkv".index(site)

    def forward(owner: Any, *args: Any, **kwargs: Any) -> Any:
        if owner is attention:
            values = list(args)
            heads = values[place].shape[1]
            flat = change(rearrange(values[place], "b h t d -> b t (h d)"))
            values[place] = rearrange(flat, "b t (h d) -> b h t d", h=heads)
            args = tuple(values)
        return original(owner, *args, **kwargs)

    module.eager_attention_forward = forward
    return _Undo(module, original)


class _Undo:
    def __init__(self, module: Any, original: Any) -> None:
        self._module, self._original = module, original

    def remove(self) -> None:
        self._module.eager_attention_forward = self._original
