"""A chat template: rendered with its clock stopped, and what it shows of thinking and of turns.

Everything is read off the template itself, by rendering conversations with a sentinel in them and looking where it
comes out, so a template that trims the content, repeats it, or adds a date around it is followed rather than guessed.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from interp.errors import ModelError, PositionError, PromptError
from interp.provenance import digest_text
from interp.text.checks import shorten
from interp.text.positions import Span
from interp.text.thinking import Markers, find_markers

SENTINEL = "XQSENTINELQX"
THINKING_SWITCHES = ("enable_thinking", "thinking")


@dataclass(frozen=True)
class ChatTemplate:
    """A template as a tokenizer renders it.

    Args:
        tokenizer: A Hugging Face tokenizer.
        given: Jinja source, or a path to it, in place of the tokenizer's own template.
        thinking: What the template's switch for thinking is set to, where it has one; `None` is off.
        date: The date shown to templates that print one (`YYYY-MM-DD`).
    """

    tokenizer: Any
    given: str | Path | None
    thinking: bool | None
    date: str

    @cached_property
    def source(self) -> str | None:
        """The template's Jinja source; `None` where there is none."""
        if self.given is None:
            own = self.tokenizer.chat_template
            return own.get("default") if isinstance(own, dict) else own
        if isinstance(self.given, Path) or ("{" not in self.given and Path(self.given).suffix):
            path = Path(self.given)
            if not path.is_file():
                raise ModelError(f"no chat template at {path}")
            return path.read_text(encoding="utf-8")
        return self.given

    @cached_property
    def _frozen(self) -> str:
        """The template with its clock stopped: a macro in place of `strftime_now`, which cannot be passed in."""
        source = self.source or ""
        if "strftime_now" not in source:
            return source
        day = dt.date.fromisoformat(self.date)
        codes = [f"%{flag}{code}" for code in "aAbBcdHIjmMpSuUVwWxXyYGzZ" for flag in ("", "-")]
        known = "".join(f".replace({code!r}, {day.strftime(code)!r})" for code in codes)
        # It ends in an expression, as a newline right after a block would be swallowed.
        return f"{{% macro strftime_now(spec) %}}{{{{ spec{known} }}}}{{% endmacro %}}{{{{ '' }}}}{source}"

    @cached_property
    def digest(self) -> str:
        """Digest of the template's source, for the provenance."""
        return digest_text(self.source or "")

    @cached_property
    def switch(self) -> str | None:
        """Name of the template's variable that turns thinking on and off, if it has one."""
        probe = [{"role": "user", "content": SENTINEL}]
        for name in THINKING_SWITCHES:
            if name in (self.source or "") and self.render(probe, **{name: True}) != self.render(
                probe, **{name: False}
            ):
                return name
        return None

    @cached_property
    def markers(self) -> Markers | None:
        """What sets the model's thinking off, as found in its template or vocabulary."""
        return find_markers(self.source or "", self.tokenizer.get_added_vocab())

    @cached_property
    def header(self) -> str:
        """The generation prompt: what the template puts between the last message and the model's first token."""
        probe = [{"role": "user", "content": SENTINEL}]
        text, without = self.render(probe), self.render(probe, generation=False)
        if text != without and text.startswith(without):
            return text[len(without) :]
        return text[text.rfind(SENTINEL) + len(SENTINEL) :] if SENTINEL in text else ""

    @cached_property
    def opens_thought(self) -> bool:
        """Whether the generation prompt ends inside a thought."""
        if self.markers is None:
            return False
        opening, closing = self.markers.parts
        return opening in self.header and closing not in self.header[self.header.rfind(opening) :]

    @cached_property
    def around(self) -> tuple[str, str]:
        """What stands before a thought and between it and the answer, as the template writes it where it shows it."""
        assert self.markers is not None
        opening, closing = self.markers.parts
        thought, answer = SENTINEL + "T", SENTINEL + "A"
        messages = [
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": answer, "reasoning_content": thought, "thinking": thought},
        ]
        text = self.render(messages, generation=False)
        if thought in text and answer in text:
            before, between = text[: text.index(thought)], text[text.index(thought) + len(thought) : text.index(answer)]
            if opening in before and closing in between:
                return before[before.rfind(opening) :], between
        # Channels are tokens, not tags: nobody puts a line break beside them.
        return (opening, closing) if self.markers.header else (f"{opening}\n", f"\n{closing}\n\n")

    @cached_property
    def turn_end(self) -> str:
        """What the template puts after an assistant's answer."""
        messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": SENTINEL}]
        text = self.render(messages, generation=False)
        return text[text.rindex(SENTINEL) + len(SENTINEL) :] if SENTINEL in text else ""

    def check_generation_prompt(self) -> None:
        """A template that leaves out the assistant's header would make the model write it: refuse that."""
        messages = [{"role": "user", "content": SENTINEL}]
        with_prompt, without = self.render(messages), self.render(messages, generation=False)
        if with_prompt != without:
            return
        reply = SENTINEL + "R"
        full = self.render([*messages, {"role": "assistant", "content": reply}], generation=False)
        header = full[: full.index(reply)] if reply in full else ""
        if header.startswith(with_prompt) and header[len(with_prompt) :].strip():
            raise ModelError(
                "the chat template has no generation prompt (add_generation_prompt changes nothing), so answers "
                "would start inside the assistant's header; mend the template or pass another with chat_template="
            )

    def render(self, messages: Sequence[Mapping[str, Any]], generation: bool = True, **switches: bool) -> str:
        """A conversation as text, with the generation prompt at its end or without.

        Raises:
            PromptError: When the template refuses the conversation.
        """
        variables: dict[str, Any] = dict(switches)
        if not switches and self.switch:
            variables[self.switch] = bool(self.thinking)
        try:
            return self.tokenizer.apply_chat_template(
                list(messages),
                chat_template=self._frozen,
                tokenize=False,
                add_generation_prompt=generation,
                **variables,
            )
        except Exception as error:  # Jinja templates raise whatever they like; the message is what counts
            roles = [m["role"] for m in messages]
            raise PromptError(f"the chat template refuses a conversation of roles {roles}: {error}") from error

    def content_span(self, messages: Sequence[Mapping[str, Any]], chosen: int, text: str, generation: bool) -> Span:
        """Character span of a message's content, by comparing with a rendering that has a sentinel there.

        Args:
            messages: The conversation.
            chosen: Which of its messages.
            text: The conversation as it was rendered.
            generation: Whether with the generation prompt.

        Raises:
            PositionError: When the template rewrites the content.
        """
        probe = [dict(m) for m in messages]
        probe[chosen]["content"] = SENTINEL
        frame = self.render(probe, generation=generation).split(SENTINEL)
        copies = len(frame) - 1
        if copies:
            room = len(text) - sum(len(part) for part in frame)
            size, rest = divmod(room, copies)
            if rest == 0 and size > 0 and text.startswith(frame[0]):
                content = text[len(frame[0]) : len(frame[0]) + size]
                if content.join(frame) == text:
                    lead = len(content) - len(content.lstrip())
                    end = len(text) - len(frame[-1])
                    return end - len(content) + lead, end - (len(content) - len(content.rstrip()))
        content = messages[chosen]["content"].strip()
        if text.count(content) == 1 and content not in "".join(frame):
            start = text.index(content)
            return start, start + len(content)
        raise PositionError(
            f"the chat template rewrites the instruction, so its last token cannot be found: {shorten(content)!r}"
        )
