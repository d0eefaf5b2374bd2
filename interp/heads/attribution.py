"""Direct attribution: what every head, MLP and the embedding write along a direction, by folding it into the weights.

A head's part is `z_h . (W_O,h r)`: the direction is folded into the output projection once, and nothing of shape
`[token, head, d_model]` is ever made. Parts are direct: what a head does through later layers is not in its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from einops import rearrange
from numpy.typing import ArrayLike
from torch import Tensor

from interp.activations.columns import resolve_columns
from interp.direction import Direction
from interp.errors import DirectionError, SiteError
from interp.heads.norms import FrozenNorm, final_norm, frozen_norm, post_norm
from interp.heads.weights import output_weights
from interp.model.batching import TOKEN_BUDGET
from interp.model.model import Model, Prompts
from interp.model.sites import check_layers
from interp.model.steps import Step
from interp.progress import progress_bar
from interp.text.prompts import Prompt

NormSide = Literal["pre", "post"]
_TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-3}


@dataclass(frozen=True, eq=False)
class Attribution:
    """Parts of a projection, which sum to the whole.

    `total = embedding + sum(heads) + sum(biases) + sum(mlps) + constant`, up to rounding.

    Attributes:
        heads: `[prompt, layer, position, head]`: what each head writes along the direction, biases left out.
        biases: `[prompt, layer, position]`: what the bias of the output projection (and of a norm behind it) writes.
        mlps: `[prompt, layer, position]`: what each MLP or mixture of experts writes.
        embedding: `[prompt, position]`: what the stream begins with.
        constant: What no part of the stream gives: the probe's bias, and that of the final norm.
        total: `[prompt, position]`: the projection itself, read off the stream.
        layer: Layer after whose block the stream is read; parts are of layers 0 to this one.
        norm: `"pre"` for the stream itself, `"post"` for the stream after the final norm, its scale frozen.
        positions: Column names.
        prompts: The prompts.
        provenance: Model, direction, versions.
    """

    heads: Tensor
    biases: Tensor
    mlps: Tensor
    embedding: Tensor
    constant: float
    total: Tensor
    layer: int
    norm: NormSide
    positions: tuple[str, ...]
    prompts: tuple[Prompt, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __repr__(self) -> str:
        where = "resid_post" if self.norm == "pre" else "the final norm's output"
        return (
            f"Attribution({list(self.heads.shape)} of {where}[{self.layer}] at {', '.join(self.positions)}; sum off by "
            f"{self.error:.1e})"
        )

    @property
    def parts(self) -> Tensor:
        """The sum of all parts `[prompt, position]`."""
        written = self.heads.double().sum((1, 3)) + self.biases.double().sum(1) + self.mlps.double().sum(1)
        return (written + self.embedding.double() + self.constant).float()

    @property
    def error(self) -> float:
        """Largest difference of the parts' sum from the whole, as a share of the largest whole."""
        return float((self.parts - self.total).abs().max() / self.total.abs().max().clamp(min=1e-30))

    def mean(self) -> Tensor:
        """Mean over prompts and positions, `[layer, head]`."""
        return self.heads.mean((0, 2))

    def ranked(self) -> list[tuple[int, int]]:
        """Heads (layer, head), the most negative first: those that push the projection down."""
        mean = self.mean()
        return [divmod(int(i), mean.shape[1]) for i in mean.flatten().argsort(stable=True)]

    def to_frame(self) -> Any:
        """One row per part (pandas): kind, layer, head, mean, its 95 % bootstrap interval over groups, and n."""
        import pandas as pd

        from interp.heads.intervals import mean_intervals

        depth, n_heads = self.heads.shape[1], self.heads.shape[3]
        names: list[dict[str, Any]] = [{"part": "embedding", "layer": None, "head": None}]
        columns = [self.embedding.mean(1)]
        for layer in range(depth):
            names += [{"part": "head", "layer": layer, "head": head} for head in range(n_heads)]
            columns += list(self.heads[:, layer].mean(1).unbind(1))
            names += [{"part": part, "layer": layer, "head": None} for part in ("attention bias", "mlp")]
            columns += [self.biases[:, layer].mean(1), self.mlps[:, layer].mean(1)]
        mean, low, high = mean_intervals(torch.stack(columns, 1), [p.group for p in self.prompts])
        return pd.DataFrame(
            [{**name, "mean": m, "low": a, "high": b, "n": len(self.prompts)}
             for name, m, a, b in zip(names, mean, low, high, strict=True)]
        ).astype({"layer": "Int64", "head": "Int64"})  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Fold:
    """One layer's output projection with the direction in it.

    `vectors` `[head, d_head]`; where a norm follows, both are at scale 1, and the norm's own bias is `after`.
    """

    vectors: Tensor
    bias: float
    after: float
    norm: FrozenNorm | None
    weight: Tensor | None
    shift: Tensor | None


def attribute(
    model: Model,
    prompts: Prompts,
    direction: Direction | ArrayLike,
    *,
    bias: float = 0.0,
    layer: int | None = None,
    norm: NormSide = "pre",
    positions: str | int | Sequence[str | int] = "last",
    token_budget: int = TOKEN_BUDGET,
    progress: bool = False,
) -> Attribution:
    """Divide the projection of the residual stream on a direction among everything that writes to it.

    Where attention's output goes through a norm of its own before it is added (Gemma 2 and 3, OLMo 2), that norm's
    scale is frozen at its value in the forward, and is part of the fold. With `norm="post"` so is the final norm's.
    Head contribution tracing of "Refusal Falls off a Cliff" (arXiv 2510.06036, official code) is `norm="pre"` with the
    prober's weights at length 1; as its prober reads the stream after the final norm, `norm="post"` is the consistent
    choice.

    Args:
        model: The model; its output projections must be readable.
        prompts: One or several.
        direction: A `Direction` of the residual stream, or a vector `[d_model]`: a probe's weights, a difference of
            rows of the unembedding. It is taken at its own length.
        bias: A probe's bias; it goes to `constant`.
        layer: Layer after whose block the stream is read; a direction's own place, else the last layer.
        norm: Whether the direction lives before (`"pre"`) or after (`"post"`, last layer only) the final norm. Every
            `Direction` lives before.
        positions: Single-token positions.
        token_budget: Padded tokens per batch.
        progress: Show a progress bar.

    Raises:
        DirectionError: For a direction of another width or site, or one given for the wrong side of the norm.
        ModelError: When an output projection is quantised or otherwise unreadable.
        SiteError: For a layer there isn't, and when the parts do not sum to the whole.
    """
    vector, at = _target(model, direction, layer, norm)
    encoded = model.encode(prompts)
    names, columns = resolve_columns(encoded, positions)
    layers = tuple(range(at + 1))
    folded = vector.to(model.device)
    final = frozen_norm(final_norm(model), model.d_model) if norm == "post" else None
    pulled = folded if final is None else final.pull(folded.to(final.gain.device))
    folds = [_fold(model, index, pulled) for index in layers]
    n, width = len(encoded), len(names)
    heads = torch.empty(n, len(layers), width, model.n_heads)
    biases, mlps = torch.empty(n, len(layers), width), torch.empty(n, len(layers), width)
    embedding, total = torch.empty(n, width), torch.empty(n, width)
    reads = [(("z", layers), columns), (("mlp_out", layers), columns), (("resid_pre", (0,)), columns),
             (("resid_post", (at,)), columns)]  # fmt: skip
    with progress_bar("attributing", n, progress) as advance:
        for step in model.steps(encoded, reads, stop=True, token_budget=token_budget, done=advance):
            rows, (own, beside) = step.rows, _heads(step, folds, model.n_heads)
            end = step.grid("resid_post")[:, 0].float().to(folded.device)
            scale = torch.ones(end.shape[:-1], device=end.device) if final is None else final.scale(end)
            whole = end @ folded if final is None else final(end) @ folded
            scaled, along = scale.cpu(), pulled.cpu()
            heads[rows] = own * scaled[:, None, :, None]
            biases[rows] = beside * scaled[:, None]
            mlps[rows] = (step.grid("mlp_out").float() @ along) * scaled[:, None]
            embedding[rows] = (step.grid("resid_pre")[:, 0].float() @ along) * scaled
            total[rows] = whole.cpu() + bias
    constant = bias + (0.0 if final is None else float(final.bias @ folded))
    about = {**model.provenance(), "direction": repr(direction) if isinstance(direction, Direction) else "a vector"}
    found = Attribution(heads, biases, mlps, embedding, constant, total, at, norm, names,
                        tuple(e.prompt for e in encoded), about)  # fmt: skip
    _check_sum(found, model)
    return found


def _target(model: Model, direction: Direction | ArrayLike, layer: int | None, norm: str) -> tuple[Tensor, int]:
    """The vector, and the layer after whose block the stream is read."""
    if norm not in ("pre", "post"):
        raise DirectionError(f"norm is {norm!r}; a direction lives before the final norm ('pre') or after it ('post')")
    last, own = model.n_layers - 1, layer
    if isinstance(direction, Direction):
        vector = direction.vector
        if norm == "post":
            raise DirectionError(
                f"{direction!r} was read before the final norm, as all sites are; leave norm= out. If its vector was "
                "fitted to states after the norm, give direction.vector"
            )
        if layer is None:
            if direction.site not in ("resid_pre", "resid_post") or (direction.site, direction.layer) == (
                "resid_pre", 0
            ):  # fmt: skip
                raise DirectionError(
                    f"{direction!r} was not read off the stream after a block; say with layer= after which block "
                    "what is written along it is to be counted"
                )
            own = direction.layer - (direction.site == "resid_pre")
    else:
        vector = torch.as_tensor(direction).detach().float().cpu()
    if vector.shape != (model.d_model,):
        raise DirectionError(
            f"a direction of shape {tuple(vector.shape)} does not fit the stream of this model, which is "
            f"{model.d_model} wide; was it made for another model?"
        )
    if not bool(torch.isfinite(vector).all()) or float(vector.norm()) == 0:
        raise DirectionError("attribution needs one finite, non-zero vector")
    (at,) = check_layers(last if own is None else own, model.n_layers)
    if norm == "post" and at != last:
        raise DirectionError(f"norm='post' is about the stream after the last block ({last}), but layer={at} was given")
    return vector, at


def _fold(model: Model, layer: int, direction: Tensor) -> _Fold:
    weight, shift = output_weights(model.arch, layer)
    norm = post_norm(model.arch, layer)
    along = direction.to(weight.device)
    if norm is None:
        return _Fold(weight @ along, float(shift @ along), 0.0, None, None, None)
    pulled = norm.pull(along.to(norm.gain.device)).to(weight.device)
    after = float(norm.bias @ along.to(norm.bias.device))
    whole = rearrange(weight, "h k d -> (h k) d")
    return _Fold(weight @ pulled, float(shift @ pulled), after, norm, whole, shift)


def fold_heads(z: Tensor, vectors: Tensor) -> Tensor:
    """What heads write along a direction, `[prompt, layer, position, head]`.

    Args:
        z: Their outputs `[prompt, layer, position, head, d_head]`.
        vectors: The direction before each head's output projection `[layer, head, d_head]`.
    """
    # Two operands: with three, einsum makes the product of the first two.
    return torch.einsum("blphk,lhk->blph", z, vectors)


def _heads(step: Step, folds: Sequence[_Fold], n_heads: int) -> tuple[Tensor, Tensor]:
    """Parts of the heads `[prompt, layer, position, head]` and of biases `[prompt, layer, position]`."""
    grid = step.grid("z").float()
    z = rearrange(grid, "b l p (h k) -> b l p h k", h=n_heads)
    own = fold_heads(z, torch.stack([fold.vectors.cpu() for fold in folds]))
    beside = torch.zeros(own.shape[:-1])
    for layer, fold in enumerate(folds):
        if fold.norm is None:
            beside[:, layer] = fold.bias
            continue
        assert fold.weight is not None and fold.shift is not None
        entering = grid[:, layer].to(fold.weight.device) @ fold.weight + fold.shift
        scale = fold.norm.scale(entering.to(fold.norm.gain.device)).cpu()
        own[:, layer] *= scale[..., None]
        beside[:, layer] = fold.bias * scale + fold.after
    return own, beside


def _check_sum(found: Attribution, model: Model) -> None:
    tolerance = _TOLERANCE.get(model.dtype, 5e-2)
    # Against the parts, too: large ones that cancel leave a small whole.
    size = torch.stack([found.heads.abs().amax((1, 3)), found.mlps.abs().amax(1), found.embedding.abs()]).max()
    error = (found.parts - found.total).abs().max() / torch.maximum(size, found.total.abs().max()).clamp(min=1e-30)
    if float(error) > tolerance:
        raise SiteError(
            f"the parts do not sum to the whole (relative error {float(error):.2g}): something else writes to the "
            "stream of this model, or an edit is open (model.edited); close it, or report the architecture"
        )
