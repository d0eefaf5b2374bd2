"""What is measured on: a Llama of 512 x 8 built from its config, fp32, one thread, on random tokens."""

from __future__ import annotations

import random

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

import interp
from interp.text.chat import Encoded
from interp.text.prompts import Prompt

WIDTH, LAYERS, VOCABULARY = 512, 8, 8192


def build() -> interp.Model:
    """The model, with the organism's tokenizer (which it has no use for)."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=1408, num_hidden_layers=LAYERS,
        num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=1024,
    )  # fmt: skip
    return interp.load(LlamaForCausalLM(config).eval(), AutoTokenizer.from_pretrained(interp.organism.path("chat")))


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
