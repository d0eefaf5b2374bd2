"""What a planning probe must beat: what can be foretold without looking into the model's layers.

- majority / mean: no input at all.
- shuffled labels: the same probe fitted to labels that were dealt out anew among groups: what fitting alone does.
- prompt length: splines of the number of prompt tokens.
- bag of words: a linear probe of TF-IDF of one and two words of the prompt.
- embedding layer: a linear probe of the prompt before any layer has computed anything.
- first token: the distribution from which the first token is drawn, as one could learn it by drawing: tokens that reach
  1 % somewhere, by the square root of their probability (so that distances are the Hellinger distance), and which is
  the likeliest. All log-probabilities of a whole vocabulary would be a linear copy of the last hidden state instead.
- asked: the model's own prediction; where it could not answer, majority or mean.
- words so far, length so far: along the answer, what has been written by then.

Features are made from training rows and applied to the others. Like is compared with like: linear probes with linear
baselines. A network on words can compute what the model computes, given enough prompts, and any attribute that the
prompt determines is in its words for a network that is strong enough. So the claims rest on linear probes: what the
model has made linearly readable that is not so in the words. A network as probe stands beside, with networks on words
and on the embedding layer to compare it with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interp.errors import ProbeError
from probes.planning.examples import PlanExamples
from probes.planning.learning import LINEAR, Parts, Target, fit_kind
from probes.planning.linear import Floats, Scaling

MAJORITY, MEAN, SHUFFLED = "majority", "mean", "shuffled labels"
LENGTH, WORDS, EMBEDDING = "prompt length", "bag of words", "embedding layer"
FIRST, ASKED = "first token", "asked"
WORDS_SO_FAR, LENGTH_SO_FAR = "words so far", "length so far"
CHANCE = (MAJORITY, MEAN, SHUFFLED)
TEXT = (LENGTH, WORDS, EMBEDDING)
_MOST_WORDS = 5000
_SEEN = 0.01

Split = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def missing_baselines(examples: PlanExamples) -> tuple[str, ...]:
    """Baselines that were given nothing to work on."""
    given = {LENGTH: examples.lengths, WORDS: examples.texts, EMBEDDING: examples.embedding,
             FIRST: examples.first_token, ASKED: examples.asked}  # fmt: skip
    return tuple(name for name, value in given.items() if value is None)


def without_input(train: Target, n: int) -> Floats:
    """The majority class, or the mean, for each of n rows."""
    if train.classes:
        return np.full(n, float(np.bincount(train.y.astype(np.intp)).argmax()))
    return np.full(n, train.y.mean())


def of_prompt(
    examples: PlanExamples, split: Split, train: Target, val: Target, kind: str, widths: Sequence[int], seed: int
) -> dict[str, Floats]:
    """Predictions of test rows by each baseline that reads the prompt or the first token, fitted as the probe is."""
    found: dict[str, Floats] = {}
    features: list[tuple[str, NDArray[Any], Scaling]] = []
    if examples.lengths is not None:
        features.append((LENGTH, length_features(examples.lengths, split[0]), "each"))
    if examples.texts is not None:
        features.append((WORDS, word_features(examples.texts, split[0]), "whole"))
    if examples.embedding is not None:
        features.append((EMBEDDING, np.asarray(examples.embedding, dtype=np.float64), "each"))
    if examples.first_token is not None:
        features.append((FIRST, token_features(examples.first_token, split[0]), "whole"))
    for name, x, scaling in features:
        parts = Parts.of(x, *split, scaling)
        found[name] = fit_kind(kind, parts, train, val, widths=widths, seed=seed).test
    if examples.asked is not None:
        found[ASKED] = own_words(examples, split[2], train)
    return found


def so_far(examples: PlanExamples, segment: int, split: Split, train: Target, val: Target) -> dict[str, Floats]:
    """Predictions of test rows from what was written by the end of a segment."""
    found: dict[str, Floats] = {}
    if examples.written_lengths is not None:
        x = length_features(examples.written_lengths[:, segment], split[0])
        found[LENGTH_SO_FAR] = fit_kind(LINEAR, Parts.of(x, *split), train, val).test
    if examples.written is not None:
        x = word_features(examples.written[segment], split[0])
        found[WORDS_SO_FAR] = fit_kind(LINEAR, Parts.of(x, *split, "whole"), train, val).test
    return found


def length_features(lengths: NDArray[Any], train: NDArray[np.int64]) -> Floats:
    """Splines of a number per row, `[n, k]`: longer may mean more, and so may shorter."""
    from sklearn.preprocessing import SplineTransformer

    column = np.asarray(lengths, dtype=np.float64).reshape(len(lengths), -1)
    smooth: Any = SplineTransformer(n_knots=5, degree=3, knots="quantile", extrapolation="linear")
    if any(len(np.unique(np.quantile(column[train, j], np.linspace(0, 1, 5)))) < 5 for j in range(column.shape[1])):
        return column  # too few lengths for knots between them
    return np.hstack([column, smooth.fit(column[train]).transform(column)])


def word_features(texts: Sequence[str], train: NDArray[np.int64]) -> Floats:
    """TF-IDF of one and two words, `[n, v]`; words are those of the training rows."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    words: Any = TfidfVectorizer(
        ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\w+", max_features=_MOST_WORDS
    )
    try:
        words.fit([texts[i] for i in train])
    except ValueError:  # no words at all, as before the first one is written
        return np.zeros((len(texts), 1))
    return words.transform(texts).toarray()


def token_features(probabilities: NDArray[Any], train: NDArray[np.int64]) -> Floats:
    """Square roots of the probabilities of tokens that are seen at all, and which is the likeliest, `[n, v]`."""
    p = np.asarray(probabilities, dtype=np.float64)
    kept = p[:, p[train].max(0) >= _SEEN]
    if not kept.shape[1]:
        return np.zeros((len(p), 1))
    return np.hstack([np.sqrt(kept), np.eye(kept.shape[1])[kept.argmax(1)]])


def own_words(examples: PlanExamples, rows: NDArray[np.int64], train: Target) -> Floats:
    """What the model foretold when asked; majority or mean where it could not.

    Raises:
        ProbeError: When a number was to be foretold and it is none.
    """
    assert examples.asked is not None
    out = without_input(train, len(rows))
    code = {c: float(i) for i, c in enumerate(examples.classes)}
    for j, i in enumerate(rows):
        value = examples.asked[i]
        if not could_answer(value):
            continue
        if examples.classes:
            out[j] = code.get(value, -1.0)  # a class that no answer has is wrong, not missing
            continue
        try:
            out[j] = float(value)
        except (TypeError, ValueError) as error:
            raise ProbeError(
                f"attribute {examples.attribute!r}: the model's own prediction {value!r:.40} is no number; give None"
            ) from error
    return out


def could_answer(value: Any) -> bool:
    """Whether there is a prediction at all."""
    return value is not None and value == value  # noqa: PLR0124  (NaN is not itself)


def dealt_anew(y: Floats, groups: NDArray[Any], rng: np.random.Generator) -> Floats:
    """Labels dealt out anew: each group gets those of another, so that rows of a group stay as alike as they are."""
    order: dict[Any, list[int]] = {}
    for row, group in enumerate(groups.tolist()):
        order.setdefault(group, []).append(row)
    hands = list(order.values())
    out = np.empty_like(y)
    for rows, giver in zip(hands, rng.permutation(len(hands)), strict=True):
        hand = rng.permutation(y[hands[giver]])
        out[rows] = np.resize(hand, len(rows))
    return out
