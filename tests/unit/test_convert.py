"""Activations made elsewhere become ours: the same numbers as a capture, and errors where they cannot be."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import interp
from interp.errors import NonFiniteError, PositionError, PromptError, SiteError
from tests.helpers.backends import behind
from tests.helpers.slow import PROMPTS, hidden_states, loaded

POSITIONS = [0, "t_inst", "post_inst"]
SITES = ["resid_pre", "resid_post", "attn_out", "mlp_out", "z", "mlp_post"]


def padded(side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and mask of the prompts, padded on one side."""
    items = loaded().encode(PROMPTS)
    width = max(len(e) for e in items)
    ids, mask = torch.zeros(len(items), width, dtype=torch.long), torch.zeros(len(items), width, dtype=torch.long)
    for row, item in enumerate(items):
        at = slice(width - len(item), None) if side == "left" else slice(0, len(item))
        ids[row, at], mask[row, at] = torch.tensor(item.ids), 1
    return ids, mask


def places(mask: torch.Tensor) -> torch.Tensor:
    return (mask.cumsum(1) - 1).clamp(min=0)


def same(found: interp.Activations, sites: list[str], layers: list[int] | None = None) -> None:
    own = interp.capture(loaded(), PROMPTS, sites, POSITIONS, layers)
    assert found.positions == own.positions
    assert found.layers == own.layers
    assert set(found.sites) == set(sites)
    for site in sites:
        torch.testing.assert_close(found.data[site], own.data[site], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_hidden_states_become_resid_pre_and_the_normed_last_is_left_out(side: str) -> None:
    ids, mask = padded(side)
    states = hidden_states(loaded().hf, ids, attention_mask=mask, position_ids=places(mask))
    acts = interp.from_hidden_states(states, loaded(), PROMPTS, POSITIONS, attention_mask=mask)
    same(acts, ["resid_pre"])
    assert acts.layers == (0, 1, 2)
    assert acts.provenance["backend"] == "converted from hidden_states"


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_transformer_lens_cache_becomes_activations(side: str) -> None:
    ids, mask = padded(side)
    bridge: Any = behind("llama", "transformer_lens").backend.bridge  # type: ignore[attr-defined]
    _, cache = bridge.run_with_cache(ids, attention_mask=mask, prepend_bos=False)
    acts = interp.from_transformer_lens(cache, loaded(), PROMPTS, SITES, POSITIONS, attention_mask=mask)
    same(acts, SITES)
    every = interp.from_transformer_lens(cache, loaded(), PROMPTS, positions=POSITIONS, attention_mask=mask)
    assert {"resid_mid", *SITES} == set(every.sites)
    some = interp.from_transformer_lens(cache, loaded(), PROMPTS, "z", POSITIONS, [1, -1], attention_mask=mask)
    same(some, ["z"], [1, 2])


def test_a_cache_of_one_prompt_without_its_batch_axis_is_read_too() -> None:
    bridge: Any = behind("llama", "transformer_lens").backend.bridge  # type: ignore[attr-defined]
    ids = torch.tensor([loaded().encode(PROMPTS[1])[0].ids])
    _, cache = bridge.run_with_cache(ids, remove_batch_dim=True, prepend_bos=False)
    acts = interp.from_transformer_lens(cache, loaded(), [PROMPTS[1]], "resid_post", "last")
    own = interp.capture(loaded(), [PROMPTS[1]], "resid_post", "last")
    torch.testing.assert_close(acts.data["resid_post"], own.data["resid_post"], rtol=1e-5, atol=1e-5)


def test_values_and_caches_of_nnsight_become_activations() -> None:
    ids, mask = padded("left")
    lm: Any = behind("llama", "nnsight").backend.lm  # type: ignore[attr-defined]
    saved: dict[int, Any] = {}
    with torch.no_grad(), lm.trace(input_ids=ids, attention_mask=mask) as tracer:
        cache = tracer.cache()
        for layer in range(3):
            saved[layer] = lm.model.layers[layer].output.save()
    acts = interp.from_nnsight(saved, loaded(), PROMPTS, "resid_post", POSITIONS, attention_mask=mask)
    same(acts, ["resid_post"])
    same(
        interp.from_nnsight(cache, loaded(), PROMPTS, positions=POSITIONS, attention_mask=mask),
        ["attn_out", "mlp_out", "resid_post"],
    )


def test_labels_come_along() -> None:
    prompts = interp.PromptSet(tuple(interp.Prompt(p, label="harmless", group=p) for p in PROMPTS), "mine")
    ids, mask = padded("left")
    states = hidden_states(loaded().hf, ids, attention_mask=mask, position_ids=places(mask))
    acts = interp.from_hidden_states(states, loaded(), prompts, attention_mask=mask)
    assert list(acts.labels) == ["harmless"] * 4
    assert acts.prompts.name == "mine"


def test_what_does_not_fit_is_refused() -> None:
    model, (ids, mask) = loaded(), padded("left")
    states = hidden_states(model.hf, ids, attention_mask=mask, position_ids=places(mask))

    def convert(states: Any, prompts: Any = PROMPTS, **options: Any) -> interp.Activations:
        return interp.from_hidden_states(states, model, prompts, **{"attention_mask": mask, **options})

    with pytest.raises(SiteError, match="3 hidden states were given"):
        convert(states[:-1])
    with pytest.raises(SiteError, match="layer 3 is out of range"):
        convert(states, layers=[3])
    with pytest.raises(SiteError, match=r"has shape \[4, \d+, 47\]"):
        convert(tuple(x[..., :47] for x in states))
    with pytest.raises(SiteError, match="is needed for these prompts"):
        convert(states, PROMPTS[:2])
    with pytest.raises(PositionError, match="give the attention_mask"):
        convert(states, attention_mask=None)
    with pytest.raises(PromptError, match="the attention mask has shape"):
        convert(states, attention_mask=mask[:, 1:])
    with pytest.raises(PositionError, match="tokenised otherwise"):
        convert(states, attention_mask=torch.ones_like(mask))
    with pytest.raises(NonFiniteError, match="NaN"):
        convert(tuple(x * float("nan") for x in states))
    with pytest.raises(SiteError, match="say what was saved"):
        interp.from_nnsight({0: states[1]}, model, PROMPTS, attention_mask=mask)
    with pytest.raises(SiteError, match="was not saved at layer 2"):
        interp.from_nnsight({0: states[1]}, model, PROMPTS, "resid_post", layers=[2], attention_mask=mask)
    with pytest.raises(SiteError, match="no site of this model"):
        interp.from_transformer_lens({"hook_embed": states[0]}, model, PROMPTS, attention_mask=mask)
    with pytest.raises(SiteError, match="no z was found"):
        interp.from_transformer_lens({"blocks.0.hook_resid_pre": states[0]}, model, PROMPTS, "z", attention_mask=mask)
