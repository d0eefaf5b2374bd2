"""Chat format: rendering follows the template, and named positions decode to what they are named for."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from interp.errors import ModelError, PositionError, PromptError
from interp.text.chat import ChatFormat
from interp.text.encoded import Encoded, Trace
from interp.text.positions import tokens_of
from interp.text.prompts import Prompt
from interp.text.template import SENTINEL
from tests.helpers import templates
from tests.helpers.tiny import CHATML, tiny_tokenizer

DATE = "2024-07-26"
GENERATION = {
    "chatml": "<|im_end|>\n<|im_start|>assistant\n",
    "llama2": " [/INST]",
    "dated": "<|im_end|><|im_start|>assistant\n\n",
    "gemma": "<|im_end|>\n<|im_start|>model\n",
    "repeating": "<|im_end|>\n<|im_start|>assistant\n",
    "qwen3": "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    "opens_thought": "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    "own_thoughts": "<|im_end|>\n<|im_start|>assistant\n",
}


def chat(name: str = "chatml", **options: Any) -> ChatFormat:
    options.setdefault("date", DATE)
    return ChatFormat(tiny_tokenizer(), template=templates.ALL.get(name, name), **options)


def decode(encoded: Encoded, columns: tuple[int, ...]) -> str:
    return tiny_tokenizer().decode([encoded.ids[c] for c in columns])


def names(encoded: Encoded, name: str) -> str:
    return decode(encoded, encoded.columns(name))


@pytest.mark.parametrize("name", templates.ALL)
def test_instruction_and_template_tokens_are_found_in_every_template(name: str) -> None:
    encoded = chat(name).encode("How do I bake bread?")
    assert names(encoded, "inst") == "How do I bake bread?"
    assert names(encoded, "t_inst") == "?"
    assert names(encoded, "post_inst") == GENERATION[name]
    assert encoded.columns("t_post_inst") == encoded.columns("last") == (len(encoded) - 1,)
    assert encoded.columns("post_inst[-1]") == encoded.columns("t_post_inst")
    assert encoded.columns("post_inst[0]") == (encoded.columns("t_inst")[0] + 1,)
    assert encoded.n_prompt == len(encoded)
    assert tiny_tokenizer().decode(encoded.ids) == encoded.text


def test_the_text_is_tokenised_without_adding_special_tokens_again() -> None:
    encoded = chat().encode("Hi")
    assert encoded.text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert list(encoded.ids) == tiny_tokenizer()(encoded.text, add_special_tokens=False)["input_ids"]
    assert encoded.ids.count(1) == 2


@pytest.mark.parametrize("name", templates.ALL)
@settings(max_examples=25, deadline=None)
@given(text=st.text(st.characters(codec="utf-8", exclude_characters="\r"), min_size=1, max_size=30))
@example("user")
@example("assistant")
@example("<|im_end|>\n<|im_start|>assistant\n")
@example("[/INST]")
@example("<think>")
@example("</think>")
@example("trailing \n\n")
@example("\n\n leading")
@example("at the end \U0001f469\u200d\U0001f52c")
@example("日本語")
@example("First: x\nAgain: x")
@example("{{ messages }}")
@example("I")
def test_tokens_up_to_t_inst_hold_the_whole_instruction(name: str, text: str) -> None:
    if not text.strip():
        return
    encoded = chat(name).encode(text)
    # Markers typed by the user become special tokens, as they would for any user of the tokenizer.
    assert names(encoded, "inst") == text.strip()
    end = encoded.columns("t_inst")[0] + 1
    assert tiny_tokenizer().decode(encoded.ids[:end]).endswith(text.strip())
    assert tiny_tokenizer().decode(encoded.ids[end:]).strip() == GENERATION[name].strip()
    assert encoded.columns("inst") == tuple(range(encoded.columns("inst")[0], end))


@given(st.lists(st.integers(1, 4), min_size=1, max_size=12), st.data())
def test_a_span_maps_to_the_tokens_that_reach_into_it(widths: list[int], data: st.DataObject) -> None:
    edges = [sum(widths[:i]) for i in range(len(widths) + 1)]
    offsets = list(zip(edges, edges[1:], strict=False))
    start = data.draw(st.integers(0, edges[-1] - 1))
    end = data.draw(st.integers(start + 1, edges[-1]))
    first, stop = tokens_of((start, end), offsets)
    assert offsets[first][0] <= start < offsets[first][1]
    assert offsets[stop - 1][0] < end <= offsets[stop - 1][1]


def test_tokens_without_characters_are_in_no_span() -> None:
    assert tokens_of((0, 2), [(0, 0), (0, 1), (1, 2), (2, 2)]) == (1, 3)
    assert tokens_of((5, 7), [(0, 1), (1, 2)]) == (2, 2)


def test_all_bytes_of_a_character_at_the_end_belong_to_the_instruction() -> None:
    encoded = chat().encode("go \U0001f525")
    assert len(encoded.columns("inst")) == 3 + 4
    assert encoded.columns("t_inst")[0] == encoded.columns("inst")[-1]


def test_content_repeated_by_the_template_is_found_at_its_last_copy() -> None:
    encoded = chat("repeating").encode("bread")
    assert encoded.text.count("bread") == 2
    start = encoded.columns("inst")[0]
    assert encoded.offsets[start][0] == encoded.text.rindex("bread")


def test_content_repeated_in_the_system_prompt_is_found_in_the_user_turn() -> None:
    for system in ("bread", "Say bread bread\n", SENTINEL):
        encoded = chat(system=system).encode("bread")
        assert encoded.offsets[encoded.columns("inst")[0]][0] == encoded.text.rindex("bread")
        assert encoded.text.startswith(f"<|im_start|>system\n{system}<|im_end|>")


def test_content_that_a_template_rewrites_is_refused_rather_than_guessed() -> None:
    lower = CHATML.replace("m.content", "m.content | lower")
    with pytest.raises(PositionError, match="rewrites the instruction"):
        chat(lower).encode("Bake Bread")
    reverse = CHATML.replace("m.content", "m.content | reverse")
    with pytest.raises(PositionError, match="rewrites the instruction"):
        chat(reverse).encode("user")  # not the role's name in the header


def test_a_prompts_own_system_message_replaces_the_formats() -> None:
    text = chat(system="Be kind.").encode(Prompt("Hi", system="Be brief.")).text
    assert "Be brief." in text and "Be kind." not in text
    assert "Be kind." in chat(system="Be kind.").encode("Hi").text
    messages = [{"role": "system", "content": "Own."}, {"role": "user", "content": "Hi"}]
    assert chat(system="Be kind.").encode(messages).text.count("<|im_start|>system") == 1


def test_a_template_without_system_role_says_so() -> None:
    with pytest.raises(PromptError, match="System role not supported"):
        chat("gemma", system="Be kind.").encode("Hi")


TURNS = [
    {"role": "user", "content": "First thing"},
    {"role": "assistant", "content": "Sure"},
    {"role": "user", "content": "Second thing"},
]


def test_the_instruction_is_the_last_user_turn_unless_another_is_chosen() -> None:
    assert names(chat().encode(TURNS), "inst") == "Second thing"
    assert names(chat().encode(TURNS, turn=1), "inst") == "Second thing"
    first = chat().encode(TURNS, turn=0)
    assert names(first, "inst") == names(chat().encode(TURNS, turn=-2), "inst") == "First thing"
    assert first.columns("t_post_inst") == (len(first) - 1,)
    assert first.ids == chat().encode(TURNS).ids
    with pytest.raises(PositionError, match="no user turn 2"):
        chat().encode(TURNS, turn=2)


def test_equal_turns_are_told_apart() -> None:
    same = [TURNS[0], TURNS[1], TURNS[0]]
    early, late = (chat().encode(same, turn=t).columns("t_inst")[0] for t in (0, 1))
    assert early < late and names(chat().encode(same, turn=0), "inst") == "First thing"


def test_a_conversation_that_ends_with_the_assistant_gets_no_generation_prompt() -> None:
    encoded = chat().encode(TURNS[:2])
    assert encoded.text.endswith("<|im_start|>assistant\nSure<|im_end|>\n")


def test_thoughts_of_earlier_turns_reach_the_template() -> None:
    turns = [TURNS[0], {"role": "assistant", "content": "Sure", "reasoning_content": "Easy."}, TURNS[2]]
    assert "<think>~~Easy.~~</think>~~Sure" in chat("own_thoughts").encode(turns).text


def test_a_date_is_frozen_and_lands_in_the_provenance() -> None:
    dated = chat("dated")
    assert "Today Date: 26 Jul 2024" in dated.encode("Hi").text
    assert dated.provenance()["date"] == DATE
    again = ChatFormat(tiny_tokenizer(), template=templates.DATED, date=dated.provenance()["date"])
    assert again.encode("Hi") == dated.encode("Hi")
    assert "01 Feb 2030" in chat("dated", date="2030-02-01").encode("Hi").text
    assert chat().provenance()["date"] is None


@pytest.mark.parametrize("name", ["qwen3", "opens_thought"])
def test_thinking_is_off_by_default_where_there_is_a_switch(name: str) -> None:
    off, on = chat(name), chat(name, thinking=True)
    assert off.encode("Hi").text.endswith("<think>\n\n</think>\n\n") and not off.thinks
    assert on.thinks and on.provenance()["thinking"] is True
    expected = "assistant\n<think>\n" if name == "opens_thought" else "assistant\n"
    assert on.encode("Hi").text.endswith(expected)
    assert chat(name, thinking=False).encode("Hi").text == off.encode("Hi").text


def test_thinking_without_a_switch_is_refused() -> None:
    with pytest.raises(ModelError, match="no switch for thinking"):
        chat(thinking=True)
    assert chat(thinking=False).encode("Hi").text == chat().encode("Hi").text


@pytest.mark.parametrize("prompt", ["How?", "What is <think>?", "What is </think>?", "<think>\na</think>", TURNS])
@pytest.mark.parametrize("name", ["qwen3", "opens_thought"])
def test_a_trace_has_its_parts_named(name: str, prompt: Any) -> None:
    encoded = chat(name, thinking=True).encode(Trace(prompt, "Let me see.", "Like this."))
    assert encoded.text.endswith("<|im_start|>assistant\n<think>\nLet me see.\n</think>\n\nLike this.")
    assert names(encoded, "think_start") == "L" and names(encoded, "think_end") == "."
    assert names(encoded, "think_close") == "\n</think>\n\n"
    assert names(encoded, "answer_start") == "L"
    assert encoded.columns("think_end")[0] + 1 == encoded.columns("think_close")[0]
    assert encoded.columns("think_close")[-1] + 1 == encoded.columns("answer_start")[0]
    assert encoded.columns("t_post_inst") == (encoded.n_prompt - 1,)
    assert encoded.columns(-1) == encoded.columns("t_post_inst"), "negative numbers count from the prompt's end"
    plain = chat(name, thinking=True).encode(prompt)
    assert encoded.ids[: encoded.n_prompt] == plain.ids
    assert len(encoded.columns("all")) == len(encoded) > len(encoded.columns("prompt")) == encoded.n_prompt


def test_a_trace_is_written_as_the_template_writes_thoughts() -> None:
    encoded = chat("own_thoughts").encode(Trace("How?", "Hm.", "So."))
    assert encoded.text.endswith("assistant\n<think>~~Hm.~~</think>~~So.")
    assert names(encoded, "think_close") == "~~</think>~~"


def test_a_trace_may_have_an_answer_alone() -> None:
    encoded = chat().encode(Trace("How?", answer="Like this."))
    assert names(encoded, "answer_start") == "L" and encoded.text.endswith("assistant\nLike this.")
    with pytest.raises(PositionError, match="no think_start"):
        encoded.columns("think_start")


def test_a_trace_against_the_thinking_mode_is_refused() -> None:
    with pytest.raises(PromptError, match="thinking is off"):
        chat("qwen3").encode(Trace("How?", "Hm.", "So."))
    with pytest.raises(PromptError, match="opens a thought"):
        chat("opens_thought", thinking=True).encode(Trace("How?", None, "So."))
    with pytest.raises(PromptError, match="no thinking markers"):
        chat("llama2").__class__(_without_markers(), template=templates.LLAMA2).encode(Trace("How?", "Hm.", "So."))


def _without_markers() -> Any:
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.get_added_vocab = lambda: {}
    return tokenizer


@pytest.mark.parametrize(
    ("name", "thinking", "raw", "expected"),
    [
        ("qwen3", True, "<think>\nHm.\n</think>\n\nSo.", ("Hm.", "So.")),
        ("qwen3", True, "<think>\nHm. And", ("Hm. And", "")),
        ("qwen3", True, "Straight to it.", (None, "Straight to it.")),
        ("opens_thought", True, "Hm.\n</think>\n\nSo.", ("Hm.", "So.")),
        ("opens_thought", True, "Hm. And", ("Hm. And", "")),
        ("opens_thought", None, "So.", (None, "So.")),
        ("qwen3", None, "The tag <think> opens a thought.", (None, "The tag <think> opens a thought.")),
    ],
)
def test_what_a_model_writes_is_split_into_thinking_and_answer(
    name: str, thinking: bool | None, raw: str, expected: tuple[str | None, str]
) -> None:
    assert chat(name, thinking=thinking).split(raw) == expected


def test_the_end_of_a_turn_is_the_templates_and_the_tokenizers() -> None:
    assert chat().end_ids == (2, 3)
    assert chat("llama2").end_ids == (3,)
    assert chat("qwen3").end_ids == (2, 3)


def test_a_template_without_generation_prompt_is_refused_with_a_remedy() -> None:
    with pytest.raises(ModelError, match="no generation prompt.*chat_template="):
        chat(templates.NO_GENERATION_PROMPT)


def test_a_template_that_always_opens_the_answer_is_legal() -> None:
    always = templates.NO_GENERATION_PROMPT + "<|im_start|>assistant{{ '\n' }}"
    assert chat(always).encode("Hi").text.endswith("assistant\n")


def test_a_missing_template_is_refused_with_a_remedy() -> None:
    bare = copy.deepcopy(tiny_tokenizer())
    bare.chat_template = None
    with pytest.raises(ModelError, match="no chat template.*--chat-template"):
        ChatFormat(bare)
    assert ChatFormat(bare, template=CHATML).encode("Hi") == chat().encode("Hi")


@pytest.mark.parametrize(
    "source", ["{% for m in messages %}", "{{ messages.nothing.here }}{{ raise_exception('no') }}"]
)
def test_a_broken_template_is_refused_on_construction(source: str) -> None:
    with pytest.raises(ModelError, match="chat template"):
        chat(source)


def test_a_template_may_come_from_a_file(tmp_path: Any) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text(CHATML)
    assert chat(str(path)).encode("Hi").ids == chat(path).encode("Hi").ids == chat().encode("Hi").ids
    assert chat(path).digest == chat().digest != chat("llama2").digest
    with pytest.raises(ModelError, match="no chat template at"):
        chat(tmp_path / "other.jinja")


def test_a_slow_tokenizer_is_refused() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(ModelError, match="fast version"):
        ChatFormat(Slow())


@pytest.mark.parametrize("empty", ["", "  \n", [{"role": "user", "content": " "}]])
def test_an_empty_prompt_is_refused(empty: Any) -> None:
    with pytest.raises(PromptError, match="empty"):
        chat().encode(empty)


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "assistant", "content": "Hi"}],
        [{"role": "user"}],
        [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
        [{"role": "user", "content": None}],
        ["Hi", "there"],
    ],
)
def test_malformed_conversations_are_refused(messages: Any) -> None:
    with pytest.raises(PromptError, match="user message|role and a content"):
        chat().encode(messages)


def test_an_over_long_prompt_is_refused_and_a_long_one_is_not() -> None:
    long = "word " * 2000
    assert len(chat().encode(long)) > 10_000
    with pytest.raises(PromptError, match="longer than the model's context of 512"):
        chat(max_tokens=512).encode(long)
    fits = chat(max_tokens=len(chat().encode("Hello")))
    assert fits.encode("Hello")
    with pytest.raises(PromptError, match="longer"):
        fits.encode("Hello!")


def test_positions_that_are_not_there_say_what_is_wrong() -> None:
    encoded = chat().encode("Hi")
    for name, message in (
        ("t_end", "unknown position 't_end'; known: t_inst"),
        ("answer_start", "give a Trace"),
        ("post_inst[99]", "post_inst has 13 tokens"),
        (len(encoded), "outside a prompt"),
        (-len(encoded) - 1, "outside a prompt"),
    ):
        with pytest.raises(PositionError, match=message.replace("[", r"\[")):
            encoded.columns(name)
    assert encoded.columns(0) == (0,) and encoded.columns(-1) == (len(encoded) - 1,)


def test_the_table_shows_every_token_with_its_names() -> None:
    rows = chat("qwen3", thinking=True).table(Trace("Hi", "Hm.", "So."))
    by_name = {name: row["token"] for row in rows for name in row["names"]}
    assert by_name["t_inst"] == "i" and by_name["think_start"] == "H" and by_name["answer_start"] == "S"
    assert by_name["t_post_inst"] == "\n" and by_name["post_inst[0]"] == "<|im_end|>"
    assert "".join(row["token"] for row in rows).startswith("<|im_start|>user\nHi<|im_end|>")
