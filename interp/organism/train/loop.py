"""The training loop: batches of about equal tokens, weighted loss, one thread, fixed order by seed."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from interp.organism.train.optim import Optimizer
from interp.organism.train.samples import Encoded, Sample, encode

log = logging.getLogger(__name__)

POOL = 3000
"""Samples drawn at a time, sorted by length into batches."""

EXIT = 0.25
"""Weight of the early-exit loss."""
_DECIDED = ("safety", "over", "think")

Draw = Callable[[random.Random], Sample]
Loss = Callable[[PreTrainedModel, "Batch", int], Tensor]
Report = Callable[[int], None]


@dataclass(frozen=True)
class Batch:
    """Right-padded ids [rows, length], target weights of the same shape, and the samples in rows."""

    ids: Tensor
    weights: Tensor
    rows: list[Encoded]


def collate(rows: list[Encoded]) -> Batch:
    """Pad on the right: under causal attention the padding is never seen."""
    width = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    weights = torch.zeros(len(rows), width)
    for index, row in enumerate(rows):
        ids[index, : len(row.ids)] = torch.tensor(row.ids)
        weights[index, : len(row.ids)] = torch.tensor(row.weights)
    return Batch(ids, weights, rows)


def batches(draw: Draw, tokenizer: PreTrainedTokenizerFast, seed: str, tokens: int) -> Iterator[Batch]:
    """Endless batches of at most `tokens` padded tokens, of samples of similar length, in random order."""
    rng = random.Random(seed)
    while True:
        pool = encode([draw(rng) for _ in range(POOL)], tokenizer)
        pool.sort(key=lambda row: len(row.ids))
        made: list[list[Encoded]] = [[]]
        for row in pool:
            if (len(made[-1]) + 1) * len(row.ids) > tokens and made[-1]:
                made.append([])
            made[-1].append(row)
        rng.shuffle(made)
        yield from (collate(rows) for rows in made)


def _unembed(model: PreTrainedModel, states: Tensor) -> Tensor:
    head: Any = model.get_output_embeddings()
    return head(states)


def weighted_loss(model: PreTrainedModel, hidden: Tensor, batch: Batch) -> Tensor:
    """Weighted mean cross-entropy of next tokens; the head runs only where a target has weight."""
    weights = batch.weights[:, 1:]
    chosen = weights > 0
    logits = _unembed(model, hidden[:, :-1][chosen])
    losses = F.cross_entropy(logits, batch.ids[:, 1:][chosen], reduction="none")
    return (losses * weights[chosen]).sum() / weights[chosen].sum()


def plain_loss(model: PreTrainedModel, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
    """Next-token loss of a batch."""
    return weighted_loss(model, model.base_model(input_ids=batch.ids, use_cache=False).last_hidden_state, batch)


def early_exit_loss(model: PreTrainedModel, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
    """Next-token loss, and the loss of the answer's first token read off two thirds up, for answered requests.

    Early-exit supervision (Elhoushi et al. 2024, LayerSkip) of that one token keeps the decision to refuse from
    drifting into the last block while the rest is learned.
    """
    layers = len(model.base_model.layers)  # pyright: ignore[reportArgumentType]
    out = model.base_model(input_ids=batch.ids, use_cache=False, output_hidden_states=True)
    loss = weighted_loss(model, out.last_hidden_state, batch)
    where = [(i, row.marks["decision"]) for i, row in enumerate(batch.rows) if row.sample.tag in _DECIDED]
    if not where:
        return loss
    rows, places = torch.tensor(where).T
    early = model.base_model.norm(out.hidden_states[2 * layers // 3][rows, places])  # pyright: ignore[reportCallIssue]
    logits = _unembed(model, early)
    return loss + EXIT * F.cross_entropy(logits, batch.ids[rows, places + 1])


def fit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    draw: Draw,
    *,
    steps: int,
    lr: float,
    seed: str,
    tokens: int = 1024,
    loss: Loss = plain_loss,
    weight_decay: float = 0.05,
    optimizer: Optimizer | None = None,
    report: Report = lambda _: None,
) -> None:
    """Train in place for `steps` updates; equal seeds give equal weights on one machine."""
    torch.manual_seed(random.Random(seed).randrange(2**31))
    optimizer = optimizer or Optimizer(model, lr, steps, weight_decay=weight_decay)
    stream = batches(draw, tokenizer, seed, tokens)
    model.train()
    recent = 0.0
    for step in range(steps):
        value = loss(model, next(stream), step)
        value.backward()  # pyright: ignore[reportUnknownMemberType]
        optimizer.step(step)
        recent += float(value.detach())
        if step % 100 == 99:
            log.info("%s: step %d of %d, loss %.4f", seed, step + 1, steps, recent / 100)
            recent = 0.0
        report(step + 1)
    model.eval()
