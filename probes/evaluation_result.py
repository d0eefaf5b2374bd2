"""What an evaluation found: judged answers of every arm on every prompt set, and what an edit costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from interp.errors import PromptError
from interp.stats import Rate
from interp.text.prompts import HARMLESS, Prompt, PromptSet
from probes.answers import Behaviour
from probes.evaluation_table import UNLABELLED, Cell, cells_of, price_table, rate_table
from probes.price import Price

Flags = NDArray[np.bool_]
Kind = Literal["plain", "edited", "guarded", "random"]


@dataclass(frozen=True)
class Arm:
    """One way of running the model, on every set.

    Attributes:
        name: `"plain"`, `"edited"` or `"guarded"`, `"random 1"` and so on.
        kind: What it is.
        answers: Judged answers, one result per set.
        flagged: For each set, which prompts a guard stopped; `None` without a guard.
    """

    name: str
    kind: Kind
    answers: tuple[Behaviour, ...]
    flagged: tuple[Flags, ...] | None = None

    def outcome(self, place: int, what: str) -> Flags:
        """For each prompt of a set, whether it was refused, complied with, partially refused, or left unanswered.

        Args:
            place: Which set.
            what: `"refused"`, `"complied"`, `"partial"` or `"empty"`. What a guard stopped counts as refused.
        """
        label = {"refused": "refusal", "complied": "compliance"}.get(what, what)
        found = np.array([v.label == label for v in self.answers[place].verdicts], dtype=bool)
        if self.flagged is None:
            return found
        return found | self.flagged[place] if what == "refused" else found & ~self.flagged[place]


@dataclass(frozen=True)
class Evaluation:
    """What came out.

    Attributes:
        sets: The prompt sets.
        arms: The plain model first, then what was evaluated, then the random controls.
        prices: The price of each arm that has edits, the plain model's first; empty for a guard.
        price_prompts: Name of the prompts that the price was measured on; "" without a price.
        provenance: Model, sets, edits, settings.
    """

    sets: tuple[PromptSet, ...]
    arms: tuple[Arm, ...]
    prices: tuple[Price, ...]
    price_prompts: str
    provenance: dict[str, Any]

    @property
    def subject(self) -> Arm:
        """What was evaluated: the edited or guarded model, or the plain one when there is nothing else."""
        return self.arms[min(1, len(self.arms) - 1)]

    @property
    def controls(self) -> tuple[Arm, ...]:
        """The random controls."""
        return tuple(arm for arm in self.arms if arm.kind == "random")

    def arm(self, name: str) -> Arm:
        """One arm by its name.

        Raises:
            PromptError: When there is none; names those that there are.
        """
        return _one(name, {a.name: a for a in self.arms}, "arm")

    def rate(
        self,
        arm: str = "plain",
        *,
        what: str = "refused",
        set: str | None = None,
        label: str | None = None,
        category: str | None = None,
    ) -> Rate:
        """How often, over all prompts or some of them.

        Args:
            arm: Whose.
            what: `"refused"`, `"complied"`, `"partial"` or `"empty"`.
            set: Only this set.
            label: Only prompts with this label; "unlabelled" for those without.
            category: Only this category.

        Raises:
            PromptError: When there is no such arm, set, label or category; names those that there are.
        """
        _one(what, dict.fromkeys(("refused", "complied", "partial", "empty")), "outcome")
        found = [_one(set, {s.name: i for i, s in enumerate(self.sets)}, "set")] if set else range(len(self.sets))
        prompts = [p for i in found for p in self.sets[i]]
        if label is not None:
            _one(label, {p.label or UNLABELLED: 0 for p in prompts}, "label")
        if category is not None:
            _one(category, {p.category: 0 for p in prompts if p.category}, "category")
        mask = np.array([_is(p, label, category) for p in prompts], dtype=bool)
        hits = np.concatenate([self.arm(arm).outcome(i, what) for i in found])
        return Rate(int(hits[mask].sum()), int(mask.sum()))

    def over_refusal(self, arm: str = "plain") -> Rate:
        """Harmless prompts that are refused, over all sets; of no prompts where no set has any."""
        outcomes = [self.arm(arm).outcome(i, "refused") for i in range(len(self.sets))]
        mask = np.concatenate([[p.label == HARMLESS for p in s] for s in self.sets]).astype(bool)
        return Rate(int(np.concatenate(outcomes)[mask].sum()), int(mask.sum()))

    def price(self, arm: str) -> Price:
        """The price of one arm.

        Raises:
            PromptError: When it has none, a guard for instance: it changes no token of what it lets through.
        """
        return _one(arm, {p.arm: p for p in self.prices}, "price of")

    def cells(self) -> list[Cell]:
        """Sets, labels and categories, as the table's rows have them."""
        return cells_of(self.sets)

    def to_frame(self) -> Any:
        """One row per arm, set, label and category (pandas): rates with Wilson intervals, and the change from plain.

        `category` is "all" in the rows of a whole label, and `set` "all sets" in those over several sets. The change in
        refusal is paired over prompts, its interval Newcombe's.
        """
        return rate_table(self)

    def price_frame(self) -> Any:
        """One row per arm (pandas): KL per answer token, perplexity and its ratio to the plain model's, intervals."""
        return price_table(self.prices)

    def plot(self) -> Any:
        """Refusal by set with the plain model beside and random controls as dots, and the price (plotly)."""
        from probes.figures.evaluation import evaluation_bars

        return evaluation_bars(self)


def _one(name: str, known: Mapping[str, Any], what: str) -> Any:
    if name not in known:
        raise PromptError(f"there is no {what} {name!r}; there is: {', '.join(known) or 'none'}")
    return known[name]


def _is(prompt: Prompt, label: str | None, category: str | None) -> bool:
    right = label is None or (prompt.label or UNLABELLED) == label
    return right and (category is None or prompt.category == category)
