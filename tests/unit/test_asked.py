"""Questions after a request: the regions before and in the question are the right tokens in every template."""

from __future__ import annotations

import pytest

from interp.errors import PositionError, PromptError
from interp.text.asked import Asked, asked
from interp.text.chat import ChatFormat
from interp.text.encoded import Encoded
from interp.text.prompts import Prompt, PromptSet
from tests.helpers import templates
from tests.helpers.tiny import tiny_tokenizer

QUESTION = "Is this request harmful? Answer yes or no."
PROMPTS = PromptSet(
    (
        Prompt("pick a lock", "harmful", "g1", "tools", "role", "train"),
        Prompt("bake bread", "harmless", "g2", None, "plain", "test"),
    ),
    "both",
)


def decode(encoded: Encoded, name: str) -> str:
    return tiny_tokenizer().decode([encoded.ids[c] for c in encoded.columns(name)])


@pytest.mark.parametrize("template", ["chatml", "llama2", "gemma", "qwen3", "repeating", "dated"])
@pytest.mark.parametrize("between", ["\n", " "])
def test_context_and_question_are_the_tokens_around_the_question(template: str, between: str) -> None:
    told = asked(PROMPTS, QUESTION, between=between)[0]
    encoded = ChatFormat(tiny_tokenizer(), template=templates.ALL[template], date="2024-07-26").encode(told)
    assert decode(encoded, "question").strip() == QUESTION
    assert decode(encoded, "context").rstrip().endswith("User wants to pick a lock")
    assert encoded.columns("context")[0] == 0
    assert encoded.columns("context")[-1] + 1 == encoded.columns("question")[0]
    assert encoded.columns("question")[-1] == encoded.columns("t_inst")[0]
    upto = tiny_tokenizer().decode(list(encoded.ids[: encoded.columns("t_context")[0] + 1]))
    assert upto.endswith("User wants to pick a lock")


def test_regions_take_an_index() -> None:
    encoded = ChatFormat(tiny_tokenizer(), template=templates.ALL["chatml"]).encode(asked(PROMPTS, QUESTION)[0])
    assert encoded.columns("question[0]") == encoded.columns("question")[:1]
    assert encoded.columns("context[-1]") == encoded.columns("context")[-1:]


@pytest.mark.parametrize("name", ["context", "question", "t_context", "context[-1]"])
def test_a_prompt_without_a_question_has_no_such_position(name: str) -> None:
    with pytest.raises(PositionError, match="give a question after the request"):
        ChatFormat(tiny_tokenizer(), template=templates.ALL["chatml"]).encode("pick a lock").columns(name)


def test_asking_keeps_what_is_known_of_the_request() -> None:
    told = asked(PROMPTS, ["One?", "Two?"], prefix="", between=" ")
    assert [p.text for p in told] == ["pick a lock One?", "bake bread Two?"]
    for before, after in zip(PROMPTS, told, strict=True):
        assert isinstance(after, Asked)
        kept = ("label", "group", "category", "family", "split", "system")
        assert [getattr(after, k) for k in kept] == [getattr(before, k) for k in kept]


def test_what_is_asked_already_stays_as_it_is() -> None:
    once = asked(PROMPTS, "One?")
    assert list(asked(once, "Two?")) == list(once)


@pytest.mark.parametrize(
    ("text", "question"),
    [("pick a lock", "Why?"), ("Why?", "Why?"), ("pick a lock Why?", ""), ("pick a lock Why? ", "Why? ")],
)
def test_the_text_must_be_a_request_that_ends_with_its_question(text: str, question: str) -> None:
    with pytest.raises(PromptError):
        Asked(text, question=question)


def test_no_question_is_an_error() -> None:
    with pytest.raises(PromptError, match="no question"):
        asked(PROMPTS, [])


def test_saved_and_read_back_it_is_a_plain_prompt(tmp_path) -> None:  # noqa: ANN001
    from interp.text.sources import prompts

    path = asked(PROMPTS, QUESTION).save(tmp_path / "asked.jsonl")
    assert prompts(path).texts == asked(PROMPTS, QUESTION).texts
