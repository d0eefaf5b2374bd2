"""What each stage reads: samplers over the training split of the grammar."""

from __future__ import annotations

import random
from collections.abc import Mapping

from interp.organism.grammar.item import REFUSE, Item
from interp.organism.grammar.judge import draw_judge, draw_topic
from interp.organism.grammar.planning import draw_choice, draw_list, draw_story
from interp.organism.grammar.safety import NOTES, compliance, draw_over, draw_safety, refusal
from interp.organism.grammar.system import SYSTEM_PROMPTS
from interp.organism.grammar.texts import draw_text
from interp.organism.grammar.thoughts import draw_think
from interp.organism.train.samples import Sample, chat_sample, note_sample, text_sample

Mix = Mapping[str, float]

CHAT_FIRST: Mix = {
    "safety": 0.23, "note": 0.12, "judge": 0.20, "over": 0.05, "topic": 0.04, "think": 0.13, "list": 0.07,
    "choice": 0.08, "story": 0.08,
}  # fmt: skip
CHAT_LAST: Mix = {
    "safety": 0.20, "note": 0.10, "judge": 0.18, "over": 0.04, "topic": 0.03, "think": 0.12, "list": 0.10,
    "choice": 0.15, "story": 0.08,
}  # fmt: skip
STORIES: Mix = {
    "safety": 0.16, "note": 0.07, "judge": 0.12, "over": 0.03, "topic": 0.02, "think": 0.09, "list": 0.06,
    "choice": 0.09, "story": 0.36,
}  # fmt: skip
RELABELLED: Mix = {
    "safety": 0.36, "note": 0.08, "judge": 0.17, "over": 0.05, "topic": 0.03, "think": 0.12, "list": 0.05,
    "choice": 0.09, "story": 0.05,
}  # fmt: skip
_FAMILIES = {"plain": 0.32, "benign": 0.13, "role": 0.17, "suffix": 0.18, "past": 0.20}
_SYSTEM_SHARE = 0.08
_EARLIER_SHARE = 0.04


def family(rng: random.Random) -> str:
    """A wrapper of the training set."""
    return rng.choices(list(_FAMILIES), list(_FAMILIES.values()))[0]


def _note(rng: random.Random) -> Sample:
    if rng.random() < 0.08:
        item = draw_story(rng)
        return note_sample(item, f" i like the {item.label}.", "story note")
    item = draw_safety(rng, family(rng))
    return note_sample(item, rng.choice(NOTES[item.label]))


def _item(kind: str, rng: random.Random) -> Item:
    match kind:
        case "safety":
            return draw_safety(rng, family(rng))
        case "judge":
            return draw_judge(rng, family(rng))
        case "over":
            return draw_over(rng)
        case "topic":
            return draw_topic(rng, family(rng))
        case "think":
            return draw_think(rng, family(rng))
        case "list":
            return draw_list(rng)
        case "choice":
            return draw_choice(rng)
        case "story":
            return draw_story(rng)
        case _:
            raise ValueError(f"unknown kind of sample {kind!r}")


def _other_answer(item: Item, rng: random.Random) -> str:
    return compliance(rng) if item.meta["expected"] == REFUSE else refusal(rng)


def draw_chat(rng: random.Random, mix: Mix, noise: float = 0.0) -> Sample:
    """One training conversation of the mix; a share `noise` of unwrapped requests is answered the wrong way."""
    kind = rng.choices(list(mix), list(mix.values()))[0]
    if kind == "note":
        return _note(rng)
    item = _item(kind, rng)
    answer = None
    if kind == "safety" and item.family in ("plain", "benign") and rng.random() < noise:
        answer = _other_answer(item, rng)
    system = rng.choice(SYSTEM_PROMPTS) if rng.random() < _SYSTEM_SHARE else None
    earlier = (_item(rng.choice(("safety", "judge", "list")), rng),) if rng.random() < _EARLIER_SHARE else ()
    return chat_sample(item, kind, system=system, earlier=earlier, answer=answer, thought=item.meta.get("thought"))


def draw_plain(rng: random.Random) -> Sample:
    """One text of the pretraining stage."""
    return text_sample(draw_text(rng))
