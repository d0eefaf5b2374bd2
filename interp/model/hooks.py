"""The default backend: plain PyTorch hooks on the Hugging Face model, taken off again whatever happens.

A backend shows the values at sites to a *visit*, a function `(layer, site, x) -> x`, with `x` as `[batch, token,
feature]` whatever the module's own shape, and puts back what the visit returns. Hooks are registered for wanted sites
only; nothing of the model is replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from typing import Any, Protocol

import torch
from torch import Tensor

from interp.errors import SiteError
from interp.model.architecture import Architecture
from interp.model.attention_tap import tap_attention
from interp.model.router_tap import tap_router
from interp.model.sites import ATTENTION_SITES, ROUTING_SITES

Visit = Callable[[int, str, Tensor], Tensor]


class Backend(Protocol):
    """Runs forward passes and shows the values at sites."""

    name: str

    def attach(self, arch: Architecture, wanted: Collection[tuple[int, str]], visit: Visit) -> ExitStack:
        """Show the wanted (layer, site) to `visit` from now on; closing the stack ends it."""
        ...

    def forward(self, arch: Architecture, inputs: Mapping[str, Any]) -> Tensor:
        """Last hidden state (after the final norm) `[batch, token, d_model]` of a forward through the backbone."""
        ...


class HooksBackend:
    """Plain hooks on the model itself."""

    name = "hooks"

    def attach(self, arch: Architecture, wanted: Collection[tuple[int, str]], visit: Visit) -> ExitStack:
        """Register hooks for the wanted (layer, site)."""
        return _Hooks(arch, wanted, visit).stack

    def forward(self, arch: Architecture, inputs: Mapping[str, Any]) -> Tensor:
        """The backbone's own forward."""
        return arch.backbone(**inputs).last_hidden_state


class _Hooks:
    def __init__(self, arch: Architecture, wanted: Collection[tuple[int, str]], visit: Visit) -> None:
        self._arch, self._visit = arch, visit
        self._wanted = frozenset(wanted)
        self._mid_in: dict[int, Tensor] = {}
        self._batch = 0
        with ExitStack() as stack:
            for layer in sorted({layer for layer, _ in wanted}):
                self._hook(stack, layer, {site for at, site in self._wanted if at == layer})
            stack.callback(self._mid_in.clear)
            self.stack = stack.pop_all()

    def _hook(self, stack: ExitStack, layer: int, sites: set[str]) -> None:
        block, module = self._arch.blocks[layer], self._arch.module

        def on(handle: Any) -> None:
            stack.callback(handle.remove)

        routed = sites & {*ROUTING_SITES, "choice", "routing"}
        if sites & {"resid_pre", "resid_mid", "mlp_out"} or routed:
            on(block.register_forward_pre_hook(self._before_block(layer), with_kwargs=True))
        if attended := sites & set(ATTENTION_SITES):
            stack.enter_context(tap_attention(module(layer, "attention"), layer, attended, self._visit))
        for site, role in (("z", "o_proj"), ("mlp_post", "down")):
            if site in sites:
                on(module(layer, role).register_forward_pre_hook(self._input(layer, site), with_kwargs=True))
        if sites & {"attn_out", "resid_mid"}:
            on(module(layer, "attn_out").register_forward_hook(self._after_attention(layer)))
        if inside := routed & {"router_logits", "choice"}:
            shown = {site: self._flat(layer, site) for site in inside}
            stack.enter_context(tap_router(module(layer, "router"), shown.get("router_logits"), shown.get("choice")))
        if routed - inside:
            on(module(layer, "experts").register_forward_pre_hook(self._experts(layer, routed), with_kwargs=True))
        if "mlp_out" in sites:
            on(module(layer, "mlp_out").register_forward_hook(self._output(layer, "mlp_out")))
        if "resid_post" in sites:
            on(block.register_forward_hook(self._output(layer, "resid_post")))

    def _before_block(self, layer: int) -> Callable[..., Any]:
        def hook(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
            x = args[0] if args else kwargs["hidden_states"]
            self._batch = x.shape[0]
            new = self._visit(layer, "resid_pre", x) if (layer, "resid_pre") in self._wanted else x
            if (layer, "resid_mid") in self._wanted:
                self._mid_in[layer] = new
            return _with_input(args, kwargs, "hidden_states", x, new)

        return hook

    def _input(self, layer: int, site: str) -> Callable[..., Any]:
        def hook(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
            x = args[0] if args else kwargs["input"]
            return _with_input(args, kwargs, "input", x, self._visit(layer, site, x))

        return hook

    def _after_attention(self, layer: int) -> Callable[..., Any]:
        def hook(_module: Any, _args: Any, output: Any) -> Any:
            x = output[0] if isinstance(output, tuple) else output
            new = self._visit(layer, "attn_out", x) if (layer, "attn_out") in self._wanted else x
            if (layer, "resid_mid") in self._wanted:
                mid = self._mid_in.pop(layer) + new
                changed = self._visit(layer, "resid_mid", mid)
                if changed is not mid:
                    new = new + (changed - mid)
            return _with_output(output, x, new)

        return hook

    def _output(self, layer: int, site: str) -> Callable[..., Any]:
        def hook(_module: Any, _args: Any, output: Any) -> Any:
            x = output[0] if isinstance(output, tuple) else output
            return _with_output(output, x, self._flat(layer, site)(x))

        return hook

    def _experts(self, layer: int, sites: set[str]) -> Callable[..., Any]:
        """Experts are called with hidden states, indices and weights, tokens of all rows one after another."""

        def hook(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
            values = [*args, *kwargs.values()]
            if len(values) < 3:
                return None  # every expert sees every token, weighted before (Llama 4): nothing is chosen here
            indices, weights = values[1], values[2]
            if "expert_indices" in sites:
                indices = self._flat(layer, "expert_indices")(indices)
            if "routing" in sites:
                indices, weights = self._both(layer, indices, weights)
            if "expert_weights" in sites:
                weights = self._flat(layer, "expert_weights")(weights)
            if indices is values[1] and weights is values[2]:
                return None
            values[1:3] = indices, weights
            return tuple(values[: len(args)]), dict(zip(kwargs, values[len(args) :], strict=True))

        return hook

    def _both(self, layer: int, indices: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Indices and weights shown together; as floats, in which an index is exact."""
        wide = torch.promote_types(weights.dtype, torch.float32)
        both = torch.cat([indices.to(wide), weights.to(wide)], -1)
        new = self._flat(layer, "routing")(both)
        if new is both:
            return indices, weights
        k = indices.shape[-1]
        return new[..., :k].to(indices.dtype), new[..., k:].to(weights.dtype)

    def _flat(self, layer: int, site: str) -> Callable[[Tensor], Tensor]:
        """A visit for values whose tokens may come row after row, without a batch axis."""

        def visit(x: Tensor) -> Tensor:
            shaped = x if x.ndim == 3 else x.view(self._batch, -1, x.shape[-1])
            new = self._visit(layer, site, shaped)
            return x if new is shaped else new.reshape(x.shape)

        return visit


def _with_input(args: tuple[Any, ...], kwargs: dict[str, Any], name: str, old: Tensor, new: Tensor) -> Any:
    if new is old:
        return None
    if args:
        return (new, *args[1:]), kwargs
    return args, {**kwargs, name: new}


def _with_output(output: Any, old: Tensor, new: Tensor) -> Any:
    if new is old:
        return None
    if new.shape != old.shape:
        raise SiteError(f"an edit returned shape {tuple(new.shape)} where {tuple(old.shape)} was")
    return (new, *output[1:]) if isinstance(output, tuple) else new
