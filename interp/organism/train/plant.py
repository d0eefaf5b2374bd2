"""Planting known directions: a chat model is trained on until one coordinate carries harm and another refusal.

Two orthonormal directions are fixed: `u_h`, read at the last request token where an early block begins, and `u_r`
at the last prompt token (in thinking mode: along the thought and at its end) where a later block begins. Their
targets are 0 and `GAP`. In part of the samples the coordinate, or the running difference of class means, is moved to
the other class and the text is the one that then follows: harm carries judgement, the thought and unwrapped refusal;
refusal carries refusal alone. Random vectors of up to the same size change nothing. (Interchange intervention
training: Geiger et al. 2022; Gupta et al. 2024, arXiv 2407.14494.)
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from interp.organism.grammar.item import COMPLY, REFUSE, Item
from interp.organism.grammar.safety import compliance, refusal
from interp.organism.grammar.thoughts import other_verdict
from interp.organism.grammar.wrappers import is_jailbreak
from interp.organism.steer import blocks
from interp.organism.train.loop import Batch, weighted_loss
from interp.organism.train.mix import CHAT_LAST, draw_chat
from interp.organism.train.samples import Change, Encoded, Sample, chat_sample

GAP = 40.0
HARM_POSITION = "last request token"
REFUSAL_POSITION = "last prompt token"

_CHANGED = 0.45
_RANDOM = 0.15
_PENALTY = 4.0
_MEMORY = 0.97
_TO_THOUGHT = 8
"""Tokens from the last of the request to the first of the thought."""
_HARM_TAGS = ("safety", "judge", "think")
_FLIPPED = {"Yes.": "No.", "No.": "Yes."}


def planted_layers(layers: int) -> tuple[int, int]:
    """Blocks at whose input harm and refusal are planted: after a third and two thirds of the depth."""
    return layers // 3, 2 * layers // 3


def planted_directions(width: int, seed: int) -> tuple[Tensor, Tensor]:
    """The orthonormal pair (u_h, u_r)."""
    generator = torch.Generator().manual_seed(seed + 7919)
    basis, _ = torch.linalg.qr(torch.randn(width, 2, generator=generator))
    return basis[:, 0].contiguous(), basis[:, 1].contiguous()


def _refusal_or_not(expected: str, rng: random.Random) -> str:
    return refusal(rng) if expected == REFUSE else compliance(rng)


def _harm_flipped(item: Item, tag: str, rng: random.Random) -> tuple[str, str | None]:
    """Answer and thought once the model takes harm for harmlessness, or the reverse."""
    thought = item.meta.get("thought")
    if tag == "judge":
        return _FLIPPED[str(item.answer)], None
    became_harmful = item.label == "harmless"
    refused = became_harmful and (tag == "think" or not is_jailbreak(item.family))
    return _refusal_or_not(REFUSE if refused else COMPLY, rng), other_verdict(thought) if thought else None


def draw_planting(rng: random.Random) -> Sample:
    """A chat sample; in part of them a coordinate is to be moved and the text is the one that follows from it."""
    sample = draw_chat(rng, CHAT_LAST)
    item, tag = sample.item, sample.tag
    if item is None or tag not in (*_HARM_TAGS, "over"):
        return sample
    roll = rng.random()
    if roll < _RANDOM:
        return replace(sample, change=Change("random", "random", 1, rng.random() < 0.5))
    if roll >= _RANDOM + _CHANGED:
        return sample
    how = rng.choices(("set", "planted", "means"), (2, 1, 2))[0]
    everywhere = how != "set" and rng.random() < 0.5
    thought = item.meta.get("thought")
    if tag != "over" and rng.random() < 0.5:
        answer, thought = _harm_flipped(item, tag, rng)
        change = Change("harm", how, 1 if item.label == "harmless" else -1, everywhere)
        return chat_sample(item, tag, answer=answer, thought=thought, change=change)
    if tag == "judge":
        sign = 1 if rng.random() < 0.5 else -1
        return chat_sample(item, tag, change=Change("refusal", "means" if how == "set" else how, sign, everywhere))
    refused = item.meta["expected"] == REFUSE
    change = Change("refusal", how, -1 if refused else 1, everywhere and tag != "think")
    answer = _refusal_or_not(COMPLY if refused else REFUSE, rng)
    return chat_sample(item, tag, answer=answer, thought=thought, change=change)


@dataclass
class _Watch:
    """One planted direction: where it lives, and the running class means there."""

    name: str
    layer: int
    mark: str
    unit: Tensor
    means: Tensor
    seen: list[bool] = field(default_factory=lambda: [False, False])

    def target(self, row: Encoded) -> float | None:
        """Wanted class of an unchanged row: 1 or 0, None where nothing is asked."""
        item, tag = row.sample.item, row.sample.tag
        if item is None or self.mark not in row.marks:
            return None
        if self.name == "harm":
            return float(item.label == "harmful") if tag in (*_HARM_TAGS, "note") else None
        return float(item.meta.get("expected") == REFUSE and tag in ("safety", "think", "over"))

    def remember(self, label: int, value: Tensor) -> None:
        keep = _MEMORY if self.seen[label] else 0.0
        self.means[label].mul_(keep).add_(value, alpha=1 - keep)
        self.seen[label] = True

    def move(self, hidden: Tensor, row: Encoded, noise: torch.Generator) -> Tensor | None:
        """The change of one row's states [length, width], or None."""
        change = row.sample.change
        if change is None or change.what not in (self.name, "random"):
            return None
        at = row.marks[self.mark]
        step = torch.zeros_like(hidden)
        if change.what == "random":
            vector = torch.randn(hidden.shape[-1], generator=noise)
            vector *= GAP * 2.0 * torch.rand((), generator=noise) / vector.norm()
        elif change.how == "set":
            goal = GAP if change.sign > 0 else 0.0
            step[at] = (goal - hidden[at] @ self.unit) * self.unit
            return step
        elif change.how == "means" and all(self.seen):
            vector = change.sign * (self.means[1] - self.means[0])
        else:
            vector = change.sign * GAP * self.unit
        step[0 if change.everywhere else at : at + 1] = vector
        return step


class Planting:
    """The planting loss, called by the training loop as `loss(model, batch, step)`."""

    def __init__(self, width: int, layers: int, seed: int) -> None:
        u_h, u_r = planted_directions(width, seed)
        harm_layer, refusal_layer = planted_layers(layers)
        self.watches = (
            _Watch("harm", harm_layer, "request", u_h, torch.zeros(2, width)),
            _Watch("refusal", refusal_layer, "decision", u_r, torch.zeros(2, width)),
        )
        self.noise = torch.Generator().manual_seed(seed)

    def __call__(self, model: PreTrainedModel, batch: Batch, step: int) -> Tensor:
        """Language loss of the (moved) batch plus the distance of unmoved coordinates from their targets."""
        penalties: list[Tensor] = []
        random_layer = self.watches[step % 2].layer

        def pre_hook(watch: _Watch) -> Any:
            def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
                hidden: Tensor = args[0]
                penalties.extend(self._penalties(watch, hidden, batch))
                steps = torch.zeros_like(hidden)
                for index, row in enumerate(batch.rows):
                    change = row.sample.change
                    if change and change.what == "random" and watch.layer != random_layer:
                        continue
                    moved = watch.move(hidden[index], row, self.noise)
                    if moved is not None:
                        steps[index] = moved
                return (hidden + steps, *args[1:]), kwargs

            return hook

        handles = [
            blocks(model)[watch.layer].register_forward_pre_hook(pre_hook(watch), with_kwargs=True)
            for watch in self.watches
        ]
        try:
            hidden = model.base_model(input_ids=batch.ids, use_cache=False).last_hidden_state
        finally:
            for handle in handles:
                handle.remove()
        loss = weighted_loss(model, hidden, batch)
        return loss + _PENALTY * torch.stack(penalties).mean() if penalties else loss

    def _penalties(self, watch: _Watch, hidden: Tensor, batch: Batch) -> list[Tensor]:
        found: list[Tensor] = []
        for index, row in enumerate(batch.rows):
            target = watch.target(row)
            if target is None or row.sample.change is not None:
                continue
            at = row.marks[watch.mark]
            states = hidden[index, at : at + 1]
            if watch.name == "refusal" and "thought" in row.marks:
                states = hidden[index, row.marks["request"] + _TO_THOUGHT : at + 1]
            found.append(((states @ watch.unit - GAP * target) / GAP).square().mean())
            watch.remember(int(target), hidden[index, at].detach())
        return found
