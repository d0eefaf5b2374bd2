"""`lens_hooks`: a vector as hooks of a TransformerLens bridge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from interp.errors import EditError
from steering.clients.additions import EVERYWHERE, Addition, acts_everywhere, additions
from steering.vector import SteeringVector

Hook = Callable[..., Tensor]


def lens_hooks(vector: SteeringVector, bridge: Any) -> list[tuple[str, Hook]]:
    """Hooks that steer a `TransformerBridge` (TransformerLens 4), by the names of its hook points.

    `with bridge.hooks(fwd_hooks=lens_hooks(vector, bridge)): bridge.generate(...)`, or
    `bridge.run_with_hooks(ids, fwd_hooks=...)`. They fire at every step, on every token.

    Args:
        vector: At `resid_pre` or `resid_post`, on all positions in both phases.
        bridge: The bridge it is for.

    Raises:
        EditError: For a vector that acts on some tokens only: a hook point is not told which token is which.
        SiteError: For other sites, or a layer that the model lacks.
        DirectionError: For another width.
    """
    if not acts_everywhere(vector):
        raise EditError(
            f"a hook of TransformerLens is not told which tokens are {'+'.join(map(str, vector.positions))} in the "
            f"phase {vector.phase!r}; use interp.load(model, backend='transformer_lens').generate(prompts, "
            f"edits=vector), or steer everywhere: {EVERYWHERE}"
        )
    return [
        (f"blocks.{one.layer}.{'hook_resid_pre' if one.enters else 'hook_resid_post'}", _hook(one))
        for one in additions(vector, bridge.cfg.n_layers, bridge.cfg.d_model)
    ]


def _hook(addition: Addition) -> Hook:
    def steer(x: Tensor, hook: Any) -> Tensor:  # TransformerLens passes the point by this name
        del hook
        return addition(x)

    return steer
