"""What an edit costs where nothing should change: KL over answer tokens and perplexity, on harmless prompts.

Both are teacher-forced along given answers, the plain model's own greedy ones by default, so that the edited model is
asked about the same tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interp.errors import PromptError
from interp.model.forced import Forced, teacher_forced, with_answer
from interp.model.generate import Completion
from interp.model.model import Model
from interp.model.ops import Edit
from interp.stats_change import mean_interval
from interp.text.encoded import Trace
from interp.text.prompts import Prompt

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Price:
    """The price of one set of edits.

    Attributes:
        arm: Whose it is.
        kl: For each prompt, KL(plain || edited) in nats, averaged over the answer's tokens.
        nll: For each prompt, negative log-likelihood of the answer's tokens under the edits, in nats, averaged.
        plain_nll: The same of the plain model.
        tokens: For each prompt, how many tokens its answer has.
        groups: Prompts of one group are drawn together.
        seed: For the bootstrap.
    """

    arm: str
    kl: Floats
    nll: Floats
    plain_nll: Floats
    tokens: NDArray[np.int64]
    groups: tuple[str, ...]
    seed: int = 0

    @property
    def mean_kl(self) -> tuple[float, float, float]:
        """KL per answer token, mean over prompts and its 95 % interval."""
        return self._interval(self.kl)

    @property
    def perplexity(self) -> tuple[float, float, float]:
        """Perplexity of the answers over all their tokens, and its 95 % interval."""
        return _exp(self._interval(self.nll, self.tokens))

    @property
    def perplexity_ratio(self) -> tuple[float, float, float]:
        """Perplexity over the plain model's on the same tokens, and its 95 % interval: 1 for no price."""
        return _exp(self._interval(self.nll - self.plain_nll, self.tokens))

    def to_row(self) -> dict[str, Any]:
        """One row of `Evaluation.price_frame`."""
        row: dict[str, Any] = {"arm": self.arm}
        for name, three in (("kl", self.mean_kl), ("perplexity", self.perplexity), ("ratio", self.perplexity_ratio)):
            row |= dict(zip((name, f"{name}_low", f"{name}_high"), three, strict=True))
        return {**row, "kl_worst_prompt": float(self.kl.max()), "n": len(self.kl), "tokens": int(self.tokens.sum())}

    def _interval(self, values: Floats, weights: NDArray[Any] | None = None) -> tuple[float, float, float]:
        return mean_interval(values, weights, self.groups, seed=self.seed)


def price(
    model: Model,
    prompts: Sequence[Prompt] | Sequence[Trace],
    arms: Mapping[str, Sequence[Edit]],
    *,
    max_new_tokens: int = 64,
    written: Mapping[str, Completion] | None = None,
    seed: int = 0,
    progress: bool = False,
) -> list[Price]:
    """The price of each of several sets of edits, the plain model's first.

    Args:
        model: The model.
        prompts: Harmless prompts, which the plain model answers greedily first; or traces, whose answers are scored as
            they are.
        arms: Names and edits.
        max_new_tokens: Longest answer.
        written: Answers of the plain model that are there already, by the prompt's id.
        seed: For the bootstrap of the intervals.
        progress: Show a progress bar.

    Returns:
        A price for `"plain"` (its KL is 0) and for each arm.

    Raises:
        PromptError: When there are no prompts, or prompts and traces are mixed.
    """
    if not prompts:
        raise PromptError("the price of an edit needs harmless prompts, and none were given")
    traces = [p for p in prompts if isinstance(p, Trace)]
    if traces and len(traces) < len(prompts):
        raise PromptError("give prompts or traces to measure the price on, not both: their answers cannot be compared")
    encoded = model.encode(list(prompts))
    if not traces:
        there = written or {}
        left = [e for e in encoded if e.prompt.id not in there]
        made = iter(model.generate(left, max_new_tokens=max_new_tokens, progress=progress)) if left else iter(())
        answers = [there[e.prompt.id] if e.prompt.id in there else next(made) for e in encoded]
        encoded = [with_answer(e, answer.ids) for e, answer in zip(encoded, answers, strict=True)]
    scored = teacher_forced(model, encoded, [(), *arms.values()], progress=progress)
    groups = tuple(e.prompt.group for e in encoded)
    return [_price(name, one, scored[0], groups, seed) for name, one in zip(("plain", *arms), scored, strict=True)]


def _price(name: str, found: Forced, plain: Forced, groups: tuple[str, ...], seed: int) -> Price:
    return Price(
        name,
        np.array([kl.mean() for kl in found.kl]),
        np.array([-own.mean() for own in found.logprob]),
        np.array([-own.mean() for own in plain.logprob]),
        np.array([len(own) for own in found.logprob]),
        groups,
        seed,
    )


def _exp(three: tuple[float, float, float]) -> tuple[float, float, float]:
    """Perplexities of mean losses; a loss beyond what a number holds is infinitely perplexing."""
    a, b, c = (math.inf if x > 700 else math.exp(x) for x in three)
    return a, b, c
