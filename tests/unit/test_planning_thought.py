"""Refusal along a thought: what `probes.plan` reads there, up to the token that ends it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import interp
import probes
from interp import PromptSet
from interp.errors import ProbeError, PromptError
from interp.text.encoded import Trace
from probes.planning.elsewhere import labelled
from probes.planning.known import SHIPPED
from probes.planning.states import plan_states
from probes.planning.writing import as_written, from_trace

QUICK: dict[str, Any] = {"max_new_tokens": 96, "seeds": (0,), "kinds": ("linear",), "segments": 4, "ask": False}
PLACES = ("prompt", "thought 25 %", "thought 50 %", "thought 75 %", "thought 100 %")


@cache
def model(variant: str, thinking: bool = True) -> interp.Model:
    return interp.load(f"organism:{variant}").with_format(thinking=thinking)


@cache
def prompts() -> PromptSet:
    found = interp.prompts("organism")
    parts = [found.filter(split=s, label=label)[:n].prompts for s, n in (("train", 15), ("val", 5), ("test", 8))
             for label in ("harmful", "harmless")]  # fmt: skip
    return PromptSet(tuple(p for part in parts for p in part), "some")


@pytest.fixture(scope="module")
def cliff(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the thoughts of the cliff are kept from one test to the next."""
    return tmp_path_factory.mktemp("cliff")


def test_refusal_is_read_along_a_thought_to_its_last_token() -> None:
    found = probes.plan(model("chat"), prompts(), "refusal", **QUICK)
    assert found.fit.positions == PLACES  # and no segment of the answer, whose first token gives it away
    assert {s.region for s in found.examples.segments} == {"thought"}
    value = dict(zip(found.fit.curve.table["position"], found.fit.curve.table["value"], strict=True))
    assert value["prompt"] > 0.9 and value["thought 100 %"] == 1.0
    assert found.examples.written is not None
    assert all(text.endswith("</think>\n\n") for text in found.examples.written[-1])


def test_a_model_that_always_complies_after_thinking_has_nothing_to_foretell(cliff: Path) -> None:
    with pytest.raises(ProbeError, match="all 56 labels are 'complied', so there is nothing to foretell"):
        probes.plan(model("cliff"), prompts(), "refusal", out=cliff, **QUICK)


def test_what_it_would_do_without_the_thought_is_readable_to_the_thoughts_end_and_not_acted_on(
    cliff: Path,
) -> None:
    """The cliff takes the decision from the answer, not from the states: probes fitted at each place still find it."""
    direct = probes.answered_by(model("cliff", thinking=False), prompts(), "refusal", max_new_tokens=32)
    found = probes.plan(model("cliff"), prompts(), direct, out=cliff, **QUICK)
    assert found.fit.positions == PLACES and found.attribute.name == "refusal of organism:cliff"
    assert found.fit.classes == ("complied", "refused")
    assert found.fit.curve.table["value"].iloc[-1] == 1.0
    shuffled = found.fit.baselines.query("position == 'thought 100 %' and baseline == 'shuffled labels'")
    assert shuffled[shuffled["metric"] == "accuracy"]["value"].iloc[0] < 0.7
    assert not any(SHIPPED["refusal"](a) == "refused" for a in found.answers)


def test_a_thought_from_a_file_has_the_tokens_that_were_written() -> None:
    some = prompts()[:3]
    for completion in model("chat").generate(some, max_new_tokens=96):
        own = as_written(model("chat"), completion)
        read = from_trace(model("chat"), Trace(completion.prompt, completion.thinking, completion.answer), "whole")
        assert (read.ids[:-1], read.ends, read.start, read.text) == (own.ids[:-1], own.ends[:-1], own.start, own.text)
        assert (read.before_answer, read.body, read.answer) == (own.before_answer, own.body, own.answer)


def test_labels_given_elsewhere_are_asked_for_by_prompt() -> None:
    own = labelled("mine", SHIPPED["refusal"], {prompts()[0].id: "refused", prompts()[1].id: None})
    first = probes.Answer("Sure.", prompts()[0])
    assert own(first) == "refused" and own.find(first).at == 0
    assert own(replace(first, prompt=prompts()[1])) is None
    with pytest.raises(ProbeError, match="was not among the prompts that were answered elsewhere"):
        own(replace(first, prompt=prompts()[2]))
    with pytest.raises(PromptError, match="no labels"):
        labelled("none", SHIPPED["refusal"], {})


def test_some_layers_and_some_rows_are_those_of_all() -> None:
    written = [as_written(model("chat"), c) for c in model("chat").generate(prompts()[:4], max_new_tokens=96)]
    reveal = [w.before_answer for w in written]
    every = plan_states(model("chat"), written, reveal, segments=2)
    some = plan_states(model("chat"), written, reveal, segments=2, layers=(1, 4))
    assert some.layers == (1, 4) and np.array_equal(some.states, every.states[:, :, [1, 4]])
    two = every.rows([2, 0])
    assert np.array_equal(two.states, every.states[[2, 0]]) and two.written[0][0] == every.written[0][2]
    assert two.lengths.tolist() == every.lengths[[2, 0]].tolist()
    alone = every.at_prompt()
    assert alone.states.shape[1] == 1 and alone.segments == () and alone.written_lengths.shape == (4, 0)
