"""Candidates and their scores against the slow way: every activation kept, float64 means, hooks written by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from torch import Tensor

import interp
from interp.errors import NonFiniteError, PromptError
from interp.model.refusal_metric import RefusalMetric
from interp.text.encoded import Encoded
from probes import Candidates, candidates, score_candidates
from probes.candidate_scores import SCORES, kl_divergence
from tests.helpers.slow import Change, at, hooked, loaded, slow_read
from tests.helpers.tiny import CHATML

SHORT = (  # three tokens after the instruction, so that there are few candidates
    "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|><|im_end|>{% endif %}"
)
HARMFUL = ["how to break a lock", "steal", "burn it all down now", "x", "poison the well please"]
HARMLESS = ["bake bread", "tell me about the sea", "sing", "paint a house, slowly and well"]
FLAGS = [True] * len(HARMFUL) + [False] * len(HARMLESS)
METRIC = RefusalMetric((5, 9, 40), ("a", "b", "c"), (1.0, 0.0), 1.0, (4, 4))


@cache
def found(template: str = SHORT) -> Candidates:
    return candidates(loaded(template=template), HARMFUL + HARMLESS, FLAGS)


@cache
def streams(template: str = SHORT) -> np.ndarray[Any, Any]:
    """Every prompt's residual stream after the instruction, `[prompt, layer + 1, position, width]`, in float64."""
    model = loaded(template=template)
    kept: list[Any] = []
    for item in model.encode(HARMFUL + HARMLESS):
        read = slow_read(model.hf, "llama", item.ids)
        stream = torch.cat([read["resid_pre"], read["resid_post"][-1:]])
        kept.append(stream[:, item.columns("post_inst")].double().numpy())
    return np.stack(kept)


@pytest.mark.parametrize("template", [SHORT, CHATML], ids=["short", "chatml"])
def test_means_are_those_of_all_activations_kept(template: str) -> None:
    got, x = found(template), streams(template)
    flags = np.array(FLAGS)
    difference = x[flags].mean(0) - x[~flags].mean(0)
    np.testing.assert_allclose(got.difference.numpy(), difference[:-1], atol=2e-5)
    np.testing.assert_allclose(got.negative.numpy(), x[~flags].mean(0), atol=2e-5)
    assert got.counts == (len(HARMFUL), len(HARMLESS))
    assert got.positions == tuple(f"post_inst[{i}]" for i in range(-x.shape[2], 0))


def test_norms_are_medians_of_single_activations() -> None:
    norms = np.linalg.norm(streams(), axis=-1)
    middle = np.sort(norms, axis=0)[len(norms) // 2]  # of nine
    np.testing.assert_allclose(found().norm.numpy(), middle[:-1], rtol=1e-4)
    d = found().direction(2, "post_inst[-1]")
    assert found().ceiling(d) == pytest.approx(middle[2, -1], rel=1e-4)


def test_capture_and_the_streaming_means_agree() -> None:
    acts = interp.capture(loaded(template=SHORT), HARMFUL + HARMLESS, "resid_pre", "post_inst").sel("resid_pre")
    flags = torch.tensor(FLAGS)
    difference = acts[flags].double().mean(0) - acts[~flags].double().mean(0)
    torch.testing.assert_close(found().difference.double(), difference, atol=2e-5, rtol=1e-4)


def test_a_candidate_is_a_direction_with_its_place_and_origin() -> None:
    d = found().direction(1, "post_inst[-2]")
    assert (d.site, d.layer, d.position, d.name) == ("resid_pre", 1, "post_inst[-2]", "refusal")
    assert torch.equal(d.vector, found().difference[1, -2])
    assert "difference in means" in d.provenance["method"]
    assert d.provenance["architecture"] == "LlamaForCausalLM"


def test_the_reference_is_the_negatives_mean_coordinate_along_the_whole_stream() -> None:
    d = found().direction(1, "post_inst[-1]")
    unit = d.vector.double().numpy() / np.linalg.norm(d.vector.double().numpy())
    wanted = (streams()[~np.array(FLAGS)] @ unit).mean(0)
    got = found().reference(d)
    assert got.shape == (loaded().n_layers + 1, 3)
    np.testing.assert_allclose(got.numpy(), wanted, atol=2e-5)


def test_swapping_the_classes_turns_the_directions_round() -> None:
    turned = candidates(loaded(template=SHORT), HARMFUL + HARMLESS, np.logical_not(FLAGS))
    torch.testing.assert_close(turned.difference, -found().difference)
    assert turned.counts == found().counts[::-1]


@pytest.mark.parametrize("flags", [[True] * 9, [False] * 9, [True, False]], ids=["no negative", "no positive", "short"])
def test_a_missing_class_or_verdict_is_an_error(flags: list[bool]) -> None:
    with pytest.raises(PromptError):
        candidates(loaded(template=SHORT), HARMFUL + HARMLESS, flags)


# --- scores ----------------------------------------------------------------------------------------------------------


@cache
def scored() -> Any:
    return score_candidates(loaded(template=SHORT), found(), HARMFUL[:3], HARMLESS[:3], METRIC)


def last_logits(prompts: list[str], changes: Any) -> Tensor:
    """Next-token logits one prompt at a time, by hand-written hooks."""
    model = loaded(template=SHORT)
    rows: list[Tensor] = []
    for item in model.encode(prompts):
        with hooked(model.hf, "llama", changes(item)), torch.no_grad():
            rows.append(model.hf(input_ids=torch.tensor([item.ids]), use_cache=False).logits[0, -1].float())
    return torch.stack(rows)


def score(logits: Tensor) -> float:
    p = torch.softmax(logits.double(), -1)[:, list(METRIC.ids)].sum(-1)
    return float((torch.log(p + 1e-8) - torch.log(1 - p + 1e-8)).mean())


def by_hand(layer: int, place: int) -> dict[str, float]:
    """The five scores of one candidate, from the formulas."""
    n = loaded().n_layers
    r = found().difference[layer, place]
    unit = r / r.norm()
    reference = found().negative @ unit  # [layer + 1, position]
    coefficient = min(1.0, float(found().norm[layer, place]) / float(r.norm()))

    def zero(_item: Encoded) -> dict[tuple[str, int], Change]:
        def change(x: Tensor) -> Tensor:
            return x - (x @ unit)[..., None] * unit

        return {("resid_pre", 0): change} | {(s, i): change for s in ("attn_out", "mlp_out") for i in range(n)}

    def mean(item: Encoded) -> dict[tuple[str, int], Change]:
        columns = list(item.columns("post_inst"))

        def to(goal: Tensor) -> Change:
            return at(columns, lambda x: x - ((x @ unit) - goal)[..., None] * unit)

        return {("resid_pre", i): to(reference[i]) for i in range(n)} | {("resid_post", n - 1): to(reference[n])}

    def plus(_item: Encoded) -> dict[tuple[str, int], Change]:
        return {("resid_pre", layer): lambda x: x + coefficient * r}

    def kl(changes: Any) -> float:
        p = torch.softmax(last_logits(HARMLESS[:3], lambda _item: {}).double(), -1)
        q = torch.softmax(last_logits(HARMLESS[:3], changes).double(), -1)
        return float((p * ((p + 1e-6).log() - (q + 1e-6).log())).sum(-1).mean())

    return {
        "plain": score(last_logits(HARMFUL[:3], lambda _item: {})),
        "bypass": score(last_logits(HARMFUL[:3], zero)), "bypass_mean": score(last_logits(HARMFUL[:3], mean)),
        "induce": score(last_logits(HARMLESS[:3], plus)), "kl": kl(zero), "kl_mean": kl(mean),
    }  # fmt: skip


@pytest.mark.parametrize(("layer", "place"), [(1, -1), (1, 0), (2, -2), (2, -1)])
def test_scores_are_those_of_hooks_written_by_hand(layer: int, place: int) -> None:
    table = scored()
    position = found().positions[place]
    (row,) = table[(table["layer"] == layer) & (table["position"] == position)].to_dict("records")
    wanted = by_hand(layer, place)
    assert {name: row[name] for name in SCORES} == pytest.approx(wanted, rel=2e-3, abs=2e-4)
    assert row["norm"] == pytest.approx(float(found().difference[layer, place].norm()))
    assert row["ceiling"] == pytest.approx(float(found().norm[layer, place]))


def test_what_is_added_never_exceeds_the_median_norm() -> None:
    model = loaded(template=SHORT)
    cut = replace(found(), norm=found().norm / 1000)
    plain = score(model.logits(HARMLESS[:3]))
    table = score_candidates(model, cut, HARMFUL[:3], HARMLESS[:3], METRIC)
    upper = table[table["layer"] > 0]
    assert (upper["ceiling"] < upper["norm"]).all()
    assert (upper["induce"] - plain).abs().max() < 0.05 < (scored()["induce"] - plain).abs().max()


def test_the_table_has_one_row_per_place_in_order() -> None:
    table = scored()
    assert list(table.columns) == ["position", "layer", "norm", "ceiling", *SCORES]
    places = list(zip(table["position"], table["layer"], strict=True))
    assert places == [(p, n) for p in found().positions for n in range(loaded().n_layers)]


def test_places_without_a_difference_are_rows_without_scores() -> None:
    """At the bottom, the template's tokens are the same vector after every prompt."""
    bottom = scored()[scored()["layer"] == 0]
    assert (bottom["norm"] == 0).all() and (bottom["ceiling"] > 0).all()
    assert bottom[list(SCORES)].isna().all(axis=None)
    assert scored()[scored()["layer"] > 0][list(SCORES)].notna().all(axis=None)


def test_an_edit_that_overflows_costs_its_score_and_not_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    model = interp.load(loaded(template=SHORT).hf, loaded(template=SHORT).tokenizer)
    real = model.logits

    def logits(prompts: Any, edits: Any = (), **options: Any) -> Tensor:
        if any(type(e).__name__ == "Add" for e in edits):
            raise NonFiniteError("overflow")
        return real(prompts, edits=edits, **options)

    monkeypatch.setattr(model, "logits", logits)
    upper = score_candidates(model, found(), HARMFUL[:2], HARMLESS[:2], METRIC).query("layer > 0")
    assert upper["induce"].isna().all()
    assert upper[["bypass", "kl", "bypass_mean", "kl_mean"]].notna().all(axis=None)


def test_prompts_with_more_template_tokens_than_others_can_be_scored() -> None:
    """Tokenisers may glue the end of an instruction to the template; the tokens all prompts share are taken."""
    model = loaded(template=SHORT)
    encoded = model.encode(HARMFUL + HARMLESS)
    start, end = encoded[0].spans["post_inst"]
    encoded[0] = replace(encoded[0], spans={**encoded[0].spans, "post_inst": (start - 1, end)})
    got = candidates(model, encoded, FLAGS)
    torch.testing.assert_close(got.difference, found().difference)
    table = score_candidates(model, got, encoded[:3], encoded[-2:], METRIC)  # pyright: ignore[reportArgumentType]
    assert table.query("layer > 0")[list(SCORES)].notna().all(axis=None)


def test_scoring_leaves_no_trace_on_the_model() -> None:
    from tests.helpers.slow import fingerprint

    model = loaded(template=SHORT)
    before = fingerprint(model.hf)
    score_candidates(model, found(), HARMFUL[:1], HARMLESS[:1], METRIC)
    assert fingerprint(model.hf) == before


def test_kl_is_that_of_scipy_and_torch() -> None:
    source = torch.Generator().manual_seed(0)
    a, b = torch.randn(5, 30, generator=source), torch.randn(5, 30, generator=source)
    p, q = (torch.softmax(x.double(), -1) for x in (a, b))
    wanted = float(np.mean(entropy(p.numpy(), q.numpy(), axis=-1)))
    got = kl_divergence(p.log(), b)
    assert got == pytest.approx(wanted, abs=1e-3)
    assert got == pytest.approx(float(torch.nn.functional.kl_div(q.log(), p, reduction="batchmean")), abs=1e-3)
    assert kl_divergence(p.log(), a.double()) == pytest.approx(0, abs=1e-12)


def test_kl_of_certain_and_opposite_predictions_is_finite() -> None:
    sure = torch.tensor([[1e4, 0.0]])
    got = kl_divergence(torch.log_softmax(sure.double(), -1), sure.flip(1))
    assert got == pytest.approx(-math.log(1e-6), rel=1e-3)
