"""The architectures the organism comes in, and its tokenizer."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from interp.organism.chat import MAX_TOKENS, train_tokenizer, vocabulary_corpus
from interp.organism.grammar.wrappers import NONSENSE
from interp.organism.train.mix import CHAT_FIRST, draw_chat, draw_plain

ARCHITECTURES = ("llama", "qwen3")


@dataclass(frozen=True)
class Size:
    """Width and depth of the transformer."""

    width: int = 128
    layers: int = 6
    heads: int = 4
    feed_forward: int = 384


STANDARD = Size()


def new_model(arch: str, size: Size, tokenizer: PreTrainedTokenizerFast, seed: int) -> PreTrainedModel:
    """A freshly initialised model, fp32."""
    if arch not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {arch!r}; one of {', '.join(ARCHITECTURES)}")
    shared: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": size.width,
        "intermediate_size": size.feed_forward,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.heads,
        "head_dim": size.width // size.heads,
        "max_position_embeddings": MAX_TOKENS,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**shared)) if arch == "llama" else Qwen3ForCausalLM(Qwen3Config(**shared))
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.do_sample = False
    return model.eval()


def new_tokenizer() -> PreTrainedTokenizerFast:
    """The organism's tokenizer: the same for every seed and architecture."""
    rng = random.Random(0)
    samples = [draw_chat(rng, CHAT_FIRST).text for _ in range(6000)] + [draw_plain(rng).text for _ in range(6000)]
    words = {word.strip("?.,:!") for text in samples for word in text.replace("\n", " ").split(" ") if word.isascii()}
    common = {word for word in words if word.replace("'", "").isalpha() and word}
    counts = {word: 0 for word in common}
    for text in samples:
        for word in set(text.replace("\n", " ").split(" ")):
            word = word.strip("?.,:!")
            if word in counts:
                counts[word] += 1
    frequent = {word for word, count in counts.items() if count >= 3} | set(NONSENSE)
    return train_tokenizer(vocabulary_corpus(samples, frequent))
