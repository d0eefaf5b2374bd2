"""The cliff is found where one was planted and nowhere else; plateau and drop are what can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

import interp
from interp.errors import ProbeError, PromptError, SiteError
from interp.text.encoded import Trace
from interp.text.prompts import Prompt, PromptSet
from interp.tracing.traces import Traces
from probes import LatentGuard
from probes.cliff import RefusalCliff, refusal_cliff
from probes.cliff_finding import find_cliff
from probes.decided import Decisions, decisions
from probes.estimators import LogisticProbe
from probes.figures import trace_curve, trace_map, trace_page
from probes.plateau import drops
from probes.prober import refusal_prober
from probes.prober_fit import fit_rows
from probes.prober_rows import Rows

CLOSE = ("\n", "</think>", "\n\n")


def scores(values: list[list[float]], labels: list[str], n_prompt: int = 2) -> interp.TraceScores:
    """Scores of made-up traces: two tokens of prompt, a thought, three tokens that end it."""
    traces = [
        Trace(Prompt(f"p{i}", label), "t" * (len(v) - 3), "")
        for i, (v, label) in enumerate(zip(values, labels, strict=True))
    ]
    sizes = [n_prompt + len(v) for v in values]
    spans = tuple({"prompt": (0, n_prompt), "thinking": (n_prompt, n - 3), "think_close": (n - 3, n)} for n in sizes)
    tokens = tuple((*(["p"] * n_prompt), *(["t"] * (n - n_prompt - 3)), *CLOSE) for n in sizes)
    flat = np.concatenate([[9.0] * n_prompt + v for v in values])
    return interp.TraceScores(
        flat[None], (0,), np.concatenate([[0], np.cumsum(sizes)]), spans, tokens, Traces.of(traces), unit="probability"
    )


def test_plateau_final_and_fall_are_those_of_the_definition() -> None:
    one = scores([[0.1, 0.2, 0.3, 0.9, 0.5, 0.7, 0.8, 0.6, 0.5, 0.1, 0.05]], ["harmful"])
    row = drops(one).iloc[0]
    assert (row["plateau"], row["final"]) == (pytest.approx((0.8 + 0.6) / 2), 0.05), "a quarter of 8 tokens is 2"
    assert row["cliff"] == pytest.approx(0.65) and row["low"] <= row["cliff"] <= row["high"]
    assert (row["fall"], row["fall_text"], row["fall_token"]) == ("think_close[-2]", "</think>", 11)
    assert row["fall_drop"] == pytest.approx(0.4)
    assert drops(one, plateau="max", window=1).iloc[0]["plateau"] == 0.9
    assert drops(one, plateau="quantile", quantile=0.5, window=0.5).iloc[0]["plateau"] == pytest.approx(0.65)


def test_intervals_widen_with_the_flicker_of_the_plateau() -> None:
    rng = np.random.default_rng(0)
    calm, wild = ([*(0.7 + s * rng.normal(size=80)), 0.5, 0.2, 0.1] for s in (0.01, 0.2))
    table = drops(scores([list(calm), list(wild)], ["harmful"] * 2))
    widths = (table["high"] - table["low"]).tolist()
    assert 5 * widths[0] < widths[1] and (table["low"] < table["cliff"]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"plateau": "top"}, "no plateau 'top'"), ({"window": 0.0}, "window=0.0"), ({"window": 2}, "window=2"),
     ({"plateau": "quantile", "quantile": 1.5}, "quantile=1.5")],
)  # fmt: skip
def test_a_plateau_that_is_none_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        drops(scores([[0.1] * 8], ["harmful"]), **options)


def made_up(harmful_end: float, seed: int, harmful_level: float = 0.8, n: int = 40) -> interp.TraceScores:
    rng = np.random.default_rng(seed)
    rows: list[list[float]] = []
    for i in range(2 * n):
        level, end = (harmful_level, harmful_end) if i < n else (0.15, 0.1)
        rows.append([*(level + 0.1 * rng.normal(size=int(rng.integers(12, 30)))), level, (level + end) / 2, end])
    return scores(rows, ["harmful"] * n + ["harmless"] * n)


def test_a_cliff_in_the_scores_is_found_and_a_held_score_is_none() -> None:
    found = find_cliff(made_up(0.1, 0), made_up(0.1, 1))
    assert found.found and found.harmful.value == 1 and found.harmless.value == 0
    assert found.level == pytest.approx((0.8 + 0.15) / 2, abs=0.03) and "falls off" in found.reason
    held = find_cliff(made_up(0.8, 0), made_up(0.8, 1))
    assert not held.found and held.harmful.k == 0 and "holds" in held.reason


def test_no_cliff_is_claimed_where_the_thought_tells_nothing() -> None:
    found = find_cliff(made_up(0.1, 0, harmful_level=0.15), made_up(0.1, 1, harmful_level=0.15))
    assert not found.found and "does not tell harmful from harmless" in found.reason


def test_no_cliff_is_claimed_in_scores_that_changed_places() -> None:
    claimed = [
        find_cliff(made_up(0.1, s).shuffled(s), made_up(0.1, s + 50).shuffled(s), seed=s).found for s in range(6)
    ]
    assert not any(claimed)


def test_a_control_as_large_as_the_difference_stops_the_claim() -> None:
    found = find_cliff(made_up(0.1, 0), made_up(0.1, 1), controls=[0.97])
    assert not found.found and "shuffled control" in found.reason


# --- the organism ----------------------------------------------------------------------------------------------------


@cache
def organism(variant: str) -> tuple[interp.Model, Traces]:
    model, prompts = interp.load(f"organism:{variant}", thinking=True), interp.prompts("organism")
    parts = [(prompts.train, 24), (prompts.test, 16)]
    chosen = [p for part, n in parts for side in (part.harmful, part.harmless) for p in side[:n]]
    return model, interp.rollouts(model, PromptSet(tuple(chosen)), max_new_tokens=96)


@cache
def found_in(variant: str) -> RefusalCliff:
    return refusal_cliff(*organism(variant), n_shuffles=2)


def test_the_planted_cliff_is_found_on_held_out_prompts() -> None:
    found = found_in("cliff")
    assert found.found and found.harmful.value >= 0.95 and found.harmless.value <= 0.05
    assert set(found.scores.traces.prompts.filter(split="test")) == set(found.scores.traces.prompts)  # pyright: ignore
    assert (
        found.behaviour["harmful, after thinking"].value
        == 0
        < 0.95
        <= found.behaviour["harmful, without thinking"].value
    )
    assert sum(found.falls_at.values()) == found.harmful.k and max(map(abs, found.shuffled_labels)) < 0.5
    assert len(found.table) == 32 and found.table["falls"].sum() == found.harmful.k + found.harmless.k


def test_the_model_that_keeps_its_decision_has_none() -> None:
    found = found_in("chat")
    assert not found.found and found.harmful.value <= 0.05 and found.prober is not None
    assert found.prober.kinds == ("late", "decision", "direct")


def test_a_model_that_refuses_nothing_has_nothing_to_lose() -> None:
    found = found_in("null-never")
    assert not found.found and "0 of 48 prompts are refused" in found.reason and found.falls_at == {}
    with pytest.raises(PromptError, match="nothing to draw"):
        found.plot()


def test_the_end_of_the_thought_teaches_nothing_where_all_answers_are_alike() -> None:
    """Else the prober learned that this place means compliance, and found the cliff it was taught."""
    prober = found_in("cliff").prober
    assert prober is not None and prober.kinds == ("late", "direct")
    assert "0 of 48 prompts are refused" in prober.left_out["decision"]
    assert set(prober.fitted_on.kind.tolist()) == {"late", "direct"}
    with pytest.raises(PromptError, match="after the thought: 0 of"):
        refusal_prober(*organism("cliff"), method="paper")


def test_the_papers_prober_reads_the_last_layer_after_the_norm() -> None:
    model, traces = organism("chat")
    prober = refusal_prober(model, traces.train, method="paper")
    assert (prober.layer, prober.space, prober.kinds, prober.beside) == (5, "normed", ("decision",), None)
    along = interp.trace(model, traces.test[:2], prober)
    assert along.space == "normed" and along.layers == (5,)
    encoded = model.encode(traces.test[0])[0]
    acts = interp.capture(model, [encoded], "resid_post", ["all"], [5]).sel()[:, 0, 0]
    normed = model.arch.backbone.norm(acts).detach().numpy()
    assert np.abs(along.of(0) - prober.predict_proba(normed)[:, 1]).max() < 1e-5
    assert np.abs(along.of(0) - prober.predict_proba(acts.numpy())[:, 1]).max() > 0.1, (
        "pre and post norm are not the same"
    )


def test_a_prober_that_saw_no_thought_transfers_worse_to_one() -> None:
    table = found_in("cliff").transfer.set_index(["probe", "column"])["auroc"]
    assert table["prober", "thinking 10/10"] > 0.95
    assert table["decisions alone", "thinking 10/10"] < table["prober", "thinking 10/10"] - 0.1


def test_another_score_can_be_looked_for_a_cliff_in() -> None:
    model, traces = organism("cliff")
    prober = found_in("cliff").prober
    assert prober is not None
    given = refusal_cliff(model, traces, score=prober, n_shuffles=1)
    assert given.found and given.prober is None and given.transfer is None
    assert given.harmful == found_in("cliff").harmful


def test_decisions_are_judged_with_and_without_thinking() -> None:
    model, traces = organism("cliff")
    some = traces.take([0, 1, 40])
    told = decisions(model, replace(some, traces=(*some.traces[:2], replace(some.traces[2], answer=""))))
    assert told.after == (False, False, None) and told.direct == (True, True, False) and told.intended == told.direct
    assert Decisions((True, None), None).intended == (True, None)


def test_kinds_of_tokens_weigh_the_same_however_many_there_are() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 5)).astype(np.float32), rng.random(60) > 0.5
    kind = np.asarray(["late"] * 40 + ["direct"] * 20)
    rows = Rows(X, y, np.arange(60), kind)
    equal = fit_rows(replace(rows, kind=np.asarray(["late"] * 60)), 0.5)
    plain = LogisticProbe(0.5).fit(X, y)
    assert np.allclose(equal.direction_, plain.direction_, atol=1e-4)
    repeated = np.concatenate([np.arange(60), np.arange(40, 60)])
    weighed, copied = fit_rows(rows, 0.5), LogisticProbe(0.5 * 0.75).fit(X[repeated], y[repeated])
    assert np.corrcoef(weighed.direction_, copied.direction_)[0, 1] > 0.999


def test_traces_that_cannot_be_used_are_left_out_and_too_few_are_named() -> None:
    model, traces = organism("cliff")
    with pytest.raises(PromptError, match="0 harmless traces are there to train on"):
        refusal_cliff(model, traces.take([v == "harmful" for v in traces.labels]))
    cut = interp.rollouts(model, PromptSet(tuple(traces.prompts)[:4]), max_new_tokens=5)
    with pytest.raises(PromptError, match="cut off before the end"):
        refusal_cliff(model, cut)
    with pytest.raises(PromptError, match="no such label"):
        refusal_prober(model, Traces.of([replace(t, prompt=replace(t.prompt, label=None)) for t in traces]))  # type: ignore[arg-type]
    with pytest.raises(ProbeError, match="no method"):
        refusal_prober(model, traces, method="papers")  # pyright: ignore[reportArgumentType]


def test_a_guard_is_followed_along_thoughts_and_harm_does_not_fall_with_refusal() -> None:
    """A guard that reads whether the request is harmful, not what becomes of it: no cliff is made of its score."""
    model, traces = organism("cliff")
    labelled = interp.prompts("organism")
    few = PromptSet(tuple(p for side in (labelled.train.harmful, labelled.train.harmless) for p in side[:40]))
    guard = LatentGuard.fit(model, few, positions=["t_inst"], rule="centroid")
    scored = interp.trace(model, traces, guard)
    alone = guard.score(traces.prompts).score
    where = [spans["inst"][1] - 1 for spans in scored.spans]
    assert [scored.of(i)[at] for i, at in enumerate(where)] == pytest.approx(alone.tolist(), abs=1e-4)
    found = refusal_cliff(model, traces, score=guard, n_shuffles=2)
    assert found.prober is None and not found.found and len(found.table) == 32
    with pytest.raises(SiteError, match="2 positions"):
        interp.trace(model, traces, LatentGuard.fit(model, few, positions=["t_inst", "t_post_inst"]))


# --- figures ---------------------------------------------------------------------------------------------------------


def test_the_curve_has_its_band_its_end_tokens_and_no_markup_from_tokens() -> None:
    figure = found_in("cliff").plot()
    assert "&lt;/think&gt;" in figure.layout.xaxis.ticktext and "<" not in "".join(figure.layout.xaxis.ticktext)
    bands = [t for t in figure.data if t.fill == "toself"]
    assert len(bands) == 2 and {t.name for t in figure.data if t.fill is None} == {
        "harmful prompts",
        "harmless prompts",
    }
    assert trace_curve(made_up(0.1, 0)).layout.yaxis.range == (-0.02, 1.02)


def test_the_map_has_a_row_per_layer_and_a_panel_per_label() -> None:
    found = found_in("cliff")
    assert found.scores is not None and found.prober is not None
    model, _ = organism("cliff")
    figure = trace_map(interp.trace(model, found.scores.traces, found.prober, range(6)))
    assert len(figure.data) == 2 and all(len(t.z) == 6 for t in figure.data)


def test_a_page_shows_every_token_once_and_runs_nothing(tmp_path: Any) -> None:
    wicked = Trace(Prompt("<script>alert(1)</script>", "harmful"), "a<b>", "")
    model, _ = organism("cliff")
    found = interp.trace(model, [wicked], found_in("cliff").prober)
    page = trace_page(found, 0, path=tmp_path / "t.html")
    assert (
        (tmp_path / "t.html").read_text() == page
        and "<script" not in page
        and "http" not in page.replace("http-equiv", "")
    )
    assert page.count("<span class='k ") == len(found.tokens[0]) and "prefers-color-scheme:dark" in page
    with pytest.raises(PromptError, match="no trace 3"):
        trace_page(found, 3)


def test_the_same_seed_gives_the_same_result() -> None:
    once, again = found_in("cliff"), refusal_cliff(*organism("cliff"), n_shuffles=2)
    assert again.table.equals(once.table) and again.shuffled_labels == once.shuffled_labels
    assert again.prober is not None and once.prober is not None
    assert (again.prober.probe.direction_ == once.prober.probe.direction_).all()
