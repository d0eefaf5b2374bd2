"""A model without some of its heads, on held-out prompts, beside draws of as many others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from interp.edits import Renorm, scale_heads
from interp.errors import PromptError
from interp.heads.intervals import mean_intervals
from interp.model.model import Model
from interp.progress import progress_bar
from interp.stats import Rate
from interp.text.prompts import PromptSet
from probes.answers import Behaviour
from probes.deciding import deciding, divergence, surprise

Head = tuple[int, int]


@dataclass(frozen=True)
class Control:
    """As many heads, drawn from those that were not selected.

    Attributes:
        heads: The heads.
        times: How many of the draws were these.
        rate: Refusals of harmful prompts without them.
    """

    heads: tuple[Head, ...]
    times: int
    rate: Rate


@dataclass(frozen=True)
class Ablated:
    """The model without some heads, on held-out prompts.

    Attributes:
        heads: The heads.
        harmful: Refusals of harmful prompts.
        harmless: Refusals of harmless prompts.
        kl: KL divergence of the first answer token on harmless prompts, nats: mean and 95 % interval.
        perplexity: Of the plain model's own replies to harmless prompts, as a multiple of its own: with 95 % interval.
        controls: Draws of as many heads.
        matched: Whether every draw took its heads from the selected heads' layers.
    """

    heads: tuple[Head, ...]
    harmful: Rate
    harmless: Rate
    kl: tuple[float, float, float]
    perplexity: tuple[float, float, float]
    controls: tuple[Control, ...]
    matched: bool

    @property
    def draws(self) -> int:
        """Number of draws."""
        return sum(c.times for c in self.controls)

    @property
    def control_mean(self) -> float:
        """Mean refusal rate over the draws."""
        total = sum(c.times * c.rate.value for c in self.controls)
        return total / self.draws if self.draws else float("nan")

    @property
    def control_most(self) -> float:
        """Largest refusal rate of a draw."""
        return max((c.rate.value for c in self.controls), default=float("nan"))


def draw_heads(
    selected: Sequence[Head], n_layers: int, n_heads: int, draws: int, seed: int, exclude: Sequence[Head] = ()
) -> tuple[list[tuple[Head, ...]], bool]:
    """Draws of as many heads from the others, in the same layers where these have enough left.

    Args:
        selected: The heads to stand in for.
        n_layers: Layers of the model.
        n_heads: Heads per layer.
        draws: How many.
        seed: For the draws.
        exclude: Heads that are not to be drawn either.

    Returns:
        The draws, and whether all are layer-matched.
    """
    rng, taken = np.random.default_rng(seed), {*selected, *exclude}
    found: list[tuple[Head, ...]] = []
    matched = True
    for _ in range(draws):
        own: list[Head] = []
        for layer, _head in selected:
            left = [(layer, h) for h in range(n_heads) if (layer, h) not in taken and (layer, h) not in own]
            if not left:
                matched = False
                left = [(at, h) for at in range(n_layers) for h in range(n_heads)
                        if (at, h) not in taken and (at, h) not in own]  # fmt: skip
            if not left:
                raise PromptError(f"too few heads are left to draw {len(selected)} others from")
            own.append(left[int(rng.integers(len(left)))])
        found.append(tuple(sorted(own)))
    return found, matched


def controls(
    sets: Sequence[tuple[Head, ...]], harmful: PromptSet, answer: Callable[[PromptSet, Sequence[Any]], Behaviour],
    renorm: Renorm, done: Callable[[int], None] = lambda _n: None,
) -> tuple[Control, ...]:  # fmt: skip
    """Refusal without each set of heads; a set that was drawn several times is run once."""
    found: list[Control] = []
    for heads in dict.fromkeys(sets):
        rate = answer(harmful, [scale_heads(heads, renorm=renorm)]).rate()
        found.append(Control(heads, sets.count(heads), rate))
        done(1)
    return tuple(found)


def ablation_curve(
    model: Model,
    plain: Sequence[Behaviour],
    sets: Sequence[Sequence[Head]],
    renorm: Renorm,
    answer: Callable[..., Behaviour],
    n_draws: int,
    n_control: int,
    seed: int,
    progress: bool,
) -> tuple[Ablated, ...]:
    """Refusals and price without each set of heads, and refusals without draws of as many others."""
    harmful, harmless = (judged.prompts for judged in plain)
    few = PromptSet(tuple(harmful)[:n_control])
    texts = deciding(model, plain[1].completions)
    groups = [plain[1].prompts[i].group for i in texts.kept]
    usual, tokens = surprise(model, texts.replies)
    found: list[Ablated] = []
    with progress_bar("switching heads off", len(sets) * (1 + n_draws), progress) as advance:
        for heads in sets:
            edits = [scale_heads(heads, renorm=renorm)]
            rates = (answer(harmful, edits).rate(), answer(harmless, edits).rate())
            kl = mean_intervals(divergence(model, texts.texts, edits)[:, None], groups)
            nats, _ = surprise(model, texts.replies, edits)
            advance(1)
            drawn, matched = draw_heads(heads, model.n_layers, model.n_heads, n_draws, seed)
            others = controls(drawn, few, answer, renorm)
            advance(n_draws)
            found.append(
                Ablated(tuple(heads), *rates, (float(kl[0][0]), float(kl[1][0]), float(kl[2][0])),
                        _ratio(nats - usual, tokens, groups), others, matched)
            )  # fmt: skip
    return tuple(found)


def _ratio(more: Tensor, tokens: Tensor, groups: Sequence[str | None]) -> tuple[float, float, float]:
    """Perplexity as a multiple: exp of the nats per token that are added, with an interval over groups."""
    weighted = more * len(tokens) / tokens.sum()
    mean, low, high = mean_intervals(weighted[:, None], groups)
    return (float(np.exp(mean[0])), float(np.exp(low[0])), float(np.exp(high[0])))
