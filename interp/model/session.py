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
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self

import torch
from einops import rearrange
from torch import Tensor

from interp.errors import EditError
from interp.model.architecture import Architecture
from interp.model.hooks import Backend
from interp.text.chat import Encoded

Phase = Literal["prompt", "generation", "both"]


@dataclass(frozen=True)
class Cells:
    """Which tokens an edit is given.

    Attributes:
        rows: The prompt's index.
        places: The place among the edit's positions; -1 for a generated token.
        sizes: How many tokens the edit's positions are in this prompt; 0 for a generated token.
        pads: The prompt's left padding, in tokens.
        columns: The token's index in its text, padding not counted.
        numbers: The token's number among the generated ones, counted from 0; -1 for a prompt token.
        batch: What is being run, where an edit may keep notes.
    """

    rows: Tensor
    places: Tensor
    sizes: Tensor
    pads: Tensor
    columns: Tensor
    numbers: Tensor
    batch: Batch


Change = Callable[[Tensor, Cells | None], Tensor]
Weight = Callable[[Cells], Tensor]
INTERNAL = {"choice": "router_logits", "routing": "expert_weights"}
"""Sites for `Op`s alone, each beside a site at the same layers: the scores that a router takes its top-k of, where a
change concerns the choice only, and expert indices and weights side by side."""


@dataclass(frozen=True)
class Op:
    """One change at one place.

    Attributes:
        site: Where; see `interp.model.sites` and `INTERNAL`.
        layer: 0-based block.
        change: Maps values `[..., width]` to new ones of the same shape. `Cells` come along when single tokens were
            picked (`[cells, width]`), and `None` when the whole tensor `[batch, token, width]` is given.
        positions: Names or numbers of prompt positions, or `"all"`.
        phase: Prompt tokens at `positions`, generated tokens, or both.
        owner: The edit this op belongs to, for counting what it touched.
        met: Which tokens count as touched, from the values `[..., width]` before and after; all by default.
        hint: What to tell someone whose edit touched nothing.
        tokenwise: Hand over single tokens with their `Cells` even where all are picked: padding is left out.
        uniform: The change is the same for every token and looks at no `Cells`, so that a decoding step needs none.
        window: How much of the change each token gets, `[cells]` from 0 to 1; all of it by default. Tokens that get
            nothing do not count as touched.
        gate: Which tokens get it at all, `[cells]`, by what is known of their prompt. These count as touched either
            way: that a condition holds nowhere is no mistake.
    """

    site: str
    layer: int
    change: Change
    positions: tuple[str | int, ...]
    phase: Phase
    owner: Any = None
    met: Callable[[Tensor, Tensor], Tensor] | None = None
    hint: str = "met no token of what was run; check its positions and phase"
    tokenwise: bool = False
    uniform: bool = False
    window: Weight | None = None
    gate: Weight | None = None

    @property
    def picky(self) -> bool:
        """Whether it has to be told which token is which."""
        return self.tokenwise or self.window is not None or self.gate is not None


class Edit(Protocol):
    """Anything that changes a forward pass."""

    def ops(self, arch: Architecture) -> Sequence[Op]:
        """The changes, fitted to a model; raises when they do not fit."""
        ...


class Editing(Protocol):
    """What stands for edits, a steering vector for instance."""

    def edits(self) -> Sequence[Edit]:
        """The edits."""
        ...


Edits = Edit | Editing | Sequence[Any]


@dataclass
class Batch:
    """What is being run.

    Attributes:
        encoded: The rows' prompts.
        rows: Their indices in the run.
        pads: Their left padding.
        device: Where token ids are.
        past: How many columns are cached already.
        wordless: Whether every row ended with its first token, so that there was no generated token to edit.
        written: For each prompt of the run, the tokens written so far; empty where nothing is written.
        notes: What edits have found out about these rows; gone when the batch is done.
    """

    encoded: Sequence[Encoded]
    rows: list[int]
    pads: list[int]
    device: torch.device
    past: int = 0
    wordless: bool = False
    written: Sequence[Sequence[int]] = ()
    notes: dict[Any, Any] = field(default_factory=dict[Any, Any])

    @property
    def width(self) -> int:
        """Columns of the pass over the prompts, padding included."""
        return max(len(item) + pad for item, pad in zip(self.encoded, self.pads, strict=True))

    def generated(self, b: int) -> list[int]:
        """The tokens of a row that count as generated: those of a given answer, and those written so far."""
        item = self.encoded[b]
        return [*item.ids[item.n_prompt :], *(self.written[self.rows[b]] if self.written else ())]

    def numbers(self, b: Tensor, columns: Tensor) -> Tensor:
        """The numbers of tokens among the generated ones, from the batch's rows and columns without padding."""
        n_prompt = torch.tensor([item.n_prompt for item in self.encoded], device=columns.device)
        return (columns - n_prompt[b]).clamp(min=-1)

    def cells(self, positions: tuple[str | int, ...], phase: Phase) -> tuple[Tensor, Tensor, Cells] | None:
        """Batch indices, columns and `Cells` that a selection picks in a pass over the prompts; `None` for none."""
        picked: list[tuple[int, int, int, int, int, int]] = []
        for b, (item, row, pad) in enumerate(zip(self.encoded, self.rows, self.pads, strict=True)):
            chosen: dict[int, int] = {}
            place = 0
            if phase != "generation":
                for name in positions:
                    for column in item.columns(name):
                        if name != "all" or column < item.n_prompt:
                            chosen.setdefault(column, place)
                        place += 1
            if phase != "prompt":
                for column in range(item.n_prompt, len(item)):
                    chosen.setdefault(column, -1)
            picked += [(b, column + pad, row, at, place if at >= 0 else 0, pad) for column, at in chosen.items()]
        if not picked:
            return None
        b, t, row, place, size, shift = torch.tensor(picked, device=self.device).unbind(1)
        return b, t, Cells(row, place, size, shift, t - shift, self.numbers(b, t - shift), self)

    def history(
        self, positions: tuple[str | int, ...], phase: Phase, dropped: int
    ) -> tuple[Tensor, Tensor, Cells] | None:
        """What `cells` gives, over all columns so far, of which the first `dropped` are gone (a sliding cache)."""
        found = self.cells(positions, phase)
        parts: list[tuple[Tensor, ...]] = []
        if found is not None:
            b, t, cells = found
            parts.append((b, t, cells.rows, cells.places, cells.sizes, cells.pads, cells.columns, cells.numbers))
        if phase != "prompt":
            later = torch.arange(self.width, self.past + 1, device=self.device)
            b = torch.arange(len(self.rows), device=self.device).repeat_interleave(len(later))
            t = later.repeat(len(self.rows))
            row, pad = (torch.tensor(x, device=self.device)[b] for x in (self.rows, self.pads))
            numbers = self.numbers(b, t - pad)
            parts.append((b, t, row, torch.full_like(b, -1), torch.zeros_like(b), pad, t - pad, numbers))
        if not parts:
            return None
        b, t, row, place, size, pad, column, number = (torch.cat(part) for part in zip(*parts, strict=True))
        kept = t >= dropped
        if not bool(kept.any()):
            return None
        cells = Cells(row[kept], place[kept], size[kept], pad[kept], column[kept], number[kept], self)
        return b[kept], t[kept] - dropped, cells

    def is_everything(self, positions: tuple[str | int, ...], phase: Phase) -> bool:
        """Whether a selection picks every token of a prompt pass (padding, which nothing reads, included)."""
        return positions == ("all",) and (
            phase == "both" or (phase == "prompt" and all(len(e) == e.n_prompt for e in self.encoded))
        )

    def tokens(self, device: torch.device) -> Tensor:
        """Where a pass over the prompts has tokens rather than padding, `[batch, column]`."""
        first, size = (torch.tensor(x, device=device)[:, None] for x in (self.pads, [len(e) for e in self.encoded]))
        columns = torch.arange(self.width, device=device)
        return (columns >= first) & (columns < first + size)


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
        self._reads: dict[tuple[int, str], list[tuple[Read, int]]] = {}
        self._handles = ExitStack()
        self._raw_past = 0
        self._raw_generation = False
        self._begun: list[Batch] = []
        self._cells: dict[Any, Any] = {}

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

    def _visit(self, layer: int, site: str, x: Tensor) -> Tensor:
        key = (layer, site)
        for op in self._ops.get(key, ()):
            x = self._change(op, x)
        for read, place in self._reads.get(key, ()):
            _copy(x, read, place)
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
        touched = None if op.met is None else op.met(x, new)
        if touched is not None and batch is not None:
            touched = touched & batch.tokens(x.device)
        if op.window is not None or op.gate is not None:
            assert cells is not None
            weight = torch.ones(len(x), device=x.device)
            if op.window is not None:
                weight = op.window(cells).to(weight)
                touched = weight > 0 if touched is None else touched & (weight > 0)
            if op.gate is not None:
                weight = weight * op.gate(cells).to(weight)
            new = _weighed(x, new, weight)
        if not self.touched[id(op.owner)]:  # a count would be waited for at every step
            self.touched[id(op.owner)] = x.shape[:-1].numel() if touched is None else int(touched.sum())
        return new

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
            rows, pads = (torch.tensor(v, device=x.device) for v in (batch.rows, batch.pads))
            columns = batch.past - pads
            numbers = batch.numbers(torch.arange(len(rows), device=x.device), columns)
            self._cells["step"] = Cells(
                rows, torch.full_like(rows, -1), torch.zeros_like(rows), pads, columns, numbers, batch
            )
        return self._apply(op, x[:, 0], self._cells["step"])[:, None]

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
    if new.is_floating_point():
        between = (old.float() + share * (new.float() - old.float())).to(old.dtype)
        return torch.where(share == 1, new, torch.where(share == 0, old, between))
    return torch.where(share > 0, new, old)


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
