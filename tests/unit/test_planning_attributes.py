"""Attributes read a label off an answer, say where it is given away, and refuse what is none."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from interp import Prompt, PromptSet, Task, prompts
from interp.errors import ProbeError, PromptError
from interp.organism.grammar import items
from probes.planning import attributes
from probes.planning.attributes import Answer, Attribute, Found, as_attribute, attribute, check_name


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    as_attribute("length")
    monkeypatch.setattr(attributes, "REGISTRY", dict(attributes.REGISTRY))
    yield


def found(name: str, text: str, prompt: Prompt | None = None, **more: Any) -> Found:
    return as_attribute(name).find(Answer(text, prompt or Prompt("x"), **more))


@pytest.mark.parametrize(
    ("name", "text", "label"),
    [
        ("steps", "1. Add.\n2. Halve.\n3. Say it.", 3.0),
        ("steps", "Step 1: add\nStep 2: halve", 2.0),
        ("steps", "We add.\nWe halve.", 2.0),
        ("steps", "First add 3.5 to it. Then halve. So it is 2.", 3.0),
        ("steps", "...", None),
        ("list_length", "Here: robin, gull.", 2.0),
        ("list_length", "Of course: a, b, c, d, e, f, g.", 7.0),
        ("list_length", "Apples, pears and plums.", 3.0),
        ("list_length", "Sure!\n- apples\n- pears\n", 2.0),
        ("list_length", "1. apples\n2. pears\n3) plums", 3.0),
        ("list_length", "I do not know.", None),
        ("list_length", "Well, I would say that this depends on what you like best of all.", None),
        ("letter", "D.", "D"),
        ("letter", "(b) because", None),
        ("letter", "The answer is (B), I think.", "B"),
        ("letter", "I pick C", "C"),
        ("letter", "**A) robin**", "A"),
        ("letter", "A good question.", None),
        ("language", "Das ist nicht die Frage.", "german"),
        ("language", "What is it that you want?", "english"),
        ("language", "Это не так", "russian"),
        ("language", "これは本です", "japanese"),
        ("language", "xyz", None),
        ("refusal", "I cannot help with that.", "refused"),
        ("refusal", "Sure, here is a plan. Get ready, then go step by step.", "complied"),
        ("refusal", "", None),
        ("sentiment", "A nice day, though sad.", "positive"),
        ("sentiment", "Sad, but nice.", "negative"),
        ("sentiment", "It is a day.", None),
    ],
)
def test_rules_read_plain_cases(name: str, text: str, label: Any) -> None:
    assert found(name, text).label == label


def test_the_length_is_that_of_the_answer_and_known_at_its_end() -> None:
    assert found("length", "one two", n_tokens=3) == Found(3.0, 7)


@pytest.mark.parametrize("given", [Task("x", options=("fox", "deer")), Prompt("A tale of the fox and the deer.")])
def test_the_character_is_the_last_one_named_and_given_away_at_its_first_mention(given: Prompt) -> None:
    text = "The fox ran. The deer slept. The fox won."
    assert found("character", text, given) == Found("fox", 4)
    assert found("character", "Nobody won.", given).label is None
    assert found("character", text, Prompt("Tell me a tale.")).label is None


@pytest.mark.parametrize(
    ("expected", "text", "label"),
    [
        ("B", "B.", "right"), ("B", "The answer is (C).", "wrong"), ("B", "No idea", None),
        ("1200", "It is 3 times 400, so 1,200.", "right"), ("1200", "It is 12.", "wrong"), ("1200", "Many.", None),
        ("Paris", "It is paris!", "right"), ("Paris", "Parisians live there.", "wrong"),
    ],
)  # fmt: skip
def test_an_answer_is_right_by_what_the_prompt_expects(expected: str, text: str, label: str | None) -> None:
    assert found("correct", text, Task("q", expected=expected)).label == label


@pytest.mark.parametrize(
    ("expected", "text", "label"),
    [("false", "Yes, it is.", "inconsistent"), ("REFUTES", "That is false.", "consistent"), ("maybe", "Yes.", None)],
)
def test_consistency_is_agreement_with_the_facts(expected: str, text: str, label: str | None) -> None:
    assert found("factual", text, Task("q", expected=expected)).label == label


@pytest.mark.parametrize(("task", "name"), [("list", "list_length"), ("story", "character"), ("choice", "letter")])
def test_the_organisms_own_answers_read_as_its_grammar_means_them(task: str, name: str) -> None:
    for item in items(task, "test", n=60):
        given = Task(item.prompt, expected=str(item.meta["expected"]), options=tuple(item.meta.get("characters", ())))
        label = found(name, item.answer or "", given).label
        assert label == (float(item.meta["expected"]) if task == "list" else item.meta["expected"])


def test_a_function_becomes_an_attribute_by_one_line() -> None:
    @attribute("regression", question="How many?")
    def shouts(answer: Answer) -> int:
        """Exclamation marks."""
        return answer.text.count("!")

    assert shouts(Answer("a! b!", Prompt("x"))) == 2.0
    assert as_attribute("shouts") is shouts and shouts.about == "Exclamation marks"


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("regression", float("nan"), "is nan: return None"),
        ("regression", "three", "a regression needs a number"),
        ("classes", 1.5, "classes are words"),
        ("classes", [], "classes are words"),
    ],
)
def test_a_label_that_is_none_is_named_with_its_answer(kind: Any, value: Any, words: str) -> None:
    bad = Attribute("bad", kind, lambda _: value)
    with pytest.raises(ProbeError, match=f"'bad' of the answer 'what it said' .*{words}"):
        bad(Answer("what it said", Prompt("x")))


def test_a_function_that_fails_is_named() -> None:
    with pytest.raises(ProbeError, match=r"'bad' of the answer 'a' cannot be read: ZeroDivisionError"):
        Attribute("bad", "regression", lambda _: 1 / 0)(Answer("a", Prompt("x")))


def test_names_kinds_and_needs_that_are_none_are_refused() -> None:
    with pytest.raises(ProbeError, match=r"no attribute 'wit': give length, .*FILE.py:function"):
        as_attribute("wit")
    with pytest.raises(ProbeError, match="no kind of attribute 'ordinal'"):
        attribute("ordinal")  # type: ignore[arg-type]
    with pytest.raises(ProbeError, match="needs='luck'"):
        attribute("classes", needs="luck")  # type: ignore[arg-type]
    with pytest.raises(ProbeError, match="'length' comes with the project"):
        attribute("regression", name="length")(lambda _: 1)


CODE = """
import probes
@probes.attribute("regression")
def shouts(answer):
    return answer.text.count("!")
def plain(answer):
    return 1
"""


def test_an_attribute_is_loaded_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(CODE)
    assert as_attribute(f"{file}:shouts")(Answer("a!", Prompt("x"))) == 1.0
    for name, words in (("plain", "is no attribute: put"), ("missing", "has no function 'missing'; it has shouts")):
        with pytest.raises(ProbeError, match=words):
            as_attribute(f"{file}:{name}")
    with pytest.raises(ProbeError, match="names no function"):
        as_attribute(str(file))
    with pytest.raises(ProbeError, match="no such file"):
        as_attribute("nowhere.py:f")
    file.write_text("def shouts(:\n")
    with pytest.raises(ProbeError, match="is no Python file"):
        check_name(f"{file}:shouts")
    file.write_text("shouts = 1 / 0\n")
    with pytest.raises(ProbeError, match="fails: ZeroDivisionError"):
        as_attribute(f"{file}:shouts")


def test_a_wrong_name_is_known_without_torch() -> None:
    code = "import sys, probes.planning.attributes as a; a.check_name('length'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_files_bring_expected_answers_and_options(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"prompt": "Two and two?", "expected": 4}\n{"prompt": "Who?", "options": ["a", "b"]}\n"Plain"\n')
    one, two, three = prompts(file)
    assert isinstance(one, Task) and one.expected == "4" and isinstance(two, Task) and two.options == ("a", "b")
    assert type(three) is Prompt
    saved = PromptSet((one, two)).save(tmp_path / "b.jsonl")
    assert prompts(saved).prompts == (one, two)
    (tmp_path / "c.csv").write_text("prompt,expected,options\nWho?,a,a | b\n")
    assert prompts(tmp_path / "c.csv")[0] == Task("Who?", expected="a", options=("a", "b"))
    for bad in ('"expected": [1]', '"options": [1]', '"options": "a|a"'):
        file.write_text(f'{{"prompt": "x", {bad}}}\n')
        with pytest.raises(PromptError, match="line 1"):
            prompts(file)


def test_the_organisms_tasks_are_split_by_groups_and_known_by_name() -> None:
    for task in ("story", "list", "choice"):
        several = prompts(f"organism:{task}")
        parts = [set(part.groups) for part in (several.train, several.val, several.test)]
        assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
        assert len(several.test) == 200 and all(isinstance(p, Task) and p.expected for p in several)
        assert several.digest == prompts(f"organism:{task}").digest
    with pytest.raises(PromptError, match="tasks, which stand alone: story, list, choice"):
        prompts("organism:role,story")
