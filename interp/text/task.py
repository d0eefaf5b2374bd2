"""Requests whose right answer is known, or that offer options to choose from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from interp.errors import PromptError
from interp.text.prompts import Prompt

TASK_FIELDS = ("expected", "options")


@dataclass(frozen=True)
class Task(Prompt):
    """A request with what is known of its answer; files of prompts may bring both fields.

    Attributes:
        expected: The right answer: an option's letter, a number, a name.
        options: What can be chosen, where the request offers something: `("fox", "crow", "bear")`.

    Raises:
        PromptError: When both are empty, or an option is, or comes twice.
    """

    expected: str = ""
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.expected.strip() and not self.options:
            raise PromptError("a task needs an expected answer or options; without both it is a plain prompt")
        if any(not option.strip() for option in self.options) or len(set(self.options)) < len(self.options):
            raise PromptError(f"the options are {', '.join(map(repr, self.options))}: each must be a text of its own")


def task_fields(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a record of a file says of the answer: `expected` (text or number), `options` (a list, or text with |).

    Raises:
        PromptError: For another type.
    """
    found: dict[str, Any] = {}
    expected, options = record.get("expected"), record.get("options")
    if expected not in (None, ""):
        if isinstance(expected, bool) or not isinstance(expected, str | int | float):
            raise PromptError(f"expected is {expected!r:.60}: it must be a text or a number")
        found["expected"] = str(expected)
    if options not in (None, "", []):
        several = options.split("|") if isinstance(options, str) else options
        if not isinstance(several, list) or not all(isinstance(o, str) for o in several):
            raise PromptError(f"options is {options!r:.60}: it must be a list of texts, or a text with | between them")
        found["options"] = tuple(o.strip() for o in several)
    return found
