"""The files for other programs: the direction's vector in every format, each read back and compared."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from interp.errors import RefusalkitError
from interp.model.model import Model
from interp.text.prompts import PromptSet
from probes.answers import Judge, behaviour
from steering import Proof, SteeringVector, bake, export, lora, verify
from steering.doses import Dose, doses

FOLDER = "exports"
FILES = {
    "gguf": ("llama.cpp", "llama-cpp.gguf"),
    "repeng": ("repeng", "repeng.gguf"),
    "easysteer": ("EasySteer (vLLM)", "easysteer.gguf"),
    "svec": ("IBM activation-steering", "activation-steering.svec"),
    "refusal_direction": ("refusal_direction", "refusal_direction"),
    "hf": ("transformers, in the weights", "model"),
    "lora": ("peft, as an adapter", "adapter"),
}
"""By format: who reads it, and its name in the folder."""
STRENGTHS = (0.25, 0.5, 0.75, 1.0)


def exports_section(
    model: Model,
    vector: SteeringVector,
    folder: Path,
    asked: PromptSet,
    *,
    judge: Judge,
    max_new_tokens: int,
    seed: int,
) -> dict[str, Any]:
    """Write the vector for every program that can do what it does, prove each file, and measure what it does.

    Other programs add a vector at every token, of the answer too. That is another intervention than the one that the
    audit tests, so it is measured, at several strengths and beside a random vector.

    A format that cannot say what the vector does, or a model that has no place for it in its weights, is a row with the
    reason.

    Args:
        model: The audited model.
        vector: The vector as it was saved.
        folder: The audit's folder; what an earlier run left under `exports` is replaced.
        asked: Harmless prompts that are not held out, on which it is measured.
        judge: As for the audit.
        max_new_tokens: Longest answer.
        seed: Of the random vector.
    """
    vector = replace(vector, positions=("all",), phase="both")
    shutil.rmtree(folder / FOLDER, ignore_errors=True)
    (folder / FOLDER).mkdir()
    rows: list[dict[str, Any]] = []
    for format, (client, name) in FILES.items():
        path = folder / FOLDER / name
        row: dict[str, Any] = {"format": format, "client": client, "file": None, "notes": [], "reason": ""}
        try:
            if format in ("hf", "lora"):
                (bake if format == "hf" else lora)(model, vector).save(path)
            else:
                row["notes"] = list(export(vector, path, format, model=model).notes)
            row["file"] = f"{FOLDER}/{name}"
            row |= _figures(verify(vector, format, path, model))
        except (RefusalkitError, ImportError) as error:
            row["reason"] = str(error)
        rows.append(row)
    found = _measured(model, vector, asked, judge, max_new_tokens, seed)
    told = [_told(dose, found[0]) for dose in found]
    return {
        "rows": rows,
        "layers": list(vector.layers),
        "site": vector.site,
        "n": len(asked),
        "doses": told,
        "whole_up_to": max((d["strength"] for d in told if d["arm"] == "vector" and not d["caution"]), default=None),
    }


def _told(dose: Dose, plain: Dose) -> dict[str, Any]:
    """A row, with what is to be said where its answers repeat themselves; what there is nothing of is null."""
    row = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in dose.to_row().items()}
    return {**row, "n": dose.repeats.answers.n, "k_repetitive": dose.repeats.answers.k,
            "caution": dose.repeats.caution(plain.repeats)}  # fmt: skip


def _measured(
    model: Model, vector: SteeringVector, asked: PromptSet, judge: Judge, max_new_tokens: int, seed: int
) -> list[Dose]:
    """The plain model, the vector at every strength, and a random one."""
    plain = behaviour(model, asked, judge=judge, max_new_tokens=max_new_tokens)
    arms: list[tuple[str, float, Any]] = [("plain", 0.0, [])]
    arms += [("vector", strength, (vector * strength).edits()) for strength in STRENGTHS]
    arms += [("random", 1.0, vector.random_like(seed).edits())]
    return [doses(model, asked, [arm], plain, judge=judge, max_new_tokens=max_new_tokens, seed=seed)[0] for arm in arms]


def exports_kept(section: dict[str, Any], folder: Path) -> bool:
    """Whether the files that a finished stage wrote are there."""
    return all(row["file"] is None or (folder / row["file"]).exists() for row in section["rows"])


def _figures(proof: Proof) -> dict[str, Any]:
    return {
        "reason": proof.reason,
        "reader": proof.reader,
        "difference": proof.difference,
        "effect": proof.effect,
        "control": proof.control,
        "same_texts": proof.same_texts,
        "n": len(proof.rows),
    }
