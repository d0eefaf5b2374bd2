"""The default backend: plain PyTorch hooks on the Hugging Face model, taken off again whatever happens.

A backend shows the values at sites to a *visit*, a function `(layer, site, x) -> x`, with `x` as `[batch, token,
feature]` whatever the module's own shape, and puts back what the visit returns. Hooks are registered for wanted sites
only; nothing of the model is replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any, Literal, Protocol

from torch import Tensor

from interp.errors import SiteError
from interp.model.architecture import Architecture
from interp.model.attention_tap import tap_attention
from interp.model.block_visit import BlockVisit, Visit
from interp.model.router_tap import tap_router
from interp.model.sites import ATTENTION_SITES, ROUTING_SITES

BackendName = Literal["hooks", "transformer_lens", "nnsight"]


class Backend(Protocol):
    """Runs forward passes and shows the values at sites."""

    @property
    def name(self) -> str:
        """As given to `interp.load`."""
        ...

    @property
    def packages(self) -> tuple[str, ...]:
        """Distributions whose versions its numbers depend on."""
        ...

    @property
    def read_only(self) -> Collection[tuple[int, str]]:
        """(layer, site) that it can show, but where a change has no effect."""
        ...

    def attach(self, arch: Architecture, wanted: Collection[tuple[int, str]], visit: Visit) -> ExitStack:
        """Show the wanted (layer, site) to `visit` from now on; closing the stack ends it."""
        ...

    def forward(self, arch: Architecture, inputs: Mapping[str, Any]) -> Tensor:
        """Last hidden state (after the final norm) `[batch, token, d_model]` of a forward through the backbone."""
        ...


class HooksBackend:
    """Plain hooks on the model itself."""

    name = "hooks"
    packages = ()
    read_only = frozenset[tuple[int, str]]()

    def attach(self, arch: Architecture, wanted: Collection[tuple[int, str]], visit: Visit) -> ExitStack:
        """Register hooks for the wanted (layer, site)."""
        with ExitStack() as stack:
            for layer in sorted({layer for layer, _ in wanted}):
                _hook(stack, arch, BlockVisit(layer, {site for at, site in wanted if at == layer}, visit), visit)
            return stack.pop_all()

    def forward(self, arch: Architecture, inputs: Mapping[str, Any]) -> Tensor:
        """The backbone's own forward."""
        return arch.backbone(**inputs).last_hidden_state


def _hook(stack: ExitStack, arch: Architecture, shown: BlockVisit, visit: Visit) -> None:
    """Put on one block the hooks that its wanted sites need; a site that needs no shaping is shown as it is."""
    layer, sites = shown.layer, shown.sites
    block = arch.blocks[layer]

    def on(handle: Any) -> None:
        stack.callback(handle.remove)

    def see(site: str) -> Callable[[Tensor], Tensor]:
        return partial(visit, layer, site)

    routed = sites & {*ROUTING_SITES, "choice", "routing"}
    if sites & {"resid_pre", "resid_mid", "mlp_out"} or routed:
        on(block.register_forward_pre_hook(_before("hidden_states", shown.enter), with_kwargs=True))
    if sites & set(ATTENTION_SITES):
        stack.enter_context(tap_attention(arch.module(layer, "attention"), shown))
    for site, role in (("z", "o_proj"), ("mlp_post", "down")):
        if site in sites:
            hook = _before("input", see(site))
            on(arch.module(layer, role).register_forward_pre_hook(hook, with_kwargs=True))
    if sites & {"attn_out", "resid_mid"}:
        on(arch.module(layer, "attn_out").register_forward_hook(_after(shown.attention)))
    if inside := routed & {"router_logits", "choice"}:
        taps = {site: partial(shown.tokens, site) for site in inside}
        stack.enter_context(tap_router(arch.module(layer, "router"), taps.get("router_logits"), taps.get("choice")))
    if routed - inside:
        on(arch.module(layer, "experts").register_forward_pre_hook(_experts(shown), with_kwargs=True))
    if "mlp_out" in sites:
        on(arch.module(layer, "mlp_out").register_forward_hook(_after(partial(shown.tokens, "mlp_out"))))
    if "resid_post" in sites:
        on(block.register_forward_hook(_after(see("resid_post"))))


def _before(name: str, change: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    """A pre-hook that changes a module's first argument, which may be given by name."""

    def hook(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        old = args[0] if args else kwargs[name]
        new = change(old)
        if new is old:
            return None
        return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, name: new})

    return hook


def _after(change: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    """A hook that changes a module's output, or the first of several."""

    def hook(_module: Any, _args: Any, output: Any) -> Any:
        old = output[0] if isinstance(output, tuple) else output
        new = change(old)
        if new is old:
            return None
        if new.shape != old.shape:
            raise SiteError(f"an edit returned shape {tuple(new.shape)} where {tuple(old.shape)} was")
        return (new, *output[1:]) if isinstance(output, tuple) else new

    return hook


def _experts(shown: BlockVisit) -> Callable[..., Any]:
    """Experts are called with hidden states, indices and weights, tokens of all rows one after another."""

    def hook(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        values = [*args, *kwargs.values()]
        if len(values) < 3:
            return None  # every expert sees every token, weighted before (Llama 4): nothing is chosen here
        indices, weights = shown.experts(values[1], values[2])
        if indices is values[1] and weights is values[2]:
            return None
        values[1:3] = indices, weights
        return tuple(values[: len(args)]), dict(zip(kwargs, values[len(args) :], strict=True))

    return hook
