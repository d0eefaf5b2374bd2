"""The causal check: does changing the direction change refusal on prompts never used to find it?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from interp.direction import Direction
from interp.edits import ablate, add
from interp.model.model import Model
from interp.model.ops import Edit
from interp.progress import progress_bar
from interp.stats import Rate
from interp.text.judge import judge
from interp.text.prompts import PromptSet
from probes.answers import Behaviour, Judge, behaviour
from probes.candidate_scores import Candidates


@dataclass(frozen=True)
class Effect:
    """Refusal under one intervention on one class of prompts.

    Attributes:
        intervention: `"none"`, `"ablate to zero"`, `"ablate to mean"`, `"add"`, `"subtract"`.
        on: The class of prompts.
        rate: Refusals with the direction.
        random: Refusals with each random direction; empty for `"none"`.
    """

    intervention: str
    on: str
    rate: Rate
    random: tuple[Rate, ...]

    @property
    def random_mean(self) -> float:
        """Mean refusal rate over the random directions."""
        return float(np.mean([r.value for r in self.random])) if self.random else float("nan")

    @property
    def random_max_shift(self) -> float:
        """Rate of the random direction that is furthest from their mean towards the direction's own effect."""
        if not self.random:
            return float("nan")
        values = [r.value for r in self.random]
        return max(values) if self.rate.value >= self.random_mean else min(values)


@dataclass(frozen=True)
class CausalCheck:
    """All interventions, with controls.

    Attributes:
        direction: What was tested.
        effects: One per intervention and class.
        coefficient: What the direction was multiplied by in `add` and `subtract`: 1, or less where its norm exceeds
            the median residual norm at its place.
        residual_norm: That median norm.
        examples: Judged answers of each intervention on each class, for showing.
    """

    direction: Direction
    effects: tuple[Effect, ...]
    coefficient: float
    residual_norm: float
    examples: dict[tuple[str, str], Behaviour]

    def get(self, intervention: str, on: str) -> Effect:
        """One effect."""
        for effect in self.effects:
            if (effect.intervention, effect.on) == (intervention, on):
                return effect
        raise KeyError((intervention, on))

    def shift(self, intervention: str, on: str) -> float:
        """How far an intervention moves the refusal rate from the plain model's."""
        return self.get(intervention, on).rate.value - self.get("none", on).rate.value

    def random_shift(self, intervention: str, on: str) -> float:
        """Mean absolute shift over the random directions."""
        base = self.get("none", on).rate.value
        return float(np.mean([abs(r.value - base) for r in self.get(intervention, on).random]))

    def bypass(self) -> Effect:
        """The better of the two ablations on the prompts that are refused."""
        on = self.effects[0].on
        zero, mean = self.get("ablate to zero", on), self.get("ablate to mean", on)
        return zero if zero.rate.value <= mean.rate.value else mean

    def to_frame(self) -> Any:
        """One row per intervention and class (pandas)."""
        import pandas as pd

        rows: list[dict[str, Any]] = []
        for e in self.effects:
            low, high = e.rate.interval
            rows.append(
                {"intervention": e.intervention, "on": e.on, "refused": e.rate.value, "low": low, "high": high,
                 "k": e.rate.k, "n": e.rate.n, "random_mean": e.random_mean, "random_extreme": e.random_max_shift,
                 "random_directions": len(e.random)}
            )  # fmt: skip
        return pd.DataFrame(rows)

    def plot(self) -> Any:
        """Refusal per intervention with intervals, random directions beside (plotly)."""
        from probes.figures import causal_bars

        return causal_bars(self)


def causal_check(
    model: Model,
    found: Candidates,
    direction: Direction,
    harmful: PromptSet,
    harmless: PromptSet,
    *,
    names: tuple[str, str] = ("harmful", "harmless"),
    judge: Judge = judge,
    n_random: int = 8,
    max_new_tokens: int = 64,
    seed: int = 0,
    baseline: tuple[Behaviour, Behaviour] | None = None,
    progress: bool = False,
) -> CausalCheck:
    """Ablate (to zero and to the harmless mean), add and subtract a direction on held-out prompts.

    Which ablation works differs between models: where harmless prompts sit at minus the harmful ones, zero means
    "undecided", and only the mean bypasses refusal. Both are always measured. Ablation to zero acts at every writer and
    token, the answer's included; ablation to the mean acts on the post-instruction tokens of every layer; adding acts
    at the direction's layer on every prompt token. Nothing is added while the answer is written (the authors do): that
    would show that a vector can break text, where the question is what it does to the decision.

    Args:
        model: The model.
        found: The candidates the direction was chosen from, for the reference and the norms.
        direction: What to test.
        harmful: Held-out prompts that should be refused.
        harmless: Held-out prompts that should be answered.
        names: What to call the two classes.
        judge: Any callable `(prompt, answer) -> Verdict`.
        n_random: Random directions of the same norm, as control.
        max_new_tokens: Longest answer.
        seed: For the random directions.
        baseline: Judged answers of the plain model to `harmful` and `harmless`, when already there.
        progress: Show a progress bar.
    """
    ceiling = found.ceiling(direction)
    coefficient = min(1.0, ceiling / direction.norm)
    randoms = [direction.random_like(seed * 1000 + i) for i in range(n_random)]
    on, off = names
    plan: list[tuple[str, str, Callable[[Direction], Sequence[Edit]]]] = [
        ("ablate to zero", on, lambda d: [ablate(d)]),
        ("ablate to mean", on, lambda d: [_to_mean(d, found)]),
        ("subtract", on, lambda d: [add(d, -coefficient, phase="prompt")]),
        ("add", off, lambda d: [add(d, coefficient, phase="prompt")]),
        ("ablate to zero", off, lambda d: [ablate(d)]),
        ("ablate to mean", off, lambda d: [_to_mean(d, found)]),
    ]
    sets = {on: harmful, off: harmless}
    encoded = {name: model.encode(prompts) for name, prompts in sets.items()}

    def measure(on: str, edits: Sequence[Edit]) -> Behaviour:
        written = model.generate(encoded[on], max_new_tokens=max_new_tokens, edits=edits)
        return Behaviour(sets[on], tuple(written), tuple(judge(c.prompt.text, c.answer) for c in written))

    examples: dict[tuple[str, str], Behaviour] = {}
    effects: list[Effect] = []
    plain = baseline or tuple(behaviour(model, p, judge=judge, max_new_tokens=max_new_tokens) for p in sets.values())
    for on, judged in zip(sets, plain, strict=True):
        examples["none", on] = judged
        effects.append(Effect("none", on, judged.rate(), ()))
    with progress_bar("causal check", len(plan) * (1 + n_random), progress) as advance:
        for intervention, on, edits in plan:
            judged = measure(on, edits(direction))
            advance(1)
            control: list[Rate] = []
            for noise in randoms:
                control.append(measure(on, edits(noise)).rate())
                advance(1)
            examples[intervention, on] = judged
            effects.append(Effect(intervention, on, judged.rate(), tuple(control)))
    return CausalCheck(direction, tuple(effects), coefficient, ceiling, examples)


def _to_mean(direction: Direction, found: Candidates) -> Edit:
    return ablate(direction, found.reference(direction), positions=found.positions)
