"""What an edit is to a model: changes of values at places, and the tokens they are for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from interp.errors import EditError
from interp.model.architecture import Architecture
from interp.model.batch import Cells, Phase

Change = Callable[[Tensor, Cells | None], Tensor]
Weight = Callable[[Cells], Tensor]
INTERNAL = {"choice": "router_logits", "routing": "expert_weights"}
"""Sites for `Op`s alone, each beside a site at the same layers: the scores that a router takes its top-k of, where a
change concerns the choice only, and expert indices and weights side by side."""


@dataclass(frozen=True)
class Op:
    """One change at one place.

    Attributes:
        site: Where; see `interp.model.sites` and `INTERNAL`.
        layer: 0-based block.
        change: Maps values `[..., width]` to new ones of the same shape. `Cells` come along when single tokens were
            picked (`[cells, width]`), and `None` when the whole tensor `[batch, token, width]` is given.
        positions: Names or numbers of prompt positions, or `"all"`.
        phase: Prompt tokens at `positions`, generated tokens, or both.
        owner: The edit this op belongs to, for counting what it touched.
        met: Which tokens count as touched, from the values `[..., width]` before and after; all by default.
        hint: What to tell someone whose edit touched nothing.
        tokenwise: Hand over single tokens with their `Cells` even where all are picked: padding is left out.
        uniform: The change is the same for every token and looks at no `Cells`, so that a decoding step needs none.
        window: How much of the change each token gets, `[cells]` from 0 to 1 or yes and no; all of it by default.
            Tokens that get nothing do not count as touched.
        gate: Which tokens get it at all, `[cells]`, by what is known of their prompt. These count as touched either
            way: that a condition holds nowhere is no mistake.
    """

    site: str
    layer: int
    change: Change
    positions: tuple[str | int, ...]
    phase: Phase
    owner: Any = None
    met: Callable[[Tensor, Tensor], Tensor] | None = None
    hint: str = "met no token of what was run; check its positions and phase"
    tokenwise: bool = False
    uniform: bool = False
    window: Weight | None = None
    gate: Weight | None = None

    @property
    def picky(self) -> bool:
        """Whether it has to be told which token is which."""
        return self.tokenwise or self.window is not None or self.gate is not None


class Edit(Protocol):
    """Anything that changes a forward pass."""

    def ops(self, arch: Architecture) -> Sequence[Op]:
        """The changes, fitted to a model; raises when they do not fit."""
        ...


class Editing(Protocol):
    """What stands for edits, a steering vector for instance."""

    def edits(self) -> Sequence[Edit]:
        """The edits."""
        ...


Edits = Edit | Editing | Sequence[Any]


def flatten_edits(edits: Any) -> list[Edit]:
    """Edits as a flat list: anything with an `edits()` method (a steering vector, say) stands for its edits."""
    flat: list[Edit] = []
    several: list[Any] = [edits] if hasattr(edits, "ops") or hasattr(edits, "edits") else list(edits)
    for edit in several:
        if hasattr(edit, "edits"):
            flat += flatten_edits(edit.edits())
        elif isinstance(edit, list | tuple):
            flat += flatten_edits(edit)
        elif hasattr(edit, "ops"):
            flat.append(edit)
        else:
            raise EditError(f"{edit!r} is no edit; make one with interp.edits or steering.SteeringVector")
    return flat
