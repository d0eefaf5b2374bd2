"""What a comparison says, in words and in a table of figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from interp.errors import ModelError
from interp.model.model import Model
from interp.stats import Rate
from refusalkit.steer.batch import PERMUTED, PLAIN, VECTOR, Arm, Compared
from steering.repeats import REPETITIVE

LIMITS = (
    "A refusal here is what a judge of words takes for one. Answers that repeat themselves are counted, other babble "
    "is not: read the answers side by side.",
    "Answers are greedy: sampled ones may differ. One that was cut off at the limit is judged by what there is of it.",
    "Prompts unlike these may be answered otherwise, and one set of random vectors is a small control: --n-random "
    "draws more.",
)


def sentences(found: Compared, model: Model) -> list[str]:
    """What was measured: a sentence for each class of prompts, one for the texts, and of the guard."""
    lines = [_refused(found, label) for label in found.labels]
    other = [f"{int(found.changed(own).sum())} at {found.acting.said(s)}" for s in found.strengths
             for own in found.of(s)]  # fmt: skip
    lines.append(f"Answers in other words than the plain model's, of {len(found.prompts)}: {', '.join(other)}.")
    if found.decisions is not None:
        lines.append(f"The guard flags {_flagged(found)}; the vector acts on these only.")
        if (said := other_model(found, model)) is not None:
            lines.append(said)
    return lines


def cautions(found: Compared) -> list[str]:
    """A line for each strength at which the vector's answers repeat themselves more than the plain model's."""
    lines: list[str] = []
    for arm in (a for a in found.arms if a.kind == VECTOR):
        said = [(label, found.repeats(arm, label).caution(found.repeats(found.plain, label))) for label in found.labels]
        parts = [f"{of(label)}: {text}" for label, text in said if text is not None]
        if parts:
            lines.append(
                f"Caution: answers repeat themselves at {found.acting.said(arm.strength)} ({'. '.join(parts)})."
            )
    return lines


def other_model(found: Compared, model: Model) -> str | None:
    """That the guard was fitted on another model; `None` where it was not, or there is none."""
    if found.acting.guard is None:
        return None
    try:
        found.acting.guard.with_model(model)
    except ModelError:
        name = (found.acting.guard.provenance.get("model") or {}).get("name") or "unknown"
        return (
            f"Caution: the guard was fitted on another model ({name}) and taken by --allow-other-model; its threshold "
            "may not hold here."
        )
    return None


def rates(found: Compared) -> list[Mapping[str, str]]:
    """A row per arm and class of prompts: how many refused, and what else there is to say of the answers."""
    table: list[Mapping[str, str]] = []
    for label in found.labels:
        for arm in found.arms:
            repeats, mask = found.repeats(arm, label), arm.told.where(label=label)
            table.append(
                {"prompts": of(label), "arm": name_of(found, arm), "refused": rate(found.rate(arm, label)),
                 "n": str(repeats.answers.n), "partial": str(found.partial(arm, label).k),
                 "repeated 4-grams": f"{repeats.mean:.2f}",
                 f"repetitive (above {REPETITIVE:g})": str(repeats.answers.k),
                 "refusals repetitive": f"{repeats.refusals.k} of {repeats.refusals.n}",
                 "cut off": str(found.cut(arm, label).k), "other text": str(int(found.changed(arm)[mask].sum()))}
            )  # fmt: skip
    return table


def aligned(table: Sequence[Mapping[str, str]]) -> list[str]:
    """A table as lines of text."""
    heads = list(table[0])
    wide = {head: max(len(head), *(len(row[head]) for row in table)) for head in heads}
    lines = [dict(zip(heads, heads, strict=True)), *table]
    return ["  ".join(row[head].ljust(wide[head]) for head in heads).rstrip() for row in lines]


def name_of(found: Compared, arm: Arm) -> str:
    """What an arm is called."""
    if arm.kind == PLAIN:
        return PLAIN
    own = found.acting.said(arm.strength)
    return own if arm.kind == VECTOR else f"{arm.kind}, {own}"


def of(label: str | None) -> str:
    """What a class of prompts is called."""
    return label or "all prompts"


def rate(given: Rate) -> str:
    """A rate with its interval."""
    low, high = given.interval
    return f"{given.value:.2f} [{low:.2f}, {high:.2f}]"


def _refused(found: Compared, label: str | None) -> str:
    """Refusals of a class of prompts, in a sentence."""
    plain = found.rate(found.plain, label)
    which = f"{plain.n} {label} prompts" if label else f"{plain.n} prompts"
    arms = {kind: [a for a in found.arms if a.kind.startswith(kind)] for kind in (VECTOR, "random", PERMUTED)}
    own = ", ".join(f"{rate(found.rate(arm, label))} {_at(found, arm)}" for arm in arms[VECTOR])
    said = f"Of {which}, the plain model refuses {rate(plain)}; with {found.acting.name}, {own}"
    if arms["random"]:
        said += f"; with random vectors of the same norm, {_span([found.rate(a, label) for a in arms['random']])}"
    if arms[PERMUTED]:
        said += f"; with the guard's decisions permuted, {_span([found.rate(a, label) for a in arms[PERMUTED]])}"
    return said + "."


def _at(found: Compared, arm: Arm) -> str:
    return found.acting.said(arm.strength) if found.acting.ablated is not None else f"at strength {arm.strength:g}"


def _span(given: Sequence[Rate]) -> str:
    low, high = min(given, key=lambda r: r.value), max(given, key=lambda r: r.value)
    return rate(low) if low == high else f"{low.value:.2f} to {high.value:.2f}"


def _flagged(found: Compared) -> str:
    """How many prompts of each class the guard flags."""
    assert found.decisions is not None
    acts, parts = found.decisions.acts, list[str]()
    for label in found.labels:
        mask = found.plain.told.where(label=label)
        parts.append(f"{int(acts[mask].sum())} of {int(mask.sum())} {label or ''}".rstrip())
    total = f"{int(acts.sum())} of {len(acts)} prompts"
    return total if len(parts) == 1 else f"{total} ({', '.join(parts)})"
