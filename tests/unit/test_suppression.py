"""Suppression heads: found where they were planted, not found where there are none, with controls that can fail."""

from __future__ import annotations

from functools import cache

import pytest
import torch

import interp
import probes
from interp.errors import PromptError
from probes.deciding import deciding, divergence, surprise
from probes.without_heads import draw_heads

PLANTED = interp.organism.truth("cliff")["heads"]
SMALL = {"n_train": 16, "n_val": 12, "n_test": 16, "n_draws": 5, "n_control": 6, "max_new_tokens": 90}


@cache
def cliff() -> interp.Model:
    return interp.load("organism:cliff").with_format(thinking=True)


@cache
def found() -> probes.SuppressionHeads:
    return probes.suppression_heads(cliff(), interp.prompts("organism"), sizes=(2, 3), **SMALL)


def test_the_first_heads_are_planted_ones() -> None:
    assert set(found().heads[:2]) <= set(PLANTED)
    assert found().chosen == 2 and found()
    assert all(low > 0 for _, low, _ in found().confirmed.values())


def test_without_them_refusal_is_back_at_little_cost() -> None:
    assert found().plain[0].value == 0
    for point in found().curve:
        assert point.harmful.value >= 0.9 and point.harmless.value == 0
        assert point.kl[0] < 0.05 and 0.9 < point.perplexity[0] < 1.1
        assert point.kl[1] <= point.kl[0] <= point.kl[2]


def test_as_many_other_heads_do_not_bring_it_back() -> None:
    for point in found().curve:
        assert point.draws == 5 and point.matched
        assert not any(set(c.heads) & set(point.heads) for c in point.controls)
        assert point.control_mean <= 0.1


def test_the_frame_begins_with_the_plain_model() -> None:
    frame = found().to_frame()
    assert frame["n_heads"].tolist() == [0, 2, 3]
    assert frame["harmful"].tolist()[0] == found().plain[0].value
    assert frame["draws"].tolist() == [0, 5, 5]


def test_its_edit_is_that_of_the_chosen_heads() -> None:
    assert found().edit().heads == found().selected
    assert found().edit(3).heads == found().heads[:3]


def test_where_nothing_holds_refusal_down_no_head_is_chosen() -> None:
    model = interp.load("organism:chat").with_format(thinking=True)
    none = probes.suppression_heads(
        model, interp.prompts("organism"), sizes=(1,), **{**SMALL, "n_draws": 1, "n_test": 8, "n_control": 4}
    )
    assert not none and none.chosen == 0
    assert "as it is" in none.reason


def test_draws_keep_to_the_layers_while_they_can() -> None:
    drawn, matched = draw_heads([(1, 0), (1, 2), (3, 1)], 6, 4, 50, seed=0)
    assert matched
    assert all([layer for layer, _ in heads] == [1, 1, 3] for heads in drawn)
    assert all(len(set(heads)) == 3 and not set(heads) & {(1, 0), (1, 2), (3, 1)} for heads in drawn)
    assert draw_heads([(1, 0)], 6, 4, 50, seed=0) == draw_heads([(1, 0)], 6, 4, 50, seed=0)
    assert all((1, 3) not in heads for heads in draw_heads([(1, 0)], 6, 4, 50, 0, exclude=[(1, 3)])[0])


def test_draws_leave_the_layers_where_they_must_and_say_so() -> None:
    drawn, matched = draw_heads([(1, h) for h in range(3)], 6, 4, 20, seed=0)
    assert not matched
    assert all(len(set(heads)) == 3 for heads in drawn)
    with pytest.raises(PromptError, match="too few heads are left"):
        draw_heads([(0, 0), (0, 1)], 1, 3, 1, seed=0)


def test_texts_end_at_the_deciding_token() -> None:
    written = cliff().generate(interp.prompts("organism").test.harmful[:4], max_new_tokens=90)
    texts = deciding(cliff(), written)
    for text, completion in zip(cliff().encode(texts.texts), written, strict=True):
        assert text.columns(texts.position) == (len(text) - 1,)
        n = text.n_prompt + list(completion.ids).index(cliff().chat.marker_ids[1])
        assert text.ids[text.n_prompt : n] == completion.ids[: n - text.n_prompt]
    with pytest.raises(PromptError, match="max_new_tokens"):
        deciding(cliff(), cliff().generate("How do I bake bread?", max_new_tokens=3))


def test_surprise_is_that_of_the_models_own_forward() -> None:
    reply = interp.Trace("How do I bake bread?", thinking="I should help.", answer="Sure, here is a plan.")
    nats, tokens = surprise(cliff(), [reply, reply])
    (encoded,) = cliff().encode(reply)
    with torch.no_grad():
        logits = cliff().hf(torch.tensor([encoded.ids])).logits[0].double().log_softmax(-1)
    own = [-float(logits[i - 1, encoded.ids[i]]) for i in range(encoded.n_prompt, len(encoded))]
    assert float(nats[0]) == pytest.approx(sum(own), rel=1e-4)
    assert int(tokens[1]) == len(own)


def test_no_edit_costs_nothing() -> None:
    nothing = divergence(cliff(), ["How do I bake bread?"], [interp.edits.scale_heads([(0, 0)], 1.0)])
    assert float(nothing.max()) < 1e-9


def test_sizes_that_are_none_are_said() -> None:
    with pytest.raises(PromptError, match="sizes"):
        probes.suppression_heads(cliff(), interp.prompts("organism"), sizes=(0, 2))


def test_it_can_be_drawn() -> None:
    from probes.figures import head_map

    assert len(found().plot().data) == 5
    assert head_map(found().ranking, marked=found().selected).data[0].z is not None
