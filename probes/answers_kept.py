"""Answers of a model, plain or edited, on disk as they are written: a run that is cut short goes on from there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from interp.errors import PromptError
from interp.model.generate import Completion
from interp.model.generate_onto import Kind, Row, generate_onto
from interp.model.model import Model, Prompts
from interp.model.ops import Edit
from interp.provenance import digest_json

ANSWERS = Kind("refusalkit/edited-answers/1", "answers", "generating")
_BATCH, _BUDGET = 64, 16384
"""Those of `interp.generate`, so that answers that are kept are those that are not."""


def answer_onto(
    model: Model,
    prompts: Prompts,
    out: Path | None,
    edits: Sequence[Edit] = (),
    edited_by: Mapping[str, Any] | None = None,
    *,
    max_new_tokens: int = 64,
    progress: bool = False,
) -> list[Completion]:
    """Answer greedily, filling a JSON-lines file batch by batch; what it holds already is not generated again.

    Args:
        model: The model.
        prompts: Prompts.
        out: The file; `None` keeps nothing.
        edits: Changes to the forward passes.
        edited_by: What the edits are, JSON-able, every number that decides them included; `None` for none.
        max_new_tokens: Longest answer.
        progress: Show a progress bar.

    Raises:
        PromptError: When the file holds answers of other prompts, another model, other edits or settings, or is
            damaged.
    """
    made_from = {**model.provenance(), "edited_by": edited_by, "answers": {"max_new_tokens": max_new_tokens}}
    encoded = model.encode(prompts)
    asked = digest_json([[asdict(e.prompt), list(e.ids)] for e in encoded])
    rows = generate_onto(
        model, encoded, ANSWERS, out, _row, asked, made_from,
        max_new_tokens=max_new_tokens, batch_size=_BATCH, token_budget=_BUDGET, progress=progress, edits=edits,
    )  # fmt: skip
    try:
        return [
            Completion(e.prompt, r["text"], r["thinking"], r["answer"], tuple(map(int, r["ids"])), r["finished"])
            for e, r in zip(encoded, rows, strict=True)
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise PromptError(f"{out} is damaged ({error!r}): delete it to start over") from error


def _row(index: int, written: Completion) -> Row:
    return {
        "index": index, "prompt": written.prompt.text, "text": written.text, "thinking": written.thinking,
        "answer": written.answer, "ids": list(written.ids), "finished": written.finished,
    }  # fmt: skip
