"""What an audit can be told."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from interp.errors import RefusalkitError

OPTIONAL = ("knows", "guard", "thinking", "plans")
"""Sections that an audit can do without."""


@dataclass(frozen=True)
class Settings:
    """Sizes, thresholds and seed of an audit.

    Attributes:
        n_train: Most training prompts per class, for the means.
        n_val: Most validation prompts per class, for the selection.
        n_test: Most held-out prompts per class, for everything that is reported.
        n_random: Random directions as control.
        max_new_tokens: Longest answer.
        max_thought_tokens: Longest thought and answer of a model that thinks; 0 leaves the thinking out.
        min_induce: Threshold of the selection, see `probes.select_direction`.
        max_kl: Threshold of the selection.
        max_depth: Threshold of the selection.
        seed: For splits, draws and random directions.

    Raises:
        RefusalkitError: When a threshold is NaN or infinite.
    """

    n_train: int = 128
    n_val: int = 32
    n_test: int = 100
    n_random: int = 8
    max_new_tokens: int = 64
    max_thought_tokens: int = 1024
    min_induce: float = 0.0
    max_kl: float = 0.1
    max_depth: float = 0.8
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("min_induce", "max_kl", "max_depth"):
            if not math.isfinite(getattr(self, name)):
                raise RefusalkitError(f"{name} is {getattr(self, name)}; give a finite number")

    @property
    def limits(self) -> dict[str, float]:
        """The thresholds of the selection."""
        return {"min_induce": self.min_induce, "max_kl": self.max_kl, "max_depth": self.max_depth}

    def to_json(self) -> dict[str, Any]:
        """As a mapping."""
        return asdict(self)
