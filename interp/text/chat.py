"""Chat format: from messages to tokens with positions that have names.

The template is followed rather than guessed (`interp.text.template`); tokens are then located by character offsets.
Text is tokenised once, after templating, without special tokens being added again.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from interp.errors import ModelError, PositionError, PromptError, PromptTooLongError
from interp.text.asked import Asked
from interp.text.checks import shorten
from interp.text.encoded import Encoded, PromptLike, Trace, as_messages
from interp.text.positions import POSITION_NAMES, Span, tokens_of
from interp.text.template import ChatTemplate
from interp.text.thinking import Markers, ThoughtStatus, split_thought, thought_status


@dataclass(frozen=True)
class ChatFormat:
    """How a model's tokenizer turns a conversation into tokens.

    Args:
        tokenizer: A fast Hugging Face tokenizer.
        template: Jinja source, or a path to it, in place of the tokenizer's own template.
        system: System prompt for prompts that bring none.
        thinking: Ask the template for thinking mode. `None` (the default) turns thinking off where the template has
            a switch, and otherwise takes the template as it is.
        date: The date shown to templates that print one (`YYYY-MM-DD`); today's by default, kept in the provenance.
        max_tokens: Longest prompt accepted; the model's context length.
    """

    tokenizer: Any
    template: str | Path | None = None
    system: str | None = None
    thinking: bool | None = None
    date: str = field(default_factory=lambda: dt.date.today().isoformat())
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        if not getattr(self.tokenizer, "is_fast", False):
            raise ModelError(
                f"{type(self.tokenizer).__name__} gives no character offsets, and named positions need them; "
                "load the fast version of this tokenizer"
            )
        try:
            dt.date.fromisoformat(self.date)
        except ValueError:
            raise PromptError(f"the date is {self.date!r}; write it as YYYY-MM-DD") from None
        if not self._template.source:
            raise ModelError(
                "the tokenizer has no chat template; pass one: interp.load(..., chat_template=JINJA_OR_PATH), on the "
                "command line --chat-template FILE"
            )
        try:
            self._template.check_generation_prompt()
        except PromptError as error:
            raise ModelError(f"the chat template fails on a single user message: {error}") from error
        if self.thinking is not None and self.switch is None and self.thinking != self._template.opens_thought:
            raise ModelError(
                f"this chat template has no switch for thinking, so thinking={self.thinking} cannot be had; "
                "leave it out"
            )

    @cached_property
    def _template(self) -> ChatTemplate:
        return ChatTemplate(self.tokenizer, self.template, self.thinking, self.date)

    @property
    def digest(self) -> str:
        """Digest of the template's source, for the provenance."""
        return self._template.digest

    @property
    def switch(self) -> str | None:
        """Name of the template's variable that turns thinking on and off, if it has one."""
        return self._template.switch

    @property
    def markers(self) -> Markers | None:
        """What sets the model's thinking off, as found in its template or vocabulary."""
        return self._template.markers

    @cached_property
    def marker_ids(self) -> tuple[int, ...]:
        """Token ids of the thinking markers."""
        found = [
            self.tokenizer(m, add_special_tokens=False)["input_ids"]
            for m in (self.markers.parts if self.markers else ())
        ]
        return tuple(int(i) for ids in found for i in ids)

    @cached_property
    def thinks(self) -> bool:
        """Whether the model is to think under the present settings, be the thought opened by the template or by it."""
        if self.markers is None:
            return False
        if self.switch is not None:
            return bool(self.thinking)
        return self._template.opens_thought or bool(self.markers.header)  # channels: the model opens its thought itself

    @cached_property
    def end_ids(self) -> tuple[int, ...]:
        """Token ids that end an assistant turn: the template's own and the tokenizer's end of sequence."""
        tail = self._template.turn_end
        found: list[int] = []
        ids = self.tokenizer(tail.lstrip(), add_special_tokens=False)["input_ids"] if tail.strip() else []
        if ids and ids[0] in set(self.tokenizer.all_special_ids) | set(self.tokenizer.get_added_vocab().values()):
            found.append(int(ids[0]))
        if self.tokenizer.eos_token_id is not None:
            found.append(int(self.tokenizer.eos_token_id))
        return tuple(dict.fromkeys(found))

    def encode(self, source: PromptLike, turn: int = -1) -> Encoded:
        """Render and tokenise one prompt, and name its positions.

        Args:
            source: Text, a `Prompt`, chat messages, or a `Trace` with thinking and answer.
            turn: Which user turn is the instruction (`t_inst`); the last by default. What comes after an earlier one
                is all `post_inst`, later turns included.

        Raises:
            PromptError: For an empty or over-long prompt.
            PositionError: When the instruction cannot be found in the rendered text.
        """
        messages = as_messages(source, self.system)
        users = [i for i, m in enumerate(messages) if m["role"] == "user"]
        if not -len(users) <= turn < len(users):
            raise PositionError(f"there is no user turn {turn}: the conversation has {len(users)}")
        chosen = users[turn]
        continuing = messages[-1]["role"] == "assistant"
        text = self._template.render(messages, generation=not continuing)
        content = self._template.content_span(messages, chosen, text, generation=not continuing)
        marks = {"inst": content}
        asked = source.prompt if isinstance(source, Trace) else source
        if isinstance(asked, Asked):
            marks["question"] = _question_span(text, content, asked.question)
            marks["asked"] = content[0], len(text[: marks["question"][0]].rstrip())
        prompt_end = len(text)
        if isinstance(source, Trace) and (source.thinking is not None or source.answer):
            text, more = self._append_trace(text, source)
            marks.update(more)
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids = tuple(int(i) for i in encoded["input_ids"])
        if self.max_tokens is not None and len(ids) > self.max_tokens:
            raise PromptTooLongError(
                f"a prompt of {len(ids)} tokens is longer than the model's context of {self.max_tokens}: "
                f"{shorten(messages[chosen]['content'])!r}"
            )
        offsets = tuple((int(a), int(b)) for a, b in encoded["offset_mapping"])
        spans = {name: tokens_of(span, offsets) for name, span in marks.items()}
        n_prompt = tokens_of((0, prompt_end), offsets)[1]
        spans["prompt"] = (0, n_prompt)
        spans["post_inst"] = (spans["inst"][1], n_prompt)
        if "question" in spans:
            spans["context"] = (0, spans["question"][0])
        if spans["post_inst"][0] >= n_prompt:
            raise PositionError(
                "the template puts nothing after the instruction, so the model is given no place to answer from; "
                "use a template with a generation prompt"
            )
        return Encoded(text, ids, offsets, spans, source, n_prompt)

    def table(self, source: PromptLike, turn: int = -1) -> list[dict[str, Any]]:
        """Rows of (index, token, id, position names), for showing."""
        encoded = self.encode(source, turn)
        names: dict[int, list[str]] = {}
        for name in POSITION_NAMES:
            try:
                columns = encoded.columns(name)
            except PositionError:
                continue
            for place, column in enumerate(columns):
                label = name if len(columns) == 1 else f"{name}[{place}]"
                if name not in ("all", "prompt", "inst", "context"):
                    names.setdefault(column, []).append(label)
        return [
            {"index": i, "token": encoded.text[a:b] or self.tokenizer.decode([t]), "id": t, "names": names.get(i, [])}
            for i, (t, (a, b)) in enumerate(zip(encoded.ids, encoded.offsets, strict=True))
        ]

    def split(self, raw: str) -> tuple[str | None, str]:
        """Split what a model wrote into (thinking, answer); an unfinished thought leaves the answer empty."""
        return split_thought(raw, self.markers, self._template.opens_thought)

    def status(self, raw: str) -> ThoughtStatus:
        """Whether what a model wrote holds a whole thought, an empty one, an unfinished one, or none."""
        return thought_status(raw, self.markers, self._template.opens_thought)

    def provenance(self) -> dict[str, Any]:
        """What decides how a prompt is rendered."""
        return {
            "template_digest": self.digest,
            "system": self.system,
            "thinking": self.thinks,
            "date": self.date if "strftime_now" in (self._template.source or "") else None,
        }

    def _append_trace(self, text: str, trace: Trace) -> tuple[str, dict[str, Span]]:
        marks: dict[str, Span] = {}
        if trace.thinking is not None:
            if self.markers is None:
                raise PromptError("this model's template has no thinking markers, so a trace cannot have thinking")
            opened, closing = self._template.around
            for marker in self.markers.parts:
                if marker in trace.thinking:
                    raise PromptError(
                        f"the thinking of a trace holds the marker {marker!r} itself; give what stands between the "
                        f"markers, or split what the model wrote with model.chat.split: {shorten(trace.thinking)!r}"
                    )
            if not self._template.opens_thought:
                if self.markers.closing in self._template.header:
                    raise PromptError("thinking is off in this format; load the model with thinking=True for traces")
                text += opened
            start = len(text)
            text += trace.thinking.strip()
            marks["thinking"] = (start, len(text))
            start = len(text)
            text += closing
            marks["think_close"] = (start, len(text))
        elif self._template.opens_thought:
            raise PromptError(
                "this format opens a thought before the answer, so a trace needs its thinking; give it, or load the "
                "model with thinking=False"
            )
        elif self.markers is not None and trace.answer:
            text += self.markers.header
        if trace.answer:
            marks["answer"] = (len(text), len(text) + len(trace.answer))
            text += trace.answer
        return text, marks


def _question_span(text: str, content: Span, question: str) -> Span:
    """Where a question stands at the end of the instruction."""
    start = content[1] - len(question)
    if text[start : content[1]] != question:
        raise PositionError(f"the chat template rewrites the question, so it cannot be found: {shorten(question)!r}")
    return start, content[1]
