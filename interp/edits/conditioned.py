"""Conditional edits: what acts on a row is decided by what the same forward pass shows of it further down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from interp.edits.conditions import Condition, Reading
from interp.edits.decisions import DecisionLog, named
from interp.edits.window import multiplied
from interp.errors import EditError
from interp.model.architecture import Architecture
from interp.model.batch import Batch, Cells
from interp.model.ops import INTERNAL, Edit, Edits, Op, flatten_edits
from interp.model.sites import SITES, check_layers

Deciding = Literal["prompt", "token"]
"""Whether a condition is asked once of each prompt, and holds through its answer, or anew at every token."""


@dataclass(frozen=True, eq=False)
class When:
    """Edits under a condition; make it with `when`."""

    condition: Condition
    inner: tuple[Edit, ...]
    decide: Deciding
    log: DecisionLog | None

    def __repr__(self) -> str:
        return f"when({self.condition}, {list(self.inner)}, by {self.decide})"

    def in_order(self, arch: Architecture) -> bool:
        """Whether, in one forward pass, all that the condition reads comes before all that the edits write."""
        readers, acting = self._parts(arch)
        return max(map(_when, readers)) <= min(map(_when, acting))

    def ops(self, arch: Architecture) -> Sequence[Op]:
        """What reads, then what acts, fitted to a model."""
        readers, acting = self._parts(arch)
        last, first = max(map(_when, readers)), min(map(_when, acting))
        if last > first:
            raise EditError(
                f"{self!r} acts at {SITES[first[1]]} of layer {first[0]}, before what the condition reads at "
                f"{SITES[last[1]]} of layer {last[0]} is known. Decide in a pass before: interp.edits.for_prompts("
                "edit, interp.edits.decide(model, prompts, condition).acts); steering.steer_when does so by itself"
            )
        if self.decide == "token" and any(op.site in ("k", "v") for op in acting):
            raise EditError("keys and values are edited again at every step: decide by prompt, or act elsewhere")
        return [*readers, *(replace(op, gate=multiplied(op.gate, self._gate), owner=self) for op in acting)]

    def _parts(self, arch: Architecture) -> tuple[list[Op], list[Op]]:
        readers = [op for reading in self.condition.readings() for op in self._readers(reading, arch)]
        return readers, [op for edit in self.inner for op in edit.ops(arch)]

    def _readers(self, reading: Reading, arch: Architecture) -> list[Op]:
        if self.decide == "token" and len(reading.positions) > 1:
            raise EditError(f"{reading!r} reads several tokens, so it cannot be asked anew at every one")
        each = self.decide == "token"
        positions, phase = (("all",) if each else reading.positions), ("both" if each else "prompt")
        return [
            Op(
                reading.site, layer, self._reader(reading, layer, arch.n_layers), positions, phase, self, tokenwise=True
            )
            for layer in check_layers(reading.layers, arch.n_layers)
        ]  # fmt: skip

    def _reader(self, reading: Reading, layer: int, n_layers: int) -> Any:
        layers = check_layers(reading.layers, n_layers)

        def read(x: Tensor, cells: Cells | None) -> Tensor:
            if cells is None:
                raise EditError(f"{self!r} has to know which prompt a row is: use model.generate or model.run")
            notes = _notes(self, cells.batch)
            size = 1 if self.decide == "token" else len(reading.positions)
            if self.decide == "prompt" and (len(x) % size or bool((cells.sizes != size).any())):
                raise EditError(f"the condition {reading!r} reads single tokens, and a region is several: name NAME[i]")
            seen: dict[int, Tensor] = notes.seen.setdefault(reading, {})
            seen[layer] = x.detach().float().view(len(x) // size, 1, size, -1)
            if set(seen) == set(layers):
                # A model may be spread over devices; decisions stand where the rows' numbers do.
                each = [seen[at].to(x.device) for at in layers]
                score, holds = reading.ask(each[0] if len(each) == 1 else torch.cat(each, 1))
                if holds.device != cells.rows.device:
                    score, holds = score.to(cells.rows.device), holds.to(cells.rows.device)
                notes.seen[reading] = {}
                notes.answered(self, reading, score, holds, cells, size)
            return x

        return read

    def _gate(self, cells: Cells) -> Tensor:
        acts = _notes(self, cells.batch).acts
        if acts is None:
            raise EditError(f"{self!r} acts before it has been decided; its condition's layers were not run")
        return acts.of(cells)


def when(
    condition: Condition,
    edits: Edits,
    *,
    decide: Deciding = "prompt",
    log: DecisionLog | None = None,
) -> When:
    """Let edits act on those rows of a batch only for which a condition holds (CAST, Lee et al. 2024, 2409.05907).

    Condition and edits read and write in the same forward pass, so all that is read must come before all that is
    written; where it doesn't, the error says how to decide in a pass before. What is decided belongs to a run's batch
    and is gone with it.

    Args:
        condition: What to ask.
        edits: One or several edits, or a steering vector.
        decide: `"prompt"`: once, when the prompt is read; the edits then act on all tokens they are for, in the prompt
            and in the answer. `"token"`: anew at every token, of the prompt and of the answer, in place of the
            condition's own position.
        log: Where to write down what is decided.

    Raises:
        EditError: For no edits; when it is run, for edits that act before what the condition reads, and in a forward
            pass that was started elsewhere (a beam search of Hugging Face's, say, whose rows change places).
    """
    if decide not in get_args(Deciding):
        raise EditError(f"a condition is decided by 'prompt' or by 'token', not by {decide!r}")
    inner = tuple(flatten_edits(edits))
    if not inner:
        raise EditError("there are no edits for the condition to decide on")
    return When(condition, inner, decide, log)


@dataclass(frozen=True, eq=False)
class ForPrompts:
    """Edits for some of the prompts; make it with `for_prompts`."""

    inner: tuple[Edit, ...]
    acts: Tensor

    def __repr__(self) -> str:
        return f"for_prompts({int(self.acts.sum())} of {len(self.acts)}, {list(self.inner)})"

    def ops(self, arch: Architecture) -> Sequence[Op]:
        """The edits fitted to a model."""
        found = [op for edit in self.inner for op in edit.ops(arch)]
        return [replace(op, gate=multiplied(op.gate, self._gate), owner=self) for op in found]

    def _gate(self, cells: Cells) -> Tensor:
        if (most := max(cells.batch.rows)) >= len(self.acts):
            raise EditError(
                f"it is decided for {len(self.acts)} prompts, but prompt {most} was run (counted from 0); decide for "
                "each prompt, in the order they are run"
            )
        return self.acts.to(cells.rows.device)[cells.rows]


def for_prompts(edits: Edits, acts: ArrayLike) -> ForPrompts:
    """Let edits act on some prompts only, decided before.

    Args:
        edits: One or several edits, or a steering vector.
        acts: For each prompt, in the order they are run, whether the edits act on it.

    Raises:
        EditError: For no edits, or what is no list of yes and no; when it is run, for more prompts than decisions.
    """
    inner, mask = tuple(flatten_edits(edits)), torch.as_tensor(acts)
    if mask.dtype != torch.bool or mask.ndim != 1 or not len(mask):
        raise EditError(f"decisions are one boolean per prompt, not {mask.dtype} of shape {tuple(mask.shape)}")
    if not inner:
        raise EditError("there are no edits to decide on")
    return ForPrompts(inner, mask.clone())


@dataclass(frozen=True)
class _ByPrompt:
    """Decisions by prompt."""

    holds: Tensor

    def of(self, cells: Cells) -> Tensor:
        """Those of the given tokens."""
        return self.holds[cells.rows]


@dataclass(frozen=True)
class _ByToken:
    """Decisions for the tokens of the pass that is running."""

    cells: Cells
    holds: Tensor

    def of(self, cells: Cells) -> Tensor:
        """Those of the given tokens; they are the same ones in a decoding step."""
        if cells is self.cells:
            return self.holds
        wide = int(self.cells.columns.max()) + 1
        keys, order = (self.cells.rows * wide + self.cells.columns).sort()
        wanted = cells.rows * wide + cells.columns
        place = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
        return self.holds[order][place] & (keys[place] == wanted)


class _Notes:
    """What one conditional edit knows of one batch."""

    def __init__(self) -> None:
        self.past = -1
        self.seen: dict[Reading, dict[int, Tensor]] = {}
        self.answers: dict[Reading, tuple[Tensor, Tensor]] = {}
        self.acts: _ByPrompt | _ByToken | None = None

    def answered(
        self, edit: When, reading: Reading, score: Tensor, holds: Tensor, cells: Cells, size: int
    ) -> None:  # fmt: skip
        """Keep a reading's verdicts; with the last of them, decide."""
        self.answers[reading] = (score, holds)
        readings = edit.condition.readings()
        if len(self.answers) < len(readings):
            return
        acts = edit.condition.joined({r: self.answers[r][1] for r in readings})
        rows = cells.rows if size == 1 else cells.rows[::size]
        if edit.decide == "prompt":
            by_prompt = torch.zeros(max(cells.batch.rows) + 1, dtype=torch.bool, device=acts.device)
            by_prompt[rows] = acts
            self.acts = _ByPrompt(by_prompt)
        else:
            self.acts = _ByToken(cells, acts)
        if edit.log is not None:
            answers = {name: self.answers[r] for r, name in named(readings).items()}
            _write(edit.log, rows, None if edit.decide == "prompt" else cells.columns, acts, answers)
        self.answers = {}


def _notes(edit: When, batch: Batch) -> _Notes:
    """The edit's notes of this batch; what was decided token by token holds for one pass."""
    notes: _Notes = batch.notes.setdefault(edit, _Notes())
    if notes.past != batch.past and edit.decide == "token":
        notes = batch.notes[edit] = _Notes()
    notes.past = batch.past
    return notes


def _write(
    log: DecisionLog, rows: Tensor, columns: Tensor | None, acts: Tensor, answers: dict[str, tuple[Tensor, Tensor]]
) -> None:
    lists = {name: (score.tolist(), holds.tolist()) for name, (score, holds) in answers.items()}
    tokens = None if columns is None else columns.tolist()
    for i, (row, hold) in enumerate(zip(rows.tolist(), acts.tolist(), strict=True)):
        found = {name: (float(score[i]), bool(holds[i])) for name, (score, holds) in lists.items()}
        if tokens is None:
            log.by_prompt[row] = (bool(hold), found)
        else:
            log.by_token.append((row, tokens[i], bool(hold), found))


def _when(op: Op) -> tuple[int, int]:
    """When in a forward pass an op comes."""
    return op.layer, SITES.index(INTERNAL.get(op.site, op.site))
