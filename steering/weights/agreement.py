"""Whether changed weights do what the edits do at run time, by what comes out of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from interp.errors import EditError, ModelError
from interp.model.hooks import HooksBackend
from interp.model.model import Model
from steering.weights.plan import Change, Place
from steering.weights.shell import Shell

TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}
"""Largest difference of logits, in their standard deviations; for half types, of the token in the middle."""
ALONG = {torch.float64: 1e-9, torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 5e-3}
"""Largest share of what a writer adds that may lie along a direction that was taken out."""
_TEXTS = ("Please tell me how bread is baked at home.", "What is a river? Answer in one short sentence.")


@dataclass(frozen=True)
class Agreement:
    """Changed weights against run-time edits, on the logits after every token of two short prompts.

    Attributes:
        error: Largest difference, in standard deviations of the logits.
        median: The middle token's largest difference, likewise.
        effect: How far the edits themselves move the logits, likewise: what the difference is to be compared with.
        along: Largest share of what any changed writer adds that still lies along the directions taken out; `None`
            where none were.
        tokens: Tokens compared.
        tolerance: What the difference had to be within.
        exact: Whether it was; otherwise the weights are the nearest there are, and `along` is what was checked.
    """

    error: float
    median: float
    effect: float
    along: float | None
    tokens: int
    tolerance: float
    exact: bool


class Judge:
    """What the edits do at run time, measured once on the user's model.

    Args:
        model: The user's.
        edits: What the weights are to do.
    """

    def __init__(self, model: Model, edits: Sequence[Any]) -> None:
        self.model = model
        self.ids = [torch.tensor([e.ids], device=model.device) for e in model.encode(list(_TEXTS))]
        self.plain = self._logits(model.hf)
        with model.edited(*edits):
            self.wanted = self._logits(model.hf)
        self.effect = self._distance(self.wanted, self.plain)[0]
        if self.effect == 0:
            raise EditError("the edits change no logit of two short prompts: what they take out or add has no effect")

    def __call__(self, shell: Shell, changes: Mapping[Place, Change], exact: bool = True) -> Agreement:
        """Compare; raise `ModelError` when the weights do not do what was asked of them."""
        error, median = self._distance(self._logits(shell.hf), self.wanted)
        along = share_along(shell, changes, self.ids)
        kind = self.model.dtype
        tolerance, half = TOLERANCE.get(kind, 0.1), kind.itemsize < 4
        if half and along is None:
            tolerance = min(tolerance, self.effect / 2)  # an addition is not to be mistaken for rounding
        found = Agreement(
            error, median, self.effect, along, sum(i.shape[1] for i in self.ids), tolerance,
            (median if half else error) <= tolerance,
        )  # fmt: skip
        most = ALONG.get(kind, 3e-2)
        if along is not None and not along <= most:
            raise ModelError(
                f"{type(shell.hf).__name__}: after the edit its writers still add {along:.2g} of what they add along "
                f"the direction (at most {most:.0e} is rounding): something writes to the stream that this version "
                "does not know; use run-time edits"
            )
        if exact and not found.exact:
            raise ModelError(
                f"{type(shell.hf).__name__}: the changed weights are not equal to the run-time edits: the logits of "
                f"two short prompts differ by {error:.2g} of their standard deviation (the edits move them by "
                f"{self.effect:.2g}; {tolerance:.0e} is allowed in {str(kind).removeprefix('torch.')}); use run-time "
                "edits, and please report the architecture"
            )
        return found

    def same_as_plain(self, hf: Any) -> bool:
        """Whether a model gives the logits of the user's own, bit for bit."""
        return all(torch.equal(a, b) for a, b in zip(self._logits(hf), self.plain, strict=True))

    @torch.inference_mode()
    def _logits(self, hf: Any) -> list[Tensor]:
        return [hf(input_ids=ids, use_cache=False).logits[0].float() for ids in self.ids]

    @staticmethod
    def _distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> tuple[float, float]:
        ours, theirs = torch.cat(list(a)), torch.cat(list(b))
        worst = (ours - theirs).abs().amax(-1) / theirs.std()
        return float(worst.max()), float(worst.median())


@torch.inference_mode()
def share_along(shell: Shell, changes: Mapping[Place, Change], ids: Sequence[Tensor]) -> float | None:
    """The largest share of what changed writers add that lies in the subspaces they were to lose.

    Of each writer the largest component over all tokens, over the largest norm: a token at which a writer adds next to
    nothing says nothing.
    """
    sites = {"embed": "resid_pre", "attn": "attn_out", "mlp": "mlp_out"}
    wanted = {(layer, sites[kind]): c for (layer, kind), c in changes.items() if c.rank and c.projects}
    worst: list[float] = []

    def visit(layer: int, site: str, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1]).double()
        inside = flat @ wanted[layer, site].into.to(flat)
        worst.append(float(inside.norm(dim=-1).max() / flat.norm(dim=-1).max().clamp(min=1e-30)))
        return x

    with HooksBackend().attach(shell.arch, set(wanted), visit):
        for one in ids:
            shell.hf(input_ids=one, use_cache=False)
    return max(worst) if worst else None
