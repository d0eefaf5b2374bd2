"""The organism as a GGUF model that llama.cpp loads: fp32 weights, and its own vocabulary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from interp.model.model import Model

_NAMES = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def write_gguf_model(model: Model, path: Path) -> Path:
    """Write a Llama. Its pre-tokenizer is unknown to llama.cpp, so prompts are given there as token ids."""
    from gguf import GGUFWriter

    config = model.hf.config
    assert config.model_type == "llama" and config.tie_word_embeddings
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    _add_vocabulary(writer, model.tokenizer)
    for name, weight in model.hf.state_dict().items():
        if name != "lm_head.weight":
            found, values = _renamed(name, weight.float().numpy(), config)
            writer.add_tensor(found, np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _renamed(name: str, values: Any, config: Any) -> tuple[str, Any]:
    if not name.startswith("model.layers."):
        return {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}[
            name
        ], values
    layer, _, rest = name.removeprefix("model.layers.").partition(".")
    part = rest.removesuffix(".weight")
    heads = {"self_attn.q_proj": config.num_attention_heads, "self_attn.k_proj": config.num_key_value_heads}.get(part)
    if heads:
        # transformers turns the first half of a head against the second; llama.cpp, every number against the next.
        values = values.reshape(heads, 2, -1, values.shape[-1]).swapaxes(1, 2).reshape(values.shape)
    return f"blk.{layer}.{_NAMES[part]}.weight", values


def _add_vocabulary(writer: Any, tokenizer: Any) -> None:
    from gguf import TokenType

    core = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    names = {i: token for token, i in tokenizer.get_vocab().items()}
    special = set(tokenizer.all_special_ids)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([names[i] for i in range(len(names))])
    writer.add_token_types([TokenType.CONTROL if i in special else TokenType.NORMAL for i in range(len(names))])
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in core["merges"]])
    writer.add_eos_token_id(tokenizer.eos_token_id)
