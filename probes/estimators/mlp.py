"""`MLPProbe`: one hidden layer, for what is encoded but not along a line."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, softmax

from probes.estimators.arrays import Matrix, centred, check_count, check_number, scaled
from probes.estimators.base import Probe, two_columns
from probes.threads import one_thread


class MLPProbe(Probe):
    """One hidden layer of ReLU units on standardised activations (Dong et al. 2025 probe response attributes so).

    Trained by scikit-learn's `MLPClassifier` with L-BFGS on all rows at once, which for a handful of prompts gets
    further, sooner, than batches; the scaling is folded back into the first layer. Beside it should stand a linear
    probe and the same MLP on shuffled labels: what it finds may be made by it rather than used by the model. It has no
    direction.

    Args:
        width: Hidden units.
        alpha: L2 penalty, as in `MLPClassifier`.
        max_iter: Most steps; training ends earlier when the loss no longer falls.
        random_state: Seed of the initial weights: the same seed gives the same probe.

    Attributes:
        hidden_weights_: `[d, width]`, in the units of the activations.
        hidden_bias_: `[width]`.
        output_weights_: `[width, 1]`, with more than two classes `[width, classes]`.
        output_bias_: `[1]` or `[classes]`.
        n_iter_: Steps taken; not kept in a file.
    """

    hidden_weights_: Matrix
    hidden_bias_: Matrix
    output_weights_: Matrix
    output_bias_: Matrix
    n_iter_: int

    def __init__(self, width: int = 64, alpha: float = 1.0, max_iter: int = 200, random_state: Any = 0) -> None:
        self.width = width
        self.alpha = alpha
        self.max_iter = max_iter
        self.random_state = random_state

    def decision_function(self, X: ArrayLike) -> Matrix:
        """Log odds of `classes_[1]`, `[n]`; with more than two classes, logits `[n, classes]`."""
        hidden = np.maximum(self._rows(X) @ self.hidden_weights_ + self.hidden_bias_, 0)
        found = hidden @ self.output_weights_ + self.output_bias_
        return found[:, 0] if found.shape[1] == 1 else found

    def predict_proba(self, X: ArrayLike) -> Matrix:
        """Probability of each class, `[n, classes]`."""
        found = self.decision_function(X)
        return softmax(found, axis=1) if found.ndim > 1 else two_columns(expit(found))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = True
        return tags

    def _check_settings(self) -> None:
        check_count("width", self.width)
        check_count("max_iter", self.max_iter)
        check_number("alpha", self.alpha, 0, low_too=True)

    def _fit(self, X: Matrix, codes: NDArray[np.intp]) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPClassifier

        rows, mean = centred(X)
        Z, scale = scaled(rows)
        net = MLPClassifier(
            (int(self.width),), solver="lbfgs", alpha=float(self.alpha), max_iter=int(self.max_iter),
            random_state=self.random_state,
        )  # fmt: skip
        with warnings.catch_warnings():
            # `max_iter` is how long to train, and `n_iter_` says how long it was: ending there is no fault.
            warnings.simplefilter("ignore", ConvergenceWarning)
            with one_thread(Z.size * int(self.width)):
                net.fit(Z, codes)
        (first, second), (inner, outer) = net.coefs_, net.intercepts_
        # In rows, as a file gives them back: the order in memory decides the last bits of a product.
        self.hidden_weights_ = np.ascontiguousarray(first / scale[:, None])
        self.hidden_bias_ = inner - mean @ self.hidden_weights_
        self.output_weights_, self.output_bias_ = np.ascontiguousarray(second), outer.copy()
        self.n_iter_ = int(net.n_iter_)

    def _shapes(self, d: int, k: int) -> dict[str, tuple[int, ...]]:
        out = 1 if k == 2 else k
        return {
            "hidden_weights_": (d, self.width), "hidden_bias_": (self.width,), "output_weights_": (self.width, out),
            "output_bias_": (out,),
        }  # fmt: skip
