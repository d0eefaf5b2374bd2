"""Generation with edits against plain generation, and plain generation against Hugging Face's `generate`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.subject import build, prompts
from benchmarks.timing import compare
from interp.edits import ablate, add
from interp.model.batching import pad


def total(written: list[tuple[int, ...]]) -> int:
    """Tokens in all answers."""
    return sum(map(len, written))


def measure(quick: bool) -> dict[str, Any]:
    """One batch of prompts, greedy, as many new tokens for every arm."""
    model, tokens = build(), 8 if quick else 32
    encoded = prompts(4 if quick else 16, 24, 40)
    vector = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0)) * 0.1
    everywhere, once = [ablate(vector)], [add(vector, site="resid_pre", layer=model.n_layers // 2)]
    order = sorted(range(len(encoded)), key=lambda i: (len(encoded[i]), i))
    ids, mask, _ = pad([encoded[i] for i in order], model.pad_id, left=True, device=model.device)

    def ours(edits: Any = ()) -> list[tuple[int, ...]]:
        return [c.ids for c in model.generate(encoded, max_new_tokens=tokens, edits=edits)]

    @torch.inference_mode()
    def huggingface() -> Tensor:
        return model.hf.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False,
            pad_token_id=model.pad_id,
        )[:, ids.shape[1] :]  # fmt: skip

    plain, theirs = ours(), huggingface().tolist()
    same = sum(list(plain[i]) == theirs[row] for row, i in enumerate(order))
    arms = {
        "model.generate (floor)": ours, "model.generate again (A/A)": ours,
        "ablation at every writer": lambda: ours(everywhere), "addition at one layer": lambda: ours(once),
        "HF generate": huggingface,
    }  # fmt: skip
    rows = compare(arms, 3 if quick else 9)
    return {
        "rows": rows,
        "target": {"ablation at every writer": 1.03, "addition at one layer": 1.03},
        "answers_equal_to_hf": [same, len(plain)],
        "new_tokens": {"plain": total(plain), "ablation": total(ours(everywhere)), "addition": total(ours(once))},
    }  # fmt: skip
