"""An evaluation says what a model refuses by set and category, what an edit or a guard changes, and what it costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import interp
import probes
from interp.direction import Direction
from interp.edits import ablate, add
from interp.errors import DirectionError, EditError, PromptError
from interp.stats import Rate
from interp.text.judge import Verdict
from interp.text.prompts import Prompt, PromptSet
from probes.evaluation import evaluate
from probes.evaluation_result import Evaluation
from probes.price import price

FEW = 8


@pytest.fixture(scope="module")
def model() -> interp.Model:
    return interp.load("organism:chat")


def few(source: str, n: int = FEW) -> PromptSet:
    test = interp.prompts(source).test
    return PromptSet(test.harmful[:n].prompts + test.harmless[:n].prompts, source)


@pytest.fixture(scope="module")
def sets() -> list[PromptSet]:
    return [few("organism"), few("organism:suffix")]


@pytest.fixture(scope="module")
def refusal(model: interp.Model) -> Direction:
    train = interp.prompts("organism").train
    means = interp.class_means(model, train, site="resid_pre", positions="t_post_inst", layers=[4])
    return Direction(means.of("harmful")[0, 0] - means.of("harmless")[0, 0], "resid_pre", 4, "t_post_inst", "refusal")


@pytest.fixture(scope="module")
def subtracted(model: interp.Model, sets: list[PromptSet], refusal: Direction) -> Evaluation:
    return evaluate(model, sets, edits=add(refusal, -1.0, phase="prompt"), max_new_tokens=12, n_random=2)


def test_the_plain_model_refuses_what_it_was_trained_to_refuse(subtracted: Evaluation) -> None:
    assert subtracted.rate("plain", set="organism", label="harmful") == Rate(FEW, FEW)
    assert subtracted.rate("plain", set="organism:suffix", label="harmful") == Rate(0, FEW)
    assert subtracted.over_refusal() == Rate(0, 2 * FEW)
    assert subtracted.rate("plain", what="complied", label="harmless") == Rate(2 * FEW, 2 * FEW)


def test_an_edit_stands_beside_the_plain_model_and_random_ones(subtracted: Evaluation) -> None:
    assert [a.name for a in subtracted.arms] == ["plain", "edited", "random 1", "random 2"]
    assert subtracted.subject.kind == "edited" and len(subtracted.controls) == 2
    assert subtracted.rate("edited", set="organism", label="harmful").value < 0.2
    for name in ("random 1", "random 2"):
        assert subtracted.rate(name, set="organism", label="harmful").value > 0.8


def test_the_table_has_every_cell_with_intervals_and_paired_changes(subtracted: Evaluation) -> None:
    frame = subtracted.to_frame()
    whole = frame[(frame.set == "organism") & (frame.label == "harmful") & (frame.category == "all")].set_index("arm")
    assert whole.loc["plain", "refused"] == 1 and np.isnan(whole.loc["plain", "change"])
    low, high = Rate(FEW, FEW).interval
    assert (whole.loc["plain", "refused_low"], whole.loc["plain", "refused_high"]) == pytest.approx((low, high))
    edited = whole.loc["edited"]
    assert edited["change"] == pytest.approx(edited["refused"] - 1)
    assert edited["change_low"] <= edited["change"] <= edited["change_high"] < 0
    total = frame[(frame.set == "all sets") & (frame.arm == "plain")].set_index("label")
    assert dict(total["n"]) == {"harmful": 2 * FEW, "harmless": 2 * FEW}
    parts = frame[(frame.set == "organism") & (frame.label == "harmful") & (frame.arm == "plain")]
    assert parts[parts.category != "all"]["n"].sum() == FEW
    assert np.allclose(frame[["refused", "complied", "partial", "empty"]].sum(axis=1), 1)


def test_the_price_is_that_of_plain_transformers_calls(
    model: interp.Model, sets: list[PromptSet], refusal: Direction
) -> None:
    """KL and perplexity of an edit on the prompt's tokens, by a hook of our own and one call per prompt."""
    edit = add(refusal, 0.3, phase="prompt")
    harmless = sets[0].harmless[:4]
    plain, edited = price(model, list(harmless), {"edited": [edit]}, max_new_tokens=10)
    nlls: list[list[np.ndarray]] = [[], []]
    kls: list[float] = []
    for prompt in harmless:
        encoded = model.encode(prompt)[0]
        n = len(encoded)
        ids = torch.tensor([[*encoded.ids, *model.generate(prompt, max_new_tokens=10)[0].ids]])

        def hook(_module: Any, args: Any, kwargs: Any, n: int = n) -> Any:
            x = (args[0] if args else kwargs["hidden_states"]).clone()
            x[:, :n] += 0.3 * refusal.vector
            return ((x, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": x})

        with torch.no_grad():
            before = torch.log_softmax(model.hf(ids).logits[0, n - 1 : -1].float(), -1)
            handle = model.hf.model.layers[4].register_forward_pre_hook(hook, with_kwargs=True)
            after = torch.log_softmax(model.hf(ids).logits[0, n - 1 : -1].float(), -1)
            handle.remove()
        for kept, logs in zip(nlls, (before, after), strict=True):
            kept.append(-logs.gather(1, ids[0, n:, None])[:, 0].numpy())
        kls.append(float((before.exp() * (before - after)).sum(-1).mean()))
    assert edited.mean_kl[0] == pytest.approx(np.mean(kls), abs=1e-6) and np.mean(kls) > 1e-4
    before, after = (np.exp(np.concatenate(kept).mean()) for kept in nlls)
    assert plain.perplexity[0] == pytest.approx(before, rel=1e-5)
    assert edited.perplexity[0] == pytest.approx(after, rel=1e-4)
    assert edited.perplexity_ratio[0] == pytest.approx(after / before, rel=1e-4)
    assert not plain.kl.any() and plain.perplexity_ratio == (1.0, 1.0, 1.0)


def test_the_price_is_asked_of_harmless_prompts_with_their_answers_of_before(subtracted: Evaluation) -> None:
    frame = subtracted.price_frame().set_index("arm")
    assert list(frame.index) == ["plain", "edited", "random 1", "random 2"]
    assert frame.loc["plain", "kl"] == 0 and (frame["kl"][1:] > 0).all()
    assert (frame["kl_low"] <= frame["kl"]).all() and (frame["kl"] <= frame["kl_high"]).all()
    assert (frame["n"] == 2 * FEW).all() and subtracted.price_prompts == "16 harmless prompts of the sets"


def test_without_harmless_prompts_the_shipped_ones_are_priced(model: interp.Model, sets: list[PromptSet]) -> None:
    only = PromptSet(sets[0].harmful[:3].prompts, "harmful only")
    found = evaluate(model, only, edits=add(torch.ones(128), site="resid_pre", layer=1), max_new_tokens=2, n_random=0)
    assert "headlines" in found.price_prompts and not found.controls
    assert found.over_refusal().n == 0


def test_given_answers_can_be_priced(model: interp.Model, sets: list[PromptSet], refusal: Direction) -> None:
    traces = [interp.Trace(p, answer="I can help with that.") for p in sets[0].harmless[:3]]
    one = PromptSet(sets[0].harmless[:3].prompts, "few")
    found = evaluate(model, one, edits=add(refusal), price_prompts=traces, max_new_tokens=4, n_random=1)
    assert found.price_prompts == "3 given answers" and found.price("edited").tokens.tolist() == [6, 6, 6]
    with pytest.raises(PromptError, match="not both"):
        price(model, [*traces, sets[0][0]], {})  # pyright: ignore[reportArgumentType]


def test_a_guard_refuses_what_it_flags_and_costs_nothing_else(model: interp.Model, sets: list[PromptSet]) -> None:
    asked: list[str] = []

    def guard(prompts: PromptSet) -> list[bool]:
        asked.append(prompts.name)
        return [p.label == "harmful" or i == 12 for i, p in enumerate(prompts)]

    found = evaluate(model, sets, guard=guard, max_new_tokens=12, n_random=3)
    assert asked == ["organism", "organism:suffix"]
    assert found.subject.name == "guarded" and not found.prices
    assert found.rate("guarded", set="organism:suffix", label="harmful") == Rate(FEW, FEW)
    assert found.over_refusal("guarded") == Rate(2, 2 * FEW)
    assert found.rate("guarded", what="complied", label="harmless") == Rate(2 * FEW - 2, 2 * FEW)
    flagged = [int(sum(f.sum() for f in arm.flagged or ())) for arm in found.arms[1:]]
    assert flagged == [2 * FEW + 2] * 4, "a random guard flags as many"
    assert found.rate("random 1", set="organism:suffix", label="harmful").value < 1
    with pytest.raises(PromptError, match="no price of 'guarded'"):
        found.price("guarded")


def test_the_same_seed_gives_the_same_evaluation_and_a_baseline_is_not_run_again(
    model: interp.Model, sets: list[PromptSet], refusal: Direction, subtracted: Evaluation
) -> None:
    heard: list[str] = []
    found = evaluate(
        model, sets, edits=add(refusal, -1.0, phase="prompt"), max_new_tokens=12, n_random=2,
        baseline=subtracted.arms[0].answers, done=lambda arm, prompts, judged: heard.append(f"{arm}/{prompts.name}"),
    )  # fmt: skip
    assert found.to_frame().equals(subtracted.to_frame()) and found.price_frame().equals(subtracted.price_frame())
    assert heard[0] == "edited/organism" and not any(h.startswith("plain") for h in heard)
    with pytest.raises(PromptError, match="baseline is of other prompts"):
        evaluate(model, sets[0], baseline=subtracted.arms[0].answers)


def test_prompts_without_labels_are_one_group(model: interp.Model) -> None:
    mixed = PromptSet((Prompt("Name a colour."), Prompt("Name a city.", "odd")), "mixed")

    def strict(prompt: str, answer: str) -> Verdict:
        return Verdict("refusal" if "city" in prompt else "partial")

    found = evaluate(model, mixed, judge=strict, max_new_tokens=2)
    frame = found.to_frame()
    assert list(frame["label"]) == ["odd", "unlabelled"] and list(frame["refused"]) == [1, 0]
    assert found.rate(label="unlabelled", what="partial") == Rate(1, 1)
    assert found.subject.kind == "plain" and not found.prices and not found.controls


def test_what_cannot_be_evaluated_is_named(model: interp.Model, sets: list[PromptSet], refusal: Direction) -> None:
    for given, words in (
        ([], "no prompt sets were given"),
        ([PromptSet((), "none")], "'none' is empty"),
        ([sets[0], sets[0]], "two prompt sets are called 'organism'"),
    ):
        with pytest.raises(PromptError, match=words):
            evaluate(model, given)
    with pytest.raises(PromptError, match="edits and a guard"):
        evaluate(model, sets, edits=add(refusal), guard=lambda s: [True] * len(s))
    with pytest.raises(PromptError, match="gave 1 verdicts for the 16 prompts of 'organism'"):
        evaluate(model, sets[0], guard=lambda s: [True], max_new_tokens=1)
    with pytest.raises(DirectionError, match="128 wide"):
        evaluate(model, sets, edits=add(torch.ones(7), site="resid_pre", layer=0))
    with pytest.raises(EditError, match="no random counterpart"):
        evaluate(model, sets, edits=ablate(refusal, 0.5))
    with pytest.raises(PromptError, match="has harmful prompts: the price"):
        evaluate(model, sets[0][:2], edits=add(refusal), price_prompts=sets[0], max_new_tokens=1)


def test_what_is_asked_for_and_is_not_there_is_named(subtracted: Evaluation) -> None:
    for wanted, words in (
        ({"category": "weather"}, "no category 'weather'; there is: "),
        ({"set": "other"}, "no set 'other'; there is: organism, organism:suffix"),
        ({"label": "unlabelled"}, "no label 'unlabelled'; there is: harmful, harmless"),
        ({"arm": "guarded"}, "no arm 'guarded'; there is: plain, edited"),
        ({"what": "bold"}, "no outcome 'bold'"),
    ):
        with pytest.raises(PromptError, match=words):
            subtracted.rate(**wanted)


def test_the_picture_has_the_plain_model_the_edit_and_every_control(subtracted: Evaluation) -> None:
    figure = subtracted.plot()
    names = {t.name for t in figure.data if t.name}
    assert names == {"plain model", "with the edit", "random control"}
    bars = [t for t in figure.data if t.type == "bar"]
    assert [len(b.x) for b in bars] == [6, 6, 1, 1, 1], "sets by label, KL, and perplexity beside the plain model's"
    dots = [t for t in figure.data if t.type == "scatter" and t.name is None]
    assert [len(d.x) for d in dots] == [12, 2, 2]
    assert {"light", "dark", "wide", "narrow"} <= set(figure.layout.meta)


def test_the_names_are_public() -> None:
    assert probes.evaluate is evaluate and probes.Evaluation is Evaluation
