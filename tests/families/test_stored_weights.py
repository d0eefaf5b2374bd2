"""Capture, edits and generation do not care how a linear layer's weight is stored."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import interp
from interp.errors import NonFiniteError
from tests.helpers.family_checks import captured, relative, sites_of, worst
from tests.helpers.slow import PROMPTS, fingerprint, slow_read
from tests.helpers.tiny import DEVICE, tiny_model, tiny_tokenizer


class Int8Linear(nn.Module):
    """Rows of whole numbers with a scale each, as bitsandbytes and GPTQ keep them; multiplied out in its forward."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach()
        scale = weight.abs().amax(1, keepdim=True) / 127
        self.weight = nn.Parameter((weight / scale).round().to(torch.int8), requires_grad=False)
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight.to(x.dtype) * self.scale.to(x.dtype), self.bias)


class Float8Linear(nn.Module):
    """Eight-bit floats with one scale, whose type takes no arithmetic."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach()
        scale = weight.abs().max() / 448
        self.weight = nn.Parameter((weight / scale).to(torch.float8_e4m3fn), requires_grad=False)
        self.weight_scale_inv = nn.Parameter(scale, requires_grad=False)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight.to(x.dtype) * self.weight_scale_inv.to(x.dtype), self.bias)


class PackedLinear(nn.Module):
    """Two four-bit numbers to a byte and a scale for every 16 of them, as MXFP4 keeps experts: no weight at all."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        groups = linear.weight.detach().unflatten(1, (-1, 16))
        scale = groups.abs().amax(2, keepdim=True).clamp(min=1e-9) / 7
        whole = ((groups / scale).round() + 8).to(torch.uint8).flatten(1)
        self.blocks = nn.Parameter(whole[:, ::2] * 16 + whole[:, 1::2], requires_grad=False)
        self.scales = nn.Parameter(scale, requires_grad=False)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        whole = torch.stack([self.blocks // 16, self.blocks % 16], 2).flatten(1)
        weight = (whole.to(x.dtype) - 8).unflatten(1, (-1, 16)) * self.scales.to(x.dtype)
        return functional.linear(x, weight.flatten(1), self.bias)


def stored(family: str, kind: Any) -> Any:
    """A tiny model whose blocks keep every linear layer in another form; embedding and head stay, as they do."""
    hf = tiny_model(family, attention="eager")
    for block in hf.model.layers:
        for name, module in list(block.named_modules()):
            if isinstance(module, nn.Linear):
                parent, _, child = name.rpartition(".")
                setattr(block.get_submodule(parent), child, kind(module))
    return hf.to(DEVICE).eval()


@pytest.mark.parametrize("kind", [Int8Linear, Float8Linear, PackedLinear])
@pytest.mark.parametrize("family", ["llama", "gemma2", "mixtral"])
def test_capture_edits_and_generation_work_on_stored_weights(family: str, kind: Any) -> None:
    hf = stored(family, kind)
    before = fingerprint(hf)
    model = interp.load(hf, tiny_tokenizer())
    model.verify()
    assert model.dtype == torch.float32
    ours = captured(model)
    assert {site for site, _ in ours} == set(sites_of(model))
    v = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0))
    edit = interp.edits.add(v, site="attn_out", layer=1)
    written = model.generate(PROMPTS, max_new_tokens=3, edits=[edit])
    logits = model.logits(PROMPTS, edits=[edit])
    for row, encoded in enumerate(model.encode(PROMPTS)):
        slow = slow_read(hf, family, encoded.ids)
        columns = [0, encoded.columns("t_inst")[0], *encoded.columns("post_inst"), encoded.columns("inst[0]")[0]]
        errors = worst(
            (site, relative(rows[row], slow[site][layer, columns]))
            for (site, layer), rows in ours.items() if site in slow
        )  # fmt: skip
        assert max(errors.values()) < 1e-5, errors
        by_hand = slow_read(hf, family, encoded.ids, {("attn_out", 1): lambda x: x + v.to(x)})["logits"][-1]
        assert relative(logits[row], by_hand) < 1e-5
        assert written[row].ids[0] == int(by_hand.argmax())
    assert fingerprint(hf) == before


def test_stored_weights_lose_little_so_the_test_is_of_the_real_thing() -> None:
    exact = interp.load(tiny_model(attention="eager"), tiny_tokenizer()).logits(PROMPTS)
    for kind, most in ((Int8Linear, 0.05), (Float8Linear, 0.2), (PackedLinear, 0.6)):
        error = relative(interp.load(stored("llama", kind), tiny_tokenizer()).logits(PROMPTS), exact)
        assert 1e-4 < error < most


def test_a_scale_that_is_not_finite_is_found() -> None:
    hf = stored("llama", Float8Linear)
    hf.model.layers[1].mlp.up_proj.weight_scale_inv.data.fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="up_proj.weight_scale_inv"):
        interp.load(hf, tiny_tokenizer())
