"""The fit of a refusal prober on one layer, and how good it is on groups it has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interp.stats import auroc
from probes.estimators import LogisticProbe
from probes.prober_rows import KINDS, Read, Rows, Truth
from probes.threads import one_thread


def fit_rows(rows: Rows, C: float) -> LogisticProbe:
    """`LogisticProbe(C)` with weights: every kind of token counts as much as the others."""
    from sklearn.linear_model import LogisticRegression

    kinds, which, n = np.unique(rows.kind, return_inverse=True, return_counts=True)
    weights = len(rows.y) / (len(kinds) * n[which])
    X = rows.X.astype(np.float64)
    mean, scale = X.mean(0), X.std(0)
    scale = np.where(scale > 0, scale, 1.0)
    fresh = LogisticRegression(C=C, max_iter=5000, tol=1e-6)
    with one_thread(X.size):
        found = fresh.fit((X - mean) / scale, rows.y, sample_weight=weights)
    probe = LogisticProbe(C)
    probe.classes_, probe.n_features_in_ = np.array([False, True]), X.shape[1]
    probe.direction_ = found.coef_[0] / scale
    probe.intercept_ = float(found.intercept_[0] - mean @ probe.direction_)
    return probe


def folds_of(groups: NDArray[np.intp], folds: int, seed: int) -> NDArray[np.intp]:
    """The fold of every trace; a group stays in one."""
    order = np.random.default_rng(seed).permutation(int(groups.max()) + 1)
    return order[groups] % folds


def validate(
    rows: Rows, read: Read, place: int, truth: Truth, fold_of: NDArray[np.intp],
    after: Sequence[bool | None], harmful: NDArray[np.bool_], C: float,
) -> dict[str, float]:  # fmt: skip
    """Cross-validated figures of one layer: every trace is scored by a probe fitted without its group."""
    scores = np.full(len(read.X), np.nan)
    for fold in np.unique(fold_of):
        fit, held = rows.of(fold_of[rows.trace] != fold), fold_of[read.trace] == fold
        if len(set(fit.y.tolist())) < 2:
            continue
        scores[held] = fit_rows(fit, C).predict_proba(read.X[held, place])[:, 1]
    found: dict[str, float] = {}
    by_kind = {
        kind: np.asarray([scores[(read.kind == kind) & (read.trace == t)].mean() for t in range(len(after))])
        for kind in np.unique(read.kind).tolist()
    }
    right: list[float] = []
    for kind in KINDS:
        known = np.asarray([v is not None for v in truth.get(kind, [None] * len(after))])
        y = np.asarray([bool(v) for v in truth.get(kind, [None] * len(after))])[known]
        found[kind] = float("nan")
        if kind in by_kind and y.any() and not y.all():
            values = by_kind[kind][known]
            found[kind] = auroc(values, y)
            if kind != "decision":
                right.append(_balanced_accuracy(values, y, y))
    known = np.asarray([v is not None for v in after])
    told = np.asarray([bool(v) for v in after])[known]
    found["agreement"] = _balanced_accuracy(by_kind["decision"][known], told, harmful[known])
    found["late_right"] = float(np.mean(right)) if right else float("nan")
    return found


def _balanced_accuracy(scores: NDArray[Any], truth: NDArray[np.bool_], classes: NDArray[np.bool_]) -> float:
    """Share of scores on the right side of one half, mean over classes."""
    right = (scores > 0.5) == truth
    return float(np.mean([right[classes == c].mean() for c in np.unique(classes)]))
