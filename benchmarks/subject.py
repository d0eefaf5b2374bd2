"""What is measured on: models built from configs with random weights, one thread, on random tokens."""

from __future__ import annotations

import random
from typing import Any

import torch
import transformers
from transformers import AutoTokenizer

import interp
from interp.text.encoded import Encoded
from interp.text.prompts import Prompt

VOCABULARY = 8192
_SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8,
    "num_attention_heads": 8, "num_key_value_heads": 4, "max_position_embeddings": 1024, "bos_token_id": 1,
    "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
_BIG: dict[str, Any] = {
    **_SMALL, "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 12, "num_attention_heads": 16,
    "num_key_value_heads": 8,
}  # fmt: skip
_MOE: dict[str, Any] = {
    **_SMALL, "head_dim": 64, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 704,
}  # fmt: skip
SUBJECTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama 512 x 8": ("Llama", _SMALL),
    "llama 1024 x 12": ("Llama", _BIG),
    "qwen3 512 x 8": ("Qwen3", {**_SMALL, "head_dim": 64}),
    "qwen3-moe 512 x 8": ("Qwen3Moe", _MOE),
}


def build(name: str = "llama 512 x 8", dtype: torch.dtype = torch.float32) -> interp.Model:
    """The model, with the organism's tokenizer (which it has no use for)."""
    torch.manual_seed(0)
    kind, shape = SUBJECTS[name]
    config = getattr(transformers, f"{kind}Config")(**shape)
    hf = getattr(transformers, f"{kind}ForCausalLM")(config).to(dtype).eval().requires_grad_(False)
    hf.config.architectures = [type(hf).__name__]
    return interp.load(hf, AutoTokenizer.from_pretrained(interp.organism.path("chat")))


def prompts(n: int, shortest: int, longest: int, seed: int = 0) -> list[Encoded]:
    """Random tokens of evenly spread lengths, in random order."""
    rng = random.Random(seed)
    lengths = [shortest + round(i * (longest - shortest) / max(1, n - 1)) for i in range(n)]
    rng.shuffle(lengths)
    return [
        _encoded(tuple(rng.randrange(1000, VOCABULARY) for _ in range(length)), i) for i, length in enumerate(lengths)
    ]


def _encoded(ids: tuple[int, ...], number: int) -> Encoded:
    return Encoded("", ids, ((0, 0),) * len(ids), {"prompt": (0, len(ids))}, Prompt(f"random {number}"), len(ids))
