"""Issue 7, C: an exported vector does in other programs what it does here, by their own reading of the file."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

import interp
import steering
from interp.model.model import Model
from refusalkit.accept.rows import Rows, claim_row, rate_row, value_row
from steering import SteeringVector

LAYER = 3
"""Input of the block half way up."""
N = 5
"""Held-out prompts per class."""
MAX_NEW_TOKENS = 12
VARIANT = "exports organism:chat"


def exports(progress: bool) -> Rows:
    """Every format by its proof, with the same file read on the other side of its block as control; every client."""
    del progress
    model, prompts = interp.load("organism:chat"), interp.prompts("organism")
    some = [p.text for part in (prompts.test.harmful, prompts.test.harmless) for p in part[:N]]
    vector = _refusal(model, prompts.train)
    controls: list[float] = []
    for format in steering.FORMATS:
        if format in ("gguf", "repeng", "easysteer") and find_spec("gguf") is None:
            yield claim_row(VARIANT, f"{format}: not measured, gguf is not installed", False)
            continue
        proof = steering.verify(vector, format, None, model, prompts=some, max_new_tokens=MAX_NEW_TOKENS)
        controls.append(proof.control or 0.0)
        figure = f"{format}: largest difference of logits (the vector moves them by {proof.effect:.3g})"
        yield value_row(VARIANT, figure, proof.difference, "<=", 1e-3, len(some))
        rate = {"k": proof.same_texts, "n": len(some), "value": proof.same_texts / len(some)}
        yield rate_row(VARIANT, f"{format}: texts equal", rate, ">=", 1.0)
    figure = "any format read on the other side of its block: difference of logits, smallest"
    yield value_row(VARIANT, figure, min(controls, default=0.0), ">=", 0.1, len(some))
    ours = model.logits(some[0], edits=vector.edits())[0]
    for client, logits in _clients(model, vector, some[0]).items():
        error = float((logits - ours).abs().max() / ours.std())
        yield value_row(VARIANT, f"{client}: largest difference of logits, in sd", error, "<=", 1e-5, 1)


def _refusal(model: Model, train: Any) -> SteeringVector:
    """Difference of the classes' means on training prompts."""
    means = [
        interp.capture(model, part[:100], "resid_pre", ["t_post_inst"], [LAYER]).sel("resid_pre", LAYER).mean(0)
        for part in (train.harmful, train.harmless)
    ]
    return SteeringVector({LAYER: torch.as_tensor(means[0] - means[1]).reshape(-1)}, "resid_pre")


@torch.no_grad()
def _clients(model: Model, vector: SteeringVector, prompt: str) -> Mapping[str, Tensor]:
    """Next-token logits of a prompt in the clients that are installed."""
    ids = torch.tensor([model.encode(prompt)[0].ids])
    with steering.hf_hooks(vector, model.hf) as hf:
        found = {"plain transformers (hf_hooks)": hf(ids).logits[0, -1]}
    if find_spec("transformer_lens") is not None:
        bridge: Any = interp.load("organism:chat", backend="transformer_lens").backend
        hooks = steering.lens_hooks(vector, bridge.bridge)
        found["TransformerLens (lens_hooks)"] = bridge.bridge.run_with_hooks(ids, fwd_hooks=hooks)[0, -1]
    if find_spec("nnsight") is not None:
        from nnsight import TransformersModel

        lm = TransformersModel(
            copy.deepcopy(model.hf), tokenizer=copy.deepcopy(model.tokenizer), task="text-generation"
        )
        with lm.trace(ids):
            steering.nnsight_steer(vector, lm)
            logits = lm.output.logits.save()
        found["nnsight (nnsight_steer)"] = logits[0, -1]
    return found
