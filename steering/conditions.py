"""Conditions on a prompt: what a guard, a probe or a projection says of it. Join them with `&`, `|` and `~`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from interp.direction import Direction
from interp.edits.conditioned import Deciding, for_prompts, when
from interp.edits.conditions import Condition, Reading, Verdict
from interp.edits.decisions import DecisionLog, Decisions, decide
from interp.errors import DirectionError, ProbeError, PromptError
from interp.model.generate import Generations
from interp.model.model import Model, Prompts
from interp.model.ops import Edits

if TYPE_CHECKING:
    from probes.guard.guard import LatentGuard

Measure = Literal["projection", "cosine"]
Pass = Literal["the same", "one before"]


def if_guard(guard: LatentGuard, model: Model | None = None, *, allow_other_model: bool = False) -> Condition:
    """Holds for prompts that a guard flags, as `guard.score` does.

    Args:
        guard: A fitted guard. It reads where it was fitted; the edits must act after that, or a pass before decides.
        model: The model to be steered, checked against the guard's.
        allow_other_model: See `LatentGuard.with_model`.

    Raises:
        ModelError: When the model is not the guard's.
    """
    from probes.guard.read import judged

    if model is not None:
        guard.with_model(model, allow_other_model=allow_other_model)

    def judge(x: Tensor) -> Verdict:
        found = judged(guard, x.cpu().numpy(), ())
        return torch.from_numpy(found.score), torch.from_numpy(found.flagged)

    positions = tuple(int(p) if p.lstrip("-").isdigit() else p for p in guard.positions)
    return Reading("guard", guard.site, guard.layers, positions, judge)


def if_stream_guard(guard: LatentGuard) -> Condition:
    """Holds for tokens whose score by the guard's rule for generated tokens is above its threshold.

    It is meant for `decide="token"`: at the prompt's own tokens the rule, fitted on answers, was not calibrated.

    Raises:
        PromptError: When the guard has no such rule.
    """
    rule = guard.stream
    if rule is None:
        raise PromptError("this guard was fitted for prompts only: guard.fit_stream(prompts) adds a rule for answers")
    threshold = rule.operating_point.threshold

    def judge(x: Tensor) -> Verdict:
        score = torch.from_numpy(rule.rule(x.cpu().numpy())[:, 0])
        return score, score > threshold

    return Reading("stream guard", rule.site, rule.layers, ("t_post_inst",), judge)


def if_probe(
    probe: Any,
    towards: Any,
    *,
    above: float = 0.0,
    site: str | None = None,
    layer: int | None = None,
    position: str | int | None = None,
) -> Condition:
    """Holds where a probe's decision towards a class is above a threshold.

    Args:
        probe: A fitted probe of two classes.
        towards: The class.
        above: Threshold of the probe's own decision; 0 is where it changes its mind.
        site: Where it reads; a loaded probe knows its own.
        layer: 0-based.
        position: The token.

    Raises:
        ProbeError: When it is not known where the probe reads, or it lacks the class.
    """
    place: Any = getattr(probe, "place_", None)
    site = getattr(place, "site", None) if site is None else site
    layer = getattr(place, "layer", None) if layer is None else layer
    position = getattr(place, "position", None) if position is None else position
    if site is None or layer is None or position is None:
        raise ProbeError("say where the probe reads: give site, layer and position")
    if towards not in (known := probe.classes_.tolist()):
        raise ProbeError(f"{towards!r} is no class of this probe; its classes are {known}")

    def judge(x: Tensor) -> Verdict:
        score = torch.as_tensor(probe.decision_towards(x[:, 0, 0].cpu().numpy(), towards))
        return score, score > above

    return Reading(f"{type(probe).__name__} towards {towards}", site, (layer,), (position,), judge)


def if_projection(
    direction: Direction,
    *,
    above: float | None = None,
    below: float | None = None,
    measure: Measure = "projection",
    site: str | None = None,
    layer: int | None = None,
    position: str | int | None = None,
) -> Condition:
    """Holds where the coordinate along a direction, or the cosine with it, is above or below a value.

    Args:
        direction: What to project on; read at its own place unless said otherwise.
        above: Holds above this.
        below: Holds below this.
        measure: `"projection"`, in units of the stream, or `"cosine"`.
        site: In place of the direction's.
        layer: In place of the direction's.
        position: In place of the direction's.

    Raises:
        DirectionError: Unless one of `above` and `below` is given.
    """
    bound = below if above is None else above
    if bound is None or (above is not None and below is not None):
        raise DirectionError("a projection needs a value to be above or to be below: give one of the two")
    if measure not in get_args(Measure):
        raise DirectionError(f"there is no measure {measure!r}; known: {', '.join(get_args(Measure))}")

    def judge(x: Tensor) -> Verdict:
        rows = x[:, 0, 0]
        score = rows @ direction.unit.to(rows)
        if measure == "cosine":
            score = score / rows.norm(dim=-1).clamp(min=1e-30)
        return score, score < bound if above is None else score > bound

    name = f"{measure} on {direction.name} {'below' if above is None else 'above'} {bound:g}"
    at = (direction.layer if layer is None else layer,)
    where = direction.position if position is None else position
    return Reading(name, site or direction.site, at, (where,), judge)


@dataclass(frozen=True)
class Steered:
    """Answers under a conditional edit, and what was decided.

    Attributes:
        generations: The answers.
        decisions: For each prompt, whether the edit acted and why; `None` where every token was decided for itself.
        log: Everything that was decided.
        decided: `"the same"` pass as it acted in, or `"one before"`.
    """

    generations: Generations
    decisions: Decisions | None
    log: DecisionLog
    decided: Pass

    def to_frame(self) -> Any:
        """One row per prompt (pandas): the answer, whether the edit acted, and the readings."""
        table = self.generations.to_frame()
        if self.decisions is None:
            return table
        told = self.decisions.to_frame()
        return table.join(told[[c for c in told.columns if c not in table.columns]])


def steer_when(
    model: Model,
    prompts: Prompts,
    edits: Edits,
    condition: Condition,
    *,
    decide_by: Deciding = "prompt",
    **options: Any,
) -> Steered:
    """Answer prompts, letting edits act on those rows only for which a condition holds, and tell which and why.

    Condition and edits share one forward pass where all that is read comes before all that is written. Where it does
    not, the prompts are read in a pass before, without the edits; `decided` says which it was.

    Args:
        model: The model.
        prompts: Prompts.
        edits: One or several edits, or a steering vector.
        condition: What to ask of each prompt.
        decide_by: `"prompt"` once, or `"token"` anew at every token; see `interp.edits.when`.
        **options: As for `model.generate`.

    Raises:
        EditError: As `interp.edits.when`; when every token is to be decided for itself and the edits act too early.
    """
    encoded, log = model.encode(prompts), DecisionLog()
    gated = when(condition, edits, decide=decide_by, log=log)
    if decide_by == "prompt" and not gated.in_order(model.arch):
        found = decide(model, encoded, condition)
        answers = model.generate(encoded, edits=for_prompts(edits, found.acts), **options)
        for row in range(len(found)):
            own = {n: (float(found.scores[row, i]), bool(found.holds[row, i])) for i, n in enumerate(found.readings)}
            log.by_prompt[row] = (bool(found.acts[row]), own)
        return Steered(answers, found, log, "one before")
    answers = model.generate(encoded, edits=gated, **options)
    if decide_by == "token":
        return Steered(answers, None, log, "the same")
    return Steered(answers, replace(log.decisions, prompts=tuple(e.prompt for e in encoded)), log, "the same")
