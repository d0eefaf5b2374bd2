"""Edits baked into weights do what the run-time edits do, in plain transformers, or are refused with the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from torch import nn

import interp
import steering
from interp.edits import ablate, add, scale_heads, set_to
from interp.errors import DirectionError, EditError, FormatError, ModelError, SiteError
from steering.weights import writing
from steering.weights.plan import Change
from tests.helpers.slow import PROMPTS, loaded
from tests.helpers.tiny import _WIDE, DEVICE, FAMILIES, SHAPE, tiny_model, tiny_tokenizer
from tests.helpers.weights import EXACT, NORMED, edited_logits, every_logit, off, own, snapshot, unchanged, vector


def plain(folder: Path) -> Any:
    return hf.AutoModelForCausalLM.from_pretrained(folder).eval().to(DEVICE)


@pytest.mark.parametrize("family", EXACT)
def test_an_ablation_is_the_same_in_weights_as_at_run_time(family: str, tmp_path: Path) -> None:
    model = loaded(family)
    steering.bake(model, vector()).save(tmp_path / "baked")
    again = plain(tmp_path / "baked")
    wanted = edited_logits(model, [ablate(vector())])
    assert off(every_logit(again, model), wanted) <= 1e-4
    assert off(every_logit(model.hf, model), wanted) > 0.1
    tokenizer = hf.AutoTokenizer.from_pretrained(tmp_path / "baked")
    ours = interp.load(again, tokenizer).generate(PROMPTS, max_new_tokens=6)
    assert [c.ids for c in ours] == [c.ids for c in model.generate(PROMPTS, max_new_tokens=6, edits=ablate(vector()))]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_users_model_stays_bit_for_bit_what_it_was(family: str, tmp_path: Path) -> None:
    model = own(family)
    before = snapshot(model.hf)
    steering.bake(model, vector(), nearest=True).save(tmp_path / "baked")
    with pytest.raises(SiteError):
        steering.bake(model, add(vector(), site="resid_pre", layer=9))
    assert unchanged(model.hf, before)


@pytest.mark.parametrize("family", NORMED)
def test_behind_a_norm_no_weights_equal_an_ablation_and_the_error_says_why_and_how_much(family: str) -> None:
    with pytest.raises(ModelError, match=r"norm\(W' h\) = \(I - r r'\) norm\(W h\) has no solution.*nearest=True"):
        steering.bake(loaded(family), vector())
    with pytest.raises(ModelError, match="divided by a norm"):
        steering.bake(loaded(family), add(vector(), site="resid_pre", layer=1))


@pytest.mark.parametrize("family", NORMED)
def test_the_nearest_weights_write_the_same_but_for_its_length(family: str, tmp_path: Path) -> None:
    model, r = loaded(family), vector() / vector().norm()
    baked = steering.bake(model, vector(), nearest=True)
    assert not baked.agreement.exact and 1e-3 < baked.agreement.median < 0.1 < baked.agreement.effect
    baked.save(tmp_path / "baked")
    again = interp.load(str(tmp_path / "baked"))
    sites = ["attn_out", "mlp_out"]
    ours = interp.capture(again, PROMPTS, sites, ["t_inst", "last"])
    for site in sites:
        for layer in range(3):
            x = ours.sel(site, layer).float()
            assert float((x @ r).abs().max() / x.norm(dim=-1).max()) < 1e-5
    with model.edited(ablate(vector())):
        theirs = interp.capture(model, PROMPTS, "attn_out", ["t_inst", "last"]).sel("attn_out", 0)
    cosine = torch.nn.functional.cosine_similarity(ours.sel("attn_out", 0).float(), theirs.float(), dim=-1)
    assert float(cosine.min()) > 1 - 1e-5  # the first attention sees the same stream
    assert "**not equal**" in (tmp_path / "baked" / "README.md").read_text()


@pytest.mark.parametrize("family", NORMED)
def test_a_projection_at_right_angles_to_the_scaled_direction_is_further_off(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nearest = steering.bake(loaded(family), vector(), nearest=True).agreement
    oblique = writing.nearest_change

    def right_angled(*given: Any) -> Change:
        scaled = oblique(*given).into
        unit = scaled / scaled.norm()
        return Change(-unit, unit, torch.zeros(48, dtype=torch.float64))

    monkeypatch.setattr(writing, "nearest_change", right_angled)
    other = steering.bake(loaded(family), vector(), nearest=True).agreement
    assert other.along is not None and other.along < 1e-5
    assert other.error > 3 * nearest.error and other.median > 3 * nearest.median


def test_the_nearest_comes_nearer_in_wider_models() -> None:
    errors: list[float] = []
    for width in (48, 192):
        config = hf.Gemma2Config(**{**_WIDE, "hidden_size": width, "sliding_window": 8})
        torch.manual_seed(0)
        small = hf.Gemma2ForCausalLM(config).eval().to(DEVICE)
        with torch.no_grad():
            for weight in small.parameters():
                weight.copy_(torch.randn_like(weight) * 0.2 if weight.ndim == 1 else weight * 3)
        errors.append(
            steering.bake(interp.load(small, tiny_tokenizer()), vector(1, width), nearest=True).agreement.median
        )
    assert errors[1] < errors[0] / 2


def test_an_ablation_before_the_norm_is_exact_in_every_family() -> None:
    for family in NORMED:
        baked = steering.bake(loaded(family), ablate(vector(), sites="resid_pre", layers=0))
        assert baked.agreement.exact and len(baked.changed) <= 2


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_tied_embedding_is_untied_and_the_unembedding_left_alone(family: str, tmp_path: Path) -> None:
    small = tiny_model(family) if family == "gpt2" else _tied_llama()
    model = interp.load(small, tiny_tokenizer())
    baked = steering.bake(model, vector())
    assert baked.untied and small.get_input_embeddings().weight is small.get_output_embeddings().weight
    baked.save(tmp_path / "baked")
    again = plain(tmp_path / "baked")
    assert not again.config.tie_word_embeddings
    table = small.get_input_embeddings().weight
    r = (vector() / vector().norm()).to(table)
    torch.testing.assert_close(again.get_input_embeddings().weight, table - torch.outer(table @ r, r))
    assert torch.equal(again.get_output_embeddings().weight, table)
    assert off(every_logit(again, model), edited_logits(model, [ablate(vector())])) <= 1e-4


def _tied_llama() -> Any:
    torch.manual_seed(0)
    return hf.LlamaForCausalLM(hf.LlamaConfig(**{**SHAPE, "tie_word_embeddings": True})).eval().to(DEVICE)


@pytest.mark.parametrize("family", ["mixtral", "gpt_oss"])
def test_experts_as_wide_as_the_stream_are_turned_the_right_way(family: str) -> None:
    torch.manual_seed(0)
    square: dict[str, Any] = {**(_WIDE if family == "gpt_oss" else SHAPE), "intermediate_size": 48}
    config = hf.MixtralConfig if family == "mixtral" else hf.GptOssConfig
    kind = hf.MixtralForCausalLM if family == "mixtral" else hf.GptOssForCausalLM
    small = kind(config(**square, num_local_experts=4, num_experts_per_tok=2, sliding_window=8)).eval().to(DEVICE)
    model = interp.load(small, tiny_tokenizer())
    assert steering.bake(model, vector()).agreement.error <= 1e-4


def test_weights_lose_exactly_their_part_along_the_direction() -> None:
    model = loaded("llama")
    r = (vector() / vector().norm()).to(DEVICE)
    away = torch.eye(48, device=DEVICE) - torch.outer(r, r)
    baked = steering.bake(model, vector())
    assert len(baked.changed) == 7
    for name, weight in model.hf.named_parameters():
        new = baked.hf.get_parameter(name)
        if name not in baked.changed:
            assert new.data_ptr() == weight.data_ptr()
            continue
        torch.testing.assert_close(new, weight @ away if "embed" in name else away @ weight)


@pytest.mark.parametrize("family", ["llama", "gpt_oss", "gpt2"])
def test_several_directions_are_taken_out_as_a_subspace(family: str) -> None:
    model = loaded(family)
    given = [vector(1), vector(2), vector(1) + 2 * vector(2), vector(3)]
    baked = steering.bake(model, given)
    basis = torch.linalg.qr(torch.stack([vector(1), vector(2), vector(3)], 1))[0]
    wanted = edited_logits(model, [ablate(q) for q in basis.T])
    assert off(every_logit(baked.hf, model), wanted) <= 1e-4
    assert off(every_logit(baked.hf, model), edited_logits(model, baked.edits)) <= 1e-4
    assert len(baked.edits) == 3
    for same in (torch.stack(given), torch.stack(given).numpy()):
        assert torch.equal(every_logit(steering.bake(model, same).hf, model), every_logit(baked.hf, model))


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "gpt2", "deepseek_v3"])
def test_a_list_of_edits_is_done_in_its_order(family: str) -> None:
    model = loaded(family)
    slanted = vector(1) + vector(2)
    edits = [ablate(vector(1)), ablate(slanted, layers=[1, 2]), add(vector(3), 0.3, site="resid_pre", layer=0)]
    for several in (edits, edits[::-1]):
        wanted = edited_logits(model, several)
        assert off(every_logit(steering.bake(model, several).hf, model), wanted) <= 1e-4
    assert off(edited_logits(model, edits), edited_logits(model, edits[::-1])) > 1e-3


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "gpt_neox_sequential", "gpt2", "gpt_oss"])
@pytest.mark.parametrize("site", ["resid_pre", "attn_out", "mlp_out", "resid_post"])
def test_an_addition_becomes_a_bias(family: str, site: str, tmp_path: Path) -> None:
    model = loaded(family)
    given = steering.SteeringVector({2 if site == "resid_pre" else 1: vector()}, site, 0.7)
    baked = steering.bake(model, given)
    assert all(name.endswith(("bias", "down_proj_bias")) for name in baked.changed)
    baked.save(tmp_path / "baked")
    again = plain(tmp_path / "baked")
    assert off(every_logit(again, model), edited_logits(model, given.edits())) <= 1e-4
    if family == "llama":
        assert not model.hf.config.mlp_bias and not model.hf.config.attention_bias
        assert again.config.attention_bias if site == "attn_out" else again.config.mlp_bias


@pytest.mark.parametrize("family", ["qwen3", "qwen3_moe", "deepseek_v3"])
def test_an_addition_after_attention_may_have_a_bias_where_one_after_the_mlp_has_none(
    family: str, tmp_path: Path
) -> None:
    model, edit = loaded(family), add(vector(), 0.5, site="resid_mid", layer=1)
    steering.bake(model, edit).save(tmp_path / "baked")
    again = plain(tmp_path / "baked")
    assert again.config.attention_bias and not model.hf.config.attention_bias
    assert off(every_logit(again, model), edited_logits(model, [edit])) <= 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_an_addition_before_the_first_block_becomes_part_of_the_embedding(family: str) -> None:
    model, edit = loaded(family), add(vector(), 0.5, site="resid_pre", layer=0)
    baked = steering.bake(model, edit)
    assert len([name for name in baked.changed if "bias" not in name]) == 1
    assert off(every_logit(baked.hf, model), edited_logits(model, [edit])) <= 1e-4


@pytest.mark.parametrize("family", ["mistral", "qwen2", "qwen3", "phi3", "mixtral", "qwen3_moe", "deepseek_v3"])
def test_an_addition_without_a_bias_says_so(family: str) -> None:
    with pytest.raises(ModelError, match="has no bias, and its configuration has no setting"):
        steering.bake(loaded(family), add(vector(), site="resid_pre", layer=2))


def test_a_changed_model_is_changed_in_place_when_asked(tmp_path: Path) -> None:
    for family in ("llama", "gpt2", "gpt_oss"):
        model = own(family)
        edits = [ablate(vector(1)), add(vector(2), site="resid_post", layer=1)]
        wanted, digest = edited_logits(model, edits), model.identity["digest"]
        kept = [p for n, p in model.hf.named_parameters() if n.endswith("norm.weight")]
        steering.bake(model, edits, inplace=True)
        assert off(every_logit(model.hf, model), wanted) <= 1e-4
        assert model.identity["digest"] != digest and model.provenance()["model"]["baked"]
        assert all(any(p is q for q in model.hf.parameters()) for p in kept)
        model.verify()
        model.hf.save_pretrained(tmp_path / family)
        assert off(every_logit(plain(tmp_path / family), model), wanted) <= 1e-4


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_oss"])
def test_half_types_are_compared_within_their_rounding(family: str, kind: torch.dtype) -> None:
    model = interp.load(tiny_model(family).to(kind), tiny_tokenizer())
    agreed = steering.bake(model, vector()).agreement
    assert agreed.exact and agreed.median <= agreed.tolerance and agreed.along is not None
    assert 1e-6 < agreed.along < (1e-2 if kind is torch.bfloat16 else 1e-3)


def test_a_writer_that_nobody_knows_of_is_noticed() -> None:
    for kind in (torch.float32, torch.bfloat16):
        model = interp.load(tiny_model("llama").to(kind), tiny_tokenizer())
        extra = vector(5).to(DEVICE, kind)
        model.hf.model.layers[1].mlp.register_forward_hook(lambda _m, _a, out, extra=extra: out + extra)
        with pytest.raises(ModelError, match="something writes to the stream that this version does not know"):
            steering.bake(model, vector())


def test_a_model_that_scales_what_it_adds_is_noticed() -> None:
    model = own("gpt2")
    model.hf.transformer.h[1].mlp.register_forward_hook(lambda _m, _a, out: out * 2)
    with pytest.raises(ModelError, match="not equal to the run-time edits"):
        steering.bake(model, add(vector(), site="mlp_out", layer=1))


REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "width": (torch.ones(47), DirectionError, "does not fit"),
    "widths": ([torch.ones(48), torch.ones(47)], DirectionError, "differ"),
    "zero": (torch.zeros(48), DirectionError, "non-zero"),
    "zero among others": (torch.eye(48)[:2] * torch.tensor([[1.0], [0.0]]), DirectionError, "non-zero"),
    "nan": (torch.full((48,), torch.nan), DirectionError, "finite"),
    "shape": (torch.ones(2, 3, 48), DirectionError, "several"),
    "layer": (ablate(torch.ones(48), layers=[7]), SiteError, "layer 7 is out of range"),
    "position": (ablate(torch.ones(48), positions="t_inst"), EditError, "weights act on every token"),
    "phase": (ablate(torch.ones(48), phase="generation"), EditError, "weights act on every token"),
    "stream": (ablate(torch.ones(48), sites="stream"), EditError, "ablate at the writers"),
    "reference": (ablate(torch.ones(48), 1.0), EditError, "reference"),
    "set": (set_to(torch.ones(48), site="mlp_out", layer=1), EditError, "cannot be written into weights"),
    "heads": (scale_heads([(0, 1)], 0.0), EditError, "cannot be written into weights"),
    "site": (add(torch.ones(64), site="z", layer=1), EditError, "nothing that is added to the stream"),
    "nothing": ([], DirectionError, "a vector"),
    "no effect": (add(torch.zeros(48), site="mlp_out", layer=1), EditError, "change no logit"),
    "text": ("refusal", EditError, "is no edit"),
    "texts": (["refusal"], EditError, "is no edit"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_weights_cannot_do_is_refused_with_the_reason(case: str) -> None:
    given, error, message = REFUSED[case]
    model = loaded("qwen3") if case == "site" else loaded("gpt2")
    with pytest.raises(error, match=message):
        steering.bake(model, given)


def test_an_addition_between_attention_and_mlp_needs_that_place() -> None:
    edit = add(vector(), site="resid_mid", layer=1)
    assert steering.bake(loaded("gpt_neox_sequential"), edit).agreement.exact
    with pytest.raises(SiteError, match="parallel"):
        steering.bake(loaded("gpt_neox"), edit)


class _Packed(nn.Linear):
    """As quantisers have them: a linear layer of another class."""


def _quantised(how: str) -> interp.Model:
    model = own("llama")
    down = model.hf.model.layers[1].mlp.down_proj
    if how == "config":
        model.hf.config.quantization_config = {"quant_method": "mxfp4"}
    elif how == "type":
        down.weight = nn.Parameter(down.weight.data.to(torch.int8), requires_grad=False)
    elif how == "class":
        down.__class__ = _Packed
    elif how == "float8":
        down.weight = nn.Parameter(down.weight.data.to(torch.float8_e4m3fn), requires_grad=False)
    return model


@pytest.mark.parametrize("how", ["config", "type", "class", "float8"])
def test_quantised_weights_are_refused(how: str) -> None:
    with pytest.raises(ModelError, match="quantis|no plain"):
        steering.bake(_quantised(how), vector())


def test_a_model_that_is_not_simply_its_weights_is_refused() -> None:
    model = own("llama")
    with model.edited(ablate(vector(2))), pytest.raises(EditError, match="inside an `edited` block"):
        steering.bake(model, vector())
    model.hf.train()
    with pytest.raises(ModelError, match="training mode"):
        steering.bake(model, vector())
    model.hf.eval()
    model.hf.hf_device_map = {"a": 0, "b": 1}
    with pytest.raises(ModelError, match="several devices"):
        steering.bake(model, vector())
    del model.hf.hf_device_map
    model.hf.model.layers[1].mlp.down_proj.to("meta")
    with pytest.raises(ModelError, match="no values here"):
        steering.bake(model, vector())


def test_an_overflow_is_an_error_and_no_model() -> None:
    model = interp.load(tiny_model("gpt2").to(torch.float16), tiny_tokenizer())
    with pytest.raises(Exception, match="infinite|not finite|NaN|nan") as caught:
        steering.bake(model, add(vector() * 1e6, site="resid_pre", layer=1))
    assert isinstance(caught.value, interp.errors.RefusalkitError)


def test_the_folder_tells_what_was_done_and_with_what(tmp_path: Path) -> None:
    from interp.direction import Direction

    model = own("gpt2")
    named = Direction(vector(), "resid_pre", 2, "t_inst", "refusal", {"dataset": "advbench"})
    folder = steering.bake(model, named).save(tmp_path / "baked")
    record = json.loads((folder / "refusalkit.json").read_text())
    assert record["format"] == "refusalkit/baked-model/1" and record["untied"]
    assert record["base"]["model"] == model.identity and record["agreement"]["exact"]
    assert record["vectors"] == [
        {"name": "refusal", "site": "resid_pre", "layer": 2, "position": "t_inst", "norm": named.norm,
         "provenance": {"dataset": "advbench"}}
    ]  # fmt: skip
    assert record["writers"] == {"attn": [0, 1, 2], "embed": [0], "mlp": [0, 1, 2]} and len(record["changed"]) == 14
    card = (folder / "README.md").read_text()
    assert card.startswith("---\n") and "ablation of a direction" in card and "unchanged" in card
    assert str(tmp_path) not in card + (folder / "refusalkit.json").read_text() + (folder / "config.json").read_text()
    unknown = steering.bake(model, vector())
    assert unknown.record["vectors"] == [{"provenance": "unknown"}]


def test_files_for_images_go_along(tmp_path: Path) -> None:
    source = tmp_path / "source"
    small = tiny_model("gemma3_multimodal")
    torch.nn.init.normal_(small.model.multi_modal_projector.mm_input_projection_weight)
    small.save_pretrained(source)
    tiny_tokenizer().save_pretrained(source)
    (source / "preprocessor_config.json").write_text('{"image_processor_type": "Gemma3ImageProcessor"}')
    baked = steering.bake(interp.load(str(source)), vector(), nearest=True)
    folder = baked.save(tmp_path / "baked")
    assert (folder / "preprocessor_config.json").read_bytes() == (source / "preprocessor_config.json").read_bytes()
    images = torch.randn(1, 4, 32, generator=torch.Generator().manual_seed(0))
    seen = baked.hf.model.multi_modal_projector(images)
    assert float((seen @ (vector() / vector().norm())).abs().max() / seen.norm(dim=-1).max()) < 1e-6
    assert off(every_logit(hf.AutoModelForCausalLM.from_pretrained(folder).eval(), loaded("gemma3_multimodal")),
               every_logit(baked.hf, loaded("gemma3_multimodal"))) == 0  # fmt: skip


def test_nothing_is_written_over_and_nothing_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    baked = steering.bake(own("llama"), vector())
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FormatError, match="not empty"):
        baked.save(tmp_path / "there")
    with pytest.raises(FormatError, match="a file"):
        baked.save(tmp_path / "file")
    with pytest.raises(FormatError, match="no folder"):
        baked.save(tmp_path / "a" / "b")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("steering.weights.baking.write_json", full)
        with pytest.raises(FormatError, match="No space left"):
            baked.save(tmp_path / "baked")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "there"]
    (tmp_path / "empty").mkdir()
    baked.save(tmp_path / "empty")
    assert (tmp_path / "empty" / "model.safetensors").is_file()


def test_a_model_from_a_folder_is_baked_as_one_in_memory(tmp_path: Path) -> None:
    for family in ("mixtral", "gpt_oss"):  # experts are stored otherwise than they are held
        tiny_model(family).save_pretrained(tmp_path / family)
        tiny_tokenizer().save_pretrained(tmp_path / family)
        model = interp.load(str(tmp_path / family))
        steering.bake(model, vector()).save(tmp_path / f"{family}-baked")
        wanted = edited_logits(model, [ablate(vector())])
        assert off(every_logit(plain(tmp_path / f"{family}-baked"), model), wanted) <= 1e-4


def test_the_organism_says_the_same_baked_as_edited() -> None:
    model, prompts = interp.load("organism:chat"), interp.prompts("organism").test
    some = [*prompts.harmful[:8], *prompts.harmless[:8]]
    means = [
        interp.capture(model, part, "resid_pre", ["t_post_inst"], [3]).sel("resid_pre", 3).mean(0)
        for part in (interp.prompts("organism").train.harmful[:32], interp.prompts("organism").train.harmless[:32])
    ]
    direction = means[0][0] - means[1][0]
    baked = interp.load(steering.bake(model, direction).hf, model.tokenizer)
    theirs = model.generate(some, max_new_tokens=16, edits=ablate(direction))
    assert [c.text for c in baked.generate(some, max_new_tokens=16)] == [c.text for c in theirs]
