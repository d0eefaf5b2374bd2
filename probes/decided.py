"""What a model decided about the prompts of traces: after its thought, and without one."""

from __future__ import annotations

from dataclasses import dataclass

from interp.model.model import Model
from interp.text.judge import Judge, judge
from interp.tracing.traces import Traces


@dataclass(frozen=True, eq=False)
class Decisions:
    """What a model decided about the prompts of traces.

    Attributes:
        after: Whether the answer after the thought refuses; `None` where there is no answer.
        direct: Whether the answer without thinking does; `None` where thinking cannot be switched off.
    """

    after: tuple[bool | None, ...]
    direct: tuple[bool, ...] | None

    @property
    def intended(self) -> tuple[bool | None, ...]:
        """Whether the prompt is refused, thinking off where that can be: what a cliff loses."""
        return self.after if self.direct is None else self.direct


def decisions(
    model: Model, traces: Traces, *, judged: Judge = judge, max_new_tokens: int = 64, progress: bool = False
) -> Decisions:
    """Judge the answers of traces, and where thinking can be switched off, the answers without it.

    Args:
        model: The model.
        traces: Traces.
        judged: Judges an answer.
        max_new_tokens: Longest answer without thinking.
        progress: Show a progress bar.
    """
    prompts = traces.prompts
    after = tuple(
        judged(p.text, t.answer).refused if t.answer.strip() else None for p, t in zip(prompts, traces, strict=True)
    )
    if model.chat.switch is None:
        return Decisions(after, None)
    written = model.with_format(thinking=False).generate(prompts, max_new_tokens=max_new_tokens, progress=progress)
    return Decisions(after, tuple(judged(c.prompt.text, c.answer).refused for c in written))
