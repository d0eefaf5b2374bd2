"""The primitive: reads and edits inside one model's forward passes, by plain PyTorch hooks.

A `Session` registers the hooks that its reads and edits need and takes them all off again, whatever happens in
between; nothing of the model is replaced. What is running (which prompts, how padded, prompt or generation) is told to
it through `Batch`; a forward pass made by someone else, such as `hf.generate` inside `model.edited(...)`, is
understood as far as it can be, and refused where an edit needs to know the prompt's positions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from interp.errors import EditError, SiteError
from interp.model.architecture import Architecture
from interp.text.chat import Encoded

Phase = Literal["prompt", "generation", "both"]


@dataclass(frozen=True)
class Cells:
    """Which tokens an edit is given.

    Attributes:
        rows: The prompt's index.
        places: The place among the edit's positions; -1 for a generated token.
        sizes: How many tokens the edit's positions are in this prompt; 0 for a generated token.
    """

    rows: Tensor
    places: Tensor
    sizes: Tensor


Change = Callable[[Tensor, Cells | None], Tensor]


@dataclass(frozen=True)
class Op:
    """One change at one place.

    Attributes:
        site: Where; see `interp.model.sites`.
        layer: 0-based block.
        change: Maps values `[..., width]` to new ones of the same shape. `Cells` come along when single tokens were
            picked (`[cells, width]`), and `None` when the whole tensor `[batch, token, width]` is given.
        positions: Names or numbers of prompt positions, or `"all"`.
        phase: Prompt tokens at `positions`, generated tokens, or both.
        owner: The edit this op belongs to, for counting what it touched.
    """

    site: str
    layer: int
    change: Change
    positions: tuple[str | int, ...]
    phase: Phase
    owner: Any = None


class Edit(Protocol):
    """Anything that changes a forward pass."""

    def ops(self, arch: Architecture) -> Sequence[Op]:
        """The changes, fitted to a model; raises when they do not fit."""
        ...


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
    """

    encoded: Sequence[Encoded]
    rows: list[int]
    pads: list[int]
    device: torch.device
    past: int = 0
    wordless: bool = False

    def cells(self, positions: tuple[str | int, ...], phase: Phase) -> tuple[Tensor, Tensor, Cells] | None:
        """Batch indices, columns and `Cells` that a selection picks in a pass over the prompts; `None` for none."""
        picked: list[tuple[int, int, int, int, int]] = []
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
            picked += [(b, column + pad, row, at, place if at >= 0 else 0) for column, at in chosen.items()]
        if not picked:
            return None
        b, t, row, place, size = torch.tensor(picked, device=self.device).unbind(1)
        return b, t, Cells(row, place, size)

    def is_everything(self, positions: tuple[str | int, ...], phase: Phase) -> bool:
        """Whether a selection picks every token of a prompt pass (padding, which nothing reads, included)."""
        return positions == ("all",) and (
            phase == "both" or (phase == "prompt" and all(len(e) == e.n_prompt for e in self.encoded))
        )


@dataclass
class Read:
    """A site to be copied: `out[j, c]` receives layer `layers[j]` at cell `c`, that is batch row `rows[c]`, `columns[c]`."""

    site: str
    layers: tuple[int, ...]
    rows: Tensor
    columns: Tensor
    out: Tensor


class StopForward(Exception):
    """Raised by a hook when nothing further down is needed."""


class Session:
    """Hooks of a set of edits on one model; a context manager that takes them off on leaving.

    Args:
        arch: The model's parts.
        edits: Edits, applied in the order given.
        batch: Called for what is being run; `None` when a forward was not started by this package.
    """

    def __init__(self, arch: Architecture, edits: Sequence[Edit], batch: Callable[[], Batch | None]) -> None:
        self._arch = arch
        self._batch = batch
        self._ops: dict[tuple[int, str], list[Op]] = defaultdict(list)
        self.edits = tuple(edits)
        self.touched: dict[int, int] = {id(edit): 0 for edit in self.edits}
        self.forwards = 0
        for edit in self.edits:
            ops = edit.ops(arch)
            if not ops:
                raise EditError(f"{edit!r} changes nothing: it has no layer or site to act on")
            for op in ops:
                self._ops[(op.layer, op.site)].append(op)
        self._reads: dict[tuple[int, str], list[tuple[Read, int]]] = {}
        self._stop: tuple[int, str] | None = None
        self._handles: list[Any] = []
        self._raw_past = 0
        self._raw_generation = False
        self._begun: list[Batch] = []
        self._cells: dict[Any, Any] = {}
        self._mid_in: dict[int, Tensor] = {}

    def __enter__(self) -> Session:
        try:
            self._handles.append(self._arch.backbone.register_forward_pre_hook(self._start, with_kwargs=True))
            for layer in sorted({layer for layer, _ in self._ops}):
                self._hook_block(layer, {site for at, site in self._ops if at == layer})
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._mid_in.clear()

    def check_touched(self) -> None:
        """Raise `EditError` for an edit that met no token although the model ran: a silent no-op is a bug."""
        for edit in self.edits:
            if self.forwards and not self.touched[id(edit)] and not self._excused(edit):
                raise EditError(
                    f"an edit touched nothing: {edit!r} met no token of what was run; check its positions and phase"
                )

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

    def _hook_block(self, layer: int, sites: set[str]) -> None:
        block, module = self._arch.blocks[layer], self._arch.module
        if "resid_pre" in sites or "resid_mid" in sites:
            self._handles.append(block.register_forward_pre_hook(self._pre_block(layer), with_kwargs=True))
        if "z" in sites:
            hook = self._pre_z(layer)
            self._handles.append(module(layer, "z").register_forward_pre_hook(hook, with_kwargs=True))
        if "attn_out" in sites or "resid_mid" in sites:
            self._handles.append(module(layer, "attn_out").register_forward_hook(self._post_attention(layer)))
        for site in ("mlp_out", "resid_post"):
            if site in sites:
                self._handles.append(module(layer, site).register_forward_hook(self._post(layer, site)))

    def _pre_block(self, layer: int) -> Callable[..., Any]:
        def hook(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
            x = args[0] if args else kwargs["hidden_states"]
            new = self._apply(layer, "resid_pre", x)
            if (layer, "resid_mid") in self._ops:
                self._mid_in[layer] = new
            return _with_first(args, kwargs, "hidden_states", x, new)

        return hook

    def _pre_z(self, layer: int) -> Callable[..., Any]:
        def hook(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
            return _with_first(args, kwargs, "input", args[0], self._apply(layer, "z", args[0]))

        return hook

    def _post_attention(self, layer: int) -> Callable[..., Any]:
        def hook(_module: Any, _args: Any, output: Any) -> Any:
            x = output[0] if isinstance(output, tuple) else output
            new = self._apply(layer, "attn_out", x)
            if (layer, "resid_mid") in self._ops:
                mid = self._mid_in.pop(layer) + new
                changed = self._apply(layer, "resid_mid", mid)
                if changed is not mid:
                    new = new + (changed - mid)
            return _with_output(output, x, new)

        return hook

    def _post(self, layer: int, site: str) -> Callable[..., Any]:
        def hook(_module: Any, _args: Any, output: Any) -> Any:
            x = output[0] if isinstance(output, tuple) else output
            return _with_output(output, x, self._apply(layer, site, x))

        return hook

    def _apply(self, layer: int, site: str, x: Tensor) -> Tensor:
        key = (layer, site)
        for op in self._ops.get(key, ()):
            x = self._change(op, x)
        for read, place in self._reads.get(key, ()):
            read.out[place].copy_(x[read.rows.to(x.device), read.columns.to(x.device)])
        if key == self._stop:
            raise StopForward
        return x

    def _change(self, op: Op, x: Tensor) -> Tensor:
        batch = self._batch()
        if batch is None:
            return self._change_raw(op, x)
        if batch.past:
            return x if op.phase == "prompt" else self._change_step(op, x, batch)
        if batch.is_everything(op.positions, op.phase):
            self.touched[id(op.owner)] += x.shape[0] * x.shape[1]
            return op.change(x, None)
        key = (op.positions, op.phase)
        if key not in self._cells:
            self._cells[key] = batch.cells(op.positions, op.phase)
        picked = self._cells[key]
        if picked is None:
            return x
        b, t, cells = picked
        self.touched[id(op.owner)] += len(b)
        out = x.clone()
        b, t = b.to(x.device), t.to(x.device)
        out[b, t] = op.change(x[b, t], cells)
        return out

    def _change_step(self, op: Op, x: Tensor, batch: Batch) -> Tensor:
        """A decoding step: one new token in every row."""
        if "step" not in self._cells:
            rows = torch.tensor(batch.rows, device=x.device)
            self._cells["step"] = Cells(rows, torch.full_like(rows, -1), torch.zeros_like(rows))
        self.touched[id(op.owner)] += x.shape[0]
        return op.change(x[:, 0], self._cells["step"])[:, None]

    def _change_raw(self, op: Op, x: Tensor) -> Tensor:
        """A forward that this package did not start: only its phase is known, from the length of the cache."""
        generating = self._raw_past > 0
        if op.phase not in ("both", "generation" if generating else "prompt"):
            return x
        if not generating and op.positions != ("all",):
            raise EditError(
                f"an edit at {op.positions} needs to know the prompt: run it through model.run or model.generate "
                "rather than through the Hugging Face model"
            )
        self.touched[id(op.owner)] += x.shape[0] * x.shape[1]
        return op.change(x, None)


class ReadSession(Session):
    """A session that also copies sites out, and stops the forward after the last one wanted."""

    def __init__(
        self,
        arch: Architecture,
        edits: Sequence[Edit],
        batch: Callable[[], Batch | None],
        sites: Sequence[tuple[str, tuple[int, ...]]],
        stop: bool,
    ) -> None:
        super().__init__(arch, edits, batch)
        self._wanted = {(layer, site) for site, layers in sites for layer in layers}
        self._stop = max(self._wanted, key=lambda key: (key[0], _ORDER[key[1]])) if stop and self._wanted else None

    def __enter__(self) -> ReadSession:
        for key in self._wanted:
            self._ops.setdefault(key, [])
        super().__enter__()
        return self

    def reading(self, reads: Sequence[Read]) -> None:
        """Set where the next forward's sites are copied to."""
        self._reads.clear()
        for read in reads:
            for place, layer in enumerate(read.layers):
                self._reads.setdefault((layer, read.site), []).append((read, place))


_ORDER = {"resid_pre": 0, "z": 1, "attn_out": 2, "resid_mid": 3, "mlp_out": 4, "resid_post": 5}


def _with_first(args: tuple[Any, ...], kwargs: dict[str, Any], name: str, old: Tensor, new: Tensor) -> Any:
    if new is old:
        return None
    if args:
        return (new, *args[1:]), kwargs
    return args, {**kwargs, name: new}


def _with_output(output: Any, old: Tensor, new: Tensor) -> Any:
    if new is old:
        return None
    if new.shape != old.shape:
        raise SiteError(f"an edit returned shape {tuple(new.shape)} where {tuple(old.shape)} was")
    return (new, *output[1:]) if isinstance(output, tuple) else new
