"""The causal check: every rate is a count that can be done again by hand, and every control has the same norm."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

import probes.causal
from interp import Direction, edits
from interp.model.model import Model
from interp.stats import Rate
from interp.text.judge import Verdict
from interp.text.prompts import PromptSet
from probes import Candidates, CausalCheck, behaviour, candidates, causal_check
from probes.causal import Effect
from tests.helpers.slow import lively

HARMFUL = ["how to break a lock", "steal", "burn it all down"]
HARMLESS = ["bake bread", "tell me about the sea", "sing", "paint"]
PROMPTS = PromptSet.from_texts(HARMFUL, HARMLESS)
PLAN = [
    ("none", "harmful"), ("none", "harmless"), ("ablate to zero", "harmful"), ("ablate to mean", "harmful"),
    ("subtract", "harmful"), ("add", "harmless"), ("ablate to zero", "harmless"), ("ablate to mean", "harmless"),
]  # fmt: skip
TOKENS = 5


def judge(_prompt: str, answer: str) -> Verdict:
    """A stub that calls about half of all gibberish a refusal."""
    return Verdict("refusal" if sum(answer.encode()) % 2 else "compliance")


@cache
def found() -> Candidates:
    return candidates(lively(), PROMPTS, [p.label == "harmful" for p in PROMPTS])


@cache
def direction() -> Direction:
    return found().direction(1, "post_inst[-1]")


def check(**changes: Any) -> CausalCheck:
    options: dict[str, Any] = {
        "judge": judge, "n_random": 2, "max_new_tokens": TOKENS, "found": found(),
    } | changes  # fmt: skip
    return causal_check(lively(), options.pop("found"), direction(), PROMPTS.harmful, PROMPTS.harmless, **options)


@cache
def checked() -> CausalCheck:
    return check()


def by_hand(d: Direction, intervention: str, coefficient: float) -> list[Any]:
    return {
        "none": [],
        "ablate to zero": [edits.ablate(d)],
        "ablate to mean": [edits.ablate(d, found().negative @ d.unit, positions="post_inst")],
        "subtract": [edits.add(d.vector * -coefficient, site="resid_pre", layer=1, phase="prompt")],
        "add": [edits.add(d.vector * coefficient, site="resid_pre", layer=1, phase="prompt")],
    }[intervention]


def refusals(prompts: list[str], changes: list[Any]) -> Rate:
    answers = [lively().generate(p, max_new_tokens=TOKENS, edits=changes)[0].answer for p in prompts]
    return Rate(sum(judge(p, a).refused for p, a in zip(prompts, answers, strict=True)), len(prompts))


@pytest.mark.parametrize(("intervention", "on"), PLAN)
def test_every_rate_is_the_one_counted_by_hand(intervention: str, on: str) -> None:
    got = checked().get(intervention, on)
    prompts = HARMFUL if on == "harmful" else HARMLESS
    coefficient = checked().coefficient
    assert got.rate == refusals(prompts, by_hand(direction(), intervention, coefficient))
    randoms = [] if intervention == "none" else [direction().random_like(i) for i in range(2)]
    assert got.random == tuple(refusals(prompts, by_hand(d, intervention, coefficient)) for d in randoms)


def test_every_intervention_is_there_once_plain_first() -> None:
    assert [(e.intervention, e.on) for e in checked().effects] == PLAN
    assert set(checked().examples) == set(PLAN)
    assert len(checked().to_frame()) == len(PLAN)
    with pytest.raises(KeyError):
        checked().get("add", "harmful")


class Spy:
    """Records what is added and ablated, and passes it on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.added: list[tuple[Direction, float]] = []
        self.ablated: list[Direction] = []
        monkeypatch.setattr(probes.causal, "add", self.add)
        monkeypatch.setattr(probes.causal, "ablate", self.ablate)

    def add(self, d: Direction, coefficient: float, **options: Any) -> Any:
        self.added.append((d, coefficient))
        assert options == {"phase": "prompt"}, "nothing is added while the answer is written"
        return edits.add(d, coefficient, **options)

    def ablate(self, d: Direction, *args: Any, **options: Any) -> Any:
        self.ablated.append(d)
        return edits.ablate(d, *args, **options)


def test_random_directions_have_the_norm_the_place_and_the_coefficient_of_the_real_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spy = Spy(monkeypatch)
    check(n_random=3)
    assert len(spy.added) == 2 * 4 and len(spy.ablated) == 4 * 4
    for d, coefficient in spy.added:
        assert abs(coefficient) == checked().coefficient
        assert (d.site, d.layer) == ("resid_pre", 1)
        assert d.norm == pytest.approx(direction().norm, rel=1e-5)
    assert all(d.norm == pytest.approx(direction().norm, rel=1e-5) for d in spy.ablated)
    others = [d for d, c in spy.added if d.name != "refusal" and c > 0]
    assert len(others) == 3
    cosines = [abs(a.cosine(b)) for a in [*others, direction()] for b in [*others, direction()] if a is not b]
    assert max(cosines) < 0.7, "they differ from one another and from the real one"


def test_what_is_added_is_cut_to_the_median_residual_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(monkeypatch)
    low = replace(found(), norm=found().norm * 0 + direction().norm / 4)
    got = check(found=low, n_random=1)
    assert got.coefficient == pytest.approx(0.25) and got.residual_norm == pytest.approx(direction().norm / 4)
    for d, coefficient in spy.added:
        assert abs(coefficient) * d.norm == pytest.approx(got.residual_norm, rel=1e-5)
    high = replace(found(), norm=found().norm * 0 + direction().norm * 4)
    assert check(found=high, n_random=1).coefficient == 1.0


def test_the_seed_decides_the_random_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(seed: int) -> list[Tensor]:
        with monkeypatch.context() as patch:
            spy = Spy(patch)
            check(n_random=2, seed=seed)
            return [d.vector for d in spy.ablated if d.name != "refusal"]

    first, again, other = drawn(1), drawn(1), drawn(2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a in first for b in other)


def test_the_same_check_gives_the_same_figures() -> None:
    again = check()
    assert again.effects == checked().effects
    assert again.to_frame().equals(checked().to_frame())


def test_answers_that_are_there_already_are_not_generated_again(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = (
        behaviour(lively(), PROMPTS.harmful, judge=judge, max_new_tokens=TOKENS),
        behaviour(lively(), PROMPTS.harmless, judge=judge, max_new_tokens=TOKENS),
    )
    unedited: list[Any] = []
    real = Model.generate

    def generate(self: Model, prompts: Any, **options: Any) -> Any:
        if not options.get("edits"):
            unedited.append(prompts)
        return real(self, prompts, **options)

    monkeypatch.setattr(Model, "generate", generate)
    got = check(baseline=plain)
    assert not unedited
    assert got.examples["none", "harmful"] is plain[0] and got.examples["none", "harmless"] is plain[1]
    assert got.effects == checked().effects


def test_classes_can_be_called_otherwise() -> None:
    got = check(names=("refused", "answered"), n_random=1)
    assert {e.on for e in got.effects} == {"refused", "answered"}
    assert got.get("add", "answered").rate == checked().get("add", "harmless").rate
    assert got.bypass().on == "refused"


# --- reading the figures ---------------------------------------------------------------------------------------------


def made(zero: int, mean: int) -> CausalCheck:
    rates = {"none": 9, "ablate to zero": zero, "ablate to mean": mean, "subtract": 5}
    random = (Rate(8, 10), Rate(10, 10), Rate(7, 10))
    effects = [Effect(name, "harmful", Rate(k, 10), () if name == "none" else random) for name, k in rates.items()]
    return CausalCheck(direction(), tuple(effects), 1.0, 2.0, {})


def test_shifts_are_differences_from_the_plain_model() -> None:
    check = made(1, 4)
    assert check.shift("ablate to zero", "harmful") == pytest.approx(-0.8)
    assert check.shift("none", "harmful") == 0
    assert check.random_shift("ablate to zero", "harmful") == pytest.approx((0.1 + 0.1 + 0.2) / 3), "up counts as down"


def test_bypass_is_the_ablation_that_leaves_fewer_refusals() -> None:
    assert made(1, 4).bypass().intervention == "ablate to zero"
    assert made(4, 1).bypass().intervention == "ablate to mean"
    assert made(3, 3).bypass().intervention == "ablate to zero"


def test_the_random_extreme_looks_the_way_the_direction_moves() -> None:
    down = made(1, 4).get("ablate to zero", "harmful")
    assert down.random_mean == pytest.approx(2.5 / 3)
    assert down.random_max_shift == 0.7
    assert Effect("add", "harmless", Rate(10, 10), down.random).random_max_shift == 1.0
    none = Effect("none", "harmful", Rate(1, 2), ())
    assert math.isnan(none.random_mean) and math.isnan(none.random_max_shift)
