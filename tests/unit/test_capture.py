"""Capture: the same numbers however it is batched, cut short or asked, and an untouched model afterwards."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.activations.columns import resolve_columns
from interp.errors import EditError, NonFiniteError, PositionError, PromptError, SiteError
from interp.model.batching import plan
from tests.helpers.slow import BASIC_SITES, PROMPTS, count_hooks, fingerprint, loaded, slow_read
from tests.helpers.tiny import tiny_model, tiny_tokenizer

CLOSE: dict[str, float] = {"rtol": 1e-5, "atol": 1e-5}


def test_a_batch_gives_the_numbers_of_single_prompts_in_the_order_given() -> None:
    model = loaded()
    together = interp.capture(model, PROMPTS, sites=BASIC_SITES)
    for row, prompt in enumerate(PROMPTS):
        alone = interp.capture(model, prompt, sites=BASIC_SITES)
        for site in BASIC_SITES:
            torch.testing.assert_close(together.data[site][row], alone.data[site][0], **CLOSE)
    assert [p.text for p in together.prompts] == PROMPTS


@pytest.mark.parametrize("budget", [1, 60, 120, 100_000])
def test_the_token_budget_does_not_change_the_numbers(budget: int) -> None:
    model = loaded()
    usual, other = interp.capture(model, PROMPTS), interp.capture(model, PROMPTS, token_budget=budget)
    torch.testing.assert_close(usual.sel(), other.sel(), **CLOSE)


def test_batches_keep_to_the_budget_and_hold_every_prompt_once() -> None:
    lengths = [5, 1, 9, 3, 3, 40, 2]
    for budget in (1, 9, 12, 1000):
        batches = plan(lengths, budget, rows=3)
        assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
        for batch in batches:
            assert len(batch) <= 3
            assert len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= budget


@pytest.mark.parametrize("site", BASIC_SITES)
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_stopping_early_gives_what_a_full_run_gives(site: str, layer: int) -> None:
    model = loaded()
    full = interp.capture(model, PROMPTS, sites=BASIC_SITES)
    early = interp.capture(model, PROMPTS, sites=site, layers=layer)
    assert torch.equal(early.sel(), full.data[site][:, [layer]])


@pytest.mark.parametrize("last", BASIC_SITES)
def test_stopping_early_waits_for_every_site_wanted(last: str) -> None:
    model = loaded()
    for other in BASIC_SITES:
        full = interp.capture(model, PROMPTS, sites=BASIC_SITES, layers=1)
        early = interp.capture(model, PROMPTS, sites=[other, last], layers=1)
        for site in (other, last):
            assert torch.equal(early.data[site], full.data[site])


def test_a_forward_stops_after_the_last_site_wanted() -> None:
    model = loaded()
    calls: list[int] = []
    handles = [
        block.register_forward_hook(lambda *_args, n=n: calls.append(n)) for n, block in enumerate(model.arch.blocks)
    ]
    interp.capture(model, "Hi", sites="resid_pre", layers=1)
    for handle in handles:
        handle.remove()
    assert calls == [0]


def test_layers_may_be_a_subset_in_any_order_and_count_from_the_end() -> None:
    model = loaded()
    full = interp.capture(model, PROMPTS)
    some = interp.capture(model, PROMPTS, layers=[2, 0])
    assert some.layers == (2, 0) and torch.equal(some.sel(layer=0), full.sel(layer=0))
    assert torch.equal(some.sel(layer=2), full.sel(layer=2))
    assert interp.capture(model, PROMPTS, layers=-1).layers == (2,)
    assert interp.capture(model, PROMPTS, layers=np.int64(1)).layers == (1,)  # type: ignore[arg-type]


def test_positions_are_found_in_each_prompt_for_itself() -> None:
    model = loaded()
    prompts = ["Hi", "A much longer request than that", "ends in spaces  "]
    acts = interp.capture(model, prompts, positions=["t_inst", -2, "post_inst[0]", 3, "inst[1]"])
    assert acts.positions == ("t_inst", "-2", "post_inst[0]", "3", "inst[1]")
    for row, encoded in enumerate(model.encode(prompts)):
        slow = slow_read(model.hf, "llama", encoded.ids)["resid_post"]
        for name in acts.positions:
            column = encoded.columns(int(name) if name.lstrip("-").isdigit() else name)[0]
            torch.testing.assert_close(acts.sel(position=name)[row], slow[:, column], rtol=1e-4, atol=1e-4)
    assert torch.equal(acts.sel(position=-2), acts.sel(position="-2"))


def test_a_region_becomes_one_column_per_token_aligned_at_its_end() -> None:
    model = loaded()
    prompts = ["Hi", "ends in spaces  "]  # two tokens more after the instruction
    acts = interp.capture(model, prompts, positions="post_inst")
    assert acts.positions == tuple(f"post_inst[{i}]" for i in range(-13, 0))
    assert torch.equal(
        acts.sel(position="post_inst[-1]"),
        interp.capture(model, prompts, positions="t_post_inst").sel(position="t_post_inst"),
    )
    end = interp.capture(model, prompts, positions="post_inst[-13]")
    assert torch.equal(acts.sel(position="post_inst[-13]"), end.sel(position="post_inst[-13]"))


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        (["inst", "t_inst"], "as long as the prompt"),
        (["all", "prompt"], "as long as the prompt"),
        ([], "no positions"),
        (["t_inst", "t_inst"], "named twice"),
        ("t_end", "unknown position"),
        (400, "outside"),
        ("answer_start", "give a Trace"),
    ],
)
def test_positions_that_cannot_be_columns_are_refused(positions: Any, message: str) -> None:
    with pytest.raises(PositionError, match=message):
        interp.capture(loaded(), PROMPTS, positions=positions)
    with pytest.raises(PositionError, match=message):
        resolve_columns(loaded().encode(PROMPTS), positions)


@pytest.mark.parametrize("region", ["inst", "prompt", "all"])
def test_a_region_as_long_as_the_prompt_gives_a_row_per_token(region: str) -> None:
    model = loaded()
    prompts = interp.PromptSet.from_texts(["A longer request", "Hi"], ["x y", "How do I bake bread?"])
    for budget in (60, 2048):
        acts = interp.capture(model, prompts, ["resid_post", "z"], region, token_budget=budget)
        assert acts.positions == (f"{region}[*]",) and acts.ragged and acts.offsets.dtype == np.int64
        for i, encoded in enumerate(model.encode(prompts)):
            slow = slow_read(model.hf, "llama", encoded.ids)
            for site in ("resid_post", "z"):
                want = slow[site][:, list(encoded.columns(region))]
                torch.testing.assert_close(acts.of(i, site)[:, :, 0], want.transpose(0, 1), rtol=1e-4, atol=1e-4)
    assert len(acts) == len(acts.labels) == len(acts.groups) == len(acts.sel("z")) == acts.offsets[-1]
    assert acts.labels.tolist() == np.repeat(prompts.labels, np.diff(acts.offsets)).tolist()
    with pytest.raises(PositionError, match="as long as the prompt"):
        resolve_columns(model.encode(prompts), region)


def test_rows_of_a_region_can_be_taken_and_keep_their_prompts() -> None:
    acts = interp.capture(loaded(), interp.PromptSet.from_texts(["abcd"], ["xyz", "pq"]), positions="inst")
    assert acts.offsets.tolist() == [0, 4, 7, 9]
    some = acts.take([1, 2, 8, 0])
    assert torch.equal(some.sel(), acts.sel()[[1, 2, 8, 0]])
    assert [p.text for p in some.prompts] == ["abcd", "pq", "abcd"] and some.offsets.tolist() == [0, 2, 3, 4]
    harmless = acts.take(acts.labels == "harmless")
    assert [p.text for p in harmless.prompts] == ["xyz", "pq"] and harmless.offsets.tolist() == [0, 3, 5]
    assert len(acts.take([])) == 0
    for bad, message in (([9], "no row 9"), ([True, False], "mask"), ([0.5], "whole numbers"), ([[1]], "whole")):
        with pytest.raises(PromptError, match=message):
            acts.take(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("layers", [3, -4, [0, 7], [], "resid", 1.5])
def test_layers_out_of_range_are_refused(layers: Any) -> None:
    with pytest.raises(SiteError, match="layer"):
        interp.capture(loaded(), PROMPTS, layers=layers)


def test_unknown_sites_and_missing_prompts_are_refused() -> None:
    with pytest.raises(SiteError, match="unknown site 'resid'; known: resid_pre"):
        interp.capture(loaded(), PROMPTS, sites="resid")
    with pytest.raises(PromptError, match="no prompts"):
        interp.capture(loaded(), [])


def test_selecting_what_was_not_captured_names_what_was() -> None:
    acts = interp.capture(loaded(), PROMPTS, sites=["resid_pre", "z"], layers=[0, 2])
    for options, error, message in (
        ({}, SiteError, "several sites"),
        ({"site": "mlp_out"}, SiteError, "captured: resid_pre, z"),
        ({"site": "z", "layer": 1}, SiteError, "layer 1 was not captured; captured: 0, 2$"),
        ({"site": "z", "layer": -1}, SiteError, "layer -1 was not captured; captured: 0, 2 .*counted from the last"),
        ({"site": "z", "position": "last"}, PositionError, "captured: t_inst, t_post_inst"),
    ):
        with pytest.raises(error, match=message):
            acts.sel(**options)  # type: ignore[arg-type]


def test_heads_are_a_view_of_z() -> None:
    model = loaded("qwen3")  # d_head is not d_model / n_heads
    acts = interp.capture(model, PROMPTS, sites="z")
    heads = acts.heads()
    assert heads.shape == (4, 3, 2, 4, 16)
    assert heads.data_ptr() == acts.sel("z").data_ptr()
    assert torch.equal(heads[:, :, :, 1], acts.sel("z")[..., 16:32])
    # z leads to attention's output through the output projection
    block = model.arch.blocks[1]
    attended = interp.capture(model, PROMPTS, sites="attn_out").sel(layer=1)
    torch.testing.assert_close(acts.sel("z", 1) @ block.self_attn.o_proj.weight.T, attended, **CLOSE)


def test_labels_come_along_and_examples_can_be_taken() -> None:
    prompts = interp.PromptSet.from_texts(harmful=["Make a bomb"], harmless=["Make a cake", "Make a pie"])
    acts = interp.capture(loaded(), prompts)
    assert acts.labels.tolist() == ["harmful", "harmless", "harmless"]
    cakes = acts.take(acts.labels == "harmless")
    assert len(cakes) == 2 and torch.equal(cakes.sel(), acts.sel()[1:])
    assert [p.text for p in acts.take([2, 0]).prompts] == ["Make a pie", "Make a bomb"]


def test_traces_of_one_prompt_are_captured_side_by_side() -> None:
    traces = [interp.Trace("Why?", answer="Because."), interp.Trace("Why?", answer="No idea.")]
    acts = interp.capture(loaded(), traces, positions=["t_post_inst", "answer_start"])
    torch.testing.assert_close(acts.sel(position="t_post_inst")[0], acts.sel(position="t_post_inst")[1], **CLOSE)
    assert not torch.allclose(acts.sel(position="answer_start")[0], acts.sel(position="answer_start")[1])


def test_prompts_may_come_as_any_sequence_or_as_one_conversation() -> None:
    model = loaded()
    usual = interp.capture(model, PROMPTS).sel()
    for several in (tuple(PROMPTS), np.array(PROMPTS), iter(PROMPTS), model.encode(PROMPTS)):
        assert torch.equal(interp.capture(model, several).sel(), usual)  # type: ignore[arg-type]
    conversation = [{"role": "user", "content": PROMPTS[0]}]
    torch.testing.assert_close(interp.capture(model, conversation).sel(), usual[:1], **CLOSE)


def test_class_means_are_the_means_of_what_capture_gives() -> None:
    model = loaded()
    labels = ["a", "b", "a", "b"]
    means = interp.class_means(model, PROMPTS, labels, token_budget=60)
    acts = interp.capture(model, PROMPTS, positions="post_inst").sel()
    assert means.classes == ("a", "b") and means.counts == (2, 2)
    torch.testing.assert_close(means.of("a"), acts[[0, 2]].mean(0), **CLOSE)
    torch.testing.assert_close(means.of("b"), acts[[1, 3]].mean(0), **CLOSE)
    torch.testing.assert_close(means.norm, acts.norm(dim=-1).median(0).values, **CLOSE)
    with pytest.raises(PromptError, match="4 prompts came with 2 labels"):
        interp.class_means(model, PROMPTS, ["a", "b"])


def test_reads_see_the_stream_after_the_edits() -> None:
    model = loaded()
    v = torch.ones(model.d_model)
    edit = interp.edits.add(v, site="resid_pre", layer=1, positions="t_inst")
    before = interp.capture(model, PROMPTS, sites="resid_pre")
    after = interp.capture(model, PROMPTS, sites="resid_pre", edits=[edit])
    torch.testing.assert_close(
        after.sel(layer=1, position="t_inst"), before.sel(layer=1, position="t_inst") + v, **CLOSE
    )
    assert torch.equal(after.sel(layer=0), before.sel(layer=0))
    assert after.provenance["edited"] and not before.provenance["edited"]


def test_bfloat16_is_within_its_own_noise() -> None:
    model = interp.load(tiny_model().to(torch.bfloat16), tiny_tokenizer())
    acts = interp.capture(model, PROMPTS, sites=BASIC_SITES)
    assert acts.sel("resid_post").dtype == torch.bfloat16
    for row, encoded in enumerate(model.encode(PROMPTS)):
        columns = [encoded.columns(n)[0] for n in acts.positions]
        slow = slow_read(model.hf, "llama", encoded.ids)
        for site in BASIC_SITES:
            want = slow[site][:, columns].float()
            error = (acts.data[site][row].float() - want).norm() / want.norm()
            assert error < 0.03, site


def test_a_weight_that_is_not_finite_is_named_on_loading() -> None:
    for value in (float("nan"), float("inf"), -float("inf")):
        hf = tiny_model()
        hf.model.layers[1].mlp.up_proj.weight.data[3, 4] = value
        with pytest.raises(NonFiniteError, match=r"layers\.1\.mlp\.up_proj\.weight"):
            interp.load(hf, tiny_tokenizer())


def test_an_activation_that_is_not_finite_is_named() -> None:
    model = interp.load(tiny_model(), tiny_tokenizer())
    token = model.encode("q")[0].ids[model.encode("q")[0].columns("t_inst")[0]]
    model.hf.model.embed_tokens.weight.data[token] = float("nan")
    with pytest.raises(NonFiniteError, match=r"resid_post at layer 0 .*'a q'"):
        interp.capture(model, ["a", "a q", "b"])
    with pytest.raises(NonFiniteError, match="logits of prompt 1"):
        model.logits(["a", "a q"])
    with pytest.raises(NonFiniteError, match="logits became NaN"):
        model.generate("a q", max_new_tokens=2)
    assert count_hooks(model.hf) == 0


class Bomb:
    """An edit that blows up in the middle of the forward pass."""

    def ops(self, _arch: Any) -> list[Any]:
        from interp.model.ops import Op

        def change(_x: Any, _cells: Any) -> Any:
            raise KeyboardInterrupt

        return [Op("mlp_out", 1, change, ("all",), "both", self)]


def test_the_model_is_bit_for_bit_unchanged_after_success_and_after_exceptions() -> None:
    model = loaded()
    before = fingerprint(model.hf)
    assert " 0 " in before
    edits = [interp.edits.ablate(torch.ones(model.d_model)), interp.edits.scale_heads([(0, 1)])]
    interp.capture(model, PROMPTS, sites=BASIC_SITES, edits=edits)
    model.run(PROMPTS, reads=["z"], edits=edits)
    model.generate(PROMPTS, max_new_tokens=3, edits=edits)
    with model.edited(*edits):
        model.logits(PROMPTS)
    assert fingerprint(model.hf) == before
    usual = model.logits(PROMPTS)
    for run in (
        lambda: interp.capture(model, PROMPTS, edits=[Bomb()]),
        lambda: model.logits(PROMPTS, edits=[Bomb()]),
        lambda: model.generate(PROMPTS, max_new_tokens=3, edits=[*edits, Bomb()]),
    ):
        with pytest.raises(KeyboardInterrupt):
            run()
        assert fingerprint(model.hf) == before
        assert torch.equal(model.logits(PROMPTS), usual)
    with pytest.raises(KeyboardInterrupt), model.edited(*edits, Bomb()):
        model.generate(PROMPTS, max_new_tokens=3)
    with pytest.raises(RuntimeError, match="mine"), model.edited(*edits):
        raise RuntimeError("mine")
    assert fingerprint(model.hf) == before
    assert torch.equal(model.logits(PROMPTS), usual)


def test_an_edit_that_does_not_fit_leaves_no_hook() -> None:
    model = loaded()
    good = interp.edits.add(torch.ones(model.d_model), site="resid_post", layer=0)
    with pytest.raises(SiteError), model.edited(good, interp.edits.scale_heads([(9, 0)])):
        pass
    with pytest.raises(EditError, match="no edit"), model.edited(good, "ablate"):  # type: ignore[arg-type]
        pass
    assert count_hooks(model.hf) == 0


def test_steps_may_be_abandoned_and_the_model_used_between_them() -> None:
    model = loaded()
    encoded = model.encode(PROMPTS)
    usual = model.logits("Hi")
    for _step in model.steps(encoded, token_budget=1):
        assert count_hooks(model.hf) == 0
        assert torch.equal(model.logits("Hi"), usual)
        break
    assert count_hooks(model.hf) == 0


def test_what_is_captured_can_be_trained_on() -> None:
    acts = interp.capture(loaded(), PROMPTS).sel(layer=0, position="t_inst")
    w = torch.zeros(acts.shape[1], requires_grad=True)
    (acts @ w).sum().backward()  # would fail on a tensor of inference mode
    assert torch.allclose(w.grad, acts.sum(0))  # type: ignore[arg-type]


def test_a_run_gives_logits_and_reads() -> None:
    model = loaded()
    run = model.run(PROMPTS, reads=["resid_post", "z"], positions=["t_inst", "last"], layers=[1])
    acts = interp.capture(model, PROMPTS, sites=["resid_post", "z"], positions=["t_inst", "last"], layers=[1])
    for site in ("resid_post", "z"):
        assert torch.equal(run.reads[site], acts.data[site])
    assert torch.equal(run.logits, model.logits(PROMPTS))
    with pytest.raises(SiteError, match="not equally many"):
        model.run(PROMPTS, reads=["z"], positions=["inst"])


def test_an_activation_set_can_be_copied() -> None:
    acts = interp.capture(loaded(), PROMPTS)
    assert torch.equal(copy.deepcopy(acts).sel(), acts.sel())


def test_what_is_installed_is_looked_up_once_and_not_at_every_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    first = interp.capture(loaded(), PROMPTS[:1])
    monkeypatch.setattr("importlib.metadata.version", lambda _: pytest.fail("it is looked up again"))
    assert interp.capture(loaded(), PROMPTS[:1]).provenance == first.provenance
