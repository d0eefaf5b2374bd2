"""Fit one cell: a probe on training rows, its setting chosen on validation rows, predictions for the rest."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interp.errors import ProbeError
from probes.planning.linear import PENALTIES, Basis, Floats, Scaling, ridge_path, softmax_path

LINEAR, MLP = "linear", "mlp"
KINDS = (LINEAR, MLP)
WIDTHS = (32, 128)
ALPHAS = (10.0, 1.0)
"""L2 penalties of the network, in scikit-learn's units."""
_STEPS = 150


@dataclass(frozen=True, eq=False)
class Target:
    """Labels as a probe is fitted to them.

    Attributes:
        y: `[n]`: numbers, or class numbers.
        classes: The classes; none for a regression.
    """

    y: Floats
    classes: tuple[Any, ...]

    @classmethod
    def of(cls, labels: NDArray[Any], classes: tuple[Any, ...]) -> Target:
        """From labels as they are."""
        if not classes:
            return cls(np.asarray(labels, dtype=np.float64), ())
        code = {c: i for i, c in enumerate(classes)}
        return cls(np.array([code[v] for v in np.asarray(labels).tolist()], dtype=np.float64), classes)

    def with_labels(self, y: Floats) -> Target:
        """The same classes, other labels."""
        return Target(y, self.classes)


@dataclass(frozen=True, eq=False)
class Fitted:
    """A probe whose setting was chosen on validation rows.

    Attributes:
        kind: `"linear"` or `"mlp"`.
        setting: Penalty, or width and penalty.
        loss: On validation rows: cross-entropy, or mean squared error.
        val: Predictions of validation rows.
        test: Predictions of test rows.
        weights: Linear probes: `[k, d]` in the units of the features.
        intercept: Linear probes: `[k]`.
    """

    kind: str
    setting: tuple[float, ...]
    loss: float
    val: Floats
    test: Floats
    weights: Floats | None = None
    intercept: Floats | None = None


@dataclass(frozen=True, eq=False)
class Parts:
    """Features of one cell, ready: the training rows decomposed, the others turned alike."""

    basis: Basis
    val: Floats
    test: Floats

    @classmethod
    def of(
        cls, x: NDArray[Any], train: NDArray[Any], val: NDArray[Any], test: NDArray[Any], scaling: Scaling = "each"
    ) -> Parts:  # fmt: skip
        """From all rows `[n, d]` and the numbers of those in each part."""
        basis = Basis(x[train], scaling)
        return cls(basis, basis.turn(x[val]), basis.turn(x[test]))


def fit_kind(
    kind: str,
    parts: Parts,
    train: Target,
    val: Target,
    *,
    widths: Sequence[int] = WIDTHS,
    seed: int = 0,
    setting: tuple[float, ...] | None = None,
) -> Fitted:
    """Fit one kind of probe; its setting is the one with the least loss on validation rows.

    Args:
        kind: `"linear"` (ridge, multinomial logistic regression) or `"mlp"` (one hidden layer of ReLU units).
        parts: The features.
        train: Labels of training rows.
        val: Labels of validation rows.
        widths: Widths of the network.
        seed: Of the network's first weights.
        setting: Fit this one alone, chosen before.

    Raises:
        ProbeError: For a kind that is none.
    """
    if kind == LINEAR:
        return _linear(parts, train, val, PENALTIES if setting is None else (setting[0],))
    if kind == MLP:
        settings = [(float(w), a) for w in widths for a in ALPHAS] if setting is None else [setting]
        return _network(parts, train, val, settings, seed)
    raise ProbeError(f"probe {kind!r} is none: choose of {', '.join(KINDS)}")


def _linear(parts: Parts, train: Target, val: Target, penalties: Sequence[float]) -> Fitted:
    basis = parts.basis
    if train.classes:
        path = softmax_path(basis, train.y.astype(np.intp), len(train.classes), penalties)
    else:
        path = ridge_path(basis, train.y, penalties)
    found = [parts.val @ w + b for w, b in path]
    losses = [loss_of(values, val) for values in found]
    best = int(np.argmin(losses))
    w, b = path[best]
    weights, intercept = basis.weights(w, b)
    return Fitted(
        LINEAR, (penalties[best],), losses[best], decided(found[best], train.classes),
        decided(parts.test @ w + b, train.classes), weights, intercept,
    )  # fmt: skip


def _network(parts: Parts, train: Target, val: Target, settings: Sequence[tuple[float, ...]], seed: int) -> Fitted:
    """Full-batch L-BFGS, as `MLPProbe`: turning the features changes nothing for a network with an L2 penalty."""
    # Scikit-learn's first weights suit features of unit variance; the turned ones have that on average.
    size = np.sqrt((parts.basis.rows**2).mean()) or 1.0
    best: Fitted | None = None
    for width, alpha in settings:
        values = _trained(parts.basis.rows / size, train, int(width), alpha, seed)
        seen = values(parts.val / size)
        loss = loss_of(seen, val)
        if best is None or loss < best.loss:
            test = decided(values(parts.test / size), train.classes)
            best = Fitted(MLP, (width, alpha), loss, decided(seen, train.classes), test)
    assert best is not None
    return best


def _trained(rows: Floats, train: Target, width: int, alpha: float, seed: int) -> Callable[[Floats], Floats]:
    """From turned rows to `[m, k]` values: logits' equals for classes, predictions otherwise."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    settings: dict[str, Any] = {
        "hidden_layer_sizes": (width,), "solver": "lbfgs", "alpha": alpha, "max_iter": _STEPS, "random_state": seed,
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of steps is a setting like another
        if train.classes:
            net: Any = MLPClassifier(**settings).fit(rows, train.y.astype(np.intp))
            return lambda x: np.log(np.maximum(net.predict_proba(x), 1e-12))
        mean, spread = float(train.y.mean()), float(train.y.std()) or 1.0
        wired: Any = MLPRegressor(**settings).fit(rows, (train.y - mean) / spread)
    return lambda x: (wired.predict(x) * spread + mean)[:, None]


def loss_of(values: Floats, truth: Target) -> float:
    """Mean cross-entropy of logits `[m, k]`, or mean squared error of predictions `[m, 1]`."""
    if not truth.classes:
        return float(((values[:, 0] - truth.y) ** 2).mean())
    top = values.max(1, keepdims=True)
    total = np.log(np.exp(values - top).sum(1)) + top[:, 0]
    return float((total - values[np.arange(len(values)), truth.y.astype(np.intp)]).mean())


def decided(values: Floats, classes: tuple[Any, ...]) -> Floats:
    """Class numbers, or the numbers foretold."""
    return values.argmax(1).astype(np.float64) if classes else values[:, 0]
