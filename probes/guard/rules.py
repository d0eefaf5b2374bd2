"""The guard's rules: nearest centroid by cosine (the paper's), and a logistic regression. Both are weights on cells.

A cell is a layer and a position; features are `[prompt, layer, position, width]`. A rule holds one row of weights for
harm, and one more per category that it tells from the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interp.errors import DirectionError, NonFiniteError, PromptError
from probes.threads import one_thread

Features = NDArray[np.float32]
Array = NDArray[Any]
KINDS = ("centroid", "logistic")
STRENGTHS = (0.01, 0.1)
"""Inverse L2 strengths that are tried; features are standardised before."""


@dataclass(frozen=True, eq=False)
class Rule:
    """Weights on cells.

    Attributes:
        kind: `"centroid"` or `"logistic"`.
        weight: fp32 `[output, layer, position, width]`.
        bias: fp64 `[output]`; zero for centroids.
    """

    kind: str
    weight: NDArray[np.float32]
    bias: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise PromptError(f"there is no rule {self.kind!r}; known: {', '.join(KINDS)}")
        weight = np.array(self.weight, dtype=np.float32)  # a copy: nobody else's changes reach it
        bias = np.array(self.bias, dtype=np.float64)
        if weight.ndim != 4 or not weight.size or bias.shape != weight.shape[:1]:
            raise DirectionError(f"a rule's weights {weight.shape} and biases {bias.shape} do not fit together")
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise DirectionError("the rule's weights hold NaN or infinite values")
        object.__setattr__(self, "weight", weight)
        object.__setattr__(self, "bias", bias)

    def __repr__(self) -> str:
        return f"Rule({self.kind!r}, weights {list(self.weight.shape)})"

    @property
    def width(self) -> int:
        """Features per cell."""
        return int(self.weight.shape[-1])

    def __call__(self, x: Features) -> Array:
        """Scores `[prompt, output]` in fp64.

        Centroid: mean over cells of cos(h, centre of harmful) - cos(h, centre of harmless). Logistic: log-odds.

        Raises:
            DirectionError: When the features have another shape.
            NonFiniteError: When a feature is NaN or infinite.
        """
        if x.shape[1:] != self.weight.shape[1:]:
            raise DirectionError(f"features of shape {x.shape[1:]} came to a rule for {self.weight.shape[1:]}")
        if not np.isfinite(x).all():
            row = int(np.flatnonzero(~np.isfinite(x).reshape(len(x), -1).all(1))[0])
            raise NonFiniteError(f"the activations of prompt {row} hold NaN or infinite values")
        values = x.astype(np.float64)
        if self.kind == "centroid":
            length = np.linalg.norm(values, axis=-1, keepdims=True)
            values = values / np.where(length > 0, length, 1.0) / (x.shape[1] * x.shape[2])
        flat = values.reshape(len(x), -1)
        return flat @ self.weight.reshape(len(self.weight), -1).T.astype(np.float64) + self.bias


def fit_rule(kind: str, x: Features, targets: NDArray[np.bool_], strength: float = 0.1) -> Rule:
    """Fit a rule, one output per row of targets.

    Centroid (arXiv 2507.11878, section 5 and appendix): per cell the difference of the two centres, each at length 1,
    so that its product with h at length 1 is the paper's s = cos(h, harmful) - cos(h, harmless). Logistic: an L2
    regression over all cells, standardised, the scaling folded back into the weights.

    Args:
        kind: `"centroid"` or `"logistic"`.
        x: `[prompt, layer, position, width]`.
        targets: `[output, prompt]`.
        strength: scikit-learn's C, for the logistic rule.
    """
    if kind == "centroid":
        weight = np.stack([_centres(x, y) for y in targets]).astype(np.float32)
        return Rule(kind, weight, np.zeros(len(targets)))
    if kind != "logistic":
        raise PromptError(f"there is no rule {kind!r}; known: {', '.join(KINDS)}")
    flat = x.reshape(len(x), -1).astype(np.float64)
    mean, scale = flat.mean(0), flat.std(0)
    scale = np.where(scale > 1e-12, scale, 1.0)
    z = (flat - mean) / scale
    found = [_logistic(z, y, strength) for y in targets]
    weight = np.stack([w / scale for w, _ in found]).astype(np.float32)
    bias = np.array([b - float(w / scale @ mean) for w, b in found])
    return Rule(kind, weight.reshape(len(targets), *x.shape[1:]), bias)


def _centres(x: Features, y: NDArray[np.bool_]) -> Array:
    on, off = (x[mask].astype(np.float64).mean(0) for mask in (y, ~y))
    return _unit(on) - _unit(off)


def _unit(x: Array) -> Array:
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    return x / np.where(length > 0, length, 1.0)


def _logistic(z: Array, y: NDArray[np.bool_], strength: float) -> tuple[Array, float]:
    from sklearn.linear_model import LogisticRegression

    with one_thread(z.size):
        fitted = LogisticRegression(C=strength, max_iter=1000).fit(z, y)
    return fitted.coef_[0], float(fitted.intercept_[0])
