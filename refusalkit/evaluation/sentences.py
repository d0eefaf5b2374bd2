"""What an evaluation found, in sentences: each with its interval, and with what random controls did."""

from __future__ import annotations

import math
from collections.abc import Sequence

from interp.stats import Rate
from interp.text.prompts import HARMFUL, HARMLESS
from probes.evaluation_result import Evaluation
from probes.evaluation_table import ALL, ALL_SETS, UNLABELLED, Cell

LIMITS = (
    "Refusal is read off the words of the answer by a judge; a judge errs, and more so on answers that help in part.",
    "Compliance is not harm: whether an answer that complies would help anybody is not measured.",
    "Perplexity and KL are measured along the plain model's own greedy answers; they say how far the distribution "
    "moved, not whether answers got worse.",
    "Intervals are over prompts of these sets. They say nothing of other prompts, languages or longer answers.",
)
_GROUP = {
    HARMFUL: "harmful prompts",
    HARMLESS: "harmless prompts (over-refusal)",
    UNLABELLED: "prompts without a label",
}


def sentences(found: Evaluation) -> list[str]:
    """The findings, from the plain model to the price."""
    whole = [c for c in found.cells() if c.category == ALL and (c.set == ALL_SETS or len(found.sets) == 1)]
    said = [f"The plain model {_all(found, whole)}."]
    if found.subject.kind == "plain":
        return said
    for cell in whole:
        said.append(_change(found, cell))
    if found.prices:
        said.append(_price(found))
    return said


def _all(found: Evaluation, cells: Sequence[Cell]) -> str:
    parts = [f"refuses {_rate(cell, found, 0)} of {_group(cell)}" for cell in cells]
    return "; it ".join(parts)


def _change(found: Evaluation, cell: Cell) -> str:
    who = {"edited": "With the edit it", "guarded": "Behind the guard it"}[found.subject.kind]
    said = f"{who} refuses {_rate(cell, found, 1)} of {_group(cell)}"
    controls = [cell.outcome(arm, "refused").mean() for arm in found.controls]
    if not controls:
        return f"{said} (no random control was run)."
    return f"{said}; with {len(controls)} random controls {_span(controls)}."


def _price(found: Evaluation) -> str:
    own, others = found.price(found.subject.name), [found.price(arm.name) for arm in found.controls]
    kl, ratio = own.mean_kl, own.perplexity_ratio
    said = (
        f"On {found.price_prompts} the edit costs a KL of {_three(kl)} nats per answer token, and perplexity goes from "
        f"{found.price('plain').perplexity[0]:.4g} to {own.perplexity[0]:.4g}, by a factor of {_three(ratio, 4)}"
    )
    if not others:
        return f"{said} (no random control was run)."
    kls, ratios = [p.mean_kl[0] for p in others], [p.perplexity_ratio[0] for p in others]
    return f"{said}; random controls: KL {min(kls):.3g} to {max(kls):.3g}, factor {_span(ratios, 3)}."


def _rate(cell: Cell, found: Evaluation, arm: int) -> str:
    hits = cell.outcome(found.arms[arm], "refused")
    return str(Rate(int(hits.sum()), len(hits)))


def _three(values: tuple[float, float, float], digits: int = 3) -> str:
    value, low, high = values
    span = f" [{low:.{digits}g}, {high:.{digits}g}]" if math.isfinite(low) else ""
    return f"{value:.{digits}g}{span}"


def _span(values: Sequence[float], digits: int = 2) -> str:
    low, high = (f"{value:.{digits}f}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _group(cell: Cell) -> str:
    return _GROUP.get(cell.label, f"prompts labelled {cell.label!r}")
