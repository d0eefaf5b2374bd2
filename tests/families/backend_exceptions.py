"""Where a peer is wrong or lacks a site: what, why, and code that shows it against Hugging Face.

`test_backends.py` runs every reproducer: one that no longer shows anything fails, so that the table cannot rot, and a
cell that is missing from it fails too. `"read"`: the backend does not have the site. `"edit"`: it shows the site, and
refuses changes. `"worked around"`: the peer's own point is wrong, the backend takes the site elsewhere and is right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

import interp
from tests.helpers.backends import behind
from tests.helpers.slow import PROMPTS, loaded

FUSED = ("phi3", "gpt_neox", "gpt_neox_sequential")
MIXTURES = ("mixtral", "qwen3_moe", "gpt_oss", "deepseek_v3")


@dataclass(frozen=True)
class PeerException:
    """One row of the table; `shows(family)` is true while the peer is as described."""

    backend: str
    families: tuple[str, ...]
    sites: tuple[str, ...]
    kind: Literal["read", "edit", "worked around"]
    reason: str
    shows: Callable[[str], bool]


def lens_points(family: str, change: dict[str, Callable[[Tensor], Tensor | None]]) -> tuple[Tensor, dict[str, Tensor]]:
    """Last hidden state of a bridge's forward with hooks put on its points by hand, and what they saw."""
    peer = behind(family, "transformer_lens")
    bridge: Any = peer.backend.bridge  # type: ignore[attr-defined]
    seen: dict[str, Tensor] = {}
    handles = []
    for name, function in change.items():

        def hook(x: Tensor, hook: Any, name: str = name, function: Any = function) -> Tensor | None:
            seen[name] = x.clone()
            return function(x)

        point = bridge.hook_dict[name]
        handles.append((point, point.add_hook(hook)))
    try:
        with torch.no_grad():
            hidden = peer.arch.backbone(torch.tensor([peer.encode(PROMPTS[1])[0].ids])).last_hidden_state
    finally:
        for point, handle in handles:
            handle.hook.remove()
            point.fwd_hooks.remove(handle)
    return hidden, seen


def keep(_x: Tensor) -> None:
    """A hook that only looks."""


def no_point_after_rope(family: str) -> bool:
    """The points after RoPE never fire, and `hook_q`, `hook_k` are not what enters attention."""
    names = ["blocks.1.attn.hook_rot_q", "blocks.1.attn.hook_rot_k", "blocks.1.attn.hook_q", "blocks.1.attn.hook_k"]
    _, seen = lens_points(family, dict.fromkeys(names, keep))
    acts = interp.capture(loaded(family), [PROMPTS[1]], ["q", "k"], ["last"], [1])
    before = [seen[f"blocks.1.attn.hook_{site}"][0, -1].flatten() for site in ("q", "k")]
    apart = all(
        float((x - acts.sel(s, layer=1, position="last")[0]).abs().max()) > 1e-2
        for x, s in zip(before, ("q", "k"), strict=True)
    )
    return not any("rot" in name for name in seen) and apart


def router_logits_come_too_late(family: str) -> bool:
    """Turning the router's logits round changes nothing in TransformerLens, and does in the model."""
    name = "blocks.1.mlp.router.hook_out" if family == "gpt_oss" else "blocks.1.mlp.gate.hook_out"
    plain, _ = lens_points(family, {})
    edited, seen = lens_points(family, {name: lambda x: -x})
    model = loaded(family)
    v = torch.randn(seen[name].shape[-1], generator=torch.Generator().manual_seed(0)) * 5
    edit = interp.edits.add(v, site="router_logits", layer=1)
    moved = not torch.equal(model.logits(PROMPTS, [edit]), model.logits(PROMPTS))
    return torch.equal(plain, edited) and moved


def no_expert_hooks(family: str) -> bool:
    """The hooks of the choice do not exist or never fire, though the model chooses experts."""
    bridge: Any = behind(family, "transformer_lens").backend.bridge  # type: ignore[attr-defined]
    names = [n for n in bridge.hook_dict if n.endswith(("hook_expert_indices", "hook_expert_weights"))]
    _, seen = lens_points(family, dict.fromkeys(names, keep))
    return not seen and bool(loaded(family).arch.layers_with("expert_indices"))


def resid_mid_is_a_branch(family: str) -> bool:
    """A vector added at `hook_resid_mid` reaches the MLP alone: what leaves the block differs by it from ours."""
    model = loaded(family)
    v = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0)) * 3
    names = {"blocks.1.hook_resid_mid": lambda x: x + v, "blocks.1.hook_resid_post": keep}
    _, seen = lens_points(family, names)
    edit = interp.edits.add(v, site="resid_mid", layer=1)
    acts = interp.capture(model, [PROMPTS[1]], "resid_post", ["last"], [1], edits=[edit])
    theirs, ours = seen["blocks.1.hook_resid_post"][0, -1], acts.sel(layer=1, position="last")[0]
    return bool(torch.allclose(theirs + v, ours, atol=1e-4)) and not torch.allclose(theirs, ours, atol=1e-1)


def z_has_other_heads(family: str) -> bool:
    """`hook_z` is cut into heads of another number than the model has."""
    _, seen = lens_points(family, {"blocks.1.attn.hook_z": keep})
    return seen["blocks.1.attn.hook_z"].shape[2] != loaded(family).n_heads


def indices_change_weights(family: str) -> bool:
    """Another expert at `hook_expert_indices` gets its own weight, 0 if it was not chosen, not the choice's."""
    names = {"blocks.1.mlp.hook_expert_indices": lambda x: (x + 3) % 6, "blocks.1.mlp.hook_out": keep}
    _, seen = lens_points(family, names)
    model = loaded(family)
    item = model.encode(PROMPTS[1])[0]
    plain = interp.capture(model, [item], "expert_indices", list(range(len(item))), [1]).sel(layer=1)
    edit = interp.edits.patch((plain + 3) % 6, site="expert_indices", layer=1, positions=list(range(len(item))))
    ours = interp.capture(model, [item], "mlp_out", list(range(len(item))), [1], edits=[edit]).sel(layer=1)
    return float((seen["blocks.1.mlp.hook_out"] - ours).abs().max()) > 1e-2


EXCEPTIONS = (
    PeerException(
        "transformer_lens", FUSED, ("q", "k"), "read",
        "a fused query-key-value projection is rotated inside the bridge's attention, with no hook point after it",
        no_point_after_rope,
    ),
    PeerException(
        "transformer_lens", MIXTURES, ("router_logits",), "edit",
        "the router has chosen its experts when the hook on its output fires, so a change of the logits does nothing",
        router_logits_come_too_late,
    ),
    PeerException(
        "transformer_lens", ("deepseek_v3",), ("expert_indices", "expert_weights"), "read",
        "the bridge's router of this family has no hooks for its choice",
        no_expert_hooks,
    ),
    PeerException(
        "transformer_lens", ("llama", "gemma2", "olmo2", "mixtral"), ("resid_mid",), "worked around",
        "hook_resid_mid is the input of the second norm (or the MLP): a change there does not reach the stream beside "
        "it; the backend changes hook_attn_out instead",
        resid_mid_is_a_branch,
    ),
    PeerException(
        "transformer_lens", ("deepseek_v3",), ("z",), "worked around",
        "hook_z is cut by a head width that is not the values' own; the backend lays the heads side by side again",
        z_has_other_heads,
    ),
    PeerException(
        "transformer_lens", ("mixtral", "qwen3_moe", "gpt_oss"), ("expert_indices",), "worked around",
        "a changed index takes the weight of the expert it names, 0 where that was not chosen; the backend keeps the "
        "weight of the choice",
        indices_change_weights,
    ),
)  # fmt: skip
