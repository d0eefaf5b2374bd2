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
PENALTIES = (10.0, 1.0, 0.1, 0.01, 0.001)
"""Penalty on the squared weights, as a share of the mean eigenvalue of the Gram matrix; strong ones first."""
_FLOOR = 1e-10
_STOP = {"maxiter": 300, "maxcor": 20, "gtol": 1e-5, "ftol": 1e-10}
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
    truth = np.eye(k)[codes]
    prior = truth.mean(0)
    w, b = np.zeros((basis.rows.shape[1], k)), np.log(prior)
    bend = float((prior * (1 - prior)).mean())
    found: list[tuple[Floats, Floats]] = []
    for share in penalties:
        w, b = _softmax(basis, truth, codes, share * basis.unit, bend, w, b)
        found.append((w, b))
    return found


def _softmax(
    basis: Basis, truth: Floats, codes: NDArray[np.intp], penalty: float, bend: float, w: Floats, b: Floats
) -> tuple[Floats, Floats]:
    """One penalty, from weights that are near; `bend` is about how much the loss curves along a decision value."""
    from scipy.optimize import minimize

    n, size, shape = len(truth), w.size, w.shape
    steep, lift = np.sqrt(bend * basis.squares + penalty)[:, None], np.sqrt(bend * n)
    rows, shrink, own = basis.rows / steep.T, penalty / steep**2, (np.arange(n), codes)

    def loss(v: Floats) -> tuple[float, Floats]:
        w = v[:size].reshape(shape)
        p = rows @ w
        p += v[size:] / lift
        p -= p.max(1, keepdims=True)
        value = -float(p[own].sum())
        np.exp(p, out=p)
        total = p.sum(1, keepdims=True)
        value += float(np.log(total).sum())
        p /= total
        p -= truth
        shrunk = shrink * w
        value += 0.5 * float((shrunk * w).sum())
        return value / n, np.concatenate([(rows.T @ p + shrunk).ravel(), p.sum(0) / lift]) / n

    start = np.concatenate([(w * steep).ravel(), b * lift])
    result: Any = minimize(loss, start, jac=True, method="L-BFGS-B", options=_STOP)
    return result.x[:size].reshape(shape) / steep, result.x[size:] / lift
