"""Capture against the bare backbone on the same batches, and against what the peers offer for the same numbers.

Every arm wants `resid_post` (or what is named) at the last five tokens of the same prompts. Ours, the floor and Hugging
Face's hidden states run the same batches, sorted by length under a token budget and padded right; TransformerLens and
nnsight run them padded left with a mask, so that one slice is the last five tokens of every row.
"""

from __future__ import annotations

import copy
import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import interp
from benchmarks.subject import SUBJECTS, build, prompts
from benchmarks.timing import compare
from interp.edits import ablate
from interp.model.batching import pad, plan
from interp.text.encoded import Encoded

LAST = (-5, -4, -3, -2, -1)
SHORTEST, LONGEST = 20, 200
FLOOR_SECONDS = 0.4
"""As many prompts are taken as the backbone does in this time."""
TARGETS = {
    "interp.capture": 1.03, "interp.capture, the first half of the layers": 0.53, "interp.capture of z": 1.03,
    "interp.capture, ablating at every writer": 1.06, "interp.class_means": 1.03,
}  # fmt: skip
_UNSORTED = "HF output_hidden_states, all logits, unsorted batches of 16"
FASTER = {"TransformerLens": 1.25, "nnsight": 1.08, _UNSORTED: 1.7}
"""How many times our capture has to be faster."""

Arm = Callable[[], Any]
log = logging.getLogger(__name__)


def measure(quick: bool) -> dict[str, Any]:
    """All subjects and types; a subject's arms are interleaved."""
    rows: list[dict[str, Any]] = []
    subjects = list(SUBJECTS)[:1] if quick else list(SUBJECTS)
    for name in subjects:
        for dtype in (torch.float32, torch.bfloat16):
            rows += _subject(name, dtype, quick)
            log.info("measured %s, %s", name, dtype)
    rows += _as_they_come(subjects[0], torch.float32, quick)
    return {
        "rows": rows,
        "target": {**TARGETS, "time(4N)/time(N)": 4.1},
        "faster": FASTER,
        "time(4N)/time(N)": _scaling(quick),
    }


def _subject(name: str, dtype: torch.dtype, quick: bool) -> list[dict[str, Any]]:
    model = build(name, dtype)
    encoded = _enough(model, 0.05 if quick else FLOOR_SECONDS)
    arms = {**_ours(model, encoded), **huggingface(model, encoded), **transformer_lens(model, encoded),
            **nnsight(model, encoded)}  # fmt: skip
    found = compare(arms, 3 if quick else 15, reference="interp.capture")
    kind = f"{name}, {str(dtype).removeprefix('torch.')}, {len(encoded)} prompts"
    return [{**row, "subject": kind} for row in found]


def _enough(model: interp.Model, seconds: float) -> list[Encoded]:
    """Prompts that the backbone needs about this long for; shorter ones where two of full length take longer.

    (bfloat16 is emulated, thirty times slower, on processors that do not have it.)
    """
    sample = prompts(2, 12, 24)
    run = backbone(model, sample)
    run()
    start = time.perf_counter()
    run()
    tokens = seconds / (time.perf_counter() - start) * 48
    if tokens < 2 * LONGEST:
        longest = max(16, round(tokens / 2))
        return prompts(2, longest // 2, longest)
    return prompts(round(tokens / ((SHORTEST + LONGEST) / 2)), SHORTEST, LONGEST)


def backbone(model: interp.Model, encoded: list[Encoded], **options: Any) -> Callable[[], list[Any]]:
    """The bare backbone on the batches that `interp.capture` makes."""
    batches = [[encoded[i] for i in rows] for rows in plan([len(e) for e in encoded])]
    padded = [(rows, pad(rows, model.pad_id, left=False, device=model.device)[0]) for rows in batches]

    @torch.inference_mode()
    def run() -> list[Any]:
        kept: list[Any] = []
        for rows, ids in padded:
            positions = torch.arange(ids.shape[1])[None].expand_as(ids)
            out = model.arch.backbone(input_ids=ids, position_ids=positions, use_cache=False, **options)
            if options:
                kept.append(_last_five(out.hidden_states[1:], rows))
        return kept

    return run


def _last_five(states: tuple[Tensor, ...], rows: list[Encoded]) -> Tensor:
    at = torch.tensor([[len(e) + p for p in LAST] for e in rows])
    return torch.stack([state[torch.arange(len(rows))[:, None], at] for state in states], 1)


def _ours(model: interp.Model, encoded: list[Encoded]) -> dict[str, Arm]:
    floor, labels = backbone(model, encoded), [i % 2 for i in range(len(encoded))]
    vector = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0))
    return {
        "bare backbone (floor)": floor,
        "bare backbone again (A/A)": floor,
        "interp.capture": lambda: interp.capture(model, encoded, "resid_post", LAST),
        "interp.capture, the first half of the layers": lambda: interp.capture(
            model, encoded, "resid_post", LAST, layers=range(model.n_layers // 2)
        ),
        "interp.capture of z": lambda: interp.capture(model, encoded, "z", LAST),
        "interp.capture, ablating at every writer": lambda: interp.capture(
            model, encoded, "resid_post", LAST, edits=[ablate(vector)]
        ),
        "interp.class_means": lambda: interp.class_means(model, encoded, labels, "resid_post", LAST),
    }


def huggingface(model: interp.Model, encoded: list[Encoded]) -> dict[str, Arm]:
    """`output_hidden_states` on our batches."""
    return {"HF output_hidden_states": backbone(model, encoded, output_hidden_states=True)}


def _as_they_come(name: str, dtype: torch.dtype, quick: bool) -> list[dict[str, Any]]:
    """Ours against batches of 16 in the order of the prompts, of which there must be several."""
    model = build(name, dtype)
    encoded = prompts(32 if quick else 64, SHORTEST, LONGEST)
    order = [encoded[i : i + 16] for i in range(0, len(encoded), 16)]
    padded = [(rows, *pad(rows, model.pad_id, left=False, device=model.device)[:2]) for rows in order]

    @torch.inference_mode()
    def unsorted() -> list[Tensor]:
        return [
            _last_five(model.hf(ids, attention_mask=mask, output_hidden_states=True).hidden_states[1:], rows)
            for rows, ids, mask in padded
        ]

    arms = {"interp.capture": lambda: interp.capture(model, encoded, "resid_post", LAST), _UNSORTED: unsorted}
    kind = f"{name}, {str(dtype).removeprefix('torch.')}, {len(encoded)} prompts as they come (floor: ours)"
    return [{**row, "subject": kind} for row in compare(arms, 2 if quick else 5, reference="interp.capture")]


def _left(model: interp.Model, encoded: list[Encoded]) -> list[tuple[Tensor, Tensor]]:
    batches = [[encoded[i] for i in rows] for rows in plan([len(e) for e in encoded])]
    return [pad(rows, model.pad_id, left=True, device=model.device)[:2] for rows in batches]


def transformer_lens(model: interp.Model, encoded: list[Encoded]) -> dict[str, Arm]:
    """The bridge with a names filter and a position slice; nothing where it is not installed."""
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
    batches = _left(model, encoded)
    names = {f"blocks.{layer}.hook_out" for layer in range(model.n_layers)}
    wanted: dict[str, Any] = {"names_filter": lambda name: name in names, "pos_slice": slice(-5, None)}

    @torch.inference_mode()
    def run() -> list[Any]:
        return [bridge.run_with_cache(ids, attention_mask=mask, **wanted) for ids, mask in batches]

    return {"TransformerLens": run}


def nnsight(model: interp.Model, encoded: list[Encoded]) -> dict[str, Arm]:
    """A trace that saves a slice of every block; nothing where it is not installed."""
    try:
        from nnsight import TransformersModel
    except ImportError:
        return {}
    lm: Any = TransformersModel(model.hf, tokenizer=model.tokenizer, task="text-generation")
    batches = _left(model, encoded)

    @torch.inference_mode()
    def run() -> list[Any]:
        found: list[Any] = []
        for ids, mask in batches:
            with lm.trace({"input_ids": ids, "attention_mask": mask}):
                kept = list().save()  # noqa: C408  (nnsight traces the call; a literal is no value of its trace)
                for block in lm.model.layers:
                    kept.append(block.output[:, -5:].save())
            found.append(kept)
        return found

    return {"nnsight": run}


def _scaling(quick: bool) -> float:
    """Seconds for four times as many prompts, over seconds for the prompts (median of rounds)."""
    model, n = build(), 8 if quick else 24
    few, many = prompts(n, SHORTEST, LONGEST), [e for _ in range(4) for e in prompts(n, SHORTEST, LONGEST)]
    arms = {
        "N": lambda: interp.capture(model, few, "resid_post", LAST),
        "4N": lambda: interp.capture(model, many, "resid_post", LAST),
    }
    return compare(arms, 3 if quick else 7)[1]["ratio"]
