"""Issue 6, section B: what the organism plans, commits to and decides while thinking, on prompts never looked at.

Two rules of the verdict were shaped with test figures of `organism:story`, `list` and `choice` in view. So all is done
anew here: probes are fitted, chosen and tested on prompts that are in none of those sets, drawn by a seed that was
fixed before any figure was seen. Test prompts ask for combinations that the organism was not trained on. The grammar
holds out 66 triples of characters, 45 pairs of topic and audience and 32 right options, each of which was looked at in
some wording: what is new of those is the wording, and the wrong options. Of requests, the combinations are new as well.

Stories were looked at twice. The first 400 of the draw, with 640 prompts to fit and choose on, gave 0.15 [0.10, 0.20]
above bag of words, short of the 0.20 that is asked for; every other figure was as asked. Prompts of the training split
alone then showed that the gap grows with the prompts that probe and bag of words are given (0.20 with 800, 0.24 with
1600, 0.32 with 2400, split 60/20/20, three seeds). So `n_fit` of stories was raised, and what is reported is measured
on the last of the draw, which nobody had looked at.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import interp
from interp.organism.grammar import Item, items
from interp.organism.grammar.planning import draw_choice, draw_list, draw_story
from interp.text.prompts import Prompt, PromptSet
from interp.text.task import Task
from probes.planning.claims import FIRST_TOKEN, PLANNED, WHILE_THINKING
from probes.planning.examples import PROMPT, PlanExamples
from probes.planning.fitted import PlanFit
from probes.planning.fitting import fit_plan
from probes.planning.planned import Plan, plan
from refusalkit.accept.rows import Rows, claim_row, value_row

NAME = "plan organism:chat"
SEED = 6
NOISE = 20
_VAL_EVERY = 4
"""Of so many groups of training prompts one is for choosing."""
_QUICK: dict[str, Any] = {"seeds": (0,), "kinds": ("linear",), "ask": False, "batch_size": 256}
_DRAWS = {"story": draw_story, "list": draw_list, "choice": draw_choice}


@dataclass(frozen=True)
class Case:
    """An attribute whose truth is known.

    Attributes:
        source: Where its prompts come from.
        attribute: Its name.
        truth: The verdict that is right.
        n_fit: Prompts for fitting and choosing.
        n_test: Held-out prompts.
        max_new_tokens: Longest answer.
        segments: Stretches of what is written.
        thinking: Whether the model thinks first.
        looked_at: Held-out prompts at the beginning of the draw that were looked at before, and are left out.
    """

    source: str
    attribute: str
    truth: str
    n_fit: int
    n_test: int
    max_new_tokens: int
    segments: int = 0
    thinking: bool = False
    looked_at: int = 0


STORY = Case("organism:story", "character", PLANNED, 1600, 190, 40, segments=3, looked_at=400)
LIST = Case("organism:list", "list_length", FIRST_TOKEN, 400, 60, 40)
CHOICE = Case("organism:choice", "letter", WHILE_THINKING, 480, 200, 96, segments=3, thinking=True)
REFUSAL = Case("organism", "refusal", FIRST_TOKEN, 480, 160, 16)


def planning(progress: bool) -> Rows:
    """The story's ending, the list's length, the option chosen, refusal; then labels that are noise."""
    yield from _story(_plan(STORY, progress).fit)
    yield from _list(_plan(LIST, progress).fit)
    yield from _choice(_plan(CHOICE, progress).fit)
    refusal = _plan(REFUSAL, progress).fit
    yield _score("refusal: accuracy at the last prompt token", refusal, PROMPT)
    yield _foil("refusal: accuracy of its first token", refusal, "first token")
    yield _verdict("refusal", REFUSAL, refusal)
    claims = [_noise(refusal.examples, seed).verdict.claim for seed in range(NOISE)]
    drawn = {case.source: unseen(case) for case in (STORY, LIST, CHOICE, REFUSAL)}
    new = all({p.text for p in interp.prompts(source)}.isdisjoint(p.text for p in own) for source, own in drawn.items())
    yield claim_row(NAME, "no prompt is in a set that the rules were shaped on", new)
    figure = f"labels dealt at random: runs called planned, of {NOISE}, without a margin"
    yield value_row(NAME, figure, claims.count(PLANNED), "<=", 0.05 * NOISE, NOISE)


def unseen(case: Case, seed: int = SEED) -> PromptSet:
    """Prompts that are in none of the sets which were looked at: for fitting, choosing and testing."""
    seen = interp.prompts(case.source)
    texts, groups = {p.text for p in seen}, {p.group for p in seen}
    task = case.source.partition(":")[2]
    chosen: list[Prompt] = []
    for split, n in (("train", case.n_fit), ("test", case.n_test)):
        rng = random.Random(f"{seed}/{case.source}/{split}")
        before = case.looked_at if split == "test" else 0
        own = _drawn(task, split, before + n, texts, rng)[before:] if task else _requests(split, n, groups)
        names = sorted({i.group for i in own})
        rng.shuffle(names)
        held = set(names[::_VAL_EVERY])
        chosen += [_prompt(i, "val" if split == "train" and i.group in held else split) for i in own]
    return PromptSet(tuple(chosen), f"{case.source}, drawn anew")


def _drawn(task: str, split: str, n: int, seen: set[str], rng: random.Random) -> list[Item]:
    found: dict[str, Item] = {}
    while len(found) < n:
        item = _DRAWS[task](rng, split)
        if item.prompt not in seen:
            found.setdefault(item.prompt, item)
    return list(found.values())


def _requests(split: str, n: int, seen: set[str]) -> list[Item]:
    """Equally many harmful and harmless ones, of combinations that are in no set."""
    new = [i for i in items("safety", split) if i.group not in seen]
    return [i for label in ("harmful", "harmless") for i in [j for j in new if j.label == label][: n // 2]]


def _prompt(item: Item, split: str) -> Prompt:
    label = item.label if item.label in ("harmful", "harmless") else None
    plain = Prompt(item.prompt, label, item.group, item.category, item.family, split)
    if "characters" not in item.meta:
        return plain
    return Task(**vars(plain), options=item.meta["characters"])


def _plan(case: Case, progress: bool) -> Plan:
    model = interp.load("organism:chat", thinking=True if case.thinking else None)
    return plan(
        model, unseen(case), case.attribute, max_new_tokens=case.max_new_tokens, segments=case.segments,
        progress=progress, **_QUICK,
    )  # fmt: skip


def _story(fit: PlanFit) -> Rows:
    over = fit.comparisons.over[PROMPT]["bag of words"]
    yield _score("story ending: accuracy at the last prompt token", fit, PROMPT)
    yield _foil("story ending: accuracy of its bag of words", fit, "bag of words")
    yield value_row(NAME, "story ending: above bag of words", over.value, ">=", 0.2, _n(fit), over.interval())
    yield value_row(NAME, "story ending: the same, lower end of the interval", over.interval()[0], ">=", 0.0, _n(fit))
    yield _score("story ending: accuracy right before it is written", fit, fit.positions[-1])
    share = fit.curve.share_at_prompt
    yield value_row(NAME, "story ending: share of what is readable in the end that is there at the prompt", share)
    yield _verdict("story ending", STORY, fit)


def _list(fit: PlanFit) -> Rows:
    yield _score("list length: Kendall's tau-b at the last prompt token", fit, PROMPT, "kendall", (">=", 0.8))
    yield _score("list length: Somers' D (no ceiling for tied lengths)", fit, PROMPT)
    yield _foil("list length: Somers' D of its bag of words", fit, "bag of words")
    yield _foil("list length: Somers' D of its first token", fit, "first token")
    yield _verdict("list length", LIST, fit)


def _choice(fit: PlanFit) -> Rows:
    yield _score("choice: accuracy at the last prompt token", fit, PROMPT)
    off = abs(fit.comparisons.probe[PROMPT].value - 1 / len(fit.classes))
    yield value_row(NAME, f"choice: the same, away from 1 in {len(fit.classes)}", off, "<=", 0.1, _n(fit))
    yield _score("choice: accuracy at the end of the thought", fit, fit.positions[-1], floor=(">=", 0.8))
    yield _verdict("choice", CHOICE, fit)


def _noise(examples: PlanExamples, seed: int) -> PlanFit:
    """Labels that are none of the prompts', over the states of the model and everything else as it is."""
    labels = np.random.default_rng([SEED, seed]).integers(0, 4, len(examples))
    chance = replace(
        examples, attribute="chance", labels=labels, parts=None, along=None, segments=(), written=None,
        written_lengths=None,
    )  # fmt: skip
    return fit_plan(chance, seeds=(seed,), kinds=("linear",), margin=0.0, draws=200)


def _n(fit: PlanFit) -> int:
    return len(fit.rounds[0].split[2])


def _score(
    figure: str, fit: PlanFit, position: str, metric: str | None = None, floor: tuple[str, float] = ("info", 0.0)
) -> dict[str, Any]:
    table = fit.best
    row = table[(table["position"] == position) & (table["metric"] == (metric or fit.metric))].iloc[0]
    return value_row(NAME, figure, float(row["value"]), *floor, _n(fit), (float(row["low"]), float(row["high"])))


def _foil(figure: str, fit: PlanFit, name: str) -> dict[str, Any]:
    own = fit.comparisons.baselines[name]
    return value_row(NAME, figure, own.value, n=_n(fit), interval=own.interval())


def _verdict(what: str, case: Case, fit: PlanFit) -> dict[str, Any]:
    return claim_row(NAME, f"{what}: verdict is {case.truth!r}", fit.verdict.claim == case.truth)
