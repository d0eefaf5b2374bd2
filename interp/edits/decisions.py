"""What a condition decided, for which prompt and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from interp.edits.conditions import Condition, Reading
from interp.errors import EditError
from interp.progress import progress_bar
from interp.text.prompts import Prompt

if TYPE_CHECKING:
    from interp.model.model import Model, Prompts


@dataclass(frozen=True, eq=False)
class Decisions:
    """For each prompt of a run, whether the condition held.

    Attributes:
        acts: `[prompt]`.
        readings: Names of what was asked.
        scores: `[prompt, reading]`.
        holds: `[prompt, reading]`.
        prompts: The prompts, where they are known.
    """

    acts: NDArray[np.bool_]
    readings: tuple[str, ...]
    scores: NDArray[np.float64]
    holds: NDArray[np.bool_]
    prompts: tuple[Prompt, ...] = ()

    def __len__(self) -> int:
        return len(self.acts)

    def __repr__(self) -> str:
        return f"Decisions({int(self.acts.sum())} of {len(self)} prompts, by {', '.join(self.readings)})"

    def permuted(self, seed: int) -> Decisions:
        """As many decisions to act, for prompts drawn by chance: the control."""
        order = np.random.default_rng(seed).permutation(len(self))
        return replace(self, acts=self.acts[order], scores=self.scores[order], holds=self.holds[order])

    def to_frame(self) -> Any:
        """One row per prompt (pandas): whether it acts, and for each reading its score and verdict."""
        import pandas as pd

        table: dict[str, Any] = {}
        if self.prompts:
            table = {"prompt": [p.text for p in self.prompts], "label": [p.label for p in self.prompts]}
        table["acts"] = self.acts
        for i, name in enumerate(self.readings):
            table |= {f"{name}: score": self.scores[:, i], f"{name}: holds": self.holds[:, i]}
        return pd.DataFrame(table)


@dataclass(eq=False)
class DecisionLog:
    """Where `when` writes down what it decides; give it a new one for each run.

    Attributes:
        by_prompt: For each prompt (its place in the run), whether the edit acts, and score and verdict of each reading.
        by_token: Where every token is decided for itself: prompt, token (its index in the text), whether it acts, and
            the readings.
    """

    by_prompt: dict[int, tuple[bool, dict[str, tuple[float, bool]]]] = field(
        default_factory=dict[int, tuple[bool, dict[str, tuple[float, bool]]]]
    )
    by_token: list[tuple[int, int, bool, dict[str, tuple[float, bool]]]] = field(
        default_factory=list[tuple[int, int, bool, dict[str, tuple[float, bool]]]]
    )

    @property
    def decisions(self) -> Decisions:
        """Prompt by prompt.

        Raises:
            EditError: When nothing was run, or only some of the prompts.
        """
        n = len(self.by_prompt)
        if not n or set(self.by_prompt) != set(range(n)):
            raise EditError("there is no decision for every prompt: run them all with this log, and decide by prompt")
        rows = [self.by_prompt[i] for i in range(n)]
        names = tuple(rows[0][1])
        scores = np.array([[found[name][0] for name in names] for _, found in rows])
        holds = np.array([[found[name][1] for name in names] for _, found in rows], dtype=bool)
        return Decisions(np.array([acts for acts, _ in rows], dtype=bool), names, scores, holds)

    def to_frame(self) -> Any:
        """One row per prompt, or per token where those were decided for themselves (pandas)."""
        import pandas as pd

        if not self.by_token:
            return self.decisions.to_frame()
        return pd.DataFrame(
            [
                {"row": row, "token": token, "acts": acts}
                | {f"{n}: {what}": pair[i] for n, pair in found.items() for i, what in enumerate(("score", "holds"))}
                for row, token, acts, found in self.by_token
            ]
        )


def named(readings: Sequence[Reading]) -> dict[Reading, str]:
    """Readings with names apart."""
    found: dict[Reading, str] = {}
    for reading in readings:
        same = sum(r.name == reading.name for r in found)
        found[reading] = reading.name if not same else f"{reading.name} ({same + 1})"
    return found


def decide(model: Model, prompts: Prompts, condition: Condition, *, progress: bool = False) -> Decisions:
    """Ask a condition about prompts in a pass of its own, which ends after the last layer that is read.

    For an edit that acts before what the condition reads: `for_prompts(edit, decide(...).acts)`.

    Args:
        model: The model.
        prompts: Prompts.
        condition: What to ask.
        progress: Show a progress bar.

    Raises:
        EditError: For positions that are not one token each.
    """
    encoded = model.encode(prompts)
    holds: dict[Reading, torch.Tensor] = {}
    scores: dict[Reading, torch.Tensor] = {}
    for reading in condition.readings():
        columns = [[c for name in reading.positions for c in e.columns(name)] for e in encoded]
        if any(len(own) != len(reading.positions) for own in columns):
            raise EditError(f"the condition {reading!r} reads single tokens, and a region is several: name NAME[i]")
        score, hold = torch.zeros(len(encoded), dtype=torch.float64), torch.zeros(len(encoded), dtype=torch.bool)
        request = [((reading.site, reading.layers), columns)]
        with progress_bar("deciding", len(encoded), progress) as advance:
            for step in model.steps(encoded, request, stop=True, done=advance):
                found = reading.ask(step.grid(reading.site).float())
                score[step.rows], hold[step.rows] = found[0].double().cpu(), found[1].cpu()
        holds[reading], scores[reading] = hold, score
    names = named(condition.readings())
    return Decisions(
        condition.joined(holds).numpy(), tuple(names.values()),
        torch.stack([scores[r] for r in names], 1).numpy(), torch.stack([holds[r] for r in names], 1).numpy(),
        tuple(e.prompt for e in encoded),
    )  # fmt: skip
