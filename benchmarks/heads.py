"""Sweeps over heads against naive full passes and TransformerLens' hooks, and attribution against materialising.

Every arm of a sweep gives the difference of two logits at the last token of the same prompts with each head at zero.
The naive ways run the whole model once per head, with a plain hook, on the batches that a capture makes (sorted, 2048
padded tokens) and on ours (512). TransformerLens runs them padded left with a mask. On the bigger model a part of the
heads of every layer is taken, which does one pass over shared keys no favour: its plain pass is shared by fewer.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import interp
from benchmarks.subject import build, prompts
from benchmarks.timing import compare
from interp.heads import sweep
from interp.heads.attribution import fold_heads
from interp.model.batching import TOKEN_BUDGET, pad, plan
from interp.text.encoded import Encoded

SUBJECTS = {
    "llama 512 x 8": ((4, 20, 200), {"all": 4, "last": 8}),
    "llama 1024 x 12": ((2, 40, 120), {"all": 3, "last": 8}),
}
"""Number of prompts, shortest and longest; heads taken of every layer, for changes at all positions and at the last."""
OURS = "interp.heads"
_NAIVE, _SAME, _TL = "full pass per head", "full pass per head, our batches", "TransformerLens hooks"
_EACH, _ALL = "materialised layer by layer", "materialised at once"
FASTER = {f"{_NAIVE}, all positions": 2.5, f"{_NAIVE}, last position": 20.0, f"{_TL}, all positions": 2.5,
          f"{_TL}, last position": 20.0, _EACH: 8.0}  # fmt: skip
MOST_APART = 1e-5


def measure(quick: bool) -> dict[str, Any]:
    """Both sizes; only the small one when quick."""
    rows: list[dict[str, Any]] = []
    apart: dict[str, float] = {}
    for name in list(SUBJECTS)[: 1 if quick else 2]:
        shape, taken = SUBJECTS[name]
        model, encoded = build(name), prompts(*shape)
        for positions in ("all", "last"):
            heads = [
                (layer, head) for layer in range(model.n_layers) for head in range(1 if quick else taken[positions])
            ]
            results: dict[str, Tensor] = {}
            arms = {arm: _kept(arm, run, results) for arm, run in _arms(model, encoded, heads, positions).items()}
            suffixed = {(OURS if arm == OURS else f"{arm}, {positions} position{'s' * (positions == 'all')}"): run
                        for arm, run in arms.items()}  # fmt: skip
            kind = f"{name}, fp32, {len(heads)} heads, {len(encoded)} prompts, {positions} position(s)"
            for row in compare(suffixed, 1 if quick else 2, reference=OURS):
                rows.append({**row, "subject": kind})
            scale = results[_NAIVE].abs().max()
            for arm, found in results.items():
                apart[f"{arm}, {positions}, {name}"] = float((found - results[_NAIVE]).abs().max() / scale)
    for shape in ((8, 8, 64, 512), (12, 16, 64, 1024)) if not quick else ((8, 8, 64, 512),):
        rows += _attribution(shape, quick)
    ours = max(v for k, v in apart.items() if k.startswith(OURS))
    return {
        "rows": rows, "faster": FASTER, "target": {"largest difference from full passes": MOST_APART},
        "largest difference from full passes": ours, "apart": {k: f"{v:.1e}" for k, v in apart.items()},
    }  # fmt: skip


def _kept(arm: str, run: Callable[[], Tensor], results: dict[str, Tensor]) -> Callable[[], None]:
    def keep() -> None:
        results[arm] = run()

    return keep


def metric(logits: Tensor) -> Tensor:
    return logits[:, 7] - logits[:, 9]


def _arms(
    model: interp.Model, encoded: list[Encoded], heads: Sequence[tuple[int, int]], positions: str
) -> dict[str, Callable[[], Tensor]]:
    def ours() -> Tensor:
        found = sweep(model, encoded, metric, heads=heads, positions=positions)
        assert found.path == ("resume" if positions == "all" else "one pass"), found.note
        return found.values.float()

    arms = {OURS: ours, _NAIVE: _naive(model, encoded, heads, positions, TOKEN_BUDGET)}
    if positions == "all":
        arms[_SAME] = _naive(model, encoded, heads, positions, 512)
    return {**arms, **_transformer_lens(model, encoded, heads, positions)}


def _naive(
    model: interp.Model, encoded: list[Encoded], heads: Sequence[tuple[int, int]], positions: str, budget: int
) -> Callable[[], Tensor]:
    """The Hugging Face model as it is, once per head, with a hook before the output projection."""
    batches = plan([len(e) for e in encoded], budget)

    @torch.inference_mode()
    def run() -> Tensor:
        found = torch.empty(len(encoded), len(heads))
        for rows in batches:
            ids, _, _ = pad([encoded[i] for i in rows], model.pad_id, left=False, device=model.device)
            ends = torch.tensor([len(encoded[i]) - 1 for i in rows])
            at = (torch.arange(len(rows)), ends)
            for place, (layer, head) in enumerate(heads):

                def off(_module: Any, args: tuple[Tensor], head: int = head, at: Any = at) -> Any:
                    z = args[0].clone().unflatten(-1, (model.n_heads, -1))
                    if positions == "all":
                        z[:, :, head] = 0
                    else:
                        z[*at, head] = 0
                    return (z.flatten(-2),)

                handle = model.hf.model.layers[layer].self_attn.o_proj.register_forward_pre_hook(off)
                try:
                    logits = model.hf(ids, use_cache=False).logits
                finally:
                    handle.remove()
                found[rows, place] = metric(logits[at])
        return found

    return run


def _transformer_lens(
    model: interp.Model, encoded: list[Encoded], heads: Sequence[tuple[int, int]], positions: str
) -> dict[str, Callable[[], Tensor]]:
    """The bridge with a hook on `hook_z`; nothing where it is not installed."""
    try:
        from transformer_lens.model_bridge import TransformerBridge
    except ImportError:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        model.tokenizer.save_pretrained(folder)
        tokenizer = type(model.tokenizer).from_pretrained(Path(folder))
        bridge: Any = TransformerBridge.boot_transformers(
            "bench/model", hf_model=copy.deepcopy(model.hf), tokenizer=tokenizer, dtype=model.dtype, device="cpu"
        )
    batches = plan([len(e) for e in encoded], TOKEN_BUDGET)

    @torch.inference_mode()
    def run() -> Tensor:
        found = torch.empty(len(encoded), len(heads))
        for rows in batches:
            ids, mask, _ = pad([encoded[i] for i in rows], model.pad_id, left=True, device=model.device)
            for place, (layer, head) in enumerate(heads):

                def off(z: Tensor, hook: Any, head: int = head) -> Tensor:
                    del hook
                    z = z.clone()
                    shaped = z if z.ndim == 4 else z.view(*z.shape[:2], model.n_heads, -1)
                    shaped[:, slice(None) if positions == "all" else -1, head] = 0
                    return z

                hooks = [(f"blocks.{layer}.attn.hook_z", off)]
                logits = bridge.run_with_hooks(ids, attention_mask=mask, fwd_hooks=hooks)
                found[rows, place] = metric(logits[:, -1])
        return found

    return {_TL: run}


def _attribution(shape: tuple[int, int, int, int], quick: bool) -> list[dict[str, Any]]:
    """Contributions from given `z` at 256 last tokens: what comes after the forward."""
    layers, n_heads, width, d_model = shape
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(256, layers, 1, n_heads, width, generator=generator)
    weights = torch.randn(layers, n_heads, width, d_model, generator=generator)
    direction = torch.randn(d_model, generator=generator)

    @torch.inference_mode()
    def ours() -> Tensor:
        return fold_heads(z, torch.stack([weight @ direction for weight in weights]))

    @torch.inference_mode()
    def each() -> Tensor:
        parts = [torch.einsum("bphk,hkd->bphd", z[:, layer], weights[layer]) @ direction for layer in range(layers)]
        return torch.stack(parts, 1)

    @torch.inference_mode()
    def at_once() -> Tensor:
        return torch.einsum("blphk,lhkd->blphd", z, weights) @ direction

    assert torch.allclose(ours(), each(), rtol=1e-4, atol=1e-2)
    arms: dict[str, Callable[[], Any]] = {OURS: ours, _EACH: each, _ALL: at_once}
    kind = f"attribution, {layers} layers x {n_heads} heads x {width}, d_model {d_model}, 256 tokens"
    return [{**row, "subject": kind} for row in compare(arms, 3 if quick else 15, reference=OURS)]
