"""Streaming statistics: class means without keeping the activations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from interp.activations.columns import resolve_columns
from interp.errors import PromptError
from interp.model.batching import TOKEN_BUDGET
from interp.model.model import Model
from interp.model.sites import check_layers
from interp.progress import progress_bar
from interp.text.encoded import Encoded, PromptLike
from interp.text.prompts import PromptSet


@dataclass(frozen=True)
class ClassMeans:
    """Mean activation of every class.

    Attributes:
        classes: Names along the first axis.
        mean: fp32 `[class, layer, position, feature]`.
        norm: Median L2 norm of single activations over all classes, `[layer, position]`.
        counts: Prompts per class.
        layers: 0-based layers.
        positions: Column names.
    """

    classes: tuple[Any, ...]
    mean: Tensor
    norm: Tensor
    counts: tuple[int, ...]
    layers: tuple[int, ...]
    positions: tuple[str, ...]

    def __repr__(self) -> str:
        counts = ", ".join(f"{name}: {n}" for name, n in zip(self.classes, self.counts, strict=True))
        return f"ClassMeans({{{counts}}}; mean {list(self.mean.shape)}, layers {self.layers})"

    def of(self, name: Any) -> Tensor:
        """One class's mean `[layer, position, feature]`."""
        return self.mean[self.classes.index(name)]


def class_means(
    model: Model,
    prompts: Sequence[PromptLike] | Sequence[Encoded],
    labels: ArrayLike | None = None,
    site: str = "resid_post",
    positions: str | int | Sequence[str | int] = "post_inst",
    layers: Sequence[int] | None = None,
    *,
    token_budget: int = TOKEN_BUDGET,
    progress: bool = False,
) -> ClassMeans:
    """Mean activation of each class of prompts, summed in fp32 batch by batch.

    Memory does not grow with the number of prompts, but for one norm per prompt, layer and position.

    Args:
        model: The model.
        prompts: Prompts.
        labels: One label per prompt; by default those of a `PromptSet`.
        site: A site, or `"stream"`: `resid_pre` of every layer and, as one layer more, the end of the last.
        positions: Single tokens or fixed regions.
        layers: 0-based; all by default, and always all for the stream.
        token_budget: Padded tokens per batch.
        progress: Show a progress bar.

    Raises:
        PromptError: When labels and prompts differ in number.
    """
    chosen = check_layers(layers, model.n_layers) if site == "stream" else model.layers_for([site], layers)
    if site == "stream":
        requests = [("resid_pre", chosen), ("resid_post", (model.n_layers - 1,))]
        chosen = tuple(range(model.n_layers + 1))
    else:
        requests = [(site, chosen)]
    if labels is None:
        if not isinstance(prompts, PromptSet):
            raise PromptError("class_means needs labels, one per prompt; a PromptSet brings its own")
        labels = np.array([str(p.label) for p in prompts])
    encoded = model.encode(prompts)
    classes, index = np.unique(np.asarray(labels), return_inverse=True)
    if len(index) != len(encoded):
        raise PromptError(f"{len(encoded)} prompts came with {len(index)} labels")
    names, columns = resolve_columns(encoded, positions)
    shape = (len(chosen), len(names), model.width(requests[0][0], encoded, requests[0][1]))
    sums = torch.zeros(len(classes), *shape)
    norms = torch.empty(len(encoded), len(chosen), len(names))
    belongs = torch.as_tensor(index)
    with progress_bar("class means", len(encoded), progress) as advance:
        reads = [(request, columns) for request in requests]
        for step in model.steps(encoded, reads, stop=True, token_budget=token_budget, done=advance):
            value = torch.cat([step.grid(name) for name, _ in requests], 1).float()
            sums.index_add_(0, belongs[step.rows], value)
            norms[step.rows] = value.norm(dim=-1)
    counts = torch.bincount(belongs, minlength=len(classes))
    mean = sums / counts[:, None, None, None]
    return ClassMeans(
        tuple(c.item() if hasattr(c, "item") else c for c in classes), mean, norms.median(0).values,
        tuple(counts.tolist()), chosen, names,
    )  # fmt: skip
