"""Ridge and multinomial logistic regression for many penalties from one decomposition.

A cell of activations is decomposed once, `Z = U diag(s) V'`, through the smaller of its two Gram matrices: what a
penalty on the size of the weights costs does not change when features are turned, so all that follows happens among
the `r <= min(n, d)` coordinates `Z V`, whatever the width of the model. Ridge then is a division for each penalty.
Logistic regression takes a few steps of L-BFGS in coordinates in which its curvature is about 1 in every direction
(Boehning 1992 bounds it by the Gram matrix, which is diagonal here), each penalty starting where the one before ended.
Both have the optimum of scikit-learn's `Ridge` and `LogisticRegression` on the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Scaling = Literal["each", "whole"]
PENALTIES = (10.0, 1.0, 0.1, 0.01, 0.001, 0.0001)
"""Penalty on the squared weights, as a share of the mean eigenvalue of the Gram matrix; strong ones first."""
_FLOOR = 1e-10
_STEPS = 300
MOST_AXES = 1000
"""Directions that are kept, those of largest variance first: more cost minutes and hardly carry a label."""


class Basis:
    """Training rows, standardised and decomposed.

    Args:
        x: `[n, d]`.
        scaling: `"each"` gives every feature unit variance, so that a few massive activations do not take all of the
            weight. `"whole"` divides all by one number: for features whose sizes mean something, as of probabilities.
    """

    def __init__(self, x: NDArray[Any], scaling: Scaling = "each") -> None:
        z = np.array(x, dtype=np.float64)
        self.mean = z.mean(0)
        z -= self.mean
        spread = np.sqrt(np.einsum("nd,nd->d", z, z) / len(z))
        if scaling == "whole":
            spread = np.full_like(spread, np.sqrt((spread**2).mean()))
        self.scale = np.where(spread > 1e-12 * max(float(spread.max(initial=0.0)), 1e-300), spread, 1.0)
        z /= self.scale
        wide = z.shape[1] > len(z)
        gram = z @ z.T if wide else z.T @ z
        if len(gram) > MOST_AXES:
            from scipy.linalg import eigh

            values, vectors = eigh(gram, subset_by_index=[len(gram) - MOST_AXES, len(gram) - 1], overwrite_a=True)
        else:
            values, vectors = np.linalg.eigh(gram)
        keep = values > _FLOOR * max(float(values[-1]), 1e-300) if len(values) else np.zeros(0, bool)
        self.squares: Floats = values[keep][::-1].copy()
        turned = vectors[:, keep][:, ::-1]
        self.axes: Floats = (z.T @ turned) / np.sqrt(self.squares) if wide else np.ascontiguousarray(turned)
        self.rows: Floats = z @ self.axes
        self.unit = float(self.squares.mean()) if len(self.squares) else 1.0

    def turn(self, x: NDArray[Any]) -> Floats:
        """Other rows in the same coordinates, `[m, r]`."""
        return ((np.asarray(x, dtype=np.float64) - self.mean) / self.scale) @ self.axes

    def weights(self, found: Floats, intercept: Floats) -> tuple[Floats, Floats]:
        """Weights `[k, d]` and intercepts `[k]` in the units of the features."""
        out = (self.axes @ found / self.scale[:, None]).T
        return out, intercept - out @ self.mean


def ridge_path(basis: Basis, y: Floats, penalties: Sequence[float] = PENALTIES) -> list[tuple[Floats, Floats]]:
    """Weights `[r, 1]` and intercept `[1]` in the basis, for each penalty."""
    mean = y.mean()
    product = basis.rows.T @ (y - mean)
    return [((product / (basis.squares + p * basis.unit))[:, None], np.array([mean])) for p in penalties]


def softmax_path(
    basis: Basis, codes: NDArray[np.intp], k: int, penalties: Sequence[float] = PENALTIES
) -> list[tuple[Floats, Floats]]:
    """Weights `[r, k]` and intercepts `[k]` in the basis, for each penalty.

    Minimises cross-entropy summed over rows, plus half the penalty times the sum of squares of all weights; the
    intercepts are free.

    Args:
        basis: The rows.
        codes: `[n]`, classes from 0 to k - 1; all of them occur.
        k: How many classes.
        penalties: Strong ones first.
    """
    from scipy.optimize import minimize

    n, r = basis.rows.shape
    truth = np.eye(k)[codes]
    prior = truth.mean(0)
    bend = float((prior * (1 - prior)).mean())
    start_w, start_b = np.zeros((r, k)), np.log(prior)
    found: list[tuple[Floats, Floats]] = []
    for share in penalties:
        penalty = share * basis.unit
        steep = np.sqrt(bend * basis.squares + penalty)[:, None]
        lift = np.sqrt(bend * n)
        rows = basis.rows / steep.T

        def loss(v: Floats, rows: Floats = rows, steep: Floats = steep, penalty: float = penalty) -> tuple[float, Floats]:
            w, b = v[: r * k].reshape(r, k), v[r * k :] / lift
            logits = rows @ w
            logits += b
            logits -= logits.max(1, keepdims=True)
            own = float(logits[truth_at].sum())
            np.exp(logits, out=logits)
            total = logits.sum(1, keepdims=True)
            value = float(np.log(total).sum()) - own
            logits /= total
            logits -= truth
            shrunk = (penalty / steep**2) * w
            value += 0.5 * float((shrunk * w).sum())
            gradient = np.concatenate([(rows.T @ logits + shrunk).ravel(), logits.sum(0) / lift])
            return value / n, gradient / n

        truth_at = (np.arange(n), codes)
        start = np.concatenate([(start_w * steep).ravel(), start_b * lift])
        result: Any = minimize(
            loss, start, jac=True, method="L-BFGS-B", options={"maxiter": _STEPS, "gtol": 1e-6, "ftol": 1e-10}
        )
        start_w, start_b = result.x[: r * k].reshape(r, k) / steep, result.x[r * k :] / lift
        found.append((start_w, start_b))
    return found
