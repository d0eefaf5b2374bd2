"""The primitive: reads and edits inside one model's forward passes.

A `Session` has its backend show it the sites that its reads and edits need, and takes everything off again, whatever
happens in between; nothing of the model is replaced. What is running (which prompts, how padded, prompt or generation)
is told to it through `Batch`; a forward pass made by someone else, such as `hf.generate` inside `model.edited(...)`, is
understood as far as it can be, and refused where an edit needs to know the prompt's positions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

import torch
from einops import rearrange
from torch import Tensor

from interp.errors import EditError
from interp.model.architecture import Architecture
from interp.model.batch import Batch, Cells
from interp.model.hooks import Backend
from interp.model.ops import INTERNAL, Change, Edit, Op


@dataclass
class Read:
    """A site to be copied: `out[j, c]` receives layer `layers[j]` at batch row `rows[c]` and column `columns[c]`.

    At `pattern`, `heads` tells how its features divide.
    """

    site: str
    layers: tuple[int, ...]
    rows: Tensor
    columns: Tensor
    out: Tensor
    heads: int = 1


class StopForward(Exception):
    """Raised by a hook when nothing further down is needed."""


class Session:
    """Hooks of a set of edits on one model; a context manager that takes them off on leaving.

    Args:
        arch: The model's parts.
        edits: Edits, applied in the order given.
        batch: Called for what is being run; `None` when a forward was not started by this package.
        backend: Shows the sites.
    """

    def __init__(
        self, arch: Architecture, edits: Sequence[Edit], batch: Callable[[], Batch | None], backend: Backend
    ) -> None:
        self._arch = arch
        self._batch = batch
        self._backend = backend
        self._ops: dict[tuple[int, str], list[Op]] = defaultdict(list)
        self.edits = tuple(edits)
        self.touched: dict[int, int] = {id(edit): 0 for edit in self.edits}
        self.forwards = 0
        for edit in self.edits:
            ops = edit.ops(arch)
            if not ops:
                raise EditError(f"{edit!r} changes nothing: it has no layer or site to act on")
            for op in ops:
                site = INTERNAL.get(op.site, op.site)
                arch.need(site, (op.layer,))
                if not arch.features[op.layer, site].editable:
                    raise EditError(
                        f"{backend.name} shows {site} when it has had its effect, so a change there does nothing; load "
                        "the model with backend='hooks'"
                    )
                self._ops[(op.layer, op.site)].append(op)
        self._handles = ExitStack()
        self._raw_past = 0
        self._raw_generation = False
        self._begun: list[Batch] = []
        self._cells: dict[Any, Any] = {}
        self._settled: dict[tuple[int, str], list[Change]] = {}
        self._stepping = False

    def _wanted(self) -> set[tuple[int, str]]:
        return set(self._ops)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            start = self._arch.backbone.register_forward_pre_hook(self._start, with_kwargs=True)
            stack.callback(start.remove)
            stack.enter_context(self._backend.attach(self._arch, self._wanted(), self._visit))
            self._handles = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._handles.close()

    def check_touched(self) -> None:
        """Raise `EditError` for an edit that met no token although the model ran: a silent no-op is a bug."""
        for edit in self.edits:
            if self.forwards and not self.touched[id(edit)] and not self._excused(edit):
                hint = next(op.hint for ops in self._ops.values() for op in ops if op.owner is edit)
                raise EditError(f"an edit touched nothing: {edit!r} {hint}")

    def _excused(self, edit: Edit) -> bool:
        """An edit of generated tokens has done nothing wrong where the model ended every answer at once."""
        later = all(op.phase == "generation" for ops in self._ops.values() for op in ops if op.owner is edit)
        return later and (self._raw_generation or any(batch.wordless for batch in self._begun))

    def _start(self, _module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        self.forwards += 1
        self._cells.clear()
        past, batch = kwargs.get("past_key_values"), self._batch()
        self._raw_past = int(past.get_seq_length()) if past is not None else 0
        if batch is None:
            self._raw_generation |= past is not None
        elif past is not None and not batch.past:
            self._begun = [b for b in self._begun if b.wordless][:1] + [batch]
        self._stepping = batch is not None and batch.past > 0
        if self._stepping:
            self._settle()

    def _settle(self) -> None:
        """Find the places where a decoding step has nothing to ask, so that a change costs little beside its own."""
        for key, ops in self._ops.items():
            if key not in self._settled and all(
                op.uniform and not op.picky and op.site not in ("k", "v") and self.touched[id(op.owner)] for op in ops
            ):
                self._settled[key] = [op.change for op in ops if op.phase != "prompt"]

    def _visit(self, layer: int, site: str, x: Tensor) -> Tensor:
        key = (layer, site)
        settled = self._settled.get(key) if self._stepping else None
        if settled is None:
            for op in self._ops.get(key, ()):
                x = self._change(op, x)
        else:
            for change in settled:
                x = change(x, None)
        return x

    def _change(self, op: Op, x: Tensor) -> Tensor:
        batch = self._batch()
        if batch is None:
            return self._change_raw(op, x)
        if op.site in ("k", "v") and batch.past:
            return self._change_cached(op, x, batch)
        if batch.past:
            return x if op.phase == "prompt" else self._change_step(op, x, batch)
        if not op.picky and batch.is_everything(op.positions, op.phase):
            return self._apply(op, x, None, batch)
        key = (op.positions, op.phase)
        if key not in self._cells:
            self._cells[key] = batch.cells(op.positions, op.phase)
        return self._change_cells(op, x, self._cells[key])

    def _change_cells(self, op: Op, x: Tensor, picked: tuple[Tensor, Tensor, Cells] | None) -> Tensor:
        if picked is None:
            return x
        b, t, cells = picked
        out = x.clone()
        b, t = b.to(x.device), t.to(x.device)
        out[b, t] = self._apply(op, x[b, t], cells)
        return out

    def _apply(self, op: Op, x: Tensor, cells: Cells | None, batch: Batch | None = None) -> Tensor:
        """Change values, and count the tokens that this touched, those of the batch's padding left out."""
        new = op.change(x, cells)
        share = acts = None
        if op.window is not None or op.gate is not None:
            assert cells is not None
            share = None if op.window is None else op.window(cells).to(x.device)
            acts = None if op.gate is None else op.gate(cells).to(x.device)
        if not self.touched[id(op.owner)]:  # a count would be waited for at every step
            touched = None if op.met is None else op.met(x, new)
            if touched is not None and batch is not None:
                touched = touched & batch.tokens(x.device)
            if share is not None:
                touched = share > 0 if touched is None else touched & (share > 0)
            self.touched[id(op.owner)] = x.shape[:-1].numel() if touched is None else int(touched.sum())
        if share is not None:
            new = _weighed(x, new, share)
        return new if acts is None else torch.where(acts[:, None], new, x)

    def _change_cached(self, op: Op, x: Tensor, batch: Batch) -> Tensor:
        """Keys and values of all tokens so far, as the cache keeps them: unedited, so every step edits them again."""
        if op.positions == ("all",) and op.phase == "both" and not op.picky:
            return self._apply(op, x, None)
        return self._change_cells(op, x, batch.history(op.positions, op.phase, batch.past + 1 - x.shape[1]))

    def _change_step(self, op: Op, x: Tensor, batch: Batch) -> Tensor:
        """A decoding step: one new token in every row."""
        if op.uniform and not op.picky:
            return self._apply(op, x, None)
        if "step" not in self._cells:
            self._cells["step"] = batch.newest(x.device)
        old = x[:, 0]
        new = self._apply(op, old, self._cells["step"])
        return x if new is old else new[:, None]

    def _change_raw(self, op: Op, x: Tensor) -> Tensor:
        """A forward that this package did not start: only its phase is known, from the length of the cache."""
        generating = self._raw_past > 0
        if op.window is not None or op.gate is not None:
            raise EditError(
                f"{op.owner!r} has to know which prompt a row is and how much of its answer is written, which a "
                "forward started elsewhere does not say (and a beam search mixes its rows): use model.generate"
            )
        if generating and op.site in ("k", "v") and op.phase != "both":
            raise EditError(f"an edit of {op.site} in the {op.phase} phase needs model.generate: a cache mixes phases")
        if op.phase not in ("both", "generation" if generating else "prompt"):
            return x
        if not generating and op.positions != ("all",):
            raise EditError(
                f"an edit at {op.positions} needs to know the prompt: run it through model.run or model.generate "
                "rather than through the Hugging Face model"
            )
        return self._apply(op, x, None)


def _weighed(old: Tensor, new: Tensor, weight: Tensor) -> Tensor:
    """A change `[cells, width]`, as much of it as each token gets; all or nothing of it exactly."""
    share = weight[:, None]
    if not share.is_floating_point() or not new.is_floating_point():
        return torch.where(share > 0, new, old)
    between = torch.lerp(old.float(), new.float(), share.float()).to(old.dtype)
    return torch.where(share == 1, new, torch.where(share == 0, old, between))


class ReadSession(Session):
    """A session that also copies sites out, and stops the forward when it has seen all that are wanted."""

    def __init__(
        self,
        arch: Architecture,
        edits: Sequence[Edit],
        batch: Callable[[], Batch | None],
        backend: Backend,
        sites: Sequence[tuple[str, tuple[int, ...]]],
        stop: bool,
    ) -> None:
        super().__init__(arch, edits, batch, backend)
        self._read = {(layer, site) for site, layers in sites for layer in layers}
        self._reads: dict[tuple[int, str], list[tuple[Read, int]]] = {}
        self._stop = stop and bool(self._read)
        self._left: set[tuple[int, str]] = set()

    def _wanted(self) -> set[tuple[int, str]]:
        return super()._wanted() | self._read

    def reading(self, reads: Sequence[Read]) -> None:
        """Set where the next forward's sites are copied to."""
        self._reads.clear()
        self._left = set(self._read)
        for read in reads:
            for place, layer in enumerate(read.layers):
                self._reads.setdefault((layer, read.site), []).append((read, place))

    def _visit(self, layer: int, site: str, x: Tensor) -> Tensor:
        x = super()._visit(layer, site, x)
        for read, place in self._reads.get((layer, site), ()):
            _copy(x, read, place)
        self._left.discard((layer, site))
        if self._stop and not self._left:
            raise StopForward
        return x

    @property
    def unseen(self) -> set[tuple[int, str]]:
        """Sites that the last forward did not show."""
        return self._left


def _copy(x: Tensor, read: Read, place: int) -> None:
    if read.site == "pattern":
        # Right padding gets no weight: a shorter batch's keys are the first of the longest prompt's.
        heads = read.heads
        x = rearrange(x, "b q (h k) -> b q h k", h=heads)
        out = rearrange(read.out[place], "c (h k) -> c h k", h=heads)
        keys = min(x.shape[-1], out.shape[-1])
        out[..., keys:] = 0
        out[..., :keys].copy_(x[read.rows.to(x.device), read.columns.to(x.device), :, :keys])
        return
    read.out[place].copy_(x[read.rows.to(x.device), read.columns.to(x.device)])
