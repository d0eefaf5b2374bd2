"""The tokens that a refusal prober is fitted on: which, what the model decided there, and their activations.

A kind of token only takes part when both classes occur at it. Where a model complies with everything after thinking,
the tokens after its thoughts would otherwise teach the probe that this place means compliance, and a cliff would be
found because it was put in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from interp.model.model import Model
from interp.text.encoded import Encoded
from interp.text.prompts import HARMFUL
from interp.tracing.scorers import through_space
from interp.tracing.traces import Traces
from probes.decided import Decisions

KINDS = ("late", "decision", "direct")
LATE = 0.25
"""Share of a thought that counts as late."""
MIN_EACH = 8

Truth = Mapping[str, Sequence[bool | None]]
"""For each kind of token, each trace's label; `None` for neither class."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows that a probe is fitted on.

    Attributes:
        X: `[row, width]`.
        y: Whether the prompt is refused.
        trace: Index of the trace.
        kind: `late`, `decision` or `direct`.
    """

    X: NDArray[np.float32]
    y: NDArray[np.bool_]
    trace: NDArray[np.int64]
    kind: NDArray[np.str_]

    def of(self, mask: NDArray[np.bool_]) -> Rows:
        """Some of the rows."""
        return Rows(self.X[mask], self.y[mask], self.trace[mask], self.kind[mask])


@dataclass(frozen=True, eq=False)
class Read:
    """Activations `[row, layer, width]` with each row's trace and kind."""

    X: NDArray[np.float32]
    trace: NDArray[np.int64]
    kind: NDArray[np.str_]


def read_rows(
    model: Model, traces: Traces, decided: Decisions, layers: tuple[int, ...], kinds: Sequence[str], normed: bool,
    late_tokens: int, progress: bool,
) -> Read:  # fmt: skip
    """Activations of the tokens of some kinds: of thoughts, of what ends them, and without thinking."""
    encoded = model.encode(list(traces))
    parts: list[Read] = []
    enter = through_space(model, "normed" if normed else "site")

    def read(source: Model, items: list[Encoded], columns: list[list[int]], names: list[list[str]]) -> None:
        from interp.progress import progress_bar

        with progress_bar("reading", len(items), progress) as advance:
            request = ("resid_post", layers)
            for step in source.steps(items, [(request, columns)], stop=True, done=advance):
                values = step.reads["resid_post"]
                with torch.no_grad():
                    given = torch.stack([enter(v.to(model.device)).float().cpu() for v in values], 1).numpy()
                owners = [i for i in step.rows for _ in columns[i]]
                parts.append(Read(given, np.asarray(owners), np.asarray([n for i in step.rows for n in names[i]])))

    columns: list[list[int]] = []
    names: list[list[str]] = []
    for item in encoded:
        start, end = item.spans["thinking"]
        first = end - max(1, round(LATE * (end - start)))
        late = sorted({int(i) for i in np.linspace(first, end - 1, late_tokens).round()}) if "late" in kinds else []
        columns.append([*late, item.spans["think_close"][1] - 1])
        names.append(["late"] * len(late) + ["decision"])
    read(model, encoded, columns, names)
    if "direct" in kinds and decided.direct is not None:
        other = model.with_format(thinking=False)
        items = other.encode(traces.prompts)
        read(other, items, [[e.n_prompt - 1] for e in items], [["direct"] for _ in items])
    return Read(
        np.concatenate([p.X for p in parts]), np.concatenate([p.trace for p in parts]),
        np.concatenate([p.kind for p in parts]),
    )  # fmt: skip


def truth_of(traces: Traces, decided: Decisions, kinds: Sequence[str]) -> Truth:
    """For each kind of token, each trace's label; `None` for neither class."""
    answered = [v is False for v in decided.after]
    harmful = [v == HARMFUL for v in traces.labels]

    def label(refused: Sequence[bool | None]) -> list[bool | None]:
        return [
            True if r else (False if r is False and a and not h else None)
            for r, a, h in zip(refused, answered, harmful, strict=True)
        ]

    found = {"late": label(decided.intended), "decision": label(decided.after)}
    if decided.direct is not None:
        found["direct"] = label(decided.direct)
    return {kind: found[kind] for kind in kinds if kind in found}


def usable_kinds(truth: Truth, traces: Traces) -> tuple[tuple[str, ...], dict[str, str]]:
    """Kinds at which both classes occur, and why the others do not take part."""
    kinds: list[str] = []
    left_out: dict[str, str] = {}
    for kind, labels in truth.items():
        yes, no = labels.count(True), labels.count(False)
        if min(yes, no) >= MIN_EACH:
            kinds.append(kind)
        else:
            left_out[kind] = (
                f"{yes} of {len(traces)} prompts are refused and {no} harmless ones answered, {MIN_EACH} of each are "
                "needed"
            )
    return tuple(kinds), left_out


def balanced(truth: Truth, kinds: Sequence[str], seed: int) -> dict[str, set[int]]:
    """For each kind, as many traces of one class as of the other."""
    rng = np.random.default_rng(seed)
    kept: dict[str, set[int]] = {}
    for kind in kinds:
        yes, no = ([i for i, v in enumerate(truth[kind]) if v is value] for value in (True, False))
        n = min(len(yes), len(no))
        kept[kind] = {int(i) for side in (yes, no) for i in rng.choice(side, n, replace=False)}
    return kept


def rows_of(read: Read, truth: Truth, keep: Mapping[str, set[int]], kinds: Sequence[str], place: int) -> Rows:
    """Rows of one layer, the `place`-th that was read, of the kinds and traces that take part."""
    mask = np.asarray(
        [k in kinds and t in keep[k] for k, t in zip(read.kind.tolist(), read.trace.tolist(), strict=True)]
    )
    kind, owner = read.kind[mask], read.trace[mask]
    y = np.asarray([bool(truth[k][t]) for k, t in zip(kind.tolist(), owner.tolist(), strict=True)])
    return Rows(read.X[mask, place], y, owner, kind)
