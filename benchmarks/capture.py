"""Capture of `resid_post` at every layer and the last five tokens, against the bare backbone on the same batches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import interp
from benchmarks.subject import build, prompts
from benchmarks.timing import compare
from interp.model.batching import pad, plan

LAST = (-5, -4, -3, -2, -1)


def measure(quick: bool) -> dict[str, Any]:
    """Floor, floor again, ours, and Hugging Face's `output_hidden_states`."""
    model, encoded = build(), prompts(16 if quick else 64, 20, 200)
    batches = [
        ([encoded[i] for i in rows], pad([encoded[i] for i in rows], model.pad_id, left=False, device=model.device)[0])
        for rows in plan([len(e) for e in encoded])
    ]

    @torch.inference_mode()
    def backbone() -> None:
        for _, ids in batches:
            model.arch.backbone(input_ids=ids, position_ids=torch.arange(ids.shape[1])[None], use_cache=False)

    @torch.inference_mode()
    def hidden_states() -> Tensor:
        out: list[Tensor] = []
        for items, ids in batches:
            states = model.arch.backbone(
                input_ids=ids, position_ids=torch.arange(ids.shape[1])[None], use_cache=False, output_hidden_states=True
            ).hidden_states[1:]
            at = torch.tensor([[len(e) + p for p in LAST] for e in items])
            rows = torch.arange(len(items))[:, None]
            out.append(torch.stack([state[rows, at] for state in states], 1))
        return torch.cat(out)

    def ours() -> Tensor:
        return interp.capture(model, encoded, "resid_post", LAST).data["resid_post"]

    order = [i for rows in plan([len(e) for e in encoded]) for i in rows]
    # The last of Hugging Face's states is after the final norm, ours before it.
    difference = float((ours()[order][:, :-1] - hidden_states()[:, :-1]).abs().max())
    arms = {
        "bare backbone (floor)": backbone, "bare backbone again (A/A)": backbone, "interp.capture": ours,
        "HF output_hidden_states": hidden_states,
    }  # fmt: skip
    rows = compare(arms, 5 if quick else 9)
    return {"rows": rows, "target": {"interp.capture": 1.03}, "max_difference_from_hf": difference}
