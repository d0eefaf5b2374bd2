"""Answers are written once, sorted without loss, and captured where they give nothing away yet."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp import PromptSet
from interp.errors import ProbeError, PromptError
from probes.planning import states as capturing
from probes.planning.asking import ask_model, hear
from probes.planning.attributes import Answer, Attribute, Found, as_attribute
from probes.planning.labelling import given_away, sort_answers
from probes.planning.states import PlanStates, plan_states
from probes.planning.writing import Written, as_written, joined, token_ends, write_answers


@cache
def model(thinking: bool = False) -> interp.Model:
    loaded = interp.load("organism:chat")
    return loaded.with_format(thinking=True) if thinking else loaded


def some(task: str, n: int = 24) -> PromptSet:
    return interp.prompts(f"organism:{task}").test[:n]


@cache
def answers(task: str, thinking: bool = False) -> list[Written]:
    return write_answers(model(thinking), some(task), max_new_tokens=96)


# --- writing ---


def test_answers_are_those_of_plain_generation() -> None:
    plain = model(True).generate(some("choice"), max_new_tokens=96)
    for written, completion in zip(answers("choice", True), plain, strict=True):
        assert written.ids == completion.ids and written.answer.text == completion.answer
        assert written == as_written(model(True), completion)


@pytest.mark.parametrize("task", ["story", "choice"])
def test_tokens_end_where_decoding_each_beginning_says(task: str) -> None:
    for written in answers(task, task == "choice")[:6]:
        slow = [len(model().tokenizer.decode(written.ids[: k + 1])) for k in range(written.body)]
        assert list(written.ends[: written.body]) == slow
        assert written.ends[written.body - 1] == len(written.text)


def test_tokens_of_one_character_end_together() -> None:
    text = "naïve 😀 café"
    ids = model().tokenizer(text, add_special_tokens=False)["input_ids"]
    assert token_ends(model(), ids)[-1] == len(text)


def test_the_answer_starts_behind_the_thought() -> None:
    for written in answers("choice", True):
        assert written.text[written.start :] == written.answer.text
        first = model().tokenizer.decode([written.ids[written.before_answer]])
        assert first.strip() == written.answer.text[0]
        assert written.answer.n_tokens == written.body - written.before_answer == 2


def test_a_file_that_was_cut_short_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    want = write_answers(model(), some("story"), out=whole, max_new_tokens=40, batch_size=8)
    lines = whole.read_text().splitlines(keepends=True)
    cut.write_text("".join(lines[:9]) + lines[9][:30])
    asked: list[int] = []
    plain = interp.Model.generate

    def counting(self: Any, prompts: Any, **options: Any) -> Any:
        asked.append(len(prompts))
        return plain(self, prompts, **options)

    monkeypatch.setattr(interp.Model, "generate", counting)
    assert write_answers(model(), some("story"), out=cut, max_new_tokens=40, batch_size=8) == want
    assert cut.read_text() == whole.read_text() and sum(asked) == len(want) - 8
    assert write_answers(model(), some("story"), out=cut, max_new_tokens=40, batch_size=8) == want
    assert sum(asked) == len(want) - 8


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    write_answers(model(), some("story", 4), out=file, max_new_tokens=8)
    with pytest.raises(PromptError, match="holds answers of other prompts"):
        write_answers(model(), some("list", 4), out=file, max_new_tokens=8)
    with pytest.raises(PromptError, match="another model, template or settings"):
        write_answers(model(), some("story", 4), out=file, max_new_tokens=9)
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:2], lines[2][:20], *lines[3:]]) + "\n")
    with pytest.raises(PromptError, match="a.jsonl, line 3 is damaged .*: delete that line"):
        write_answers(model(), some("story", 4), out=file, max_new_tokens=8)
    file.write_text("\n".join([*lines[:2], *lines[3:]]) + "\n")
    mended = write_answers(model(), some("story", 4), out=file, max_new_tokens=8)
    assert mended == write_answers(model(), some("story", 4), max_new_tokens=8)
    assert sorted(file.read_text().splitlines()) == sorted(lines)
    file.write_bytes(b"\xff\xfe\n")
    with pytest.raises(PromptError, match="is no text file"):
        write_answers(model(), some("story", 4), out=file, max_new_tokens=8)
    file.write_text(json.dumps({"format": "other"}) + "\n")
    with pytest.raises(PromptError, match="is no file of answers"):
        write_answers(model(), some("story", 4), out=file, max_new_tokens=8)
    with pytest.raises(PromptError, match="no prompts"):
        write_answers(model(), [])


# --- sorting ---


def reveal_text(written: Written, reveal: int) -> str:
    return model().tokenizer.decode(written.ids[:reveal])


def test_what_is_probed_ends_before_the_token_that_gives_the_label_away() -> None:
    chosen = sort_answers(as_attribute("character"), answers("story"), least=1)
    for row, label, reveal in zip(chosen.rows, chosen.labels, chosen.reveal, strict=True):
        written = answers("story")[row]
        assert str(label) not in reveal_text(written, reveal)
        assert reveal_text(written, reveal + 1).endswith(f" {label}")
    thought = sort_answers(as_attribute("letter"), answers("choice", True), least=1)
    assert all(
        answers("choice", True)[row].before_answer == reveal
        for row, reveal in zip(thought.rows, thought.reveal, strict=True)
    )


def test_without_a_place_the_first_word_that_settles_the_label_counts() -> None:
    written = answers("list")[0]
    n = int(as_attribute("list_length")(written.answer) or 0)
    at = given_away(as_attribute("list_length"), written, float(n))
    assert written.answer.text[:at].count(",") == n - 1 and written.answer.text[at - 1] == " "
    always = Attribute("always", "classes", lambda _: "same")
    assert given_away(always, written, "same") == 0
    last = Attribute("last", "classes", lambda a: a.text[-1])
    assert written.answer.text[given_away(last, written, ".") :].endswith(".")


def odd(answer: Answer) -> str | None:
    return {0: None, 1: "one", 2: "two"}.get(len(answer.prompt.text) % 3)


def test_every_answer_is_kept_or_counted() -> None:
    parity = Attribute("parity", "classes", odd, whole=False)
    chosen = sort_answers(parity, answers("story"), least=1)
    assert len(chosen.rows) + sum(chosen.apart.values()) == len(answers("story"))
    assert set(chosen.apart) == {"no such attribute in the answer"}
    cut = write_answers(model(), some("story"), max_new_tokens=5)
    with pytest.raises(ProbeError, match=r"off none of the 24 answers \(24 cut off\): raise max_new_tokens"):
        sort_answers(as_attribute("length"), cut)
    lost = write_answers(model(True), some("choice"), max_new_tokens=5)
    with pytest.raises(ProbeError, match="24 cut off in the thought"):
        sort_answers(as_attribute("letter"), lost)


def test_rare_classes_are_counted_and_classes_balanced_by_the_seed() -> None:
    sizes = {"a": 9, "b": 6, "c": 1}
    names = [name for name, n in sizes.items() for _ in range(n)]
    written = [
        Written(Answer(name, p, n_tokens=1), (5,), (1,), 0, name, "none")
        for name, p in zip(names, some("story"), strict=False)
    ]
    own = Attribute("own", "classes", lambda a: Found(a.text, 0))
    kept = sort_answers(own, written, least=2)
    assert kept.apart == {"of a rare class": 1} and len(kept.rows) == 15
    one, two = (sort_answers(own, written, balance=True, least=2, seed=s) for s in (0, 1))
    assert one.labels.count("a") == one.labels.count("b") == 6 and one.rows != two.rows
    assert one == sort_answers(own, written, balance=True, least=2, seed=0)
    assert one.apart == {"of a rare class": 1, "left out to balance the classes": 3}
    with pytest.raises(ProbeError, match="length is a number"):
        sort_answers(as_attribute("length"), written, balance=True)


def test_an_attribute_says_what_it_needs_of_prompts() -> None:
    plain = write_answers(model(), [interp.Prompt(p.text) for p in some("choice", 4)], max_new_tokens=8)
    with pytest.raises(ProbeError, match=r"needs prompts that say expected, and none does"):
        sort_answers(as_attribute("correct"), plain)


# --- states ---


def slow_state(model: interp.Model, written: Written, n_tokens: int, layer: int) -> np.ndarray[Any, Any]:
    """One forward over the prompt and the first tokens of the answer; the last position."""
    (encoded,) = model.encode(written.answer.prompt)
    ids = torch.tensor([[*encoded.ids, *written.ids[:n_tokens]]])
    with torch.no_grad():
        hidden = model.hf(ids, output_hidden_states=True).hidden_states
    return hidden[layer + 1][0, -1].numpy()


@cache
def captured(task: str, name: str, thinking: bool) -> tuple[tuple[Written, ...], tuple[int, ...], PlanStates]:
    chosen = sort_answers(as_attribute(name), answers(task, thinking), least=1)
    kept = tuple(answers(task, thinking)[i] for i in chosen.rows)
    return kept, chosen.reveal, plan_states(model(thinking), kept, chosen.reveal, segments=3)


@pytest.mark.parametrize(("task", "name", "thinking"), [("story", "character", False), ("choice", "letter", True)])
def test_one_pass_gives_what_a_forward_for_each_position_gives(task: str, name: str, thinking: bool) -> None:
    kept, reveal, found = captured(task, name, thinking)
    for row in (0, 7, 13):
        points = [0, *found.written_lengths[row].tolist()]
        for point, n_tokens in enumerate(points):
            for layer in (0, 3):
                want = slow_state(model(thinking), kept[row], n_tokens, layer)
                np.testing.assert_allclose(found.states[row, point, layer], want, atol=2e-4)
        assert points[-1] == reveal[row]


def test_thought_and_answer_have_segments_where_there_are_any() -> None:
    _, _, story = captured("story", "character", False)
    assert story.segments == (("answer 33 %", "answer"), ("answer 67 %", "answer"), ("answer 100 %", "answer"))
    kept, _, choice = captured("choice", "letter", True)
    assert [region for _, region in choice.segments] == ["thought"] * 3
    assert (choice.written_lengths[:, -1] == [w.before_answer for w in kept]).all()
    assert all(text.rstrip().endswith("</think>") for text in choice.written[-1])
    assert (np.diff(choice.written_lengths, axis=1) > 0).all()
    none = plan_states(model(), list(answers("story")[:5]), [3] * 5, segments=0)
    assert none.states.shape[1] == 1 and none.segments == () and none.written == ()


def test_the_first_tokens_distribution_is_that_of_the_prompt() -> None:
    chosen = sort_answers(as_attribute("list_length"), answers("list"), least=1)
    found = plan_states(model(), [answers("list")[i] for i in chosen.rows], chosen.reveal, segments=0)
    p = torch.softmax(model().logits(some("list")), -1)[list(chosen.rows)]
    np.testing.assert_allclose(found.first_token[:, :-1].sum(1) + found.first_token[:, -1], 1, atol=1e-5)
    assert (p[:, list(found.tokens)].max(0).values >= 0.01).all()
    seen = found.first_token[:, :-1]
    np.testing.assert_allclose(seen[seen > 0], p[:, list(found.tokens)].numpy()[seen > 0], atol=1e-5)


def test_the_embedding_is_the_mean_over_the_instruction() -> None:
    from probes.sweep_controls import mean_embeddings

    kept, _, found = captured("story", "character", False)
    want = mean_embeddings(model(), PromptSet(tuple(w.answer.prompt for w in kept)))
    np.testing.assert_allclose(found.embedding, want, atol=1e-5)


def test_states_are_kept_and_made_anew_where_they_are_of_something_else(tmp_path: Path) -> None:
    file = tmp_path / "states.safetensors"
    kept, reveal, want = captured("story", "character", False)
    first = plan_states(model(), kept, reveal, segments=3, out=file)
    before = file.read_bytes()
    again = plan_states(model(), kept, reveal, segments=3, out=file)
    assert file.read_bytes() == before and np.array_equal(first.states, again.states)
    assert np.array_equal(again.states, want.states) and again.tokens == want.tokens
    plan_states(model(), kept, reveal, segments=2, out=file)
    assert file.read_bytes() != before
    file.write_bytes(b"nonsense")
    assert np.array_equal(plan_states(model(), kept, reveal, segments=3, out=file).states, want.states)


def test_a_capture_that_is_cut_short_goes_on_from_its_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "states.safetensors"
    kept, reveal, _ = captured("story", "character", False)
    monkeypatch.setattr(capturing, "PART", 8)
    want = plan_states(model(), kept, reveal, segments=2)
    asked: list[int] = []
    plain = capturing._run

    def killed(model: Any, texts: Any, *rest: Any) -> Any:
        asked.append(len(texts))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return plain(model, texts, *rest)

    monkeypatch.setattr(capturing, "_run", killed)
    with pytest.raises(KeyboardInterrupt):
        plan_states(model(), kept, reveal, segments=2, out=file)
    assert {p.name for p in tmp_path.iterdir()} == {f"{file.name}.part0", f"{file.name}.part1"}
    (tmp_path / f"{file.name}.part1").write_bytes(b"half")
    found = plan_states(model(), kept, reveal, segments=2, out=file)
    assert sum(asked) == len(kept) + 16  # beside the part that was cut short, only the damaged one is captured again
    assert [p.name for p in tmp_path.iterdir()] == [file.name]
    for name in ("states", "embedding", "first_token", "tokens"):
        assert np.array_equal(getattr(found, name), getattr(want, name)), name


def test_prompt_and_answer_are_joined_token_by_token() -> None:
    written = answers("choice", True)[0]
    (encoded,) = model(True).encode(written.answer.prompt)
    both = joined(encoded, written, 5)
    assert both.ids == encoded.ids + written.ids[:5] and both.n_prompt == encoded.n_prompt
    last = both.offsets[-1]
    assert both.text[encoded.offsets[-1][1] : last[1]] == written.text[: written.ends[4]]


# --- asking ---


def test_a_model_that_cannot_foretell_its_answer_is_reported_as_such() -> None:
    asked = ask_model(model(True), as_attribute("letter"), list(some("choice", 6)), ["A", "B", "C", "D"])
    assert asked is not None and len(asked) == 6
    assert all(label is None or label in "ABCD" for label in asked)
    assert ask_model(model(), Attribute("own", "classes", lambda _: "a"), list(some("story", 2))) is None


def test_replies_are_heard() -> None:
    assert hear(as_attribute("length"), "About 1,200 words", ()) == 1200.0
    assert hear(as_attribute("length"), "No idea", ()) is None
    assert hear(as_attribute("correct"), "It will be Wrong.", ["right", "wrong"]) == "wrong"
    assert hear(as_attribute("letter"), "Another", ["A", "B"]) is None
