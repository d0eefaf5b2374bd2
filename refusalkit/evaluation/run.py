"""Runs an evaluation and writes what came out: JSON, CSV, a report, and the answers where they are wanted."""

from __future__ import annotations

import io
import json
import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import interp
from interp.errors import PromptError, RefusalkitError
from interp.model.model import Model
from interp.provenance import write_json, write_text
from interp.text.prompts import PromptSet
from probes.answers import Behaviour
from probes.evaluation import evaluate
from probes.evaluation_result import Evaluation
from refusalkit.evaluation.edit_spec import parse_edit
from refusalkit.evaluation.sentences import LIMITS, sentences

SCHEMA = "refusalkit/evaluation/1"
ANSWERS, UNFINISHED = "answers.jsonl", "answers.unfinished.jsonl"
RESULTS = ("evaluation.json", "rates.csv", "price.csv", "report.html", ANSWERS, UNFINISHED)


def load_sets(
    sources: Sequence[str],
    *,
    label: str | None = None,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> list[PromptSet]:
    """Prompt sets by name or file.

    Args:
        sources: What `interp.prompts` takes.
        label: Label of every prompt.
        split: Only the prompts of this split; of a set without splits, all.
        limit: Most prompts of one label of a set, drawn by the seed.
        seed: For the draw.
    """
    found = [interp.prompts(source, label=label) for source in sources]
    twice = {name for name, n in Counter(s.name for s in found).items() if n > 1}
    named = [
        PromptSet(s.prompts, source if s.name in twice else s.name) for s, source in zip(found, sources, strict=True)
    ]
    return [_part(s, split, limit, seed) for s in named]


def run(
    model: Model,
    sets: Sequence[PromptSet],
    out: Path,
    *,
    vector: Path | None = None,
    guard: Path | None = None,
    edit: str | None = None,
    reference: str | None = None,
    price_prompts: str | None = None,
    max_new_tokens: int = 64,
    n_random: int = 3,
    seed: int = 0,
    save_answers: bool = False,
    force: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Evaluate and write; see `refusalkit eval --help` for the arguments.

    Returns:
        What `evaluation.json` holds.

    Raises:
        RefusalkitError: For more than one of vector, guard and edit; for a folder that holds an evaluation already.
    """
    given = [name for name, value in (("vector", vector), ("guard", guard), ("edit", edit)) if value is not None]
    if len(given) > 1:
        raise RefusalkitError(f"--{given[0]} and --{given[1]} were given: evaluate one at a time")
    _check_free(out, force)
    options: dict[str, Any] = {}
    if guard is not None:
        options["guard"] = _guard(guard, model)
    if vector is not None or edit is not None:
        means = None if reference is None else _harmless(interp.prompts(reference))
        parts = parse_edit(json.dumps({"add": str(vector)}) if vector is not None else str(edit), model, means)
        options["edits"] = [e for part in parts for e in part.edits]
        if means is not None:
            seeds = [seed * 1000 + i for i in range(n_random)]
            options["controls"] = [[e for part in parts for e in part.control(s)] for s in seeds]
    if price_prompts is not None:
        options["price_prompts"] = _harmless(interp.prompts(price_prompts))
    out.mkdir(parents=True, exist_ok=True)
    answers = _Answers(out, save_answers)
    found = evaluate(
        model, sets, max_new_tokens=max_new_tokens, n_random=n_random, seed=seed, done=answers, progress=progress,
        **options,
    )  # fmt: skip
    value = _write(found, out, {"vector": vector, "guard": guard, "edit": edit, "reference": reference})
    answers.finish()
    return value


def _write(found: Evaluation, out: Path, asked: dict[str, Any]) -> dict[str, Any]:
    from refusalkit.evaluation.report import render

    rates, prices = found.to_frame(), found.price_frame()
    value: dict[str, Any] = {
        "schema": SCHEMA,
        "model": str(found.provenance["model"].get("name", "")),
        "asked": {name: None if given is None else str(given) for name, given in asked.items()},
        "kind": found.subject.kind,
        "findings": sentences(found),
        "rates": _rows(rates),
        "price": _rows(prices),
        "examples": examples(found),
        "limits": list(LIMITS),
        "provenance": found.provenance,
    }
    write_json(out / "evaluation.json", value)
    write_text(out / "rates.csv", _csv(rates))
    if len(prices):
        write_text(out / "price.csv", _csv(prices))
    else:
        (out / "price.csv").unlink(missing_ok=True)  # of an evaluation that this one replaces
    write_text(out / "report.html", render(value, found.plot()))
    return value


def examples(found: Evaluation, most: int = 6) -> list[dict[str, Any]]:
    """Prompts whose answers the edit turned from refusal to compliance or the other way, a few of each kind and set."""
    if found.subject.kind != "edited":
        return []
    rows: list[dict[str, Any]] = []
    kinds: Counter[tuple[str, str, str]] = Counter()
    plain, edited = found.arms[0].answers, found.subject.answers
    for prompts, before, after in zip(found.sets, plain, edited, strict=True):
        pairs = zip(prompts, before.completions, before.verdicts, after.completions, after.verdicts, strict=True)
        for prompt, old, was, new, now in pairs:
            kind = (prompts.name, was.label, now.label)
            if was.label == now.label or kinds[kind] >= 2 or len(rows) >= most:
                continue
            kinds[kind] += 1
            rows.append(
                {"set": prompts.name, "label": prompt.label, "prompt": prompt.text, "intervention": "edited",
                 "plain": old.answer, "plain_verdict": was.label, "plain_phrase": was.phrase,
                 "edited": new.answer, "edited_verdict": now.label, "edited_phrase": now.phrase}
            )  # fmt: skip
    return rows


class _Answers:
    """Keeps the answers on disk as they come: a run that is cut short leaves what is finished, under its own name."""

    def __init__(self, out: Path, wanted: bool) -> None:
        self._out, self._wanted = out, wanted
        self._lines: list[str] = []

    def __call__(self, arm: str, prompts: PromptSet, judged: Behaviour) -> None:
        if not self._wanted:
            return
        for p, c, v in zip(prompts, judged.completions, judged.verdicts, strict=True):
            row = {"arm": arm, "set": prompts.name, "id": p.id, "label": p.label, "category": p.category,
                   "prompt": p.text, "thinking": c.thinking, "answer": c.answer, "finished": c.finished,
                   "verdict": v.label, "phrase": v.phrase}  # fmt: skip
            self._lines.append(json.dumps(row, ensure_ascii=False) + "\n")
        write_text(self._out / UNFINISHED, "".join(self._lines))

    def finish(self) -> None:
        """All answers are there: they take the place of those of an evaluation that this one replaces."""
        if self._wanted:
            os.replace(self._out / UNFINISHED, self._out / ANSWERS)
        else:
            for name in (ANSWERS, UNFINISHED):
                (self._out / name).unlink(missing_ok=True)


def _check_free(out: Path, force: bool) -> None:
    """What an earlier evaluation left stays until the new one is finished, and is replaced only where that is asked."""
    there = [name for name in RESULTS if (out / name).exists()]
    if there and not force:
        raise RefusalkitError(f"{out} holds {there[0]} of an evaluation: choose another --out, or replace it (--force)")


def _guard(path: Path, model: Model) -> Any:
    from importlib import import_module

    guard: Any = import_module("probes").LatentGuard.load(path, model)
    return lambda prompts: guard.score(prompts).flagged


def _harmless(prompts: PromptSet) -> PromptSet:
    """The harmless ones where there are labels, of the train split where there are splits."""
    if any(p.label is not None for p in prompts):
        prompts = prompts.harmless
    if any(p.split is not None for p in prompts):
        prompts = prompts.train
    if not len(prompts):
        raise PromptError(f"{prompts.name!r} has no harmless prompts (of the train split): give others")
    return prompts


def _part(prompts: PromptSet, split: str | None, limit: int | None, seed: int) -> PromptSet:
    if split is not None and any(p.split for p in prompts):
        there = sorted({p.split for p in prompts if p.split})
        if split not in there:
            raise PromptError(f"{prompts.name!r} has no split {split!r}; it has {', '.join(there)}")
        prompts = prompts.filter(split=split)
    if limit is None:
        return prompts
    drawn: set[str] = set()
    for label in set(prompts.labels):
        own = prompts.filter(label=label)
        drawn |= {p.id for p in own.sample(min(limit, len(own)), seed)}
    return prompts.filter(id=drawn)


def _rows(frame: Any) -> list[dict[str, Any]]:
    """Records with null for what is not a finite number."""
    return [{k: _finite(v) for k, v in row.items()} for row in frame.to_dict("records")]


def _finite(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _csv(frame: Any) -> str:
    buffer = io.StringIO()
    frame.map(_tame).to_csv(buffer, index=False, lineterminator="\n")
    return buffer.getvalue()


def _tame(value: Any) -> Any:
    """A name that a spreadsheet would run as a formula, with a quote before it."""
    return f"'{value}" if isinstance(value, str) and re.match(r"[=+@-]", value) else value
