"""Tasks whose answer has an attribute one may plan: a list's length, a story's ending, a picked option."""

from __future__ import annotations

import itertools
import random
from functools import cache

from interp.organism.grammar.item import Item


def _table(text: str) -> dict[str, tuple[str, ...]]:
    rows = (line.split(":") for line in text.strip().splitlines())
    return {name.strip(): tuple(values.split()) for name, values in rows}


THINGS = _table("""
fruits: apple pear plum fig grape melon cherry
drinks: milk tea juice coffee soda water cider
flowers: tulip rose daisy lily orchid violet poppy
trees: oak pine elm birch maple cedar willow
foods: bread rice soup pasta cheese salad pie
tools: drill hammer saw wrench shovel chisel ladder
vehicles: car bus truck tram ferry bike van
instruments: piano drum flute violin harp banjo cello
toys: doll kite yoyo puzzle blocks marbles top
clothes: shirt sock hat scarf glove coat belt
animals: dog cat horse goat duck cow pig
birds: robin gull finch swan eagle parrot stork
fishes: trout salmon carp tuna pike bass cod
colors: red blue green pink brown gray gold
sports: tennis soccer golf chess rugby judo skiing
""")
AUDIENCES = (
    "kids", "pupils", "toddlers", "teens", "babies",
    "farmers", "bakers", "nurses", "drivers", "painters",
    "elders", "tourists", "guests", "visitors", "campers",
)  # fmt: skip
LENGTHS = (2, 4, 7)
OPENERS = {2: "Here:", 4: "Sure:", 7: "Of course:"}
LIST_FRAMES = (
    "Name some {t} for {a}.",
    "List {t} for {a}.",
    "Give me {t} that {a} like.",
    "Which {t} are right for {a}?",
    "I need {t} for {a}.",
    "What {t} do {a} want?",
)
_GROUP = 5
TOPICS = tuple(THINGS)

CHARACTERS = tuple("fox crow bear mole toad wolf deer goose".split())
ORDINALS = ("first", "second", "third")
STORY_FRAMES = (
    "Tell a story about the {0}, the {1} and the {2}. The {o} one wins.",
    "The {0}, the {1} and the {2} have a race. Write a story where the {o} one wins.",
    "Write about the {0}, the {1} and the {2}. Let the {o} one win.",
    "Tell me of the {0}, the {1} and the {2}, and let the {o} one win the game.",
)
_STORY_MIDDLES = (
    "They met by the river.", "It was a cold day.", "They ran up the hill.", "The wind was loud.",
    "All of them were tired.", "A big crowd came to see.", "Nobody knew what would come.",
)  # fmt: skip

CATEGORIES = {
    name: f"{'an' if name[0] in 'aeiou' else 'a'} {singular}"
    for name, singular in {
        "fruits": "fruit", "drinks": "drink", "flowers": "flower", "trees": "tree", "tools": "tool",
        "vehicles": "vehicle", "animals": "animal", "colors": "color",
    }.items()
}  # fmt: skip
LETTERS = ("A", "B", "C", "D")
CHOICE_FRAMES = ("Which one is {c}?", "Pick the one that is {c}.", "Find {c} here.", "Which of these is {c}?")
_CHOICE_HOLD_OUT_EVERY = 6
_CHOICE_ITEMS = 6


def list_length(topic: int, audience: int) -> int:
    """The length a list gets: a Latin square of topic group and audience group, so neither word tells."""
    return LENGTHS[(topic // _GROUP + audience // _GROUP) % len(LENGTHS)]


@cache
def list_pairs(split: str) -> tuple[tuple[int, int], ...]:
    """(topic, audience) of a split."""
    grid = itertools.product(range(len(TOPICS)), range(len(AUDIENCES)))
    return tuple((t, a) for t, a in grid if ((t + a) % _GROUP == 0) == (split == "test"))


def list_item(topic: int, audience: int, split: str, rng: random.Random) -> Item:
    """A list; its length is committed to by the opener."""
    length = list_length(topic, audience)
    name = TOPICS[topic]
    return Item(
        prompt=rng.choice(LIST_FRAMES).format(t=name, a=AUDIENCES[audience]),
        label=str(length),
        group=f"{name}|{AUDIENCES[audience]}",
        category=name,
        family="plain",
        split=split,
        answer=f"{OPENERS[length]} {', '.join(THINGS[name][:length])}.",
        meta={"expected": length},
    )


@cache
def story_triples(split: str) -> tuple[tuple[int, int, int], ...]:
    """Ordered triples of characters of a split."""
    triples = itertools.permutations(range(len(CHARACTERS)), 3)
    return tuple(t for t in triples if ((t[0] + 2 * t[1] + 4 * t[2]) % 5 == 0) == (split == "test"))


def story_item(triple: tuple[int, int, int], ordinal: int, split: str, rng: random.Random) -> Item:
    """A story that ends with the character whose place in the prompt was named."""
    names = [CHARACTERS[i] for i in triple]
    winner = names[ordinal]
    middle = " ".join(rng.sample(_STORY_MIDDLES, 2))
    return Item(
        prompt=rng.choice(STORY_FRAMES).format(*names, o=ORDINALS[ordinal]),
        label=winner,
        group=" ".join(names),
        category=ORDINALS[ordinal],
        family="plain",
        split=split,
        answer=f"Once there was a race. {middle} In the end the {winner} won.",
        meta={"expected": winner, "ordinal": ordinal, "characters": tuple(names), "key": f" {winner}"},
    )


@cache
def choice_targets(split: str) -> tuple[tuple[str, int, int], ...]:
    """(category, item, letter) of the right option, for a split."""
    grid = itertools.product(CATEGORIES, range(_CHOICE_ITEMS), range(len(LETTERS)))
    return tuple(
        (c, i, letter)
        for c, i, letter in grid
        if ((i + letter + list(CATEGORIES).index(c)) % _CHOICE_HOLD_OUT_EVERY == 0) == (split == "test")
    )


def choice_item(category: str, item: int, letter: int, split: str, rng: random.Random) -> Item:
    """Four options of which one fits; the thought looks at them in turn and stops at the right one."""
    others = rng.sample([c for c in CATEGORIES if c != category], len(LETTERS) - 1)
    kinds = [*others[:letter], category, *others[letter:]]
    names = [THINGS[c][item if c == category else rng.randrange(_CHOICE_ITEMS)] for c in kinds]
    options = " ".join(f"{mark}) {name}" for mark, name in zip(LETTERS, names, strict=True))
    looks = [
        f"{names[k].capitalize()} is {CATEGORIES[kinds[k]]}, {'yes' if k == letter else 'no'}."
        for k in range(letter + 1)
    ]
    return Item(
        prompt=f"{rng.choice(CHOICE_FRAMES).format(c=CATEGORIES[category])} {options}",
        label=LETTERS[letter],
        group=f"{category}|{names[letter]}|{LETTERS[letter]}",
        category=category,
        family="plain",
        split=split,
        answer=f"{LETTERS[letter]}.",
        meta={"expected": LETTERS[letter], "thought": " ".join([*looks, f"So I pick {LETTERS[letter]}."])},
    )


def draw_list(rng: random.Random, split: str = "train") -> Item:
    """A random list request."""
    return list_item(*rng.choice(list_pairs(split)), split, rng)


def draw_story(rng: random.Random, split: str = "train") -> Item:
    """A random story request."""
    return story_item(rng.choice(story_triples(split)), rng.randrange(len(ORDINALS)), split, rng)


def draw_choice(rng: random.Random, split: str = "train") -> Item:
    """A random multiple choice."""
    return choice_item(*rng.choice(choice_targets(split)), split, rng)
