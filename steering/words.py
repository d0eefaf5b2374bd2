"""What a calibration says, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from steering.doses import Dose


def gains(plain: Dose, own: Dose, random: Dose | None) -> list[str]:
    """What a strength brings and costs, beside a random vector of the same norm."""
    lines = [f"At strength {own.strength:.3g} refused: {_refusals(own, plain)}. It costs {_cost(own)}."]
    if random is not None:
        lines.append(f"A random vector of the same norm, refused: {_refusals(random)}. It costs {_cost(random)}.")
    return lines


def caution(plain: Dose, own: Dose) -> str | None:
    """That answers at a strength repeat themselves more than plain ones (`Repeats.caution`), and to which prompts."""
    said = {label: own.repeats_on[label].caution(plain.repeats_on[label]) for label in own.repeats_on}
    parts = [f"{label}: {text}" for label, text in said.items() if text is not None]
    return f"Caution: answers repeat themselves, strength {own.strength:.3g} ({'. '.join(parts)})." if parts else None


def chosen(
    target: Mapping[str, Any], low: float, high: float | None, grid: Sequence[float], found: Sequence[Dose]
) -> tuple[float | None, str]:
    """The strength that a bracket gives, and why it is that one."""
    n = f"{len(grid)} strengths up to {grid[-1]:g}"
    if "kl" in target:
        what = f"KL on harmless prompts within {target['kl']:g} nats"
        if high is None:
            return low, f"strength {low:.3g}, the largest of {n}, keeps {what}; more may do so, too"
        if low == 0:
            return None, f"no strength keeps {what}: {high:.3g} is beyond it already"
        return low, f"strength {low:.3g} keeps {what}; {high:.3g} is beyond it"
    what = f"{target['refused']:.0%} of {target['on']} prompts refused"
    if high is None:
        best = max((d.refused[target["on"]].value, d.strength) for d in found if d.arm == "vector")
        return None, f"none of {n} gets {what}: most is {best[0]:.0%}, at {best[1]:.3g}"
    if high == 0:
        return 0.0, f"strength 0: the plain model has {what}"
    return high, f"strength {high:.3g} gets {what}; {low:.3g} does not"


def _refusals(dose: Dose, plain: Dose | None = None) -> str:
    """Shares refused, with what the plain model refuses."""
    parts: list[str] = []
    for label, rate in dose.refused.items():
        low, high = rate.interval
        beside = "" if plain is None else f", plain {plain.refused[label].value:.2f}"
        parts.append(f"{rate.value:.2f} [{low:.2f}, {high:.2f}] of {rate.n} {label} prompts{beside}")
    return "; ".join(parts)


def _cost(dose: Dose) -> str:
    """What it costs, in words."""
    if math.isnan(dose.kl[0]):
        return f"repeated 4-grams {dose.repetition:.2f}"
    return (
        f"KL on harmless prompts {dose.kl[0]:.3g} nats per token, perplexity of the plain answers times "
        f"{dose.perplexity[0]:.3g}, repeated 4-grams {dose.repetition:.2f}"
    )
