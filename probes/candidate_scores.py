"""Candidate directions, and what each does to the model: bypass, induce, KL.

Arditi et al. 2024, sections 2.3 and 3: for every post-instruction token and layer, the difference in means of
`resid_pre`; each is scored on validation prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from interp.activations.means import class_means
from interp.direction import Direction
from interp.edits import ablate, add
from interp.errors import NonFiniteError, PromptError
from interp.model.model import Model
from interp.model.ops import Edit
from interp.model.refusal_metric import RefusalMetric
from interp.progress import progress_bar
from interp.text.encoded import Encoded, PromptLike
from interp.text.prompts import PromptSet

_KL_EPSILON = 1e-6
_NO_DIFFERENCE = 1e-5


@dataclass(frozen=True)
class Candidates:
    """Difference in means at every layer and post-instruction position.

    Attributes:
        difference: `[layer, position, d_model]`, positives minus negatives, at `resid_pre`.
        negative: Mean of the negatives along the stream `[layer + 1, position, d_model]`; the last entry is the end of
            the last block.
        norm: Median norm of single activations `[layer, position]`.
        positions: Column names.
        tokens: The token at each of them.
        counts: Prompts behind the positive and the negative mean.
        provenance: Model and prompts.
    """

    difference: Tensor
    negative: Tensor
    norm: Tensor
    positions: tuple[str, ...]
    tokens: tuple[str, ...]
    counts: tuple[int, int]
    provenance: dict[str, Any]

    @property
    def labels(self) -> dict[str, str]:
        """Position names to tokens, for axes."""
        return dict(zip(self.positions, self.tokens, strict=True))

    def at(self, layer: int, position: str) -> tuple[Tensor, float]:
        """Difference in means and median residual norm at one place."""
        place = self.positions.index(position)
        return self.difference[layer, place], float(self.norm[layer, place])

    def differs(self, layer: int, position: str) -> bool:
        """Whether the means differ at all; at the bottom, the same token in the same place gives the same vector."""
        difference, ceiling = self.at(layer, position)
        return float(difference.norm()) > _NO_DIFFERENCE * ceiling

    def direction(self, layer: int, position: str, name: str = "refusal") -> Direction:
        """One candidate."""
        return Direction(self.at(layer, position)[0], "resid_pre", layer, position, name, self.provenance)

    def reference(self, direction: Direction) -> Tensor:
        """The negatives' mean coordinate along a direction, `[layer + 1, position]`: what to ablate to."""
        return self.negative @ direction.unit

    def ceiling(self, direction: Direction) -> float:
        """Median residual norm where a direction was read: adding more than this swamps the stream."""
        return self.at(direction.layer, direction.position)[1]


def candidates(
    model: Model,
    prompts: Sequence[PromptLike] | Sequence[Encoded] | PromptSet,
    positive: ArrayLike,
    *,
    progress: bool = False,
) -> Candidates:
    """Differences in means for every layer and post-instruction position, streamed.

    Args:
        model: The model.
        prompts: Training prompts.
        positive: For each, whether it is a positive (refused, or harmful).
        progress: Show a progress bar.

    Raises:
        PromptError: When one kind is missing, or prompts and `positive` differ in number.
    """
    flags = np.asarray(positive, dtype=bool)
    if flags.all() or not flags.any():
        raise PromptError("a difference in means needs prompts of both kinds: positives and negatives")
    encoded = model.encode(prompts)
    means = class_means(model, encoded, flags, site="stream", positions="post_inst", progress=progress)
    tokens = tuple(model.tokenizer.decode([encoded[0].ids[encoded[0].columns(p)[0]]]) for p in means.positions)
    on, off = means.of(True), means.of(False)
    counts = dict(zip(means.classes, means.counts, strict=True))
    provenance = {**model.provenance(), "method": "difference in means (arXiv 2406.11717, section 2.3)"}
    if isinstance(prompts, PromptSet):
        provenance["prompts"] = {"name": prompts.name, "digest": prompts.digest[:16], "n": len(prompts)}
    return Candidates(
        (on - off)[:-1], off, means.norm[:-1], means.positions, tokens, (counts[True], counts[False]), provenance
    )


def score_candidates(
    model: Model,
    found: Candidates,
    harmful: Sequence[PromptLike],
    harmless: Sequence[PromptLike],
    metric: RefusalMetric,
    *,
    progress: bool = False,
) -> Any:
    """Score every candidate on validation prompts.

    Args:
        model: The model.
        found: The candidates.
        harmful: Prompts that the model refuses.
        harmless: Prompts that it answers.
        metric: The logit-level refusal score.
        progress: Show a progress bar.

    Returns:
        A pandas table, one row per candidate: `position` (name), `layer`, `norm`, `ceiling` (median residual norm
        there), and the means over prompts of `plain` (metric on harmful, nothing changed: the same in every row),
        `bypass` (metric on harmful, direction ablated to zero at every writer), `bypass_mean` (ablated to the harmless
        mean at the post-instruction tokens), `induce` (metric on harmless, direction added at its layer, all tokens,
        shortened to the median residual norm there where it is longer),
        `kl` and `kl_mean` (KL divergence of the next token on harmless prompts, under the two ablations).
    """
    import pandas as pd

    on, off = model.encode(harmful), model.encode(harmless)
    plain = torch.log_softmax(model.logits(off).double(), -1)

    def score(prompts: Sequence[Encoded], edits: Sequence[Edit], measure: Callable[[Tensor], float]) -> float:
        try:
            return measure(model.logits(prompts, edits=edits))
        except NonFiniteError:  # the plain model's are finite: it is the edit that overflows, and the row says so
            return float("nan")

    def refusal(logits: Tensor) -> float:
        return float(metric(logits).mean())

    def divergence(logits: Tensor) -> float:
        return kl_divergence(plain, logits)

    unchanged = score(on, [], refusal)
    rows: list[dict[str, Any]] = []
    places = [(p, layer) for p in found.positions for layer in range(model.n_layers)]
    with progress_bar("scoring candidates", len(places), progress) as advance:
        for position, layer in places:
            row: dict[str, Any] = {"position": position, "layer": layer}
            ceiling = found.at(layer, position)[1]
            if not found.differs(layer, position):
                rows.append({**row, "norm": 0.0, "ceiling": ceiling, **dict.fromkeys(SCORES, float("nan"))})
                advance(1)
                continue
            direction = found.direction(layer, position)
            row |= {"norm": direction.norm, "ceiling": ceiling}
            coefficient = min(1.0, ceiling / direction.norm)
            row["plain"] = unchanged
            zero = [ablate(direction)]
            mean = [ablate(direction, found.reference(direction), positions=found.positions)]
            row["bypass"] = score(on, zero, refusal)
            row["bypass_mean"] = score(on, mean, refusal)
            row["induce"] = score(off, [add(direction, coefficient)], refusal)
            row["kl"] = score(off, zero, divergence)
            row["kl_mean"] = score(off, mean, divergence)
            rows.append(row)
            advance(1)
    return pd.DataFrame(rows, columns=["position", "layer", "norm", "ceiling", *SCORES])


SCORES = ("plain", "bypass", "bypass_mean", "induce", "kl", "kl_mean")


def kl_divergence(plain: Tensor, edited: Tensor) -> float:
    """Mean KL(plain || edited) over prompts; `plain` as log-probabilities, `edited` as logits."""
    p = plain.exp()
    q = torch.softmax(edited.double(), -1)
    return float((p * (torch.log(p + _KL_EPSILON) - torch.log(q + _KL_EPSILON))).sum(-1).mean())
