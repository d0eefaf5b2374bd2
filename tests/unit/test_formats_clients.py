"""The programs that formats are for read what we write, and we read what they write.

repeng 0.4.0 is installed beside the project without its dependencies (`Makefile`), since it asks for numpy below 2.
"""

from __future__ import annotations

import copy
from importlib import import_module
from pathlib import Path
from typing import Any

import gguf  # noqa: TID253  (what this file is about)
import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

import steering
from interp.errors import DirectionError, FormatError
from steering import SteeringVector
from tests.helpers.slow import PROMPTS, loaded

WIDTH = 48
TENSOR_TYPES = gguf.GGMLQuantizationType


def noise(seed: int, width: int = WIDTH) -> Tensor:
    return torch.randn(width, generator=torch.Generator().manual_seed(seed))


def vector(**changes: Any) -> SteeringVector:
    fields: dict[str, Any] = {
        "vectors": {1: noise(1), 2: noise(2)}, "site": "resid_post", "coefficient": 1.5,
        "provenance": {"model_type": "llama"},
    }  # fmt: skip
    return SteeringVector(**(fields | changes))


@pytest.fixture(scope="module")
def repeng() -> Any:
    """repeng, to which numpy's old name for a 64-bit float is lent while it is imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "float_", np.float64, raising=False)
        return import_module("repeng")


# --- repeng ----------------------------------------------------------------------------------------------------------


def test_repeng_reads_what_we_write(repeng: Any, tmp_path: Path) -> None:
    made = vector(vectors={0: noise(0), 2: noise(2)})
    for format in ("repeng", "easysteer"):
        found = repeng.ControlVector.import_gguf(made.export(tmp_path / "v.gguf", format).path)
        assert found.model_type == "llama"
        assert {n: v.tolist() for n, v in found.directions.items()} == {n: (noise(n) * 1.5).tolist() for n in (0, 2)}


def test_we_read_what_repeng_writes_and_write_it_back_so_that_repeng_sees_no_difference(
    repeng: Any, tmp_path: Path
) -> None:
    theirs = repeng.ControlVector("llama", {n: noise(n).numpy() for n in (2, 1)}) * 0.5 - repeng.ControlVector(
        "llama", {n: noise(n + 5).numpy() for n in (2, 1)}
    )
    theirs.export_gguf(tmp_path / "theirs.gguf")
    ours = steering.import_vector(tmp_path / "theirs.gguf", model=loaded("llama"))
    assert (ours.site, ours.layers, ours.coefficient) == ("resid_post", (1, 2), 1.0)
    assert all(np.array_equal(ours.vectors[n].numpy(), theirs.directions[n]) for n in (1, 2))
    ours.export(tmp_path / "ours.gguf", "repeng")
    assert repeng.ControlVector.import_gguf(tmp_path / "ours.gguf") == theirs


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2"])
@pytest.mark.parametrize("strength", [1.0, -0.7])
def test_repengs_control_model_gives_the_logits_that_we_give(
    repeng: Any, family: str, strength: float, tmp_path: Path
) -> None:
    model = loaded(family)
    made = vector(vectors={0: noise(0) * 3, 1: noise(1)}, provenance={})
    found = repeng.ControlVector.import_gguf(made.export(tmp_path / "v.gguf", "repeng", model=model).path)
    controlled = repeng.ControlModel(copy.deepcopy(model.hf), list(found.directions))
    controlled.set_control(found, strength)
    with torch.no_grad():
        # One at a time: repeng's mask asks for position ids as wide as the batch, and transformers 5 gives one row.
        theirs = torch.stack([controlled(torch.tensor([e.ids])).logits[0, -1] for e in model.encode(PROMPTS)])
    ours = model.logits(PROMPTS, edits=(made * strength).edits())
    assert float((ours - model.logits(PROMPTS)).abs().max()) > 0.1
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)


# --- the gguf package, which is llama.cpp's own ----------------------------------------------------------------------


def by_gguf(path: Path, tensors: dict[str, Any], architecture: str = "controlvector", **metadata: Any) -> Path:
    """A file as llama.cpp's own writer makes it."""
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in metadata.items():
        kind = {str: writer.add_string, float: writer.add_float32, list: writer.add_array}.get(type(value))
        (kind or writer.add_int32)(f"controlvector.{key}", value)
    for name, value in tensors.items():
        writer.add_tensor(name, np.asarray(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_our_file_is_to_the_byte_what_the_gguf_package_writes(tmp_path: Path) -> None:
    ours = vector(coefficient=1.0).export(tmp_path / "ours.gguf").path
    writer = gguf.GGUFWriter(tmp_path / "theirs.gguf", "controlvector")
    writer.add_string("controlvector.model_hint", "llama")
    writer.add_uint32("controlvector.layer_count", 2)
    for layer in (1, 2):
        writer.add_tensor(f"direction.{layer}", noise(layer).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert ours.read_bytes() == (tmp_path / "theirs.gguf").read_bytes()


def test_a_gguf_reader_finds_architecture_hint_count_and_one_dimensional_fp32(tmp_path: Path) -> None:
    provenance = {"model_type": "qwen3", "method": "mean of differences"}
    for format, method in (("gguf", None), ("easysteer", "mean of differences")):
        path = vector(provenance=provenance).export(tmp_path / "v.gguf", format).path
        reader = gguf.GGUFReader(path)
        told = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
        expected = {
            "general.architecture": "controlvector", "controlvector.model_hint": "qwen3",
            "controlvector.layer_count": 2,
        }  # fmt: skip
        assert told == (expected | {"controlvector.method": method} if method else expected)
        assert [(t.name, t.tensor_type, t.shape.tolist()) for t in reader.tensors] == [
            (f"direction.{n}", TENSOR_TYPES.F32, [WIDTH]) for n in (1, 2)
        ]


def test_metadata_of_any_kind_do_not_keep_a_file_from_being_read(tmp_path: Path) -> None:
    path = by_gguf(
        tmp_path / "v.gguf", {"direction.3": noise(3)}, layer_count=36, model_hint="llama", method="pca",
        explained=0.5, names=["a", "b"], numbers=[1, 2, 3],
    )  # fmt: skip
    found = steering.import_vector(path)
    assert found.layers == (3,) and torch.equal(found.vectors[3], noise(3))
    assert found.provenance["method"] == "pca" and found.provenance["format"] == "easysteer"


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        ({"direction.1": noise(1)}, {"architecture": "llama"}, "architecture is 'llama'"),
        ({}, {}, "no tensors"),
        ({"direction.1": noise(1).half()}, {}, "GGML type 1; clients take fp32"),
        ({"direction.1": noise(1).double()}, {}, "GGML type 28"),
        ({"direction.1": torch.ones(2, 2)}, {}, "2 dimensions"),
        ({"direction.1": torch.tensor([1.0, float("nan")])}, {}, "NaN or infinite"),
        ({"direction.1": torch.tensor([1.0, float("inf")])}, {}, "NaN or infinite"),
        ({"direction.1": noise(1), "direction.2": noise(1, 8)}, {}, "widths differ"),
        ({"direction.01": noise(1)}, {}, "called direction.L"),
        ({"direction.-1": noise(1)}, {}, "called direction.L"),
        ({"direction.1": noise(1), "blk.0.attn_q.weight": noise(1)}, {}, "called direction.L"),
        ({"direction.1": noise(1), "direction.2": noise(1)}, {"layer_count": 1}, "has 2 tensors, and its .* is 1"),
        ({"direction.1": noise(1)}, {"layer_count": "1"}, "layer_count is '1'"),
        ({"direction.1": noise(1)}, {"model_hint": 3}, "model_hint is no text"),
        ({"direction.1": noise(1)}, {"method": 3}, "method is no text"),
        ({"direction.1": noise(1)}, {"method": "pca"}, "no controlvector.model_hint, which easysteer asks for"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, str) else "",
)  # fmt: skip
def test_gguf_files_that_are_no_control_vector_are_refused_with_the_reason(
    tensors: dict[str, Tensor], metadata: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = by_gguf(tmp_path / "v.gguf", tensors, **metadata)
    with pytest.raises((FormatError, DirectionError), match=message) as caught:
        steering.import_vector(path)
    assert "v.gguf" in str(caught.value)


# --- safetensors and torch -------------------------------------------------------------------------------------------


def test_bare_safetensors_opens_our_file(tmp_path: Path) -> None:
    path = vector().export(tmp_path / "v.safetensors").path
    with safe_open(path, framework="numpy") as file:
        assert set(file.metadata()) == {"steering-vector"}
        held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert {name: v.tolist() for name, v in held.items()} == {f"layer.{n}": noise(n).tolist() for n in (1, 2)}


def test_torch_load_opens_our_direction(tmp_path: Path) -> None:
    done = SteeringVector({2: noise(2)}, "resid_pre", 2.0).export(tmp_path / "run", "refusal_direction")
    assert torch.equal(torch.load(done.files[0], weights_only=True), noise(2) * 2.0)
