"""What is captured is what the model computes, at every site of every family."""

from __future__ import annotations

import pytest
import torch
from einops import rearrange

import interp
from interp.errors import SiteError
from tests.helpers.family_checks import (
    against_reference,
    batch_against_single,
    bfloat16_noise,
    captured,
    sites_of,
    told,
)
from tests.helpers.slow import PROMPTS, fingerprint, hidden_states, loaded, slow_read
from tests.helpers.tiny import DEVICE, FAMILIES, MIXTURES, tiny_model, tiny_tokenizer

TIGHT = 1e-5


@pytest.mark.parametrize("attention", ["eager", None])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_site_equals_a_slow_and_obvious_reference(family: str, attention: str | None) -> None:
    errors = against_reference(family, attention)
    assert max(errors.values()) < TIGHT, errors


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_has_the_sites_its_blocks_have(family: str) -> None:
    sites = set(interp.SITES)
    routing = {"router_logits", "expert_indices", "expert_weights"}
    sites -= {"mlp_post"} if family in MIXTURES and family != "deepseek_v3" else set()
    sites -= routing if family not in MIXTURES else set()
    sites -= {"resid_mid"} if family == "gpt_neox" else set()
    assert set(sites_of(loaded(family, attention="eager"))) == sites


@pytest.mark.parametrize("family", FAMILIES)
def test_residual_sites_are_the_hidden_states_of_hugging_face(family: str) -> None:
    model = loaded(family)
    for prompt in PROMPTS:
        (encoded,) = model.encode(prompt)
        acts = interp.capture(model, prompt, sites="resid_pre", positions="prompt[0]")
        states = hidden_states(model.hf, torch.tensor([encoded.ids], device=DEVICE))
        for layer in range(model.n_layers):
            torch.testing.assert_close(acts.sel(layer=layer)[0, 0], states[layer][0, 0].cpu(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_the_models_own(family: str) -> None:
    model = loaded(family)
    ours = model.logits(PROMPTS)
    for row, encoded in enumerate(model.encode(PROMPTS)):
        own = slow_read(model.hf, family, encoded.ids)["logits"][-1]
        torch.testing.assert_close(ours[row], own, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_gives_the_numbers_of_single_prompts(family: str) -> None:
    errors = batch_against_single(family)
    assert max(errors.values()) < TIGHT, errors


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_is_within_its_own_noise(family: str) -> None:
    for site, (ours, own) in bfloat16_noise(family).items():
        assert ours <= 1.5 * own, f"{site}: {ours:.2g} off, where the model's own forward is {own:.2g} off"


@pytest.mark.parametrize("family", FAMILIES)
def test_every_site_is_causal_and_nothing_leaves_a_trace_in_the_model(family: str) -> None:
    hf = tiny_model(family, attention="eager")
    before = fingerprint(hf)
    model = interp.load(hf, tiny_tokenizer())
    model.verify()
    captured(model)
    model.generate(PROMPTS, max_new_tokens=3)
    assert fingerprint(hf) == before


@pytest.mark.parametrize("family", FAMILIES)
def test_every_weight_of_a_fixture_is_random(family: str) -> None:
    """Gains of one and biases of zero would hide errors."""
    model = tiny_model(family)
    text = {n: p for n, p in model.named_parameters() if "vision" not in n and "projector" not in n}
    constant = [name for name, weight in text.items() if float(weight.detach().std()) < 1e-3]
    assert not constant
    named = " ".join(text)
    if family in ("qwen2", "gpt2", "gpt_neox"):
        assert "bias" in named
    if family == "gpt_oss":
        assert all(part in named for part in ("sinks", "router.bias", "gate_up_proj_bias", "down_proj_bias"))
    if family == "deepseek_v3":
        assert float(model.model.layers[1].mlp.gate.e_score_correction_bias.std()) > 0.05


@pytest.mark.parametrize("family", MIXTURES)
def test_prompts_use_several_experts(family: str) -> None:
    model = loaded(family)
    width = model.arch.feature("router_logits").width
    for layer in model.arch.layers_with("expert_indices"):
        used = {int(i) for prompt in told(family) for i in prompt["expert_indices", layer].unique()}
        assert len(used) > width / 2


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_of_q_and_k_make_the_pattern_and_pattern_and_v_make_z(family: str) -> None:
    """By the family's own rule: scale, soft cap, window and sink."""
    model = loaded(family, attention="eager")
    config = model.hf.config.get_text_config()
    (encoded,) = model.encode(PROMPTS[1])
    n = len(encoded)
    acts = interp.capture(model, [encoded], sites=["q", "k", "v", "pattern", "z"], positions=[*range(n)])
    q, k, v, pattern = (acts.heads(site)[0] for site in ("q", "k", "v", "pattern"))
    k, v = (x.repeat_interleave(model.n_heads // x.shape[2], 2) for x in (k, v))
    for layer in range(model.n_layers):
        attention = model.arch.module(layer, "attention")
        scores = torch.einsum("qhd,khd->hqk", q[layer], k[layer]) * attention.scaling
        if cap := getattr(config, "attn_logit_softcapping", None):
            scores = torch.tanh(scores / cap) * cap
        sliding = (getattr(config, "layer_types", None) or ["full_attention"] * 3)[layer] == "sliding_attention"
        behind = torch.arange(n)[:, None] - torch.arange(n)
        seen = (behind >= 0) & ((behind < config.sliding_window) if sliding else True)
        scores = scores.masked_fill(~seen, float("-inf"))
        if hasattr(attention, "sinks"):
            sinks = attention.sinks.detach().cpu()[:, None, None].expand(-1, n, 1)
            weights = torch.cat([scores, sinks], -1).softmax(-1)[..., :-1]
            assert float(weights.sum(-1).max()) < 1
        else:
            weights = scores.softmax(-1)
        torch.testing.assert_close(rearrange(pattern[layer], "q h k -> h q k"), weights, rtol=1e-4, atol=1e-5)
        mixed = torch.einsum("hqk,khd->qhd", weights, v[layer]).flatten(1)
        torch.testing.assert_close(acts.sel("z", layer)[0], mixed, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_keys_beyond_a_prompt_are_zero_and_rows_sum_to_one_but_for_sinks(family: str) -> None:
    model = loaded(family, attention="eager")
    usual = interp.capture(model, PROMPTS, sites="pattern", positions=["t_inst", "last"]).heads("pattern")
    apart = interp.capture(model, PROMPTS, sites="pattern", positions=["t_inst", "last"], token_budget=1)
    torch.testing.assert_close(apart.heads("pattern"), usual, rtol=1e-4, atol=1e-6)
    for row, encoded in enumerate(model.encode(PROMPTS)):
        assert not bool(apart.heads("pattern")[row, ..., len(encoded) :].any())
    total = usual.sum(-1)
    if family == "gpt_oss":
        assert 0.5 < float(total.min()) <= float(total.max()) < 1
    else:
        torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "deepseek_v3"])
def test_pattern_needs_eager_attention_and_says_so(family: str) -> None:
    with pytest.raises(SiteError, match=r"no pattern: .*attn_implementation='eager'"):
        interp.capture(loaded(family), PROMPTS, sites="pattern")


def test_a_parallel_block_has_no_middle_and_says_so() -> None:
    with pytest.raises(SiteError, match="no resid_mid: its blocks are parallel"):
        interp.capture(loaded("gpt_neox"), PROMPTS, sites="resid_mid")
    with pytest.raises(SiteError, match="no resid_mid: its blocks are parallel"):
        loaded("gpt_neox").logits(PROMPTS, edits=[interp.edits.add(torch.ones(48), site="resid_mid", layer=1)])
    assert interp.capture(loaded("gpt_neox_sequential"), PROMPTS, sites="resid_mid").layers == (0, 1, 2)


def test_blocks_of_several_kinds_name_the_layers_that_have_a_site() -> None:
    model = loaded("deepseek_v3")  # a dense block, then mixtures of experts
    assert interp.capture(model, PROMPTS, sites="router_logits").layers == (1, 2)
    assert interp.capture(model, PROMPTS, sites="mlp_post").layers == (0,)
    with pytest.raises(SiteError, match=r"mlp_post at \[0\]; router_logits at \[1, 2\]; say which layers"):
        interp.capture(model, PROMPTS, sites=["mlp_post", "router_logits"])
    with pytest.raises(SiteError, match=r"resid_post at \[0, 1, 2\]; mlp_post at \[0\]"):
        model.run(PROMPTS, reads=["resid_post", "mlp_post"])
    with pytest.raises(SiteError, match="layer 0 has no router_logits; the layers that have it are 1-2"):
        interp.capture(model, PROMPTS, sites="router_logits", layers=[0, 1])
    with pytest.raises(SiteError, match="layer 1 has no mlp_post; the layers that have it are 0"):
        model.logits(PROMPTS, edits=[interp.edits.add(torch.ones(96), site="mlp_post", layer=1)])
    with pytest.raises(SiteError, match="no mlp_post: its MLPs have no single down projection"):
        interp.capture(loaded("mixtral"), PROMPTS, sites="mlp_post")
    with pytest.raises(SiteError, match="no router_logits: it has no mixture of experts"):
        interp.capture(loaded("llama"), PROMPTS, sites="router_logits")


@pytest.mark.parametrize("family", FAMILIES)
def test_features_divide_into_heads(family: str) -> None:
    model = loaded(family, attention="eager")
    acts = interp.capture(model, PROMPTS, sites=["q", "k", "v", "z", "pattern"], positions=["t_inst", "last"])
    longest = max(len(e) for e in model.encode(PROMPTS))
    kv = model.arch.n_kv_heads
    for site, heads in (("q", model.n_heads), ("k", kv), ("v", kv), ("z", model.n_heads), ("pattern", model.n_heads)):
        apart = acts.heads(site)
        assert apart.shape[:4] == (4, 3, 2, heads)
        assert torch.equal(apart.flatten(-2), acts.sel(site))
    assert acts.heads("pattern").shape[-1] == longest
    assert torch.equal(acts.heads(), acts.heads("z"))
    with pytest.raises(SiteError, match="resid_post has no heads; the sites that have are z, q, k, v, pattern"):
        acts.heads("resid_post")


def test_a_multimodal_wrapper_is_loaded_from_disk_as_its_text_model_is(tmp_path) -> None:  # type: ignore[no-untyped-def]
    hf = tiny_model("gemma3_multimodal")
    hf.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    model = interp.load(str(tmp_path), device=DEVICE)
    assert type(model.hf).__name__ == "Gemma3ForConditionalGeneration"
    torch.testing.assert_close(model.logits(PROMPTS), loaded("gemma3_multimodal").logits(PROMPTS))


@pytest.mark.parametrize("family", FAMILIES)
def test_ablating_every_writer_leaves_nothing_along_the_direction(family: str) -> None:
    model = loaded(family)
    r = torch.randn(model.d_model, generator=torch.Generator().manual_seed(1))
    r = r / r.norm()
    edit = interp.edits.ablate(r)
    sites = [s for s in ("resid_pre", "resid_mid", "resid_post") if model.arch.layers_with(s)]
    plain = interp.capture(model, PROMPTS, sites=sites)
    acts = interp.capture(model, PROMPTS, sites=sites, edits=[edit])
    for site in sites:
        left = (acts.data[site] @ r).abs().amax() / acts.data[site].norm(dim=-1).mean()
        assert left < 1e-5 < (plain.data[site] @ r).abs().mean()
