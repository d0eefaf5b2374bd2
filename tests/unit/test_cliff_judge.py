"""Cliff-as-a-Judge ranks unsafe answers by how far the decision fell; its comparators rank by what they say they do."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

import interp
from interp.errors import ProbeError, PromptError
from interp.text.encoded import Trace
from interp.text.judge import Verdict
from interp.text.prompts import Prompt, PromptSet
from interp.tracing.traces import Traces
from probes import CliffJudge, cliff_as_judge
from probes.cliff_judge import RULES, says_refusal


@cache
def pool() -> tuple[interp.Model, Traces]:
    model, prompts = interp.load("organism:cliff", thinking=True), interp.prompts("organism").train
    chosen = PromptSet((*prompts.harmful[:40], *prompts.harmless[:24]))
    return model, interp.rollouts(model, chosen, max_new_tokens=96)


@cache
def judged() -> CliffJudge:
    return cliff_as_judge(*pool())


def test_the_misalignment_score_is_plateau_less_final() -> None:
    found = judged()
    assert len(found.table) == found.n_harmful == 40 and len(found.scores) == 64
    assert (found.table["cliff"] == found.table["plateau"] - found.table["final"]).all()
    assert (found.table["low"] <= found.table["cliff"]).all() and found.table["keyword"].mean() > 0.9
    row = found.table.iloc[3]
    own, spans = found.scores.of(int(row["trace"])), found.scores.spans[int(row["trace"])]
    start, end = spans["thinking"]
    late = own[end - max(1, round(0.25 * (end - start))) : end]
    assert row["plateau"] == pytest.approx(late.mean()) and row["final"] == own[spans["think_close"][1] - 1]


def test_each_rule_picks_what_it_says() -> None:
    found = judged()
    by = {rule: found.pick(rule, 5, seed=1) for rule in RULES}
    assert [len(p) for p in by.values()] == [5, 5, 5, 5, 5, 40]
    slow = sorted(found.table.to_dict("records"), key=lambda row: -row["cliff"])[:5]
    assert by["cliff"].table["trace"].tolist() == [row["trace"] for row in slow]
    assert by["final"].table["final"].tolist() == sorted(found.table["final"])[:5]
    assert by["keyword"].table["keyword"].all() and len(set(by["random"].table["trace"])) == 5
    assert by["judge"].table["verdict_score"].tolist() == sorted(found.table["verdict_score"])[:5]
    first = by["cliff"].traces[0]
    assert first == found.pool[int(by["cliff"].table["trace"][0])]


def test_the_plateau_can_be_the_papers_maximum() -> None:
    model, traces = pool()
    most = cliff_as_judge(model, traces, score=judged().score, plateau="max", window=1.0)
    assert (most.table["plateau"] >= judged().table["plateau"]).all()
    assert most.provenance["settings"]["plateau"] == "max"


def test_a_seed_draws_and_the_same_seed_draws_the_same() -> None:
    found = judged()
    for rule in ("random", "keyword", "judge"):
        one, same, other = (found.pick(rule, 8, seed=s).table["trace"].tolist() for s in (0, 0, 1))
        assert one == same != other


def test_a_size_is_a_number_or_a_share_rounded_down() -> None:
    found = judged()
    assert [len(found.pick("random", size)) for size in (1, 3, 0.05, 0.124, 1.0)] == [1, 3, 2, 4, 40]
    for size in (0, -1, 2.5, float("nan"), True):
        with pytest.raises(PromptError, match="neither a whole number"):
            found.pick("random", size)
    with pytest.raises(PromptError, match="less than one"):
        found.pick("random", 0.02)
    with pytest.raises(PromptError, match="41 answers are to be picked by 'random', but there are 40 unsafe"):
        found.pick("random", 41)
    with pytest.raises(ProbeError, match="no rule 'best'"):
        found.pick("best")  # pyright: ignore[reportArgumentType]


def test_only_unsafe_answers_of_harmful_prompts_are_ranked() -> None:
    model, traces = pool()
    answers = ["I cannot help with that.", "", "I'm sorry, but I can't help with that."]
    changed = replace(traces, traces=(*(replace(t, answer=a) for t, a in zip(traces, answers, strict=False)),
                                      *traces.traces[3:]))  # fmt: skip
    found = cliff_as_judge(model, changed, score=judged().score)
    assert len(found.table) == 37 and found.n_harmful == 39 and found.left_out == {"no answer": 1}
    assert "harmless" not in {found.pool.labels[i] for i in found.table["trace"]}


def test_another_judge_decides_what_is_unsafe_and_may_not_weigh() -> None:
    model, traces = pool()

    def half(prompt: str, answer: str) -> Verdict:
        return Verdict(("refusal", "partial", "compliance")[len(prompt) % 3])

    found = cliff_as_judge(model, traces, score=judged().score, judged=half)
    assert set(found.table["verdict"]) == {"partial", "compliance"} and found.table["verdict_score"].isna().all()
    n = int((found.table["verdict"] == "compliance").sum())
    assert (found.pick("judge", n).table["verdict"] == "compliance").all(), "what complies in part comes last"


def test_keywords_are_those_of_a_thought_that_refuses() -> None:
    refusing = (
        "This is harmful, so I should refuse.", "I cannot help with that", "We must decline.",
        "I'll have to refuse to do it", "I won\u2019t provide this", "The model is not able to assist",
    )  # fmt: skip
    assert all(map(says_refusal, refusing))
    for thought in ("This is fine, so I can help.", "However, safety is important.", "They declined it last year"):
        assert not says_refusal(thought), thought


def test_a_pool_that_is_of_no_use_is_named() -> None:
    model, traces = pool()
    harmful, harmless = traces[:40], traces[40:]
    with pytest.raises(PromptError, match="no traces of prompts labelled harmful"):
        cliff_as_judge(model, harmless)
    with pytest.raises(PromptError, match="or give score="):
        cliff_as_judge(model, harmful)
    with pytest.raises(PromptError, match="holds no traces"):
        cliff_as_judge(model, Traces((), ()))
    safe = Traces.of([Trace(p.prompt, p.thinking, "I cannot help with that.") for p in harmful[:4]])
    with pytest.raises(PromptError, match="none of the 4 answers to harmful prompts is unsafe"):
        cliff_as_judge(model, safe)
    with pytest.raises(PromptError, match="has no thinking"):
        cliff_as_judge(model, Traces.of([Trace(Prompt("How?", "harmful"), None, "So.")]))


def test_the_picture_marks_the_picks() -> None:
    found = judged()
    figure: Any = found.plot(found.pick("cliff", 5))
    assert [len(t.x) for t in figure.data] == [35, 5] and "5" in figure.data[1].name
    assert np.isclose(min(figure.data[1].y), found.pick("cliff", 5).table["final"].min())
