"""The first stage: every prompt answered and judged, kept block by block so that a kill loses one block at most."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from interp.errors import RefusalkitError
from interp.model.generate import Completion
from interp.model.model import Model
from interp.progress import progress_bar
from interp.text.judge import Verdict
from interp.text.prompts import PromptSet
from probes.answers import Behaviour, Judge

BLOCK = 128


def answer_all(
    model: Model, prompts: PromptSet, judge: Judge, file: Path, max_new_tokens: int, progress: bool
) -> Behaviour:
    """Answers to all prompts; blocks that `file` already holds are not generated again.

    Args:
        model: The model.
        prompts: Prompts.
        judge: Any callable `(prompt, answer) -> Verdict`.
        file: JSON lines, one per prompt, in order.
        max_new_tokens: Longest answer.
        progress: Show a progress bar.
    """
    kept = _read(file, prompts)
    done = len(kept) - len(kept) % BLOCK if len(kept) < len(prompts) else len(kept)
    rows = kept[:done]
    try:
        file.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")
        with progress_bar("answers", len(prompts), progress) as advance, file.open("a", encoding="utf-8") as out:
            advance(done)
            for start in range(done, len(prompts), BLOCK):
                block = prompts[start : start + BLOCK]
                for completion in model.generate(block, max_new_tokens=max_new_tokens):
                    row = _row(completion)
                    out.write(json.dumps(row, ensure_ascii=False) + "\n")
                    rows.append(row)
                out.flush()
                advance(len(block))
    except OSError as error:
        raise RefusalkitError(f"cannot write {file}: {error.strerror or error}; is the disk full?") from error
    completions = [
        Completion(p, r["text"], r["thinking"], r["answer"], tuple(r["ids"]), r["finished"])
        for p, r in zip(prompts, rows, strict=True)
    ]
    verdicts: list[Verdict] = [judge(c.prompt.text, c.answer) for c in completions]
    return Behaviour(prompts, tuple(completions), tuple(verdicts))


def _read(file: Path, prompts: PromptSet) -> list[dict[str, Any]]:
    """Rows that are whole and belong to these prompts, up to the first that is not."""
    rows: list[dict[str, Any]] = []
    if not file.is_file():
        return rows
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    for prompt, line in zip(prompts, lines, strict=False):
        try:
            row = json.loads(line)
        except ValueError:
            break
        if not isinstance(row, dict) or row.get("id") != prompt.id or set(row) != _FIELDS:
            break
        rows.append(row)
    return rows


_FIELDS = {"id", "text", "thinking", "answer", "ids", "finished"}


def _row(completion: Completion) -> dict[str, Any]:
    row = asdict(completion)
    return {"id": completion.prompt.id, **{k: v for k, v in row.items() if k != "prompt"}}
