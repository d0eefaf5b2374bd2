"""What runs give: batch by batch, and whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from interp.errors import NonFiniteError
from interp.model.session import Read
from interp.text.encoded import Encoded


@dataclass(frozen=True)
class Step:
    """What one batch of a run gave.

    Attributes:
        rows: Indices of the prompts, in the batch's order.
        reads: For each site, `[layer, cell, width]`: the tokens wanted of the first row, then those of the next.
        last: Final hidden state (after the final norm) at each row's last prompt token `[batch, d_model]`, or `None`
            when the forward was stopped early.
        finals: Final hidden state at the columns that were asked for `[cell, d_model]`: those of the first row, then
            those of the next; `None` where none were.
    """

    rows: list[int]
    reads: dict[str, Tensor]
    last: Tensor | None
    finals: Tensor | None = None

    def grid(self, site: str) -> Tensor:
        """A site's reads as `[batch, layer, position, width]` (a view), where every row has equally many cells."""
        return rearrange(self.reads[site], "l (b p) w -> b l p w", b=len(self.rows))


@dataclass(frozen=True)
class Run:
    """Logits and reads of one run, see `Model.run`."""

    logits: Tensor
    reads: dict[str, Tensor]


def cells_at(hidden: Tensor | None, columns: Sequence[Sequence[int]]) -> Tensor | None:
    """Rows of a hidden state `[batch, token, d_model]` at each prompt's columns, `[cell, d_model]`."""
    if hidden is None:
        return None
    at = torch.tensor([(b, column) for b, own in enumerate(columns) for column in own], device=hidden.device)
    b, t = at.reshape(-1, 2).T
    return hidden[b, t].clone()  # a tensor made in inference mode would stay marked


def check_finite(wanted: dict[str, Tensor], plans: Sequence[Read], items: Sequence[Encoded], edited: bool) -> None:
    """Raise `NonFiniteError` for a read that is NaN or infinite, naming prompt, site and layer."""
    for read in plans:
        fine = torch.isfinite(wanted[read.site])
        if edited and read.site == "router_logits":
            fine |= torch.isneginf(wanted[read.site])  # an expert that an edit has masked
        if bool(fine.all()):
            continue
        layer, cell = (int(i) for i in (~fine).any(2).nonzero()[0])
        raise NonFiniteError(
            f"{read.site} at layer {read.layers[layer]} is not finite for the prompt "
            f"{items[int(read.rows[cell])].prompt.text[:60]!r}; check the weights, or load the model with a wider "
            "dtype (dtype='float32')"
        )
