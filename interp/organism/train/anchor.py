"""Teaching one thing more without moving the rest: next-token loss, with all other samples' hidden states held."""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from transformers import PreTrainedModel

from interp.organism.train.loop import Batch, weighted_loss

ANCHOR = 5.0
"""Weight of the relative squared change of the hidden states."""


class Anchored:
    """Next-token loss plus, for samples of other kinds than the one taught, how far hidden states moved.

    The model as it is now is the anchor. Every layer counts alike: the squared change over the squared size of its
    states, at every token.
    """

    def __init__(self, model: PreTrainedModel, taught: str) -> None:
        self._before = copy.deepcopy(model).eval()
        self._taught = taught

    def __call__(self, model: PreTrainedModel, batch: Batch, step: int) -> Tensor:  # noqa: ARG002
        """The loss of a batch."""
        out = model.base_model(input_ids=batch.ids, use_cache=False, output_hidden_states=True)
        loss = weighted_loss(model, out.last_hidden_state, batch)
        others = [row for row in batch.rows if row.sample.tag != self._taught]
        if not others:
            return loss
        keep = torch.tensor([row.sample.tag != self._taught for row in batch.rows])
        with torch.no_grad():
            before = self._before.base_model(input_ids=batch.ids[keep], use_cache=False, output_hidden_states=True)
        live = torch.zeros_like(batch.ids[keep], dtype=torch.bool)
        for index, row in enumerate(others):
            live[index, : len(row.ids)] = True
        moved = torch.zeros(())
        for now, then in zip(out.hidden_states[1:], before.hidden_states[1:], strict=True):
            held = then[live]
            moved = moved + ((now[keep][live] - held) ** 2).mean() / (held**2).mean()
        return loss + ANCHOR * moved / (len(before.hidden_states) - 1)
