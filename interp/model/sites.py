"""Sites: where in the network, in TransformerLens words, each with a 0-based layer.

| site | what | features |
|---|---|---|
| `resid_pre` | residual stream entering the block | d_model |
| `q` | queries as they enter attention: after norms and RoPE, heads side by side | n_heads * d_qk |
| `k` | keys as they enter attention: after norms and RoPE | n_kv_heads * d_qk |
| `v` | values as they enter attention | n_kv_heads * d_v |
| `pattern` | attention weights of one query: for every head, one per token of the prompt | n_heads * tokens |
| `z` | every head's output before the output projection, heads side by side | n_heads * d_v |
| `attn_out` | what attention adds to the residual, after any post-norm | d_model |
| `resid_mid` | residual stream between attention and MLP; a parallel block has none | d_model |
| `router_logits` | a mixture of experts' router, before anything is chosen | n_experts |
| `expert_indices` | the experts chosen | top_k |
| `expert_weights` | their weights | top_k |
| `mlp_post` | the MLP's hidden layer, as it enters the down projection; a mixture of experts has none | d_mlp |
| `mlp_out` | what the MLP adds to the residual, after any post-norm | d_model |
| `resid_post` | residual stream leaving the block, before the final norm | d_model |

`resid_post[l]` is `resid_pre[l + 1]`. Hugging Face's `hidden_states[l]` is `resid_pre[l]`, except the last, which is
after the final norm; ours never is. The rows of `pattern` need not sum to 1: attention sinks take their share.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import SupportsIndex, cast

from interp.errors import SiteError

SITES = (
    "resid_pre", "q", "k", "v", "pattern", "z", "attn_out", "resid_mid",
    "router_logits", "expert_indices", "expert_weights", "mlp_post", "mlp_out", "resid_post",
)  # fmt: skip
RESIDUAL_SITES = ("resid_pre", "resid_mid", "resid_post")
ATTENTION_SITES = ("q", "k", "v", "pattern")
"""Read where the block calls attention itself, rather than at a module."""
ROUTING_SITES = ("router_logits", "expert_indices", "expert_weights")


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
