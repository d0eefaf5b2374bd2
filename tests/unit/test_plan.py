"""`probes.plan` from model to verdict, several models, and what steering does."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import interp
import probes
from interp import PromptSet
from interp.errors import ModelError, ProbeError, PromptError
from probes.planning import planned as planning
from probes.planning.dosing import LAST, SAME, _chosen
from probes.planning.families import PlanModels
from probes.planning.steered import effect, pattern

QUICK: dict[str, Any] = {"max_new_tokens": 40, "seeds": (0,), "kinds": ("linear",), "segments": 2, "ask": False}
DOSED: dict[str, Any] = {"layers": (2, 4), "doses": (1.0, 4.0), "n_random": 2, "n_val": 8, "n_test": 24}


@cache
def model() -> interp.Model:
    return interp.load("organism:chat")


@cache
def lists() -> PromptSet:
    found = interp.prompts("organism:list")
    return PromptSet((*found.train[:80], *found.val[:30], *found.test[:40]), "lists")


@cache
def planned() -> probes.Plan:
    return probes.plan(model(), lists(), "list_length", **QUICK)


def test_a_list_is_committed_to_by_its_opener() -> None:
    found = planned()
    assert found.claim == "committed to by its first token"
    assert found.apart == {} and len(found.answers) == 150
    assert "150 of 150 answers have a label" in found.report()
    assert set(found.fit.baselines["baseline"]) > {"bag of words", "embedding layer", "first token", "prompt length"}
    assert len(found.answers_frame()) == 150 and found.n_parameters > 1e6


def test_the_prompts_own_split_is_kept_to() -> None:
    splits = [a.prompt.split for a in planned().answers]
    assert planned().fit.split().tolist() == splits


def test_the_same_call_gives_the_same_numbers_and_a_folder_gives_them_again(tmp_path: Path) -> None:
    first = probes.plan(model(), lists(), "list_length", out=tmp_path, **QUICK)
    names = {p.name for p in tmp_path.iterdir()}
    assert names >= {"answers.jsonl", "states.safetensors", "plan.json", "differences.csv", "scores.csv", "answers.csv"}
    before = {p.name: p.read_bytes() for p in tmp_path.glob("*.csv")}
    again = probes.plan(model(), lists(), "list_length", out=tmp_path, **QUICK)
    assert {p.name: p.read_bytes() for p in tmp_path.glob("*.csv")} == before
    pd.testing.assert_frame_equal(first.to_frame(), again.to_frame())
    pd.testing.assert_frame_equal(first.to_frame(), planned().to_frame())


def test_an_attribute_of_ones_own_is_planned_and_the_model_asked_for_it() -> None:
    own = probes.Attribute("opener", "classes", lambda a: probes.Found(a.text.split(":")[0], 0), question="How?")
    found = probes.plan(model(), lists(), own, **(QUICK | {"ask": True}))
    assert found.fit.classes == ("Here", "Of course", "Sure") and found.examples.segments == ()
    asked = found.fit.baselines
    assert "asked" in planned().fit.missing and (asked[asked["baseline"] == "asked"]["coverage"] <= 1).all()


def test_what_cannot_be_planned_is_said() -> None:
    few = lists()[:50]
    one = probes.Attribute("one", "classes", lambda _: "same")
    with pytest.raises(ProbeError, match="all 50 labels are .*'same'"):
        probes.plan(model(), few, one, **QUICK)
    nan = probes.Attribute("nan", "regression", lambda _: float("nan"))
    with pytest.raises(ProbeError, match="'nan' of the answer .* is nan"):
        probes.plan(model(), few, nan, **QUICK)
    with pytest.raises(ProbeError, match=r"'length': 20 answers are too few|too few"):
        probes.plan(model(), few[:20], "length", **QUICK)
    with pytest.raises(PromptError, match="no prompts"):
        probes.plan(model(), [], "length")
    with pytest.raises(ProbeError, match="segments=-1"):
        probes.plan(model(), lists(), "length", segments=-1)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"seeds": 0}, r"seeds=0: give a list, such as \[0, 1, 2\]"),
        ({"seeds": ()}, "give one or more whole numbers"),
        ({"seeds": (1.5,)}, "give one or more whole numbers"),
        ({"kinds": "linear"}, "kinds='linear': give a list"),
        ({"kinds": ("deep",)}, "choose of linear, mlp"),
        ({"alpha": 0.7}, "alpha=0.7"),
    ],
)
def test_settings_that_are_none_are_refused_before_anything_is_written(
    bad: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "write_answers", None)
    with pytest.raises(ProbeError, match=words):
        probes.plan(model(), lists(), "list_length", **(QUICK | bad))


def test_prompts_that_cannot_be_enough_are_refused_before_anything_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "write_answers", None)
    with pytest.raises(ProbeError, match=r"'length': 49 prompts are too few .*\(50 at least"):
        probes.plan(model(), lists()[:49], "length")
    alike = [interp.Prompt(p.text, group=str(i % 19)) for i, p in enumerate(lists())]
    with pytest.raises(ProbeError, match=r"19 groups of prompts are too few .*\(20 at least"):
        probes.plan(model(), alike, "length")
    plain = [interp.Prompt(p.text) for p in lists()]
    with pytest.raises(ProbeError, match="'correct' needs prompts that say expected, and none does"):
        probes.plan(model(), plain, "correct")


def test_a_plain_function_is_no_attribute_and_the_message_says_what_makes_it_one() -> None:
    def commas(answer: probes.Answer) -> int:
        return answer.text.count(",")

    for given, name in ((commas, "commas"), (None, "None"), (3, "3")):
        with pytest.raises(ProbeError, match=f"^{name} is no attribute: "):
            probes.plan(model(), lists(), given)  # type: ignore[arg-type]
    with pytest.raises(ProbeError, match=r"put @probes.attribute\('regression'\)"):
        probes.plan(model(), lists(), commas)  # type: ignore[arg-type]


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(ProbeError, match="it is a file; give another folder"):
        probes.plan(model(), lists(), "list_length", out=file, **QUICK)
    with pytest.raises(ProbeError, match="cannot write to .*below: Not a directory"):
        probes.plan(model(), lists(), "list_length", out=file / "below", **QUICK)
    assert file.read_text() == "mine"


def test_several_models_stand_in_one_table(tmp_path: Path) -> None:
    both = {"before": model(), "after": interp.load("organism:attacked")}
    found = probes.plan_models(both, lists(), "list_length", out=tmp_path, **(QUICK | {"segments": 0}))
    table = found.to_frame()
    assert table["model"].tolist() == ["before", "after"]
    assert (table["low"] <= table["value"]).all() and (table["value"] <= table["high"]).all()
    change = found.changes().iloc[0]
    assert change["low"] <= change["difference"] <= change["high"] and change["against"] == "before"
    assert (tmp_path / "after" / "plan.json").exists()
    lines = repr(found).splitlines()
    assert lines[0] == "PlanModels of list_length, 2 models" and f"after: {found.plans['after'].claim}" in lines[1]
    assert found.plot().data


def test_models_that_cannot_be_told_apart_are_refused() -> None:
    with pytest.raises(ModelError, match="give two or more"):
        probes.plan_models(["a"], lists(), "length")
    with pytest.raises(ModelError, match="as {name: model} if names repeat"):
        probes.plan_models(["a", "a"], lists(), "length")
    with pytest.raises(ModelError, match="would share a folder"):
        probes.plan_models({"a/b": "x", "a b": "y"}, lists(), "length", out="nowhere")
    assert PlanModels({}).plans == {}


def test_what_is_fitted_in_one_set_is_tested_in_another() -> None:
    """The second set asks in other words, and brings no split."""
    others = [interp.Prompt(p.text, group=p.group) for p in interp.prompts("organism:list").test[60:150]]
    second = probes.plan(model(), others, "list_length", **(QUICK | {"segments": 0}))
    moved = probes.plan_transfer({"lists": planned().examples, "others": second.examples})
    assert len(moved.to_frame()) >= 4
    assert len(repr(moved).splitlines()) == 2 and "Somers' D of probes fitted in one of lists, others" in repr(moved)


# --- steering ---


@cache
def steered() -> probes.PlanCausal:
    return probes.plan_causal(model(), planned(), **DOSED)


def test_steering_makes_lists_longer_and_random_directions_do_not() -> None:
    found = steered()
    assert found.holds and found.sentence.startswith("readable and causal")
    assert found.low > 1 and found.excess[1] > 0 and max(map(abs, found.random)) < found.effect
    assert found.choice["chosen"].sum() == 1 and found.layer in (2, 4)
    table = found.to_frame()
    assert sorted(set(table["dose"])) == [-4.0, -1.0, 0.0, 1.0, 4.0] and set(table["draw"]) == {0, 1}
    own = table[table["kind"] == "probe"].sort_values("dose")["value"].to_numpy()
    assert (np.diff(own) >= 0).all() and own[-1] > own[0] + 2
    assert table[table["dose"] == 0].groupby("kind")["value"].nunique().eq(1).all()
    assert found.plot().data


def test_what_steering_did_is_said_with_its_unit_and_the_range_of_the_controls() -> None:
    found = steered()
    assert not found.last and LAST not in found.sentence and repr(found).endswith(found.sentence)
    assert "4 standard deviations of the projection move mean list length by" in found.sentence
    assert "half the difference between +4 and -4" in found.sentence
    assert f"2 random directions of the same norm move it by {min(found.random):+.2f} to" in found.sentence
    classes = replace(found, kind="classes").sentence
    assert "move the share of answers with the list length steered to" in classes and "against no steering" in classes


def test_an_effect_of_the_last_layer_is_said_to_come_through_the_first_token() -> None:
    last = model().n_layers - 1
    found = probes.plan_causal(model(), planned(), **{**DOSED, "layers": (last,), "doses": (4.0,)})
    assert found.last and found.layer == last and found.holds
    assert found.sentence.startswith("readable and causal, through its first token alone: ")
    assert found.sentence.endswith(LAST)
    assert replace(found, holds=False).sentence.startswith("readable, not causal: ")


def test_the_smallest_dose_that_does_as_much_is_chosen_on_validation_prompts() -> None:
    def tried(layer: int, dose: float, effect: float, lost: float = 0.0) -> dict[str, float]:
        return {"layer": layer, "dose": dose, "effect": effect, "lost": lost}

    options = [tried(1, 1, 0.2), tried(1, 2, 0.95), tried(1, 4, 1.0), tried(2, 2, SAME), tried(2, 4, 9.0, lost=0.5)]
    assert _chosen(options, 2) is options[1]  # not the one that breaks answers, nor the strongest
    options[1]["effect"] = options[3]["effect"] = 0.5
    assert _chosen(options, 2) is options[2]
    nothing = [tried(layer, dose, 0.0) for layer in (1, 2) for dose in (1, 4)]
    assert _chosen(nothing, 2) is nothing[3]


def test_steering_repeats_by_its_seed() -> None:
    again = probes.plan_causal(model(), planned(), **DOSED)
    pd.testing.assert_frame_equal(again.table, steered().table)


def test_what_is_read_from_a_shuffled_label_moves_nothing() -> None:
    """A probe of noise: half the prompts by the parity of their length in letters."""
    own = probes.Attribute("parity", "classes", lambda a: probes.Found("odd" if len(a.prompt.text) % 2 else "even", 0))
    found = probes.plan(model(), lists(), own, **QUICK)
    moved = probes.plan_causal(model(), found, layers=(3,), doses=(2.0,), n_random=2, n_val=8, n_test=16)
    assert not moved.holds and moved.effect == 0 and moved.sentence.startswith("readable, not causal")


def test_the_pattern_is_what_one_standard_deviation_looks_like() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 3)) @ np.diag([1.0, 2.0, 0.5])
    weights = np.array([0.0, 1.0, 0.0])
    np.testing.assert_allclose(pattern(x, weights), [0, 2, 0], atol=0.1)
    assert not pattern(x, np.zeros(3)).any()


def test_an_effect_counts_what_was_lost() -> None:
    plain, up, down = np.array([0.0, 0, 1]), np.array([1.0, np.nan, 1]), np.array([0.0, 0, np.nan])
    assert effect(plain, {1.0: up}, 1.0, True).tolist() == [1, 0, 0]
    number = effect(plain, {1.0: up, -1.0: down}, 1.0, False)
    assert number[0] == 0.5 and np.isnan(number[1:]).all()


def test_doses_that_are_none_are_refused() -> None:
    for bad in ({"doses": ()}, {"doses": (0.0,)}, {"n_random": 1}):
        with pytest.raises(ProbeError, match="give doses above 0"):
            probes.plan_causal(model(), planned(), **bad)
    with pytest.raises(ProbeError, match="None is no plan: give what probes.plan"):
        probes.plan_causal(model(), None)  # type: ignore[arg-type]
