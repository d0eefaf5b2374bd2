"""What a repair trains on: texts as token ids, and the token from which the loss is taken.

A repairing example is the model's own thought, the template that ends it, and a refusal; a retained one is a harmless
rollout as the model wrote it (arXiv 2510.06036, section 5 and official code, for the first).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from interp.errors import ModelError, PromptError, PromptTooLongError
from interp.model.model import Model
from interp.text.encoded import as_prompt
from interp.text.judge import Judge, judge
from interp.tracing.traces import Traces

LossOn = Literal["response", "answer"]
DEFAULT_REFUSAL = "I'm sorry, but I can't help with that."
"""Where neither the user nor the model gives one."""
_LONGEST = 128


@dataclass(frozen=True)
class Example:
    """A text to train on.

    Attributes:
        ids: Prompt, thought, answer and the token that ends the turn.
        start: Index of the first token that the loss is taken on.
    """

    ids: tuple[int, ...]
    start: int

    def __len__(self) -> int:
        return len(self.ids)


def make_examples(model: Model, traces: Traces, loss_on: LossOn = "response") -> list[Example]:
    """Traces as texts to train on, answers as they are.

    Args:
        model: The model, in thinking mode.
        traces: Thoughts whole, answers there.
        loss_on: `"response"`: the loss is taken on everything after the prompt: thought, template, answer and the end
            of the turn; `"answer"`: on the last two alone.

    Raises:
        PromptError: When a thought is not whole, an answer is missing, or a text does not fit the context.
        ModelError: When the template names no token that ends a turn.
    """
    if loss_on not in ("response", "answer"):
        raise PromptError(f"loss_on={loss_on!r} is not known; known: response, answer")
    traces.require_whole()
    if not model.chat.end_ids:
        raise ModelError(f"neither template nor tokenizer of {model.name} has a token that ends a turn")
    found: list[Example] = []
    for number, (trace, encoded) in enumerate(zip(traces, model.encode(list(traces)), strict=True)):
        if not trace.answer.strip():
            raise PromptError(f"trace {number} ({as_prompt(trace).text[:50]!r}) has no answer to train on")
        ids = (*encoded.ids, model.chat.end_ids[0])
        if model.chat.max_tokens is not None and len(ids) > model.chat.max_tokens:
            raise PromptTooLongError(
                f"trace {number} has {len(ids)} tokens with its refusal, more than the model's context of "
                f"{model.chat.max_tokens}: {as_prompt(trace).text[:50]!r}"
            )
        found.append(Example(ids, encoded.spans["answer"][0] if loss_on == "answer" else encoded.n_prompt))
    return found


def with_refusals(
    model: Model,
    traces: Traces,
    refusals: Sequence[str] | None = None,
    *,
    judged: Judge = judge,
    seed: int = 0,
    progress: bool = False,
) -> tuple[Traces, Mapping[str, int]]:
    """Put a refusal in place of every answer.

    Args:
        model: The model.
        traces: Traces; their thoughts stay.
        refusals: Texts to draw from by the seed. By default the model's own: what it answers to the same prompt with
            thinking off, if that can be and it refuses; else one that it gives to another; else a plain sentence.
        judged: Judges the model's own answers.
        seed: For draws.
        progress: Show a progress bar.

    Returns:
        The traces, and how many refusals came from where: "given", "own", "own, to another prompt", "default".

    Raises:
        PromptError: For no refusal at all, or a blank one.
    """
    rng = np.random.default_rng([seed, 2])
    if refusals is not None:
        texts = [refusals] if isinstance(refusals, str) else list(refusals)
        if not texts or not all(isinstance(t, str) and t.strip() for t in texts):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise PromptError("refusals have to be one text or several, none of them blank")
        drawn = [texts[int(rng.integers(len(texts)))].strip() for _ in traces]
        return _answered(traces, drawn), {"given": len(traces)}
    own: list[str | None] = [None] * len(traces)
    if model.chat.switch is not None:
        plain = model.with_format(thinking=False)
        written = plain.generate(traces.prompts, max_new_tokens=_LONGEST, progress=progress)
        own = [c.answer if c.finished and judged(c.prompt.text, c.answer).refused else None for c in written]
    known = [text for text in own if text is not None]
    answers: list[str] = []
    origin: list[str] = []
    for text in own:
        spare = known[int(rng.integers(len(known)))] if known else DEFAULT_REFUSAL
        answers.append(spare if text is None else text)
        origin.append("own" if text is not None else ("own, to another prompt" if known else "default"))
    return _answered(traces, answers), dict(Counter(origin))


def pad_examples(examples: Sequence[Example], pad: int) -> tuple[Tensor, Tensor]:
    """Right-padded ids `[example, token]`, and whether the loss is taken on a token; never on padding."""
    width = max(len(e) for e in examples)
    ids = torch.full((len(examples), width), pad, dtype=torch.long)
    taken = torch.zeros(len(examples), width, dtype=torch.bool)
    for row, example in enumerate(examples):
        ids[row, : len(example)] = torch.tensor(example.ids)
        taken[row, example.start : len(example)] = True
    return ids, taken


def mean_losses(logits: Tensor, ids: Tensor, taken: Tensor) -> Tensor:
    """Each example's mean cross-entropy over the tokens that the loss is taken on, `[example]`.

    Args:
        logits: `[cell, vocabulary]`, at the tokens *before* those that the loss is taken on, row by row.
        ids: `[example, token]`.
        taken: Likewise; never true at a row's first token.
    """
    losses = F.cross_entropy(logits.float(), ids[taken], reduction="none")
    rows = taken.nonzero()[:, 0]
    total = torch.zeros(len(ids), device=losses.device, dtype=losses.dtype).index_add(0, rows, losses)
    return total / taken.sum(1)


def _answered(traces: Traces, answers: Sequence[str]) -> Traces:
    return replace(traces, traces=tuple(replace(t, answer=a) for t, a in zip(traces, answers, strict=True)))
