"""What a guard reads of prompts, from a forward pass or from activations that are there, and what it says of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from interp.activations.columns import resolve_columns
from interp.activations.labelled import Labelled
from interp.errors import PromptError
from interp.model.model import Model
from interp.text.encoded import Encoded
from interp.text.prompts import Prompt
from probes.guard.match import check_provenance
from probes.guard.rules import Features
from probes.guard.scores import GuardScores

if TYPE_CHECKING:
    from probes.guard.guard import LatentGuard


def read_model(guard: LatentGuard, model: Model, encoded: Sequence[Encoded]) -> Features:
    """Features `[prompt, layer, position, width]` from forward passes that end after the guard's last layer."""
    where = [int(p) if p.lstrip("-").isdigit() else p for p in guard.positions]
    _, columns = resolve_columns(encoded, where)
    out = np.empty((len(encoded), len(guard.layers), len(guard.positions), guard.rule.width), dtype=np.float32)
    for step in model.steps(encoded, [((guard.site, guard.layers), columns)], stop=True):
        out[step.rows] = step.grid(guard.site).float().numpy()
    return out


def read_activations(guard: LatentGuard, acts: Labelled) -> Features:
    """The same from activations of the guard's own model."""
    if acts.ragged:
        raise PromptError(f"rows of {acts.positions[0]} are tokens; a guard reads single tokens, t_inst say")
    check_provenance(guard, acts.provenance)
    columns = [acts.column(position) for position in guard.positions]
    parts = [acts.sel(guard.site, layer).float().numpy()[:, columns] for layer in guard.layers]
    return np.stack(parts, 1)


def judged(guard: LatentGuard, x: Features, prompts: tuple[Prompt, ...]) -> GuardScores:
    """Scores, probabilities and decisions."""
    raw = guard.rule(x)
    probability = guard.calibration(raw[:, 0])
    low, high = guard.abstain or (1.0, 0.0)
    abstained = (probability > low) & (probability < high)
    each = {name: fitted(raw[:, i]) for i, (name, fitted) in enumerate(guard.categories.items(), 1)}
    flagged = (raw[:, 0] > guard.threshold) & ~abstained
    return GuardScores(prompts, raw[:, 0], probability, flagged, abstained, each, guard.threshold)
