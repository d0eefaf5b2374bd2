"""Path patching: what chosen heads tell the deciding token, directly and by way of what reads them.

The heads' outputs are taken from another run. What else may respond is chosen by what is frozen, i.e. held at what it
was in the plain run:

| `freeze` | held | measures |
|---|---|---|
| `"all"` | every other head and every MLP | the direct path, from the heads through the stream to the logits |
| `"heads"` | every other head | the direct path, and those through MLPs at the same token |
| `"none"` | nothing | the total effect |

(`"heads"` is the path patching of Wang et al. 2022, arXiv 2211.00593.) With all other heads held, nothing that changes
at an earlier token reaches the deciding one: only what the chosen heads write there counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from einops import rearrange
from torch import Tensor

from interp.activations.columns import resolve_columns
from interp.edits import patch, set_heads
from interp.edits.heads import check_heads
from interp.errors import EditError, PromptError
from interp.heads.intervals import mean_intervals
from interp.heads.score import LogitMetric, checked
from interp.model.model import Model, Prompts
from interp.model.ops import Edit
from interp.text.prompts import Prompt

Freeze = Literal["all", "heads", "none"]


@dataclass(frozen=True, eq=False)
class PathPatch:
    """A metric with heads' outputs taken from another run.

    Attributes:
        values: fp64 `[prompt]`: the metric with them.
        plain: fp64 `[prompt]`: without.
        heads: The heads (layer, head).
        freeze: What was held.
        positions: The tokens that were patched.
        prompts: The prompts.
        provenance: Model, versions.
    """

    values: Tensor
    plain: Tensor
    heads: tuple[tuple[int, int], ...]
    freeze: Freeze
    positions: tuple[str, ...]
    prompts: tuple[Prompt, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def effects(self) -> Tensor:
        """What patching adds to the metric, `[prompt]`."""
        return self.values - self.plain

    def __repr__(self) -> str:
        mean, low, high = mean_intervals(self.effects[:, None], [p.group for p in self.prompts])
        return (
            f"PathPatch({list(self.heads)} at {'+'.join(self.positions)}, freeze {self.freeze}: {mean[0]:.3g} "
            f"[{low[0]:.3g}, {high[0]:.3g}], n={len(self.plain)})"
        )


def path_patch(
    model: Model,
    prompts: Prompts,
    source: Prompts,
    heads: Sequence[tuple[int, int]],
    metric: LogitMetric,
    *,
    freeze: Freeze = "all",
    positions: str | int | Sequence[str | int] = "last",
) -> PathPatch:
    """Take heads' outputs from another run, and see what the next-token logits make of it.

    Args:
        model: The model.
        prompts: Prompts.
        source: The other run's prompts, one for each.
        heads: Heads (layer, head).
        metric: A function of next-token logits `[n, vocabulary]` to `[n]`.
        freeze: What is held at the plain run's values, see the module.
        positions: Single tokens to patch. With anything frozen, the last given token must be the only one.

    Raises:
        EditError: For an unknown `freeze`, or positions that a frozen path does not reach.
        PromptError: When there are not as many source prompts.
    """
    if freeze not in get_args(Freeze):
        raise EditError(f"unknown freeze {freeze!r}; known: {', '.join(get_args(Freeze))}")
    by_layer = check_heads(heads, model.arch)
    if not by_layer:
        raise EditError("no heads were given to patch")
    encoded, others = model.encode(prompts), model.encode(source)
    if len(encoded) != len(others):
        raise PromptError(f"{len(encoded)} prompts came with {len(others)} source prompts; give one for each")
    names, columns = resolve_columns(encoded, positions)
    _, theirs = resolve_columns(others, positions)
    if freeze != "none" and any(c != [len(e) - 1] for c, e in zip(columns, encoded, strict=True)):
        raise EditError(
            "with other heads frozen, only what is written at the last given token reaches the logits: name it alone"
        )
    layers = tuple(range(model.n_layers)) if freeze != "none" else tuple(sorted(by_layer))
    own, taken = (_z(model, items, layers, cells) for items, cells in ((encoded, columns), (others, theirs)))
    edits: list[Edit] = []
    given = list(positions) if not isinstance(positions, str | int) else [positions]
    for place, layer in enumerate(layers):
        values = rearrange(own[:, place], "n p (h d) -> n p h d", h=model.n_heads).clone()
        chosen = by_layer.get(layer, [])
        values[:, :, chosen] = rearrange(taken[:, place], "n p (h d) -> n p h d", h=model.n_heads)[:, :, chosen]
        if freeze == "none":
            edits.append(_some_heads(layer, chosen, values, columns, encoded, given))
        else:
            flat = rearrange(values, "n p h d -> n p (h d)")
            edits.append(patch(flat, site="z", layer=layer, positions=given))
    if freeze == "all":
        held = _read(model, encoded, "mlp_out", layers, columns)
        edits += [patch(held[:, i], site="mlp_out", layer=layer, positions=given) for i, layer in enumerate(layers)]
    plain = checked(metric(model.logits(encoded)), len(encoded))
    found = checked(metric(model.logits(encoded, edits=edits)), len(encoded))
    pairs = tuple((layer, head) for layer in sorted(by_layer) for head in by_layer[layer])
    return PathPatch(found, plain, pairs, freeze, names, tuple(e.prompt for e in encoded), model.provenance())


def _z(model: Model, encoded: Any, layers: tuple[int, ...], columns: list[list[int]]) -> Tensor:
    return _read(model, encoded, "z", layers, columns)


def _read(model: Model, encoded: Any, site: str, layers: tuple[int, ...], columns: list[list[int]]) -> Tensor:
    """A site `[prompt, layer, position, width]`."""
    shape = (len(encoded), len(layers), len(columns[0]), model.width(site, (), layers))
    found = torch.empty(shape, dtype=model.site_dtype(site, layers))
    for step in model.steps(encoded, [((site, layers), columns)], stop=True):
        found[step.rows] = step.grid(site)
    return found


def _some_heads(
    layer: int,
    chosen: list[int],
    values: Tensor,
    columns: list[list[int]],
    encoded: Any,
    given: list[Any],
) -> Edit:
    """Chosen heads alone: what the others make of it, they keep."""
    every: list[Tensor] = []
    for item, cells, own in zip(encoded, columns, values, strict=True):
        tokens = torch.zeros(len(chosen), len(item), own.shape[-1])
        tokens[:, cells] = own[:, chosen].transpose(0, 1).float()
        every.append(tokens)
    return set_heads([(layer, head) for head in chosen], every, positions=given)
