"""Standardised logistic and ridge regression, solved for many strengths of the penalty and many targets at once.

What scikit-learn's `StandardScaler` and `LogisticRegression` (or `RidgeClassifier`) compute one fit at a time. The
data are standardised and multiplied with themselves once: prompts are mostly fewer than features, and then everything
happens among inner products of prompts, `[n, n]`, whatever the width of the model (or of features, where those are
fewer). Newton's method then takes a handful of Cholesky factorisations for each strength, each strength starting where
the stronger penalty before it ended (iteratively reweighted least squares; Rasmussen and Williams 2006, algorithm 3.1,
for the form that stays stable when weights vanish). Where rows and features both are many, scikit-learn's own solvers
go along the strengths instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from probes.threads import one_thread

Floats = NDArray[np.float64]
Kind = Literal["logistic", "ridge"]
_CLOSE = 0.03
_STEPS = 100
_LEAST_WEIGHT = 1e-12
MOST_ROWS, MOST_FEATURES = 800, 400
"""Above as many rows (where there are at least as many features) or features (where there are more rows),
factorisations cost more than the gradient steps that they save."""


class Design:
    """Training activations, standardised and ready to be fitted to any target.

    Args:
        x: `[n, d]`.
    """

    def __init__(self, x: NDArray[Any]) -> None:
        z = np.array(x, dtype=np.float64)
        self.mean = z.mean(0)
        z -= self.mean
        self.scale = np.sqrt(np.einsum("nd,nd->d", z, z) / len(z))
        # A feature that does not vary but for rounding is left as it is: scikit-learn's rule.
        eps = np.finfo(np.float64).eps
        self.scale[self.scale**2 <= len(z) * eps * self.scale**2 + (len(z) * self.mean * eps) ** 2] = 1.0
        z /= self.scale
        self.z = z
        wide = len(z) <= z.shape[1]
        self.large = len(z) > MOST_ROWS if wide else z.shape[1] > MOST_FEATURES
        self.dual = wide and not self.large
        with one_thread(len(z) * z.size):
            self.kernel = z @ z.T if self.dual else None
        self._work = np.empty_like(z if self.kernel is None else self.kernel)

    def scores(
        self, targets: NDArray[np.bool_], strengths: Sequence[float], x: NDArray[Any], kind: Kind = "logistic"
    ) -> Floats:
        """Fit every target at every strength, and score other rows.

        Args:
            targets: `[target, n]` flags.
            strengths: `C` of the logistic regression; for ridge the inverse of `alpha`.
            x: `[m, d]` to score.
            kind: Which loss.

        Returns:
            Decision values `[target, strength, m]`.
        """
        new = (np.asarray(x, dtype=np.float64) - self.mean) / self.scale
        seen = new @ self.z.T if self.dual else new
        order = np.argsort(strengths, kind="stable")
        out = np.empty((len(targets), len(strengths), len(new)))
        with one_thread(self._work.size * min(self.z.shape)):
            for i, target in enumerate(targets):
                fitted = self._path(target, [strengths[j] for j in order], kind)
                for j, (weights, intercept) in zip(order, fitted, strict=True):
                    out[i, j] = seen @ weights + intercept
        return out

    def _path(self, target: NDArray[np.bool_], strengths: Sequence[float], kind: Kind) -> list[tuple[Floats, float]]:
        """Coefficients (of rows where `dual`, else of features) and intercept, from weak fits to strong ones."""
        if self.large:
            return self._by_gradients(target, strengths, kind)
        if kind == "ridge":
            return [self._ridge(np.where(target, 1.0, -1.0), c) for c in strengths]
        y, found = target.astype(np.float64), list[tuple[Floats, float]]()
        a, b = np.zeros(self.z.shape[0 if self.dual else 1]), 0.0
        before, f = np.zeros(len(y)), np.zeros(len(y))
        for i, c in enumerate(strengths):
            # The fit moves about evenly with the logarithm of the strength: start where it is heading.
            ahead = np.log(c / strengths[i - 1]) / np.log(strengths[i - 1] / strengths[i - 2]) if i > 1 else 0.0
            guess, before = f + ahead * (f - before), f
            a, b, f = self._newton(y, c, a, b, guess)
            found.append((a, b))
        return found

    def _by_gradients(
        self, target: NDArray[np.bool_], strengths: Sequence[float], kind: Kind
    ) -> list[tuple[Floats, float]]:
        """scikit-learn's own solvers on the standardised rows, each strength starting where the one before ended."""
        from sklearn.linear_model import LogisticRegression, RidgeClassifier

        walked: Any = LogisticRegression(max_iter=1000, warm_start=True)
        found: list[tuple[Floats, float]] = []
        for c in strengths:
            model = walked.set_params(C=c) if kind == "logistic" else RidgeClassifier(alpha=1 / c)
            model.fit(self.z, target)
            found.append((np.ravel(model.coef_).copy(), float(np.ravel(model.intercept_)[0])))
        return found

    def _newton(self, y: Floats, c: float, a: Floats, b: float, f: Floats) -> tuple[Floats, float, Floats]:
        """From coefficients to better ones until they stay; the first step is taken as seen from decision values f."""
        here = self._fitted(a, b)
        loss = self._loss(y, c, here, a, b)
        for _ in range(_STEPS):
            p = 1 / (1 + np.exp(-np.clip(f, -500, 500)))
            w = np.maximum(p * (1 - p), _LEAST_WEIGHT)
            a_new, b_new = self._weighted(c * w, f + (y - p) / w)
            f_new = self._fitted(a_new, b_new)
            step, da, db, df = 1.0, a_new - a, b_new - b, f_new - here
            new = self._loss(y, c, f_new, a_new, b_new)
            while not new <= loss + 1e-10 * abs(loss) and step > 1e-6:  # too far: the step is halved
                step /= 2
                new = self._loss(y, c, here + step * df, a + step * da, b + step * db)
            moved = float(np.abs(f_new - f).max())
            a, b, f, loss = a + step * da, b + step * db, here + step * df, new
            here = f
            if step <= 1e-6:
                break  # as low as rounding lets it
            if step == 1.0 and moved <= _CLOSE * max(1.0, float(np.abs(f).max())):
                break  # convergence is quadratic: what is left is about the square of this
        return a, b, f

    def _fitted(self, a: Floats, b: float) -> Floats:
        return (self.kernel if self.kernel is not None else self.z) @ a + b

    def _loss(self, y: Floats, c: float, f: Floats, a: Floats, b: float) -> float:
        penalty = a @ (f - b) if self.dual else a @ a
        return float(c * np.logaddexp(0, np.where(y > 0.5, -f, f)).sum() + penalty / 2)

    def _weighted(self, v: Floats, goal: Floats) -> tuple[Floats, float]:
        """Least squares towards `goal` with weights `v`, penalty 1 on the coefficients and none on the intercept."""
        s = np.sqrt(v)
        if self.kernel is not None:
            b = np.multiply(self.kernel, s, out=self._work)
            b *= s[:, None]
            b.flat[:: len(b) + 1] += 1.0
            solved = _solve(b, np.stack([s * goal, s], 1)) * s[:, None]
            intercept = float(solved[:, 0].sum() / solved[:, 1].sum())
            return solved[:, 0] - intercept * solved[:, 1], intercept
        scaled = np.multiply(self.z, s[:, None], out=self._work)
        h = scaled.T @ scaled
        h.flat[:: len(h) + 1] += 1.0
        cross, total = scaled.T @ s, float(v.sum())
        solved = _solve(h, np.stack([scaled.T @ (s * goal), cross], 1))
        intercept = float((v @ goal - cross @ solved[:, 0]) / (total - cross @ solved[:, 1]))
        return solved[:, 0] - intercept * solved[:, 1], intercept

    def _ridge(self, y: Floats, c: float) -> tuple[Floats, float]:
        return self._weighted(np.full(len(y), c), y)


def _solve(matrix: Floats, right: Floats) -> Floats:
    """Solve a symmetric positive definite system, overwriting the matrix."""
    from scipy.linalg import cho_factor, cho_solve

    # The transpose is in the order that LAPACK wants, so that nothing is copied.
    factor = cho_factor(matrix.T, lower=True, overwrite_a=True, check_finite=False)
    return np.asarray(cho_solve(factor, right, check_finite=False))
