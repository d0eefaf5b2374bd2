"""Plain and steered answers to a set of prompts, with random vectors beside, kept on disk as they come."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from interp.edits import decide
from interp.edits.decisions import Decisions
from interp.errors import PromptError
from interp.model.model import Model
from interp.model.ops import Edit
from interp.progress import note
from interp.stats import Rate
from interp.text.prompts import PromptSet
from probes.answers import Behaviour, behaviour
from refusalkit.steer.acting import Acting
from steering.repeats import Repeats

PLAIN, VECTOR, PERMUTED = "plain", "vector", "decisions permuted"
Bools = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Arm:
    """Judged answers under one thing that was done.

    Attributes:
        kind: `"plain"`, `"vector"`, `"random 1"` and so on, or `"decisions permuted"`: the vector, on as many prompts
            as the guard flagged, drawn by chance.
        strength: Times the vector's own coefficient; 1 for an ablation.
        told: The answers, to all prompts.
    """

    kind: str
    strength: float
    told: Behaviour


@dataclass(frozen=True)
class Compared:
    """All arms.

    Attributes:
        acting: What was done.
        arms: The plain model's first.
        decisions: What the guard said of each prompt, where there is one.
        max_new_tokens: Longest answer.
        seed: Of random vectors and permutation.
    """

    acting: Acting
    arms: tuple[Arm, ...]
    decisions: Decisions | None
    max_new_tokens: int
    seed: int

    @property
    def plain(self) -> Arm:
        """The model as it is."""
        return self.arms[0]

    @property
    def prompts(self) -> PromptSet:
        """What was asked."""
        return self.plain.told.prompts

    @property
    def labels(self) -> list[str | None]:
        """Classes of prompts, in order of appearance; `None` for those without."""
        return list(dict.fromkeys(self.prompts.labels))

    @property
    def strengths(self) -> list[float]:
        """Strengths, the lowest first."""
        return [arm.strength for arm in self.arms if arm.kind == VECTOR]

    def of(self, strength: float, kind: str = VECTOR) -> list[Arm]:
        """Arms at a strength whose kind begins so."""
        return [arm for arm in self.arms if arm.strength == strength and arm.kind.startswith(kind)]

    def rate(self, arm: Arm, label: str | None) -> Rate:
        """Refusals of an arm among prompts of a class."""
        return arm.told.rate(label=label)

    def partial(self, arm: Arm, label: str | None) -> Rate:
        """Answers of an arm that are partial: in part a refusal, in part an answer."""
        return arm.told.partial_rate(label=label)

    def cut(self, arm: Arm, label: str | None) -> Rate:
        """Answers of an arm that were cut off at the limit."""
        mask = arm.told.where(label=label)
        cut = np.array([not c.finished for c in arm.told.completions], dtype=bool)
        return Rate(int(cut[mask].sum()), int(mask.sum()))

    def repeats(self, arm: Arm, label: str | None) -> Repeats:
        """How much an arm's answers to prompts of a class repeat themselves."""
        return Repeats.of(arm.told, arm.told.where(label=label))

    def to_frame(self) -> Any:
        """One row per arm and class (pandas).

        Refusals with their Wilson interval, partial answers, those cut off at the limit, answers other than plain, the
        mean share of repeated 4-grams, and of answers and of refusals the share that is repetitive
        (`steering.repeats.REPETITIVE`).
        """
        import pandas as pd

        rows: list[dict[str, Any]] = []
        for arm in self.arms:
            for label in self.labels:
                rate, mask, repeats = self.rate(arm, label), arm.told.where(label=label), self.repeats(arm, label)
                low, high = rate.interval
                rows.append(
                    {"arm": arm.kind, "strength": arm.strength, "prompts": label or "all prompts",
                     "refused": rate.value, "low": low, "high": high, "k": rate.k, "n": rate.n,
                     "partial": self.partial(arm, label).k, "cut_off": self.cut(arm, label).k,
                     "changed": int(self.changed(arm)[mask].sum()), "repeated": repeats.mean,
                     "repetitive": repeats.answers.k, "refusals_repetitive": repeats.refusals.k}
                )  # fmt: skip
        return pd.DataFrame(rows)

    def changed(self, arm: Arm) -> Bools:
        """For each prompt, whether the text differs from the plain model's."""
        pairs = zip(arm.told.completions, self.plain.told.completions, strict=True)
        return np.array([a.ids != b.ids for a, b in pairs], dtype=bool)


def compare(
    model: Model,
    acting: Acting,
    prompts: PromptSet,
    strengths: Sequence[float],
    out: Path,
    *,
    max_new_tokens: int = 128,
    n_random: int = 1,
    seed: int = 0,
    progress: bool = False,
) -> Compared:
    """Answer all prompts plain and steered, greedily, and judge every answer.

    With a guard, prompts are read in a pass before, without the vector; those that it lets be keep the plain answer.
    Beside the vector stand random ones of the same norm, on the same prompts, and with a guard its decisions permuted.
    Other strengths that `out` holds whole, of the same vector, model and prompts, are part of the comparison.

    Args:
        model: The model.
        acting: What is done to it.
        prompts: Prompts; refusals are counted for each label.
        strengths: Times the vector's own coefficient.
        out: A folder; `answers/` in it is filled batch by batch, and what it holds already is not generated again.
        max_new_tokens: Longest answer.
        n_random: Random vectors, at every strength.
        seed: For them, and for the permutation.
        progress: Show progress bars.

    Raises:
        PromptError: For a prompt that does not fit the context, or a folder with answers of something else.
        RefusalkitError: When vector or guard do not fit the model.
    """
    acting.check(model)
    _check_room(model, prompts, max_new_tokens)
    folder = out / "answers"
    folder.mkdir(parents=True, exist_ok=True)
    condition = acting.condition(model)
    decisions = None if condition is None else decide(model, prompts, condition, progress=progress)
    acts = np.ones(len(prompts), dtype=bool) if decisions is None else decisions.acts
    options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "progress": progress}
    note("the plain model", progress)
    plain = behaviour(model, prompts, out=folder / "plain.jsonl", **options)

    def file(kind: str, strength: float) -> Path:
        return folder / f"{kind} {'ablated' if acting.ablated is not None else repr(strength)}.jsonl".replace(" ", "-")

    def told(kind: str, strength: float, edits: Sequence[Edit], where: Bools, beside: Behaviour) -> Behaviour:
        """Answers under edits to some prompts, those known to the others."""
        if not where.any():
            return beside
        note(f"{kind}, {acting.said(strength)}", progress)
        done = {**acting.told(), "kind": kind, "strength": strength, "seed": seed}
        own = behaviour(model, _some(prompts, where), edits=edits, out=file(kind, strength), edited_by=done, **options)
        return _put(beside, own, where)

    arms = [Arm(PLAIN, 0.0, plain)]
    before = [] if acting.ablated is not None else _kept(folder, int(acts.sum()))
    for strength in sorted({*map(float, strengths), *before}):
        edits = acting.edits(strength)
        own = told(VECTOR, strength, edits, acts, plain)
        arms.append(Arm(VECTOR, strength, own))
        drawn_before = 0
        while _whole(file(f"random {drawn_before + 1}", strength), int(acts.sum())):
            drawn_before += 1
        asked = n_random if strength in strengths else 0
        for i in range(max(asked, drawn_before) if strength else 0):  # a random vector times nothing is no other
            control = acting.control(strength, seed * 1000 + i)
            arms.append(Arm(f"random {i + 1}", strength, told(f"random {i + 1}", strength, control, acts, plain)))
        if decisions is not None and strength and 0 < acts.sum() < len(acts):
            drawn = decisions.permuted(seed).acts
            both = drawn & acts  # where the answer is known
            known = _put(plain, own.part(_some(prompts, both)), both)
            arms.append(Arm(PERMUTED, strength, told(PERMUTED, strength, edits, drawn & ~acts, known)))
    return Compared(acting, tuple(arms), decisions, max_new_tokens, seed)


def _kept(folder: Path, n: int) -> list[float]:
    """Strengths at which a folder holds the vector's answers to all prompts that it acts on."""
    found: list[float] = []
    for path in folder.glob(f"{VECTOR}-*.jsonl"):
        with contextlib.suppress(ValueError):
            strength = float(path.stem.removeprefix(f"{VECTOR}-"))
            if math.isfinite(strength) and _whole(path, n):
                found.append(strength)
    return found


def _whole(path: Path, n: int) -> bool:
    """Whether a file of answers has its header and a line for each of `n` prompts."""
    if not path.is_file():
        return False
    with path.open("rb") as lines:
        return sum(line.endswith(b"\n") for line in lines) > n


def _some(prompts: PromptSet, where: Bools) -> PromptSet:
    return PromptSet(tuple(p for p, own in zip(prompts, where, strict=True) if own), prompts.name)


def _put(answers: Behaviour, some: Behaviour, where: Bools) -> Behaviour:
    """Answers with those of some prompts in place of their own."""
    completions, verdicts = list(answers.completions), list(answers.verdicts)
    for place, completion, verdict in zip(np.flatnonzero(where), some.completions, some.verdicts, strict=True):
        completions[place], verdicts[place] = completion, verdict
    return Behaviour(answers.prompts, tuple(completions), tuple(verdicts))


def _check_room(model: Model, prompts: PromptSet, max_new_tokens: int) -> None:
    """Said before anything is generated: the longest prompts come last."""
    room = model.chat.max_tokens
    if room is None:
        model.encode(prompts)
        return
    for encoded in model.encode(prompts):
        if len(encoded) + max_new_tokens > room:
            raise PromptError(
                f"a prompt of {len(encoded)} tokens and --max-new-tokens {max_new_tokens} do not fit the model's "
                f"context of {room} tokens: {encoded.prompt.text[:60]!r}"
            )
