"""Checks by behaviour: the architecture map is believed only after a short forward agrees with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from interp.errors import ModelError, NonFiniteError, SiteError
from interp.model.architecture import Architecture
from interp.model.session import Cells, Op
from interp.model.sites import SITES
from interp.text.chat import Encoded

if TYPE_CHECKING:
    from interp.model.model import Model

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}


def check_weights(hf: Any) -> None:
    """Raise `NonFiniteError` naming the first weight that is NaN or infinite."""
    for name, weight in hf.named_parameters():
        if weight.is_floating_point() and weight.device.type != "meta" and weight.dtype.itemsize > 1:
            low, high = torch.aminmax(weight.detach())
            if not bool(torch.isfinite(low) & torch.isfinite(high)):
                raise NonFiniteError(f"weight {name} is not finite; the checkpoint is damaged, fetch it again")


def check_identities(model: Model) -> None:
    """Every site fires, `resid_post = resid_pre + attn_out + mlp_out`, and `z` leads to `attn_out`.

    Raises:
        SiteError: Naming the identity that fails, and where.
    """
    probe = _probe(model)
    columns = [list(range(len(probe)))]
    layers = tuple(range(model.n_layers))
    steps = list(model.steps([probe], [((site, layers), columns) for site in SITES]))
    got = {site: value.double() for site, value in steps[0].reads.items()}
    tolerance = _TOLERANCE.get(model.dtype, 5e-2)
    for name, left, right in (
        ("resid_mid = resid_pre + attn_out", got["resid_mid"], got["resid_pre"] + got["attn_out"]),
        ("resid_post = resid_mid + mlp_out", got["resid_post"], got["resid_mid"] + got["mlp_out"]),
        ("resid_post[l] = resid_pre[l + 1]", got["resid_post"][:-1], got["resid_pre"][1:]),
    ):
        for layer in range(left.shape[0]):
            scale = float(right[layer].abs().max()) or 1.0
            error = float((left[layer] - right[layer]).abs().max()) / scale
            if error > tolerance:
                raise SiteError(
                    f"{type(model.hf).__name__} does not satisfy {name} at layer {layer} (relative error {error:.2g}); "
                    "its blocks work otherwise than this version's architecture map says"
                )
    _check_fast_logits(model, probe, tolerance)


def check_causal(model: Model) -> None:
    """An edit at each site changes the logits; raises `SiteError` naming the site that is not live."""
    probe = _probe(model)
    plain = model.logits([probe])
    for site in SITES:
        for layer in range(model.n_layers):
            if torch.equal(model.logits([probe], edits=[_Nudge(site, layer)]), plain):
                raise SiteError(f"changing {site} at layer {layer} does not change the logits: the site is not live")


def logit_finish(hf: Any) -> Callable[[Tensor], Tensor]:
    """What a model does to its head's output: soft capping (Gemma 2) or scaling (Granite, Cohere)."""
    config = hf.config.get_text_config()
    cap = getattr(config, "final_logit_softcapping", None)
    times, over = getattr(config, "logit_scale", None), getattr(config, "logits_scaling", None)

    def finish(logits: Tensor) -> Tensor:
        if times:
            logits = logits * times
        if over:
            logits = logits / over
        return torch.tanh(logits / cap) * cap if cap else logits

    return finish


def _check_fast_logits(model: Model, probe: Encoded, tolerance: float) -> None:
    """Our logits (backbone, head on one row) are the model's own."""
    with torch.inference_mode():
        own = model.hf(input_ids=torch.tensor([probe.ids], device=model.device)).logits[0, -1].float().cpu()
    error = float((model.logits([probe])[0] - own).abs().max()) / (float(own.abs().max()) or 1.0)
    if error > tolerance:
        raise ModelError(
            f"{type(model.hf).__name__} treats its logits in a way this version does not know (relative error "
            f"{error:.2g} against its own forward)"
        )


def _probe(model: Model) -> Encoded:
    """Five ordinary tokens; content does not matter here."""
    size = model.hf.get_input_embeddings().weight.shape[0]
    ids = tuple(int(i) % size for i in (11, 23, 5, 42, 17))
    return Encoded("", ids, ((0, 0),) * 5, {"prompt": (0, 5)}, "probe", 5)


@dataclass(frozen=True)
class _Nudge:
    site: str
    layer: int

    def ops(self, arch: Architecture) -> list[Op]:
        del arch
        return [Op(self.site, self.layer, self._change, ("all",), "both", self)]

    def _change(self, x: Tensor, cells: Cells | None) -> Tensor:
        del cells
        noise = torch.randn(x.shape[-1], generator=torch.Generator().manual_seed(0))
        return x + (noise.to(x) * x.float().std().clamp(min=1e-3).to(x))
