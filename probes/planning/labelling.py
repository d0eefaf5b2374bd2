"""Answers sorted by an attribute: labelled, or set apart and counted; never dropped without a word."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from interp.errors import ProbeError
from probes.planning.attributes import Attribute, Label
from probes.planning.enough import check_needs, has_needed
from probes.planning.writing import Written

LEAST = 10
"""Answers that a class needs."""


@dataclass(frozen=True)
class Sorted:
    """Which answers have a label.

    Attributes:
        rows: Indices of the answers that are kept.
        labels: Their labels.
        reveal: For each, how many tokens were written before the one that gives the label away.
        apart: How many answers were set apart, by reason.
    """

    rows: tuple[int, ...]
    labels: tuple[Label, ...]
    reveal: tuple[int, ...]
    apart: dict[str, int]


def sort_answers(
    attribute: Attribute, written: Sequence[Written], *, balance: bool = False, least: int = LEAST, seed: int = 0
) -> Sorted:
    """Label answers.

    Set apart are answers whose thought has no end, those cut off where the attribute needs the whole, those without
    the attribute, those whose prompt lacks what it needs, those of a rare class, and those that balancing leaves out.

    Args:
        attribute: The attribute.
        written: Answers.
        balance: Keep equally many of every class, drawn by the seed.
        least: Classes of fewer answers are set apart as rare.
        seed: For balancing.

    Raises:
        ProbeError: When no answer is left, no prompt has what the attribute needs, or a label is not of its kind.
    """
    if balance and attribute.kind != "classes":
        raise ProbeError(f"{attribute.name} is a number: only classes can be balanced")
    check_needs(attribute, [w.answer.prompt for w in written])
    apart: Counter[str] = Counter()
    kept: dict[int, tuple[Label, int]] = {}
    for i, one in enumerate(written):
        reason = unfit(attribute, one)
        found = None if reason else attribute.find(one.answer)
        if found is None or found.label is None:
            apart[reason or "no such attribute in the answer"] += 1
            continue
        at = given_away(attribute, one, found.label) if found.at is None else found.at
        kept[i] = found.label, one.token_at(one.start + at)
    if not kept:
        reasons = "; ".join(f"{n} {reason}" for reason, n in apart.items())
        raise ProbeError(
            f"attribute {attribute.name!r} can be read off none of the {len(written)} answers ({reasons}): raise "
            "max_new_tokens if they were cut off, or give prompts that lead to it"
        )
    if attribute.kind == "classes":
        counts = Counter(label for label, _ in kept.values())
        rare = {label for label, n in counts.items() if n < least}
        if len(counts) - len(rare) >= 2:  # with fewer, the fit says what is wrong
            apart["of a rare class"] += sum(counts[label] for label in rare)
            kept = {i: own for i, own in kept.items() if own[0] not in rare}
        if balance:
            rows = _balanced([label for label, _ in kept.values()], seed)
            apart["left out to balance the classes"] += len(kept) - len(rows)
            kept = {i: own for n, (i, own) in enumerate(kept.items()) if n in set(rows.tolist())}
    return Sorted(
        tuple(kept), tuple(label for label, _ in kept.values()), tuple(at for _, at in kept.values()),
        {reason: n for reason, n in apart.items() if n},
    )  # fmt: skip


def given_away(attribute: Attribute, written: Written, label: Label) -> int:
    """The character of the answer at which the first word starts that gives the text so far the label of the whole."""
    text, at = written.answer.text, len(written.answer.text)
    for word in reversed(list(re.finditer(r"\S+", text))):
        n_tokens = written.token_at(written.start + word.end()) - written.before_answer
        so_far = replace(written.answer, text=text[: word.end()], n_tokens=n_tokens, finished=False)
        if attribute.find(so_far).label != label:
            break
        at = word.start()
    return at


def unfit(attribute: Attribute, written: Written) -> str:
    """Why an attribute cannot be read off an answer, whatever it says; empty where it can."""
    if written.thought == "unfinished":
        return "cut off in the thought"
    if attribute.whole and not written.finished:
        return "cut off"
    if not has_needed(attribute, written.answer.prompt):
        return f"whose prompt says no {attribute.needs}"
    return ""


def _balanced(labels: Sequence[Label], seed: int) -> NDArray[np.int64]:
    """Rows of equally many of each class, in order."""
    names = np.array([str(label) for label in labels])
    classes, counts = np.unique(names, return_counts=True)
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(np.flatnonzero(names == c))[: counts.min()] for c in classes]
    return np.sort(np.concatenate(drawn))
