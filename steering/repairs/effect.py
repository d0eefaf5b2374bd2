"""What a repair did: refusal after thinking on held-out prompts, before and after, and what is left of the cliff."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp.errors import PromptError
from interp.model.model import Model
from interp.stats import Rate
from interp.stats_change import newcombe_paired
from interp.text.encoded import as_prompt
from interp.text.judge import Judge, judge
from interp.text.prompts import HARMFUL, HARMLESS, PromptSet
from interp.tracing.rollouts import rollouts
from interp.tracing.trace import trace
from interp.tracing.traces import Traces
from probes import find_cliff
from probes.cliff_judge import CliffJudge

LABELS = (HARMFUL, HARMLESS)


@dataclass(frozen=True, eq=False)
class RepairEffect:
    """A model before and after its repair, on the same held-out prompts.

    Attributes:
        before: Refused after thinking, by label.
        after: The same of the repaired model.
        change: after - before by label, with its 95 % interval (Newcombe, paired).
        cliff: `before` and `after`: harmful traces that show the cliff, by the score, level and least drop of the model
            before; empty where none could be scored.
        table: pandas, one row per prompt: `prompt`, `label`, `group`, and of either model `refused`, `thought` (its
            status) and `answer`.
    """

    before: Mapping[str, Rate]
    after: Mapping[str, Rate]
    change: Mapping[str, tuple[float, float, float]]
    cliff: Mapping[str, Rate]
    table: Any

    def to_frame(self) -> Any:
        """One row per prompt (pandas)."""
        return self.table

    def sentences(self) -> list[str]:
        """What happened, in words."""
        said: list[str] = []
        for label in LABELS:
            if not self.before[label].n:
                continue
            d, low, high = self.change[label]
            said.append(
                f"{label} prompts refused after thinking: {self.before[label]} before, {self.after[label]} after; "
                f"change {d:+.3f} [{low:+.3f}, {high:+.3f}]"
            )
        if self.cliff:
            said.append(
                f"harmful traces that show the cliff: {self.cliff['before']} before, {self.cliff['after']} after"
            )
        return said

    def plot(self) -> Any:
        """Rates before and after, with intervals (plotly)."""
        from probes.figures import repair_bars

        return repair_bars(self)


def repair_effect(
    model: Model,
    repaired: Model,
    prompts: PromptSet,
    *,
    scored: CliffJudge | None = None,
    out: str | os.PathLike[str] | None = None,
    max_new_tokens: int = 2048,
    judged: Judge = judge,
    progress: bool = False,
) -> RepairEffect:
    """Let a model and its repaired form think about held-out prompts, and compare.

    Args:
        model: The model before.
        repaired: The model after.
        prompts: Held-out prompts, labelled harmful and harmless.
        scored: The judged pool: with it, the cliff is looked for before and after, by the same score. Where refusing
            begins comes from the pool, which needs harmless traces for that.
        out: Folder for the rollouts, `before.jsonl` and `after.jsonl`; the same call goes on where it was cut short.
        max_new_tokens: Longest thought and answer.
        judged: Judges answers.
        progress: Show progress bars.

    Raises:
        PromptError: When no prompt is labelled harmful or harmless.
    """
    import pandas as pd

    kept = prompts.filter(label=LABELS)
    if not len(kept):
        raise PromptError("the prompts to measure a repair on need labels, harmful or harmless")
    table: dict[str, list[Any]] = {"prompt": kept.texts, "label": list(kept.labels), "group": kept.groups}
    found: dict[str, Traces] = {}
    for when, one in (("before", model), ("after", repaired)):
        file = None if out is None else Path(out) / f"{when}.jsonl"
        found[when] = rollouts(one, kept, out=file, max_new_tokens=max_new_tokens, progress=progress)
        table |= {
            f"refused {when}": refused_of(found[when], judged), f"thought {when}": list(found[when].status),
            f"answer {when}": [t.answer for t in found[when]],
        }  # fmt: skip
    frame = pd.DataFrame(table)
    rates: dict[str, dict[str, Rate]] = {"before": {}, "after": {}}
    change: dict[str, tuple[float, float, float]] = {}
    for label in LABELS:
        own = frame[frame["label"] == label]
        for when, of in rates.items():
            of[label] = Rate(sum(own[f"refused {when}"].tolist()), len(own))
        change[label] = newcombe_paired(own["refused before"], own["refused after"])
    cliff: dict[str, Rate] = {}
    if scored is not None and set(LABELS) <= set(scored.pool.labels):
        for when, one in (("before", model), ("after", repaired)):
            cliff[when] = _falls(one, found[when], scored, progress)
    return RepairEffect(rates["before"], rates["after"], change, cliff, frame)


def refused_of(traces: Traces, judged: Judge = judge) -> list[bool]:
    """For each trace, whether its answer refuses; without an answer it does not."""
    return [bool(t.answer.strip()) and judged(as_prompt(t).text, t.answer).refused for t in traces]


def _falls(model: Model, traces: Traces, scored: CliffJudge, progress: bool) -> Rate:
    whole = traces.take([s == "whole" and bool(t.answer.strip()) for s, t in zip(traces.status, traces, strict=True)])
    if not len(whole):
        return Rate(0, 0)
    settings: Mapping[str, Any] = scored.provenance["settings"]
    held = trace(model, whole, scored.score, scored.layer, space=scored.space, progress=progress)
    options = {name: settings[name] for name in ("plateau", "window", "quantile")}
    return find_cliff(scored.scores, held, **options, n_shuffles=0).harmful
