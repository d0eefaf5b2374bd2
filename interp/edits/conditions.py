"""Conditions: questions about a prompt, put to the activations that a forward pass shows, joined by and, or and not."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from interp.edits.fitting import check_vector_site
from interp.errors import EditError, NonFiniteError
from interp.model.sites import as_layers

Verdict = tuple[Tensor, Tensor]
"""For each row, a score and whether the condition holds `[row]`."""


class Condition(ABC):
    """Something that holds for a prompt or does not; join several with `&`, `|` and `~`."""

    @abstractmethod
    def readings(self) -> tuple[Reading, ...]:
        """The questions it is made of."""

    @abstractmethod
    def joined(self, holds: Mapping[Reading, Tensor]) -> Tensor:
        """Whether it holds, from whether each of its readings does."""

    def __and__(self, other: Condition) -> Condition:
        return _Joined("and", (self, other))

    def __or__(self, other: Condition) -> Condition:
        return _Joined("or", (self, other))

    def __invert__(self) -> Condition:
        return _Joined("not", (self,))


@dataclass(frozen=True, eq=False)
class Reading(Condition):
    """One question, asked of the activations at one site.

    Attributes:
        name: What it asks, for the report.
        site: Where it reads.
        layers: 0-based.
        positions: Prompt tokens, one each.
        judge: From fp32 activations `[row, layer, position, width]`, a score and a verdict for each row.
    """

    name: str
    site: str
    layers: tuple[int, ...]
    positions: tuple[str | int, ...]
    judge: Callable[[Tensor], Verdict]

    def __post_init__(self) -> None:
        check_vector_site(self.site)
        object.__setattr__(self, "layers", as_layers(self.layers))
        positions: str | int | Sequence[str | int] = self.positions
        several = (positions,) if isinstance(positions, str | int) else tuple(positions)
        object.__setattr__(self, "positions", several)
        if not self.layers or not several or "all" in several:
            raise EditError(f"the condition {self.name!r} needs layers, and tokens of the prompt by name")

    def __repr__(self) -> str:
        return f"{self.name} ({self.site}{list(self.layers)} at {'+'.join(map(str, self.positions))})"

    def readings(self) -> tuple[Reading, ...]:
        """Itself."""
        return (self,)

    def joined(self, holds: Mapping[Reading, Tensor]) -> Tensor:
        """Its own verdict."""
        return holds[self]

    def ask(self, x: Tensor) -> Verdict:
        """Score and verdict of activations `[row, layer, position, width]`.

        Raises:
            NonFiniteError: When an activation is NaN or infinite.
        """
        # The sum first: it is one call, and not finite wherever a term is not.
        if not math.isfinite(float(x.sum())) and not bool(torch.isfinite(x).all()):
            raise NonFiniteError(f"what the condition {self.name!r} reads is not finite, so nothing can be decided")
        score, holds = self.judge(x.float())
        if score.shape != (len(x),) or holds.shape != (len(x),):
            raise EditError(
                f"the condition {self.name!r} judged {len(x)} rows with shapes {score.shape}, {holds.shape}"
            )
        return score.to(x.device), holds.to(x.device, torch.bool)


@dataclass(frozen=True, eq=False)
class _Joined(Condition):
    word: str
    parts: tuple[Condition, ...]

    def __repr__(self) -> str:
        return f"not {self.parts[0]}" if self.word == "not" else f"({self.parts[0]} {self.word} {self.parts[1]})"

    def readings(self) -> tuple[Reading, ...]:
        return tuple(dict.fromkeys(r for part in self.parts for r in part.readings()))

    def joined(self, holds: Mapping[Reading, Tensor]) -> Tensor:
        first, *others = (part.joined(holds) for part in self.parts)
        if self.word == "not":
            return ~first
        return first & others[0] if self.word == "and" else first | others[0]
