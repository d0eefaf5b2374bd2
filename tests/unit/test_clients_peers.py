"""A vector in TransformerLens and nnsight does what it does here: `steering.lens_hooks`, `steering.nnsight_steer`."""

from __future__ import annotations

import copy
import warnings
from functools import cache
from typing import Any

import pytest
import torch

import interp
import steering
from interp.errors import DirectionError, EditError, SiteError
from interp.model.model import Model
from steering import SteeringVector
from tests.helpers.tiny import tiny_model, tiny_tokenizer

FAMILIES = ["llama", "gpt_neox", "qwen3_moe"]  # dense, parallel blocks, a mixture of experts
SITES = ["resid_pre", "resid_post"]
TEXT = "Why is the sky blue?"


@cache
def model(family: str) -> Model:
    return interp.load(tiny_model(family), tokenizer=tiny_tokenizer())


@cache
def bridge(family: str) -> Any:
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    hf = tiny_model(family)
    hf.config.architectures = [type(hf).__name__]
    return build_bridge_from_module(hf, type(hf).__name__, hf_config=hf.config)


@cache
def traced(family: str) -> Any:
    from nnsight import TransformersModel

    return TransformersModel(tiny_model(family), tokenizer=copy.deepcopy(tiny_tokenizer()), task="text-generation")


def vector(site: str = "resid_post", layers: tuple[int, ...] = (0, 2), **where: Any) -> SteeringVector:
    source = torch.Generator().manual_seed(7)
    return SteeringVector({layer: torch.randn(48, generator=source) for layer in layers}, site, 1.5, **where)


def ours(family: str, v: SteeringVector) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """Ids of a prompt, its next-token logits, and the text that follows."""
    m = model(family)
    logits = m.logits(TEXT, edits=[v])
    assert float((logits - m.logits(TEXT)).abs().max()) > 0.5
    return torch.tensor([m.encode(TEXT)[0].ids]), logits[0], list(m.generate(TEXT, edits=v, max_new_tokens=5)[0].ids)


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("family", FAMILIES)
def test_hooks_on_a_bridge_give_our_logits_and_text(family: str, site: str) -> None:
    ids, logits, text = ours(family, vector(site))
    hooks = steering.lens_hooks(vector(site), bridge(family))
    with torch.inference_mode():
        found = bridge(family).run_with_hooks(ids, fwd_hooks=hooks)[0, -1]
        with bridge(family).hooks(fwd_hooks=hooks):
            written = bridge(family).generate(ids, max_new_tokens=5, do_sample=False, verbose=False)
    assert float((found - logits).abs().max()) < 1e-5
    assert written[0, ids.shape[1] :].tolist()[: len(text)] == text


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_trace_gives_our_logits_and_text(family: str, site: str) -> None:
    ids, logits, text = ours(family, vector(site))
    lm = traced(family)
    with torch.no_grad(), lm.trace(ids):
        steering.nnsight_steer(vector(site), lm)
        found = lm.output.logits.save()
    assert float((found[0, -1] - logits).abs().max()) < 1e-5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the open loop ended, by design
        with torch.no_grad(), lm.generate(max_new_tokens=5, do_sample=False) as tracer:
            with tracer.invoke(ids):
                for _ in tracer.iter[:]:
                    steering.nnsight_steer(vector(site), lm)
            with tracer.invoke():
                written = tracer.result.save()
    assert written[0, ids.shape[1] :].tolist()[: len(text)] == text


def test_outside_the_loop_only_the_prompt_is_steered() -> None:
    """What the error for a vector of one phase says."""
    ids, _, _ = ours("llama", vector())
    prompt_only = vector(phase="prompt")
    text = list(model("llama").generate(TEXT, edits=prompt_only, max_new_tokens=5)[0].ids)
    lm = traced("llama")
    with torch.no_grad(), lm.generate(max_new_tokens=5, do_sample=False) as tracer:
        with tracer.invoke(ids):
            for _ in tracer.iter[:1]:
                steering.nnsight_steer(vector(), lm)
        with tracer.invoke():
            written = tracer.result.save()
    assert written[0, ids.shape[1] :].tolist()[: len(text)] == text


@pytest.mark.parametrize(
    ("v", "error", "words"),
    [
        (vector(layers=(3,)), SiteError, "layer 3 is out of range: this model has layers 0 to 2"),
        (vector("z"), SiteError, "acts at z"),
        (SteeringVector({0: torch.ones(47)}), DirectionError, "width 47 does not fit .* 48 wide"),
        (vector(positions=("t_inst",)), EditError, "t_inst in the phase 'prompt'; use interp.load.*backend="),
        (vector(phase="generation"), EditError, "all in the phase 'generation'; use interp.load.*backend="),
    ],
)
def test_what_does_not_fit_is_refused_with_the_remedy(v: SteeringVector, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        steering.lens_hooks(v, bridge("llama"))
    with pytest.raises(error, match=words):
        steering.nnsight_steer(v, traced("llama"))
