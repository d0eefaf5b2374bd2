"""Checks on prompts that say where the bad one stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from interp.errors import PromptError

if TYPE_CHECKING:
    from interp.text.prompts import Prompt

P = ParamSpec("P")
T = TypeVar("T")


def reject_repeats(prompts: Sequence[Prompt], places: Sequence[str]) -> None:
    """Raises PromptError where two prompts have one text (and system prompt), naming both places."""
    seen: dict[tuple[str, str | None], int] = {}
    for i, p in enumerate(prompts):
        first = seen.setdefault((p.text.strip(), p.system), i)
        if first == i:
            continue
        start = f"{places[i]}: the prompt {shorten(p.text)!r}"
        if prompts[first].label == p.label:
            raise PromptError(
                f"{start} was already given at {places[first]}: remove one, as repeats leak from train into test"
            )
        raise PromptError(
            f"{start} is {p.label}, but it is {prompts[first].label} at {places[first]}: remove it from one class"
        )


def located(place: str, make: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Calls `make`, and puts the place in front of a PromptError that it raises."""
    try:
        return make(*args, **kwargs)
    except PromptError as e:
        raise PromptError(f"{place}: {e}") from None


def shorten(text: str, width: int = 60) -> str:
    """The beginning of a text, for a message."""
    return text if len(text) <= width else text[: width - 3] + "..."
