"""Answers that repeat themselves: a judge of words takes "I can't like likeI can't" for a refusal, and it is babble."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from interp.model.generate import Completion
from interp.stats import Rate, newcombe
from probes.answers import Behaviour

REPETITIVE = 0.2
"""An answer of which more than this share of 4-grams came before in it counts as repetitive.

Fixed, and fitted to no prompts: the texts of people have about 0.01, greedy decoding that is stuck around a half
(Welleck et al. 2020, 1908.04319, seq-rep-4). In an answer of twelve tokens it is two of nine.
"""
MARGIN = 0.05
"""How far the share of repetitive answers has to be above the plain model's, the interval's lower end, to be said."""
_GRAM = 4


@dataclass(frozen=True)
class Repeats:
    """How much the answers of one arm repeat themselves.

    Attributes:
        mean: Share of 4-grams that came before in the same answer, mean over answers.
        answers: Answers above `REPETITIVE`, of all.
        refusals: The same of those that were judged refusals.
    """

    mean: float
    answers: Rate
    refusals: Rate

    @classmethod
    def of(cls, told: Behaviour, where: np.ndarray[Any, np.dtype[np.bool_]] | None = None) -> Repeats:
        """Of judged answers.

        Args:
            told: The answers.
            where: Which of them, `[prompt]`; all by default.
        """
        among = np.ones(len(told.prompts), dtype=bool) if where is None else where
        shares = np.array([repeated(c.ids) for c in told.completions])
        above = shares > REPETITIVE
        refused = told.refused & among
        return cls(
            float(shares[among].mean()) if among.any() else math.nan,
            Rate(int(above[among].sum()), int(among.sum())),
            Rate(int(above[refused].sum()), int(refused.sum())),
        )

    def caution(self, plain: Repeats) -> str | None:
        """What to say of these answers; `None` where they repeat themselves no more than the plain model's.

        It is said where the share of repetitive answers is above the plain model's by more than `MARGIN` (lower end of
        Newcombe's 95 % interval), or where more than half of the refusals are repetitive.
        """
        more = bool(self.answers.n and plain.answers.n) and newcombe(self.answers, plain.answers)[0] > MARGIN
        most = self.refusals.k * 2 > self.refusals.n
        if not (more or most):
            return None
        said = (
            f"repeated 4-grams {self.mean:.2f}, plain {plain.mean:.2f}; {self.answers.k} of {self.answers.n} answers "
            f"are repetitive, plain {plain.answers.k}"
        )
        if self.refusals.k:
            said += f"; so are {self.refusals.k} of {self.refusals.n} refusals, which may be babble: read them"
        return said


def repetition(completions: Sequence[Completion]) -> float:
    """Mean share of repeated 4-grams over answers (seq-rep-4)."""
    return float(np.mean([repeated(c.ids) for c in completions])) if completions else math.nan


def repeated(ids: Sequence[int]) -> float:
    """Share of an answer's 4-grams that came before in it; 0 where it is shorter."""
    grams = [tuple(ids[i : i + _GRAM]) for i in range(len(ids) - _GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
