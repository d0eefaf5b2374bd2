"""A forward pass with gradients, for what is optimised inside an edit; the model's own weights get none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp.model.batch import Batch
from interp.model.batching import pad
from interp.model.ops import Edit
from interp.model.session import Session
from interp.text.encoded import Encoded

if TYPE_CHECKING:
    from interp.model.model import Model


def answer_logits(model: Model, answered: Sequence[Encoded], edits: Sequence[Edit]) -> tuple[Tensor, Tensor]:
    """Logits that predict each token of given answers, and whose they are; one batch, differentiable.

    Args:
        model: The model, behind the plain backend.
        answered: Prompts with their answers.
        edits: Changes to the forward pass; gradients flow to tensors inside them.

    Returns:
        `[token, vocabulary]`, the first answer's tokens, then the next one's; and each token's prompt `[token]`.
    """
    ids, _, pads = pad(answered, model.pad_id, left=False, device=model.device)
    at = [(b, column) for b, e in enumerate(answered) for column in range(e.n_prompt - 1, len(e) - 1)]
    row, column = torch.tensor(at, device=ids.device).unbind(1)
    batch = Batch(answered, list(range(len(answered))), pads, model.device)
    session = Session(model.arch, edits, model.current_batch, model.backend)
    with session, model._running(batch):  # pyright: ignore[reportPrivateUsage]
        hidden = model._forward(ids)  # pyright: ignore[reportPrivateUsage]
        assert hidden is not None
        logits = model._finish(model.arch.head(hidden[row, column]))  # pyright: ignore[reportPrivateUsage]
    return logits, row
