"""What a model is given: prompts in whatever form, and the tokens they become, with positions that have names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from interp.errors import PromptError
from interp.text.positions import Span, positions_of
from interp.text.prompts import Prompt


@dataclass(frozen=True)
class Trace:
    """A prompt with what a model made of it: its thinking, if any, and its answer."""

    prompt: str | Prompt | Sequence[Mapping[str, Any]]
    thinking: str | None = None
    answer: str = ""


Messages = Sequence[Mapping[str, Any]]
PromptLike = str | Prompt | Trace | Messages


@dataclass(frozen=True)
class Encoded:
    """One rendered and tokenised prompt.

    Attributes:
        text: The rendered text, exactly what was tokenised.
        ids: Token ids, without padding.
        offsets: For each token, its character span in `text`.
        spans: Named regions as half-open token ranges.
        source: What was given.
        n_prompt: How many of the tokens belong to the prompt; the rest is the given thinking and answer.
    """

    text: str
    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]
    spans: Mapping[str, Span]
    source: PromptLike
    n_prompt: int

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def prompt(self) -> Prompt:
        """The prompt as a `Prompt`, whatever it was given as."""
        return as_prompt(self.source)

    def columns(self, name: str | int) -> tuple[int, ...]:
        """Token indices of a named position or region.

        Args:
            name: A name of `interp.POSITION_NAMES`, `NAME[i]` for the i-th token of a region, or an integer (from
                the prompt's end when negative).

        Raises:
            PositionError: When the prompt has no such position; the message names what it has.
        """
        return positions_of(name, self.spans, self.n_prompt, len(self.ids))


def as_prompt(source: PromptLike) -> Prompt:
    """The `Prompt` behind anything a prompt can be given as."""
    if isinstance(source, Prompt):
        return source
    if isinstance(source, Trace):
        return as_prompt(source.prompt)
    if isinstance(source, str):
        return Prompt(source)
    users = [m["content"] for m in as_messages(source, None) if m["role"] == "user"]
    return Prompt(users[-1])


def as_messages(source: PromptLike, system: str | None) -> list[dict[str, Any]]:
    """Chat messages of anything a prompt can be given as; `system` is used where the prompt brings none.

    What messages hold beside role and content (`reasoning_content`, say) goes to the template as it is.
    """
    if isinstance(source, Trace):
        return as_messages(source.prompt, system)
    if isinstance(source, str | Prompt):
        text = source if isinstance(source, str) else source.text
        own = None if isinstance(source, str) else source.system
        head = own if own is not None else system
        messages: list[dict[str, Any]] = [{"role": "user", "content": text}]
    else:
        messages = [_message(m, turn) for turn, m in enumerate(source)]
        head = None if messages and messages[0]["role"] == "system" else system
    if head:
        messages.insert(0, {"role": "system", "content": head})
    for turn, message in enumerate(messages):
        if message["role"] == "user" and not message["content"].strip():
            raise PromptError(f"the user's message (turn {turn}) is empty; every prompt needs some text")
    if not any(m["role"] == "user" for m in messages):
        raise PromptError("a conversation needs at least one user message")
    return messages


def _message(given: Any, turn: int) -> dict[str, Any]:
    """A chat message as it came, once its role and content are known to be text."""
    if not (isinstance(given, Mapping) and all(isinstance(given.get(key), str) for key in ("role", "content"))):
        raise PromptError(f"message {turn} of a conversation needs a role and a content, both text, not {given!r:.80}")
    return dict(given)
