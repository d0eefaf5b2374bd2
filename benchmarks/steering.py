"""Steered generation against plain generation, beside repeng and steering-vectors where they are installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.subject import build, prompts
from benchmarks.timing import compare
from interp.edits import Reading, during, when
from interp.model.batching import pad
from interp.model.model import Model
from steering import SteeringVector, ablation, rotation

PEERS = {"repeng": "repeng", "steering-vectors": "steering_vectors"}
TARGET = 1.03
ROUNDS = {"llama 512 x 8": 60, "llama 1024 x 12": 20}
"""Of short calls, since a call's own noise is larger than what is looked for."""
_TOKENS = 12
_STRENGTH = 0.1


def measure(quick: bool) -> dict[str, Any]:
    """Each benchmark Llama: one batch, greedy, as many new tokens for every arm."""
    rows: list[dict[str, Any]] = []
    target: dict[str, float] = {}
    notes: dict[str, Any] = {
        f"not compared with {peer}": "it is not installed" for peer, module in PEERS.items() if not _there(module)
    }
    for name in list(ROUNDS)[: 1 if quick else None]:
        subject = _Subject(build(name), 4, _TOKENS)
        arms = subject.arms()
        written = {arm: run() for arm, run in arms.items()}
        floor = next(iter(arms))
        rows += [{"subject": name, **row} for row in compare(arms, 3 if quick else ROUNDS[name], beside=True)]
        # The peers call Hugging Face's generate: what they add is judged against that, and against ours.
        target |= dict.fromkeys(subject.steered, TARGET)
        same = written["zero strength at every layer"] == written[floor]
        notes[f"{name}: zero strength writes the same tokens"] = same
        changed = sum(a != b for a, b in zip(written["addition at every layer"], written[floor], strict=True))
        notes[f"{name}: answers that addition at every layer changes"] = f"{changed} of {len(written[floor])}"
        for arm in written:
            if arm.startswith(tuple(PEERS)):
                equal = written[arm] == written["addition at every layer"]
                notes[f"{name}: {arm} writes what ours does"] = equal
            if sum(map(len, written[arm])) != len(written[arm]) * _TOKENS:
                notes[f"{name}: {arm}"] = f"wrote {sum(map(len, written[arm]))} tokens, so its time does not compare"
    return {"rows": rows, "target": target, **notes}


class _Subject:
    """One model, one batch, and the arms on it."""

    def __init__(self, model: Model, n: int, tokens: int) -> None:
        self.model, self.tokens = model, tokens
        self.encoded = prompts(n, 8, 16)
        noise = torch.randn(model.n_layers, model.d_model, generator=torch.Generator().manual_seed(0)) * _STRENGTH
        self.every = SteeringVector(dict(enumerate(noise)), "resid_post")
        self.steered: list[str] = []

    def ours(self, edits: Any = ()) -> list[list[int]]:
        written = self.model.generate(self.encoded, max_new_tokens=self.tokens, edits=edits)
        return [list(c.ids) for c in written]

    def arms(self) -> dict[str, Callable[[], list[list[int]]]]:
        middle = self.model.n_layers // 2
        one = SteeringVector({middle: self.every.vectors[middle]}, "resid_post")
        axis = self.every.vectors[0]

        def judge(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            score = x[:, 0, 0] @ axis
            return score, score > score.median()

        half = Reading("half of the rows", "resid_post", (1,), (-1,), judge)
        edits: dict[str, Any] = {
            "zero strength at every layer": self.every * 0.0,
            "addition at one layer": one,
            "addition at every layer": self.every,
            "ablation at every layer": ablation(self.every),
            "rotation at every layer": rotation(self.every, self.every.random_like(1), 90),
            "addition at one layer, generated tokens 2 to 20, decaying": during(one, 2, 20, decay=0.9),
            "addition at one layer, where a condition holds": when(half, one),
            "the same, decided at every token": when(half, one, decide="token"),
        }
        self.steered = list(edits)
        arms: dict[str, Callable[[], list[list[int]]]] = {
            "plain (floor)": self.ours, "plain again (A/A)": self.ours, "HF generate, plain": self.theirs,
        }  # fmt: skip
        arms |= {name: lambda e=own: self.ours(e) for name, own in edits.items()}
        if _there("repeng"):
            arms["repeng, addition at every layer"] = self.repeng()
        if _there("steering_vectors"):
            arms["steering-vectors, addition at every layer"] = self.steering_vectors()
        return arms

    @torch.inference_mode()
    def theirs(self, model: Any = None) -> list[list[int]]:
        order = sorted(range(len(self.encoded)), key=lambda i: (len(self.encoded[i]), i))
        ids, mask, _ = pad([self.encoded[i] for i in order], self.model.pad_id, left=True, device=self.model.device)
        written = (model or self.model.hf).generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=self.tokens, min_new_tokens=self.tokens, do_sample=False,
            pad_token_id=self.model.pad_id,
        )[:, ids.shape[1] :].tolist()  # fmt: skip
        found: list[list[int]] = [[] for _ in order]
        for place, own in zip(order, written, strict=True):
            found[place] = own
        return found

    def repeng(self) -> Callable[[], list[list[int]]]:
        """It replaces layers in place: on a model of its own."""
        import copy

        import numpy as np

        np.__dict__.setdefault("float_", np.float64)  # repeng 0.4 was written for numpy 1, for this one name
        from repeng import ControlModel, ControlVector  # pyright: ignore[reportMissingImports]

        hf = copy.deepcopy(self.model.hf)
        wrapped = ControlModel(hf, list(self.every.layers))
        directions = {layer: vector.numpy() for layer, vector in self.every.vectors.items()}
        wrapped.set_control(ControlVector(model_type="llama", directions=directions), 1.0)
        return lambda: self.theirs(wrapped)

    def steering_vectors(self) -> Callable[[], list[list[int]]]:
        from steering_vectors import SteeringVector as Theirs  # pyright: ignore[reportMissingImports]

        vector = Theirs(layer_activations=dict(self.every.vectors), layer_type="decoder_block")

        def run() -> list[list[int]]:
            with vector.apply(self.model.hf):
                return self.theirs()

        return run


def _there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
