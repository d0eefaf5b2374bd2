"""Tiny models of real architectures, built from configs with randomised norm gains, biases, sinks and routers.

`REFUSALKIT_TEST_DEVICE` puts them on another device than the CPU (`make test-gpu`).
"""

from __future__ import annotations

import logging
import os
from functools import cache
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

DEVICE = os.environ.get("REFUSALKIT_TEST_DEVICE", "cpu")
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SHAPE: dict[str, Any] = {
    "vocab_size": 320, "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 3,
}  # fmt: skip
_WIDE: dict[str, Any] = {**SHAPE, "head_dim": 16}  # heads together wider than the stream
_YARN = {
    "rope_type": "yarn", "rope_theta": 10000.0, "factor": 32.0, "original_max_position_embeddings": 16,
    "beta_fast": 32.0, "beta_slow": 1.0,
}  # fmt: skip
_GEMMA: dict[str, Any] = {**_WIDE, "sliding_window": 8}
_VISION: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": 28,
    "patch_size": 14,
}  # fmt: skip
_MLA: dict[str, Any] = {
    **SHAPE, "num_key_value_heads": 4, "n_routed_experts": 8, "num_experts_per_tok": 3, "n_group": 4, "topk_group": 2,
    "moe_intermediate_size": 32, "first_k_dense_replace": 1, "kv_lora_rank": 16, "q_lora_rank": 24,
    "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 12, "n_shared_experts": 1,
}  # fmt: skip
_NEOX: dict[str, Any] = {k: v for k, v in SHAPE.items() if k != "num_key_value_heads"}
_GPT2: dict[str, Any] = {
    "vocab_size": 320, "n_embd": 48, "n_layer": 3, "n_head": 4, "n_positions": 512, "bos_token_id": 1,
    "eos_token_id": 3,
}  # fmt: skip
FAMILIES: dict[str, Any] = {
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**SHAPE)),
    "mistral": lambda: hf.MistralForCausalLM(hf.MistralConfig(**_WIDE, sliding_window=None)),
    "qwen2": lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**SHAPE)),
    "qwen3": lambda: hf.Qwen3ForCausalLM(hf.Qwen3Config(**_WIDE)),
    "gemma2": lambda: hf.Gemma2ForCausalLM(hf.Gemma2Config(**_GEMMA)),
    # Every second block sees everything, as every sixth does in real ones.
    "gemma3": lambda: hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**_GEMMA, layer_types=_alternating())),
    "gemma3_multimodal": lambda: hf.Gemma3ForConditionalGeneration(
        hf.Gemma3Config(
            text_config={**_GEMMA, "layer_types": _alternating()}, vision_config=_VISION, mm_tokens_per_image=4,
            image_token_index=319, boi_token_index=317, eoi_token_index=318,
        )
    ),
    "phi3": lambda: hf.Phi3ForCausalLM(hf.Phi3Config(**SHAPE)),
    "olmo2": lambda: hf.Olmo2ForCausalLM(hf.Olmo2Config(**SHAPE)),
    "gpt_neox": lambda: hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**_NEOX)),
    "gpt_neox_sequential": lambda: hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**_NEOX, use_parallel_residual=False)),
    "gpt2": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(**_GPT2)),
    "mixtral": lambda: hf.MixtralForCausalLM(
        hf.MixtralConfig(**SHAPE, num_local_experts=6, num_experts_per_tok=2, sliding_window=None)
    ),
    "qwen3_moe": lambda: hf.Qwen3MoeForCausalLM(
        hf.Qwen3MoeConfig(**_WIDE, num_experts=6, num_experts_per_tok=2, moe_intermediate_size=32, norm_topk_prob=True)
    ),
    "gpt_oss": lambda: hf.GptOssForCausalLM(
        hf.GptOssConfig(
            **_WIDE, num_local_experts=6, num_experts_per_tok=2, sliding_window=8, rope_parameters=dict(_YARN),
        )
    ),
    "deepseek_v3": lambda: hf.DeepseekV3ForCausalLM(
        hf.DeepseekV3Config(**_MLA, rope_parameters={**_YARN, "mscale": 1.0, "mscale_all_dim": 1.0})
    ),
}  # fmt: skip
MIXTURES = ("mixtral", "qwen3_moe", "gpt_oss", "deepseek_v3")
_CENTRED = ("gemma2", "gemma3", "gemma3_multimodal")
"""Families whose norms multiply by 1 + weight."""


def _alternating() -> list[str]:
    return ["sliding_attention", "full_attention", "sliding_attention"]


def tiny_model(family: str = "llama", seed: int = 0, attention: str | None = None) -> Any:
    """A small random model; gains, biases, sinks and routers are randomised: defaults of 1 and 0 hide errors."""
    torch.manual_seed(seed)
    logging.getLogger("transformers.modeling_rope_utils").setLevel(logging.ERROR)
    model = FAMILIES[family]().eval()
    gain = 0.0 if family in _CENTRED else 1.0
    biases = [(name, buffer) for name, buffer in model.named_buffers() if "bias" in name]
    with torch.no_grad():
        for name, weight in [*model.named_parameters(), *biases]:
            if weight.ndim == 1 or "bias" in name:
                is_gain = weight.ndim == 1 and ("norm" in name or "ln_" in name) and not name.endswith("bias")
                weight.copy_(torch.randn_like(weight) * 0.2 + (gain if is_gain else 0.0))
            else:
                # In a mixture, tokens are to differ more than biases move them, and so in the experts they go to.
                loud = family in MIXTURES and name.endswith((".router.weight", ".gate.weight", "embed_tokens.weight"))
                weight.mul_(12.0 if loud else 3.0)
    if attention:
        model.set_attn_implementation(attention)
    return model.to(DEVICE)


@cache
def tiny_tokenizer(template: str = CHATML) -> PreTrainedTokenizerFast:
    """Byte-level tokenizer (one token a byte) with ChatML specials."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = ["<|pad|>", "<|im_start|>", "<|im_end|>", "<|eos|>", "<think>", "</think>"]
    vocabulary = {token: i for i, token in enumerate([*specials, *alphabet])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<|pad|>", eos_token="<|eos|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>", "<think>", "</think>"],
    )  # fmt: skip
    tokenizer.chat_template = template
    return tokenizer
