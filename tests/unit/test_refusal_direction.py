"""The refusal direction end to end: who goes on which side, which rule chooses, and what "nothing found" says."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

import interp
import probes.refusal
from interp.errors import PromptError
from interp.model.generate import Completion
from interp.model.refusal_metric import RefusalMetric
from interp.text.judge import Verdict
from interp.text.prompts import Prompt, PromptSet
from probes import Behaviour, RefusalDirection, behaviour, refusal_direction
from probes.candidate_scores import SCORES
from probes.refusal import draw, find_direction, held_out, sides_of
from tests.helpers.slow import lively, loaded

SIZES = {"train": 12, "val": 5, "test": 6}


def judged(refuses: Any = lambda p, i: p.label == "harmful", split: bool = True, labels: bool = True) -> Behaviour:
    """Verdicts by a rule of prompt and number."""
    prompts = [
        Prompt(f"{name} {label} {i}", label if labels else None, split=name if split else None)
        for name, n in SIZES.items()
        for label in ("harmful", "harmless")
        for i in range(n)
    ]
    number = {p.text: int(p.text.split()[-1]) for p in prompts}
    verdicts = [Verdict("refusal" if refuses(p, number[p.text]) else "compliance") for p in prompts]
    written = [Completion(p, v.label, None, v.label, (1,), True) for p, v in zip(prompts, verdicts, strict=True)]
    return Behaviour(PromptSet(tuple(prompts), "made"), tuple(written), tuple(verdicts))


# --- behaviour -------------------------------------------------------------------------------------------------------


def test_rates_count_refusals_among_the_prompts_asked_for() -> None:
    b = judged(lambda p, i: p.label == "harmful" and i < 4)
    assert (b.rate().k, b.rate().n) == (12, 46)
    assert (b.rate(label="harmful").k, b.rate(label="harmful").n) == (12, 23)
    assert (b.rate(label="harmful", split="test").k, b.rate(label="harmful", split="test").n) == (4, 6)
    assert (b.rate(family="none such").k, b.rate(family="none such").n) == (0, 0)
    assert int(b.refused.sum()) == 12 and b.refused.dtype == bool


def test_the_effect_of_harm_is_a_difference_with_its_interval() -> None:
    value, (low, high) = judged().effect_of_harm()
    assert value == 1.0 and 0.7 < low < high <= 1.0
    value, (low, high) = judged(lambda p, i: i % 2).effect_of_harm()
    assert value == 0 and low < 0 < high


def test_a_part_keeps_answers_with_their_prompts() -> None:
    b = judged(lambda p, i: i % 2)
    some = PromptSet(tuple(reversed(list(b.prompts)))[3:9])
    part = b.part(some)
    assert [c.prompt for c in part.completions] == list(some)
    assert [v.refused for v in part.verdicts] == [bool(int(p.text.split()[-1]) % 2) for p in some]


def test_behaviour_judges_the_answer_and_not_the_thought() -> None:
    seen: list[tuple[str, str]] = []

    def judge(prompt: str, answer: str) -> Verdict:
        seen.append((prompt, answer))
        return Verdict("partial")

    prompts = PromptSet.from_texts(["one", "two three"], ["four"])
    got = behaviour(lively(), prompts, judge=judge, max_new_tokens=3)
    assert seen == [(p.text, c.answer) for p, c in zip(prompts, got.completions, strict=True)]
    assert not got.refused.any()
    assert list(got.to_frame()["verdict"]) == ["partial"] * 3


# --- sides -----------------------------------------------------------------------------------------------------------


def test_harmful_refused_keeps_only_what_the_model_treated_as_its_label_says() -> None:
    b = judged(lambda p, i: (p.label == "harmful") != (i == 0))  # the first of each kind goes the other way
    on, off = sides_of(b, "train", "harmful refused")
    assert {p.label for p in on} == {"harmful"} and {p.label for p in off} == {"harmless"}
    assert len(on) == len(off) == SIZES["train"] - 1
    assert {p.split for p in on + off} == {"train"}


def test_refused_takes_refusals_whatever_their_label() -> None:
    on, off = sides_of(judged(lambda p, i: i % 2), "train", "refused")
    assert len(on) == len(off) == SIZES["train"]
    assert {p.label for p in on} == {p.label for p in off} == {"harmful", "harmless"}
    assert all(int(p.text.split()[-1]) % 2 for p in on)


def test_the_causal_check_sees_harmful_prompts_whether_refused_or_not() -> None:
    b = judged(lambda p, i: p.label == "harmful" and i > 2)
    on, off = held_out(b, "harmful refused", 100, 0)
    assert (len(on), len(off)) == (SIZES["test"], SIZES["test"])
    assert {p.split for p in [*on, *off]} == {"test"}
    on, off = held_out(b, "refused", 100, 0)
    assert (len(on), len(off)) == (SIZES["test"] - 3, SIZES["test"] + 3)
    assert len(held_out(b, "harmful refused", 2, 0)[0]) == 2


def test_prompts_are_drawn_by_the_seed_and_left_in_order() -> None:
    side = list(judged().prompts)
    a, b = draw((side, side[:5]), 10, 0)
    assert (a, b) == draw((side, side[:5]), 10, 0)
    assert a != draw((side, side), 10, 1)[0]
    assert len(a) == 10 and b == side[:5]
    assert [side.index(p) for p in a] == sorted(side.index(p) for p in a)


# --- nothing found ---------------------------------------------------------------------------------------------------


def test_a_model_that_does_not_refuse_is_a_result_and_not_an_exception() -> None:
    found = refusal_direction(loaded(), judged().prompts, answers=judged(lambda p, i: False))
    assert found.direction is None and found.causal is None and found.selection is None and found.rule == ""
    assert "refuses 0 of 46 prompts" in found.reason
    assert found.to_frame().empty
    with pytest.raises(PromptError, match="nothing to plot"):
        found.plot()


def test_a_model_that_refuses_everything_has_no_other_side() -> None:
    found = find_direction(loaded(), judged(lambda p, i: True))
    assert found.direction is None and "train 12 and 0" in found.reason


def test_too_few_in_any_split_is_said_with_the_counts() -> None:
    found = find_direction(loaded(), judged(lambda p, i: p.label == "harmful" and (p.split != "val" or i < 3)))
    assert found.direction is None and "val 3 and 5" in found.reason and "train" not in found.reason


def test_refusals_that_open_like_compliances_are_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(*_: Any, **__: Any) -> RefusalMetric:
        raise PromptError("refusals open with the same tokens")

    monkeypatch.setattr(RefusalMetric, "find", find)
    found = find_direction(loaded(), judged())
    assert found.direction is None and "same tokens" in found.reason


def test_unknown_contrasts_and_unlabelled_or_unsplit_prompts_are_errors() -> None:
    with pytest.raises(PromptError, match="unknown contrast 'harm'"):
        find_direction(loaded(), judged(), contrast="harm")
    with pytest.raises(PromptError, match="split"):
        find_direction(loaded(), judged(split=False))
    with pytest.raises(PromptError, match="split"):
        find_direction(loaded(), judged(split=False), contrast="refused")
    with pytest.raises(PromptError, match="labels"):
        find_direction(loaded(), judged(labels=False))


# --- the rule --------------------------------------------------------------------------------------------------------

PASSES = {"plain": 4.0, "bypass": -3.0, "bypass_mean": -2.0, "induce": 1.0, "kl": 0.01, "kl_mean": 0.02}
METRIC = RefusalMetric((5,), ("x",), (1.0, 0.0), 1.0, (4, 4))


def find_with(monkeypatch: pytest.MonkeyPatch, *rows: dict[str, float], **options: Any) -> RefusalDirection:
    """`find_direction` on a table made by hand: rows for layers 1 and 2 of the last position."""

    def score(model: Any, found: Any, *_: Any, **__: Any) -> pd.DataFrame:
        made = [{"position": found.positions[-1], "layer": 1 + i, **PASSES, **row} for i, row in enumerate(rows)]
        return pd.DataFrame(made)[["position", "layer", *SCORES]]

    monkeypatch.setattr(probes.refusal, "score_candidates", score)
    monkeypatch.setattr(RefusalMetric, "find", lambda *_, **__: METRIC)
    return find_direction(loaded(), judged(), **options)


@pytest.mark.parametrize(
    ("rows", "rule", "layer", "said"),
    [
        ([{}, {"bypass": -1.0}], "zero", 1, "lowest bypass"),
        ([{"bypass": 2.0, "bypass_mean": -1.0}, {"bypass": 3.0, "bypass_mean": -4.0}], "mean", 2, "leaves the model"),
        ([{"kl": 9.0}, {"kl": 9.0, "bypass_mean": -4.0}], "mean", 2, "no candidate"),
        ([{"bypass": 2.0, "bypass_mean": 1.0}, {"bypass": 1.0, "bypass_mean": 2.0}], "zero", 2, "leaves the model"),
        ([{"kl": 9.0, "bypass_mean": 2.0}, {"kl": 9.0, "bypass_mean": 1.0}], "mean", 2, "leaves the model"),
        ([{"induce": -1.0}, {"induce": -2.0}], "", None, "induce"),
        ([{"induce": math.nan}, {"bypass": math.nan, "bypass_mean": math.nan}], "", None, "one of 2 candidates passes"),
    ],
    ids=["zero", "mean", "mean passes alone", "zero though refusing", "mean though refusing", "none", "not finite"],
)
def test_ablation_to_zero_is_preferred_where_it_works(
    monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, float]], rule: str, layer: int | None, said: str
) -> None:
    found = find_with(monkeypatch, *rows, max_depth=1.0)
    assert found.rule == rule and said in found.reason
    assert (found.direction is None) == (layer is None)
    if found.direction is not None:
        assert (found.direction.layer, found.direction.position) == (layer, "post_inst[-1]")
        assert found.direction.norm > 0
    assert found.selection is not None and len(found.to_frame()) == 2, "the whole table is kept"


def test_thresholds_reach_both_selections(monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_with(
        monkeypatch, {"induce": -1.0, "kl": 0.5, "kl_mean": 0.5}, min_induce=-1.0, max_kl=0.5, max_depth=1
    )
    limits = {"min_induce": -1.0, "max_kl": 0.5, "max_depth": 1}
    assert found.rule == "zero" and found.selection is not None and found.selection_mean is not None
    assert found.selection.thresholds == found.selection_mean.thresholds == limits


def test_sizes_bound_the_prompts_behind_the_means(monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_with(monkeypatch, {}, {}, n_train=9)
    assert found.candidates is not None and found.candidates.counts == (9, 9)


# --- on the organism -------------------------------------------------------------------------------------------------


@cache
def organism() -> interp.Model:
    return interp.load("organism")


SMALL: dict[str, Any] = {"n_val": 6, "n_test": 16, "n_random": 2, "max_new_tokens": 24}


@cache
def answers() -> Behaviour:
    prompts = interp.prompts("organism")
    small = [
        p
        for split, n in {"train": 32, "val": 8, "test": 16}.items()
        for label in ("harmful", "harmless")
        for p in prompts.filter(split=split, label=label).sample(n, 0)
    ]
    return behaviour(organism(), PromptSet(tuple(small), "organism"), max_new_tokens=24)


@cache
def on_the_organism() -> RefusalDirection:
    return refusal_direction(organism(), answers().prompts, answers=answers(), **SMALL)


def test_on_the_organism_removing_the_direction_removes_refusal_and_random_ones_do_not() -> None:
    found = on_the_organism()
    assert found.behaviour.effect_of_harm()[0] > 0.8
    assert found.metric is not None and found.metric.auroc > 0.95
    assert found.direction is not None and found.causal is not None, found.reason
    assert found.causal.bypass().rate.value <= 0.3
    for intervention, on in ((found.causal.bypass().intervention, "harmful"), ("add", "harmless")):
        assert found.causal.random_shift(intervention, on) <= 0.25
    assert np.isfinite(found.to_frame()[["bypass", "induce", "kl"]].dropna().to_numpy()).all()


def test_on_the_organism_the_direction_also_brings_refusal_about() -> None:
    found = on_the_organism()
    assert found.causal is not None, found.reason
    assert found.causal.get("add", "harmless").rate.value >= 0.7
