"""What a vector does at given strengths: refusal, KL and perplexity on harmless prompts, and repetition."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from interp.activations.capture import capture
from interp.model.model import Model, Prompts
from interp.model.ops import Edit
from interp.stats import Rate
from interp.text.prompts import HARMFUL, HARMLESS, PromptSet
from probes.answers import Behaviour, Judge, behaviour
from probes.price import price
from steering.kept_doses import Cost, KeptDoses
from steering.repeats import Repeats

Interval = tuple[float, float, float]
_FOR_NORMS = 64


@dataclass(frozen=True)
class Dose:
    """One strength.

    Attributes:
        arm: `"plain"`, `"vector"`, or `"random 1"` and so on: random vectors of the same norms.
        strength: What the vector was multiplied by.
        refused: For `"harmful"` and `"harmless"`, whichever there are.
        kl: KL(plain || steered) on harmless prompts, in nats per answer token: mean over prompts, 95 % interval.
        perplexity: Of the plain model's answers to harmless prompts, over the plain model's own: 1 for no change.
        repeats: How much the answers repeat themselves.
        repeats_on: The same by label.
        partly: Answers judged partial, by label: neither refusals nor compliance.
    """

    arm: str
    strength: float
    refused: Mapping[str, Rate]
    kl: Interval
    perplexity: Interval
    repeats: Repeats
    repeats_on: Mapping[str, Repeats]
    partly: Mapping[str, Rate]

    @property
    def repetition(self) -> float:
        """Share of 4-grams that came before in the same answer, mean over all answers (seq-rep-4)."""
        return self.repeats.mean

    def to_row(self) -> dict[str, Any]:
        """One row of the table."""
        row: dict[str, Any] = {"arm": self.arm, "strength": self.strength}
        for label, rate in self.refused.items():
            low, high = rate.interval
            row |= {f"refused_{label}": rate.value, f"refused_{label}_low": low, f"refused_{label}_high": high,
                    f"n_{label}": rate.n}  # fmt: skip
        for name, three in (("kl", self.kl), ("perplexity", self.perplexity)):
            row |= dict(zip((name, f"{name}_low", f"{name}_high"), three, strict=True))
        row |= {f"partial_{label}": rate.value for label, rate in self.partly.items()}
        return {**row, "repetition": self.repetition, "repetitive": self.repeats.answers.value,
                "refusals_repetitive": self.repeats.refusals.value}  # fmt: skip


def doses(
    model: Model,
    prompts: PromptSet,
    arms: Sequence[tuple[str, float, Sequence[Edit]]],
    plain: Behaviour,
    *,
    judge: Judge,
    max_new_tokens: int,
    seed: int,
    kept: KeptDoses | None = None,
    progress: bool = False,
) -> list[Dose]:
    """Measure arms, given as name, strength and edits; those without edits are the plain model.

    Args:
        model: The model.
        prompts: Harmful and harmless ones.
        arms: What to measure.
        plain: The plain model's judged answers to the same prompts.
        judge: Any callable `(prompt, answer) -> Verdict`.
        max_new_tokens: Longest answer.
        seed: For the bootstrap.
        kept: Where answers and costs are kept, and what was measured is read from.
        progress: Show progress bars.
    """
    costs = kept.costs(arms) if kept is not None else None
    if costs is None:
        costs = _costs(model, prompts, arms, plain, seed)
        if kept is not None:
            kept.keep(arms, costs)
    nothing = (math.nan, math.nan, math.nan)
    found: list[Dose] = []
    for arm, strength, edits in arms:
        told = plain
        if edits:
            out, edited_by = (None, None) if kept is None else kept.answers(arm, strength)
            told = behaviour(
                model, prompts, judge=judge, max_new_tokens=max_new_tokens, edits=edits, out=out, edited_by=edited_by,
                progress=progress,
            )  # fmt: skip
        kl, perplexity = costs.get(arm, (nothing, nothing))
        labels = [label for label in (HARMFUL, HARMLESS) if any(told.where(label=label))]
        refused = {label: told.rate(label=label) for label in labels}
        partly = {label: told.partial_rate(label=label) for label in labels}
        repeats_on = {label: Repeats.of(told, told.where(label=label)) for label in labels}
        found.append(Dose(arm, strength, refused, kl, perplexity, Repeats.of(told), repeats_on, partly))
    return found


def _costs(
    model: Model, prompts: PromptSet, arms: Sequence[tuple[str, float, Sequence[Edit]]], plain: Behaviour, seed: int
) -> dict[str, Cost]:
    """KL and perplexity of each arm along the plain model's answers to harmless prompts; empty without such."""
    harmless = [p for p in prompts if p.label == HARMLESS]
    if not harmless:
        return {}
    there = {p.id: c for p, c in zip(plain.prompts, plain.completions, strict=True)}
    named = {arm: edits for arm, _, edits in arms if edits}
    prices = {p.arm: p for p in price(model, harmless, named, written=there, seed=seed)}
    return {arm: (prices[arm].mean_kl, prices[arm].perplexity_ratio) for arm, _, _ in arms}


def stream_norms(model: Model, prompts: Prompts, site: str, layers: Sequence[int]) -> dict[int, float]:
    """Median norm over the prompts' tokens at a site of each layer, the first token, a sink of attention, left out."""
    encoded = model.encode(prompts)[:_FOR_NORMS]
    acts = capture(model, encoded, site, "prompt", layers)
    first = np.zeros(len(acts), dtype=bool)
    first[acts.offsets[:-1]] = True
    return {layer: float(acts.sel(site, layer)[~first].float().norm(dim=-1).median()) for layer in layers}
