"""Behaviour first: what the model answers, and how often it refuses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from interp.model.generate import Completion
from interp.model.model import Model
from interp.model.ops import Edit
from interp.stats import Rate, newcombe
from interp.text.judge import Verdict, judge
from interp.text.prompts import PromptSet
from probes.answers_kept import answer_onto

Judge = Callable[[str, str], Verdict]


@dataclass(frozen=True)
class Behaviour:
    """Judged answers of a model to a prompt set.

    Attributes:
        prompts: The prompts.
        completions: What the model wrote, in the same order.
        verdicts: What the judge made of each answer (thinking left out).
    """

    prompts: PromptSet
    completions: tuple[Completion, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def refused(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """For each prompt, whether the answer is a refusal."""
        return np.array([v.refused for v in self.verdicts], dtype=bool)

    @property
    def complied(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """For each prompt, whether the answer complies; partial and empty answers are neither."""
        return np.array([v.complied for v in self.verdicts], dtype=bool)

    def where(self, **fields: Any) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Mask of the prompts with these field values, e.g. `label="harmful", split="test"`."""
        mask = np.ones(len(self.prompts), dtype=bool)
        for name, value in fields.items():
            mask &= np.array([getattr(p, name) == value for p in self.prompts], dtype=bool)
        return mask

    def rate(self, **fields: Any) -> Rate:
        """Refusals among the prompts with these field values."""
        mask = self.where(**fields)
        return Rate(int(self.refused[mask].sum()), int(mask.sum()))

    def partial_rate(self, **fields: Any) -> Rate:
        """Answers that refuse and comply, both in part, among the prompts with these field values."""
        mask = self.where(**fields)
        partial = np.array([v.label == "partial" for v in self.verdicts], dtype=bool)
        return Rate(int(partial[mask].sum()), int(mask.sum()))

    def part(self, prompts: PromptSet) -> Behaviour:
        """The same for some of the prompts, in their order."""
        at = {p.id: i for i, p in enumerate(self.prompts)}
        rows = [at[p.id] for p in prompts]
        return Behaviour(prompts, tuple(self.completions[i] for i in rows), tuple(self.verdicts[i] for i in rows))

    def effect_of_harm(self, **fields: Any) -> tuple[float, tuple[float, float]]:
        """P(refuse | harmful) - P(refuse | harmless), with its 95 % interval (Newcombe)."""
        harmful, harmless = self.rate(label="harmful", **fields), self.rate(label="harmless", **fields)
        return harmful.value - harmless.value, newcombe(harmful, harmless)

    def to_frame(self) -> Any:
        """One row per prompt (pandas)."""
        import pandas as pd

        return pd.DataFrame(
            [
                {"prompt": p.text, "label": p.label, "split": p.split, "family": p.family, "category": p.category,
                 "answer": c.answer, "thinking": c.thinking, "verdict": v.label, "phrase": v.phrase,
                 "finished": c.finished}
                for p, c, v in zip(self.prompts, self.completions, self.verdicts, strict=True)
            ]
        )  # fmt: skip


def behaviour(
    model: Model,
    prompts: PromptSet,
    *,
    judge: Judge = judge,
    max_new_tokens: int = 64,
    edits: Sequence[Edit] = (),
    out: Path | None = None,
    edited_by: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> Behaviour:
    """Generate greedily and judge every answer.

    Args:
        model: The model.
        prompts: Prompts.
        judge: Any callable `(prompt, answer) -> Verdict`.
        max_new_tokens: Longest answer.
        edits: Changes to the forward passes.
        out: A JSON-lines file to keep answers in as they are written; the same call goes on where it was cut short,
            and judges anew.
        edited_by: What the edits are, for that file: see `probes.answers_kept.answer_onto`.
        progress: Show a progress bar.

    Raises:
        PromptError: When the file holds other answers.
    """
    options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "progress": progress}
    if out is None:
        written = model.generate(prompts, edits=edits, **options)
    else:
        written = answer_onto(model, prompts, out, edits, edited_by, **options)
    verdicts = tuple(judge(c.prompt.text, c.answer) for c in written)
    return Behaviour(prompts, tuple(written), verdicts)
