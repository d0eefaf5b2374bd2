"""Teacher forcing: what a model makes of given answers, token by token, as it is and under edits.

The model reads each prompt with its answer in one forward, so every answer token is predicted from the same words
whatever the edits are. Distributions are as wide as the vocabulary; they are compared a few rows at a time and never
kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp.errors import NonFiniteError, PromptError
from interp.model.batching import TOKEN_BUDGET, plan
from interp.model.ops import Edit
from interp.progress import progress_bar
from interp.text.encoded import Encoded

if TYPE_CHECKING:
    from interp.model.model import Model

Floats = NDArray[np.float64]
_CHUNK = 1 << 24
"""Logits in memory at a time, for each of two distributions."""


@dataclass(frozen=True)
class Forced:
    """How a model under some edits predicts given answers.

    Attributes:
        logprob: For each prompt, the log-probability of each answer token `[token]`, in nats.
        kl: For each prompt, KL(first || this) of the distributions at each answer token `[token]`, in nats, "first"
            being the first of the runs that were compared; zeros for itself.
    """

    logprob: tuple[Floats, ...]
    kl: tuple[Floats, ...]


def with_answer(encoded: Encoded, ids: Sequence[int]) -> Encoded:
    """A prompt with the tokens that were generated after it: the same tokens, not the same text tokenised anew."""
    end = len(encoded.text)
    kept, offsets = encoded.ids[: encoded.n_prompt], encoded.offsets[: encoded.n_prompt]
    return replace(encoded, ids=kept + tuple(ids), offsets=offsets + ((end, end),) * len(ids))


def teacher_forced(
    model: Model,
    answered: Sequence[Encoded],
    runs: Sequence[Sequence[Edit]] = ((),),
    *,
    token_budget: int = TOKEN_BUDGET,
    progress: bool = False,
) -> list[Forced]:
    """Score given answers, in fp32, under each of several sets of edits, and compare them with the first.

    Args:
        model: The model.
        answered: Prompts with their answers: from `with_answer`, or the encoding of a `Trace` with an answer. What
            stands after the prompt is the answer.
        runs: Sets of edits; edits of the generation phase act on the answer's tokens. No edits by default.
        token_budget: Padded tokens per batch.
        progress: Show a progress bar.

    Returns:
        One result per set of edits.

    Raises:
        PromptError: When a prompt has no answer.
        NonFiniteError: When a prediction is NaN or infinite; names the prompt and the edits.
    """
    for number, item in enumerate(answered):
        if len(item) <= item.n_prompt:
            raise PromptError(f"prompt {number} has no answer to score: {item.prompt.text[:60]!r}")
    columns = [range(item.n_prompt - 1, len(item) - 1) for item in answered]
    batches = plan([len(item) for item in answered], token_budget)
    every = [
        model.steps(answered, edits=edits, batches=batches, finals=columns, token_budget=token_budget) for edits in runs
    ]
    found: list[list[tuple[Any, Any]]] = [[(None, None)] * len(answered) for _ in runs]
    with progress_bar("scoring answers", len(answered), progress) as advance:
        for steps in zip(*every, strict=True):
            rows = steps[0].rows
            targets = torch.tensor([t for i in rows for t in answered[i].ids[answered[i].n_prompt :]])
            hidden = [step.finals for step in steps if step.finals is not None]
            for run, (logprob, kl) in enumerate(_compare(model, hidden, targets)):
                ends = np.cumsum([len(columns[i]) for i in rows])[:-1]
                for i, own, far in zip(rows, np.split(logprob, ends), np.split(kl, ends), strict=True):
                    if not (np.isfinite(own).all() and np.isfinite(far).all()):
                        raise NonFiniteError(
                            f"the predictions for {answered[i].prompt.text[:60]!r} are not finite under "
                            f"{list(runs[run]) or 'no edits'}"
                        )
                    found[run][i] = (own, far)
            advance(len(rows))
    return [Forced(tuple(own for own, _ in one), tuple(far for _, far in one)) for one in found]


def _compare(model: Model, hidden: Sequence[Tensor], targets: Tensor) -> list[tuple[Floats, Floats]]:
    """Log-probability of the targets, and KL from the first, for each of several final hidden states `[cell, d]`."""
    scores = torch.zeros(len(hidden), 2, len(targets), dtype=torch.float64)
    vocabulary = int(model.hf.config.get_text_config().vocab_size)
    size = max(1, _CHUNK // vocabulary)
    for start in range(0, len(targets), size):
        at = slice(start, start + size)
        first: Tensor | None = None
        for run, states in enumerate(hidden):
            logs = torch.log_softmax(model.unembed(states[at]).float(), -1)
            scores[run, 0, at] = logs.gather(-1, targets[at, None].to(logs.device))[:, 0].double().cpu()
            if first is None:
                first = logs
                continue
            p = first.exp()
            # Where p is 0 there is nothing to pay, whatever the other says. Rounding may leave -1e-9 of nothing.
            terms = (p * (first - logs)).masked_fill(p == 0, 0.0)
            scores[run, 1, at] = terms.sum(-1).clamp(min=0.0).double().cpu()
    return [(own.numpy(), far.numpy()) for own, far in scores]
