"""Separation: how well each layer tells two classes apart, on prompts not used for finding it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from interp.activations.activations import Activations
from interp.activations.capture import capture
from interp.errors import PromptError
from interp.model.model import Model
from interp.stats import auroc, auroc_interval
from interp.text.prompts import PromptSet

READABLE = 0.6


@dataclass(frozen=True)
class Separation:
    """AUROC of a difference-in-means projection by layer and position, held out, with controls.

    Attributes:
        table: pandas, one row per layer (of `resid_post`) and position: `val` (AUROC on the validation prompts), and on
            the test prompts `auroc`, `low`, `high` (bootstrap over groups), `shuffled` (the same with the labels of
            both sides shuffled: mean over draws) and `shuffled_high` (their largest). Shuffling the training labels
            alone would be no control: the fit then falls, with a random sign, along whatever varies most, and that
            may well be harm.
        text: AUROC of a text classifier (TF-IDF and logistic regression) given the same training prompts, and `low`,
            `high`.
        length: AUROC of the prompt's length alone, whichever way it points.
        n_train: Training prompts.
        n_test: Test prompts.
    """

    table: Any
    text: tuple[float, float, float]
    length: float
    n_train: int
    n_test: int

    @property
    def best(self) -> dict[str, Any]:
        """The place that is best on validation prompts; its test figures are therefore unbiased."""
        return {str(k): v for k, v in self.table.loc[self.table["val"].idxmax()].to_dict().items()}

    @property
    def readable(self) -> bool:
        """Whether the best place separates the classes: interval above 0.6, and above every shuffled fit."""
        best = self.best
        return bool(best["low"] > READABLE and best["auroc"] > best["shuffled_high"])

    def to_frame(self) -> Any:
        """The table (pandas)."""
        return self.table

    def plot(self) -> Any:
        """AUROC by layer with its controls (plotly)."""
        from probes.figures import separation_lines

        return separation_lines(self)


def separation(
    model: Model,
    prompts: PromptSet,
    *,
    positive: str = "harmful",
    positions: tuple[str, ...] = ("t_inst", "t_post_inst"),
    n_shuffles: int = 10,
    seed: int = 0,
    progress: bool = False,
) -> Separation:
    """Fit the difference in means on the training prompts at every layer and position, score the test prompts.

    Args:
        model: The model.
        prompts: Labelled prompts, split into train, val and test by groups.
        positive: The label that counts as positive.
        positions: Single tokens.
        n_shuffles: Draws of shuffled labels, as control.
        seed: For shuffles and bootstrap.
        progress: Show a progress bar.

    Raises:
        PromptError: When a split lacks one of the two classes.
    """
    import pandas as pd

    train, val, test = prompts.train, prompts.val, prompts.test
    for part, name in ((train, "train"), (val, "val"), (test, "test")):
        if len({p.label == positive for p in part}) < 2:
            raise PromptError(f"{prompts.name!r} needs {positive} prompts and others to {name} on: add prompts")
    fit, check, held = (capture(model, p, "resid_post", positions, progress=progress) for p in (train, val, test))
    y, truth = fit.labels == positive, held.labels == positive
    rng = np.random.default_rng(seed)
    shuffles = [(rng.permutation(y), rng.permutation(truth)) for _ in range(n_shuffles)]
    rows: list[dict[str, Any]] = []
    for position in positions:
        for layer in fit.layers:
            scores = _project(fit, held, layer, position, y)
            low, high = auroc_interval(scores, truth, held.groups, seed=seed)
            chance = [auroc(_project(fit, held, layer, position, a), b) for a, b in shuffles]
            val = auroc(_project(fit, check, layer, position, y), check.labels == positive)
            rows.append(
                {"position": position, "layer": layer, "val": val, "auroc": auroc(scores, truth), "low": low,
                 "high": high, "shuffled": float(np.mean(chance)), "shuffled_high": float(np.max(chance))}
            )  # fmt: skip
    words = np.array([len(p.text) for p in test], dtype=float)
    length = auroc(words, truth)
    return Separation(
        pd.DataFrame(rows), _text_baseline(train, test, y, truth, seed), max(length, 1 - length), len(train), len(test)
    )


def _project(fit: Activations, held: Activations, layer: int, position: str, y: NDArray[Any]) -> NDArray[Any]:
    x = fit.sel("resid_post", layer, position).float()
    mask = torch.from_numpy(np.asarray(y, dtype=bool))
    direction = x[mask].mean(0) - x[~mask].mean(0)
    return (held.sel("resid_post", layer, position).float() @ direction).numpy()


def _text_baseline(
    train: PromptSet, test: PromptSet, y: NDArray[Any], truth: NDArray[Any], seed: int
) -> tuple[float, float, float]:
    """What the words alone give away: TF-IDF of one and two words, logistic regression, the same training labels."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    text = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\S+"), LogisticRegression(max_iter=1000))
    text.fit(train.texts, y)
    scores = text.decision_function(test.texts)
    return (auroc(scores, truth), *auroc_interval(scores, truth, test.groups, seed=seed))
