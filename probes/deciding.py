"""Up to the deciding token: a model's own thoughts as fixed texts, and what an edit costs on them.

The deciding token is the one that the first token of the answer is written from: the prompt's last, or for a model that
thinks, the last of the template's tokens after its thought.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from interp.errors import PromptError
from interp.heads.norms import final_norm
from interp.model.generate import Completion
from interp.model.model import Model
from interp.model.ops import Edit
from interp.text.encoded import Trace
from interp.text.prompts import Prompt

Decision = Trace | Prompt


@dataclass(frozen=True)
class Deciding:
    """Texts that end at the deciding token, from what a model wrote.

    Attributes:
        texts: Prompts, or traces with the model's own thought and no answer.
        replies: The same with the answer the model gave.
        kept: Indices of the completions they are from: a thought that did not end decides nothing.
        position: Name of the deciding token.
    """

    texts: tuple[Decision, ...]
    replies: tuple[Trace, ...]
    kept: tuple[int, ...]
    position: str

    def take(self, rows: Sequence[int]) -> Deciding:
        """Some of them."""
        return Deciding(
            tuple(self.texts[i] for i in rows), tuple(self.replies[i] for i in rows),
            tuple(self.kept[i] for i in rows), self.position,
        )  # fmt: skip


def deciding(model: Model, completions: Sequence[Completion]) -> Deciding:
    """Cut a model's replies at the deciding token.

    Raises:
        PromptError: When no thought came to its end.
    """
    thinks = model.chat.thinks
    kept = [i for i, c in enumerate(completions) if c.answer and (c.thinking or not thinks)]
    if not kept:
        raise PromptError(
            "no reply came as far as an answer" + (", no thought to its end" if thinks else "") + "; raise "
            "max_new_tokens"
        )
    made = [completions[i] for i in kept]
    texts: list[Decision] = [Trace(c.prompt, c.thinking) if thinks else c.prompt for c in made]
    replies = tuple(Trace(c.prompt, c.thinking if thinks else None, c.answer) for c in made)
    return Deciding(tuple(texts), replies, tuple(kept), "think_close[-1]" if thinks else "last")


def divergence(model: Model, texts: Sequence[Decision], edits: Sequence[Edit]) -> Tensor:
    """KL(plain || edited) of the first answer token, in nats, fp64 `[text]`."""
    plain, edited = (torch.log_softmax(model.logits(texts, edits=e).double(), -1) for e in ((), edits))
    return (plain.exp() * (plain - edited)).sum(-1).clamp(min=0)


@torch.inference_mode()
def surprise(model: Model, replies: Sequence[Trace], edits: Sequence[Edit] = ()) -> tuple[Tensor, Tensor]:
    """How unlikely the model finds given replies: nats and tokens of each, fp64 `[reply]`.

    `exp(nats.sum() / tokens.sum())` is the perplexity.
    """
    encoded = model.encode(replies)
    last, norm = model.n_layers - 1, final_norm(model)
    columns = [list(range(e.n_prompt - 1, len(e) - 1)) for e in encoded]
    nats = torch.zeros(len(encoded), dtype=torch.float64)
    for step in model.steps(encoded, [(("resid_post", (last,)), columns)], edits, stop=True):
        stream = step.reads["resid_post"][0].to(model.device)
        wanted = torch.tensor([i for row in step.rows for i in encoded[row].ids[encoded[row].n_prompt :]])
        parts: list[Tensor] = []
        for some, ids in zip(stream.split(512), wanted.split(512), strict=True):
            logs = torch.log_softmax(model.unembed(norm(some)).double(), -1)
            parts.append(-logs.gather(1, ids.to(logs.device)[:, None])[:, 0].cpu())
        sizes = [len(columns[row]) for row in step.rows]
        for row, own in zip(step.rows, torch.cat(parts).split(sizes), strict=True):
            nats[row] = own.sum()
    return nats, torch.tensor([len(c) for c in columns], dtype=torch.float64)
