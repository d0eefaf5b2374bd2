"""Queries, keys, values and pattern: taken where a block hands them to transformers' attention interface.

Every family of transformers 5 asks one table for its attention function and calls it with the module, queries, keys and
values, after norms, RoPE and the split of fused projections. While something is tapped, the table hands out a function
that shows these to a visit first; modules that are not tapped get through it unseen.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from typing import Any

from einops import rearrange, repeat
from torch import Tensor, nn

from interp.errors import SiteError

_Tap = tuple[int, frozenset[str], Callable[[int, str, Tensor], Tensor]]
_taps: dict[int, list[_Tap]] = {}


@contextmanager
def tap_attention(
    module: nn.Module, layer: int, sites: Collection[str], visit: Callable[[int, str, Tensor], Tensor]
) -> Generator[None]:
    """Show an attention module's `q`, `k`, `v` `[batch, token, head * width]` and `pattern` to `visit`.

    With a key-value cache, `k` and `v` are those of every token so far: what a visit makes of the keys of earlier
    tokens is not kept in the cache, so it has to make it again at every step.
    """
    tap: _Tap = (layer, frozenset(sites), visit)
    if not _taps:
        _install()
    _taps.setdefault(id(module), []).append(tap)
    try:
        yield
    finally:
        _taps[id(module)].remove(tap)
        if not _taps[id(module)]:
            del _taps[id(module)]
        if not _taps:
            _uninstall()


def _install() -> None:
    from transformers.modeling_utils import AttentionInterface

    original = AttentionInterface.get_interface

    def get_interface(self: Any, attn_implementation: str, default: Callable[..., Any]) -> Callable[..., Any]:
        found = original(self, attn_implementation, default)

        def tapped(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
            taps = _taps.get(id(module))
            if not taps:
                return found(module, query, key, value, *args, **kwargs)
            return _attend(found, taps, module, query, key, value, args, kwargs)

        return tapped

    get_interface.original = original  # pyright: ignore[reportFunctionMemberAccess]
    AttentionInterface.get_interface = get_interface


def _uninstall() -> None:
    from transformers.modeling_utils import AttentionInterface

    AttentionInterface.get_interface = AttentionInterface.get_interface.original  # pyright: ignore


def _attend(
    function: Callable[..., Any],
    taps: list[_Tap],
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    for layer, sites, visit in taps:
        if "q" in sites:
            query = _shown(query, layer, "q", visit)
        if "k" in sites:
            key = _shown(key, layer, "k", visit)
        if "v" in sites:
            value = _shown(value, layer, "v", visit)
    output, weights = function(module, query, key, value, *args, **kwargs)
    for layer, sites, visit in taps:
        if "pattern" not in sites:
            continue
        if weights is None:
            raise SiteError(
                "this attention implementation gives no attention weights; load the model with "
                "attn_implementation='eager' to see the pattern"
            )
        heads = weights.shape[1]
        pattern = rearrange(weights, "b h q k -> b q (h k)")
        new = visit(layer, "pattern", pattern)
        if new is not pattern:
            weights = rearrange(new, "b q (h k) -> b h q k", h=heads)
            values = repeat(value, "b g k d -> b (g r) k d", r=heads // value.shape[1])
            output = (weights @ values).transpose(1, 2).contiguous()
    return output, weights


def _shown(x: Tensor, layer: int, site: str, visit: Callable[[int, str, Tensor], Tensor]) -> Tensor:
    flat = rearrange(x, "b h t d -> b t (h d)")
    new = visit(layer, site, flat)
    return x if new is flat else rearrange(new, "b t (h d) -> b h t d", h=x.shape[1])
