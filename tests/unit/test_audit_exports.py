"""The audit's files for other programs are written, proved, and said not to be where they cannot."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import interp
from interp.text.judge import judge
from interp.text.prompts import Prompt, PromptSet
from refusalkit.audit.exports import FILES, exports_kept, exports_section
from steering import SteeringVector, import_vector
from tests.helpers.tiny import tiny_model, tiny_tokenizer
from tests.helpers.weights import vector

PROMPTS = PromptSet(tuple(Prompt(f"Tell me about {what}.", "harmless", what) for what in ("rivers", "bread", "cats")))
HOW: dict[str, Any] = {"judge": judge, "max_new_tokens": 6, "seed": 0}


@pytest.fixture(scope="module")
def model() -> interp.Model:
    return interp.load(tiny_model("llama"), tiny_tokenizer())


def test_every_format_is_written_and_proved(model: interp.Model, tmp_path: Path) -> None:
    given = SteeringVector({2: vector()}, coefficient=2.0, provenance=model.provenance())
    section = exports_section(model, given, tmp_path, PROMPTS, **HOW)
    assert [row["format"] for row in section["rows"]] == list(FILES)
    for row in section["rows"]:
        assert not row["reason"], row
        assert row["difference"] < row["effect"] / 100 and row["same_texts"] == row["n"] > 0
        assert row["control"] is None or row["control"] > 100 * row["difference"]
    read = import_vector(tmp_path / "exports" / "llama-cpp.gguf", model=model)
    assert read.vectors[1].allclose(2 * vector())  # what enters block 2 is what leaves block 1
    assert [(d["arm"], d["strength"]) for d in section["doses"]] == [
        ("plain", 0.0), ("vector", 0.25), ("vector", 0.5), ("vector", 0.75), ("vector", 1.0), ("random", 1.0)
    ]  # fmt: skip
    assert section["doses"][1]["kl"] < section["doses"][4]["kl"] and section["n"] == 3
    assert exports_kept(section, tmp_path)
    shutil.rmtree(tmp_path / "exports" / "adapter")
    assert not exports_kept(section, tmp_path)


def test_what_a_format_cannot_say_is_a_row_with_the_reason(model: interp.Model, tmp_path: Path) -> None:
    section = exports_section(model, SteeringVector({0: vector()}), tmp_path, PROMPTS, **HOW)
    rows = {row["format"]: row for row in section["rows"]}
    assert rows["gguf"]["file"] is None and "block 0" in rows["gguf"]["reason"]
    assert not rows["svec"]["reason"] and rows["svec"]["file"]
