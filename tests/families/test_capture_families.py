"""What is captured is what the model computes, in every family."""

from __future__ import annotations

import pytest
import torch

import interp
from tests.helpers.slow import BASIC_SITES, PROMPTS, fingerprint, loaded, slow_greedy, slow_read
from tests.helpers.tiny import FAMILIES, tiny_model, tiny_tokenizer

POSITIONS = [0, "t_inst", "post_inst", "inst[0]"]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_site_equals_plain_hooks_and_hf_hidden_states(family: str) -> None:
    model = loaded(family)
    acts = interp.capture(model, PROMPTS, sites=BASIC_SITES, positions=POSITIONS)
    for row, encoded in enumerate(model.encode(PROMPTS)):
        columns = [c for name in POSITIONS for c in encoded.columns(name)]
        slow = slow_read(model.hf, family, encoded.ids)
        for site in BASIC_SITES:
            torch.testing.assert_close(acts.data[site][row], slow[site][:, columns], rtol=1e-4, atol=1e-4)
        with torch.no_grad():
            states = model.hf(torch.tensor([encoded.ids]), output_hidden_states=True).hidden_states
        for layer in range(model.n_layers):
            torch.testing.assert_close(
                acts.sel("resid_pre", layer)[row], states[layer][0, columns], rtol=1e-4, atol=1e-4
            )


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_the_models_own(family: str) -> None:
    model = loaded(family)
    ours = model.logits(PROMPTS)
    for row, encoded in enumerate(model.encode(PROMPTS)):
        own = slow_read(model.hf, family, encoded.ids)["logits"][-1]
        torch.testing.assert_close(ours[row], own, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_site_is_causal_and_loading_leaves_the_model_as_it_was(family: str) -> None:
    hf = tiny_model(family)
    before = fingerprint(hf)
    model = interp.load(hf, tiny_tokenizer())
    model.verify()
    interp.capture(model, PROMPTS, sites=BASIC_SITES)
    model.generate(PROMPTS, max_new_tokens=3)
    assert fingerprint(hf) == before


@pytest.mark.parametrize("family", FAMILIES)
def test_generation_equals_decoding_without_a_cache(family: str) -> None:
    """Prompts are longer than Gemma 2's sliding window of 8, and of different lengths."""
    model = loaded(family)
    written = model.generate(PROMPTS, max_new_tokens=10)
    for encoded, completion in zip(model.encode(PROMPTS), written, strict=True):
        slow, _ = slow_greedy(model.hf, family, encoded.ids, 10, ends=model.chat.end_ids)
        assert list(completion.ids) == slow


@pytest.mark.parametrize("family", FAMILIES)
def test_generation_equals_hf_generate(family: str) -> None:
    model = loaded(family)
    written = model.generate(PROMPTS, max_new_tokens=10)
    for encoded, completion in zip(model.encode(PROMPTS), written, strict=True):
        ids = torch.tensor([encoded.ids])
        own = model.hf.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=10, do_sample=False,
            eos_token_id=list(model.chat.end_ids), pad_token_id=0,
        )  # fmt: skip
        assert list(completion.ids) == own[0, len(encoded) :].tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_ablating_every_writer_leaves_nothing_along_the_direction(family: str) -> None:
    model = loaded(family)
    r = torch.randn(model.d_model, generator=torch.Generator().manual_seed(1))
    r = r / r.norm()
    edit = interp.edits.ablate(r)
    sites = ("resid_pre", "resid_mid", "resid_post")
    plain = interp.capture(model, PROMPTS, sites=sites, positions=POSITIONS)
    acts = interp.capture(model, PROMPTS, sites=sites, positions=POSITIONS, edits=[edit])
    for site in sites:
        left = (acts.data[site] @ r).abs().amax() / acts.data[site].norm(dim=-1).mean()
        assert left < 1e-5 < (plain.data[site] @ r).abs().mean()


@pytest.mark.parametrize("family", FAMILIES)
def test_an_edited_generation_equals_plain_hooks_without_a_cache(family: str) -> None:
    model = loaded(family)
    v = torch.randn(model.d_model, generator=torch.Generator().manual_seed(2)) * 3
    for site in ("resid_pre", "attn_out", "mlp_out", "resid_post"):
        written = model.generate(PROMPTS, max_new_tokens=5, edits=[interp.edits.add(v, site=site, layer=1)])
        for encoded, completion in zip(model.encode(PROMPTS), written, strict=True):
            changes = {(site, 1): lambda x: x + v}
            slow, _ = slow_greedy(model.hf, family, encoded.ids, 5, lambda _n, c=changes: c, model.chat.end_ids)
            assert list(completion.ids) == slow
