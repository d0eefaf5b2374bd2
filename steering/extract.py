"""Steering vectors from pairs of contrasting texts: the mean of their differences, or its first principal component."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp.activations.capture import capture
from interp.errors import DirectionError, PromptError
from interp.model.model import Model
from interp.text.encoded import PromptLike, Trace
from interp.text.prompts import Prompt
from steering.vector import SteeringVector

Method = Literal["mean", "pca"]
_HALVES = 20
_FEWEST = 4


def contrast_vector(
    model: Model,
    pairs: Sequence[tuple[PromptLike, PromptLike]],
    *,
    method: Method = "mean",
    site: str = "resid_post",
    layers: int | Sequence[int] | None = None,
    position: str | int | None = None,
    coefficient: float = 1.0,
    seed: int = 0,
    progress: bool = False,
    **where: Any,
) -> SteeringVector:
    """A vector per layer that points from the second texts of pairs to the first.

    - `"mean"`: the mean of the differences (contrastive activation addition, Rimsky et al. 2023, 2312.06681). At
      strength 1 it moves as far as the two sides are apart on average.
    - `"pca"`: the first principal component of the differences, in the manner of repeng (Zou et al. 2023, 2310.01405),
      pointing to the first side. The differences are not centred: a centred component leaves out just what they have
      in common. Its length is that of the mean difference along it, so that strengths mean the same.

    Whether there is anything in it is checked by halves: the vectors of two halves of the pairs are compared, many
    times over, and the median cosine is in the provenance, beside the share of pairs that agree with the vector.

    Args:
        model: The model.
        pairs: Prompts, conversations or traces, `(towards, away)`.
        method: See above.
        site: Where to read and to add.
        layers: 0-based; all by default.
        position: The token read. By default the first token of the answer where all are traces with one (which is
            where contrastive activation addition reads the letter of a multiple choice), else the last of the prompt.
        coefficient: Strength.
        seed: For the halves.
        progress: Show a progress bar.
        **where: `positions` and `phase` that the vector acts on.

    Raises:
        PromptError: For fewer than four pairs, or what is no pair.
        DirectionError: For a method there isn't, or differences that are all zero.
    """
    if method not in get_args(Method):
        raise DirectionError(f"there is no method {method!r}; known: {', '.join(get_args(Method))}")
    several = [tuple(pair) for pair in pairs if not isinstance(pair, str | Prompt)]
    if len(several) < _FEWEST or len(several) < len(pairs) or any(len(pair) != 2 for pair in several):
        raise PromptError(
            f"a contrast needs at least {_FEWEST} pairs of texts (towards, away); {len(pairs)} were given"
        )
    flat: list[Any] = [text for pair in several for text in pair]
    if position is None:
        position = "answer_start" if all(isinstance(t, Trace) and t.answer for t in flat) else "t_post_inst"
    acts = capture(model, flat, site, position, layers, progress=progress)
    rng = np.random.default_rng(seed)
    halves = [rng.permutation(len(several)) for _ in range(_HALVES)]
    vectors: dict[int, Tensor] = {}
    about: dict[str, dict[str, float]] = {}
    for layer in acts.layers:
        values = acts.sel(site, layer, acts.positions[0]).double()
        differences = values[0::2] - values[1::2]
        made, explained = direction_of(differences, method)
        vectors[layer] = made.float()
        agree = float(((differences @ made) > 0).double().mean())
        about[str(layer)] = {"agree": agree, "explained": explained, "halves": _halves(differences, method, halves)}
    provenance = {
        **model.provenance(), "method": f"{method} of differences", "pairs": len(several), "position": str(position),
        "layers": about, "seed": seed, "digest": _digest([e.ids for e in model.encode(flat)]),
    }  # fmt: skip
    return SteeringVector(vectors, site, coefficient, provenance=provenance, **where)


def direction_of(differences: Tensor, method: Method) -> tuple[Tensor, float]:
    """The vector of differences `[pair, d]`, and the share of their squared length that lies along it.

    Raises:
        DirectionError: When they are all zero, or, for `"pca"`, cancel each other along their component.
    """
    mean = differences.mean(0)
    total = float(differences.square().sum())
    if total == 0:
        raise DirectionError("the two sides of every pair have the same activations: read them at a token that differs")
    unit = mean / mean.norm()
    if method == "pca":
        unit = torch.linalg.svd(differences, full_matrices=False)[2][0]
        length = float(mean @ unit)
        if abs(length) < 1e-9 * total**0.5:
            raise DirectionError("the pairs differ as much one way as the other, so their component has no sign")
        mean = unit * length
    return mean, float((differences @ unit).square().sum()) / total


def _halves(differences: Tensor, method: Method, orders: Sequence[NDArray[Any]]) -> float:
    """Median cosine of the vectors of two halves of the pairs."""
    found: list[float] = []
    for order in orders:
        one, two = (
            direction_of(differences[torch.as_tensor(part)], method)[0] for part in np.array_split(order, 2)
        )  # fmt: skip
        found.append(float(torch.nn.functional.cosine_similarity(one, two, dim=0)))
    return float(np.median(found))


def _digest(texts: Sequence[Sequence[int]]) -> str:
    return hashlib.sha256("\n".join(" ".join(map(str, ids)) for ids in texts).encode()).hexdigest()[:16]
