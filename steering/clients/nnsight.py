"""`nnsight_steer`: a vector inside a trace of nnsight."""

from __future__ import annotations

from typing import Any

from interp.errors import EditError
from interp.model.architecture import find_architecture
from interp.model.backends.nnsight import follow
from interp.model.backends.private import path_of
from steering.clients.additions import EVERYWHERE, acts_everywhere, additions
from steering.vector import SteeringVector


def nnsight_steer(vector: SteeringVector, lm: Any) -> None:
    """Steer the forward that a trace of nnsight (0.8, `TransformersModel`) is in; call it inside the trace.

    A trace meets values in the order in which they are computed: what is read before the vector's first layer is read
    before this call, the rest after it. In `generate` it steers the step it is called in, so it belongs into
    `for step in tracer.iter[:]`.

    Args:
        vector: At `resid_pre` or `resid_post`, on all positions in both phases.
        lm: The traced model.

    Raises:
        EditError: For a vector that acts on some tokens only.
        SiteError: For other sites, or a layer that the model lacks.
        DirectionError: For another width.
    """
    if not acts_everywhere(vector):
        raise EditError(
            f"a trace is not told which tokens are {'+'.join(map(str, vector.positions))} in the phase "
            f"{vector.phase!r}; use interp.load(model, backend='nnsight').generate(prompts, edits=vector), or take "
            f"{EVERYWHERE} and call this at the steps you want: tracer.iter[:1] has the prompt, tracer.iter[1:] the "
            "generated tokens"
        )
    hf = lm._module
    arch = find_architecture(hf)[0]
    blocks = path_of(hf, arch.blocks)
    for one in additions(vector, arch.n_layers, arch.d_model):
        block = follow(lm, f"{blocks}.{one.layer}")
        if one.enters:
            block.input = one(block.input)
        else:
            left = block.output
            block.output = (one(left[0]), *left[1:]) if isinstance(left, tuple) else one(left)
