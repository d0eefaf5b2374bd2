"""The files for other programs: the direction's vector in every format, each read back and compared."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from interp.errors import RefusalkitError
from interp.model.model import Model
from steering import Proof, SteeringVector, bake, export, lora, verify

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


def exports_section(model: Model, vector: SteeringVector, folder: Path) -> dict[str, Any]:
    """Write the vector for every program that can do what it does, and prove each file.

    A format that cannot say what the vector does, or a model that has no place for it in its weights, is a row with the
    reason.

    Args:
        model: The audited model.
        vector: The vector as it was saved.
        folder: The audit's folder; what an earlier run left under `exports` is replaced.
    """
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
    return {"rows": rows, "layers": list(vector.layers), "site": vector.site}


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
