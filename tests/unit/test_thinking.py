"""Thoughts are found in every format, by the model's own markers, and what a model writes is taken apart at them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import interp
from interp.errors import ModelError, PromptError
from interp.text.encoded import Trace
from interp.text.thinking import find_markers
from tests.helpers import templates
from tests.helpers.thinking import HARMONY, QWQ, R1, thinker
from tests.helpers.tiny import CHATML, tiny_model, tiny_tokenizer

FORMATS = {
    "r1": (R1, "<think>\n", "\n</think>\n\n", "Hm.\n</think>\n\nSo."),
    "qwq": (QWQ, "<think>\n", "\n</think>\n\n", "Hm.\n</think>\n\nSo."),
    "qwen3": (templates.QWEN3, "<think>\n", "\n</think>\n\n", "<think>\nHm.\n</think>\n\nSo."),
    "harmony": (
        HARMONY, "<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>",
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>So.",
    ),
}  # fmt: skip
HARMONY_CLOSE = ["<|end|>", "<|start|>", *"assistant", "<|channel|>", *"final", "<|message|>"]


@pytest.mark.parametrize("name", FORMATS)
def test_a_trace_is_written_as_the_model_would_have_and_its_parts_are_named(name: str) -> None:
    template, opening, closing, _ = FORMATS[name]
    chat = thinker(template=template).chat
    assert chat.thinks or name == "qwen3"
    encoded = chat.encode(Trace("How?", "Hm.", "So."))
    assert encoded.text.endswith(f"{opening}Hm.{closing}So.")
    close = [encoded.text[a:b] for a, b in (encoded.offsets[i] for i in encoded.columns("think_close"))]
    assert "".join(close) == closing
    assert close == (HARMONY_CLOSE if name == "harmony" else ["\n", "</think>", "\n", "\n"])
    assert encoded.text[encoded.offsets[encoded.columns("think_start")[0]][0]] == "H"
    assert encoded.text[encoded.offsets[encoded.columns("answer_start")[0]][0]] == "S"


@pytest.mark.parametrize("name", FORMATS)
def test_what_a_model_writes_is_split_at_its_own_markers(name: str) -> None:
    template, opening, closing, raw = FORMATS[name]
    chat = thinker(template=template).chat
    assert chat.split(raw) == ("Hm.", "So.") and chat.status(raw) == "whole"
    cut = raw[: raw.index("Hm.") + 3]
    assert chat.split(cut) == ("Hm.", "") and chat.status(cut) == "unfinished"
    empty = raw.replace("Hm.", "")
    assert chat.status(empty) == "empty" and chat.split(empty) == ("", "So.")


def test_an_answer_without_a_thought_is_no_thought() -> None:
    assert thinker(template=templates.QWEN3).chat.status("Just so.") == "none"
    chat = thinker(template=HARMONY).chat
    assert chat.split("<|channel|>final<|message|>Just so.") == (None, "Just so.")
    assert chat.encode(Trace("How?", answer="So.")).text.endswith("<|start|>assistant<|channel|>final<|message|>So.")


def test_the_end_of_a_channel_does_not_end_the_turn() -> None:
    chat = thinker(template=HARMONY).chat
    ends = {chat.tokenizer.convert_ids_to_tokens(i) for i in chat.end_ids}
    assert ends == {"<|return|>"}
    assert chat.tokenizer.convert_tokens_to_ids("<|end|>") in chat.marker_ids


def test_markers_come_from_the_template_or_else_from_the_vocabulary() -> None:
    assert find_markers("", {"<think>", "</think>"}) == find_markers("... </think> ...", set())
    assert find_markers("", {"<think>"}) is None
    assert find_markers("<|channel|>analysis", set()) == thinker(template=HARMONY).chat.markers


def test_a_thought_that_holds_its_own_marker_is_refused() -> None:
    with pytest.raises(PromptError, match="holds the marker '</think>'"):
        thinker(template=R1).chat.encode(Trace("How?", "Hm.</think> So", "So."))


def test_rollouts_of_a_model_without_thinking_say_so() -> None:
    tokenizer: Any = tiny_tokenizer.__wrapped__(CHATML)
    tokenizer.get_added_vocab = lambda: {}
    with pytest.raises(ModelError, match="does not think"):
        interp.rollouts(interp.load(tiny_model(), tokenizer), ["Hi"])
    with pytest.raises(ModelError, match="thinking is off.*thinking=True"):
        interp.rollouts(thinker().with_format(thinking=False), ["Hi"])


def organism() -> interp.Model:
    return interp.load("organism:chat", thinking=True)


def test_rollouts_are_what_the_model_writes_in_thinking_mode() -> None:
    model, prompts = organism(), interp.prompts("organism").test[:6]
    found = interp.rollouts(model, prompts, max_new_tokens=96)
    written = model.generate(prompts, max_new_tokens=96)
    assert [(t.thinking, t.answer) for t in found] == [(c.thinking, c.answer) for c in written]
    assert found.status == ("whole",) * 6 and found.labels == prompts.labels and found.groups == prompts.groups


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_rollouts_cut_short_anywhere_are_finished_with_the_same_result(tmp_path: Path, temperature: float) -> None:
    model, prompts = organism(), interp.prompts("organism").test[:7]
    options: dict[str, Any] = {"max_new_tokens": 24, "temperature": temperature, "batch_size": 3}
    whole = tmp_path / "whole.jsonl"
    expected = interp.rollouts(model, prompts, out=whole, **options)
    lines = whole.read_bytes()
    for size in (0, 10, len(lines) // 2, len(lines) - 5, len(lines)):
        part = tmp_path / f"{size}.jsonl"
        part.write_bytes(lines[:size])
        assert interp.rollouts(model, prompts, out=part, **options) == expected
        assert sorted(part.read_text().splitlines()) == sorted(set(lines.decode().splitlines()))
    assert [t.answer for t in interp.traces(whole)] != [] and len(interp.traces(whole)) == 7


def test_a_file_of_other_rollouts_is_refused(tmp_path: Path) -> None:
    model, prompts = organism(), interp.prompts("organism").test[:2]
    file = tmp_path / "r.jsonl"
    interp.rollouts(model, prompts, out=file, max_new_tokens=4)
    with pytest.raises(PromptError, match="other prompts"):
        interp.rollouts(model, prompts[:1], out=file, max_new_tokens=4)
    with pytest.raises(PromptError, match="settings"):
        interp.rollouts(model, prompts, out=file, max_new_tokens=5)
    file.write_text('{"prompt": "Hi"}\n')
    with pytest.raises(PromptError, match="no file of rollouts"):
        interp.rollouts(model, prompts, out=file, max_new_tokens=4)
    file.write_text("Hi\nthere\n")
    with pytest.raises(PromptError, match="no file of rollouts"):
        interp.rollouts(model, prompts, out=file, max_new_tokens=4)


def test_a_truncated_rollout_is_named_and_left_out_by_whole() -> None:
    found = interp.rollouts(organism(), interp.prompts("organism").test[:3], max_new_tokens=5)
    assert found.status == ("unfinished",) * 3 and len(found.whole) == 0
    with pytest.raises(PromptError, match="trace 0 .* cut off .* larger max_new_tokens"):
        found.require_whole()


def test_traces_of_your_own_are_read_and_written(tmp_path: Path) -> None:
    rows = [
        {"prompt": "How?", "thinking": "Hm.", "answer": "So.", "label": "harmful", "group": "a", "split": "test"},
        {"prompt": "Why?", "completion": "Hm.\n</think>\n\nSo.", "label": "harmless"},
        {"prompt": "When?", "thinking": " ", "answer": "So."},
        {"prompt": "Where?", "answer": "So."},
    ]
    file = tmp_path / "own.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    found = interp.traces(file, thinker(template=R1))
    assert [t.thinking for t in found] == ["Hm.", "Hm.", " ", None]
    assert found.status == ("whole", "whole", "empty", "none") and found.labels[:2] == ["harmful", "harmless"]
    again = interp.traces(found.save(tmp_path / "again.jsonl"))
    assert (again.traces, again.status) == (found.traces, found.status)
    with pytest.raises(PromptError, match="trace 0 .* has an empty thought"):
        found[2:].require_whole()
    with pytest.raises(PromptError, match="trace 1 .* has no thinking"):
        found[1:].take([0, 2]).require_whole()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"thinking": "Hm."}, "line 1.*no field 'prompt'"),
        ({"prompt": "How?", "thinking": 3}, "line 1.*'thinking' is 3"),
        ({"prompt": "How?", "completion": "Hm. And then"}, "line 1.*no end marker '</think>'"),
        ({"prompt": " ", "thinking": "Hm."}, "line 1.*empty"),
    ],
)
def test_a_record_that_is_no_trace_is_named_with_its_line(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    file = tmp_path / "own.jsonl"
    file.write_text(json.dumps(row) + "\n")
    with pytest.raises(PromptError, match=message):
        interp.traces(file, thinker(template=R1))


def test_raw_text_needs_the_model_for_its_markers(tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    file.write_text('{"prompt": "How?", "raw": "Hm.</think>So."}\n')
    with pytest.raises(PromptError, match="interp.traces\\(path, model\\)"):
        interp.traces(file)
