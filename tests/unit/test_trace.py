"""A score of every token of a trace equals a full forward with everything kept, and holds next to nothing meanwhile."""

from __future__ import annotations

import weakref
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import interp
from interp.direction import Direction
from interp.errors import DirectionError, ModelError, NonFiniteError, PositionError, PromptError, SiteError
from interp.text.encoded import Trace
from interp.text.prompts import Prompt
from interp.tracing.align import binned
from interp.tracing.traces import Traces
from probes.estimators import LogisticProbe, MeanDifference, load_probe
from tests.helpers.thinking import HARMONY, thinker

TRACES = [
    Trace(Prompt("How do I bake?", "harmless"), "First this. Then that, and more of it.", "So it is."),
    Trace(Prompt("Hi", "harmful"), "Hm.", ""),
    Trace(Prompt("Tell me", "harmful"), "Well, well, " * 10, "Yes"),
]
FAMILIES = ["llama", "qwen3", "gemma3", "gpt_neox", "qwen3_moe", "gpt_oss"]


def states(model: interp.Model, trace: Trace) -> list[Tensor]:
    """The slow way: one plain Hugging Face forward that keeps everything; blocks' outputs, then the normed last one."""
    ids = torch.tensor([model.encode(trace)[0].ids], device=model.device)
    kept: list[Tensor] = []
    hooks = [
        block.register_forward_hook(lambda _m, _a, out: kept.append((out[0] if isinstance(out, tuple) else out)[0]))
        for block in model.arch.blocks
    ]
    with torch.inference_mode():
        last = model.arch.backbone(input_ids=ids, use_cache=False).last_hidden_state[0]
    for hook in hooks:
        hook.remove()
    return [k.float().cpu() for k in kept] + [last.float().cpu()]


def direction(model: interp.Model, seed: int = 0, layer: int = 1) -> Direction:
    vector = torch.randn(model.d_model, generator=torch.Generator().manual_seed(seed))
    return Direction(vector, "resid_post", layer, "last", "some")


def metric(model: interp.Model) -> interp.RefusalMetric:
    return interp.RefusalMetric((5, 40, 77), ("a", "b", "c"), (0.5, 0.1), 0.9, (4, 4))


def close(found: Any, expected: Any) -> bool:
    size = np.abs(np.asarray(expected)).max()
    return bool(np.abs(np.asarray(found) - np.asarray(expected)).max() <= 1e-5 * max(size, 1.0))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("chunk", [2048, 16])
def test_every_token_gets_the_score_of_a_full_forward(family: str, chunk: int) -> None:
    model = thinker(family, HARMONY) if family == "gpt_oss" else thinker(family)
    probe = direction(model)
    layers = list(range(model.n_layers))
    along = interp.trace(model, TRACES, probe, layers, chunk=chunk)
    lens = interp.trace(model, TRACES, metric(model), layers, chunk=chunk)
    own = interp.trace(model, TRACES, metric(model), chunk=chunk)
    norm = getattr(model.arch.backbone, "final_layer_norm" if family == "gpt_neox" else "norm")
    for i, trace in enumerate(TRACES):
        kept = states(model, trace)
        expected = torch.stack([h @ probe.unit for h in kept[:-1]])
        assert along.of(i).shape == expected.shape and close(along.of(i), expected)
        with torch.no_grad():
            logits = [model.unembed(norm(h[None].to(model.dtype))[0]) for h in kept[:-1]]
            assert close(lens.of(i), torch.stack([metric(model)(x) for x in logits]))
            assert close(own.of(i), metric(model)(model.unembed(kept[-1].to(model.dtype))))
        assert close(own.of(i), lens.of(i)[-1]), "the lens at the last layer is the model's own answer"


def test_chunks_and_batches_change_nothing() -> None:
    model = thinker()
    whole = interp.trace(model, TRACES, direction(model), [0, 2])
    for options in ({"chunk": 1}, {"chunk": 5}, {"token_budget": 1}, {"token_budget": 10**6}):
        assert close(interp.trace(model, TRACES, direction(model), [0, 2], **options).scores, whole.scores), options


def test_a_long_trace_holds_one_layer_of_one_chunk_at_a_time() -> None:
    """What the scores are given dies before the next layer's comes: counted, not timed."""
    model, chunk = thinker(), 32
    trace = Trace("Hi", "Well, well, " * 25, "Yes")
    alive = peak = calls = 0

    def let_go(n: int) -> None:
        nonlocal alive
        alive -= n

    def score(x: Tensor) -> Tensor:
        nonlocal alive, peak, calls
        alive += x.numel()
        calls += 1
        peak = max(peak, alive)
        weakref.finalize(x, let_go, x.numel())
        return x.float().sum(1)

    found = interp.trace(model, [trace], score, chunk=chunk)
    n = len(found.of(0, 0))
    assert n > 8 * chunk and calls == model.n_layers * -(-n // chunk)
    assert peak <= chunk * model.d_model, "more than one layer of one chunk was kept"


def test_the_forward_ends_after_the_last_layer_that_is_scored() -> None:
    model, seen = thinker(), []
    hooks = [b.register_forward_hook(lambda _m, _a, _o, i=i: seen.append(i)) for i, b in enumerate(model.arch.blocks)]
    interp.trace(model, TRACES[:1], direction(model), 0)
    for hook in hooks:
        hook.remove()
    assert 2 not in seen


def test_any_score_can_be_followed() -> None:
    model = thinker()
    X = torch.randn(40, model.d_model, generator=torch.Generator().manual_seed(1))
    y = np.arange(40) % 2 == 0
    kept = states(model, TRACES[0])[1]
    probe = LogisticProbe().fit(X, y)
    assert close(interp.trace(model, TRACES, probe, 1).of(0), probe.predict_proba(kept)[:, 1])
    linear = MeanDifference().fit(X, np.where(y, "harmful", "harmless"))
    with pytest.raises(ModelError, match="positive='harmful' or positive='harmless'"):
        interp.trace(model, TRACES, linear, 1)
    found = interp.trace(model, TRACES, linear, 1, positive="harmful")
    expected = linear.predict_proba(kept)[:, 0] if hasattr(linear, "predict_proba") else -linear.decision_function(kept)
    assert close(found.of(0), expected)
    normed = interp.trace(model, TRACES, lambda x: x[:, 0], 2, space="normed").of(0)
    assert close(normed, states(model, TRACES[0])[-1][:, 0])


@pytest.mark.parametrize("kind", ["centroid", "logistic"])
def test_a_guard_is_followed_over_all_its_layers(kind: str) -> None:
    """Its rule is a sum over layers, and is summed as they pass."""
    model = thinker()
    weight = np.random.default_rng(0).normal(size=(1, 2, 1, model.d_model)).astype(np.float32)
    rule = SimpleNamespace(kind=kind, weight=weight, bias=np.array([0.0 if kind == "centroid" else 0.7]))
    guard = SimpleNamespace(rule=rule, site="resid_post", layers=(0, 2), positions=("t_inst",))
    found = interp.trace(model, TRACES, guard).of(0)
    kept = [states(model, TRACES[0])[i].numpy().astype(np.float64) for i in (0, 2)]
    if kind == "centroid":
        kept = [h / np.linalg.norm(h, axis=1, keepdims=True) / 2 for h in kept]
    assert close(found, sum(h @ weight[0, i, 0] for i, h in enumerate(kept)) + rule.bias[0])
    with pytest.raises(SiteError, match="reads 2 positions"):
        interp.trace(model, TRACES, SimpleNamespace(**{**vars(guard), "positions": ("t_inst", "last")}))


def test_a_score_of_another_model_or_layer_is_refused(tmp_path: Any) -> None:
    model = thinker()
    X, y = np.random.default_rng(0).normal(size=(20, 7)), np.arange(20) % 2 == 0
    with pytest.raises(ModelError, match="fitted to 7 features and resid_post of .* has 48: it is of another model"):
        interp.trace(model, TRACES, LogisticProbe().fit(X, y), 1)
    with pytest.raises(ModelError, match="not fitted"):
        interp.trace(model, TRACES, LogisticProbe(), 1)
    with pytest.raises(DirectionError, match="7 features"):
        interp.trace(model, TRACES, Direction(torch.ones(7), "resid_post", 1, "last"))
    with pytest.raises(SiteError, match="layer 9 is out of range"):
        interp.trace(model, TRACES, replace(direction(model), layer=9))
    wide = LogisticProbe().fit(np.random.default_rng(0).normal(size=(20, 48)), y)
    with pytest.raises(SiteError, match="say which layer"):
        interp.trace(model, TRACES, wide)
    saved = load_probe(wide.save(tmp_path / "p.safetensors", site="resid_post", layer=9))
    with pytest.raises(SiteError, match="layer 9 is out of range"):
        interp.trace(model, TRACES, saved)
    with pytest.raises(ModelError, match="another model: token 77777"):
        interp.trace(model, TRACES, replace(metric(model), ids=(77777,)))
    with pytest.raises(SiteError, match="is a score of logits"):
        interp.trace(model, TRACES, metric(model), space="site")
    with pytest.raises(ModelError, match="is no score"):
        interp.trace(model, TRACES, "refusal")


def test_nan_scores_and_wrong_shapes_are_refused() -> None:
    model = thinker()
    with pytest.raises(NonFiniteError, match="NaN or infinite at layer 1"):
        interp.trace(model, TRACES, lambda x: x[:, 0] * float("nan"), 1)
    with pytest.raises(SiteError, match="has to give one each"):
        interp.trace(model, TRACES, lambda x: x, 1)


def test_traces_that_cannot_be_followed_are_named() -> None:
    model = thinker()
    score = direction(model)
    with pytest.raises(ModelError, match="thinking is off"):
        interp.trace(model.with_format(thinking=False), TRACES, score)
    with pytest.raises(PromptError, match="trace 1 .* empty thought"):
        interp.trace(model, [TRACES[0], Trace("Hi", "  ", "So.")], score)
    with pytest.raises(PromptError, match="trace 0 .* no thinking"):
        interp.trace(model, [Trace("Hi", None, "So.")], score)
    with pytest.raises(PromptError, match="cut off before the end"):
        interp.trace(model, Traces(tuple(TRACES), ("whole", "whole", "unfinished")), score)
    with pytest.raises(PromptError, match="trace 0 is 'Hi'"):
        interp.trace(model, ["Hi"], score)  # pyright: ignore[reportArgumentType]
    with pytest.raises(PromptError, match="holds no traces"):
        interp.trace(model, [], score)


def test_edits_are_part_of_what_is_followed() -> None:
    model = thinker()
    score = direction(model, layer=2)
    plain = interp.trace(model, TRACES, score, chunk=8)
    ablated = interp.trace(model, TRACES, score, chunk=8, edits=interp.edits.ablate(score))
    assert np.abs(plain.scores).max() > 0.1 and np.abs(ablated.scores).max() < 1e-4


# --- lining up -------------------------------------------------------------------------------------------------------


def ramp() -> interp.TraceScores:
    """Scores that are the token's index, so that every mean can be worked out by hand."""
    model = thinker()
    found = interp.trace(model, TRACES, direction(model))
    sizes = np.diff(found.offsets)
    return replace(found, scores=np.concatenate([np.arange(n, dtype=float) for n in sizes])[None])


def test_regions_are_lined_up_by_the_mean_of_their_tokens() -> None:
    found = ramp()
    aligned = found.aligned(3, prompt_bins=1, answer_bins=1)
    assert aligned.columns == (
        "prompt 1/1", "thinking 1/3", "thinking 2/3", "thinking 3/3", "think_close[-4]", "think_close[-3]",
        "think_close[-2]", "think_close[-1]", "answer 1/1",
    )  # fmt: skip
    assert aligned.texts[4:8] == ("\n", "</think>", "\n", "\n")
    for i, spans in enumerate(found.spans):
        start, end = spans["thinking"]
        thirds: list[list[int]] = [[], [], []]
        for t in range(start, end):
            thirds[(t - start) * 3 // (end - start)].append(t)
        row = aligned.values[i, 0]
        assert row[1:4].tolist() == [np.mean(t) for t in thirds]
        assert row[4:8].tolist() == list(range(*spans["think_close"]))
        assert row[0] == (spans["prompt"][1] - 1) / 2


def test_what_is_not_there_is_left_out_of_the_mean_and_never_zero() -> None:
    found = ramp()
    aligned = found.aligned(50)
    short = aligned.values[1, 0, [i for i, r in enumerate(aligned.regions) if r == "thinking"]]
    assert np.isnan(short).sum() == 47 and (short[~np.isnan(short)] > 5).all(), "a thought of 3 tokens has 3 bins"
    assert np.isnan(aligned.values[1, 0, -2:]).all(), "it has no answer"
    table = aligned.mean()
    harmful = table[table["label"] == "harmful"]
    assert harmful["mean"].notna().all() and (harmful["mean"] >= 5).sum() >= 50
    answer = harmful[harmful["region"] == "answer"]
    assert (answer["n"] == 1).all() and answer["mean"].tolist() == aligned.values[2, 0, -2:].tolist()
    assert np.isnan(binned(np.ones((1, 0)), 2)).all()


def test_bands_draw_whole_groups() -> None:
    found = ramp()
    rng = np.random.default_rng(0)
    many = found.take([0] * 40)
    values = np.repeat(rng.normal(size=10), 4)
    sizes = np.diff(many.offsets)
    many = replace(many, scores=np.concatenate([np.full(n, v) for n, v in zip(sizes, values, strict=True)])[None])

    def of_groups(copies: int) -> list[Trace]:
        prompts = [Prompt("How do I bake?", "harmful", group=f"g{i // copies}") for i in range(40)]
        return [replace(t, prompt=p) for t, p in zip(many.traces, prompts, strict=True)]

    def width(traces: list[Trace]) -> float:
        row = replace(many, traces=replace(many.traces, traces=tuple(traces))).aligned(2).mean().iloc[0]
        assert row["low"] < row["mean"] < row["high"] and row["mean"] == pytest.approx(values.mean())
        return float(row["high"] - row["low"])

    assert width(of_groups(4)) > 1.6 * width(of_groups(1)), "four copies of a prompt are not four prompts"


def test_shuffled_scores_keep_their_values_within_thought_and_end() -> None:
    found = ramp()
    mixed = found.shuffled(0)
    for i, spans in enumerate(found.spans):
        inside = slice(spans["thinking"][0], spans["think_close"][1])
        assert sorted(mixed.of(i)[inside]) == sorted(found.of(i)[inside])
        assert mixed.of(i)[: inside.start].tolist() == found.of(i)[: inside.start].tolist()
    assert (mixed.scores != found.scores).any() and (found.shuffled(0).scores == mixed.scores).all()


def test_scores_are_found_by_trace_and_layer() -> None:
    model = thinker()
    found = interp.trace(model, TRACES, direction(model), [0, 2])
    assert found.of(0).shape[0] == 2 and found.of(-1, 2).tolist() == found.of(2)[1].tolist()
    assert found.at_layer(2).of(0).tolist() == found.of(0, 2).tolist()
    assert "".join(found.tokens[0]) == model.encode(TRACES[0])[0].text
    with pytest.raises(SiteError, match=r"layer 1 was not scored; these were: \[0, 2\]"):
        found.of(0, 1)
    with pytest.raises(PromptError, match="no trace 3"):
        found.of(3)
    frame = found.to_frame()
    assert len(frame) == found.scores.size and set(frame["region"]) == {"prompt", "thinking", "think_close", "answer"}
    assert found.take([2, 0]).of(1, 0).tolist() == found.of(0, 0).tolist()


def test_a_position_that_a_trace_lacks_is_still_named() -> None:
    with pytest.raises(PositionError, match="no answer_start"):
        thinker().encode(TRACES[1])[0].columns("answer_start")
