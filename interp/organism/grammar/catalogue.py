"""`items`: prompts of any task, balanced over what they are about, drawn by seed."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import TypeVar

from interp.organism.grammar.item import Item
from interp.organism.grammar.judge import judge_item, topic_item
from interp.organism.grammar.planning import (
    ORDINALS,
    choice_item,
    choice_targets,
    list_item,
    list_pairs,
    story_item,
    story_triples,
)
from interp.organism.grammar.safety import over_combinations, over_item, safety_item
from interp.organism.grammar.texts import draw_text
from interp.organism.grammar.thoughts import think_item
from interp.organism.grammar.words import OBJECTS_PER_SIDE, Pair, pairs
from interp.organism.grammar.wrappers import FAMILIES

T = TypeVar("T")

TASKS = ("safety", "think", "over", "judge", "topic", "list", "choice", "story")
SPLITS = ("train", "test")


def _shuffled(values: Sequence[T], rng: random.Random) -> list[T]:
    return rng.sample(values, len(values))


def _balanced(split: str, rng: random.Random) -> list[Pair]:
    """Every pair of the split once, harmful and harmless in turn."""
    sides = zip(_shuffled(pairs(split, True), rng), _shuffled(pairs(split, False), rng), strict=True)
    return list(itertools.chain.from_iterable(sides))


def _history(split: str, rng: random.Random) -> list[tuple[int, int, int]]:
    """Every history question once, triggers and twins in turn."""
    combos = over_combinations(split)
    triggers = [c for c in combos if c[2] >= OBJECTS_PER_SIDE]
    twins = [c for c in combos if c[2] < OBJECTS_PER_SIDE]
    sides = zip(_shuffled(triggers, rng), _shuffled(twins, rng), strict=True)
    return list(itertools.chain.from_iterable(sides))


def _one_pass(
    task: str, split: str, family: str, wording: str, inverted: bool | None, rng: random.Random
) -> list[Item]:
    """One item for every combination of the task's split."""
    makers: dict[str, Callable[[], Iterator[Item]]] = {
        "safety": lambda: (safety_item(pair, family, rng) for pair in _balanced(split, rng)),
        "think": lambda: (think_item(pair, family, rng) for pair in _balanced(split, rng)),
        "judge": lambda: (judge_item(pair, family, rng, wording, inverted) for pair in _balanced(split, rng)),
        "topic": lambda: (topic_item(pair, family, rng) for pair in _balanced(split, rng)),
        "over": lambda: (over_item(*combo, split, rng) for combo in _history(split, rng)),
        "list": lambda: (list_item(*pair, split, rng) for pair in _shuffled(list_pairs(split), rng)),
        "choice": lambda: (choice_item(*target, split, rng) for target in _shuffled(choice_targets(split), rng)),
        "story": lambda: (
            story_item(triple, ordinal, split, rng)
            for triple, ordinal in _shuffled(list(itertools.product(story_triples(split), range(len(ORDINALS)))), rng)
        ),
    }
    return list(makers[task]())


def items(
    task: str,
    split: str,
    family: str = "plain",
    n: int | None = None,
    seed: int = 0,
    *,
    wording: str = "seen",
    inverted: bool | None = None,
) -> list[Item]:
    """Prompts of a task, distinct, with their truth.

    `safety`, `think`, `judge` and `topic` take a wrapper family (`FAMILIES`) and alternate harmful and harmless; the
    `test` split holds verb-object pairs that no training stage ever saw. `over` alternates triggers and safe twins.
    `judge` also takes the kind of wording (`seen`, `combination`, `frame`, `marker`) and the question's direction.
    Without `n` every combination comes once; with more, combinations come again in other words.
    Raises ValueError for an unknown task, split or family, or when `n` distinct prompts do not exist.
    """
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}; one of {', '.join(TASKS)}")
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; one of {', '.join(SPLITS)}")
    if family not in FAMILIES:
        raise ValueError(f"unknown wrapper {family!r}; one of {', '.join(FAMILIES)}")
    rng = random.Random(f"{task}/{split}/{family}/{wording}/{inverted}/{seed}")
    found: dict[str, Item] = {}
    while True:
        before = len(found)
        for item in _one_pass(task, split, family, wording, inverted, rng):
            found.setdefault(item.prompt, item)
            if n is not None and len(found) >= n:
                break
        if n is None or len(found) >= n:
            return list(found.values())[:n]
        if len(found) == before:
            raise ValueError(f"{task}/{split}/{family} has only {before} distinct prompts, {n} were asked for")


@cache
def digest() -> str:
    """SHA-256 of what the grammar says: changes when any prompt, answer or text would."""
    sha = hashlib.sha256()
    for task, split in itertools.product(TASKS, SPLITS):
        families = FAMILIES if task in ("safety", "think", "judge", "topic") else ("plain",)
        for family in families:
            for item in items(task, split, family):
                sha.update(repr((item.prompt, item.label, item.answer, sorted(item.meta.items()))).encode())
    rng = random.Random(0)
    for _ in range(2000):
        sha.update(repr(draw_text(rng)).encode())
    return sha.hexdigest()
