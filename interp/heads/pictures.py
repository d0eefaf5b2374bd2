"""What heads look at: their attention from the deciding token, by token and by part of the prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from interp.activations.columns import resolve_columns
from interp.edits.heads import check_heads
from interp.errors import PositionError, SiteError
from interp.model.batching import TOKEN_BUDGET
from interp.model.model import Model, Prompts
from interp.text.encoded import Encoded
from interp.text.prompts import Prompt

_BY_TOKEN = ("post_inst", "think_close")


@dataclass(frozen=True, eq=False)
class HeadAttention:
    """Rows of some heads' attention patterns.

    Attributes:
        weights: For each prompt `[head, token]`: what each head gives to each token up to its query. They may sum to
            less than 1: attention sinks take their share.
        tokens: For each prompt, its tokens as text.
        heads: The heads (layer, head).
        position: The query's name.
        regions: Names of the parts of a prompt, in order.
        by_region: `[prompt, head, region]`: weight that goes to each part.
        prompts: The prompts.
        provenance: Model, versions.
    """

    weights: tuple[Tensor, ...]
    tokens: tuple[tuple[str, ...], ...]
    heads: tuple[tuple[int, int], ...]
    position: str
    regions: tuple[str, ...]
    by_region: Tensor
    prompts: tuple[Prompt, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __repr__(self) -> str:
        return f"HeadAttention({len(self.heads)} heads from {self.position}, {len(self.prompts)} prompts)"

    def most(self, prompt: int, head: int, n: int = 5) -> list[tuple[str, float]]:
        """The tokens that get most of a head's attention (by its place in `heads`), with their weights."""
        weights = self.weights[prompt][head]
        best = weights.argsort(descending=True, stable=True)[:n].tolist()
        return [(self.tokens[prompt][i], float(weights[i])) for i in best]

    def to_frame(self) -> Any:
        """One row per head and part of the prompt (pandas): mean weight, its 95 % bootstrap interval, and n."""
        import pandas as pd

        from interp.heads.intervals import mean_intervals

        flat = rearrange(self.by_region, "n h r -> n (h r)")
        mean, low, high = mean_intervals(flat, [p.group for p in self.prompts])
        names = [(layer, head, region) for layer, head in self.heads for region in self.regions]
        return pd.DataFrame(
            [{"layer": layer, "head": head, "part": region, "weight": m, "low": a, "high": b, "n": len(self.prompts)}
             for (layer, head, region), m, a, b in zip(names, mean, low, high, strict=True)]
        )  # fmt: skip


def attention(
    model: Model,
    prompts: Prompts,
    heads: Sequence[tuple[int, int]],
    *,
    position: str | int = "last",
    token_budget: int = TOKEN_BUDGET,
) -> HeadAttention:
    """What heads look at from one token.

    Parts of a prompt are what stands before the instruction, the instruction, every template token behind it, the
    thought, every template token that ends it, and the rest.

    Args:
        model: The model, with eager attention (`attn_implementation="eager"`): others keep no pattern.
        prompts: Prompts or traces.
        heads: Heads (layer, head).
        position: The query: one token.
        token_budget: Padded tokens per batch.

    Raises:
        SiteError: For a head out of range, or when the attention keeps no pattern.
        PositionError: For a position that is no single token, or that a prompt lacks.
    """
    by_layer = check_heads(heads, model.arch)
    if not by_layer:
        raise SiteError("no heads were given to look at")
    encoded = model.encode(prompts)
    _, columns = resolve_columns(encoded, [position])
    if any(len(c) != 1 for c in columns):
        raise PositionError(f"{position!r} is not one token: attention is looked at from one")
    layers = tuple(sorted(by_layer))
    rows: list[Tensor] = [torch.empty(0)] * len(encoded)
    for step in model.steps(encoded, [(("pattern", layers), columns)], stop=True, token_budget=token_budget):
        grid = rearrange(step.grid("pattern")[:, :, 0].float(), "b l (h k) -> b l h k", h=model.n_heads)
        for row, weights in zip(step.rows, grid, strict=True):
            own = [weights[layers.index(layer % model.n_layers), head] for layer, head in heads]
            rows[row] = torch.stack(own)[:, : columns[row][0] + 1].clone()
    parts = [_parts(e) for e in encoded]
    regions = tuple(dict.fromkeys(name for named in parts for name in named))
    by_region = torch.zeros(len(encoded), len(heads), len(regions))
    for i, (named, weights) in enumerate(zip(parts, rows, strict=True)):
        for column, name in enumerate(named[: weights.shape[1]]):
            by_region[i, :, regions.index(name)] += weights[:, column]
    texts = tuple(
        tuple(e.text[a:b] or model.tokenizer.decode([t]) for t, (a, b) in zip(e.ids, e.offsets, strict=True))[
            : c[0] + 1
        ]
        for e, c in zip(encoded, columns, strict=True)
    )
    return HeadAttention(
        tuple(rows), texts, tuple((layer % model.n_layers, head) for layer, head in heads), str(position), regions,
        by_region, tuple(e.prompt for e in encoded), model.provenance(),
    )  # fmt: skip


def _parts(encoded: Encoded) -> list[str]:
    """The part of a prompt that each token belongs to; template tokens are counted from the end of theirs."""
    named = ["before"] * len(encoded)
    for column in range(encoded.spans["inst"][1], len(encoded)):
        named[column] = "answer"
    for region, called in (("inst", "instruction"), ("thinking", "thought")):
        for column in range(*encoded.spans.get(region, (0, 0))):
            named[column] = called
    for region in _BY_TOKEN:
        start, end = encoded.spans.get(region, (0, 0))
        for column in range(start, end):
            named[column] = f"{region}[{column - end}]"
    return named
