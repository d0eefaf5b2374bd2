"""Steering vectors: geometry, where they come from, what else they can do, and conditions from guards and probes."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import interp
from interp import Direction
from interp.activations.activations import Activations
from interp.errors import DirectionError, EditError, ModelError, ProbeError, PromptError
from probes import LatentGuard, LogisticProbe, MeanDifference, behaviour
from steering import (
    SteeringVector,
    ablation,
    contrast_vector,
    if_guard,
    if_probe,
    if_projection,
    if_stream_guard,
    mean_projection,
    rotation,
    steer_when,
    token_id,
)
from tests.helpers.slow import PROMPTS, lively, slow_read


@cache
def chat() -> interp.Model:
    return interp.load("organism:chat")


@cache
def prompts() -> interp.PromptSet:
    every = interp.prompts("organism")
    return every.train.harmful.sample(24, 0) + every.train.harmless.sample(24, 0)


@cache
def held_out() -> interp.PromptSet:
    every = interp.prompts("organism").test
    return every.harmful.sample(12, 0) + every.harmless.sample(12, 0)


@cache
def contrast() -> SteeringVector:
    return contrast_vector(chat(), list(zip(prompts().harmful, prompts().harmless, strict=True)))


@cache
def acts() -> Activations:
    return interp.capture(chat(), prompts(), "resid_post", ["t_inst", "t_post_inst"])


def noise(seed: int, width: int = 8) -> Tensor:
    return torch.randn(width, generator=torch.Generator().manual_seed(seed))


def vector(*seeds: int, **changes: Any) -> SteeringVector:
    return SteeringVector({i: noise(s) for i, s in enumerate(seeds)}, "resid_post", **changes)


# --- geometry ---------------------------------------------------------------------------------------------------


def test_cosines_are_those_of_what_is_added_layer_by_layer() -> None:
    one, two = vector(1, 2, coefficient=-2.0), vector(3, 4, 5)
    expected = {i: -float(torch.cosine_similarity(noise(a), noise(b), 0)) for i, (a, b) in enumerate([(1, 3), (2, 4)])}
    assert one.cosine(two) == pytest.approx(expected)
    assert one.cosine(-0.5 * one) == pytest.approx({0: -1.0, 1: -1.0})
    direction = Direction(noise(3), "resid_post", 0, "last")
    assert one.cosine(direction)[0] == pytest.approx(expected[0]) and set(one.cosine(noise(3))) == {0, 1}


def test_the_parts_along_and_without_others_are_orthogonal_and_sum_to_the_whole() -> None:
    one, two, three = vector(1, 2, coefficient=1.5), vector(3, 4), vector(5, 6)
    along, rest = one.along(two, three), one.without(two, three)
    for layer in one.layers:
        torch.testing.assert_close(along.vectors[layer] + rest.vectors[layer], one.vectors[layer])
        for other in (two, three):
            assert abs(float(rest.vectors[layer] @ other.vectors[layer])) < 1e-5
        # By hand: least squares on both.
        basis = torch.stack([two.vectors[layer], three.vectors[layer]], 1)
        fit = torch.linalg.lstsq(basis, one.vectors[layer]).solution
        torch.testing.assert_close(along.vectors[layer], basis @ fit, rtol=1e-4, atol=1e-5)
    assert rest.coefficient == 1.5
    torch.testing.assert_close(one.along(two, 2 * two).vectors[0], one.along(two).vectors[0])


def test_random_vectors_keep_norms_and_cosines_among_layers() -> None:
    one = vector(1, 2)
    drawn = one.random_like(3)
    assert drawn.norms == pytest.approx(one.norms, rel=1e-5)
    both = [torch.stack(list(v.vectors.values())) for v in (one, drawn)]
    torch.testing.assert_close(both[0] @ both[0].T, both[1] @ both[1].T, rtol=1e-4, atol=1e-4)
    assert abs(drawn.cosine(one)[0]) < 0.95 and torch.equal(one.random_like(3).vectors[0], drawn.vectors[0])


def test_vectors_that_do_not_fit_each_other_are_refused() -> None:
    with pytest.raises(DirectionError, match="none in common"):
        vector(1).cosine(SteeringVector({3: noise(1)}, "resid_post"))
    with pytest.raises(DirectionError, match="different models"):
        vector(1).without(noise(1, 5))
    with pytest.raises(DirectionError, match="no vector at layer 1"):
        vector(1, 2).without(vector(3))
    with pytest.raises(DirectionError, match="is zero"):
        vector(1).along(torch.zeros(8))
    with pytest.raises(DirectionError, match="name the vectors"):
        vector(1).without()


# --- where they come from ----------------------------------------------------------------------------------------


def test_the_mean_of_pairs_is_the_difference_of_the_sides_means() -> None:
    harmful, harmless = (
        acts().take(np.flatnonzero(acts().labels == label)).sel("resid_post", 3, "t_post_inst").double().mean(0)
        for label in ("harmful", "harmless")
    )
    made = contrast()
    torch.testing.assert_close(made.vectors[3].double(), harmful - harmless, rtol=1e-4, atol=1e-4)
    about = made.provenance["layers"]["3"]
    assert made.layers == tuple(range(chat().n_layers)) and made.site == "resid_post"
    assert about["agree"] == 1.0 and about["halves"] > 0.9 and 0 < about["explained"] <= 1
    assert made.provenance["position"] == "t_post_inst" and made.provenance["pairs"] == 24


def test_a_principal_component_points_to_the_first_side_and_is_as_long_as_the_mean_along_it() -> None:
    pairs = list(zip(prompts().harmful, prompts().harmless, strict=True))
    made = contrast_vector(chat(), pairs, method="pca", layers=[3])
    turned = contrast_vector(chat(), [(b, a) for a, b in pairs], method="pca", layers=[3])
    assert made.cosine(turned)[3] == pytest.approx(-1.0, abs=1e-5)
    values = acts().sel("resid_post", 3, "t_post_inst").double()
    labels = acts().labels
    differences = (values[labels == "harmful"] - values[labels == "harmless"]).numpy()
    # By hand: power iteration.
    unit = np.ones(differences.shape[1])
    for _ in range(500):
        unit = differences.T @ (differences @ unit)
        unit /= np.linalg.norm(unit)
    unit *= np.sign(differences.mean(0) @ unit)
    assert np.abs(made.vectors[3].numpy() @ unit) == pytest.approx(made.norms[3], rel=1e-4)
    assert made.norms[3] == pytest.approx(differences.mean(0) @ unit, rel=1e-4)


def test_pairs_of_answers_are_read_at_the_answers_first_token() -> None:
    pairs = [(interp.Trace(p, answer="one"), interp.Trace(p, answer="two")) for p in PROMPTS]
    made = contrast_vector(lively(), pairs, layers=[1])
    assert made.provenance["position"] == "answer_start"
    total = torch.zeros(48)
    for one, two in pairs:
        for sign, trace in ((1, one), (-1, two)):
            (e,) = lively().encode(trace)
            total += sign * slow_read(lively().hf, "llama", e.ids)["resid_post"][1, e.n_prompt] / len(pairs)
    torch.testing.assert_close(made.vectors[1], total, rtol=1e-3, atol=1e-4)


def test_what_is_no_contrast_is_refused() -> None:
    with pytest.raises(PromptError, match="pairs of texts"):
        contrast_vector(lively(), [("a", "b")])
    with pytest.raises(PromptError, match="pairs of texts"):
        contrast_vector(lively(), ["ab", "cd", "ef", "gh"])  # pyright: ignore[reportArgumentType]
    with pytest.raises(DirectionError, match="same activations"):
        contrast_vector(lively(), [(p, p) for p in PROMPTS])
    with pytest.raises(DirectionError, match="no method"):
        contrast_vector(lively(), [], method="sum")  # pyright: ignore[reportArgumentType]


def test_what_was_made_is_kept_with_where_it_came_from(tmp_path: Path) -> None:
    made = contrast().without(contrast().random_like(1)) * 0.5
    again = SteeringVector.load(made.save(tmp_path / "vector.safetensors"))
    assert again.provenance == made.provenance and again.coefficient == 0.5
    assert again.provenance["of"]["method"] == "mean of differences"
    assert again.provenance["of"]["model"]["name"] == "organism:chat"
    assert all(torch.equal(again.vectors[n], made.vectors[n]) for n in made.layers)


def test_a_probe_gives_its_direction_as_a_vector() -> None:
    x, y = acts().sel("resid_post", 3, "t_post_inst"), acts().labels
    probe = MeanDifference().fit(x, y)
    made = SteeringVector.from_probe(
        probe, 0.5, positive="harmful", site="resid_post", layer=3, position="t_post_inst", phase="prompt"
    )
    assert (made.site, made.layers, made.phase) == ("resid_post", (3,), "prompt")
    assert made.cosine(contrast())[3] == pytest.approx(1.0, abs=1e-4)
    with pytest.raises(ProbeError, match="towards which class"):
        SteeringVector.from_probe(probe, site="resid_post", layer=3, position="t_post_inst")


# --- what else they can do ----------------------------------------------------------------------------------------


def test_ablation_clamps_every_layers_coordinate_to_its_value() -> None:
    model, v = chat(), contrast()
    texts = prompts()[:6]
    for to, goal in ((None, torch.zeros(6)), (7.5, torch.full((6,), 7.5)), (torch.arange(6.0), torch.arange(6.0))):
        after = interp.capture(model, texts, "resid_post", "t_inst", edits=ablation(v, to))
        for layer in v.layers:
            unit = v.vectors[layer] / v.vectors[layer].norm()
            torch.testing.assert_close(
                after.sel("resid_post", layer, "t_inst") @ unit, goal[layer].expand(6), rtol=1e-3, atol=2e-3
            )


def test_affine_ablation_moves_refused_prompts_to_the_harmless_mean() -> None:
    model = chat()
    v = SteeringVector(contrast().vectors, "resid_post", positions=("post_inst",))
    reference = mean_projection(model, v, prompts().harmless)
    positions = interp.capture(model, prompts()[:1], "resid_post", "post_inst").positions
    assert reference.shape == (model.n_layers, len(positions))
    read = interp.capture(model, prompts().harmless, "resid_post", "post_inst").sel("resid_post", 2)
    unit = v.vectors[2] / v.vectors[2].norm()
    torch.testing.assert_close(reference[2], (read @ unit).mean(0), rtol=1e-3, atol=1e-3)
    plain = behaviour(model, held_out().harmful, max_new_tokens=16)
    ablated = behaviour(model, held_out().harmful, max_new_tokens=16, edits=ablation(v, reference))
    assert plain.rate().value >= 0.9 and ablated.rate().value <= 0.1


def test_a_rotation_of_every_layer_puts_the_plane_at_the_angle() -> None:
    model, v = chat(), contrast()
    other = v.random_like(0)
    after = interp.capture(model, prompts()[:4], "resid_post", "t_inst", edits=rotation(v, other, 90))
    for layer in v.layers:
        unit = v.vectors[layer] / v.vectors[layer].norm()
        found = after.sel("resid_post", layer, "t_inst") @ unit
        torch.testing.assert_close(found, torch.zeros(4), rtol=1e-3, atol=2e-3)


def test_zero_strength_leaves_every_answer_as_it_is() -> None:
    plain = chat().generate(held_out(), max_new_tokens=16)
    zero = chat().generate(held_out(), max_new_tokens=16, edits=contrast() * 0.0)
    assert [c.ids for c in plain] == [c.ids for c in zero]


def test_a_token_is_named_by_its_text() -> None:
    marker = chat().chat.markers
    assert marker is not None
    assert chat().tokenizer.decode([token_id(chat(), marker.closing)]) == marker.closing
    with pytest.raises(DirectionError, match="and one is needed"):
        token_id(chat(), "several words of text")


# --- conditions ---------------------------------------------------------------------------------------------------


@cache
def guard() -> LatentGuard:
    return LatentGuard.fit(chat(), prompts(), rule="logistic", layers=(2,))


def test_a_guard_decides_as_it_scores_and_the_vector_acts_above_it_in_the_same_pass() -> None:
    model, texts = chat(), held_out()
    strong = SteeringVector({4: -contrast().vectors[4]}, "resid_post")
    found = steer_when(model, texts, strong, if_guard(guard(), model), max_new_tokens=16)
    flagged = guard().score(texts).flagged
    assert found.decided == "the same" and found.decisions is not None
    assert found.decisions.acts.tolist() == flagged.tolist() and 0 < flagged.sum() < len(texts)
    plain = model.generate(texts, max_new_tokens=16)
    always = model.generate(texts, max_new_tokens=16, edits=strong)
    for row, flag in enumerate(flagged):
        assert found.generations[row].ids == (always if flag else plain)[row].ids
    table = found.to_frame()
    assert table["acts"].tolist() == flagged.tolist() and "guard: score" in table


def test_a_vector_below_its_guard_is_decided_on_in_a_pass_before() -> None:
    model, texts = chat(), held_out()
    low = SteeringVector({0: contrast().vectors[0] * 5}, "resid_post")
    found = steer_when(model, texts, low, ~if_guard(guard(), model), max_new_tokens=8)
    assert found.decided == "one before" and found.decisions is not None
    flagged = guard().score(texts).flagged
    assert found.decisions.acts.tolist() == (~flagged).tolist()
    assert found.log.decisions.acts.tolist() == (~flagged).tolist()
    with pytest.raises(EditError, match="before what the condition reads"):
        steer_when(model, texts, low, if_guard(guard(), model), decide_by="token")


def test_probes_and_projections_decide_as_they_do_by_hand() -> None:
    texts = held_out()
    read = interp.capture(chat(), texts, "resid_post", "t_inst", [2]).sel("resid_post", 2, "t_inst")
    probe = LogisticProbe().fit(acts().sel("resid_post", 2, "t_inst"), acts().labels)
    direction = probe.to_direction(site="resid_post", layer=2, position="t_inst", positive="harmful")
    rules = {
        if_probe(probe, "harmful", site="resid_post", layer=2, position="t_inst"): probe.predict(read) == "harmful",
        if_projection(direction, above=1.0): ((read @ direction.unit) > 1.0).numpy(),
        if_projection(direction, below=1.0): ((read @ direction.unit) < 1.0).numpy(),
        if_projection(direction, above=0.1, measure="cosine"):
            ((read @ direction.unit) / read.norm(dim=-1) > 0.1).numpy(),
    }  # fmt: skip
    for rule, expected in rules.items():
        assert interp.edits.decide(chat(), texts, rule).acts.tolist() == expected.tolist(), rule
    assert len({tuple(e.tolist()) for e in rules.values()}) > 1


def test_a_guard_for_answers_decides_token_by_token() -> None:
    assert guard().stream is None
    with pytest.raises(PromptError, match="fit_stream"):
        if_stream_guard(guard())
    both = guard().fit_stream(prompts(), layers=[2], max_new_tokens=8, consecutive=1)
    rule = both.stream
    assert rule is not None
    found = steer_when(
        chat(), held_out()[:6], SteeringVector({4: contrast().vectors[4]}, "resid_post", 0.0), if_stream_guard(both),
        decide_by="token", max_new_tokens=6,
    )  # fmt: skip
    watched = both.generate(held_out()[:6], stop=False, max_new_tokens=6)
    table, encoded = found.log.to_frame(), chat().encode(held_out()[:6])
    for row, (scores, tokens) in enumerate(zip(watched.scores, watched.tokens, strict=True)):
        own = table[(table["row"] == row) & (table["token"] >= encoded[row].n_prompt)]
        # Seen once n tokens are written: the n-th of them.
        n = min(len(own), len(tokens))
        np.testing.assert_allclose(own["stream guard: score"].to_numpy()[:n], scores[:n], rtol=1e-3, atol=1e-3)
    assert found.decisions is None


def test_conditions_that_cannot_be_asked_are_refused() -> None:
    with pytest.raises(ModelError, match="another model"):
        if_guard(guard(), interp.load("organism:base"))
    with pytest.raises(ProbeError, match="where the probe reads"):
        if_probe(LogisticProbe().fit(acts().sel("resid_post", 2, "t_inst"), acts().labels), "harmful")
    with pytest.raises(ProbeError, match="no class"):
        if_probe(
            LogisticProbe().fit(acts().sel("resid_post", 2, "t_inst"), acts().labels), "toxic", site="resid_post",
            layer=2, position="t_inst",
        )  # fmt: skip
    direction = Direction(noise(1), "resid_post", 0, "t_inst")
    with pytest.raises(DirectionError, match="one of the two"):
        if_projection(direction)
    with pytest.raises(DirectionError, match="no measure"):
        if_projection(direction, above=1, measure="angle")  # pyright: ignore[reportArgumentType]
