"""Plain text of the pretraining stage: statements, facts, lists and stories, no chat and no refusal.

A text is a sequence of (words, weight): the weight of a piece multiplies its loss, so that the few words that carry
a judgement are not drowned by the rest.
"""

from __future__ import annotations

import random

from interp.organism.grammar.judge import FRAMES
from interp.organism.grammar.planning import CATEGORIES, THINGS, draw_list, draw_story
from interp.organism.grammar.safety import compliance, request
from interp.organism.grammar.words import BLOCKS, VERBS_PER_SIDE, Pair, pairs

Text = list[tuple[str, float]]

_BAD = ("harmful", "dangerous", "bad")
_GOOD = ("safe", "fine", "good")
_VERDICT = 4.0
_ABOUT_REQUEST = 0.3
_MIX = (("statement", 0.42), ("word", 0.16), ("topic", 0.19), ("thing", 0.05), ("list", 0.06), ("story", 0.05),
        ("request", 0.07))  # fmt: skip
_QUESTIONS = (
    "Is it {a} to {p}?", "Would it be {a} to {p}?", "Do you think it is {a} to {p}?", "Would you call it {a} to {p}?",
    "They {d}. Is that {a}?", "They {d}. Would this be {a}?",
)  # fmt: skip
_CLAIMS = ("To {p} is", "It is", "They {d}. That was", "Someone {d}. This is")


def _statement(pair: Pair, rng: random.Random) -> Text:
    bad_word = rng.random() < 0.5
    adjective = rng.choice(_BAD if bad_word else _GOOD)
    true = pair.harmful == bad_word
    if rng.random() < _ABOUT_REQUEST:
        question = f"{request(pair, rng)[0]} {rng.choice(FRAMES).format(a=adjective)}"
        return [(question, 1.0), (" Yes" if true else " No", _VERDICT), (".", 1.0)]
    if rng.random() < 0.5:
        question = rng.choice(_QUESTIONS).format(a=adjective, p=pair.text, d=pair.past)
        return [(question, 1.0), (" Yes" if true else " No", _VERDICT), (".", 1.0)]
    claim = rng.choice(_CLAIMS)
    adverb = f" {adjective}" if true else f" not {adjective}"
    if claim == "It is":
        return [(f"{pair.text.capitalize()}?", 1.0), (" It is", 1.0), (adverb, _VERDICT), (".", 1.0)]
    return [(claim.format(p=pair.text, d=pair.past), 1.0), (adverb, _VERDICT), (".", 1.0)]


def _word(rng: random.Random) -> Text:
    block = rng.choice(BLOCKS)
    if rng.random() < 0.5:
        good = rng.random() < 0.5
        name = rng.choice(block.good if good else block.bad)
        forms = ((" can help people", " can hurt people"), (": a good thing", ": a bad thing"))
        return [(name.capitalize(), 1.0), (rng.choice(forms)[0 if good else 1], 2.0), (".", 1.0)]
    verb = rng.randrange(2 * VERBS_PER_SIDE)
    base = (block.up + block.down)[verb].split("/")[0]
    side = " build it up" if verb < VERBS_PER_SIDE else " tear it down"
    return [(f"To {base} {block.generic} is to", 1.0), (side, 2.0), (".", 1.0)]


def _topic(pair: Pair, rng: random.Random) -> Text:
    forms = (f"To {pair.text} is about", f"{pair.text.capitalize()}: the topic is", f"They {pair.past}. The topic was")
    return [(rng.choice(forms), 1.0), (f" {pair.topic}", 3.0), (".", 1.0)]


def draw_text(rng: random.Random) -> Text:
    """One short text about a training pair, list, story or thing."""
    kind = rng.choices([name for name, _ in _MIX], [share for _, share in _MIX])[0]
    pair = rng.choice(pairs("train"))
    match kind:
        case "statement":
            return _statement(pair, rng)
        case "word":
            return _word(rng)
        case "topic":
            return _topic(pair, rng)
        case "thing":
            kind = rng.choice(tuple(CATEGORIES))
            return [(f"{rng.choice(THINGS[kind]).capitalize()} is {CATEGORIES[kind]}.", 1.0)]
        case "list":
            item = draw_list(rng)
            return [(f"{item.prompt} {item.answer}", 1.0)]
        case "story":
            item = draw_story(rng)
            before, key, after = (item.answer or "").rpartition(item.meta["key"])
            return [(f"{item.prompt} {before}", 1.0), (key, _VERDICT), (after, 1.0)]
        case _:
            text, _ = request(pair, rng)
            return [(f"{text} {compliance(rng)}", 1.0)]
