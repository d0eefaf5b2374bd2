"""`steering.verify` proves a file that does what the vector does, and no other."""

from __future__ import annotations

import dataclasses
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import interp
import steering
from interp.errors import EditError, FormatError, ModelError, PromptError
from interp.model.model import Model
from steering import Proof, SteeringVector
from steering.proofs.readings import READERS

TEXTS = ["Why is the sky blue?", "Name three colours, please."]


@cache
def model() -> Model:
    return interp.load("organism:chat")


def vector(site: str = "resid_pre", layers: tuple[int, ...] = (3,), **where: Any) -> SteeringVector:
    source = torch.Generator().manual_seed(3)
    return SteeringVector({layer: torch.randn(128, generator=source) for layer in layers}, site, 1.5, **where)


def prove(v: Any, format: str, path: str | os.PathLike[str] | None = None, **options: Any) -> Proof:
    return steering.verify(v, format, path, model(), **{"prompts": TEXTS[:1], "max_new_tokens": 3, **options})


def test_every_format_has_a_reading_of_its_own() -> None:
    assert set(READERS) == set(steering.FORMATS)


@pytest.mark.parametrize("site", ["resid_pre", "resid_post"])
@pytest.mark.parametrize("format", sorted(READERS))
def test_what_a_format_holds_does_what_the_vector_does(format: str, site: str) -> None:
    proof = prove(vector(site), format, prompts=TEXTS)
    assert proof and proof.ok and not proof.reason
    assert proof.effect > 0.1 and proof.difference < 1e-3 and proof.same_texts == len(TEXTS)
    assert proof.control is not None and proof.control > 100 * proof.tolerance


@pytest.mark.parametrize("kind", ["hf", "lora"])
def test_weights_that_are_loaded_again_do_what_the_vector_does(kind: str, tmp_path: Path) -> None:
    proof = prove(vector(), kind, tmp_path / kind)
    assert proof.ok and proof.effect > 0.1 and proof.difference < 1e-3 and proof.same_texts == 1
    assert proof.control is None
    ablation = prove(vector().vectors[3], kind)  # a vector is ablated, as for bake
    assert ablation.ok and ablation.effect > 0.1
    other = prove(-vector(), kind, tmp_path / kind)
    assert not other.ok and "does something else" in other.reason


@pytest.mark.parametrize(
    "other",
    [
        vector("resid_post", layers=(2,)), vector("resid_post", layers=(4,)), vector("resid_post") * 1.01,
        -vector("resid_post"), vector("resid_post", layers=(3, 4)), vector("resid_pre"),
    ],
    ids=["a layer early", "a layer late", "louder", "turned", "with more", "at the input"],
)  # fmt: skip
def test_a_file_that_says_something_else_fails(other: SteeringVector, tmp_path: Path) -> None:
    file = other.export(tmp_path / "v.gguf", "gguf", model=model()).path
    proof = prove(vector("resid_post"), "gguf", file)
    assert not proof and re.match("the file does something else: logits differ by", proof.reason)
    assert proof.difference > proof.tolerance and proof.path == file


@pytest.mark.parametrize(
    "where",
    [{"positions": ("t_inst", -1)}, {"phase": "generation"}, {"positions": ("inst",), "phase": "both"}],
    ids=str,
)
def test_our_own_files_are_proved_with_their_positions_and_phases(where: dict[str, Any], tmp_path: Path) -> None:
    v = vector(**where) * 3.0
    assert prove(v, "safetensors").ok
    everywhere = dataclasses.replace(v, positions=("all",), phase="both").save(tmp_path / "v.safetensors")
    assert not prove(v, "safetensors", everywhere)


def test_layers_off_by_one_are_called_that_where_the_other_side_of_the_block_is_right(tmp_path: Path) -> None:
    right = vector("resid_post")
    for other, slipped in ((vector("resid_post", layers=(4,)), True), (vector("resid_post", layers=(2,)), False)):
        path = other.export(tmp_path / "v.gguf", "gguf", model=model()).path  # what leaves 3 is what enters 4
        assert ("its layers are off by one" in prove(right, "gguf", path).reason) is slipped


def test_the_table_has_a_row_for_each_prompt() -> None:
    proof = prove(vector(), "safetensors", prompts=TEXTS)
    table = proof.to_frame()
    assert list(table["prompt"]) == TEXTS
    assert table["difference"].max() == proof.difference and table["effect"].max() == proof.effect
    assert table["control"].max() == proof.control and table["same_text"].all()


def test_a_vector_that_does_nothing_proves_nothing() -> None:
    proof = prove(vector() * 0.0, "safetensors")
    assert not proof and "moves no logit" in proof.reason


def test_the_model_is_left_as_it_was() -> None:
    before = model().logits(TEXTS)
    prove(vector(), "gguf")
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model().hf.modules())
    assert torch.equal(model().logits(TEXTS), before)


def test_what_cannot_be_read_or_proved_is_an_error(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(vector().export(tmp_path / "v.gguf").path.read_bytes()[:-100])
    with pytest.raises(FormatError, match="damaged.gguf cannot be read as gguf"):
        prove(vector(), "gguf", damaged)
    narrow = SteeringVector({3: torch.ones(64)}).save(tmp_path / "narrow.safetensors")
    with pytest.raises(FormatError, match=r"shape \[64\] to a stream 128 wide"):
        prove(vector(), "safetensors", narrow)
    deep = SteeringVector({6: torch.ones(128)}).save(tmp_path / "deep.safetensors")
    with pytest.raises(FormatError, match="speaks of block 6, and the model has 6"):
        prove(vector(), "safetensors", deep)
    inside = dataclasses.replace(vector(), site="mlp_out").save(tmp_path / "inside.safetensors")
    with pytest.raises(FormatError, match="mlp_out is proved nowhere but here"):
        prove(dataclasses.replace(vector(), site="mlp_out"), "safetensors", inside)
    with pytest.raises(ModelError, match="cannot be loaded as hf"):
        prove(vector(), "hf", tmp_path)
    with pytest.raises(FormatError, match="no format 'onnx' to prove; known: safetensors, gguf"):
        prove(vector(), "onnx")
    with pytest.raises(PromptError, match="at least 1"):
        prove(vector(), "gguf", max_new_tokens=0)
    with model().edited(vector()):
        with pytest.raises(EditError, match="leave it"):
            prove(vector(), "gguf")
        model().logits(TEXTS)


def test_llama_cpp_reads_no_file_that_names_block_0(tmp_path: Path) -> None:
    file = vector("resid_post", layers=(0,)).export(tmp_path / "v.gguf", "repeng", model=model()).path
    assert prove(vector("resid_post", layers=(0,)), "repeng", file).ok
    with pytest.raises(FormatError, match="names block 0"):
        prove(vector("resid_post", layers=(0,)), "gguf", file)
