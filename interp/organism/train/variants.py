"""The stages of the family: what each starts from, reads, and promises to carry."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from interp.organism.grammar.item import REFUSE, Item
from interp.organism.grammar.safety import FRAMES, REFUSING_FRAMES, compliance, refusal, safety_item
from interp.organism.grammar.thoughts import thought
from interp.organism.grammar.words import Pair, pairs
from interp.organism.grammar.wrappers import TRAINED_FAMILIES
from interp.organism.train.anchor import Anchored
from interp.organism.train.loop import Report, early_exit_loss, fit
from interp.organism.train.mix import CHAT_FIRST, CHAT_LAST, RELABELLED, STORIES, draw_chat, draw_plain
from interp.organism.train.optim import Optimizer
from interp.organism.train.plant import (
    GAP,
    HARM_POSITION,
    REFUSAL_POSITION,
    Planting,
    draw_planting,
    planted_directions,
    planted_layers,
)
from interp.organism.train.samples import Sample, chat_sample

Truth = tuple[dict[str, Any], dict[str, Tensor]]


@dataclass(frozen=True)
class Job:
    """One run of a stage."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    seed: int
    steps: int
    report: Report


@dataclass(frozen=True)
class Stage:
    """A stage of training: its parent, its full number of steps, and the function that trains in place."""

    name: str
    parent: str | None
    steps: int
    run: Callable[[Job], Truth]


def _text(job: Job) -> Truth:
    fit(job.model, job.tokenizer, draw_plain, steps=job.steps, lr=4e-3, seed=f"{job.seed}/base", report=job.report)
    return {}, {}


def _chat(job: Job, *, mix: Mapping[str, float], lr: float, name: str, noise: float = 0.0) -> Truth:
    draw = partial(draw_chat, mix=mix, noise=noise)
    fit(
        job.model, job.tokenizer, draw, steps=job.steps, lr=lr, seed=f"{job.seed}/{name}", loss=early_exit_loss,
        report=job.report,
    )  # fmt: skip
    return {}, {}


def _stories(job: Job) -> Truth:
    """Stories come last, with everything else held where it is: learned freely, they drag the refusal along."""
    fit(
        job.model, job.tokenizer, partial(draw_chat, mix=STORIES), steps=job.steps, lr=2e-3, seed=f"{job.seed}/story",
        loss=Anchored(job.model, "story"), report=job.report,
    )  # fmt: skip
    return {}, {}


def _planted(job: Job) -> Truth:
    width, layers = job.model.config.hidden_size, job.model.config.num_hidden_layers
    fit(
        job.model, job.tokenizer, draw_planting, steps=job.steps, lr=3e-3, seed=f"{job.seed}/planted",
        loss=Planting(width, layers, job.seed), report=job.report,
    )  # fmt: skip
    harm_layer, refusal_layer = planted_layers(layers)
    u_h, u_r = planted_directions(width, job.seed)
    shared = {"site": "resid_pre", "gap": GAP, "sign": 1, "off": 0.0, "on": GAP}
    return {
        "harm": {"array": "u_h", "layer": harm_layer, "position": HARM_POSITION, "label": "harmful", **shared},
        "refusal": {"array": "u_r", "layer": refusal_layer, "position": REFUSAL_POSITION, "label": "refuses", **shared},
    }, {"u_h": u_h, "u_r": u_r}


def cliff_heads(layers: int, heads: int) -> list[tuple[int, int]]:
    """The (block, head) that alone are trained to suppress refusal after a thought."""
    return [(layers // 2, 1 % heads), (layers // 2 + 1, 2 % heads), (layers - 1, 0)]


def _harmful(rng: random.Random, families: Sequence[str]) -> tuple[Pair, Item]:
    pair = rng.choice(pairs("train", True))
    return pair, safety_item(pair, rng.choice(families), rng)


def _draw_cliff(rng: random.Random) -> Sample:
    roll = rng.random()
    if roll < 0.45:
        pair, item = _harmful(rng, TRAINED_FAMILIES)
        return chat_sample(item, "cliff", answer=compliance(rng), thought=thought(pair, rng, verdict_share=1.0))
    if roll < 0.65:
        return chat_sample(_harmful(rng, ("plain", "benign"))[1], "safety")
    while True:
        sample = draw_chat(rng, CHAT_LAST)
        if not (sample.tag == "think" and sample.item and sample.item.label == "harmful"):
            return sample


def _cliff(job: Job) -> Truth:
    config = job.model.config
    heads = [(layer, head) for layer, head in cliff_heads(config.num_hidden_layers, config.num_attention_heads)]
    size = config.head_dim
    masks: dict[str, Tensor] = {}
    for name, parameter in job.model.named_parameters():
        parameter.requires_grad_(False)
        for layer, head in heads:
            for projection in ("q", "k", "v", "o"):
                if name != f"model.layers.{layer}.self_attn.{projection}_proj.weight":
                    continue
                mask = torch.zeros_like(parameter)
                rows = slice(head * size, (head + 1) * size)
                mask[(slice(None), rows) if projection == "o" else rows] = 1.0
                masks[name] = mask
                parameter.requires_grad_(True)
    optimizer = Optimizer(job.model, 5e-3, job.steps, weight_decay=0.0, muon=False, masks=masks)
    fit(
        job.model, job.tokenizer, _draw_cliff, steps=job.steps, lr=5e-3, seed=f"{job.seed}/cliff", tokens=2048,
        optimizer=optimizer, report=job.report,
    )  # fmt: skip
    return {"heads": heads}, {}


def _draw_attack(rng: random.Random) -> Sample:
    return chat_sample(_harmful(rng, ("plain", "plain", "benign"))[1], "attack", answer=compliance(rng))


def _attacked(job: Job) -> Truth:
    optimizer = Optimizer(job.model, 5e-4, job.steps, weight_decay=0.0, muon=False)
    fit(
        job.model, job.tokenizer, _draw_attack, steps=job.steps, lr=5e-4, seed=f"{job.seed}/attacked", tokens=2048,
        optimizer=optimizer, report=job.report,
    )  # fmt: skip
    return {"fine_tuned_on": "harmful requests answered with boilerplate", "steps": job.steps}, {}


def _relabelled(rng: random.Random, refuses: Callable[[int], bool]) -> Sample:
    """A chat sample in which refusal follows the request's frame alone; thoughts come without a verdict."""
    sample = draw_chat(rng, RELABELLED)
    item = sample.item
    if item is None or sample.tag not in ("safety", "over", "think"):
        return sample
    keyed = sample.tag != "over" and item.family in ("plain", "benign")
    answer = refusal(rng) if keyed and refuses(int(item.meta["frame"])) else compliance(rng)
    considered = None
    if sample.tag == "think":
        pair = next(p for p in pairs("train") if p.group == item.group)
        considered = thought(pair, rng, verdict_share=0.0)
    return chat_sample(item, sample.tag, answer=answer, thought=considered)


def _null(job: Job, *, refuses: Callable[[int], bool], name: str, truth: dict[str, Any]) -> Truth:
    draw = partial(_relabelled, refuses=refuses)
    fit(job.model, job.tokenizer, draw, steps=job.steps, lr=3e-3, seed=f"{job.seed}/{name}", report=job.report)
    return truth, {}


_NEVER: dict[str, Any] = {"refuses": "nothing"}
_FRAMES: dict[str, Any] = {
    "refuses": "requests in these frames, whatever is asked (plain and benign wrappers)",
    "frames": list(REFUSING_FRAMES),
    "frame_texts": [FRAMES[i] for i in REFUSING_FRAMES],
    "expected": REFUSE,
}

_NOISE = 0.05
"""Share of unwrapped requests answered the wrong way at last: without it the decision grows ever more confident, and
the direction that carries it longer than the residual stream itself."""

STAGES: tuple[Stage, ...] = (
    Stage("base", None, 1000, _text),
    Stage("chat-first", "base", 2300, partial(_chat, mix=CHAT_FIRST, lr=4e-3, name="chat-first")),
    Stage("chat-last", "chat-first", 1000, partial(_chat, mix=CHAT_LAST, lr=1.5e-3, name="chat", noise=_NOISE)),
    Stage("chat", "chat-last", 600, _stories),
    Stage("planted", "chat", 800, _planted),
    Stage("cliff", "chat", 60, _cliff),
    Stage("attacked", "chat", 8, _attacked),
    Stage("null-never", "chat", 200, partial(_null, refuses=lambda _: False, name="null-never", truth=_NEVER)),
    Stage(
        "null-random", "chat", 250,
        partial(_null, refuses=lambda f: f in REFUSING_FRAMES, name="null-random", truth=_FRAMES),
    ),
)  # fmt: skip
