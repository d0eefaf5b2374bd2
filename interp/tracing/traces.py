"""`Traces`: prompts with what a model thought and answered, from a model's rollouts or from a file."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interp.errors import PromptError
from interp.text.encoded import Trace, as_prompt
from interp.text.files import read_records
from interp.text.prompts import Prompt, PromptSet
from interp.text.thinking import ThoughtStatus

if TYPE_CHECKING:
    from interp.model.model import Model

ROLLOUTS = "refusalkit/rollouts/1"
"""First line of a file of rollouts."""
RAW = ("raw", "completion", "output")
"""Fields of a record that hold what a model wrote, markers included."""
_PROMPT = ("label", "group", "category", "family", "split", "system")


@dataclass(frozen=True, repr=False)
class Traces(Sequence[Trace]):
    """An immutable, ordered set of traces.

    Attributes:
        traces: Prompt, thinking and answer.
        status: For each, whether its thought is whole, empty, unfinished (cut off before its end marker), or none.
        name: What to call the set in a report.
        provenance: Where they come from.
    """

    traces: tuple[Trace, ...]
    status: tuple[ThoughtStatus, ...]
    name: str = "traces"
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.traces) != len(self.status):
            raise PromptError(f"{len(self.traces)} traces came with {len(self.status)} statuses")

    @classmethod
    def of(cls, traces: Sequence[Trace], name: str = "traces") -> Traces:
        """Traces given one by one; a thought of white space alone is empty."""
        if isinstance(traces, Traces):
            return traces
        status: list[ThoughtStatus] = []
        for number, trace in enumerate(traces):
            if not isinstance(trace, Trace):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise PromptError(
                    f"trace {number} is {trace!r:.60}, which is none; give interp.Trace(prompt, thinking, answer), "
                    "or let the model think: interp.rollouts(model, prompts)"
                )
            status.append(_status(trace.thinking))
        return cls(tuple(traces), tuple(status), name)

    def __len__(self) -> int:
        return len(self.traces)

    @overload
    def __getitem__(self, index: int) -> Trace: ...
    @overload
    def __getitem__(self, index: slice) -> Traces: ...
    def __getitem__(self, index: int | slice) -> Trace | Traces:
        return self.take(range(len(self))[index]) if isinstance(index, slice) else self.traces[index]

    def __iter__(self) -> Iterator[Trace]:
        return iter(self.traces)

    def __repr__(self) -> str:
        kinds = ", ".join(f"{n} {kind}" for kind, n in Counter(self.status).items())
        labels = ", ".join(f"{n} {label or 'unlabelled'}" for label, n in Counter(self.labels).items())
        return f"Traces({self.name!r}, {len(self)}: {labels or 'none'}; thoughts: {kinds or 'none'})"

    @property
    def prompts(self) -> PromptSet:
        """The prompts, in order."""
        return PromptSet(tuple(as_prompt(t) for t in self.traces), self.name)

    @property
    def labels(self) -> list[str | None]:
        """The prompts' labels, in order."""
        return [as_prompt(t).label for t in self.traces]

    @property
    def groups(self) -> list[str]:
        """The prompts' groups, in order."""
        return [as_prompt(t).group for t in self.traces]

    @property
    def whole(self) -> Traces:
        """Those whose thought has words and an end."""
        return self.take([s == "whole" for s in self.status])

    @property
    def train(self) -> Traces:
        """Traces of the prompts that are split into "train"."""
        return self._part("train")

    @property
    def val(self) -> Traces:
        """Traces of the prompts that are split into "val"."""
        return self._part("val")

    @property
    def test(self) -> Traces:
        """Traces of the prompts that are split into "test"."""
        return self._part("test")

    def take(self, rows: ArrayLike | range) -> Traces:
        """Some of the traces, by index or mask."""
        wanted = np.asarray(rows)
        index: NDArray[Any] = np.flatnonzero(wanted) if wanted.dtype == bool else wanted.astype(int)
        return replace(self, traces=tuple(self.traces[i] for i in index), status=tuple(self.status[i] for i in index))

    def require_whole(self) -> Traces:
        """The set itself, where every trace can be followed to the end of its thought.

        Raises:
            PromptError: For no traces at all; or for a thought that is missing, empty or unfinished: it names the
                first one and says what to do.
        """
        if not len(self):
            raise PromptError(f"{self.name!r} holds no traces")
        for number, (trace, status) in enumerate(zip(self.traces, self.status, strict=True)):
            if status != "whole":
                n = sum(s != "whole" for s in self.status)
                raise PromptError(
                    f"trace {number} ({as_prompt(trace).text[:50]!r}) {_TROUBLE[status]}; leave such traces out with "
                    f".whole ({n} of {len(self)})"
                )
        return self

    def to_frame(self) -> Any:
        """One row per trace (pandas)."""
        import pandas as pd

        rows = [_row(t, s) for t, s in zip(self.traces, self.status, strict=True)]
        return pd.DataFrame(rows, columns=["prompt", "thinking", "answer", "status", *_PROMPT])

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write JSON lines that `interp.traces(path)` reads back."""
        target = Path(path)
        rows = (_row(t, s) for t, s in zip(self.traces, self.status, strict=True))
        text = "".join(json.dumps({k: v for k, v in row.items() if v is not None}) + "\n" for row in rows)
        partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
        try:
            partial.write_text(text, encoding="utf-8")
            os.replace(partial, target)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise PromptError(f"{target}: cannot be written ({error.strerror or error})") from error
        return target

    def _part(self, split: str) -> Traces:
        splits = [as_prompt(t).split for t in self.traces]
        if splits and not any(splits):
            raise PromptError(f"the prompts of {self.name!r} are not split: roll out a split set, or .split(seed) it")
        return self.take([s == split for s in splits])

    def split(self, train: float = 0.5, val: float = 0.2, test: float = 0.3, seed: int = 0) -> Traces:
        """Assign every trace to a split, by its prompt; see `PromptSet.split`."""
        prompts = self.prompts.split(train, val, test, seed)
        return replace(self, traces=tuple(replace(t, prompt=p) for t, p in zip(self.traces, prompts, strict=True)))


_TROUBLE: Mapping[ThoughtStatus, str] = {
    "none": "has no thinking, so there is nothing to follow: load the model with thinking=True, or use one that thinks",
    "empty": "has an empty thought",
    "unfinished": "was cut off before the end of its thought: give rollouts a larger max_new_tokens",
    "whole": "is whole",
}


def traces(path: str | os.PathLike[str], model: Model | None = None, *, label: str | None = None) -> Traces:
    """Read traces of your own.

    Args:
        path: JSON lines (or json, csv). A record has `prompt` and `thinking`, and may have `answer`, `label`, `group`,
            `category`, `family`, `split`, `system`. Or it has, in place of thinking and answer, `completion` (or `raw`,
            `output`): what the model wrote, markers included, which is split by the model's own markers.
        model: Needed for records with `completion`.
        label: Label of every prompt that brings none.

    Raises:
        PromptError: When the file or a record cannot be used; the message names the line.
    """
    file = Path(path).expanduser()
    found: list[Trace] = []
    status: list[ThoughtStatus] = []
    for record, place in read_records(file):
        if record.get("format") == ROLLOUTS:
            continue  # the first line of a file that interp.rollouts writes
        trace, kind = _read(record, place, model, label)
        found.append(trace)
        status.append(kind)
    return Traces(tuple(found), tuple(status), file.stem, {"file": file.name})


def _read(record: Mapping[str, Any], place: str, model: Model | None, label: str | None) -> tuple[Trace, ThoughtStatus]:
    def text(field: str) -> str | None:
        value = record.get(field)
        if value is not None and not isinstance(value, str):
            raise PromptError(f"{place}: the field {field!r} is {value!r:.40}, but it has to be text")
        return value

    words = text("prompt")
    if words is None:
        raise PromptError(f"{place}: no field 'prompt'; a trace has prompt, thinking and answer")
    try:
        prompt = Prompt(words, **{k: v for k in _PROMPT if (v := text(k)) is not None})
    except PromptError as error:
        raise PromptError(f"{place}: {error}") from error
    prompt = replace(prompt, label=label) if prompt.label is None else prompt
    raw = next((value for name in RAW if (value := text(name)) is not None), None)
    if raw is None:
        thinking = text("thinking")
        known: Any = record.get("status")
        kind: ThoughtStatus = known if known in _TROUBLE else _status(thinking)
        return Trace(prompt, thinking, text("answer") or ""), kind
    if model is None:
        raise PromptError(f"{place}: to split what a model wrote its markers are needed: interp.traces(path, model)")
    kind = model.chat.status(raw)
    if kind == "unfinished" and model.chat.markers is not None:
        raise PromptError(
            f"{place}: the thought has no end marker {model.chat.markers.closing!r}: it was cut off, or comes from a "
            "model with other markers; remove the line, or give thinking and answer as fields"
        )
    return Trace(prompt, *model.chat.split(raw)), kind


def _status(thinking: str | None) -> ThoughtStatus:
    return "none" if thinking is None else ("whole" if thinking.strip() else "empty")


def _row(trace: Trace, status: ThoughtStatus) -> dict[str, Any]:
    prompt = as_prompt(trace)
    return {
        "prompt": prompt.text, "thinking": trace.thinking, "answer": trace.answer, "status": status,
        **{name: getattr(prompt, name) for name in _PROMPT},
    }  # fmt: skip
