"""Stages that generate: each prompt answered and judged, kept block by block so that a kill loses one block at most."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from interp.errors import RefusalkitError
from interp.model.generate import Completion
from interp.model.model import Model
from interp.progress import progress_bar
from interp.provenance import write_text
from interp.text.judge import Verdict
from interp.text.prompts import PromptSet
from probes.answers import Behaviour, Judge
from refusalkit.audit.folder import AuditFolder

BLOCK = 128


def answer_all(
    model: Model,
    prompts: PromptSet,
    judge: Judge,
    folder: AuditFolder,
    max_new_tokens: int,
    progress: bool,
    stage: str = "answers",
) -> Behaviour:
    """Answers to all prompts; blocks that the folder already holds are not generated again.

    Args:
        model: The model.
        prompts: Prompts.
        judge: Any callable `(prompt, answer) -> Verdict`.
        folder: Keeps `STAGE.jsonl`: one line per prompt, in order, with its share of the time its block took.
        max_new_tokens: Longest answer.
        progress: Show a progress bar.
        stage: What to call it.
    """
    file = folder.work / f"{stage}.jsonl"
    kept = _read(file, prompts)
    # Whole blocks only: a block generated again is batched as it was, so that its answers are the same.
    done = len(kept) - len(kept) % BLOCK if len(kept) < len(prompts) else len(kept)
    rows = kept[:done]
    if done:
        folder.kept.append(f"{stage} ({done} of {len(prompts)})")
    try:
        _keep(file, rows)
        with progress_bar(stage, len(prompts), progress) as advance, file.open("a", encoding="utf-8") as out:
            advance(done)
            for start in range(done, len(prompts), BLOCK):
                block = prompts[start : start + BLOCK]
                began = time.perf_counter()
                completions = list(model.generate(block, max_new_tokens=max_new_tokens))
                share = (time.perf_counter() - began) / len(block)
                made = [_row(completion, share) for completion in completions]
                out.write(_lines(made))
                out.flush()
                rows += made
                advance(len(block))
    except OSError as error:
        raise RefusalkitError(f"cannot write {file}: {error.strerror or error}; is the disk full?") from error
    folder.took(stage, sum(row["seconds"] for row in rows))
    answered = [
        Completion(p, r["text"], r["thinking"], r["answer"], tuple(r["ids"]), r["finished"])
        for p, r in zip(prompts, rows, strict=True)
    ]
    verdicts: list[Verdict] = [judge(c.prompt.text, c.answer) for c in answered]
    return Behaviour(prompts, tuple(answered), tuple(verdicts))


def _keep(file: Path, rows: list[dict[str, Any]]) -> None:
    """Leave these rows alone in the file, by replacing it whole: a kill in between must not cost what was there."""
    text = _lines(rows)
    if file.is_file() and file.read_bytes() == text.encode():
        return
    write_text(file, text)


def _lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _read(file: Path, prompts: PromptSet) -> list[dict[str, Any]]:
    """Rows that are whole and belong to these prompts, up to the first that is not."""
    rows: list[dict[str, Any]] = []
    if not file.is_file():
        return rows
    # Not splitlines(): an answer may hold U+2028 or U+0085, which JSON leaves as they are.
    lines = file.read_bytes().decode(errors="replace").split("\n")
    for prompt, line in zip(prompts, lines, strict=False):
        try:
            row = json.loads(line)
        except ValueError:
            break
        if not isinstance(row, dict) or row.get("id") != prompt.id or not _whole(row):
            break
        rows.append(row)
    return rows


_FIELDS: dict[str, Any] = {
    "id": str, "text": str, "thinking": str | None, "answer": str, "ids": list, "finished": bool,
    "seconds": float,
}  # fmt: skip


def _whole(row: dict[str, Any]) -> bool:
    return set(row) == set(_FIELDS) and all(isinstance(row[name], kind) for name, kind in _FIELDS.items())


def _row(completion: Completion, seconds: float) -> dict[str, Any]:
    kept = {name: getattr(completion, name) for name in _FIELDS if name not in ("id", "seconds")}
    return {"id": completion.prompt.id, **kept, "seconds": round(seconds, 4)}
