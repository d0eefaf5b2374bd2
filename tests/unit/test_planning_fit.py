"""Planning probes: solvers and scores against slow references, honest joins, baselines, errors, reproducibility."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import f1_score, r2_score
from sklearn.preprocessing import StandardScaler

from interp.bootstrap import group_draws
from interp.errors import ProbeError
from probes import fit_plan, plan_transfer
from probes.planning import baselines as foils
from probes.planning.examples import PROMPT, Segment
from probes.planning.joining import Design, Joint, holm, join
from probes.planning.learning import LINEAR, MLP, Parts, Target, fit_kind
from probes.planning.linear import PENALTIES, Basis, ridge_path, softmax_path
from probes.planning.scoring import CLASSES, REGRESSION, score, score_draws
from tests.helpers.planning import NAMES, examples

LINEAR_ONLY = (LINEAR,)


# --- solvers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "d"), [(90, 12), (60, 200)])
def test_one_decomposition_gives_the_ridge_of_scikit_learn_at_every_penalty(n: int, d: int) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((n, d)) * np.exp(rng.standard_normal(d)), rng.standard_normal(n)
    basis, z = Basis(x), StandardScaler().fit_transform(x)
    for share, (w, b) in zip(PENALTIES, ridge_path(basis, y), strict=True):
        weights, intercept = basis.weights(w, b)
        slow = Ridge(alpha=share * basis.unit).fit(z, y).predict(z)
        np.testing.assert_allclose(x @ weights[0] + intercept[0], slow, atol=1e-8)
        np.testing.assert_allclose(basis.turn(x) @ w[:, 0] + b, slow, atol=1e-8)


@pytest.mark.parametrize(("n", "d", "k"), [(120, 10, 3), (60, 150, 4), (80, 12, 2)])
def test_one_decomposition_gives_the_logistic_regression_of_scikit_learn(n: int, d: int, k: int) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((n, d)) * np.exp(rng.standard_normal(d))
    codes = np.concatenate([np.arange(k), rng.integers(0, k, n - k)])
    basis, z = Basis(x), StandardScaler().fit_transform(x)
    for share, (w, b) in zip(PENALTIES, softmax_path(basis, codes, k), strict=True):
        weights, intercept = basis.weights(w, b)
        logits = x @ weights.T + intercept
        found = np.exp(logits - logits.max(1, keepdims=True))
        found /= found.sum(1, keepdims=True)
        # Two weight vectors of two classes share what scikit-learn puts into one.
        strength = (2 if k == 2 else 1) / (share * basis.unit)
        slow = LogisticRegression(C=strength, max_iter=20000, tol=1e-10).fit(z, codes).predict_proba(z)
        assert np.abs(found - slow).max() < 0.01


def test_features_are_scaled_each_or_all_alike_and_constant_ones_do_no_harm() -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_normal((40, 3)) * np.array([1.0, 100.0, 0.0])
    np.testing.assert_allclose(StandardScaler().fit_transform(x)[:, :2], ((x - Basis(x).mean) / Basis(x).scale)[:, :2])
    assert len(set(Basis(x, "whole").scale.tolist())) == 1
    assert np.isfinite(ridge_path(Basis(np.ones((40, 3))), x[:, 0])[0][1]).all()


def test_a_network_reads_what_no_line_can_and_its_setting_is_chosen_on_validation_rows() -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((600, 2))
    y = (x[:, 0] * x[:, 1] > 0).astype(float)
    rows = np.split(np.arange(600), [300, 450])
    target = Target(y, (0, 1))
    train, val = (target.with_labels(y[r]) for r in rows[:2])
    parts = Parts.of(x, *rows)
    reached = {kind: (fit_kind(kind, parts, train, val).test == y[rows[2]]).mean() for kind in (LINEAR, MLP)}
    assert reached[MLP] > 0.9
    assert reached[LINEAR] < 0.65
    numbers = Target(np.abs(x[:, 0]), ())
    curved = fit_kind(MLP, parts, numbers.with_labels(numbers.y[rows[0]]), numbers.with_labels(numbers.y[rows[1]]))
    assert np.corrcoef(curved.test, numbers.y[rows[2]])[0, 1] > 0.9
    with pytest.raises(ProbeError, match="choose of linear, mlp"):
        fit_kind("forest", parts, train, val)


# --- scores -----------------------------------------------------------------------------------------------------------

SLOW = {
    "kendall": lambda y, p: stats.kendalltau(y, p).statistic,
    "somers_d": lambda y, p: stats.somersd(y, p).statistic,
    "spearman": lambda y, p: stats.spearmanr(y, p).statistic,
    "pearson": lambda y, p: stats.pearsonr(y, p).statistic,
    "r2": r2_score,
    "mae": lambda y, p: np.abs(y - p).mean(),
    "accuracy": lambda y, p: (y == p).mean(),
    "macro_f1": lambda y, p: f1_score(y, p, average="macro"),
}


@pytest.mark.parametrize("metric", [*REGRESSION, *CLASSES])
def test_the_score_of_a_draw_is_the_score_of_the_drawn_rows(metric: str) -> None:
    rng = np.random.default_rng(4)
    y = rng.integers(0, 4, 40).astype(float)
    p = np.where(rng.random(40) < 0.6, y, rng.integers(0, 4, 40))
    p = p if metric in CLASSES else np.round(p + rng.standard_normal(40), 1)
    weights = group_draws(np.arange(40) // 2, 12, 0)
    found = score_draws(metric, y, p, weights)
    for w, value in zip(weights, found, strict=True):
        drawn = np.repeat(np.arange(40), w.astype(int))
        assert value == pytest.approx(SLOW[metric](y[drawn], p[drawn]), abs=1e-9)
    assert score(metric, y, p) == pytest.approx(SLOW[metric](y, p), abs=1e-9)


def test_predictions_that_are_all_alike_order_nothing() -> None:
    y = np.arange(10.0)
    for metric in ("kendall", "somers_d", "spearman", "pearson"):
        assert score(metric, y, np.full(10, 0.1)) == 0


def test_somers_d_reaches_1_where_labels_are_tied_and_tau_b_cannot() -> None:
    y = np.repeat([2.0, 4.0, 7.0], 20)
    exact = y + np.linspace(0, 0.1, 60)
    assert score("somers_d", y, exact) == pytest.approx(1)
    assert score("kendall", y, exact) == pytest.approx(0.82, abs=0.01)


# --- seeds ------------------------------------------------------------------------------------------------------------


def test_seeds_are_not_counted_as_independent() -> None:
    rng = np.random.default_rng(5)
    draws = [rng.normal(0, 0.1, 4000) for _ in range(3)]
    one = join([0.3], draws[:1], Design(1, 300, 100, 100))
    three = join([0.2, 0.3, 0.4], draws, Design(3, 300, 100, 100))
    many = join([0.3] * 50, draws[:1] * 50, Design(50, 300, 100, 100))
    same = join([0.2, 0.3, 0.4], draws, Design(3, 300, 100, 100, same_test=True))
    assert one.error == pytest.approx(0.1, rel=0.05)
    assert three.value == pytest.approx(0.3)
    assert three.error == pytest.approx(0.1 * np.sqrt(1 / 3 + 1 / 3), rel=0.05)  # not 0.1 / sqrt(3)
    assert many.error > 0.1 * np.sqrt(1 / 3)
    assert same.error == pytest.approx(0.1, rel=0.05)


def test_a_bound_is_one_sided_an_interval_two_sided_and_few_groups_widen_both() -> None:
    joint = Joint(0.3, 0.1, 10**6)
    assert joint.bound(0.01) == pytest.approx(0.3 - 2.326 * 0.1, abs=1e-3)
    assert joint.interval() == pytest.approx((0.104, 0.496), abs=1e-3)
    assert joint.interval(within=(0.2, 0.4)) == (0.2, 0.4)
    assert Joint(0.3, 0.1, 4).bound(0.01) < joint.bound(0.01)
    assert joint.p == pytest.approx(0.00135, abs=1e-5)
    assert (Joint(0.1, 0, 9).p, Joint(0.0, 0, 9).p) == (0, 1)


def test_holm_stops_at_the_first_hypothesis_that_stands() -> None:
    assert holm([0.001, 0.03, 0.006, 0.2], 0.02) == [True, False, True, False]
    assert holm([0.02, 0.001], 0.02) == [True, True]
    assert holm([], 0.01) == []


# --- baselines --------------------------------------------------------------------------------------------------------


def test_labels_dealt_anew_keep_groups_alike() -> None:
    groups = np.repeat(np.arange(30), 3)
    y = np.repeat(np.random.default_rng(0).integers(0, 3, 30), 3).astype(float)
    anew = foils.dealt_anew(y, groups, np.random.default_rng(1))
    assert all(len(set(anew[groups == g])) == 1 for g in range(30))
    assert sorted(anew) == sorted(y)
    assert (anew != y).any()
    mixed = foils.dealt_anew(np.arange(5.0), np.array(list("aabbb")), np.random.default_rng(0))
    assert len(mixed) == 5


def test_the_first_token_is_what_could_be_seen_by_drawing_not_a_copy_of_the_last_state() -> None:
    p = np.array([[0.9, 0.0999, 0.0001], [0.2, 0.795, 0.005], [0.6, 0.39, 0.01]])
    kept = foils.token_features(p, np.array([0, 1]))
    np.testing.assert_allclose(kept[:, :2], np.sqrt(p[:, :2]))  # the third is never seen in the training rows
    np.testing.assert_array_equal(kept[:, 2:], [[1, 0], [0, 1], [1, 0]])


def test_what_the_model_says_when_asked_is_compared_and_silence_is_the_majority() -> None:
    plain = examples(at_prompt=0.0)
    right = fit_plan(dataclasses.replace(plain, asked=plain.labels.tolist()), kinds=LINEAR_ONLY, seeds=(0,))
    silent = fit_plan(dataclasses.replace(plain, asked=[None] * 300), kinds=LINEAR_ONLY, seeds=(0,))
    wrong = fit_plan(dataclasses.replace(plain, asked=["dog"] * 300), kinds=LINEAR_ONLY, seeds=(0,))
    found = [f.baselines.set_index(["baseline", "metric"]) for f in (right, silent, wrong)]
    assert found[0].loc[("asked", "accuracy"), "value"] == 1
    assert found[1].loc[("asked", "accuracy"), "value"] == found[1].loc[("majority", "accuracy"), "value"]
    assert found[2].loc[("asked", "accuracy"), "value"] == 0
    assert [f.loc[("asked", "accuracy"), "coverage"] for f in found] == [1, 0, 1]
    assert right.verdict.claim != "planned"
    with pytest.raises(ProbeError, match="is no number; give None"):
        fit_plan(examples(kind="regression", asked=["many"] * 300), kinds=LINEAR_ONLY)


def test_baselines_without_input_are_named() -> None:
    bare = examples(at_prompt=1.0, texts=None, lengths=None, embedding=None, first_token=None)
    fit = fit_plan(bare, kinds=LINEAR_ONLY, seeds=(0,))
    assert set(fit.missing) == {"prompt length", "bag of words", "embedding layer", "first token", "asked"}
    assert "not compared with" in fit.report()
    assert set(fit.baselines["baseline"]) == {"majority", "shuffled labels"}


def test_what_was_written_so_far_stands_beside_the_segments_and_decides_nothing() -> None:
    told = examples(along=(0.0, 1.0), words=1.0)
    texts = [["" for _ in range(300)], list(told.texts or [])]
    more = dataclasses.replace(told, written=texts, written_lengths=np.ones((300, 2)), texts=["same"] * 300)
    table = fit_plan(more, kinds=LINEAR_ONLY, seeds=(0,)).baselines
    so_far = table[(table["baseline"] == "words so far") & (table["metric"] == "accuracy")].set_index("position")
    assert list(so_far.index) == ["part 1", "part 2"]
    assert so_far.loc["part 2", "value"] == 1
    assert so_far.loc["part 1", "value"] < 0.5
    assert "length so far" in set(table["baseline"])


# --- what cannot be used ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"labels": np.array(["fox"] * 300)}, "all 300 labels are 'fox'.*give prompts on which it varies"),
        ({"labels": [None, *["fox", "bear"] * 149, "fox"]}, "1 of 300 labels are missing.*leave out"),
        ({"kind": "regression", "labels": np.array([np.nan] * 300)}, "300 of 300 labels are missing"),
        ({"kind": "regression", "labels": ["many"] * 300}, "needs numbers as labels"),
        ({"labels": np.array(["rare"] * 3 + ["fox", "bear", "mole"] * 99)}, "'rare' has 3 answers, too few"),
        ({"groups": np.arange(300) % 4}, "are of 4 groups.*add prompts of other groups"),
        ({"groups": np.arange(7)}, "300 labels and 7 groups"),
        ({"prompt": np.zeros((300, 2, 4))}, r"prompt must be \[row, layer, d\]"),
        ({"segments": (Segment("start"),)}, "names of their segments"),
        ({"texts": ["a"]}, "texts has 1 rows"),
        ({"first_token": np.full((300, 4), -2.0)}, "not logits"),
        ({"embedding": np.full((300, 4), np.nan)}, "embedding has values that are NaN"),
        ({"parts": np.array(["train", "test"] * 150)}, "parts must name train, val, test"),
        ({"parts": np.array(["train", "val", "test"] * 100)}, "keep it whole"),
    ],
)
def test_what_cannot_be_used_is_said_with_the_attribute_and_the_remedy(change: dict, says: str) -> None:
    with pytest.raises(ProbeError, match=says) as error:
        examples(**change)
    assert "'ending'" in str(error.value)


def test_too_few_answers_and_states_that_overflowed_are_said() -> None:
    with pytest.raises(ProbeError, match="49 answers are too few.*add prompts"):
        examples(n=49, group=1)
    holed = examples()
    holed.prompt[3, 1, 2] = np.inf
    with pytest.raises(ProbeError, match="'ending', layer 1, last prompt token: a state is NaN or infinite"):
        fit_plan(holed, kinds=LINEAR_ONLY)
    tied = examples(
        groups=np.where(np.arange(300) < 60, 0, np.arange(300)), labels=np.repeat(["fox", "bear"], [60, 240])
    )
    with pytest.raises(ProbeError, match="attribute 'ending': the class 'fox' is in 1 group"):
        fit_plan(tied, kinds=LINEAR_ONLY)


def test_settings_that_are_none_are_said() -> None:
    some = examples()
    for settings, says in (
        ({"kinds": ("tree",)}, "choose of"), ({"seeds": ()}, "one or more"), ({"seeds": (1, 1)}, "each once"),
        ({"metric": "auc"}, "accuracy, macro_f1"), ({"alpha": 0.7}, "alpha"), ({"draws": 5}, "draws >= 100"),
        ({"widths": ()}, "widths"),
    ):  # fmt: skip
        with pytest.raises(ProbeError, match=says):
            fit_plan(some, **settings)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ProbeError, match="kendall, spearman, pearson, r2"):
        fit_plan(examples(kind="regression"), metric="mae")


# --- the whole --------------------------------------------------------------------------------------------------------


def test_groups_never_straddle_parts_and_seeds_split_anew() -> None:
    some = examples(group=3)
    splits = [some.split(seed) for seed in (0, 1)]
    for part in splits:
        assert all(len(set(part[some.groups == g])) == 1 for g in set(some.groups))
        assert [abs((part == p).mean() - share) < 0.04 for p, share in (("train", 0.6), ("val", 0.2), ("test", 0.2))]
    assert (splits[0] != splits[1]).any()


def test_the_same_seed_gives_the_same_bytes_and_the_order_of_seeds_is_kept() -> None:
    some = examples(at_prompt=0.4, along=(0.2, 0.8), n=120, d=6, texts=None)
    one, two = (fit_plan(some, seeds=(3, 1), draws=100, widths=(8,)) for _ in range(2))
    for table in ("scores", "chosen", "best", "baselines", "differences", "networks"):
        assert getattr(one, table).to_json(double_precision=15) == getattr(two, table).to_json(double_precision=15)
    assert one.verdict == two.verdict
    assert one.predictions().equals(two.predictions())
    assert one.seeds == (3, 1)


def test_tables_hold_every_score_and_predictions_give_them_back() -> None:
    fit = fit_plan(examples(kind="regression", at_prompt=0.6), kinds=LINEAR_ONLY, seeds=(0, 1))
    assert set(fit.best["metric"]) == set(REGRESSION)
    rows = fit.predictions()
    taus = [stats.kendalltau(r["label"], r[PROMPT]).statistic for _, r in rows.groupby("seed")]
    found = fit.best.set_index("metric")
    assert found.loc["kendall", "value"] == pytest.approx(np.mean(taus))
    assert (fit.best["low"] <= fit.best["value"]).all()
    assert (fit.best["value"] <= fit.best["high"]).all()
    assert found.loc["mae", "value"] > 0
    assert fit.to_frame() is fit.scores
    gap = fit.differences.set_index("baseline").loc["bag of words", "difference"]
    words = fit.baselines.set_index(["baseline", "metric"]).loc[("bag of words", "somers_d"), "value"]
    assert gap == pytest.approx(found.loc["somers_d", "value"] - words)


def test_the_layer_is_chosen_on_validation_rows() -> None:
    fit = fit_plan(examples(at_prompt=0.7), kinds=LINEAR_ONLY)
    for found in fit.rounds:
        layer = found.chosen[PROMPT, LINEAR]
        assert layer in (1, 2)  # the first carries nothing
        assert found.probe(PROMPT, LINEAR).val == max(found.cells[PROMPT, at, LINEAR].val for at in (0, 1, 2))


def test_a_split_that_prompts_bring_holds_for_every_seed_and_is_no_more_evidence_for_them() -> None:
    groups = np.arange(300) // 2
    parts = np.array(["train", "train", "train", "val", "test"])[groups % 5]
    some = examples(at_prompt=0.5, parts=parts)
    three, one = fit_plan(some, kinds=LINEAR_ONLY), fit_plan(some, kinds=LINEAR_ONLY, seeds=(0,))
    assert all((r.split[2] == np.flatnonzero(parts == "test")).all() for r in three.rounds)
    assert three.rounds[1].cells[PROMPT, 1, LINEAR] is three.rounds[0].cells[PROMPT, 1, LINEAR]
    widths = [f.comparisons.probe[PROMPT].error for f in (three, one)]
    assert widths[0] == pytest.approx(widths[1], rel=0.1)


def test_a_linear_probe_gives_its_weights_and_a_direction() -> None:
    some = examples(at_prompt=1.0)
    fit = fit_plan(some, kinds=LINEAR_ONLY, seeds=(0,))
    probe, found = fit.linear(), fit.rounds[0]
    assert probe.layer == found.chosen[PROMPT, LINEAR]
    test = some.prompt[found.split[2], probe.layer]
    assert (probe.predict(test) == np.array(NAMES_SORTED)[found.probe(PROMPT, LINEAR).test.astype(int)]).all()
    towards = probe.direction("fox")
    means = [(some.prompt[some.labels == c, probe.layer] @ towards).mean() for c in NAMES]
    assert int(np.argmax(means)) == NAMES.index("fox")
    with pytest.raises(ProbeError, match="towards which class"):
        probe.direction()
    with pytest.raises(ProbeError, match="seed 9 was not fitted"):
        fit.linear(seed=9)
    with pytest.raises(ProbeError, match="layer 7 was not fitted"):
        fit.linear(7)
    more = fit_plan(examples(kind="regression", at_prompt=1.0), kinds=LINEAR_ONLY, seeds=(0,)).linear()
    assert more.direction().shape == (16,)
    assert more.values(test).shape == (len(test),)


NAMES_SORTED = tuple(sorted(NAMES))


# --- transfer ---------------------------------------------------------------------------------------------------------


def test_a_probe_holds_on_other_prompts_where_the_attribute_is_written_alike() -> None:
    whole = examples(at_prompt=1.0, n=600)
    halves = [_rows(whole, np.arange(0, 300)), _rows(whole, np.arange(300, 600))]
    other = examples(seed=9, at_prompt=1.0, groups=np.array([f"h{i // 2}" for i in range(300)]))
    alike = plan_transfer({"one": halves[0], "two": halves[1]})
    apart = plan_transfer({"one": halves[0], "two": other})
    assert alike.matrix().loc["one", "two"] > 0.9
    assert apart.matrix().loc["one", "two"] < 0.6  # its own direction is another one
    assert apart.matrix().loc["two", "two"] > 0.9
    row = apart.table[(apart.table["train"] == "one") & (apart.table["test"] == "two")].iloc[0]
    assert row["difference_high"] < 0
    assert len(alike.to_frame()) == 4


def test_groups_that_another_set_trains_on_are_tested_in_neither() -> None:
    whole = examples(at_prompt=1.0, n=600)
    shared = _rows(whole, np.arange(0, 400)), _rows(whole, np.arange(200, 600))
    table = plan_transfer({"one": shared[0], "two": shared[1]}).table
    assert (table["n"] < 80).all()
    with pytest.raises(ProbeError, match="another set too"):
        plan_transfer({"one": shared[0], "two": dataclasses.replace(shared[0], parts=_rolled(shared[0]))})
    with pytest.raises(ProbeError, match="two sets"):
        plan_transfer({"one": whole})
    with pytest.raises(ProbeError, match="differ in kind"):
        plan_transfer({"one": whole, "two": examples(kind="regression")})
    with pytest.raises(ProbeError, match="differ in width"):
        plan_transfer({"one": whole, "two": examples(d=8)})


def _rows(some, rows):  # noqa: ANN001, ANN202
    fields = ("labels", "groups", "prompt", "lengths", "embedding", "first_token")
    kept = {name: getattr(some, name)[rows] for name in fields}
    return dataclasses.replace(some, **kept, texts=[some.texts[i] for i in rows])


def _rolled(some):  # noqa: ANN001, ANN202
    return np.array([{"train": "train", "val": "test", "test": "val"}[p] for p in some.split(0)])
