"""Edits at the sites inside attention, the MLP and the router: patching, and what makes no sense there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import interp
from interp import edits
from interp.errors import DirectionError, EditError, SiteError
from tests.helpers.slow import PROMPTS, lively, loaded, slow_read
from tests.helpers.slow_routing import mixture
from tests.helpers.tiny import tiny_model, tiny_tokenizer

CLOSE: dict[str, float] = {"rtol": 1e-4, "atol": 1e-4}
LAYER = 1
SAME = ("Tell me about the sea.", "How to bake some bread")
"""As long as one another."""
SITES = ("q", "k", "v", "pattern", "z", "mlp_post", "router_logits", "expert_indices", "expert_weights")
DENSE = tuple(site for site in SITES if "expert" not in site and "router" not in site)


def eager(name: str = "llama") -> interp.Model:
    """A model that computes attention patterns, whose words vary."""
    hf = tiny_model(name) if name != "gpt_oss" else mixture(name).hf
    if name == "llama":
        with torch.no_grad():
            for key, weight in hf.named_parameters():
                if weight.ndim > 1 and "embed" not in key:
                    weight.mul_(4.0)
        hf.set_attn_implementation("eager")
    return interp.load(hf, tiny_tokenizer())


def own(model: interp.Model, prompts: Any, site: str, positions: Any) -> Tensor:
    return interp.capture(model, prompts, site, positions, LAYER).sel(site, layer=LAYER)


@pytest.mark.parametrize("positions", [["t_inst"], ["t_inst", "last", 1]], ids=len)
@pytest.mark.parametrize(
    ("name", "site"), [("llama", s) for s in DENSE] + [("gpt_oss", s) for s in SITES if s != "mlp_post"]
)
def test_a_runs_own_values_change_nothing(name: str, site: str, positions: Any) -> None:
    """Neither in a batch with right padding, nor in generation, where the padding is on the left."""
    model = eager(name)
    values = own(model, PROMPTS, site, positions)
    edit = edits.patch(values, site=site, layer=LAYER, positions=positions)
    torch.testing.assert_close(model.logits(PROMPTS, edits=[edit]), model.logits(PROMPTS), **CLOSE)
    torch.testing.assert_close(model.logits(PROMPTS, edits=[edit], token_budget=1), model.logits(PROMPTS), **CLOSE)
    patched, plain = (model.generate(PROMPTS, max_new_tokens=5, edits=e) for e in (edit, ()))
    assert [c.ids for c in patched] == [c.ids for c in plain]


def test_another_prompts_pattern_weighs_ones_own_values() -> None:
    """The other's weights times one's own values, and the output of the heads replaced by that, by hand."""
    model = eager()
    pair = model.encode(SAME)
    n = len(pair[0])
    assert n == len(pair[1])
    columns = list(range(n))
    # A longer prompt in the capture makes the pattern wider, and one in the batch pads the patched ones.
    longer = SAME[0] + " And more of it, much more."
    patterns = own(model, [*SAME, longer], "pattern", columns)
    assert patterns.shape[-1] > 4 * n
    edit = edits.patch(patterns[[1, 0, 2]], site="pattern", layer=LAYER, positions=columns)
    logits = model.logits([*SAME, longer], edits=[edit])
    written = model.generate([*SAME, longer], max_new_tokens=1, edits=edit)
    block = model.hf.model.layers[LAYER]
    for row, encoded in enumerate(pair):
        plain = slow_read(model.hf, "llama", encoded.ids)
        with torch.no_grad():
            values = block.self_attn.v_proj(block.input_layernorm(plain["resid_pre"][LAYER])).view(n, 2, 12)
        z = torch.zeros(n, 4, 12)
        for t in columns:
            for head in range(4):
                weights = patterns[1 - row, t].view(4, -1)[head, :n]
                z[t, head] = sum(weights[s] * values[s, head // 2] for s in range(t + 1))
        changed = slow_read(model.hf, "llama", encoded.ids, {("z", LAYER): lambda _x, z=z: z.reshape(1, n, 48)})
        torch.testing.assert_close(logits[row], changed["logits"][-1], **CLOSE)
        assert written[row].ids[0] == int(changed["logits"][-1].argmax())
        assert not torch.allclose(logits[row], plain["logits"][-1], **CLOSE), "the edit did nothing"


@pytest.mark.parametrize("name", ["llama", "gpt_oss"])
def test_queries_keys_and_values_of_another_run_make_its_heads(name: str) -> None:
    model = eager(name)
    columns = list(range(len(model.encode(SAME[0])[0])))
    swapped = lambda site: own(model, SAME, site, columns).flip(0)  # noqa: E731
    patched = [edits.patch(swapped(site), site=site, layer=LAYER, positions=columns) for site in ("q", "k", "v")]
    heads = edits.patch(swapped("z"), site="z", layer=LAYER, positions=columns)
    torch.testing.assert_close(model.logits(SAME, edits=patched), model.logits(SAME, edits=[heads]), **CLOSE)
    both = [edits.patch(swapped(site), site=site, layer=LAYER, positions=columns) for site in ("pattern", "v")]
    torch.testing.assert_close(model.logits(SAME, edits=both), model.logits(SAME, edits=[heads]), **CLOSE)


def test_indices_and_weights_of_another_run_are_what_its_logits_make() -> None:
    for name in ("mixtral", "qwen3_moe, not renormalised", "gpt_oss", "deepseek_v3"):
        model = mixture(name)
        columns = list(range(len(model.encode(SAME[0])[0])))
        swapped = lambda site, m=model, c=columns: own(m, SAME, site, c).flip(0)  # noqa: E731
        logits = edits.patch(swapped("router_logits"), site="router_logits", layer=LAYER, positions=columns)
        outcome = [
            edits.patch(swapped(site), site=site, layer=LAYER, positions=columns)
            for site in ("expert_indices", "expert_weights")
        ]
        after = model.logits(SAME, edits=[logits])
        torch.testing.assert_close(after, model.logits(SAME, edits=outcome), **CLOSE)
        assert not torch.allclose(after, model.logits(SAME), **CLOSE)


def test_the_mlps_hidden_layer_takes_every_edit() -> None:
    model = loaded()
    (encoded,) = model.encode(PROMPTS[1])
    vector = torch.randn(96, generator=torch.Generator().manual_seed(0))
    unit = vector / vector.norm()
    changes: dict[Any, Any] = {
        edits.add(vector, 2.0, site="mlp_post", layer=LAYER): lambda x: x + 2 * vector,
        edits.set_to(vector, site="mlp_post", layer=LAYER): lambda x: vector.expand_as(x),
        edits.ablate(vector, sites="mlp_post", layers=LAYER): lambda x: x - (x @ unit)[..., None] * unit,
    }
    down = model.hf.model.layers[LAYER].mlp.down_proj
    for edit, change in changes.items():
        handle = down.register_forward_pre_hook(lambda _m, args, change=change: (change(args[0]),))
        slow = slow_read(model.hf, "llama", encoded.ids)["logits"][-1]
        handle.remove()
        torch.testing.assert_close(model.logits(PROMPTS, edits=[edit])[1], slow, **CLOSE)


def test_router_logits_and_expert_weights_take_vectors() -> None:
    model = mixture("mixtral")
    bias = torch.tensor([0.0, 0.0, 50.0, 0.0, 0.0, -50.0])
    read = lambda *e: model.run(PROMPTS, ["expert_indices", "expert_weights"], layers=[LAYER], edits=e).reads  # noqa: E731
    assert bool((read(edits.add(bias, site="router_logits", layer=LAYER))["expert_indices"][..., 0] == 2).all())
    assert bool((read(edits.set_to([5, 0], site="expert_indices", layer=LAYER))["expert_indices"][..., 0] == 5).all())
    halves = read(edits.set_to([0.25, 0.75], site="expert_weights", layer=LAYER))["expert_weights"]
    assert halves[0, 0, 0].tolist() == [0.25, 0.75]
    assert bool(model.logits(PROMPTS, edits=[edits.ablate(bias, sites="router_logits", layers=LAYER)]).isfinite().all())


def test_what_makes_no_sense_at_a_site_is_an_error() -> None:
    model, moe, vector = eager(), mixture("mixtral"), torch.ones(48)
    for make in (
        lambda: edits.add(vector, site="pattern", layer=0),
        lambda: edits.set_to(vector, site="pattern", layer=0),
        lambda: edits.ablate(vector, sites="pattern"),
    ):
        with pytest.raises(EditError, match="as wide as the prompt is long; use interp.edits.patch"):
            make()
    for make in (
        lambda: edits.add([1.0, 1.0], site="expert_indices", layer=0),
        lambda: edits.ablate([1.0, 1.0], sites="expert_indices"),
    ):
        with pytest.raises(EditError, match="names of experts and no quantities; use interp.edits.route"):
            make()
    for value in ([0.0, 6.0], [0.5, 1.0], [-1.0, 1.0]):
        with pytest.raises(EditError, match="expert_indices are whole numbers from 0 to 5"):
            moe.logits(PROMPTS, edits=[edits.set_to(value, site="expert_indices", layer=LAYER)])
    with pytest.raises(DirectionError, match="does not fit k of this model, which is 24 wide"):
        model.logits(PROMPTS, edits=[edits.add(vector, site="k", layer=0)])
    with pytest.raises(SiteError, match="this model has no router_logits"):
        model.logits(PROMPTS, edits=[edits.add(vector, site="router_logits", layer=0)])
    with pytest.raises(SiteError, match="load it with attn_implementation='eager'"):
        lively().logits(PROMPTS, edits=[edits.patch(torch.ones(4, 1, 40), site="pattern", layer=0, positions="last")])
    with pytest.raises(EditError, match="41 wide does not divide into 4 heads"):
        model.logits(PROMPTS, edits=[edits.patch(torch.ones(4, 1, 41), site="pattern", layer=0, positions="last")])
    later = own(model, PROMPTS[2], "pattern", "last")
    with pytest.raises(EditError, match="attends to tokens after number 3 of prompt 0"):
        model.logits(PROMPTS[2], edits=[edits.patch(later, site="pattern", layer=LAYER, positions=3)])
