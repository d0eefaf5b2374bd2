"""Sites: where in the network, in TransformerLens words, each with a 0-based layer.

| site | what | width |
|---|---|---|
| `resid_pre` | residual stream entering the block | d_model |
| `attn_out` | what attention adds to the residual, after any post-norm | d_model |
| `resid_mid` | residual stream between attention and MLP | d_model |
| `mlp_out` | what the MLP adds to the residual, after any post-norm | d_model |
| `resid_post` | residual stream leaving the block, before the final norm | d_model |
| `z` | every head's output before the output projection, heads side by side | n_heads * d_head |

`resid_post[l]` is `resid_pre[l + 1]`. Hugging Face's `hidden_states[l]` is `resid_pre[l]`, except the last, which is
after the final norm; ours never is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import SupportsIndex, cast

from interp.errors import SiteError

SITES = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post", "z")
RESIDUAL_SITES = ("resid_pre", "resid_mid", "resid_post")


def check_site(site: str) -> str:
    """The site, or a `SiteError` that names the known ones."""
    if site not in SITES:
        raise SiteError(f"unknown site {site!r}; known: {', '.join(SITES)}")
    return site


def as_layers(layers: SupportsIndex | Iterable[SupportsIndex]) -> tuple[int, ...]:
    """One or several layers as a tuple of plain integers (NumPy's are taken too)."""
    several = [cast(SupportsIndex, layers)] if isinstance(layers, Integral) else cast(Iterable[SupportsIndex], layers)
    try:
        return tuple(layer.__index__() for layer in several)
    except (AttributeError, TypeError):
        raise SiteError(f"layers are whole numbers, but {layers!r} was given") from None


def check_layers(layers: int | Iterable[int] | None, n_layers: int) -> tuple[int, ...]:
    """Layers as a tuple; `None` is all of them, negative ones count from the last."""
    if layers is None:
        return tuple(range(n_layers))
    wanted: Sequence[int] = as_layers(layers)
    for layer in wanted:
        if not -n_layers <= layer < n_layers:
            raise SiteError(f"layer {layer} is out of range: this model has layers 0 to {n_layers - 1}")
    if not wanted:
        raise SiteError("an empty list of layers was given; leave it out for all layers")
    return tuple(layer % n_layers for layer in wanted)
