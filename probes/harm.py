"""The harm direction of a model whose refusals harm does not explain: readable, but does it act?"""

from __future__ import annotations

from dataclasses import dataclass

from interp.activations.capture import capture
from interp.direction import Direction
from interp.errors import DirectionError
from interp.model.model import Model
from interp.stats import auroc, auroc_interval
from interp.text.prompts import PromptSet
from probes.candidate_scores import Candidates, candidates


@dataclass(frozen=True)
class HarmDirection:
    """Difference in means between harmful and harmless prompts, at the place that reads best.

    Attributes:
        candidates: All places.
        direction: The best of them on validation prompts.
        val: AUROC there on validation prompts.
    """

    candidates: Candidates
    direction: Direction
    val: float


def harm_direction(model: Model, prompts: PromptSet, *, progress: bool = False) -> HarmDirection:
    """Harmful minus harmless by label alone, at the post-instruction token and layer that is best on validation.

    Args:
        model: The model.
        prompts: Labelled prompts, split.
        progress: Show a progress bar.
    """
    train = prompts.train
    found = candidates(model, train, [p.label == "harmful" for p in train], progress=progress)
    acts = capture(model, prompts.val, "resid_pre", found.positions, progress=progress)
    truth = acts.labels == "harmful"
    places = [
        (layer, position) for layer in acts.layers for position in acts.positions if found.differs(layer, position)
    ]
    if not places:
        raise DirectionError("harmful and harmless prompts have the same mean everywhere, so there is no direction")
    scored = [
        (auroc((acts.sel("resid_pre", layer, position).float() @ found.at(layer, position)[0]).numpy(), truth), place)
        for place, (layer, position) in enumerate(places)
    ]
    best, place = max(scored, key=lambda item: (item[0], -item[1]))
    return HarmDirection(found, found.direction(*places[place], "harm"), best)


def reads_harm(model: Model, direction: Direction, prompts: PromptSet) -> tuple[float, float, float]:
    """AUROC, with its interval, of a direction's projection for harmful against harmless prompts, at its own place."""
    acts = capture(model, prompts, direction.site, direction.position, layers=[direction.layer])
    scores = (acts.sel(direction.site, direction.layer, direction.position).float() @ direction.unit).numpy()
    truth = acts.labels == "harmful"
    return (auroc(scores, truth), *auroc_interval(scores, truth, acts.groups))
