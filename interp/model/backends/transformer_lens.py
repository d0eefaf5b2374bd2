"""The TransformerLens backend: a `TransformerBridge` over a private copy of the model.

A bridge replaces the modules of the model it wraps, switches it to eager attention, and a second bridge silently kills
the first; so every backend wraps a deep copy of its own. That doubles the memory of the weights, and the copy does not
follow what is done to the user's weights afterwards.

Values are taken at TransformerLens' own hook points. Two sites need care. A change at its `hook_resid_mid` reaches the
MLP but not the stream beside it, so `resid_mid` is made of `hook_in` and `hook_attn_out`, where a change moves the
stream. Its routing hooks keep one weight per expert, not one per choice: `_Routing` translates.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from interp.errors import EditError, ModelError, SiteError
from interp.model.architecture import Architecture
from interp.model.backends.private import backbone_of, forbid, missing, private_copy
from interp.model.block_visit import BlockVisit, Visit

_STREAM = {"mlp_post": "mlp.hook_post", "mlp_out": "hook_mlp_out", "resid_post": "hook_out"}
_SITES = frozenset({
    "resid_pre", "q", "k", "v", "pattern", "z", "attn_out", "resid_mid", "router_logits", "expert_indices",
    "expert_weights", "routing", *_STREAM,
})  # fmt: skip


class TransformerLensBackend:
    """Runs a `TransformerBridge` over a deep copy of the model, which takes the memory of the weights once more.

    Attributes:
        bridge: The bridge, for TransformerLens' own tools. What is done to it stays in this backend's copy.
        arch: The architecture with the copy's backbone.
        read_only: Router logits, which TransformerLens shows after the experts were chosen.
    """

    name = "transformer_lens"
    packages = ("transformer-lens",)

    def __init__(self, hf: Any, arch: Architecture) -> None:
        try:
            # Not boot_transformers: for a multimodal model it runs `pip install torchvision` where there is none.
            from transformer_lens.model_bridge.sources import build_bridge_from_module
        except ImportError as error:
            raise missing("transformer-lens", error) from error
        kind = type(hf).__name__
        copied = private_copy(hf, share_weights=False)
        backbone = backbone_of(copied, hf, arch)
        copied.config.architectures = [kind]
        try:
            copied.set_attn_implementation("eager")  # its own attention is, whatever the configuration says
            self.bridge: Any = build_bridge_from_module(copied, kind, hf_config=copied.config)
        except Exception as error:  # its adapters raise many kinds
            raise ModelError(f"TransformerLens cannot wrap {kind}: {error}; load it with backend='hooks'") from error
        self.arch = replace(arch, backbone=backbone)
        self._user = hf
        self._points: dict[str, Any] = dict(self.bridge.hook_dict)
        self.read_only = frozenset((layer, "router_logits") for layer in arch.candidates("router_logits"))

    def attach(self, arch: Architecture, wanted: Collection[tuple[int, str]], visit: Visit) -> ExitStack:
        """Put hooks on the bridge's hook points."""
        del arch
        with ExitStack() as stack:
            forbid(stack, self._user, self.name)
            for layer in sorted({layer for layer, _ in wanted}):
                self._hook(stack, BlockVisit(layer, {site for at, site in wanted if at == layer}, visit))
            return stack.pop_all()

    def forward(self, arch: Architecture, inputs: Mapping[str, Any]) -> Tensor:
        """The backbone of the bridge's copy, whose modules are the bridge's."""
        return arch.backbone(**inputs).last_hidden_state

    def _hook(self, stack: ExitStack, shown: BlockVisit) -> None:
        layer, sites = shown.layer, shown.sites
        if unknown := sites - _SITES:
            raise SiteError(f"TransformerLens has no {', '.join(sorted(unknown))}; load the model with backend='hooks'")

        def on(name: str, change: Callable[[Tensor], Tensor]) -> None:
            point = self._point(layer, name)
            if point is not None:  # a site that never fires is found missing when the model is loaded
                stack.callback(_hooked(point, change))

        on("hook_in", shown.enter)
        for site in ("q", "k", "v"):
            if site in sites:
                on(*self._heads(shown, site))
        if "pattern" in sites:
            on("attn.hook_pattern", shown.pattern)
        if "z" in sites:
            on("attn.hook_z", _flat(shown, "z"))
        if sites & {"attn_out", "resid_mid"}:
            on("hook_attn_out", shown.attention)
        if "router_logits" in sites:
            router = "mlp.router" if self._point(layer, "mlp.router.hook_out") else "mlp.gate"
            on(f"{router}.hook_out", lambda x: shown.tokens("router_logits", x))
        if sites & {"expert_indices", "expert_weights", "routing"}:
            routing = _Routing(shown)
            on("mlp.hook_expert_weights", routing.weights)
            on("mlp.hook_expert_indices", routing.indices)
        for site in sites & set(_STREAM):
            on(_STREAM[site], partial(shown.tokens, site))

    def _heads(self, shown: BlockVisit, site: str) -> tuple[str, Callable[[Tensor], Tensor]]:
        """The point where queries, keys or values are as they enter attention, and what shows them there."""
        if self._point(shown.layer, "attn.hook_kv_latent"):
            return f"attn.hook_{site}", lambda x: shown.heads(site, x)  # multi-head latent attention: heads first
        rotated = site != "v" and self._point(shown.layer, f"attn.hook_rot_{site}")
        return f"attn.hook_rot_{site}" if rotated else f"attn.hook_{site}", _flat(shown, site)

    def _point(self, layer: int, name: str) -> Any:
        return self._points.get(f"blocks.{layer}.{name}")


class _Routing:
    """Expert indices and weights, from hooks that show a weight for every expert and then the indices.

    TransformerLens takes the chosen experts' weights from the first hook's tensor after the second hook, so the second
    writes what they are to be into it.
    """

    def __init__(self, shown: BlockVisit) -> None:
        self._shown = shown
        self._all = torch.empty(0)

    def weights(self, x: Tensor) -> Tensor:
        self._all = x.clone()
        return self._all

    def indices(self, x: Tensor) -> Tensor:
        old = self._all.gather(-1, x.long())
        indices, weights = self._shown.experts(x, old)
        if indices is x and weights is old:
            return x
        chosen = indices.long().sort(-1).values
        if bool((chosen[..., 1:] == chosen[..., :-1]).any()):
            raise EditError("TransformerLens keeps one weight per expert, but an edit chose an expert twice")
        self._all.scatter_(-1, indices.long(), weights.to(self._all))
        return indices


def _flat(shown: BlockVisit, site: str) -> Callable[[Tensor], Tensor]:
    """Shows `[batch, token, head, width]` with the heads side by side."""

    def change(x: Tensor) -> Tensor:
        flat = rearrange(x, "b t h d -> b t (h d)")
        new = shown.see(site, flat)
        return x if new is flat else new.reshape(x.shape)

    return change


def _hooked(point: Any, change: Callable[[Tensor], Tensor]) -> Callable[[], None]:
    """Put a change on a hook point; returns what takes it off again."""

    def hook(x: Any, hook: Any) -> Any:  # TransformerLens passes the point by this name
        del hook
        old = x[0] if isinstance(x, tuple) else x
        new = change(old)
        if new is old:
            return None
        return (new, *x[1:]) if isinstance(x, tuple) else new

    handle = point.add_hook(hook)

    def remove() -> None:
        handle.hook.remove()
        point.fwd_hooks.remove(handle)

    return remove
