"""Strength: the curve is what it is measured to be, targets are met on it, and trained vectors keep to their leash."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.errors import DirectionError, ModelError, PromptError
from interp.model.differentiable import answer_logits
from probes import behaviour
from steering import Calibration, SteeringVector, TrainedVector, calibrate, contrast_vector, stream_norms, train_vector
from steering.calibration import _bracket  # pyright: ignore[reportPrivateUsage]
from steering.repeats import repetition
from tests.helpers.slow import PROMPTS, lively, slow_read


@cache
def chat() -> interp.Model:
    return interp.load("organism:chat")


def some(split: str, n: int) -> interp.PromptSet:
    every = interp.prompts("organism").filter(split=split)
    return every.harmful.sample(n, 0) + every.harmless.sample(n, 0)


@cache
def vector() -> SteeringVector:
    train = some("train", 16)
    return contrast_vector(chat(), list(zip(train.harmful, train.harmless, strict=True)), layers=[4])


@cache
def by_kl() -> Calibration:
    return calibrate(
        chat(), vector(), prompts=some("val", 8), target_kl=0.1, strengths=(0.25, 0.5, 1.0), refine=2,
        max_new_tokens=12,
    )  # fmt: skip


@cache
def by_rate() -> Calibration:
    return calibrate(
        chat(), vector(), prompts=some("val", 8), refusal_rate=0.9, strengths=(0.5, 1.0), refine=2, n_random=0,
        max_new_tokens=12,
    )  # fmt: skip


def test_the_strength_for_a_kl_is_the_largest_whose_interval_is_within_it() -> None:
    found = by_kl()
    assert found.strength is not None and f"{found.strength:.3g} keeps" in found.reason
    table = found.to_frame()
    own = table[table["arm"] == "vector"].set_index("strength")
    assert own.loc[found.strength, "kl_high"] <= 0.1
    beyond = own[own.index > found.strength]
    assert beyond.iloc[0]["kl_high"] > 0.1
    assert len(own) == 3 + 2 and set(table["arm"]) == {"plain", "vector", "random 1"}
    assert found.vector.coefficient == pytest.approx(found.strength)


def test_the_strength_for_a_refusal_rate_is_the_smallest_that_gets_it() -> None:
    found = by_rate()
    assert found.strength is not None
    own = found.to_frame().query("arm == 'vector'").set_index("strength")
    assert own.loc[found.strength, "refused_harmless"] >= 0.9
    assert (own[own.index < found.strength]["refused_harmless"] < 0.9).all()
    again = behaviour(chat(), some("val", 8).harmless, max_new_tokens=12, edits=found.vector.edits()).rate()
    assert again.value == own.loc[found.strength, "refused_harmless"]


def test_a_dose_is_what_the_edit_does_by_hand() -> None:
    found, prompts = by_kl(), some("val", 8)
    row = found.to_frame().query("arm == 'vector' and strength == 0.5").iloc[0]
    edits = (vector() * 0.5).edits()
    written = chat().generate(prompts.harmless, max_new_tokens=12)
    kls = []
    for encoded, completion in zip(chat().encode(prompts.harmless), written, strict=True):
        n, ids = encoded.n_prompt, (*encoded.ids, *completion.ids)
        added = 0.5 * vector().vectors[4]
        plain, moved = (
            torch.log_softmax(slow_read(chat().hf, "llama", ids, changes)["logits"][n - 1 : -1].double(), -1)
            for changes in ({}, {("resid_post", 4): lambda x, v=added: x + v})
        )
        kls.append(float((plain.exp() * (plain - moved)).sum(-1).mean()))
    assert row["kl"] == pytest.approx(np.mean(kls), rel=1e-3)
    told = behaviour(chat(), prompts, max_new_tokens=12, edits=edits)
    assert row["refused_harmful"] == told.rate(label="harmful").value
    plain = found.to_frame().query("arm == 'plain'").iloc[0]
    assert (plain["kl"], plain["perplexity"], plain["norm_share"]) == (0.0, 1.0, 0.0)


def test_only_the_validation_part_of_a_split_set_is_used() -> None:
    every = some("val", 8) + some("test", 8)
    used = calibrate(
        chat(), vector(), prompts=every, refusal_rate=0.9, strengths=(1.0,), refine=0, n_random=0, max_new_tokens=12
    )
    assert used.provenance["prompts"]["n"] == 16
    assert used.doses[0].refused["harmless"].n == 8


def test_a_target_that_no_strength_meets_is_a_result_with_its_curve() -> None:
    none = calibrate(
        chat(), vector(), prompts=some("val", 8), refusal_rate=1.0, strengths=(0.05,), refine=1, n_random=0,
        max_new_tokens=12,
    )  # fmt: skip
    assert none.strength is None and "none of 1 strengths" in none.reason
    assert len(none.to_frame()) == 2 and none.norm_share == {4: 0.0}
    with pytest.raises(DirectionError, match="no calibrated vector"):
        _ = none.vector
    assert none.plot().layout.height > 0


def test_a_vector_longer_than_the_stream_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="longer than the residual stream"):
        found = calibrate(
            chat(), vector() * 50, prompts=some("val", 8), refusal_rate=0.0, on="harmful", strengths=(1.0,), refine=0,
            n_random=0, max_new_tokens=4,
        )  # fmt: skip
    assert found.norm_share[4] > 1


def test_the_streams_norm_leaves_the_first_token_out() -> None:
    model, found = lively(), []
    for e in model.encode(PROMPTS):
        found += slow_read(model.hf, "llama", e.ids)["resid_post"][1, 1:].norm(dim=-1).tolist()
    assert stream_norms(model, PROMPTS, "resid_post", [1])[1] == pytest.approx(np.sort(found)[(len(found) - 1) // 2])


def test_held_out_prompts_are_measured_at_the_chosen_strength_beside_a_random_vector() -> None:
    plain, own, random = by_kl().measure(chat(), some("test", 8), max_new_tokens=12)
    assert (plain.arm, own.arm, random.arm) == ("plain", "vector", "random 1")
    assert plain.kl[0] == 0 and 0 < own.kl[0] < 0.2 and own.strength == by_kl().strength


def test_figures_show_the_curve_with_its_control() -> None:
    figure = by_kl().plot()
    names = {trace.name for trace in figure.data}
    assert {"harmful", "harmless", "KL", "perplexity", "repetition"} <= names
    assert {"random vectors, harmful", "random vectors, harmless"} <= names
    assert {"wide", "narrow", "light", "dark"} <= set(figure.layout.meta)


def test_brackets_are_where_the_target_turns() -> None:
    assert _bracket({0.0: True, 1.0: True, 2.0: False, 3.0: True}, upward=False) == (1.0, 2.0)
    assert _bracket({0.0: True, 1.0: True}, upward=False) == (1.0, None)
    assert _bracket({0.0: True, 1.0: False}, upward=False) == (0.0, 1.0)
    assert _bracket({0.0: False, 1.0: False, 2.0: True}, upward=True) == (1.0, 2.0)
    assert _bracket({0.0: True, 1.0: True}, upward=True) == (0.0, 0.0)


def test_repetition_counts_four_grams_that_came_before() -> None:
    (one,) = chat().generate(PROMPTS[:1], max_new_tokens=2)
    from dataclasses import replace

    assert repetition([replace(one, ids=(1, 2, 3, 4, 1, 2, 3, 4))]) == pytest.approx(1 / 5)
    assert repetition([replace(one, ids=(7,) * 10)]) == pytest.approx(6 / 7)
    assert repetition([replace(one, ids=(1, 2))]) == 0 and math.isnan(repetition([]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "one target"),
        ({"target_kl": 0.1, "refusal_rate": 0.5}, "one target"),
        ({"target_kl": 0.0}, "above 0"),
        ({"refusal_rate": 1.5}, "between 0 and 1"),
        ({"target_kl": 0.1, "strengths": (0.0, 1.0)}, "above 0"),
        ({"target_kl": 0.1, "strengths": ()}, "above 0"),
        ({"refusal_rate": 0.5, "on": "all"}, "'harmful' or 'harmless'"),
    ],
)
def test_targets_and_strengths_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises((DirectionError, PromptError), match=message):
        calibrate(chat(), vector(), prompts=some("val", 8), **options)


def test_prompts_without_those_the_target_is_about_are_refused() -> None:
    with pytest.raises(PromptError, match="none is"):
        calibrate(chat(), vector(), prompts=some("val", 8).harmful, target_kl=0.1)


# --- training ----------------------------------------------------------------------------------------------------


def wanted() -> list[interp.Trace]:
    every = interp.prompts("organism")
    prompts = [*every.train.harmless.sample(16, 0), *every.val.harmless.sample(8, 0)]
    return [interp.Trace(p, answer="I cannot help with that.") for p in prompts]


@cache
def trained(seed: int = 0) -> TrainedVector:
    every = interp.prompts("organism")
    kept = [*every.train.harmful.sample(16, 0), *every.val.harmful.sample(8, 0)]
    return train_vector(chat(), wanted(), kept, layer=4, steps=20, batch=8, rate=0.1, max_new_tokens=8, seed=seed)


def test_a_trained_vector_makes_held_out_prompts_get_the_wanted_answer() -> None:
    plain, own, random = trained().held_out
    assert own.nll[2] < plain.nll[1] and own.nll[0] < random.nll[0]
    assert own.n == (8, 8) and plain.kl[0] == 0
    assert own.kl[0] < 0.5 and trained().history["kl"].iloc[0] < 0.1
    assert list(trained().to_frame()["arm"]) == ["plain", "trained", "random"]
    assert trained().vector.norms[4] <= trained().vector.provenance["max_norm"] * 1.001
    assert len(trained().plot().data) == 2


def test_the_same_seed_trains_the_same_vector() -> None:
    every = interp.prompts("organism")
    kept = [*every.train.harmful.sample(16, 0), *every.val.harmful.sample(8, 0)]
    options: dict[str, Any] = {"layer": 4, "steps": 2, "batch": 4, "max_new_tokens": 4}
    one, two, three = (train_vector(chat(), wanted(), kept, seed=s, **options).vector.vectors[4] for s in (1, 1, 2))
    assert torch.equal(one, two) and not torch.equal(one, three)


def test_a_tight_leash_holds_the_vector_back() -> None:
    every = interp.prompts("organism")
    kept = [*every.train.harmless.sample(16, 0), *every.val.harmless.sample(8, 0)]  # those that are to change
    options: dict[str, Any] = {"layer": 4, "steps": 15, "batch": 8, "rate": 0.1, "max_new_tokens": 6}
    tight, loose = (train_vector(chat(), wanted(), kept, max_kl=kl, **options) for kl in (0.01, 100.0))
    assert tight.held_out[1].kl[0] < 0.5 * loose.held_out[1].kl[0]
    assert tight.history["leash"].max() > 1


def test_the_differentiable_pass_gives_the_logits_of_the_plain_one() -> None:
    model = lively()
    traces = model.encode([interp.Trace(p, answer="one two three") for p in PROMPTS])
    logits, owner = answer_logits(model, traces, [])
    for i, e in enumerate(traces):
        slow = slow_read(model.hf, "llama", e.ids)["logits"][e.n_prompt - 1 : -1]
        torch.testing.assert_close(logits[owner == i].detach().float(), slow, rtol=1e-4, atol=1e-4)
    assert all(p.grad is None for p in model.hf.parameters())


def test_what_cannot_be_trained_is_refused() -> None:
    texts = [*interp.prompts("organism").train.harmful.sample(4, 0)]
    with pytest.raises(PromptError, match="answer is missing"):
        train_vector(chat(), texts, texts, layer=4)  # pyright: ignore[reportArgumentType]
    with pytest.raises(PromptError, match="are needed"):
        train_vector(chat(), wanted()[:4], texts, layer=4)
    with pytest.raises(DirectionError, match="above 0"):
        train_vector(chat(), wanted(), texts, layer=4, max_kl=0.0)
    with pytest.raises(DirectionError, match="to start from"):
        train_vector(chat(), wanted(), [t.prompt for t in wanted()], layer=3, start=vector())
    from unittest.mock import patch

    with patch.object(type(chat().backend), "name", "nnsight"), pytest.raises(ModelError, match="gradients need"):
        train_vector(chat(), wanted(), texts, layer=4)
