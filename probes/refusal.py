"""The refusal direction from end to end: answers, candidates, selection, causal check.

Arditi et al. 2024 (arXiv 2406.11717), with two changes that their code leaves to the reader: refusal tokens are found
from the model's own answers, and ablation to the harmless mean stands beside ablation to zero.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from interp.direction import Direction
from interp.errors import PromptError
from interp.model.model import Model
from interp.model.refusal_metric import RefusalMetric
from interp.text.judge import judge
from interp.text.prompts import Prompt, PromptSet
from probes.answers import Behaviour, Judge, behaviour
from probes.candidate_scores import Candidates, candidates, score_candidates
from probes.causal import CausalCheck, causal_check
from probes.selection import Selection, select_direction

MIN_REFUSED = 8
MIN_SIDE = 4
CONTRASTS = {"harmful refused": ("harmful", "harmless"), "refused": ("refused", "answered")}


@dataclass(frozen=True)
class RefusalDirection:
    """What was found, or why nothing was.

    Attributes:
        behaviour: The plain model's judged answers to all prompts.
        metric: The logit-level refusal score, `None` where the model hardly refuses.
        candidates: All candidates, `None` likewise.
        selection: Selection with ablation to zero (the paper's).
        selection_mean: Selection with ablation to the harmless mean.
        direction: The chosen direction, `None` when nothing passes.
        rule: Which of the two selections chose it: `"zero"` or `"mean"`; `""` when nothing passes.
        causal: The causal check on held-out prompts.
        reason: What happened, in one sentence.
    """

    behaviour: Behaviour
    metric: RefusalMetric | None
    candidates: Candidates | None
    selection: Selection | None
    selection_mean: Selection | None
    direction: Direction | None
    rule: str
    causal: CausalCheck | None
    reason: str

    def to_frame(self) -> Any:
        """The candidate table (pandas); empty where there are no candidates."""
        import pandas as pd

        return self.selection.table if self.selection is not None else pd.DataFrame()

    def plot(self) -> Any:
        """Bypass, induce and KL over layer and position (plotly)."""
        if self.selection is None:
            raise PromptError(f"there is nothing to plot: {self.reason}")
        from probes.figures import candidate_maps

        shown = self.selection_mean if self.rule == "mean" and self.selection_mean is not None else self.selection
        return candidate_maps(shown, self.candidates.labels if self.candidates else None)


def refusal_direction(
    model: Model,
    prompts: PromptSet,
    *,
    contrast: str = "harmful refused",
    judge: Judge = judge,
    n_train: int = 128,
    n_val: int = 32,
    n_test: int = 100,
    min_induce: float = 0.0,
    max_kl: float = 0.1,
    max_depth: float = 0.8,
    n_random: int = 8,
    max_new_tokens: int = 64,
    seed: int = 0,
    answers: Behaviour | None = None,
    progress: bool = False,
) -> RefusalDirection:
    """Find the refusal direction of a model, and check it causally on held-out prompts.

    Args:
        model: The model.
        prompts: Labelled harmful / harmless and split into train, val and test.
        contrast: `"harmful refused"`: refused harmful minus answered harmless prompts (the paper's, after its
            filter). `"refused"`: refused minus answered prompts, whatever their label, for models whose refusals
            harm does not explain.
        judge: Any callable `(prompt, answer) -> Verdict`.
        n_train: Most prompts per side for the means.
        n_val: Most prompts per side for the selection.
        n_test: Most prompts per side for the causal check.
        min_induce: See `select_direction`.
        max_kl: See `select_direction`.
        max_depth: See `select_direction`.
        n_random: Random directions as control.
        max_new_tokens: Longest answer.
        seed: For drawing prompts and random directions.
        answers: Judged answers to exactly these prompts, when already there.
        progress: Show progress bars.

    Returns:
        The result; "nothing found" is one, with the reason, not an exception.

    Raises:
        PromptError: For an unknown contrast, or prompts without labels or splits.
    """
    judged = answers or behaviour(model, prompts, judge=judge, max_new_tokens=max_new_tokens, progress=progress)
    found = find_direction(
        model, judged, contrast=contrast, n_train=n_train, n_val=n_val, min_induce=min_induce, max_kl=max_kl,
        max_depth=max_depth, seed=seed, progress=progress,
    )  # fmt: skip
    if found.direction is None or found.candidates is None:
        return found
    on, off = held_out(judged, contrast, n_test, seed)
    causal = causal_check(
        model, found.candidates, found.direction, on, off, names=CONTRASTS[contrast], judge=judge, n_random=n_random,
        max_new_tokens=max_new_tokens, seed=seed, baseline=(judged.part(on), judged.part(off)), progress=progress,
    )  # fmt: skip
    return replace(found, causal=causal)


def find_direction(
    model: Model,
    judged: Behaviour,
    *,
    contrast: str = "harmful refused",
    n_train: int = 128,
    n_val: int = 32,
    min_induce: float = 0.0,
    max_kl: float = 0.1,
    max_depth: float = 0.8,
    seed: int = 0,
    progress: bool = False,
) -> RefusalDirection:
    """The first half of `refusal_direction`: candidates and selection from judged answers, no causal check."""
    if contrast not in CONTRASTS:
        raise PromptError(f"unknown contrast {contrast!r}; known: {', '.join(CONTRASTS)}")
    held_out(judged, contrast, 0, seed)  # raises where labels or splits are missing

    def nothing(reason: str) -> RefusalDirection:
        return RefusalDirection(judged, None, None, None, None, None, "", None, reason)

    sides = {split: sides_of(judged, split, contrast) for split in ("train", "val", "test")}
    sizes = {split: (len(on), len(off)) for split, (on, off) in sides.items()}
    short = [f"{split} {on} and {off}" for split, (on, off) in sizes.items() if min(on, off) < MIN_SIDE]
    if len(sides["train"][0]) < MIN_REFUSED or short:
        return nothing(
            f"too few prompts on one side to form a direction: the model refuses {int(judged.refused.sum())} of "
            f"{len(judged.prompts)} prompts" + (f" (on the two sides: {'; '.join(short)})" if short else "")
        )
    train, val = draw(sides["train"], n_train, seed), draw(sides["val"], n_val, seed)
    flags = [True] * len(train[0]) + [False] * len(train[1])
    both = PromptSet(tuple(train[0] + train[1]), judged.prompts.name)
    try:
        metric = RefusalMetric.find(model, both, flags)
    except PromptError as error:
        return nothing(str(error))
    found = candidates(model, both, flags, progress=progress)
    table = score_candidates(model, found, val[0], val[1], metric, progress=progress)
    limits: dict[str, Any] = {"min_induce": min_induce, "max_kl": max_kl, "max_depth": max_depth}
    zero = select_direction(table, model.n_layers, **limits)
    mean = select_direction(table, model.n_layers, bypass="bypass_mean", kl="kl_mean", **limits)
    rule, chosen, reason = _rule(zero, mean)
    direction = found.direction(int(chosen["layer"]), str(chosen["position"]), "refusal") if chosen else None
    return RefusalDirection(judged, metric, found, zero, mean, direction, rule, None, reason)


def _rule(zero: Selection, mean: Selection) -> tuple[str, dict[str, Any] | None, str]:
    """Ablation to zero where it flips the score, else to the mean where that does, else whichever passes.

    Where the score without any edit (`plain`) is not above 0, nothing can be said to flip it.
    """
    fails = "leaves the model refusing" if zero.chosen else "passes with no candidate"
    if zero.chosen and zero.chosen["bypass"] < 0 < zero.chosen["plain"]:
        return "zero", zero.chosen, zero.reason
    if mean.chosen and mean.chosen["bypass_mean"] < 0 < mean.chosen["plain"]:
        return "mean", mean.chosen, f"Ablating to zero {fails}; with the mean, {mean.reason}"
    if zero.chosen:
        return "zero", zero.chosen, zero.reason + ", though it leaves the model refusing"
    if mean.chosen:
        reason = f"Ablating to zero {fails}; with the mean, {mean.reason}, though it leaves the model refusing"
        return "mean", mean.chosen, reason
    return "", None, zero.reason


def sides_of(judged: Behaviour, split: str, contrast: str) -> tuple[list[Prompt], list[Prompt]]:
    """Prompts of a split on the two sides of a contrast, filtered by what the model did."""
    here, refused = judged.where(split=split), judged.refused
    on, off = here & refused, here & judged.complied
    if contrast == "harmful refused":
        on, off = on & judged.where(label="harmful"), off & judged.where(label="harmless")
    prompts = list(judged.prompts)
    return [prompts[i] for i in np.flatnonzero(on)], [prompts[i] for i in np.flatnonzero(off)]


def held_out(judged: Behaviour, contrast: str, n: int, seed: int) -> tuple[PromptSet, PromptSet]:
    """Test prompts for the causal check: harmful and harmless ones unfiltered, or the refused and the answered."""
    if contrast == "harmful refused":
        test = judged.prompts.test
        sides: tuple[list[Prompt], list[Prompt]] = list(test.harmful), list(test.harmless)
    else:
        _ = judged.prompts.test  # raises where there are no splits
        sides = sides_of(judged, "test", contrast)
    on, off = draw(sides, n, seed)
    names = CONTRASTS[contrast]
    return PromptSet(tuple(on), f"held-out {names[0]}"), PromptSet(tuple(off), f"held-out {names[1]}")


def draw(sides: tuple[list[Prompt], list[Prompt]], n: int, seed: int) -> tuple[list[Prompt], list[Prompt]]:
    """At most `n` prompts of each side, drawn by the seed."""
    rng = np.random.default_rng(seed)
    drawn = [[side[i] for i in sorted(rng.permutation(len(side))[:n])] for side in sides]
    return drawn[0], drawn[1]
