"""Chat format: from messages to tokens with positions that have names.

Everything is read off the tokenizer's own chat template. A turn's content is found by rendering the same conversation
with a sentinel in its place, so a template that trims the content, repeats it, or adds a date around it is followed
rather than guessed; tokens are then located by character offsets. Text is tokenised once, after templating, without
special tokens being added again.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from interp.errors import ModelError, PositionError, PromptError, PromptTooLongError
from interp.provenance import digest_text
from interp.text.asked import Asked
from interp.text.positions import POSITION_NAMES, Span, positions_of, tokens_of
from interp.text.prompts import Prompt
from interp.text.thinking import Markers, ThoughtStatus, find_markers, split_thought, thought_status

SENTINEL = "XQSENTINELQX"
THINKING_SWITCHES = ("enable_thinking", "thinking")


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
        if not self._source:
            raise ModelError(
                "the tokenizer has no chat template; pass one: interp.load(..., chat_template=JINJA_OR_PATH), on the "
                "command line --chat-template FILE"
            )
        try:
            self._check_generation_prompt()
        except PromptError as error:
            raise ModelError(f"the chat template fails on a single user message: {error}") from error
        if self.thinking is not None and self.switch is None and self.thinking != self._opens_thought:
            raise ModelError(
                f"this chat template has no switch for thinking, so thinking={self.thinking} cannot be had; "
                "leave it out"
            )

    @cached_property
    def _source(self) -> str | None:
        if self.template is None:
            own = self.tokenizer.chat_template
            return own.get("default") if isinstance(own, dict) else own
        if isinstance(self.template, Path) or ("{" not in self.template and Path(self.template).suffix):
            path = Path(self.template)
            if not path.is_file():
                raise ModelError(f"no chat template at {path}")
            return path.read_text(encoding="utf-8")
        return self.template

    @cached_property
    def _frozen(self) -> str:
        """The template with its clock stopped: a macro in place of `strftime_now`, which cannot be passed in."""
        source = self._source or ""
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
        return digest_text(self._source or "")

    @cached_property
    def switch(self) -> str | None:
        """Name of the template's variable that turns thinking on and off, if it has one."""
        probe = [{"role": "user", "content": SENTINEL}]
        for name in THINKING_SWITCHES:
            if name in (self._source or "") and self._render(probe, **{name: True}) != self._render(
                probe, **{name: False}
            ):
                return name
        return None

    @cached_property
    def markers(self) -> Markers | None:
        """What sets the model's thinking off, as found in its template or vocabulary."""
        return find_markers(self._source or "", self.tokenizer.get_added_vocab())

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
        return self._opens_thought or bool(self.markers.header)  # channels: the model opens its thought itself

    @cached_property
    def _header(self) -> str:
        """The generation prompt: what the template puts between the last message and the model's first token."""
        probe = [{"role": "user", "content": SENTINEL}]
        text, without = self._render(probe), self._render(probe, generation=False)
        if text != without and text.startswith(without):
            return text[len(without) :]
        return text[text.rfind(SENTINEL) + len(SENTINEL) :] if SENTINEL in text else ""

    @cached_property
    def _opens_thought(self) -> bool:
        """Whether the generation prompt ends inside a thought."""
        if self.markers is None:
            return False
        opening, closing = self.markers.parts
        return opening in self._header and closing not in self._header[self._header.rfind(opening) :]

    @cached_property
    def _around(self) -> tuple[str, str]:
        """What stands before a thought and between it and the answer, as the template writes it where it shows it."""
        assert self.markers is not None
        opening, closing = self.markers.parts
        thought, answer = SENTINEL + "T", SENTINEL + "A"
        messages = [
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": answer, "reasoning_content": thought, "thinking": thought},
        ]
        text = self._render(messages, generation=False)
        if thought in text and answer in text:
            before, between = text[: text.index(thought)], text[text.index(thought) + len(thought) : text.index(answer)]
            if opening in before and closing in between:
                return before[before.rfind(opening) :], between
        # Channels are tokens, not tags: nobody puts a line break beside them.
        return (opening, closing) if self.markers.header else (f"{opening}\n", f"\n{closing}\n\n")

    @cached_property
    def end_ids(self) -> tuple[int, ...]:
        """Token ids that end an assistant turn: the template's own and the tokenizer's end of sequence."""
        messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": SENTINEL}]
        text = self._render(messages, generation=False)
        tail = text[text.rindex(SENTINEL) + len(SENTINEL) :] if SENTINEL in text else ""
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
        text = self._render(messages, generation=not continuing)
        content = self._content_span(messages, chosen, text, generation=not continuing)
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
                f"{_short(messages[chosen]['content'])}"
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
        return split_thought(raw, self.markers, self._opens_thought)

    def status(self, raw: str) -> ThoughtStatus:
        """Whether what a model wrote holds a whole thought, an empty one, an unfinished one, or none."""
        return thought_status(raw, self.markers, self._opens_thought)

    def provenance(self) -> dict[str, Any]:
        """What decides how a prompt is rendered."""
        return {
            "template_digest": self.digest,
            "system": self.system,
            "thinking": self.thinks,
            "date": self.date if "strftime_now" in (self._source or "") else None,
        }

    def _append_trace(self, text: str, trace: Trace) -> tuple[str, dict[str, Span]]:
        marks: dict[str, Span] = {}
        if trace.thinking is not None:
            if self.markers is None:
                raise PromptError("this model's template has no thinking markers, so a trace cannot have thinking")
            opened, closing = self._around
            for marker in self.markers.parts:
                if marker in trace.thinking:
                    raise PromptError(
                        f"the thinking of a trace holds the marker {marker!r} itself; give what stands between the "
                        f"markers, or split what the model wrote with model.chat.split: {_short(trace.thinking)}"
                    )
            if not self._opens_thought:
                if self.markers.closing in self._header:
                    raise PromptError("thinking is off in this format; load the model with thinking=True for traces")
                text += opened
            start = len(text)
            text += trace.thinking.strip()
            marks["thinking"] = (start, len(text))
            start = len(text)
            text += closing
            marks["think_close"] = (start, len(text))
        elif self._opens_thought:
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

    def _content_span(self, messages: list[dict[str, Any]], chosen: int, text: str, generation: bool) -> Span:
        """Character span of a message's content, by comparing with a rendering that has a sentinel there."""
        probe = [dict(m) for m in messages]
        probe[chosen]["content"] = SENTINEL
        frame = self._render(probe, generation=generation).split(SENTINEL)
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
            f"the chat template rewrites the instruction, so its last token cannot be found: {_short(content)}"
        )

    def _check_generation_prompt(self) -> None:
        """A template that leaves out the assistant's header would make the model write it: refuse that."""
        messages = [{"role": "user", "content": SENTINEL}]
        with_prompt, without = self._render(messages), self._render(messages, generation=False)
        if with_prompt != without:
            return
        reply = SENTINEL + "R"
        full = self._render([*messages, {"role": "assistant", "content": reply}], generation=False)
        header = full[: full.index(reply)] if reply in full else ""
        if header.startswith(with_prompt) and header[len(with_prompt) :].strip():
            raise ModelError(
                "the chat template has no generation prompt (add_generation_prompt changes nothing), so answers "
                "would start inside the assistant's header; mend the template or pass another with chat_template="
            )

    def _render(self, messages: Sequence[Mapping[str, Any]], generation: bool = True, **switches: bool) -> str:
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


def _message(given: Any, turn: int) -> dict[str, Any]:
    """A chat message as it came, once its role and content are known to be text."""
    if not (isinstance(given, Mapping) and all(isinstance(given.get(key), str) for key in ("role", "content"))):
        raise PromptError(f"message {turn} of a conversation needs a role and a content, both text, not {given!r:.80}")
    return dict(given)


def _question_span(text: str, content: Span, question: str) -> Span:
    """Where a question stands at the end of the instruction."""
    start = content[1] - len(question)
    if text[start : content[1]] != question:
        raise PositionError(f"the chat template rewrites the question, so it cannot be found: {_short(question)}")
    return start, content[1]


def _short(text: str, width: int = 60) -> str:
    return repr(text if len(text) <= width else text[: width - 3] + "...")
