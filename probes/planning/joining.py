"""Joining several seeds into one estimate whose interval does not count them as independent.

Each seed splits the groups anew, fits and chooses on its own training and validation rows, and looks at its own test
rows once. Given what was fitted, the test rows of one seed are a fresh sample, so the bootstrap over their groups gives
an honest standard error `e_s` of that seed's score, or of a paired difference of scores. The estimate is the mean over
seeds. Its standard error is not `e / sqrt(S)`: seeds test partly the same rows, and a row tested in one seed trains the
probe of another. Nor is it known: there is no unbiased estimate of it (Bengio and Grandvalet 2004). Two things are
known. It is never more than the mean of the `e_s`, whatever the dependence. And for a loss averaged over random splits
the corrected resampled t-test (Nadeau and Bengio 2003) multiplies `e^2` by `1/S + n_test / n_train` in place of `1/S`,
which errs on the wide side: two splits' scores correlate by about n_test / n (the rows that both test) and, where
labels are noise, by a little more through pairs of rows that swap parts. The lesser of the two is used: with 60/20/20
and three seeds 0.82 of one seed's standard error, and never less than 0.58. Simulated (docs/planning.md), three seeds
have 0.17 to 0.52 of one seed's variance on noise, where 0.67 is used.
Where all seeds test the same rows (a split that the prompts bring along) it is the mean of the `e_s`.

Quantiles are Student's t with one degree of freedom less than the fewest groups that a seed tested.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LEVEL = 0.95


@dataclass(frozen=True)
class Design:
    """How the seeds lie to each other.

    Attributes:
        seeds: How many.
        n_train: Mean number of training rows.
        n_test: Mean number of test rows.
        groups: Groups tested, the fewest of any seed.
        same_test: Whether all of them test the same rows.
    """

    seeds: int
    n_train: float
    n_test: float
    groups: int
    same_test: bool = False

    @property
    def share(self) -> float:
        """Variance of the mean over seeds, as a share of that of one seed."""
        return 1.0 if self.same_test else min(1.0, 1 / self.seeds + self.n_test / self.n_train)


@dataclass(frozen=True)
class Joint:
    """A score or a difference of scores, over all seeds.

    Attributes:
        value: Mean over seeds.
        error: Standard error.
        df: Degrees of freedom of its t distribution.
    """

    value: float
    error: float
    df: int

    def interval(self, level: float = LEVEL, within: tuple[float, float] = (-np.inf, np.inf)) -> tuple[float, float]:
        """Two-sided interval, cut off at the ends of the score's range."""
        reach = self._quantile(0.5 + level / 2) * self.error
        return max(self.value - reach, within[0]), min(self.value + reach, within[1])

    def bound(self, alpha: float) -> float:
        """Lower end of the one-sided interval at 1 - alpha."""
        return self.value - self._quantile(1 - alpha) * self.error

    @property
    def p(self) -> float:
        """One-sided p-value of a difference: how surprising, were it 0 or less."""
        if self.error <= 0:
            return 0.0 if self.value > 0 else 1.0
        from scipy.stats import t

        return float(t.sf(self.value / self.error, self.df))

    def _quantile(self, share: float) -> float:
        from scipy.stats import t

        return float(t.ppf(share, self.df))


def join(values: Sequence[float], draws: Sequence[Floats], design: Design) -> Joint:
    """The mean over seeds.

    Args:
        values: For each seed, the score on its test rows.
        draws: For each seed, the score of each bootstrap draw of groups, `[draw]`; NaN where it has none.
        design: How the seeds lie to each other.
    """
    errors = [float(np.nanstd(d, ddof=1)) for d in draws]
    # A bootstrap over G groups has (G - 1) / G of the variance that it is to estimate.
    small = design.groups / max(design.groups - 1, 1)
    share = design.share * small
    together = np.mean(errors) * np.sqrt(small) if design.same_test else np.sqrt(np.mean(np.square(errors)) * share)
    return Joint(float(np.mean(values)), float(together), max(design.groups - 1, 1))


def layers_said(layers: Sequence[int]) -> str:
    """The layers that several seeds chose: `"layer 4"`, `"layer 4 with every seed"` or `"layers 4, 4, 5"`."""
    if len(set(layers)) > 1:
        return f"layers {', '.join(map(str, layers))}"
    return f"layer {layers[0]}" + (" with every seed" if len(layers) > 1 else "")


def holm(p: Sequence[float], alpha: float) -> list[bool]:
    """Which of several hypotheses are rejected, with at most alpha chance of any error (Holm 1979)."""
    order = np.argsort(p, kind="stable")
    out, going = [False] * len(p), True
    for rank, i in enumerate(order):
        going = going and p[i] <= alpha / (len(p) - rank)
        out[i] = going
    return out
