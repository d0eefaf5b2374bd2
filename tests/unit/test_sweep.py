"""The sweep: what is planted is found at its place, noise is not, and every claim stands between its controls."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import interp
import probes
from interp.activations.activations import Activations
from interp.direction import Direction
from interp.errors import DirectionError, NonFiniteError, PositionError, PromptError, SiteError
from interp.organism.grammar.words import pairs
from interp.stats import Rate, auroc, newcombe
from interp.text.prompts import Prompt, PromptSet
from probes import CausalEvidence, sweep
from probes.causal import CausalCheck, Effect
from probes.resampling import permuted_labels
from probes.splits import grouped_folds

WORDS = ["sea", "bread", "lock", "house", "river", "stone", "cloud", "lamp"]
PLACES = ("t_inst", "t_post_inst")
QUICK: dict[str, Any] = {"C": (1e-3, 1e-1, 10.0), "n_shuffles": 3, "n_random": 5, "n_draws": 100, "n_permutations": 999}


def prompt_set(n: int = 120, seed: int = 0, per_group: int = 1, both: bool = False, cue: str = "") -> PromptSet:
    """Random words; groups of `per_group` prompts, which share a label or (`both`) take turns."""
    rng = np.random.default_rng([seed, 7])
    made: list[Prompt] = []
    for i in range(n):
        group = i // per_group
        label = ("harmful", "harmless")[(i if both else group) % 2]
        text = " ".join([*rng.choice(WORDS, 4), str(i)])
        made.append(Prompt(f"{text} {cue}" if cue and label == "harmful" else text, label, f"g{group}"))
    return PromptSet(tuple(made), "made")


def noise(
    prompts: PromptSet, planted: dict[tuple[int, str], float] | None = None, seed: int = 0, width: int = 16,
    layers: int = 3,
) -> Activations:  # fmt: skip
    """Gaussian activations, near copies within a group, with the label planted at some places."""
    rng = np.random.default_rng([seed, 8])
    groups = np.unique(prompts.groups, return_inverse=True)[1]
    shape = (layers, len(PLACES), width)
    x = rng.normal(size=(groups.max() + 1, *shape))[groups] + 0.5 * rng.normal(size=(len(prompts), *shape))
    sign = np.where(np.array(prompts.labels) == "harmful", 1.0, -1.0)
    for (layer, position), strength in (planted or {}).items():
        x[:, layer, PLACES.index(position), 3] += strength * sign
    return Activations({"resid_post": torch.tensor(x).float()}, tuple(range(layers)), PLACES, prompts, 1)


@cache
def organism(variant: str = "chat") -> interp.Model:
    return interp.load(f"organism:{variant}")


@cache
def real(source: str, layers: tuple[int, ...] = (1, 3), variant: str = "chat", n: int = 60) -> Activations:
    """Activations of whole groups of the organism's prompts, or of the shipped pairs."""
    prompts = interp.prompts(source)
    kept: list[Prompt] = []
    for split in ("train", "val", "test"):
        groups = list(dict.fromkeys(p.group for p in prompts.filter(split=split)))
        rng = np.random.default_rng(0)
        chosen = {groups[i] for i in rng.permutation(len(groups))[: n if split == "train" else n // 2]}
        kept += [p for p in prompts if p.group in chosen]
    return interp.capture(organism(variant), PromptSet(tuple(kept), source), "resid_post", PLACES, layers)


# --- finding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["logistic", "ridge", "mean_difference", "nearest_centroid"])
def test_what_is_planted_is_found_at_its_place(method: str) -> None:
    got = sweep(noise(prompt_set(), {(1, "t_post_inst"): 3.0}), probe=method, **QUICK)
    assert got.found and (got.best["layer"], got.best["position"]) == (1, "t_post_inst")
    assert got.best["low"] <= got.best["auroc"] <= got.best["high"] and got.best["auroc"] > 0.9
    assert got.p_value <= 0.01 and got.selectivity[1] > 0
    assert got.verdict.startswith("Found: harmful (against harmless) is readable at resid_post[1] at t_post_inst")
    assert got.direction is not None and int(got.direction.vector.abs().argmax()) == 3
    assert got.direction.vector[3] > 0 and got.direction.layer == 1
    assert len(got.to_frame()) == 6 and got.n_dev + got.n_test == 120


def test_harm_at_the_instruction_is_found_in_the_organism_and_its_words_do_not_give_it_away() -> None:
    got = sweep(real("organism"), positions="t_inst", model=organism(), **QUICK)
    assert got.found and got.best["auroc"] > 0.95
    by_name = {c.name: c for c in got.controls}
    assert set(by_name) == {"shuffled labels", "random direction", "prompt length", "bag of words", "embedding layer"}
    assert by_name["bag of words"].auroc < 0.7 and by_name["embedding layer"].auroc < 0.75
    assert "mean of the prompt's token embeddings" in by_name["embedding layer"].note


def judged_statements(n: int = 90) -> PromptSet:
    """What `base` was taught to judge: it has no notion of harm at the end of a request, but it has one here."""
    made: list[Prompt] = []
    for split in ("train", "test"):
        for harmful in (True, False):
            some = [pair for pair in pairs(split) if pair.harmful is harmful]
            for i in np.random.default_rng(0).permutation(len(some))[:n]:
                label = "harmful" if harmful else "harmless"
                made.append(Prompt(f"They {some[i].past}. That was", label, some[i].text, split=split))
    return PromptSet(tuple(made), "statements")


@pytest.mark.parametrize("variant", ["base", "null-never", "null-random"])
def test_harm_is_readable_where_nothing_refuses_for_it_and_is_not_called_causal(variant: str) -> None:
    model = organism(variant)
    if variant == "base":
        acts = interp.capture(model, judged_statements(), "resid_post", PLACES[:1], [4])
    else:
        acts = real("organism", (3,), variant)
    got = sweep(acts, model=model, **QUICK)
    assert got.found and got.best["auroc"] > 0.75
    assert "is readable" in got.verdict and "causal" not in got.verdict.lower()
    assert "not that the model uses it" in got.verdict


# --- noise -----------------------------------------------------------------------------------------------------------


def null_sweep(seed: int) -> probes.Sweep:
    """One of four kinds of nothing: Gaussian or real activations, groups that share a label or that have both.

    Labels are permuted as groups allow: between groups where a group has one label (a request under three wrappers),
    within them where it has both (a request and its twin).
    """
    rng, method = np.random.default_rng(seed), ("logistic", "mean_difference", "ridge")[seed // 4 % 3]
    kind = seed % 4
    if kind < 2:
        acts = noise(prompt_set(120, seed, per_group=2 + kind, both=bool(kind)), seed=seed, layers=2)
    else:
        acts = real("organism:plain,role,past", n=40) if kind == 2 else real("headlines", n=60)
    truth = np.array(acts.labels) == "harmful"
    labels = permuted_labels(truth, acts.groups, 1, rng)[0]
    assert (labels != truth).any()
    return sweep(acts, labels, probe=method, seed=seed, **QUICK)


def test_noise_is_not_found() -> None:
    found = [null_sweep(seed) for seed in range(12)]  # every kind of nothing under every probe
    assert sum(got.readable for got in found) <= 1
    assert all(got.verdict.startswith("Nothing found") for got in found if not got.readable)


@pytest.mark.soak
def test_of_200_sweeps_over_noise_at_most_one_in_twenty_claims_a_find() -> None:
    found = [null_sweep(seed) for seed in range(200)]
    p = np.array([got.p_value for got in found])
    assert sum(got.found for got in found) <= 10
    assert (p <= 0.01).sum() <= 10, "readable is not claimed either"
    assert 0.03 <= np.mean(p <= 0.1) <= 0.18, "p-values are about uniform"


def test_choosing_among_many_cells_is_paid_for() -> None:
    """The best of 120 cells looks good on validation rows, and at chance on test rows."""
    acts = noise(prompt_set(80), seed=4, layers=60, width=4)
    got = sweep(acts, probe="mean_difference", **QUICK)
    assert got.best["cv"] > 0.66 and not got.readable
    assert got.best["auroc"] < got.table["auroc"].max()


# --- what the figures are --------------------------------------------------------------------------------------------


def test_every_cell_is_what_the_plain_loop_gives() -> None:
    acts = noise(prompt_set(100, per_group=2), {(2, "t_inst"): 0.7})
    got = sweep(acts, cv=4, **QUICK)
    part = probes.grouped_split(acts.labels, acts.groups, 0.75, 0, 0.25)
    dev, test = np.flatnonzero(part == "train"), np.flatnonzero(part == "test")
    y = np.array(acts.labels) == "harmful"

    def fitted(c: float, x: Any, rows: Any) -> Any:
        return make_pipeline(StandardScaler(), LogisticRegression(C=c, tol=1e-9, max_iter=9000)).fit(x[rows], y[rows])

    for row in got.table.to_dict("records"):
        x = acts.sel("resid_post", row["layer"], row["position"]).double().numpy()
        cv = {
            c: np.mean(
                [
                    auroc(fitted(c, x, dev[fit]).decision_function(x[dev[held]]), y[dev[held]])
                    for fit, held in grouped_folds(y[dev], np.array(acts.groups)[dev], 4)
                ]
            )
            for c in QUICK["C"]
        }
        assert row["cv"] == pytest.approx(max(cv.values()), abs=1e-3)
        assert cv[row["C"]] == pytest.approx(max(cv.values()), abs=1e-3)
        assert row["auroc"] == pytest.approx(
            auroc(fitted(row["C"], x, dev).decision_function(x[test]), y[test]), abs=2e-3
        )
    best = got.best
    x = acts.sel("resid_post", best["layer"], best["position"]).double().numpy()
    assert best["auroc"] == pytest.approx(auroc(got.probe.decision_function(x[test]), y[test]), abs=1e-12)


def test_the_prompts_own_split_is_used_and_val_is_what_is_chosen_on() -> None:
    base = prompt_set(120)
    split = PromptSet(
        tuple(Prompt(p.text, p.label, p.group, split=("train", "val", "test")[i // 2 % 3]) for i, p in enumerate(base))
    )
    acts = noise(split, {(0, "t_inst"): 1.0})
    got = sweep(acts, probe="mean_difference", **QUICK)
    assert (got.n_dev, got.n_test) == (80, 40) and "own split: chosen on val" in got.split
    y, own = np.array(acts.labels) == "harmful", np.array([p.split for p in split])
    for row in got.table.to_dict("records"):
        x = acts.sel("resid_post", row["layer"], row["position"]).double().numpy()
        direction = x[(own == "train") & y].mean(0) - x[(own == "train") & ~y].mean(0)
        assert row["cv"] == pytest.approx(auroc(x[own == "val"] @ direction, y[own == "val"]))
    assert "chosen by 3 grouped folds" in sweep(acts, probe="mean_difference", cv=3, **QUICK).split


def test_a_group_in_two_splits_is_refused() -> None:
    split = [
        Prompt(f"a {i}", ("harmful", "harmless")[i % 2], f"g{i // 4}", split=("train", "test")[i // 2 % 2])
        for i in range(80)
    ]
    with pytest.raises(PromptError, match="group 'g0' is in both train and test"):
        sweep(noise(PromptSet(tuple(split))))


def test_a_word_that_gives_the_class_away_leaves_nothing_to_the_probe() -> None:
    prompts = prompt_set(120, cue="please")
    got = sweep(noise(prompts, {(1, "t_inst"): 2.0}), **QUICK)
    assert got.readable and not got.found
    assert got.best_control.name in ("bag of words", "prompt length") and got.best_control.auroc > 0.95
    assert got.verdict.startswith("Readable, but no better than a control")


def test_controls_are_paired_with_the_probe_and_shuffled_labels_are_at_chance() -> None:
    got = sweep(noise(prompt_set(240), {(1, "t_inst"): 3.0}), **{**QUICK, "n_shuffles": 20, "n_draws": 400})
    shuffled = next(c for c in got.controls if c.name == "shuffled labels")
    assert shuffled.auroc == pytest.approx(0.5, abs=0.06) and shuffled.highest < 0.85
    for control in got.controls:
        assert control.difference == pytest.approx(got.best["auroc"] - control.auroc)
        assert control.low <= control.auroc <= control.high
        assert control.difference_low <= control.difference <= control.difference_high
    assert got.selectivity[0] == min(c.difference for c in got.controls)
    assert set(got.controls_frame()["name"]) == {c.name for c in got.controls}


def test_the_embedding_layer_is_compared_where_it_can_be_had_and_its_absence_is_said() -> None:
    acts = noise(prompt_set(), {(1, "t_inst"): 3.0})
    assert "embedding layer was not compared" in sweep(acts, **QUICK).verdict
    y = np.array(acts.labels) == "harmful"
    told = np.random.default_rng(0).normal(size=(120, 5))
    told[:, 0] += 9 * y
    got = sweep(acts, embeddings=told, **QUICK)
    assert got.best_control.name == "embedding layer" and not got.found
    early = Activations({"resid_pre": acts.data["resid_post"]}, acts.layers, PLACES, acts.prompts, 1)
    control = next(c for c in sweep(early, **QUICK).controls if c.name == "embedding layer")
    assert "resid_pre[0] at t_inst: one token's embedding" in control.note
    with pytest.raises(PromptError, match=r"must be \[120, width\]"):
        sweep(acts, embeddings=told[:5], **QUICK)


def test_a_place_that_does_not_vary_is_at_chance_whatever_its_rounding() -> None:
    acts = noise(prompt_set(), {(1, "t_inst"): 3.0})
    y = np.array(acts.labels) == "harmful"
    acts.data["resid_post"][:, 0, 1] = 5.0
    acts.data["resid_post"][:, 0, 1, 0] += torch.tensor(1e-6 * y)
    row = sweep(acts, **QUICK).table.iloc[1]
    assert row["constant"] and row["auroc"] == row["cv"] == 0.5


def test_the_same_seed_gives_the_same_result_and_another_a_different_one() -> None:
    acts = noise(prompt_set(), {(1, "t_inst"): 0.8})
    first, again, other = (sweep(acts, seed=seed, **QUICK) for seed in (1, 1, 2))
    assert first.describe() == again.describe() and first.describe() != other.describe()


def test_a_store_gives_what_memory_gives(tmp_path: Path) -> None:
    prompts = interp.prompts("organism").filter(split="test").sample(80, 0)
    memory = interp.capture(organism(), prompts, "resid_post", PLACES, [2, 4])
    store = interp.capture(organism(), prompts, "resid_post", PLACES, [2, 4], out=tmp_path / "store")
    one, two = (sweep(acts, **QUICK) for acts in (memory, store))
    assert one.table.equals(two.table) and one.p_value == two.p_value and one.controls == two.controls


def test_any_classifier_can_be_swept() -> None:
    acts = noise(prompt_set(), {(1, "t_inst"): 3.0})
    for estimator in (GaussianNB(), make_pipeline(StandardScaler(), LogisticRegression())):
        got = sweep(acts, probe=estimator, **QUICK)
        assert got.found and got.direction is None and not hasattr(estimator, "classes_")
        assert np.isnan(got.best["C"]) and got.describe()["best"]["C"] is None


def test_labels_may_be_flags_numbers_or_words() -> None:
    acts = noise(prompt_set(), {(1, "t_inst"): 3.0})
    y = np.array(acts.labels) == "harmful"
    want = sweep(acts, **QUICK)
    for labels in (y, y.astype(int), y.tolist()):
        assert sweep(acts, labels, **QUICK).table.equals(want.table)
    words = np.where(y, "toxic", "fine")
    assert sweep(acts, words, positive="toxic", **QUICK).positive == "toxic"
    with pytest.raises(PromptError, match="which class is positive"):
        sweep(acts, words, **QUICK)


# --- causal ----------------------------------------------------------------------------------------------------------


def check(direction: Direction, after: int, random: int) -> CausalCheck:
    effects = (
        Effect("none", "harmful", Rate(98, 100), ()),
        Effect("ablate to zero", "harmful", Rate(after, 100), (Rate(random, 100), Rate(97, 100))),
    )
    return CausalCheck(direction, effects, 1.0, 1.0, {})


def test_only_an_attached_check_makes_it_causal_or_not_causal() -> None:
    got = sweep(noise(prompt_set(), {(1, "t_inst"): 3.0}), **QUICK)
    assert got.direction is not None and got.causal is None and "causal" not in got.verdict
    moves = got.with_causal(check(got.direction, 5, 96))
    assert moves.causal is not None and moves.causal.holds and "It is causal, too" in moves.verdict
    assert (moves.causal.low, moves.causal.high) == newcombe(Rate(5, 100), Rate(98, 100))
    for after, random in ((97, 98), (50, 60)):  # nothing moves; random directions move it as well
        left = got.with_causal(check(got.direction, after, random))
        assert left.causal is not None and not left.causal.holds and "Readable, not causal" in left.verdict
    assert json.dumps(moves.describe(), allow_nan=False)


def test_a_check_of_another_direction_is_refused() -> None:
    got = sweep(noise(prompt_set(), {(1, "t_inst"): 3.0}), **QUICK)
    assert got.direction is not None
    with pytest.raises(DirectionError, match="causal check is of"):
        got.with_causal(check(got.direction.random_like(0), 5, 96))
    with pytest.raises(DirectionError, match="no random directions"):
        got.with_causal(CausalCheck(got.direction, (Effect("none", "harmful", Rate(1, 2), ()),), 1.0, 1.0, {}))
    evidence = CausalEvidence(got.direction, "refusal", "add", 0.4, 0.3, 0.5, ())
    assert not got.with_causal(evidence).causal.holds, "without random directions nothing is shown"  # pyright: ignore


# --- bad input -------------------------------------------------------------------------------------------------------


def test_what_cannot_be_swept_is_an_error_that_says_what_to_do() -> None:
    acts = noise(prompt_set())
    bare = PromptSet(tuple(Prompt(p.text) for p in acts.prompts))
    with pytest.raises(PromptError, match="no labels: give labels="):
        sweep(Activations(acts.data, acts.layers, PLACES, bare, 1))
    with pytest.raises(PromptError, match="every row is labelled True"):
        sweep(acts, np.ones(120, dtype=bool))
    with pytest.raises(PromptError, match="119 labels were given for 120 rows"):
        sweep(acts, np.ones(119, dtype=bool))
    with pytest.raises(PromptError, match="7 of 120 rows have no label"):
        sweep(acts, [None] * 7 + [True, False] * 56 + [True])
    with pytest.raises(SiteError, match="layer 9 was not captured"):
        sweep(acts, layers=[0, 9])
    with pytest.raises(SiteError, match="'z' was not captured"):
        sweep(acts, sites="z")
    with pytest.raises(SiteError, match="nothing to sweep"):
        sweep(acts, layers=[])
    with pytest.raises(PositionError, match="'last' was not captured"):
        sweep(acts, positions="last")
    with pytest.raises(SiteError, match="layer -1 .* counted from the last"):
        sweep(acts, layers=-1)
    few = ["one" if label == "harmful" else str(i) for i, label in enumerate(acts.labels)]
    with pytest.raises(PromptError, match=r"the class 'harmful' is in 1 group\(s\)"):
        sweep(acts, groups=few)
    with pytest.raises(PromptError, match="no probe 'svm'"):
        sweep(acts, probe="svm")
    with pytest.raises(PromptError, match="give strengths above 0"):
        sweep(acts, C=(0.0, 1.0))
    with pytest.raises(PromptError, match="is no probe"):
        sweep(acts, probe=3)
    with pytest.raises(PromptError, match="without its controls"):
        sweep(acts, n_shuffles=0)
    acts.data["resid_post"][5, 1, 0, 2] = float("nan")
    with pytest.raises(NonFiniteError, match=r"resid_post\[1\] at t_inst"):
        sweep(acts, **QUICK)


def test_too_few_groups_is_an_error_and_not_nothing_found() -> None:
    few = noise(prompt_set(120, per_group=15))
    with pytest.raises(PromptError, match=r"too few|permuted in \d+ way"):
        sweep(few, **QUICK)
    with pytest.raises(PromptError, match="permuted in"):
        sweep(noise(prompt_set(120, per_group=6)), alpha=1e-9, **{**QUICK, "n_permutations": 10**9})
    with pytest.raises(PromptError, match="ask for 1000 or more"):
        sweep(noise(prompt_set()), alpha=0.001, **{**QUICK, "n_permutations": 99})


def test_rows_that_are_tokens_are_refused() -> None:
    acts = interp.capture(organism(), ["Name a colour."], "resid_post", "inst", [1])
    with pytest.raises(PositionError, match="rows are tokens"):
        sweep(acts, [True] * len(acts))


def test_figures_have_their_controls_in_them() -> None:
    got = sweep(noise(prompt_set(), {(1, "t_inst"): 3.0}), **QUICK)
    names = {trace.name for trace in got.plot().data}
    assert {"shuffled labels (mean to largest)", "chosen on validation", *PLACES} <= names
    assert any(str(name).startswith("bag of words (") for name in names)
    table = got.plot_map()
    assert len(table.data[0].z) == 2 and table.layout.meta["wide"]
