"""Generation, with a cache, left padding and edits, is what plain forwards give, in every family."""

from __future__ import annotations

import pytest
import torch

import interp
from tests.helpers.family_checks import EDITED_SITES, PHASES, edits_against_hand, generation_against_replay
from tests.helpers.slow import PROMPTS, loaded
from tests.helpers.tiny import DEVICE, FAMILIES


@pytest.mark.parametrize("attention", ["eager", None])
@pytest.mark.parametrize("family", FAMILIES)
def test_left_padding_and_a_cache_show_what_neither_shows(family: str, attention: str | None) -> None:
    """At every site, for every prompt and generated token; prompts are longer than the sliding windows of 8."""
    errors = generation_against_replay(family, attention)
    assert max(errors.values()) < 1e-5, errors


@pytest.mark.parametrize("family", FAMILIES)
def test_generation_equals_hf_generate(family: str) -> None:
    model = loaded(family)
    written = model.generate(PROMPTS, max_new_tokens=6)
    for encoded, completion in zip(model.encode(PROMPTS), written, strict=True):
        ids = torch.tensor([encoded.ids], device=DEVICE)
        own = model.hf.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False,
            eos_token_id=list(model.chat.end_ids), pad_token_id=0,
        )  # fmt: skip
        assert list(completion.ids) == own[0, len(encoded) :].tolist()


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("family", FAMILIES)
def test_edits_in_generation_equal_the_same_edits_by_hand(family: str, phase: str) -> None:
    """One edit at each site, all together; prompt tokens, generated tokens, or both."""
    error, moved = edits_against_hand(family, phase)
    assert moved > 0.1
    if error > 1e-5:
        apart = {site: edits_against_hand(family, phase, [site])[0] for site in EDITED_SITES}
        pytest.fail(f"relative error {error:.2g}; each site alone: {apart}")


@pytest.mark.soak
@pytest.mark.parametrize("site", EDITED_SITES)
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("family", FAMILIES)
def test_an_edit_in_generation_equals_the_same_edit_by_hand(family: str, phase: str, site: str) -> None:
    if not loaded(family, attention="eager").arch.layers_with(site):
        pytest.skip(f"{family} has no {site}")
    error, moved = edits_against_hand(family, phase, [site])
    assert error < 1e-5 < moved


@pytest.mark.parametrize("family", FAMILIES)
def test_an_edit_of_one_phase_leaves_the_other_alone(family: str) -> None:
    """The first token comes from the prompt: only edits of the prompt may change it."""
    model = loaded(family)
    v = torch.randn(model.d_model, generator=torch.Generator().manual_seed(3)) * 10
    plain = model.generate(PROMPTS, max_new_tokens=4)
    later = interp.edits.add(v, site="resid_post", layer=1, phase="generation")
    sooner = interp.edits.add(v, site="resid_post", layer=1, phase="prompt")
    edited = model.generate(PROMPTS, max_new_tokens=4, edits=[later])
    assert [c.ids[0] for c in edited] == [c.ids[0] for c in plain]
    assert not torch.allclose(model.logits(PROMPTS, edits=[sooner]), model.logits(PROMPTS))
