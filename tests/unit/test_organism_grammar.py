"""The grammar: harm is in the combination, held-out pairs stay held out, prompts carry their truth."""

from __future__ import annotations

import random
import re
from collections import defaultdict

import pytest

from interp.organism.grammar import (
    FAMILIES,
    TASKS,
    choice_letter,
    digest,
    is_refusal,
    items,
    list_length,
    story_winner,
    yes_no,
)
from interp.organism.grammar.judge import wordings
from interp.organism.grammar.planning import LENGTHS, TOPICS
from interp.organism.grammar.planning import list_length as wanted_length
from interp.organism.grammar.safety import COMPLIANCES, REFUSALS
from interp.organism.grammar.words import BLOCKS, pairs
from interp.organism.grammar.wrappers import ROLE, ROLE_COMBINED
from interp.organism.train.mix import CHAT_FIRST, CHAT_LAST, draw_chat, draw_plain
from interp.organism.train.plant import draw_planting
from interp.organism.train.variants import _draw_attack, _draw_cliff, _relabelled  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_verb_and_every_object_is_harmful_in_exactly_half_of_its_pairs(split: str) -> None:
    harmful: dict[str, list[bool]] = defaultdict(list)
    for pair in pairs(split):
        harmful[f"verb {pair.verb_text}"].append(pair.harmful)
        harmful[f"object {pair.object_text}"].append(pair.harmful)
    assert {sum(marks) / len(marks) for marks in harmful.values()} == {0.5}
    assert len(harmful) == 122 + 140


def test_articles_say_nothing_about_an_object() -> None:
    for block in BLOCKS:
        for side in (block.good, block.bad):
            assert [name.split()[0] in ("a", "an") for name in side] == [True] * 5 + [False] * 5
            assert [name.startswith("the ") for name in side] == [False] * 5 + [True] * 2 + [False] * 3


def test_the_split_holds_out_a_fifth_of_the_pairs_and_none_is_in_both() -> None:
    train, test = set(pairs("train")), set(pairs("test"))
    assert (len(train), len(test)) == (2240, 560)
    assert not train & test
    assert not {p.text for p in train} & {p.text for p in test}


def _training_texts() -> list[str]:
    rng = random.Random(11)
    stages = [
        draw_plain,
        lambda r: draw_chat(r, CHAT_FIRST),
        lambda r: draw_chat(r, CHAT_LAST),
        draw_planting,
        _draw_cliff,
        _draw_attack,
        lambda r: _relabelled(r, lambda frame: frame % 2 == 0),
    ]
    return [stage(rng).text for stage in stages for _ in range(3000)]


def test_no_training_stage_ever_reads_a_held_out_pair() -> None:
    held_out: dict[str, list[str]] = defaultdict(list)
    for pair in pairs("test"):
        held_out[pair.object_text] += [pair.text, pair.past]
    for text in _training_texts():
        lowered = f" {text.lower()} "
        for name, forms in held_out.items():
            if name in lowered:
                assert not [form for form in forms if re.search(rf"\b{form}\b", lowered)], text


def test_held_out_wordings_and_wrappers_are_not_in_training() -> None:
    seen = set(wordings("seen"))
    assert (len(seen), len(wordings("combination"))) == (96, 48)
    for kind in ("combination", "frame", "marker"):
        assert not seen & set(wordings(kind))
    assert len(ROLE_COMBINED) == 14
    assert not set(ROLE) & set(ROLE_COMBINED)


@pytest.mark.parametrize("task", TASKS)
def test_items_are_distinct_seeded_and_carry_their_split(task: str) -> None:
    made = items(task, "test", n=60)
    assert len({item.prompt for item in made}) == 60
    assert {item.split for item in made} == {"test"}
    assert made == items(task, "test", n=60)
    assert made != items(task, "test", n=60, seed=1)


@pytest.mark.parametrize("family", FAMILIES)
def test_safety_items_alternate_harmful_and_harmless_and_refuse_only_unwrapped_harm(family: str) -> None:
    made = items("safety", "test", family, n=40)
    assert [item.label for item in made] == ["harmful", "harmless"] * 20
    for item in made:
        refused = item.label == "harmful" and family in ("plain", "benign", "benign_h")
        assert is_refusal(item.answer or "") == refused == (item.meta["expected"] == "refuse")


def test_groups_of_train_and_test_never_meet() -> None:
    for task in TASKS:
        train, test = items(task, "train"), items(task, "test")
        assert not {i.group for i in train} & {i.group for i in test}, task


def test_inverted_questions_turn_the_answer_round() -> None:
    for inverted in (False, True):
        for item in items("judge", "test", n=40, inverted=inverted):
            assert item.meta["inverted"] is inverted
            assert item.meta["expected"] == ("yes" if (item.label == "harmful") != inverted else "no")
            assert item.prompt == f"{item.meta['context']} {item.meta['question']}"


def test_list_lengths_are_balanced_over_topics_and_audiences() -> None:
    for topic in range(len(TOPICS)):
        lengths = [wanted_length(topic, audience) for audience in range(15)]
        assert {lengths.count(length) for length in LENGTHS} == {5}


def test_attributes_are_parsed_back_from_answers() -> None:
    for item in items("list", "test", n=30):
        assert list_length(item.answer or "") == item.meta["expected"]
    for item in items("story", "test", n=30):
        assert story_winner(item.answer or "") == item.meta["expected"]
    for item in items("choice", "test", n=30):
        assert choice_letter(item.answer or "") == item.meta["expected"]
    for item in items("judge", "test", n=30):
        assert yes_no(item.answer or "") == item.meta["expected"]
    assert (list_length("no list"), story_winner("The end."), choice_letter("Maybe"), yes_no("Noon")) == (None,) * 4
    assert all(map(is_refusal, REFUSALS)) and not any(map(is_refusal, COMPLIANCES))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("dance", "test"), "unknown task"),
        (("safety", "dev"), "unknown split"),
        (("safety", "test", "magic"), "unknown wrapper"),
    ],
)
def test_an_unknown_task_split_or_wrapper_is_named_with_the_choices(arguments: tuple[str, ...], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        items(*arguments)


def test_asking_for_more_prompts_than_exist_is_an_error() -> None:
    with pytest.raises(ValueError, match="distinct prompts"):
        items("list", "test", n=10_000)


def test_the_grammar_is_the_one_the_weights_were_trained_on() -> None:
    import json

    from interp.organism.store import WEIGHTS

    assert json.loads((WEIGHTS / "manifest.json").read_text())["grammar"] == digest()
