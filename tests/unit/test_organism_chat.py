"""Tokenizer and chat template: one template for training, evaluation and everybody else."""

from __future__ import annotations

import random

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from interp.organism import path
from interp.organism.chat import generation_prompt, turn
from interp.organism.train.mix import CHAT_FIRST, draw_chat
from interp.organism.train.samples import Piece, chat_sample, encode


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(path("chat"))


def _messages(pieces: tuple[Piece, ...]) -> list[dict[str, str]]:
    """The conversation of a training string, read back the slow way."""
    text = "".join(piece.text for piece in pieces)
    messages: list[dict[str, str]] = []
    for part in text.split("<|im_start|>")[1:]:
        role, content = part.removesuffix("\n").removesuffix("<|im_end|>").split("\n", 1)
        messages.append({"role": role, "content": content})
    thought, _, answer = messages[-1]["content"].removeprefix("<think>\n").partition("\n</think>\n\n")
    messages[-1]["content"] = answer
    if thought:
        messages[-1]["reasoning_content"] = thought
    return messages


def test_training_strings_are_what_the_template_renders(tokenizer: PreTrainedTokenizerFast) -> None:
    rng = random.Random(3)
    checked = 0
    for _ in range(400):
        sample = draw_chat(rng, CHAT_FIRST)
        if "note" in sample.tag:
            continue
        messages = _messages(sample.pieces)
        rendered = tokenizer.apply_chat_template(messages, tokenize=False)
        assert rendered == sample.text + "\n"
        ids = tokenizer(rendered, add_special_tokens=False)["input_ids"]
        assert ids[:-1] == encode([sample], tokenizer)[0].ids
        checked += 1
    assert checked > 300


def test_the_generation_prompt_opens_or_closes_the_thought(tokenizer: PreTrainedTokenizerFast) -> None:
    asked = "How do I build a bridge?"
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": asked}]
    for thinking in (False, True):
        rendered = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, enable_thinking=thinking
        )
        assert rendered == turn("system", "Be kind.") + turn("user", asked) + generation_prompt(thinking)
    assert generation_prompt(False).endswith("<think>\n\n</think>\n\n")
    assert generation_prompt(True).endswith("<think>\n")


def test_earlier_assistant_turns_lose_their_thought_and_the_last_keeps_it(tokenizer: PreTrainedTokenizerFast) -> None:
    messages = [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "<think>\nfirst thought\n</think>\n\nYes."},
        {"role": "user", "content": "Two?"},
        {"role": "assistant", "content": "No.", "reasoning_content": "second thought"},
    ]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False)
    assert "first thought" not in rendered
    assert "<think>\nsecond thought\n</think>\n\nNo.<|im_end|>" in rendered


def test_generation_marks_cover_what_the_assistant_says(tokenizer: PreTrainedTokenizerFast) -> None:
    messages = [
        {"role": "user", "content": "How do I build a bridge?"},
        {"role": "assistant", "content": "Sure.", "reasoning_content": "This is fine."},
    ]
    made = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    marked = [t for t, m in zip(made["input_ids"], made["assistant_masks"], strict=True) if m]
    assert tokenizer.decode(marked) == "This is fine.\n</think>\n\nSure.<|im_end|>"


def test_the_loaded_tokenizer_pads_on_the_left_and_stops_at_the_turn_end(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.padding_side == "left"
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|pad|>")
    assert tokenizer("Hi")["input_ids"] == tokenizer("Hi", add_special_tokens=False)["input_ids"]


def test_text_survives_the_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    for text in ("How do I build a bridge?", "naïve ☃ text\n\nwith  spaces ", "}{ ?! zorp's 12 ..."):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_a_marked_position_is_the_last_token_of_its_piece(tokenizer: PreTrainedTokenizerFast) -> None:
    from interp.organism.grammar import items

    item = items("judge", "train", n=1)[0]
    row = encode([chat_sample(item, "judge")], tokenizer)[0]
    before = tokenizer.decode(row.ids[: row.marks["request"] + 1])
    assert before == f"<|im_start|>user\n{item.meta['context']}"
    assert tokenizer.decode(row.ids[: row.marks["decision"] + 1]).endswith("</think>\n\n")
