"""Verdicts: each claim where it is true, none where labels are noise; the curve; the figures."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from interp.model.load import load
from probes import PlanFit, fit_plan, plan_transfer
from probes.figures import plan_along, plan_dose, plan_layers, plan_scaling
from probes.planning.claims import CLAIMS, MEANINGS
from probes.planning.examples import PROMPT, PlanExamples
from probes.planning.joining import layers_said
from tests.helpers.planning import NAMES, examples

FAST: dict[str, Any] = {"kinds": ("linear",), "seeds": (0, 1, 2), "draws": 200}


def fit(**where: Any) -> PlanFit:
    return fit_plan(examples(**({"n": 400} | where)), **FAST)


@pytest.mark.parametrize(
    ("claim", "where"),
    [
        ("planned", {"at_prompt": 0.8}),
        ("planned", {"at_prompt": 0.3, "kind": "regression"}),
        ("planned", {"at_prompt": 1.0, "along": (0.0, 1.0)}),
        ("planned", {"at_prompt": 1.0, "words": 0.4, "first": 0.4}),  # more than either tells
        ("committed to by its first token", {"at_prompt": 0.9, "first": 1.0}),
        ("in the words of the prompt", {"at_prompt": 0.9, "words": 1.0}),
        ("in the words of the prompt", {"at_prompt": 0.9, "words": 1.0, "first": 1.0}),
        ("decided while thinking", {"along": (0.0, 0.9, 1.0, 1.0), "thought": 3}),
        ("decided late", {"along": (0.0, 0.0, 0.9), "thought": 1}),
        ("not readable", {"n": 1200, "along": (0.0, 0.0)}),
    ],
)
def test_each_verdict_is_given_where_it_is_true(claim: str, where: dict[str, Any]) -> None:
    found = fit(**where)
    assert found.verdict.claim == claim, found.report()
    assert claim in CLAIMS
    assert found.curve.table["high"].max() <= 1 and found.verdict.evidence["probe interval"][1] <= 1
    json.dumps(found.verdict.evidence)
    assert claim in str(found)


def test_a_late_decision_that_stands_in_the_text_by_then_is_said_to() -> None:
    told = examples(n=400, along=(0.0, 1.0), words=1.0)
    texts = [[""] * 400, list(told.texts or [])]
    found = fit_plan(dataclasses.replace(told, texts=["same"] * 400, written=texts), **FAST).verdict
    assert found.claim == "decided late"
    assert found.evidence["told by then"] == ["words so far"]
    assert "where the words so far may tell as much" in found.sentence
    assert "as much" not in fit(along=(0.0, 1.0)).verdict.sentence


def test_few_prompts_make_it_say_that_it_cannot_tell() -> None:
    found = fit(n=80, at_prompt=0.1)
    assert found.verdict.claim == "cannot tell"
    assert "add prompts" in found.verdict.sentence


def test_that_words_tell_as_much_is_claimed_only_where_little_more_can_be_left() -> None:
    found = fit(n=140, at_prompt=0.9, words=0.9).verdict
    assert found.evidence["explained by"] == ["bag of words"]
    assert found.claim == "cannot tell"
    gap = found.evidence["difference interval"]
    shown = f"not shown to beat bag of words ({found.evidence['difference']:+.2f} [{gap[0]:+.2f}, {gap[1]:+.2f}])"
    assert found.evidence["best baseline"] == "bag of words" and f"{shown}; add prompts" in found.sentence


def test_the_best_of_the_baselines_is_beaten_by_beating_them_all() -> None:
    evidence = fit(at_prompt=1.0, words=0.6, first=0.3).verdict.evidence
    assert evidence["best baseline"] == "bag of words"
    assert evidence["unbeaten"] == []
    assert evidence["hardest bound"] > 0
    assert evidence["difference"] == pytest.approx(evidence["probe"] - evidence["best baseline score"])


def test_a_trace_smaller_than_the_margin_is_no_plan_however_sure() -> None:
    some = examples(n=1000, at_prompt=0.2)
    assert fit_plan(some, **FAST, margin=0.02).verdict.claim == "planned"
    assert fit_plan(some, **FAST, margin=0.35).verdict.claim == "not readable"


def test_a_network_stands_beside_and_decides_nothing() -> None:
    rng = np.random.default_rng(0)
    some = examples(n=600, d=2, layers=1, texts=None, embedding=None)
    crossed = np.where(some.prompt[:, 0, 0] * some.prompt[:, 0, 1] > 0, "fox", "bear")
    turned = PlanExamples(
        "ending", "classes", crossed, some.groups, some.prompt, (0,), first_token=rng.dirichlet([1] * 3, 600)
    )
    found = fit_plan(turned, seeds=(0,), widths=(16,))
    assert found.networks.set_index("baseline").loc["majority", "difference"] > 0.3
    assert found.verdict.claim != "planned"
    assert set(found.scores["probe"]) == {"linear", "mlp"}


@pytest.mark.parametrize(
    ("shape", "along", "at_prompt"),
    [("rise", (0.3, 1.0), 0.0), ("fall", (0.5, 0.0), 1.0), ("U", (0.5, 0.0, 1.0), 1.0), ("hump", (1.0, 1.0, 0.0), 0.0),
     ("flat", (0.0, 0.0), 0.0), ("", (), 1.0)],
)  # fmt: skip
def test_the_curve_says_how_it_runs(shape: str, along: tuple[float, ...], at_prompt: float) -> None:
    curve = fit(along=along, at_prompt=at_prompt).curve
    assert curve.shape == shape
    assert list(curve.table["position"]) == [PROMPT, *(f"part {i + 1}" for i in range(len(along)))]


def test_the_curve_says_where_it_first_exceeds_and_what_share_was_there_before() -> None:
    late = fit(along=(0.0, 0.9, 1.0)).curve
    assert late.first == "part 2"
    assert late.share_at_prompt < 0.2
    early = fit(at_prompt=0.5, along=(0.5, 1.0)).curve
    assert early.first == PROMPT
    assert 0.3 < early.share_at_prompt < 0.9


def test_random_labels_are_hardly_ever_called_planned() -> None:
    # 12 runs without a margin, so that intervals alone decide; the soak test has 200, and other features.
    claims = [fit_plan(examples(seed=s, n=160, d=8, layers=2), **FAST, margin=0.0).verdict.claim for s in range(12)]
    assert claims.count("planned") <= 1, claims


def test_the_layers_of_all_seeds_are_said_and_ringed_at_the_score_that_counts() -> None:
    found = fit(at_prompt=0.4, layers=5, n=200)
    assert len(found.layers) == 3 and set(found.layers) <= set(range(5))
    chosen = found.chosen[found.chosen["position"] == PROMPT]
    assert found.layers == tuple(chosen.sort_values("seed")["layer"])
    assert layers_said(found.layers) in found.report() and "chosen on validation rows" in found.report()
    (ring,) = [t for t in plan_layers(found).data if t.name == "the score that counts"]
    assert sorted(set(found.layers)) == list(ring.x) and sum(ring.customdata) == 3
    assert set(ring.y) == {found.verdict.evidence["probe"]}


def test_layers_are_said_in_a_word_where_they_are_one() -> None:
    assert layers_said((4, 4, 5)) == "layers 4, 4, 5"
    assert layers_said((4, 4)) == "layer 4 with every seed" and layers_said([4]) == "layer 4"


def test_every_claim_has_its_meaning() -> None:
    assert tuple(MEANINGS) == CLAIMS and all(MEANINGS.values())


def test_figures_hold_their_baselines_and_controls() -> None:
    import pandas as pd

    found = fit_plan(examples(at_prompt=0.8, along=(0.2, 1.0), thought=1), draws=100, seeds=(0,), widths=(8,))
    for figure in (plan_layers(found), plan_along(found), found.plot()):
        named = {a.text.rsplit(" ", 1)[0] for a in figure.layout.annotations}
        assert {"bag of words", "first token", "shuffled labels", "majority"} <= named
        assert figure.layout.meta["narrow_below"]
    family = {"small": found, "large": fit(at_prompt=1.0)}
    for sizes in (None, {"small": 1e6, "large": 1e8}):
        assert [t.name for t in plan_scaling(family, sizes).data] == ["best baseline", "probe at the last prompt token"]
    rows = [{"dose": d, "kind": k, "draw": i, "value": float(d), "low": d - 1.0, "high": d + 1.0}
            for d in (-1, 0, 1) for k, n in (("probe", 1), ("random", 3)) for i in range(n)]  # fmt: skip
    drawn = plan_dose(pd.DataFrame(rows), "length")
    assert any("3 random directions" in (t.name or "") for t in drawn.data)
    assert "standard deviations" in drawn.layout.xaxis.title.text and drawn.layout.yaxis.title.text == "mean length"
    assert "steered to" in plan_dose(pd.DataFrame(rows), "letter", "classes").layout.yaxis.title.text
    other = examples(seed=5, at_prompt=1.0, groups=np.array([f"h{i}" for i in range(300)]))
    assert plan_transfer({"one": examples(at_prompt=1.0), "two": other}).plot().data[0].type == "heatmap"


# --- soak -------------------------------------------------------------------------------------------------------------

RUNS = 200


@pytest.mark.soak
@pytest.mark.parametrize("margin", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["classes", "regression"])
def test_soak_random_labels_on_noise_are_planned_in_at_most_5_percent(kind: str, margin: float) -> None:
    claims = [
        fit_plan(examples(seed=s, kind=kind, n=300, d=32, layers=4), **FAST, margin=margin).verdict.claim
        for s in range(RUNS)
    ]
    assert claims.count("planned") <= 0.05 * RUNS, _counts(claims)


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["classes", "regression"])
def test_soak_random_labels_on_states_of_a_model_are_planned_in_at_most_5_percent(kind: str) -> None:
    model_states = _organism()
    claims: list[str] = []
    for seed in range(RUNS):
        rng = np.random.default_rng([seed, 17])
        n = len(model_states["groups"])
        labels = np.array(NAMES)[rng.integers(0, 4, n)] if kind == "classes" else rng.standard_normal(n)
        some = PlanExamples("chance", kind, labels, **model_states)
        claims.append(fit_plan(some, **FAST, margin=0.0).verdict.claim)
    assert claims.count("planned") <= 0.05 * RUNS, _counts(claims)


@pytest.mark.soak
def test_soak_a_planted_plan_is_found() -> None:
    for where in ({"at_prompt": 0.6, "words": 0.3}, {"at_prompt": 0.3, "kind": "regression"}):
        claims = [fit(seed=s, **where).verdict.claim for s in range(40)]
        assert claims.count("planned") >= 36, _counts(claims)


@pytest.mark.soak
def test_soak_what_words_tell_as_well_is_hardly_ever_called_planned() -> None:
    # States that hold what the words say and nothing more: the hard case, in which both are far above chance.
    claims = [fit(seed=s, at_prompt=0.0, **_copied(s)).verdict.claim for s in range(100)]
    assert claims.count("planned") <= 5, _counts(claims)


def _copied(seed: int) -> dict[str, Any]:
    """States and embedding that are two noisy copies of one thing, which tells the label in part."""
    rng = np.random.default_rng([seed, 23])
    code = rng.integers(0, 4, 400)
    told = np.eye(4)[np.where(rng.random(400) < 0.5, code, rng.integers(0, 4, 400))]
    copies = [3 * told + rng.standard_normal((400, 4)) for _ in range(2)]
    prompt = np.stack([rng.standard_normal((400, 4)), copies[0]], 1)
    return {"labels": np.array(NAMES)[code], "prompt": prompt, "layers": (0, 1), "embedding": copies[1]}


def _organism() -> dict[str, Any]:
    """States of the shipped model over prompts, with the words and lengths of those prompts."""
    import interp

    prompts = interp.prompts("organism").train[:320]
    acts = interp.capture(load("organism:chat"), prompts, sites="resid_post", positions=["t_post_inst"])
    prompt = np.stack([acts.sel(layer=layer, position="t_post_inst").double().numpy() for layer in acts.layers], 1)
    return {
        "groups": np.arange(len(prompts)), "prompt": prompt, "layers": tuple(acts.layers),
        "texts": [p.text for p in prompts], "lengths": np.array([len(p.text.split()) for p in prompts]),
    }  # fmt: skip


def _counts(claims: list[str]) -> dict[str, int]:
    return {claim: claims.count(claim) for claim in CLAIMS}
