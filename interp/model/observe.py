"""Watching generation: activations of new tokens go to an observer while the model writes, and it may stop rows.

`interp` never imports upward: whoever watches (a guard, a trace) gives an object with the three members of `Observer`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from interp.errors import NonFiniteError, PromptError, SiteError
from interp.model.batch import Batch
from interp.model.ops import Edit
from interp.model.session import Read, ReadSession
from interp.model.sites import check_layers

if TYPE_CHECKING:
    from interp.model.model import Model

_NOT_TOKENS = ("pattern",)


@dataclass(frozen=True)
class Seen:
    """Activations of the newest token of every row that is still being written.

    Attributes:
        written: Tokens that each row has written; with 0, the newest token is the prompt's last (`t_post_inst`), else
            it is the last one written.
        rows: Indices of the prompts.
        reads: Per site, `[layer, row, width]` in the model's dtype, on the CPU.
    """

    written: int
    rows: tuple[int, ...]
    reads: Mapping[str, Tensor]


class Observer(Protocol):
    """What looks on while a model writes."""

    @property
    def reads(self) -> Mapping[str, tuple[int, ...]]:
        """Sites, and the layers wanted of each."""
        ...

    @property
    def every(self) -> int:
        """Look when 0, `every`, 2 x `every`, ... tokens have been written."""
        ...

    def __call__(self, seen: Seen) -> Mapping[int, str]:
        """Take what is seen; rows (indices of prompts) that are to write nothing more, each with the reason."""
        ...


class Watch:
    """Reads what an observer wants out of a generation's forward passes.

    Args:
        model: The model.
        observer: Who looks on.
        edits: What the forward passes are changed by.
    """

    def __init__(self, model: Model, observer: Observer, edits: Sequence[Edit]) -> None:
        if observer.every < 1:
            raise PromptError(f"an observer looks every {observer.every} tokens; it must be at least 1")
        self._model, self._observer = model, observer
        self._wanted: list[tuple[str, tuple[int, ...]]] = []
        for site, layers in observer.reads.items():
            if site in _NOT_TOKENS:
                raise SiteError(f"{site} has no fixed width while a model writes, so it cannot be watched")
            chosen = check_layers(layers, model.n_layers)
            model.arch.need(site, chosen)
            self._wanted.append((site, chosen))
        self.session = ReadSession(model.arch, edits, model.current_batch, model.backend, self._wanted, stop=False)

    def prepare(self, batch: Batch, written: int) -> dict[str, Tensor] | None:
        """Before a forward: where its newest tokens are copied to; `None` when the observer does not look now."""
        if written % self._observer.every:
            self.session.reading(())
            return None
        rows = torch.arange(len(batch.rows))
        buffers = {
            site: torch.empty(
                len(layers), len(rows), self._model.width(site, (), layers), dtype=self._model.site_dtype(site, layers)
            )
            for site, layers in self._wanted
        }
        last = torch.full_like(rows, -1)
        self.session.reading([Read(site, layers, rows, last, buffers[site]) for site, layers in self._wanted])
        return buffers

    def show(self, batch: Batch, written: int, buffers: dict[str, Tensor]) -> dict[int, str]:
        """After the forward: hand over, and take back the rows to stop."""
        for site, layers in self._wanted:
            fine = torch.isfinite(buffers[site]).all(-1)
            if not bool(fine.all()):
                layer, row = (int(i) for i in (~fine).nonzero()[0])
                raise NonFiniteError(
                    f"{site} at layer {layers[layer]} is not finite after {written} generated tokens for the prompt "
                    f"{batch.encoded[row].prompt.text[:60]!r}; check the weights, or load the model with a wider dtype "
                    "(dtype='float32')"
                )
        stop = dict(self._observer(Seen(written, tuple(batch.rows), buffers)))
        if stray := sorted(set(stop) - set(batch.rows)):
            raise PromptError(f"the observer stopped row {stray[0]}, which is not being written; rows: {batch.rows}")
        return stop
