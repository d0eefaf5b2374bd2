"""What tests of edited weights share: logits of every token, without anything of this project in between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

import interp
from tests.helpers.slow import PROMPTS
from tests.helpers.tiny import FAMILIES, tiny_model, tiny_tokenizer

NORMED = ("gemma2", "gemma3", "gemma3_multimodal", "olmo2")
"""Families with a norm between writers and stream: no weights equal an ablation."""
EXACT = tuple(f for f in FAMILIES if f not in NORMED)


def own(family: str, **options: Any) -> interp.Model:
    """A model of the test's own, which it may change."""
    return interp.load(tiny_model(family, **options), tiny_tokenizer())


def vector(seed: int = 1, width: int = 48) -> Tensor:
    return torch.randn(width, generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def every_logit(hf: Any, model: interp.Model, prompts: Sequence[str] = PROMPTS) -> Tensor:
    """Logits after every token of every prompt, one forward a prompt."""
    ids = [torch.tensor([e.ids], device=model.device) for e in model.encode(list(prompts))]
    return torch.cat([hf(input_ids=one).logits[0].float() for one in ids])


def edited_logits(model: interp.Model, edits: Sequence[Any]) -> Tensor:
    with model.edited(*edits):
        return every_logit(model.hf, model)


def off(ours: Tensor, wanted: Tensor) -> float:
    """Largest difference in standard deviations of what was wanted."""
    return float((ours - wanted).abs().max() / wanted.std())


def snapshot(hf: Any) -> dict[str, Any]:
    """Everything that a call must leave as it is."""
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in hf.modules()]
    return {
        "weights": {k: v.clone() for k, v in hf.state_dict().items()}, "config": hf.config.to_dict(), "hooks": hooks,
        "identities": [id(p) for p in hf.parameters()], "grad": [p.requires_grad for p in hf.parameters()],
        "modules": [type(m) for m in hf.modules()],
    }  # fmt: skip


def unchanged(hf: Any, before: dict[str, Any]) -> bool:
    after = snapshot(hf)
    same = all(torch.equal(v, after["weights"][k]) for k, v in before["weights"].items())
    return same and all(after[k] == before[k] for k in before if k != "weights")
