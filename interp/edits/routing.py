"""Edits of a mixture of experts' routing: which experts a token is sent to, and with which weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from interp.edits.fitting import Where, where
from interp.errors import EditError, SiteError
from interp.model.architecture import Architecture
from interp.model.batch import Cells, Phase
from interp.model.ops import Op
from interp.model.router_tap import chosen_experts
from interp.model.sites import check_layers

RouteMode = Literal["drop_renorm", "mask_pre_topk", "force"]
"""What `route` does with experts."""
_UNCHOSEN = "changed no token of what was run: none chose one of these experts; check its experts, positions and phase"


@dataclass(frozen=True, eq=False)
class Route(Where):
    """Drops, masks or forces experts; make it with `route`."""

    experts: tuple[tuple[int, int], ...]
    mode: RouteMode

    def __repr__(self) -> str:
        return f"route({list(self.experts)}, {self.mode} at {'+'.join(map(str, self.positions))}, {self.phase})"

    def ops(self, arch: Architecture) -> Sequence[Op]:
        """The edit fitted to a model."""
        by_layer: dict[int, set[int]] = {}
        for layer, expert in self.experts:
            (at,) = check_layers(layer, arch.n_layers)
            n = arch.feature("router_logits", [at]).width
            if not 0 <= expert < n:
                raise SiteError(f"expert {expert} of layer {layer} is out of range: experts are 0 to {n - 1}")
            by_layer.setdefault(at, set()).add(expert)
        return [op for layer, experts in by_layer.items() for op in self._at(arch, layer, sorted(experts))]

    def _at(self, arch: Architecture, layer: int, experts: list[int]) -> list[Op]:
        n, k = (arch.feature(site, [layer]).width for site in ("router_logits", "expert_indices"))
        if self.mode == "drop_renorm":
            return [self._op("routing", layer, _drop(experts), met=_moved)]
        if self.mode == "mask_pre_topk":
            if n - len(experts) < k:
                raise EditError(
                    f"layer {layer} has {n} experts and chooses {k} of them: no more than {n - k} can be masked, but "
                    f"{len(experts)} were; mode='drop_renorm' lets none replace them"
                )
            router = arch.module(layer, "router")
            return [
                self._op("router_logits", layer, _fill(experts, float("-inf")), _chose(router, experts, arch.d_model)),
                self._op("choice", layer, _rule_out(experts, k, layer), _nowhere),
                self._op("routing", layer, _verify_out(experts, layer), _nowhere),
            ]
        if len(experts) > k:
            raise EditError(f"layer {layer} chooses {k} experts: {len(experts)} cannot all be forced")
        return [
            self._op("router_logits", layer, _raise_to_top(experts)),
            self._op("choice", layer, _fill(experts, float("inf")), _nowhere),
            self._op("routing", layer, _verify_in(experts, layer), _nowhere),
        ]

    def _op(self, site: str, layer: int, change: _Change, met: Callable[[Tensor, Tensor], Tensor] | None = None) -> Op:
        found = Op(site, layer, change, self.positions, self.phase, self, met)
        return found if self.mode == "force" else replace(found, hint=_UNCHOSEN)


def route(
    experts: Sequence[tuple[int, int]],
    mode: RouteMode = "drop_renorm",
    *,
    positions: str | int | Sequence[str | int] = "all",
    phase: Phase | None = None,
) -> Route:
    """Drop, mask or force experts of a mixture of experts (Mixture of Tunable Experts, Dahlke et al. 2025, 2502.11096).

    - `"drop_renorm"`, the paper's suppression as it is reported (no official code): the experts' weights become 0 and
      those of the other chosen experts grow so that the sum stays what it was; no replacement enters. A token all of
      whose experts are dropped gets none.
    - `"mask_pre_topk"`: the router's logit becomes minus infinity before the choice, so that a replacement enters; the
      weights are what the family makes of the remaining logits.
    - `"force"`: the expert is among the chosen at every token. Its logit is raised to the token's largest (as in
      SteerMoE, Fayyaz et al. 2025, 2509.09660; the paper's own rule is not known), and the family's weights follow.
      Where that does not get it chosen (a tie, DeepSeek's groups and correction bias), it takes the place of the last
      chosen.

    Shared experts are not routed and stay as they are.

    Args:
        experts: Pairs (layer, expert).
        mode: See above; `"drop_renorm"` unless said otherwise.
        positions: Tokens.
        phase: `"prompt"`, `"generation"` or `"both"`.

    Raises:
        EditError: For a mode there isn't, or no experts. When it is run: when more experts are forced than a token
            gets, or masked than can be replaced (within groups, too), and when no token had chosen any of the experts
            that are dropped or masked, since a silent no-op is a bug.
        SiteError: When it is run, for a layer without a router or an expert there isn't.
    """
    if mode not in get_args(RouteMode):
        raise EditError(f"unknown mode {mode!r}; known: {', '.join(get_args(RouteMode))}")
    try:
        pairs = tuple((int(layer), int(expert)) for layer, expert in experts)
    except TypeError as error:
        raise EditError(f"{experts!r:.60} is no list of pairs (layer, expert); give for instance [(2, 7)]") from error
    if not pairs:
        raise EditError("no experts were given; they are pairs (layer, expert)")
    return Route(*where(positions, phase), pairs, mode)


_Change = Callable[[Tensor, Cells | None], Tensor]


def _drop(experts: list[int]) -> _Change:
    def change(x: Tensor, _cells: Cells | None) -> Tensor:
        chosen, weights = x.chunk(2, -1)
        dropped = _among(chosen, experts)
        kept = weights.masked_fill(dropped, 0)
        total, left = (w.sum(-1, keepdim=True) for w in (weights, kept))
        grown = kept * (total / torch.where(left > 0, left, 1.0))
        return torch.cat([chosen, torch.where(dropped.any(-1, keepdim=True), grown, weights)], -1)

    return change


def _fill(experts: list[int], value: float) -> _Change:
    def change(x: Tensor, _cells: Cells | None) -> Tensor:
        out = x.clone()
        out[..., experts] = value
        return out

    return change


def _raise_to_top(experts: list[int]) -> _Change:
    def change(x: Tensor, _cells: Cells | None) -> Tensor:
        out = x.clone()
        out[..., experts] = x.amax(-1, keepdim=True)
        return out

    return change


def _rule_out(experts: list[int], k: int, layer: int) -> _Change:
    fill = _fill(experts, float("-inf"))

    def change(x: Tensor, cells: Cells | None) -> Tensor:
        out = fill(x, cells)
        if bool(((out > float("-inf")).sum(-1) < k).any()):
            raise EditError(
                f"with experts {experts} of layer {layer} masked, fewer than the {k} that a token gets are left to "
                "choose from (a router that chooses within groups of experts needs enough of them in each)"
            )
        return out

    return change


def _verify_in(experts: list[int], layer: int) -> _Change:
    def change(x: Tensor, _cells: Cells | None) -> Tensor:
        chosen, weights = x.chunk(2, -1)
        for expert in experts:
            if not bool(((chosen == expert) & (weights != 0)).any(-1).all()):
                raise EditError(
                    f"expert {expert} of layer {layer} was forced, but does not take part; another edit keeps it out, "
                    "or this router chooses by something else than a top-k"
                )
        return x

    return change


def _verify_out(experts: list[int], layer: int) -> _Change:
    def change(x: Tensor, _cells: Cells | None) -> Tensor:
        if bool(_among(x.chunk(2, -1)[0], experts).any()):
            raise EditError(
                f"an expert of {experts} of layer {layer} was masked and is chosen all the same; another edit brings "
                "it back, or this router chooses by something else than a top-k"
            )
        return x

    return change


def _among(chosen: Tensor, experts: list[int]) -> Tensor:
    return torch.isin(chosen, torch.tensor(experts, device=chosen.device, dtype=chosen.dtype))


def _moved(old: Tensor, new: Tensor) -> Tensor:
    return (old != new).any(-1)


def _nowhere(old: Tensor, _new: Tensor) -> Tensor:
    """An op beside the one that counts."""
    return torch.zeros(old.shape[:-1], dtype=torch.bool, device=old.device)


def _chose(router: nn.Module, experts: list[int], d_model: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Tokens that would choose one of the experts."""

    def met(old: Tensor, _new: Tensor) -> Tensor:
        chosen = chosen_experts(router, old.reshape(-1, old.shape[-1]), d_model)
        return _among(chosen, experts).any(-1).view(old.shape[:-1])

    return met
