"""The controls of a sweep: what needs no activations, or no truth, to score as well."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interp.activations.capture import capture
from interp.activations.labelled import Labelled
from interp.bootstrap import group_draws, percentiles
from interp.errors import PromptError
from interp.model.model import Model
from interp.text.prompts import PromptSet
from probes.learners import Floats, Learner
from probes.resampling import auroc_draws, aurocs
from probes.sweep_cells import Cell, Task, measure_cell
from probes.threads import one_thread

_TEXT_STRENGTHS = (1.0, 10.0, 100.0)
_PROMPTS_AT_ONCE = 256
EMBEDDING = "embedding layer"


@dataclass(frozen=True)
class Control:
    """A control beside the best cell, on the same test prompts.

    Attributes:
        name: Which.
        auroc: Its AUROC; the mean over draws where it is drawn.
        low: Lower end of the 95 % interval (bootstrap over groups).
        high: Upper end.
        highest: Largest draw; NaN where nothing is drawn.
        difference: AUROC of the probe minus the control's.
        difference_low: Lower end of its 95 % interval, paired over prompts.
        difference_high: Upper end.
        note: How it is made.
    """

    name: str
    auroc: float
    low: float
    high: float
    highest: float
    difference: float
    difference_low: float
    difference_high: float
    note: str


@dataclass(frozen=True)
class Scored:
    """Test scores of a control: one row per draw, with the labels each draw is held against."""

    name: str
    scores: Floats
    labels: NDArray[np.bool_]
    drawn: bool
    note: str


def text_controls(task: Task, texts: Sequence[str]) -> list[Scored]:
    """Prompt length, and a bag of words: TF-IDF of one and two words with logistic regression.

    Both are given the labels that the probe is given: the length's sign and the strength of the regression are chosen
    on the development rows, by the same folds.
    """
    dev, test = task.split.dev, task.split.test
    length = np.array([len(text) for text in texts], dtype=np.float64)
    sign = -1.0 if aurocs(length[dev][None], task.y_dev)[0] < 0.5 else 1.0
    words = _bag_of_words(task, [texts[int(i)] for i in dev], [texts[int(i)] for i in test])
    return [
        _single("prompt length", sign * length[test], task, "characters, turned the way the training labels say"),
        _single("bag of words", words, task, "TF-IDF of one and two words, logistic regression, the same labels"),
    ]


def drawn_controls(task: Task, cell: Cell) -> list[Scored]:
    """Shuffled labels and random directions at the chosen cell."""
    found: list[Scored] = []
    if len(cell.shuffled):
        note = "the same probe, labels permuted by groups in training and test"
        found.append(Scored("shuffled labels", cell.shuffled, task.shuffled_test, True, note))
    if len(cell.random):
        labels = np.tile(task.y_test, (len(cell.random), 1))
        note = "directions drawn at random, turned the way the training labels say"
        found.append(Scored("random direction", cell.random, labels, True, note))
    return found


def embedding_control(
    learner: Learner,
    task: Task,
    acts: Labelled,
    position: str,
    model: Model | None,
    embeddings: ArrayLike | None,
    progress: bool,
) -> Scored | None:
    """The same probe on what enters the first layer; `None` where that is not to be had.

    With a model, or embeddings given, it is the mean of the prompt's token embeddings: what its words say, in the
    model's own vectors, before any layer has read them together. At one position the embedding is that of one token
    (after the instruction, the same in every prompt), which is too easy to beat; it is used only where nothing else is
    there, and the note says so.
    """
    if embeddings is not None:
        x, note = np.asarray(embeddings, dtype=np.float64), "the same probe on the embeddings that were given"
        if x.ndim != 2 or len(x) != len(task.y):
            raise PromptError(f"embeddings of shape {x.shape} were given: they must be [{len(task.y)}, width]")
    elif model is not None:
        x = mean_embeddings(model, acts.prompts, progress)
        note = "the same probe on the mean of the prompt's token embeddings"
    elif "resid_pre" in acts.sites and 0 in acts.layers:
        x = acts.sel("resid_pre", 0, position).double().numpy()
        note = f"the same probe on resid_pre[0] at {position}: one token's embedding; model= gives a stronger control"
    else:
        return None
    return _single(EMBEDDING, measure_cell(learner, task, x, controls=False).scores, task, note)


def mean_embeddings(model: Model, prompts: PromptSet, progress: bool = False) -> Floats:
    """Mean over each prompt's instruction of what enters the first block, `[prompt, d_model]`."""
    found: list[Floats] = []
    for start in range(0, len(prompts), _PROMPTS_AT_ONCE):
        part = prompts[start : start + _PROMPTS_AT_ONCE]
        acts = capture(model, part, "resid_pre", "inst", layers=[0], progress=progress)
        rows = acts.sel("resid_pre", 0).double().numpy()[:, 0]
        found.append(np.add.reduceat(rows, acts.offsets[:-1]) / np.diff(acts.offsets)[:, None])
    return np.concatenate(found)


def compare(task: Task, scores: Floats, scored: Sequence[Scored], draws: int, seed: int) -> tuple[Control, ...]:
    """Each control beside the probe, with intervals over the same drawn groups."""
    y = task.y_test
    weights = group_draws(task.groups[task.split.test], draws, seed)
    own, own_draws = float(aurocs(scores[None], y)[0]), auroc_draws(scores, y, weights)
    found: list[Control] = []
    for control in scored:
        values = np.array([aurocs(s[None], t)[0] for s, t in zip(control.scores, control.labels, strict=True)])
        drawn = np.mean(
            [auroc_draws(s, t, weights) for s, t in zip(control.scores, control.labels, strict=True)], axis=0
        )
        value, highest = float(values.mean()), float(values.max()) if control.drawn else math.nan
        found.append(
            Control(
                control.name,
                value,
                *percentiles(drawn),
                highest,
                own - value,
                *percentiles(own_draws - drawn),
                control.note,
            )  # fmt: skip
        )
    return tuple(found)


def _single(name: str, scores: Floats, task: Task, note: str) -> Scored:
    return Scored(name, scores[None], task.y_test[None], False, note)


def _bag_of_words(task: Task, dev: list[str], test: list[str]) -> Floats:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    def scored(fit: NDArray[Any], texts: list[str], strength: float) -> Floats:
        words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\S+")
        text: Any = make_pipeline(words, LogisticRegression(C=strength, max_iter=1000))
        return np.asarray(text.fit([dev[i] for i in fit], task.y_dev[fit]).decision_function(texts), dtype=np.float64)

    def chosen_by(strength: float) -> float:
        return float(
            np.mean(
                [
                    aurocs(scored(fit, [dev[i] for i in held], strength)[None], task.y_dev[held])[0]
                    for fit, held in task.split.folds
                ]
            )
        )

    with one_thread(0):
        best = max(_TEXT_STRENGTHS, key=chosen_by)
        return scored(np.arange(len(dev)), test, best)
