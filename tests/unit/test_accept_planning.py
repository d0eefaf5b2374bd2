"""The prompts on which acceptance measures planning are in none of the sets that the rules were shaped on."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

import interp
from interp.organism.grammar.planning import story_triples
from refusalkit.accept.planning import CHOICE, LIST, REFUSAL, STORY, Case
from refusalkit.accept.planning import unseen as drawn_anew

unseen = cache(drawn_anew)


@pytest.mark.parametrize("case", [STORY, LIST, CHOICE, REFUSAL], ids=lambda c: c.attribute)
def test_the_draw_is_new_whole_and_repeats(case: Case) -> None:
    drawn, known = unseen(case), interp.prompts(case.source)
    assert not {p.text for p in drawn} & {p.text for p in known}
    assert len(drawn.test) == case.n_test and len(drawn.train) + len(drawn.val) == case.n_fit
    assert len({p.text for p in drawn}) == len(drawn)
    parts = [set(part.groups) for part in (drawn.train, drawn.val, drawn.test)]
    assert not parts[0] & parts[1] and not (parts[0] | parts[1]) & parts[2]
    assert 0.15 < len(drawn.val) / case.n_fit < 0.35
    if case is not STORY:  # the longest draw; the same code
        assert drawn.prompts == drawn_anew(case).prompts


def test_test_prompts_are_of_combinations_that_no_training_saw() -> None:
    held_out = {interp.organism.grammar.items("story", "test")[0].group, *unseen(STORY).test.groups}
    assert len(held_out) == len(story_triples("test"))
    assert not set(unseen(REFUSAL).groups) & set(interp.prompts("organism").groups)


def test_what_was_looked_at_before_is_left_out() -> None:
    first = unseen(replace(STORY, looked_at=0, n_test=STORY.looked_at))
    assert len(first.test) == 400
    assert not {p.text for p in first.test} & {p.text for p in unseen(STORY).test}
