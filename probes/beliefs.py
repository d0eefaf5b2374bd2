"""Beliefs: to which of two clusters of training prompts a hidden state is closer, layer by layer.

Zhao et al. 2025 (arXiv 2507.11878), section 3: `s(h) = cos(h, mean of A) - cos(h, mean of B)` at every layer, and its
mean over layers as one number, the belief.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from interp.activations.columns import resolve_columns
from interp.bootstrap import group_draws, percentiles
from interp.direction import Direction
from interp.model.model import Model
from interp.progress import progress_bar
from interp.text.encoded import Encoded, PromptLike

_NO_DIFFERENCE = 1e-5


def stream(
    model: Model,
    prompts: Sequence[PromptLike] | Sequence[Encoded],
    positions: Sequence[str | int],
    *,
    progress: bool = False,
) -> Tensor:
    """The residual stream at single tokens, `[prompt, point, position, d_model]`, in the model's type, in one capture.

    There are `n_layers + 1` points: the input of every block (`resid_pre`), and as the last one the output of the last
    block (`resid_post`), before the final norm. `point_of` says which site and layer a point is.

    Args:
        model: The model.
        prompts: Prompts.
        positions: Single tokens, or regions of a fixed number of tokens.
        progress: Show a progress bar.
    """
    encoded = model.encode(prompts)
    names, columns = resolve_columns(encoded, positions)
    layers = tuple(range(model.n_layers))
    reads = [(("resid_pre", layers), columns), (("resid_post", layers[-1:]), columns)]
    out = torch.empty(len(encoded), len(layers) + 1, len(names), model.d_model, dtype=model.site_dtype("resid_pre"))
    with progress_bar("capturing", len(encoded), progress) as advance:
        for step in model.steps(encoded, reads, stop=True, done=advance):
            out[step.rows] = torch.cat([step.grid("resid_pre"), step.grid("resid_post")], 1)
    return out


def point_of(point: int, n_layers: int) -> tuple[str, int]:
    """Site and layer of a point of the stream."""
    return ("resid_pre", point) if point < n_layers else ("resid_post", n_layers - 1)


@dataclass(frozen=True, eq=False)
class Clusters:
    """Centres of two clusters of training prompts at one token.

    Attributes:
        names: What the two are, the first being the one that a positive score means.
        position: The token.
        first: Mean of the first, fp32 `[point, d_model]`.
        second: Mean of the second.
        counts: Prompts behind each.
    """

    names: tuple[str, str]
    position: str
    first: Tensor
    second: Tensor
    counts: tuple[int, int]

    @classmethod
    def fit(
        cls, states: Tensor, first: ArrayLike, second: ArrayLike, names: tuple[str, str], position: str
    ) -> Clusters:
        """Centres of the prompts in two masks; `states` is `[prompt, point, d_model]`."""
        masks = [torch.from_numpy(np.asarray(m, dtype=bool)) for m in (first, second)]
        centres = [states[mask].float().mean(0) for mask in masks]
        return cls(names, position, centres[0], centres[1], (int(masks[0].sum()), int(masks[1].sum())))

    def scores(self, states: Tensor) -> Tensor:
        """The cluster score of every prompt at every point, `[prompt, point]`; above 0 is the first cluster."""
        return torch.stack(
            [
                torch.cosine_similarity(h, self.first[p], dim=-1) - torch.cosine_similarity(h, self.second[p], dim=-1)
                for p in range(len(self.first))
                for h in [states[:, p].float()]
            ],
            1,
        )

    def belief(self, states: Tensor) -> Tensor:
        """The mean of the scores over all points, `[prompt]`."""
        return self.scores(states).mean(1)

    def direction(self, point: int, n_layers: int, name: str, provenance: Mapping[str, Any]) -> Direction | None:
        """First minus second centre at a point; `None` where they do not differ (the same token at the bottom)."""
        site, layer = point_of(point, n_layers)
        vector = self.first[point] - self.second[point]
        if float(vector.norm()) <= _NO_DIFFERENCE * float(self.first[point].norm()):
            return None
        return Direction(vector, site, layer, self.position, name, provenance)


def cosine_interval(
    a: tuple[Tensor, ArrayLike, ArrayLike],
    b: tuple[Tensor, ArrayLike, ArrayLike],
    groups: ArrayLike,
    draws: int,
    seed: int,
) -> tuple[float, float]:
    """95 % bootstrap interval of the cosine of two differences in means over the same prompts.

    Args:
        a: States `[prompt, d_model]`, and the masks whose means are subtracted.
        b: The same for the other direction.
        groups: Whole groups are drawn.
        draws: Resamples.
        seed: For the resamples.
    """
    weights = torch.from_numpy(group_draws(groups, draws, seed)).float()

    def difference(states: Tensor, first: ArrayLike, second: ArrayLike) -> Tensor:
        found: list[Tensor] = []
        for mask in (first, second):
            w = weights * torch.from_numpy(np.asarray(mask, dtype=np.float32))
            found.append((w @ states.float()) / w.sum(1, keepdim=True))
        return found[0] - found[1]

    return percentiles(torch.cosine_similarity(difference(*a), difference(*b), dim=-1).numpy())


def random_cosines(width: int, draws: int, seed: int) -> tuple[float, float]:
    """The central 95 % of cosines between random directions of a width."""
    noise = torch.randn(2, draws, width, generator=torch.Generator().manual_seed(seed))
    return percentiles(torch.cosine_similarity(noise[0], noise[1], dim=-1).numpy())
