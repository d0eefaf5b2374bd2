"""Answers of a model, greedy, on disk as they are written, with the tokens they are made of."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from interp.errors import PromptError
from interp.model.generate import Completion
from interp.model.generate_onto import Kind, generate_onto
from interp.model.model import Model
from interp.provenance import digest_json
from interp.text.encoded import Encoded, Trace, as_prompt
from interp.text.prompts import Prompt, PromptSet
from probes.planning.attributes import Answer

ANSWERS = Kind("refusalkit/answers/1", "answers", "generating")
_WINDOW = 8
_NO_END = -1
"""Stands for the end token of an answer that ended: it is never read."""


@dataclass(frozen=True)
class Written:
    """One answer with its tokens.

    Attributes:
        answer: What attributes are shown.
        ids: The tokens written, thought and end token included.
        ends: For each token, where it ends in the text written, in characters.
        start: Where the answer starts in that text: behind the thought, if any.
        text: That text: everything written but special tokens.
        thought: `"whole"`, `"empty"`, `"unfinished"` or `"none"`.
    """

    answer: Answer
    ids: tuple[int, ...]
    ends: tuple[int, ...]
    start: int
    text: str
    thought: str

    @property
    def finished(self) -> bool:
        """Whether it ended by itself."""
        return self.answer.finished

    @property
    def body(self) -> int:
        """How many tokens there are, the end token left out."""
        return len(self.ids) - self.finished

    @property
    def before_answer(self) -> int:
        """How many tokens stand before the answer's first: thought and what closes it."""
        return self.token_at(self.start) if self.thought != "none" else 0

    def token_at(self, character: int) -> int:
        """The token that writes a character of the text; the number of tokens for one behind the end."""
        return next((i for i, end in enumerate(self.ends[: self.body]) if end > character), self.body)


def write_answers(
    model: Model,
    prompts: PromptSet | Sequence[Prompt],
    *,
    out: str | os.PathLike[str] | None = None,
    max_new_tokens: int = 256,
    batch_size: int = 64,
    token_budget: int = 16384,
    progress: bool = False,
) -> list[Written]:
    """Let a model answer, greedily, in the mode it is in: a model that thinks is given room to.

    Args:
        model: The model.
        prompts: Prompts.
        out: A JSON-lines file, filled batch by batch. If that is cut short, the same call goes on from there and
            writes nothing twice. A file of another model, template, prompt set or length is refused.
        max_new_tokens: Longest thought and answer together.
        batch_size: Most rows in a batch; also how often the file grows.
        token_budget: Most padded tokens in a batch.
        progress: Show a progress bar.

    Raises:
        PromptError: For no prompts, or a file of something else.
    """
    several = list(prompts)
    if not several:
        raise PromptError("no prompts were given")
    made_from = {**model.provenance(), "answers": {"max_new_tokens": max_new_tokens}}
    rows = generate_onto(
        model, model.encode(several), ANSWERS, out, partial(_row, model), digest_json([asdict(p) for p in several]),
        made_from, max_new_tokens=max_new_tokens, batch_size=batch_size, token_budget=token_budget, progress=progress,
    )  # fmt: skip
    return [_written(model, prompt, row) for prompt, row in zip(several, rows, strict=True)]


def as_written(model: Model, completion: Completion) -> Written:
    """A completion, the tokens beside it."""
    return _written(model, completion.prompt, _row(model, 0, completion))


def from_trace(model: Model, trace: Trace, status: str) -> Written:
    """A thought and its answer, read from a file and tokenised anew; they count as finished.

    Args:
        model: The model in the mode in which it thought.
        trace: What was thought and answered.
        status: Of the thought, as in `interp.Traces`.
    """
    whole = model.encode([trace])[0]
    head = len(model.encode([as_prompt(trace)])[0].text)
    ends = tuple(end - head for _, end in whole.offsets[whole.n_prompt :])
    first = whole.spans["answer"][0] if "answer" in whole.spans else len(whole)
    start = whole.offsets[first][0] - head if first < len(whole) else len(whole.text) - head
    answer = Answer(trace.answer, as_prompt(trace), trace.thinking, len(whole) - first, finished=True)
    ids = (*whole.ids[whole.n_prompt :], _NO_END)
    return Written(answer, ids, ends, start, whole.text[head:], status)


def joined(encoded: Encoded, written: Written, n_tokens: int) -> Encoded:
    """A prompt and the first tokens of its answer, as they were written and not tokenised anew."""
    end = len(encoded.text)
    offsets = tuple((end + a, end + b) for a, b in zip((0, *written.ends), written.ends, strict=False))
    return Encoded(
        encoded.text + written.text, encoded.ids[: encoded.n_prompt] + written.ids[:n_tokens],
        encoded.offsets[: encoded.n_prompt] + offsets[:n_tokens], encoded.spans, encoded.source, encoded.n_prompt,
    )  # fmt: skip


def token_ends(model: Model, ids: Sequence[int]) -> tuple[int, ...]:
    """Where each token ends in the text that the model's tokens decode to, special tokens being no text.

    Decoded over a window: a token alone may lose its space, and a character may need several tokens.
    """
    hidden = set(model.tokenizer.all_special_ids) - set(model.chat.marker_ids)

    def size(part: Sequence[int]) -> int:
        return len(model.tokenizer.decode([i for i in part if i not in hidden], clean_up_tokenization_spaces=False))

    ends: list[int] = []
    for k in range(len(ids)):
        first = max(0, k - _WINDOW)
        before = ends[-1] if ends else 0
        ends.append(max(before, before + size(ids[first : k + 1]) - size(ids[first:k])))
    return tuple(ends)


def _row(model: Model, index: int, written: Completion) -> dict[str, Any]:
    return {
        "index": index, "prompt": written.prompt.text, "text": written.text, "thinking": written.thinking,
        "answer": written.answer, "status": model.chat.status(written.text), "ids": list(written.ids),
        "finished": written.finished,
    }  # fmt: skip


def _written(model: Model, prompt: Prompt, row: dict[str, Any]) -> Written:
    ids, text, finished = tuple(row["ids"]), row["text"], row["finished"]
    ends = token_ends(model, ids)
    start = len(text.rstrip()) - len(row["answer"])
    made = Written(Answer(row["answer"], prompt, row["thinking"], 0, finished), ids, ends, start, text, row["status"])
    n_tokens = made.body - made.before_answer if row["answer"] else 0
    answer = Answer(row["answer"], prompt, row["thinking"], n_tokens, finished)
    return Written(answer, ids, ends, start, text, row["status"])
