"""Scores of predictions, on all rows and on many draws of them at once.

For numbers Somers' D decides: Kendall's tau over the pairs whose labels differ. Tau-b of untied predictions cannot
reach 1 where labels are tied (0.82 for three equally frequent lengths), while a baseline with tied ones can, so that
their difference would not be fair. Both are reported; without ties they are one.

Every score of a draw is exactly the score of the drawn rows (a row drawn twice counts twice, and is tied with
itself), computed from how often each row was drawn: `[draw, row]` of `interp.bootstrap.group_draws`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from interp.errors import ProbeError

Floats = NDArray[np.float64]
REGRESSION = ("somers_d", "kendall", "spearman", "pearson", "r2", "mae")
CLASSES = ("accuracy", "macro_f1")
LOWER_IS_BETTER = ("mae",)
RANGES = {
    "somers_d": (-1, 1), "kendall": (-1, 1), "spearman": (-1, 1), "pearson": (-1, 1), "r2": (-np.inf, 1),
    "mae": (0, np.inf), "accuracy": (0, 1), "macro_f1": (0, 1),
}  # fmt: skip
NAMES = {
    "somers_d": "Somers' D", "kendall": "Kendall's τ", "spearman": "Spearman's ρ", "pearson": "Pearson's r", "r2": "R²",
    "mae": "MAE", "accuracy": "accuracy", "macro_f1": "macro-F1",
}  # fmt: skip


def metrics_of(kind: str) -> tuple[str, ...]:
    """The scores of a kind of attribute, the one that decides first."""
    return REGRESSION if kind == "regression" else CLASSES


def check_metric(metric: str | None, kind: str) -> str:
    """The score that decides.

    Raises:
        ProbeError: For one that does not fit, or where less is better.
    """
    usable = tuple(m for m in metrics_of(kind) if m not in LOWER_IS_BETTER)
    if metric is None:
        return usable[0]
    if metric not in usable:
        raise ProbeError(f"metric {metric!r} is none for {kind}: choose of {', '.join(usable)}")
    return metric


def score(metric: str, truth: Floats, predicted: Floats) -> float:
    """One score of all rows."""
    return float(score_draws(metric, truth, predicted, np.ones((1, len(truth))))[0])


def score_draws(metric: str, truth: Floats, predicted: Floats, weights: Floats) -> Floats:
    """One score of each draw, `[draw]`.

    Ranks and correlations of constants are 0: they order nothing.

    Args:
        metric: Its name.
        truth: `[row]`, numbers or class numbers.
        predicted: `[row]`, the same.
        weights: `[draw, row]`, how often each row was drawn.
    """
    return _SCORES[metric](truth, predicted, weights)


def _accuracy(truth: Floats, predicted: Floats, weights: Floats) -> Floats:
    return weights @ (truth == predicted) / weights.sum(1)


def _macro_f1(truth: Floats, predicted: Floats, weights: Floats) -> Floats:
    """Mean over the classes that occur, in truth or prediction, in the draw: scikit-learn's rule."""
    values: list[Floats] = []
    for c in np.union1d(truth, predicted):
        hits = weights @ ((truth == c) & (predicted == c))
        both = weights @ ((truth == c).astype(float) + (predicted == c))
        values.append(np.divide(2 * hits, both, out=np.full(len(weights), np.nan), where=both > 0))
    return np.nanmean(values, axis=0)


def _kendall(truth: Floats, predicted: Floats, weights: Floats) -> Floats:
    """Tau-b, by all pairs."""
    a, b = (np.sign(v[:, None] - v[None]) for v in (truth, predicted))
    both, own, other = (_pairs(m, weights) for m in (a * b, a != 0, b != 0))
    return _ratio(both, np.sqrt(own * other))


def _somers(truth: Floats, predicted: Floats, weights: Floats) -> Floats:
    """Kendall's tau over the pairs whose labels differ (Somers 1962): 1 is in reach however many labels are tied."""
    a, b = (np.sign(v[:, None] - v[None]) for v in (truth, predicted))
    return _ratio(_pairs(a * b, weights), _pairs(a != 0, weights))


def _pairs(matrix: NDArray[np.generic], weights: Floats) -> Floats:
    return np.einsum("dn,dn->d", weights @ matrix.astype(np.float64), weights)


def _spearman(truth: Floats, predicted: Floats, weights: Floats) -> Floats:
    return _correlation(_ranks(truth, weights), _ranks(predicted, weights), weights)


def _ranks(values: Floats, weights: Floats) -> Floats:
    """Mid-ranks within each draw, `[draw, row]`."""
    below = (values[:, None] < values[None]) + 0.5 * (values[:, None] == values[None])
    return weights @ below


def _pearson(truth: Floats, predicted: Floats, weights: Floats) -> Floats:
    return _correlation(np.broadcast_to(truth, weights.shape), np.broadcast_to(predicted, weights.shape), weights)


def _correlation(a: Floats, b: Floats, weights: Floats) -> Floats:
    total = weights.sum(1, keepdims=True)
    a = a - (weights * a).sum(1, keepdims=True) / total
    b = b - (weights * b).sum(1, keepdims=True) / total
    variances = (weights * a * a).sum(1) * (weights * b * b).sum(1)
    # What is left of a constant after rounding is no variance.
    scale = (np.abs(a).max(1) * np.abs(b).max(1)) ** 2
    return _ratio(
        (weights * a * b).sum(1), np.sqrt(np.where(variances > 1e-24 * np.maximum(scale, 1e-300), variances, 0))
    )


def _r2(truth: Floats, predicted: Floats, weights: Floats) -> Floats:
    mean = (weights @ truth) / weights.sum(1)
    spread = weights @ truth**2 - weights.sum(1) * mean**2
    return 1 - np.divide(
        weights @ (truth - predicted) ** 2, spread, out=np.full(len(weights), np.nan), where=spread > 1e-12
    )


def _mae(truth: Floats, predicted: Floats, weights: Floats) -> Floats:
    return weights @ np.abs(truth - predicted) / weights.sum(1)


def _ratio(above: Floats, below: Floats) -> Floats:
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


_SCORES: dict[str, Callable[[Floats, Floats, Floats], Floats]] = {
    "accuracy": _accuracy, "macro_f1": _macro_f1, "somers_d": _somers, "kendall": _kendall, "spearman": _spearman,
    "pearson": _pearson, "r2": _r2, "mae": _mae,
}  # fmt: skip
