"""A linear planning probe as weights: to foretell with, to steer along."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interp.errors import ProbeError
from probes.planning.examples import PROMPT, PlanExamples, cell
from probes.planning.learning import LINEAR, Parts, Target, fit_kind
from probes.planning.linear import Floats
from probes.planning.rounds import Round


@dataclass(frozen=True, eq=False)
class PlanProbe:
    """A linear probe of an attribute, in the units of the activations.

    Attributes:
        weights: `[k, d]`; k is 1 for a regression, else the number of classes.
        intercept: `[k]`.
        classes: The classes; none for a regression.
        layer: The layer.
    """

    weights: Floats
    intercept: Floats
    classes: tuple[Any, ...]
    layer: int

    def values(self, x: NDArray[Any]) -> Floats:
        """Foretold numbers `[m]`, or logits `[m, k]`, of states `[m, d]`."""
        found = np.asarray(x, dtype=np.float64) @ self.weights.T + self.intercept
        return found if self.classes else found[:, 0]

    def predict(self, x: NDArray[Any]) -> NDArray[Any]:
        """Foretold labels of states `[m, d]`."""
        values = self.values(x)
        return np.asarray(self.classes)[values.argmax(1)] if self.classes else values

    def direction(self, towards: Any = None) -> Floats:
        """Weights `[d]`: towards a class, against the mean of the others; of a regression, towards more.

        Raises:
            ProbeError: When no class is named, or one that there is not.
        """
        if not self.classes:
            return self.weights[0]
        if towards not in self.classes:
            raise ProbeError(f"say towards which class: one of {list(self.classes)}, not {towards!r:.40}")
        i = self.classes.index(towards)
        return self.weights[i] - np.delete(self.weights, i, 0).mean(0)


def linear_probe(examples: PlanExamples, found: Round, layer: int | None = None) -> PlanProbe:
    """The linear probe of a layer at the last prompt token, fitted to the training rows of a round.

    Args:
        examples: The examples.
        found: The round.
        layer: By default the one that was chosen on validation rows.

    Raises:
        ProbeError: For a layer that was not fitted.
    """
    if layer is None:
        layer = found.chosen.get((PROMPT, LINEAR), examples.layers[-1])
    if layer not in examples.layers:
        raise ProbeError(f"layer {layer} was not fitted: {examples.layers} were")
    x = cell(examples.prompt[:, examples.layers.index(layer)], f"layer {layer}")
    target = Target.of(examples.labels, examples.classes)
    train, val, _ = (target.with_labels(target.y[rows]) for rows in found.split)
    probe = fit_kind(LINEAR, Parts.of(x, *found.split), train, val)
    assert probe.weights is not None and probe.intercept is not None
    return PlanProbe(probe.weights, probe.intercept, examples.classes, layer)
