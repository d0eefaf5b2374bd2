"""Mixtures of experts by hand: loops over tokens and experts, and nothing of `interp`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from transformers import (
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

import interp
from tests.helpers.tiny import SHAPE, tiny_tokenizer

_QWEN: dict[str, Any] = {**SHAPE, "head_dim": 16, "num_experts": 6, "num_experts_per_tok": 2}
_QWEN |= {"moe_intermediate_size": 32}
_DEEPSEEK: dict[str, Any] = {
    **SHAPE, "num_key_value_heads": 4, "n_routed_experts": 8, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1,
    "moe_intermediate_size": 32, "first_k_dense_replace": 1, "kv_lora_rank": 16, "q_lora_rank": 24,
    "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 12, "n_shared_experts": 1,
}  # fmt: skip
MIXTURES: dict[str, Callable[[], Any]] = {
    "mixtral": lambda: MixtralForCausalLM(MixtralConfig(**SHAPE, num_local_experts=6, num_experts_per_tok=2)),
    "mixtral of 24": lambda: MixtralForCausalLM(MixtralConfig(**SHAPE, num_local_experts=24, num_experts_per_tok=2)),
    "qwen3_moe": lambda: Qwen3MoeForCausalLM(Qwen3MoeConfig(**_QWEN, norm_topk_prob=True)),
    "qwen3_moe, not renormalised": lambda: Qwen3MoeForCausalLM(Qwen3MoeConfig(**_QWEN, norm_topk_prob=False)),
    "gpt_oss": lambda: GptOssForCausalLM(
        GptOssConfig(**SHAPE, head_dim=16, num_local_experts=6, num_experts_per_tok=3, sliding_window=32)
    ),
    "deepseek_v3": lambda: DeepseekV3ForCausalLM(DeepseekV3Config(**_DEEPSEEK)),
}
FAMILIES = tuple(name for name in MIXTURES if name != "mixtral of 24")


def tiny_mixture(name: str) -> Any:
    """A small random model with nothing left at 0 or 1."""
    torch.manual_seed(0)
    hf = MIXTURES[name]().eval()
    biases = {key: value for key, value in hf.named_buffers() if "bias" in key}
    with torch.no_grad():
        for key, weight in [*hf.named_parameters(), *biases.items()]:
            if weight.ndim == 1 or "bias" in key:
                weight.copy_(torch.randn_like(weight) * 0.2 + (1.0 if "norm" in key else 0.0))
            else:
                weight.copy_(torch.randn_like(weight) * (0.3 if "mlp" in key else 0.1))
    return hf


@cache
def mixture(name: str) -> interp.Model:
    """A tiny mixture of experts behind `interp.load`; shared, since nothing may change it."""
    return interp.load(tiny_mixture(name), tiny_tokenizer())


@dataclass(frozen=True)
class Hand:
    """What is done by hand at some tokens of one layer."""

    mode: str
    experts: Sequence[int]
    columns: Collection[int] | None = None


def chosen_by_hand(mlp: Any, logits: Tensor, hand: Hand | None) -> dict[int, Tensor]:
    """One token's experts and their weights."""
    router = mlp.router if hasattr(mlp, "router") else mlp.gate
    mode, experts = (hand.mode, list(hand.experts)) if hand else ("none", [])
    logits = logits.clone()
    if mode == "force":
        logits[experts] = logits.max()
    allowed = [e for e in range(len(logits)) if not (mode == "mask_pre_topk" and e in experts)]
    forced = experts if mode == "force" else []
    kind = type(router).__name__
    if kind == "DeepseekV3TopkRouter":
        score = logits.sigmoid()
        ranked = score + router.e_score_correction_bias
        size = len(logits) // router.num_group
        groups = [[e for e in allowed if e // size == g] for g in range(router.num_group)]
        merit = [sum(sorted((float(ranked[e]) for e in group), reverse=True)[:2]) for group in groups]
        best = sorted(range(router.num_group), key=lambda g: -merit[g])[: router.topk_group]
        candidates = [e for g in best for e in groups[g]]
    else:
        score = torch.full_like(logits, 0.0)
        score[allowed] = torch.softmax(logits[allowed], 0)
        ranked, candidates = logits, allowed
    order = forced + sorted((e for e in candidates if e not in forced), key=lambda e: -float(ranked[e]))
    chosen = order[: router.top_k]
    weights = {e: score[e] for e in chosen}
    total = torch.stack(list(weights.values())).sum()
    if kind != "Qwen3MoeTopKRouter" or router.norm_topk_prob:
        weights = {e: w / total for e, w in weights.items()}
    if kind == "DeepseekV3TopkRouter":
        weights = {e: w * router.routed_scaling_factor for e, w in weights.items()}
    if mode == "drop_renorm":
        before = torch.stack(list(weights.values())).sum()
        kept = {e: w for e, w in weights.items() if e not in experts}
        left = sum(kept.values(), torch.tensor(0.0))
        weights = {e: w * before / left for e, w in kept.items()}
    return weights


def one_expert(experts: Any, e: int, x: Tensor) -> Tensor:
    """What one expert makes of one token."""
    if hasattr(experts, "gate_up_proj_bias"):  # gpt-oss: transposed, gate and up interleaved
        both = x @ experts.gate_up_proj[e] + experts.gate_up_proj_bias[e]
        gate, up = both[0::2].clamp(max=experts.limit), both[1::2].clamp(-experts.limit, experts.limit)
        hidden = (up + 1) * gate * torch.sigmoid(experts.alpha * gate)
        return hidden @ experts.down_proj[e] + experts.down_proj_bias[e]
    gate, up = (experts.gate_up_proj[e] @ x).chunk(2)
    return experts.down_proj[e] @ (torch.nn.functional.silu(gate) * up)


def mixture_by_hand(mlp: Any, x: Tensor, hand: Hand | None) -> Tensor:
    """The whole block, `[token, d_model]`."""
    router = mlp.router if hasattr(mlp, "router") else mlp.gate
    out = torch.zeros_like(x)
    for t, token in enumerate(x):
        logits = router.weight @ token + (router.bias if hasattr(router, "bias") else 0)
        here = hand if hand and (hand.columns is None or t in hand.columns) else None
        for e, weight in chosen_by_hand(mlp, logits, here).items():
            out[t] += weight * one_expert(mlp.experts, e, token)
    return out + mlp.shared_experts(x) if hasattr(mlp, "shared_experts") else out


@contextmanager
def by_hand(hf: Any, hands: dict[int, Hand | None]) -> Iterator[None]:
    """Replace the mixtures of some layers by their slow selves."""
    with ExitStack() as stack:
        for layer, hand in hands.items():
            mlp = hf.model.layers[layer].mlp

            def forward(hidden_states: Tensor, mlp: Any = mlp, hand: Hand | None = hand) -> Any:
                out = mixture_by_hand(mlp, hidden_states[0], hand)[None]
                return (out, None) if hasattr(mlp, "router") else out

            mlp.forward = forward
            stack.callback(delattr, mlp, "forward")
        yield


@torch.no_grad()
def slow_logits(hf: Any, ids: Sequence[int], hands: dict[int, Hand | None]) -> Tensor:
    """Logits `[token, vocabulary]` of one prompt."""
    with by_hand(hf, hands):
        return hf(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0].float()
