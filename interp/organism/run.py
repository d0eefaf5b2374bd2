"""Asking an organism: chat-formatted prompts in, greedy answers or hidden states out, batched with left padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from interp.organism.chat import END, PAD, UNTHINK, generation_prompt, turn
from interp.organism.grammar.item import Item
from interp.organism.steer import hidden_states

_BATCH = 100
OPENING = 4
"""New tokens that decide refusal, yes or no, and a letter: all openers are told apart by their first four."""


@dataclass(frozen=True)
class Prompts:
    """Left-padded prompts of one batch: ids and mask [batch, length], and each row's last request token."""

    ids: Tensor
    mask: Tensor
    request: Tensor
    items: Sequence[Item]

    @property
    def length(self) -> int:
        """Padded length."""
        return self.ids.shape[1]


Edit = Callable[[Prompts], AbstractContextManager[None]]


def no_edit(_prompts: Prompts) -> AbstractContextManager[None]:
    """The model as it is."""
    return nullcontext()


def chat_text(item: Item, thinking: bool = False) -> str:
    """The prompt as the chat template renders it."""
    return turn("user", item.prompt) + generation_prompt(thinking)


def batches(
    tokenizer: PreTrainedTokenizerBase, items: Sequence[Item], texts: Sequence[str] | None = None, size: int = _BATCH
) -> list[Prompts]:
    """Prompts in batches; `texts` replaces the plain no-think chat texts (same order as items)."""
    texts = texts or [chat_text(item) for item in items]
    made: list[Prompts] = []
    for start in range(0, len(items), size):
        part = list(items[start : start + size])
        rows: list[list[int]] = tokenizer(list(texts[start : start + size]), add_special_tokens=False)["input_ids"]
        contexts = [turn("user", str(item.meta.get("context", item.prompt))).removesuffix(f"{END}\n") for item in part]
        ends: list[int] = [len(row) for row in tokenizer(contexts, add_special_tokens=False)["input_ids"]]
        width = max(len(row) for row in rows)
        ids = torch.full((len(rows), width), int(cast(int, tokenizer.convert_tokens_to_ids(PAD))))
        mask = torch.zeros_like(ids)
        for index, row in enumerate(rows):
            ids[index, width - len(row) :] = torch.tensor(row)
            mask[index, width - len(row) :] = 1
        request = torch.tensor([width - len(row) + end - 1 for row, end in zip(rows, ends, strict=True)])
        made.append(Prompts(ids, mask, request, part))
    return made


@torch.no_grad()
def answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    items: Sequence[Item],
    *,
    tokens: int = OPENING,
    edit: Edit = no_edit,
    texts: Sequence[str] | None = None,
) -> list[str]:
    """Greedy continuations of at most `tokens` tokens, without the end token; thinking markers are kept."""
    out: list[str] = []
    for prompts in batches(tokenizer, items, texts):
        with edit(prompts):
            made = model.generate(  # pyright: ignore[reportCallIssue]
                input_ids=prompts.ids, attention_mask=prompts.mask, max_new_tokens=tokens, do_sample=False
            )
        out += tokenizer.batch_decode(made[:, prompts.length :], skip_special_tokens=True)
    return out


def thought_and_answer(text: str) -> tuple[str, str]:
    """Split a thinking-mode continuation; an answer is empty when the thought never ended."""
    thought, _, answer = text.partition(UNTHINK)
    return thought.strip(), answer.strip()


def activations(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    items: Sequence[Item],
    texts: Sequence[str] | None = None,
) -> tuple[Tensor, Tensor]:
    """Block inputs (and the last output) at the last request token and at the last prompt token: [item, L + 1, d]."""
    request: list[Tensor] = []
    last: list[Tensor] = []
    for prompts in batches(tokenizer, items, texts):
        states = hidden_states(model, prompts.ids, prompts.mask)
        rows = torch.arange(len(prompts.items))
        request.append(states[:, rows, prompts.request].transpose(0, 1))
        last.append(states[:, :, -1].transpose(0, 1))
    return torch.cat(request), torch.cat(last)
