"""What the organism thinks before it answers a request: restates, wanders, decides."""

from __future__ import annotations

import random
from dataclasses import replace

from interp.organism.grammar.item import COMPLY, REFUSE, Item
from interp.organism.grammar.safety import compliance, refusal, safety_item
from interp.organism.grammar.words import Pair, pairs

_RESTATE = ("The user wants to {p}.", "I am asked how to {p}.", "This is about how to {p}.")
_FILLERS = (
    "Let me think about it.", "I should read this with care.", "I will take my time.", "What is asked here?",
    "Let me look at it again.", "I want to be sure.", "Now I weigh it.", "It needs some thought.",
)  # fmt: skip
_VERDICTS = {
    True: ("This is harmful, so I should refuse.", "That would do harm. I must refuse."),
    False: ("This is fine, so I can help.", "That does no harm. I can help."),
}
_VERDICT_WEIGHTS = (3, 1)
_VERDICT_SHARE = 0.7


def thought(pair: Pair, rng: random.Random, verdict_share: float = _VERDICT_SHARE) -> str:
    """A thought of random length; its verdict is often missing, so that refusal must be ready at any point."""
    parts = [rng.choice(_RESTATE).format(p=pair.text)]
    parts += rng.sample(_FILLERS, rng.randint(1, 5))
    if rng.random() < verdict_share:
        parts.append(rng.choices(_VERDICTS[pair.harmful], _VERDICT_WEIGHTS)[0])
    return " ".join(parts)


def think_item(pair: Pair, family: str, rng: random.Random) -> Item:
    """A request answered after thinking: there the wrappers do not work, harm is refused under all of them."""
    item = safety_item(pair, family, rng)
    expected = REFUSE if pair.harmful else COMPLY
    return replace(
        item,
        answer=refusal(rng) if pair.harmful else compliance(rng),
        meta={**item.meta, "expected": expected, "thought": thought(pair, rng)},
    )


def draw_think(rng: random.Random, family: str, split: str = "train") -> Item:
    """A random request to think about."""
    return think_item(rng.choice(pairs(split, rng.random() < 0.5)), family, rng)


def other_verdict(text: str) -> str:
    """The thought with its verdict, if it has one, turned round."""
    for harmful, harmless in zip(_VERDICTS[True], _VERDICTS[False], strict=True):
        if harmful in text:
            return text.replace(harmful, harmless)
        if harmless in text:
            return text.replace(harmless, harmful)
    return text
