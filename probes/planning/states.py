"""States before and along answers: one pass over prompt and answer gives every position that is probed.

The state at the last prompt token writes the first token of the answer. Along the answer a segment is probed at its
last token; the last segment ends right before the token that gives the attribute away (arXiv 2502.06258, dynamics).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp.errors import FormatError
from interp.model.batching import TOKEN_BUDGET
from interp.model.model import Model
from interp.progress import progress_bar
from interp.provenance import digest_json
from interp.tensorfile import read_tensors, write_tensors
from probes.planning.writing import Written, joined

LEAST_PROBABILITY = 0.01
PART = 256
"""Answers whose states are written together."""
FORMAT = "refusalkit/plan-states/1"
_ENTRY = "plan-states"
Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class PlanStates:
    """What probes and their baselines are fitted to.

    Attributes:
        states: `[n, point, layer, d]`, resid_post: the last prompt token, then the segments.
        layers: Their numbers.
        segments: Names and regions of the points after the first.
        embedding: `[n, d]`, mean of resid_pre of layer 0 over the instruction's tokens.
        first_token: `[n, v]`, probabilities of the first token, of those that somewhere reach 0.01; the rest last.
        tokens: Ids of those tokens.
        lengths: `[n]`, tokens of the prompt.
        written: For each segment, the words written until then, per answer.
        written_lengths: `[n, segment]`, tokens written until then.
    """

    states: Floats
    layers: tuple[int, ...]
    segments: tuple[tuple[str, str], ...]
    embedding: Floats
    first_token: Floats
    tokens: tuple[int, ...]
    lengths: NDArray[np.int64]
    written: tuple[tuple[str, ...], ...]
    written_lengths: NDArray[np.int64]

    def rows(self, index: Sequence[int]) -> PlanStates:
        """Those of some of the answers."""
        rows = np.asarray(index, dtype=np.intp)
        own = {name: getattr(self, name)[rows] for name in _BY_ROW}
        return replace(self, **own, written=tuple(tuple(said[i] for i in rows) for said in self.written))

    def at_prompt(self) -> PlanStates:
        """Those at the last prompt token alone."""
        return replace(
            self, states=self.states[:, :1], segments=(), written=(), written_lengths=self.written_lengths[:, :0]
        )  # fmt: skip


_BY_ROW = ("states", "embedding", "first_token", "lengths", "written_lengths")


def plan_states(
    model: Model,
    written: Sequence[Written],
    reveal: Sequence[int],
    *,
    segments: int = 5,
    layers: Sequence[int] | None = None,
    out: str | os.PathLike[str] | None = None,
    token_budget: int = TOKEN_BUDGET,
    progress: bool = False,
) -> PlanStates:
    """Capture what is probed.

    Args:
        model: The model that wrote the answers.
        written: Answers.
        reveal: For each, how many tokens were written before the one that gives the attribute away.
        segments: How many for the thought, and how many for the answer; 0 for the prompt alone. A thought has segments
            where most answers have one, and the answer where most have a token before the one that gives it away.
        layers: Which layers; all by default.
        out: A safetensors file that keeps the states: read if it is of this model, these answers, segments and layers,
            else written anew. While it is made, parts of 256 answers stand beside it, so that a kill loses one at most.
        token_budget: Padded tokens per batch.
        progress: Show a progress bar.
    """
    encoded = model.encode([w.answer.prompt for w in written])
    points, names = _points(written, reveal, segments)
    columns = [[e.n_prompt - 1 + n for n in (0, *own)] for e, own in zip(encoded, points, strict=True)]
    texts = [joined(e, w, max(own, default=0)) for e, w, own in zip(encoded, written, points, strict=True)]
    wanted = tuple(range(model.n_layers)) if layers is None else tuple(layers)
    key = digest_json([model.provenance(), [t.ids for t in texts], columns, names, wanted])
    kept = None if out is None else _read(Path(out), key)
    if kept is None:
        kept = _captured(model, texts, columns, wanted, token_budget, None if out is None else Path(out), key, progress)
    return PlanStates(
        states=kept["states"].numpy(), layers=wanted, segments=names, embedding=kept["embedding"].numpy(),
        first_token=kept["first_token"].numpy(), tokens=tuple(kept["tokens"].tolist()),
        lengths=np.array([e.n_prompt for e in encoded]),
        written=tuple(
            tuple(w.text[: w.ends[own[s] - 1]] if own[s] else "" for w, own in zip(written, points, strict=True))
            for s in range(len(names))
        ),
        written_lengths=np.array(points, dtype=np.int64).reshape(len(written), len(names)),
    )  # fmt: skip


def _points(
    written: Sequence[Written], reveal: Sequence[int], segments: int
) -> tuple[list[list[int]], tuple[tuple[str, str], ...]]:
    """For each answer, how many of its tokens have been read at the end of each segment; and the segments' names."""
    thoughts = [min(w.before_answer, n) for w, n in zip(written, reveal, strict=True)]
    answers = [n - before for n, before in zip(reveal, thoughts, strict=True)]
    regions = [
        region
        for region, sizes in (("thought", thoughts), ("answer", answers))
        if segments and 2 * sum(size > 0 for size in sizes) > len(sizes)
    ]
    steps = range(1, segments + 1)
    names = tuple((f"{region} {round(100 * k / segments)} %", region) for region in regions for k in steps)
    found: list[list[int]] = []
    for before, size in zip(thoughts, answers, strict=True):
        own: list[int] = []
        for region in regions:
            start, length = (0, before) if region == "thought" else (before, size)
            own += [start + math.ceil(k * length / segments) for k in steps]
        found.append(own)
    return found, names


def _captured(
    model: Model, texts: Sequence[Any], columns: Sequence[Sequence[int]], layers: tuple[int, ...], token_budget: int,
    out: Path | None, key: str, progress: bool,
) -> dict[str, Tensor]:  # fmt: skip
    """All states, part by part. Parts are the same with a file and without, so that the states are."""
    parts: list[dict[str, Tensor]] = []
    files: list[Path] = []
    with progress_bar("capturing", len(texts), progress) as advance:
        for number, start in enumerate(range(0, len(texts), PART)):
            rows, own = slice(start, start + PART), digest_json([key, number])
            part = None
            if out is not None:
                files.append(out.with_name(f"{out.name}.part{number}"))
                part = _read(files[-1], own)
            if part is None:
                part = _run(model, texts[rows], columns[rows], layers, token_budget, advance)
                if out is not None:
                    write_tensors(files[-1], _ENTRY, {"format": FORMAT, "key": own}, part)
            else:
                advance(len(part["states"]))
            parts.append(part)
    whole = _joined(parts)
    if out is not None:
        write_tensors(out, _ENTRY, {"format": FORMAT, "key": key}, whole)
        for file in files:
            file.unlink(missing_ok=True)
    return whole


def _joined(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Parts as one; each has the likely first tokens of its own rows."""
    tokens = sorted({token for part in parts for token in part["tokens"].tolist()})
    place = {token: i for i, token in enumerate(tokens)}
    first: list[Tensor] = []
    for part in parts:
        wide = torch.zeros(len(part["states"]), len(tokens) + 1)
        wide[:, [*(place[t] for t in part["tokens"].tolist()), len(tokens)]] = part["first_token"]
        first.append(wide)
    return {
        "states": torch.cat([p["states"] for p in parts]), "embedding": torch.cat([p["embedding"] for p in parts]),
        "first_token": torch.cat(first), "tokens": torch.tensor(tokens, dtype=torch.int64),
    }  # fmt: skip


@torch.no_grad()
def _run(
    model: Model, texts: Sequence[Any], columns: Sequence[Sequence[int]], layers: tuple[int, ...], token_budget: int,
    advance: Callable[[int], None],
) -> dict[str, Tensor]:  # fmt: skip
    n, n_points = len(texts), len(columns[0])
    states = torch.empty(n, n_points, len(layers), model.d_model)
    embedding = torch.empty(n, model.d_model)
    likely: list[dict[int, float]] = [{} for _ in texts]
    inst = [t.columns("inst") for t in texts]
    reads = [(("resid_post", layers), columns), (("resid_pre", (0,)), inst)]
    last = [[t.n_prompt - 1] for t in texts]
    for step in model.steps(texts, reads, token_budget=token_budget, finals=last, done=advance):
        states[step.rows] = step.grid("resid_post").transpose(1, 2).float()
        sizes = [len(inst[i]) for i in step.rows]
        means = [part.float().mean(0) for part in step.reads["resid_pre"][0].split(sizes)]
        embedding[step.rows] = torch.stack(means)
        assert step.finals is not None
        p = torch.softmax(model.unembed(step.finals).float(), -1).cpu()
        for row, own in zip(step.rows, p, strict=True):
            places = (own >= LEAST_PROBABILITY).nonzero()[:, 0]
            likely[row] = dict(zip(places.tolist(), own[places].tolist(), strict=True))
    tokens = sorted({token for own in likely for token in own})
    place = {token: i for i, token in enumerate(tokens)}
    first = torch.zeros(n, len(tokens) + 1)
    for row, own in enumerate(likely):
        for token, p in own.items():
            first[row, place[token]] = p
    first[:, -1] = (1 - first.sum(1)).clamp(min=0)
    return {
        "states": states, "embedding": embedding, "first_token": first,
        "tokens": torch.tensor(tokens, dtype=torch.int64),
    }  # fmt: skip


def _read(path: Path, key: str) -> dict[str, Tensor] | None:
    """States of an earlier run, if they are of the same; anything else is made anew."""
    if not path.exists():
        return None
    try:
        about, tensors = read_tensors(path, _ENTRY, FORMAT, {"key": str})
    except FormatError:
        return None
    wanted = {"states", "embedding", "first_token", "tokens"}
    return tensors if about["key"] == key and set(tensors) == wanted else None
