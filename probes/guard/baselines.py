"""What a guard is compared with: the model's own refusals, its answers' words, the prompt's words.

A detector takes prompts and gives a score each, higher for harmful; other guards are in `probes.guard.others`. Text
classifiers are given the same labelled prompts as the guard was fitted on: a comparison on other labels says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from interp.errors import PromptError
from interp.text.judge import Verdict, judge, substring_judge
from interp.text.prompts import HARMFUL, PromptSet
from probes.threads import one_thread

if TYPE_CHECKING:
    from interp.model.model import Model

Scores = NDArray[np.float64]


class Detector(Protocol):
    """Anything that scores prompts."""

    @property
    def name(self) -> str:
        """What to call it in a table."""
        ...

    @property
    def threshold(self) -> float:
        """Scores above it are flags."""
        ...

    def score(self, prompts: PromptSet) -> Scores:
        """One score per prompt, higher for harmful."""
        ...


@dataclass(frozen=True, eq=False)
class AnswerBaseline:
    """Flags the prompts whose answers are refusals: by a judge, or by string matching.

    It needs a whole answer per prompt. Answers are kept, so that two of them on one model share the work.

    Attributes:
        model: The model.
        name: What to call it.
        judge: Any callable `(prompt, answer) -> Verdict`.
        max_new_tokens: Longest answer.
        threshold: Scores are 0 or 1.
    """

    model: Model
    name: str
    judge: Callable[[str, str], Verdict]
    max_new_tokens: int = 64
    threshold: float = 0.5
    _kept: dict[str, list[str]] = field(default_factory=dict, repr=False)

    def score(self, prompts: PromptSet) -> Scores:
        """1 for a refusal, else 0."""
        if prompts.digest not in self._kept:
            self._kept[prompts.digest] = self.model.generate(prompts, max_new_tokens=self.max_new_tokens).answers
        answers = self._kept[prompts.digest]
        return np.array([float(self.judge(p.text, a).refused) for p, a in zip(prompts, answers, strict=True)])


def own_refusals(model: Model, max_new_tokens: int = 64) -> tuple[AnswerBaseline, AnswerBaseline]:
    """The model's own refusals, by the judge and by string matching (the 12 substrings of Arditi et al. 2024)."""
    kept: dict[str, list[str]] = {}
    return (
        AnswerBaseline(model, "the model's own refusals", judge, max_new_tokens, _kept=kept),
        AnswerBaseline(model, "string matching on answers", substring_judge, max_new_tokens, _kept=kept),
    )


TEXT_KINDS = ("logistic", "mlp")


@dataclass(frozen=True, eq=False)
class TextBaseline:
    """A classifier of the prompt's words: TF-IDF of one and two words, then logistic regression or a small network.

    Attributes:
        name: What to call it.
        pipeline: The fitted scikit-learn pipeline.
        n: Labelled prompts it was fitted on.
        threshold: Probabilities above it are flags.
    """

    name: str
    pipeline: Any
    n: int
    threshold: float = 0.5

    @classmethod
    def fit(cls, prompts: PromptSet, kind: str = "logistic", *, positive: str = HARMFUL, seed: int = 0) -> TextBaseline:
        """Fit on labelled prompts.

        Args:
            prompts: Both classes.
            kind: `"logistic"`, or `"mlp"`: one hidden layer of 64 units.
            positive: The label that counts as harmful.
            seed: For the network.

        Raises:
            PromptError: For an unknown kind or a single class.
        """
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.neural_network import MLPClassifier
        from sklearn.pipeline import make_pipeline

        if kind not in TEXT_KINDS:
            raise PromptError(f"there is no text baseline {kind!r}; known: {', '.join(TEXT_KINDS)}")
        y = [p.label == positive for p in prompts]
        if len(set(y)) < 2:
            raise PromptError("a text baseline needs prompts of both classes")
        last = (
            LogisticRegression(max_iter=1000)
            if kind == "logistic"
            else MLPClassifier((64,), learning_rate_init=3e-3, max_iter=200, n_iter_no_change=5, random_state=seed)
        )
        words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\S+", dtype=np.float64)
        name = "TF-IDF + logistic" if kind == "logistic" else "TF-IDF + MLP"
        with one_thread(0):
            fitted = make_pipeline(words, last).fit(prompts.texts, y)
        return cls(f"{name}, {len(y)} labels", fitted, len(y))

    def score(self, prompts: PromptSet) -> Scores:
        """Probability of harm."""
        return self.pipeline.predict_proba(prompts.texts)[:, 1].astype(np.float64)


@dataclass(frozen=True)
class LearningCurve:
    """AUROC of text classifiers and a guard by how many labelled prompts they were given.

    Attributes:
        table: pandas, one row per detector and size: `detector`, `n`, `auroc`, `low`, `high` (bootstrap over groups).
    """

    table: Any

    def to_frame(self) -> Any:
        """The table (pandas)."""
        return self.table

    def plot(self) -> Any:
        """One line per detector (plotly)."""
        from probes.figures.guard import learning_curves

        return learning_curves(self)


def learning_curve(
    detectors: Mapping[str, Callable[[PromptSet], Detector]],
    train: PromptSet,
    test: PromptSet,
    sizes: Sequence[int],
    *,
    positive: str = HARMFUL,
    seed: int = 0,
) -> LearningCurve:
    """Fit detectors on ever more of the training prompts, and score the same test prompts each time.

    Args:
        detectors: By name, what makes a detector from labelled prompts: `TextBaseline.fit`, say.
        train: Labelled prompts; each size takes whole groups of both classes, and a larger size holds the smaller ones.
        test: Labelled prompts of other groups.
        sizes: How many labelled prompts.
        positive: The label that counts as harmful.
        seed: For the order of the groups and the bootstrap.

    Raises:
        PromptError: When train and test share groups, or a size is more than there is.
    """
    import pandas as pd

    from interp.stats import auroc, auroc_interval

    if shared := set(train.groups) & set(test.groups):
        raise PromptError(f"{len(shared)} groups are in train and in test, so the curve would show what was memorised")
    if max(sizes) > len(train):
        raise PromptError(f"there are {len(train)} training prompts, fewer than {max(sizes)}")
    order = _by_groups(train, positive, seed)
    truth = [p.label == positive for p in test]
    rows: list[dict[str, Any]] = []
    for n in sorted(sizes):
        part = PromptSet(tuple(train[i] for i in sorted(order[:n])), train.name)
        for name, make in detectors.items():
            scores = make(part).score(test)
            low, high = auroc_interval(scores, truth, test.groups, seed=seed)
            rows.append({"detector": name, "n": n, "auroc": auroc(scores, truth), "low": low, "high": high})
    return LearningCurve(pd.DataFrame(rows))


def _by_groups(prompts: PromptSet, positive: str, seed: int) -> list[int]:
    """Indices in a random order of groups, the classes taking turns."""
    rng = np.random.default_rng(seed)
    sides: list[list[int]] = []
    for side in (True, False):
        rows = [i for i, p in enumerate(prompts) if (p.label == positive) == side]
        groups = sorted({prompts[i].group for i in rows})
        place = dict(zip(groups, rng.permutation(len(groups)).tolist(), strict=True))
        sides.append(sorted(rows, key=lambda i: place[prompts[i].group]))
    paired = [i for pair in zip(*sides, strict=False) for i in pair]
    return paired + [i for side in sides for i in side[len(paired) // 2 :]]
