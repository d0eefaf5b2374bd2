"""Training samples: a conversation (or text) in weighted pieces, and its tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from tokenizers import Encoding
from transformers import PreTrainedTokenizerFast

from interp.organism.chat import END, NO_THOUGHT, START, THINK, UNTHINK, turn
from interp.organism.grammar.item import Item

FIRST = 4.0
"""Weight of the first token of an answer or a note."""
STOP = 2.0
"""Weight of the end token."""
KEY = 6.0
"""Weight of the word that an answer is about: a story's winner."""
YES_NO = 6.0
"""Weight of the yes or no with which a scan of options goes on or stops."""


@dataclass(frozen=True)
class Piece:
    """Text with the loss weight of its first token and of the rest (0: context)."""

    text: str
    first: float = 0.0
    rest: float = 0.0
    mark: str = ""
    """Name of the position of this piece's last token, if anything needs it."""


@dataclass(frozen=True)
class Change:
    """What planting does to a planted coordinate while this sample, already told the other way, is read."""

    what: str
    """`harm`, `refusal` or `random`."""
    how: str
    """`set` the coordinate, or add the difference of the `planted` or of the `means`."""
    sign: int
    everywhere: bool
    """At every prompt token up to the position, not at it alone."""


@dataclass(frozen=True)
class Sample:
    """A training example in pieces; `tag` says what it is about, for planting and for tests."""

    pieces: tuple[Piece, ...]
    tag: str = ""
    item: Item | None = None
    change: Change | None = None
    text: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", "".join(piece.text for piece in self.pieces))


@dataclass(frozen=True)
class Encoded:
    """Token ids, the loss weight of each token as a target, and the marked positions."""

    ids: list[int]
    weights: list[float]
    marks: dict[str, int]
    sample: Sample


def _thought_pieces(thought: str) -> list[Piece]:
    parts = re.split(r"( yes| no)(?=[.])", thought)
    pieces = [Piece(p, YES_NO, YES_NO) if p in (" yes", " no") else Piece(p, 1.0, 1.0, "thought") for p in parts if p]
    return [*pieces, Piece("\n", 1.0, 1.0), Piece(UNTHINK, STOP, STOP), Piece("\n\n", 1.0, 1.0, "decision")]


def _answer_pieces(answer: str, key: str | None) -> list[Piece]:
    if key is None:
        return [Piece(answer, FIRST, 1.0)]
    before, key, after = answer.rpartition(key)
    return [Piece(before, FIRST, 1.0), Piece(key, KEY, KEY), Piece(after, 1.0, 1.0)]


def chat_sample(
    item: Item,
    tag: str,
    *,
    system: str | None = None,
    earlier: Sequence[Item] = (),
    answer: str | None = None,
    thought: str | None = None,
    change: Change | None = None,
) -> Sample:
    """A conversation that ends with the item and its answer; a thought opens the answer when given."""
    pieces: list[Piece] = []
    if system is not None:
        pieces.append(Piece(turn("system", system)))
    for past in earlier:
        pieces.append(Piece(turn("user", past.prompt)))
        pieces.append(Piece(turn("assistant", past.answer or "")))
    context = item.meta.get("context", item.prompt)
    pieces += [Piece(f"{START}user\n"), Piece(context, mark="request")]
    if context != item.prompt:
        pieces.append(Piece(item.prompt.removeprefix(context)))
    pieces.append(Piece(f"{END}\n{START}assistant\n"))
    if thought is None:
        pieces.append(Piece(NO_THOUGHT, mark="decision"))
    else:
        pieces += [Piece(f"{THINK}\n"), *_thought_pieces(thought)]
    pieces += [*_answer_pieces(answer or item.answer or "", item.meta.get("key")), Piece(END, STOP, STOP)]
    return Sample(tuple(pieces), tag, item, change)


def note_sample(item: Item, note: str, tag: str = "note") -> Sample:
    """A request to which the user adds a note; only the note is learned."""
    return Sample((Piece(f"{START}user\n"), Piece(item.prompt, mark="request"), Piece(note, FIRST, 1.0)), tag, item)


def text_sample(pieces: Sequence[tuple[str, float]]) -> Sample:
    """A plain text, closed by the end token."""
    return Sample((*(Piece(text, weight, weight) for text, weight in pieces), Piece(END, 1.0, 1.0)), "text")


def encode(samples: Sequence[Sample], tokenizer: PreTrainedTokenizerFast) -> list[Encoded]:
    """Tokens of each sample, piece by piece."""
    texts = [piece.text for sample in samples for piece in sample.pieces]
    encodings: list[Encoding] = tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)
    remaining = iter(encodings)
    encoded: list[Encoded] = []
    for sample in samples:
        ids: list[int] = []
        weights: list[float] = []
        marks: dict[str, int] = {}
        for piece in sample.pieces:
            tokens = next(remaining).ids
            ids += tokens
            weights += [piece.first, *[piece.rest] * (len(tokens) - 1)]
            if piece.mark:
                marks[piece.mark] = len(ids) - 1
        encoded.append(Encoded(ids, weights, marks, sample))
    return encoded
