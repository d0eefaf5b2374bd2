"""An architecture that nobody entered anywhere: it works where the identities hold, and fails by the one it breaks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

import interp
from interp.errors import ModelError, SiteError
from tests.helpers.family_checks import generation_against_replay
from tests.helpers.slow import PROMPTS
from tests.helpers.tiny import SHAPE, tiny_tokenizer


class HomemadeConfig(PretrainedConfig):
    model_type = "homemade"

    def __init__(self, attention_scale: float = 1.0, mlp_scale: float = 1.0, parallel: bool = False, **kwargs: Any):
        self.num_hidden_layers, self.num_attention_heads, self.hidden_size, self.vocab_size = 3, 4, 48, 320
        self.attention_scale, self.mlp_scale, self.parallel = attention_scale, mlp_scale, parallel
        super().__init__(**kwargs)


class Attention(nn.Module):
    """Its own arithmetic, without transformers' attention interface; positions by ALiBi."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.wq, self.wk, self.wv, self.wo = (nn.Linear(48, 48) for _ in range(4))

    def forward(self, x: Tensor, mask: Tensor, cache: Any) -> Tensor:
        q, k, v = (w(x).unflatten(-1, (4, 12)).transpose(1, 2) for w in (self.wq, self.wk, self.wv))
        if cache is not None:
            k, v = cache.update(k, v, self.number)
        z = (q @ k.mT / 12**0.5 + mask).softmax(-1) @ v
        return self.wo(z.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w1, self.w2 = nn.Linear(48, 80), nn.Linear(80, 48)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(functional.gelu(self.w1(x)))


class Block(nn.Module):
    """Returns a tuple, as blocks did before transformers 5."""

    def __init__(self, config: HomemadeConfig, number: int) -> None:
        super().__init__()
        self.config = config
        self.attention, self.feed_forward = Attention(number), FeedForward()
        self.first, self.second = nn.LayerNorm(48), nn.LayerNorm(48)

    def forward(self, x: Tensor, mask: Tensor, cache: Any) -> tuple[Tensor]:
        middle = x + self.config.attention_scale * self.attention(self.first(x), mask, cache)
        seen = x if self.config.parallel else middle
        return (middle + self.config.mlp_scale * self.feed_forward(self.second(seen)),)


class Trunk(nn.Module):
    def __init__(self, config: HomemadeConfig) -> None:
        super().__init__()
        self.words = nn.Embedding(320, 48)
        self.stack = nn.ModuleList(Block(config, n) for n in range(3))
        self.last = nn.LayerNorm(48)

    def forward(
        self, input_ids: Tensor, attention_mask: Any = None, position_ids: Any = None, past_key_values: Any = None,
        use_cache: bool = False,
    ) -> BaseModelOutputWithPast:  # fmt: skip
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        width = past + input_ids.shape[1]
        behind = torch.arange(past, width)[:, None] - torch.arange(width)
        mask = (-behind * torch.tensor([0.5, 0.25, 0.1, 0.05])[:, None, None]).masked_fill(behind < 0, -1e9)
        if attention_mask is not None:
            mask = mask + (attention_mask[:, None, None, :] == 0) * -1e9
        x = self.words(input_ids)
        for block in self.stack:
            (x,) = block(x, mask, past_key_values)
        return BaseModelOutputWithPast(last_hidden_state=self.last(x), past_key_values=past_key_values)


class HomemadeLM(PreTrainedModel):
    config_class = HomemadeConfig

    def __init__(self, config: HomemadeConfig) -> None:
        super().__init__(config)
        self.trunk, self.readout = Trunk(config), nn.Linear(48, 320)

    def get_input_embeddings(self) -> nn.Module:
        return self.trunk.words

    def get_output_embeddings(self) -> nn.Module:
        return self.readout

    def forward(self, input_ids: Tensor, **kwargs: Any) -> CausalLMOutputWithPast:
        return CausalLMOutputWithPast(logits=self.readout(self.trunk(input_ids, **kwargs).last_hidden_state))


def homemade(**options: Any) -> HomemadeLM:
    torch.manual_seed(0)
    hf = HomemadeLM(HomemadeConfig(**options)).eval()
    with torch.no_grad():
        for weight in hf.parameters():
            weight.mul_(2.0)
    return hf


@pytest.mark.parametrize("parallel", [False, True])
def test_an_architecture_nobody_knows_works_when_it_satisfies_the_identities(
    parallel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That it is parallel stands nowhere in its config under a known name: the forward shows it."""
    model = interp.load(homemade(parallel=parallel), tiny_tokenizer())
    model.verify()
    assert model.arch.parallel is parallel
    assert bool(model.arch.layers_with("resid_mid")) is not parallel
    acts = interp.capture(model, PROMPTS, sites=["resid_pre", "attn_out", "mlp_out", "resid_post"])
    made = acts.sel("resid_pre") + acts.sel("attn_out") + acts.sel("mlp_out")
    torch.testing.assert_close(made, acts.sel("resid_post"))
    monkeypatch.setattr("tests.helpers.family_checks.loaded", lambda *_args, **_options: model)
    assert max(generation_against_replay("homemade").values()) < 1e-5


def test_what_an_unknown_attention_keeps_to_itself_is_absent_and_says_so() -> None:
    model = interp.load(homemade(), tiny_tokenizer())
    for site in ("q", "k", "v", "pattern"):
        with pytest.raises(SiteError, match=f"no {site}: its attention does not go through the attention interface"):
            interp.capture(model, PROMPTS, sites=site)


@pytest.mark.parametrize("options", [{"attention_scale": 0.5}, {"mlp_scale": 0.22}])
def test_an_architecture_that_breaks_an_identity_is_refused_by_its_name(options: dict[str, float]) -> None:
    with pytest.raises(SiteError, match=r"HomemadeLM does not satisfy resid_post = resid_mid \+ mlp_out at layer 0"):
        interp.load(homemade(**options), tiny_tokenizer())


def test_a_middle_that_only_the_sum_agrees_with_is_found_by_what_the_mlp_reads() -> None:
    """Attention is added once to the stream, but the MLP reads another sum."""
    hf = homemade()
    for block in hf.trunk.stack:
        block.second.register_forward_pre_hook(lambda _m, args: (args[0] * 1.5,))
    with pytest.raises(SiteError, match=r"does not satisfy resid_mid = resid_pre \+ attn_out at layer 0"):
        interp.load(hf, tiny_tokenizer())


def test_a_known_family_with_a_scaled_residual_is_refused_too() -> None:
    torch.manual_seed(0)
    hf = transformers.GraniteForCausalLM(transformers.GraniteConfig(**SHAPE, residual_multiplier=0.22)).eval()
    with pytest.raises(SiteError, match="GraniteForCausalLM does not satisfy resid_post"):
        interp.load(hf, tiny_tokenizer())


def test_blocks_without_attention_are_refused_with_what_they_have() -> None:
    hf = homemade()
    for block in hf.trunk.stack:
        block.mixer = block.attention
        del block.attention
    with pytest.raises(
        ModelError, match=r"HomemadeLM are of no known kind \(children: feed_forward, first, second, mi"
    ):
        interp.load(hf, tiny_tokenizer())


@pytest.mark.parametrize("kind", ["Glm4", "Cohere2"])
def test_families_that_are_in_no_table_work(kind: str) -> None:
    """GLM-4 has norms before and after, one called post_attention_layernorm that stands before the MLP."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**SHAPE)
    hf = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    with torch.no_grad():
        for name, weight in hf.named_parameters():
            weight.copy_(torch.randn_like(weight) * 0.2 + (1.0 if "norm" in name else 0.0))
    model = interp.load(hf, tiny_tokenizer())
    model.verify()
    assert model.arch.parallel is (kind == "Cohere2")
    if kind == "Glm4":
        assert model.arch.layouts[0].attention_post_norm == "post_self_attn_layernorm"


def test_a_mixture_that_chooses_no_experts_by_index_has_what_it_has() -> None:
    """Llama 4 weighs the inputs of all experts by their scores and returns its tokens row after row."""
    torch.manual_seed(0)
    options = {"head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 1, "interleave_moe_layer_step": 2}
    shape = {**SHAPE, "num_hidden_layers": 4}
    hf = transformers.Llama4ForCausalLM(transformers.Llama4TextConfig(**shape, **options)).eval()
    with torch.no_grad():
        for name, weight in hf.named_parameters():
            weight.copy_(torch.randn_like(weight) * 0.2 + (1.0 if "norm" in name else 0.0))
    model = interp.load(hf, tiny_tokenizer())
    model.verify()
    assert model.arch.layers_with("router_logits") == (1, 3)
    assert model.arch.layers_with("mlp_post") == (0, 2)
    assert not model.arch.layers_with("expert_indices")
    acts = interp.capture(model, PROMPTS, sites=["resid_mid", "mlp_out", "resid_post"])
    torch.testing.assert_close(acts.sel("resid_mid") + acts.sel("mlp_out"), acts.sel("resid_post"))


@pytest.mark.parametrize("part", ["attn_out", "mlp_out", "z"])
def test_verify_finds_a_map_that_points_at_the_wrong_module(part: str) -> None:
    from dataclasses import replace

    from interp.model.check import settle

    model = interp.load(homemade(), tiny_tokenizer())
    wrong = {"attn_out": {"attn_out": "first"}, "mlp_out": {"mlp_out": "second"}, "z": {"o_proj": "attention.wq"}}[part]
    layouts = tuple(replace(layout, **wrong) for layout in model.arch.layouts)  # type: ignore[arg-type]
    with pytest.raises(SiteError, match="does not satisfy"):
        settle(model.hf, [replace(model.arch, layouts=layouts)], model.backend)
