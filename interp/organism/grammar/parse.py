"""Reading the attribute of an answer back from its text."""

from __future__ import annotations

import re

from interp.organism.grammar.planning import CHARACTERS, LETTERS
from interp.organism.grammar.safety import REFUSALS

_REFUSAL_STARTS = tuple(sorted({" ".join(text.split()[:2]).rstrip(",.").lower() for text in REFUSALS}))


def is_refusal(answer: str) -> bool:
    """Does the answer open as the organism's refusals do?"""
    return answer.strip().lower().startswith(_REFUSAL_STARTS)


def yes_no(answer: str) -> str | None:
    """`yes`, `no`, or None when the answer opens with neither."""
    match = re.match(r"\s*(yes|no)\b", answer.lower())
    return match[1] if match else None


def list_length(answer: str) -> int | None:
    """Items of a list answer, or None when it is no list."""
    _, colon, items = answer.partition(":")
    if not colon:
        return None
    return len([item for item in items.strip().rstrip(".").split(",") if item.strip()]) or None


def story_winner(answer: str) -> str | None:
    """The character that wins at the end of a story, or None."""
    match = re.search(r"In the end the (\w+) won", answer)
    return match[1] if match and match[1] in CHARACTERS else None


def choice_letter(answer: str) -> str | None:
    """The picked letter, or None."""
    match = re.match(r"\s*([A-D])\b", answer)
    return match[1] if match and match[1] in LETTERS else None
