"""`LogisticProbe`: L2-regularised logistic regression, solved exactly, fast where features outnumber rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.special import expit

from interp.errors import ProbeError
from probes.estimators.arrays import Matrix, centred, check_finite, check_number, plain, plain_labels, scaled
from probes.estimators.base import LinearProbe, two_columns
from probes.threads import one_thread

_STEPS = 200
_CLOSE = 1e-6
"""Largest last step, in log odds: what is left after a step of Newton's is about its square."""
_UNSEEN = 1e-13
"""A gain this much smaller than the loss is lost in rounding, so it cannot be searched for: take the step and stop."""
_OPTIMAL = 1e-5
"""How much of its terms may be left of the gradient."""


class LogisticProbe(LinearProbe):
    """L2-regularised logistic regression on standardised activations.

    It has the optimum of `make_pipeline(StandardScaler(), LogisticRegression(C=C))`. Standardising keeps the few
    massive activations of a residual stream from taking all of the weight; it is folded back into `direction_`. The
    solver is Newton's method, for more features than rows on the Gram matrix (`fit_logistic`).

    Args:
        C: Inverse strength of the penalty, as in scikit-learn.

    Attributes:
        direction_: Log odds per unit of activation, `[d]`.
        intercept_: Log odds of a row of zeros.
    """

    def __init__(self, C: float = 1.0) -> None:
        self.C = C

    def predict_proba(self, X: ArrayLike) -> Matrix:
        """Probability of each class, `[n, 2]`."""
        return two_columns(expit(self.decision_function(X)))

    def _check_settings(self) -> None:
        check_number("C", self.C, 0)

    def _fit(self, X: Matrix, codes: NDArray[np.intp]) -> None:
        rows, mean = centred(X)
        Z, scale = scaled(rows)
        weights, bias = newton(Z, codes.astype(np.float64), float(self.C))
        self.direction_ = weights / scale
        self.intercept_ = float(bias - mean @ self.direction_)


def fit_logistic(X: ArrayLike, y: ArrayLike, C: float = 1.0) -> tuple[Matrix, float]:
    """Minimise `|w|^2 / 2 + C * sum(log(1 + exp(-s * (X @ w + b))))`, where s is 1 for true and -1 for false rows.

    The objective of scikit-learn's `LogisticRegression(C=C)`. Nothing is scaled here.

    Args:
        X: `[n, d]`, array or tensor.
        y: `[n]`, bool or 0 and 1; both must occur.
        C: Inverse strength of the penalty, above 0.

    Returns:
        w `[d]` and b: `X @ w + b` are log odds of true.

    Raises:
        ProbeError: For values that are not finite, shapes that do not fit, or a missing class.
    """
    rows, truth = np.asarray(plain(X), dtype=np.float64), np.asarray(plain_labels(y)).astype(np.float64)
    if rows.ndim != 2 or truth.shape != rows.shape[:1]:
        raise ProbeError(f"X [n, d] and y [n] are needed, not {rows.shape} and {truth.shape}")
    if set(np.unique(truth)) != {0.0, 1.0}:
        raise ProbeError("y needs true and false rows, and nothing else: give a mask, y == label")
    check_finite(rows)
    Z, mean = centred(rows)
    with np.errstate(over="ignore", invalid="ignore"):
        weights, bias = newton(Z, truth, check_number("C", C, 0))
    return weights, float(bias - mean @ weights)


def newton(Z: Matrix, targets: Matrix, C: float) -> tuple[Matrix, float]:
    """Logistic regression on centred rows by damped Newton steps: weights `[d]` and bias.

    Args:
        Z: `[n, d]`.
        targets: `[n]`, from 0 to 1.
        C: Inverse strength of the penalty.

    Raises:
        ProbeError: When float64 has too few digits for so small a penalty on values so large.
    """
    with one_thread(Z.size * min(Z.shape)):
        return _newton(Z, targets, C)


def _newton(Z: Matrix, targets: Matrix, C: float) -> tuple[Matrix, float]:
    space = _Rows(Z) if Z.shape[1] > len(Z) else _Features(Z)
    theta, bias = np.zeros(space.map.shape[1]), float(np.log(targets.mean() / (1 - targets.mean())))

    def loss(theta: Matrix, line: Matrix, bias: float) -> float:
        f = line + bias  # both halves are positive, so that no digits are lost between them
        losses = (1 - targets) @ np.logaddexp(0, f) + targets @ np.logaddexp(0, -f)
        return space.inner(theta, theta, line) / 2 + C * float(losses)

    for _ in range(_STEPS):
        line = space.map @ theta
        f = line + bias
        p, q = expit(f), expit(-f)  # both, since 1 - p loses the digits of a small q
        gradient = C * ((1 - targets) * p - targets * q)
        try:
            d_theta, d_bias = space.step(theta, gradient, np.maximum(C * p * q, np.finfo(np.float64).tiny))
        except LinAlgError as error:
            raise _too_few_digits(Z, C) from error
        d_line, now = space.map @ d_theta, loss(theta, line, bias)
        step = np.abs(d_line + d_bias).max()
        slope = float(gradient @ (d_line + d_bias)) + space.inner(theta, d_theta, d_line)
        if not np.isfinite(step) or step <= _CLOSE or -slope <= _UNSEEN * now:
            weights, bias = space.weights(theta + d_theta), bias + d_bias
            if not _is_optimal(Z, targets, C, weights, bias):
                raise _too_few_digits(Z, C)
            return weights, bias
        share = 1.0
        while loss(theta + share * d_theta, line + share * d_line, bias + share * d_bias) > now + share * slope / 1e4:
            share /= 2
        theta, bias = theta + share * d_theta, bias + share * d_bias
    raise _too_few_digits(Z, C)


def _is_optimal(Z: Matrix, targets: Matrix, C: float, weights: Matrix, bias: float) -> bool:
    """Whether the gradient is zero to several digits of the terms that it is the sum of."""
    f = Z @ weights + bias
    residual = C * ((1 - targets) * expit(f) - targets * expit(-f))
    gradient, terms = weights + Z.T @ residual, np.abs(weights) + np.abs(Z).T @ np.abs(residual)
    worst = max(np.abs(gradient).max() / max(terms.max(), 1e-300), abs(residual.sum()) / np.abs(residual).sum())
    return bool(worst < _OPTIMAL)  # NaN is not


def _too_few_digits(Z: Matrix, C: float) -> ProbeError:
    return ProbeError(
        f"logistic regression with C={C:g} on values up to {np.abs(Z).max():.3g} from the mean overflows the digits of "
        "float64: give a smaller C, or scale X"
    )


class _Features:
    """Weights as unknowns: systems `[d, d]`."""

    def __init__(self, Z: Matrix) -> None:
        self.map = Z

    def weights(self, theta: Matrix) -> Matrix:
        return theta

    def inner(self, a: Matrix, b: Matrix, line: Matrix) -> float:  # noqa: ARG002
        """Product of the weights of `a` and `b`, given `line = map @ b`."""
        return float(a @ b)

    def step(self, theta: Matrix, gradient: Matrix, W: Matrix) -> tuple[Matrix, float]:
        """Newton's step for weights and bias, from the loss' first and second derivatives by decision value."""
        half = self.map * np.sqrt(W)[:, None]
        system = half.T @ half
        system.flat[:: len(system) + 1] += 1.0
        across = self.map.T @ W
        right = np.stack([theta + self.map.T @ gradient, across], axis=1)
        u, v = cho_solve(cho_factor(system, check_finite=False), right, check_finite=False).T
        bias = float((across @ u - gradient.sum()) / (W.sum() - across @ v))
        return -u - bias * v, bias


class _Rows:
    """Multipliers of the rows as unknowns, `w = Z.T @ a`: systems `[n, n]` on the Gram matrix K.

    `(I + W K)^-1` is computed through `I + sqrt(W) K sqrt(W)`, whose eigenvalues are all 1 or more, so that rows that
    are alike or far on their side do no harm (Rasmussen and Williams 2006, section 3.4.3).
    """

    def __init__(self, Z: Matrix) -> None:
        self._Z, self.map = Z, Z @ Z.T

    def weights(self, theta: Matrix) -> Matrix:
        return self._Z.T @ theta

    def inner(self, a: Matrix, b: Matrix, line: Matrix) -> float:  # noqa: ARG002
        return float(a @ line)

    def step(self, theta: Matrix, gradient: Matrix, W: Matrix) -> tuple[Matrix, float]:
        s = np.sqrt(W)
        system = self.map * s
        system *= s[:, None]
        system.flat[:: len(system) + 1] += 1.0
        factor = cho_factor(system, overwrite_a=True, check_finite=False)
        both = np.stack([theta + gradient, W], axis=1)
        u, v = (both - s[:, None] * cho_solve(factor, s[:, None] * (self.map @ both), check_finite=False)).T
        bias = float((theta.sum() - u.sum()) / v.sum())
        return -u - bias * v, bias
