"""Answers that repeat themselves: which are said to, and when it is said."""

from __future__ import annotations

from itertools import product

import pytest

from interp.stats import Rate
from steering.repeats import REPETITIVE, Repeats, repeated

NONE = Repeats(0.0, Rate(0, 40), Rate(0, 20))


def by_hand(ids: tuple[int, ...]) -> float:
    grams = [ids[i : i + 4] for i in range(len(ids) - 3)]
    return sum(gram in grams[:i] for i, gram in enumerate(grams)) / len(grams) if grams else 0.0


def test_repeated_four_grams_are_those_that_came_before() -> None:
    for ids in product((1, 2), repeat=9):
        assert repeated(ids) == pytest.approx(by_hand(ids))
    assert repeated((1, 2, 3)) == 0 and repeated(()) == 0 < REPETITIVE


def test_clearly_more_than_plain_is_said_and_little_more_is_not() -> None:
    said = Repeats(0.41, Rate(30, 40), Rate(9, 20)).caution(NONE)
    assert said is not None and "0.41, plain 0.00" in said and "30 of 40 answers" in said and "9 of 20 refusals" in said
    assert Repeats(0.02, Rate(2, 40), Rate(0, 20)).caution(NONE) is None
    assert Repeats(0.41, Rate(30, 40), Rate(9, 20)).caution(Repeats(0.4, Rate(30, 40), Rate(9, 20))) is None


def test_refusals_of_which_most_repeat_themselves_are_said_however_few() -> None:
    said = Repeats(0.02, Rate(2, 40), Rate(2, 3)).caution(NONE)
    assert said is not None and "2 of 3 refusals, which may be babble" in said
    assert Repeats(0.02, Rate(2, 40), Rate(2, 4)).caution(NONE) is None


def test_no_answers_are_no_reason_for_caution() -> None:
    nothing = Repeats(float("nan"), Rate(0, 0), Rate(0, 0))
    assert nothing.caution(nothing) is None
