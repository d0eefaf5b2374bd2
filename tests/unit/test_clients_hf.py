"""A vector in plain transformers does what it does here: `steering.hf_hooks`, and a script without anything of ours."""

from __future__ import annotations

import dataclasses
import runpy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import interp
import steering
from interp.errors import DirectionError, EditError, ModelError, PositionError, SiteError
from interp.model.batching import pad
from interp.model.model import Model
from steering import SteeringVector
from tests.helpers.tiny import tiny_model, tiny_tokenizer

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
TEXTS = ["Hi.", "Why is the sky blue?", "Name three colours, please."]
FAMILIES = ["llama", "gpt_neox", "qwen3_moe"]  # dense, parallel blocks, a mixture of experts


@cache
def model(family: str = "llama") -> Model:
    return interp.load(tiny_model(family), tokenizer=tiny_tokenizer())


def vector(site: str = "resid_post", layers: tuple[int, ...] = (0, 2), **where: Any) -> SteeringVector:
    source = torch.Generator().manual_seed(7)
    return SteeringVector({layer: torch.randn(48, generator=source) for layer in layers}, site, 1.5, **where)


def batch(m: Model, left: bool) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Inputs of the texts, padded, and where each prompt's last token is."""
    encoded = m.encode(TEXTS)
    ids, mask, pads = pad(encoded, m.pad_id, left=left, device=m.device)
    last = torch.tensor([len(e) - 1 + p for e, p in zip(encoded, pads, strict=True)])
    places = (mask.cumsum(1) - 1).clamp(min=0)
    return {"input_ids": ids, "attention_mask": mask, "position_ids": places}, last


def theirs(m: Model, v: SteeringVector, left: bool = True) -> torch.Tensor:
    inputs, last = batch(m, left)
    with torch.inference_mode(), steering.hf_hooks(v, m.hf) as hf:
        return hf(**inputs).logits[torch.arange(len(last)), last].float()


def their_texts(m: Model, v: SteeringVector, **options: Any) -> list[list[int]]:
    inputs, _ = batch(m, left=True)
    del inputs["position_ids"]  # generate finds them itself
    with steering.hf_hooks(v, m.hf) as hf:
        out = hf.generate(**inputs, max_new_tokens=5, min_new_tokens=5, do_sample=False, **options)
    return out[:, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("site", ["resid_pre", "resid_post"])
def test_the_logits_are_ours_in_every_family_and_with_padding_on_either_side(family: str, site: str) -> None:
    m, v = model(family), vector(site)
    ours = m.logits(TEXTS, edits=[v])
    assert float((ours - m.logits(TEXTS)).abs().max()) > 0.5
    for left in (True, False):
        assert float((theirs(m, v, left) - ours).abs().max()) < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_the_text_is_ours_in_batches_with_padding(family: str) -> None:
    m, v = model(family), vector()
    ours = [list(c.ids) for c in m.generate(TEXTS, edits=v, max_new_tokens=5)]
    assert ours != [list(c.ids) for c in m.generate(TEXTS, max_new_tokens=5)]
    for own, other in zip(ours, their_texts(m, v), strict=True):
        assert other[: len(own)] == own


def test_a_beam_search_is_steered_as_by_our_edits() -> None:
    m, v = model(), vector()
    inputs, _ = batch(m, left=True)
    del inputs["position_ids"]
    with m.edited(v):
        ours = m.hf.generate(**inputs, max_new_tokens=5, min_new_tokens=5, do_sample=False, num_beams=3)
    assert their_texts(m, v, num_beams=3) == ours[:, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize(
    "where",
    [
        {"positions": ("all",), "phase": "prompt"}, {"positions": ("all",), "phase": "generation"},
        {"positions": (0, -2)}, {"positions": ("last", 3), "phase": "both"}, {"positions": ("prompt",)},
    ],
    ids=str,
)  # fmt: skip
def test_numbered_tokens_and_phases_are_the_same_tokens_as_ours(where: dict[str, Any]) -> None:
    """Logits after the prompt, and after an answer that was written on the cache in a padded batch."""
    m, v = model(), vector("resid_pre", (1,), **where)
    inputs, _ = batch(m, left=True)
    del inputs["position_ids"]
    with steering.hf_hooks(v, m.hf) as hf:
        out = hf.generate(
            **inputs, max_new_tokens=4, min_new_tokens=4, do_sample=False, output_logits=True,
            return_dict_in_generate=True,
        )  # fmt: skip
    answers = out.sequences[:, inputs["input_ids"].shape[1] : -1].tolist()
    prompts = m.encode(TEXTS)
    whole = [dataclasses.replace(e, ids=(*e.ids, *ids)) for e, ids in zip(prompts, answers, strict=True)]
    ours = m.logits(whole, edits=[v])
    assert float((out.logits[-1] - ours).abs().max()) < 1e-5
    everywhere = dataclasses.replace(v, positions=("all",), phase="both")
    assert float((m.logits(whole, edits=[everywhere]) - ours).abs().max()) > 1e-2
    if v.phase != "generation":
        wanted = m.logits(TEXTS, edits=[v])
        assert float((out.logits[0] - wanted).abs().max()) < 1e-5
        assert float((theirs(m, v) - wanted).abs().max()) < 1e-5
        assert float((theirs(m, v, left=False) - wanted).abs().max()) < 1e-5


def test_a_block_that_gives_a_tuple_is_steered_at_its_first_value() -> None:
    """As in transformers 4; here a hook before ours makes the tuple, and one after it takes it apart again."""
    m, v = model(), vector(layers=(1,))
    block, inputs = m.hf.model.layers[1], torch.tensor([m.encode(TEXTS)[0].ids])
    first = block.register_forward_hook(lambda _m, _a, out: (out, "weights"))
    try:
        with torch.inference_mode(), steering.hf_hooks(v, m.hf) as hf:
            last = block.register_forward_hook(lambda _m, _a, out: out[0])
            found = hf(inputs).logits[0, -1]
            last.remove()
    finally:
        first.remove()
    assert float((found - m.logits(TEXTS[:1], edits=[v])[0]).abs().max()) < 1e-5


def test_the_model_is_what_it_was_after_an_exception() -> None:
    m = model()
    before = m.logits(TEXTS)
    with pytest.raises(KeyboardInterrupt), steering.hf_hooks(vector(positions=(0,)), m.hf):
        raise KeyboardInterrupt
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in m.hf.modules())
    assert torch.equal(m.logits(TEXTS), before)


@pytest.mark.parametrize(
    ("v", "error", "words"),
    [
        (vector(layers=(3,)), SiteError, "layer 3 is out of range: this model has layers 0 to 2"),
        (vector("mlp_out"), SiteError, "acts at mlp_out; use model.generate"),
        (SteeringVector({0: torch.ones(47)}), DirectionError, "width 47 does not fit .* 48 wide"),
        (vector(positions=("t_inst",)), EditError, "cannot find 't_inst'; use interp.load"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_remedy(v: SteeringVector, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words), steering.hf_hooks(v, model().hf):
        pass


def test_a_model_without_output_head_is_refused() -> None:
    with pytest.raises(ModelError, match="no output head"), steering.hf_hooks(vector(), model().hf.model):
        pass


def test_what_cannot_tell_prompt_from_answer_is_refused() -> None:
    m, v = model(), vector(phase="prompt")
    ids = torch.tensor([m.encode(TEXTS)[1].ids])
    with torch.inference_mode(), steering.hf_hooks(v, m.hf) as hf:
        with pytest.raises(EditError, match="leave use_cache on"):
            hf(ids, use_cache=False)
        begun = hf(ids[:, :4])
        with pytest.raises(EditError, match="in one piece"):
            hf(ids[:, 4:], past_key_values=begun.past_key_values)
    with torch.inference_mode(), steering.hf_hooks(vector(positions=(500,)), m.hf) as hf:
        with pytest.raises(PositionError, match="position 500 is outside"):
            hf(ids)
        hf(torch.ones(1, 501, dtype=torch.long))


def test_a_vector_that_met_no_token_is_an_error() -> None:
    m = model()
    with pytest.raises(EditError, match="touched nothing"), steering.hf_hooks(vector(phase="generation"), m.hf) as hf:
        hf(torch.tensor([m.encode(TEXTS)[0].ids]))


def test_the_script_that_needs_nothing_of_ours_does_what_we_do(tmp_path: Path) -> None:
    source = (EXAMPLES / "apply_vector.py").read_text()
    assert not any(f"import {room}" in source or f"from {room}" in source for room in ("interp", "steering"))
    steered = runpy.run_path(str(EXAMPLES / "apply_vector.py"))["steered"]
    m = model()
    for site in ("resid_pre", "resid_post"):
        file = vector(site).save(tmp_path / f"{site}.safetensors")
        with torch.inference_mode(), steered(m.hf, file) as hf:
            found = hf(torch.tensor([m.encode(TEXTS)[1].ids])).logits[0, -1]
        assert float((found - m.logits(TEXTS[1:2], edits=[vector(site)])[0]).abs().max()) < 1e-5
    file = dataclasses.replace(vector(), positions=(0,), phase="prompt").save(tmp_path / "some.safetensors")
    with pytest.raises(AssertionError, match="some tokens only"), steered(m.hf, file):
        pass
