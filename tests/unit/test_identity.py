"""Which weights these are: nothing made with one model is taken for another's."""

from __future__ import annotations

import copy
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch

import interp
from interp.errors import ModelError
from interp.model.identity import hub_files, memory_digest
from interp.model.names import model_folder, organism_variant


@pytest.fixture(scope="module")
def hf():
    return interp.load("organism").hf


def test_a_model_in_memory_is_named_by_its_contents(hf):
    other = copy.deepcopy(hf)
    assert memory_digest(other) == memory_digest(hf)
    with torch.no_grad():
        other.model.layers[3].mlp.down_proj.weight[5, 7] += 1e-3
    assert memory_digest(other) != memory_digest(hf)


def test_the_same_numbers_in_another_type_are_another_model(hf):
    assert memory_digest(copy.deepcopy(hf).double()) != memory_digest(hf)


def test_weights_that_cannot_be_read_are_never_taken_for_each_other(hf):
    away = copy.deepcopy(hf).to("meta")
    assert memory_digest(away) != memory_digest(away)
    assert memory_digest(away).startswith("unread-")


def hub_cache(root: Path, commit: str, blobs: dict[str, str]) -> None:
    """A snapshot as huggingface_hub lays it out: links to blobs named by their content."""
    repo = root / "models--somebody--model"
    snapshot = repo / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repo / "blobs").mkdir(exist_ok=True)
    for name, blob in blobs.items():
        (repo / "blobs" / blob).write_bytes(b"")
        (snapshot / name).symlink_to(Path("../../blobs") / blob)


def test_a_model_of_the_hub_is_named_by_the_ids_of_its_files(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    one, two, three = "1" * 40, "2" * 40, "3" * 40
    hub_cache(tmp_path, one, {"config.json": "c1", "model.safetensors": "aaaa"})
    hub_cache(tmp_path, two, {"config.json": "c2", "model.safetensors": "bbbb"})
    hub_cache(tmp_path, three, {"config.json": "c3", "model.safetensors": "aaaa", "README.md": "rrrr"})
    found = [hub_files("somebody/model", commit) for commit in (one, two, three)]
    assert found[0] != found[1]
    assert found[0] == found[2], "other files, the same weights"
    assert hub_files("somebody/model", "4" * 40) == {}, "a commit that was never loaded here"
    assert hub_files("somebody/else", one) == {}


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/model", "a/b/c", "models/", "x" * 200])
def test_a_path_with_nothing_behind_it_is_no_model(name):
    with pytest.raises(ModelError, match="there is no model folder at"):
        model_folder(name)


@pytest.mark.parametrize("name", ["organsim", "organisms", "organsim:chat"])
def test_a_slip_in_the_organisms_name_is_said_before_the_hub_is_asked(name):
    with pytest.raises(ModelError, match="did you mean organism"):
        model_folder(name)


def test_names_are_told_apart(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert organism_variant("organism") == "chat"
    assert organism_variant("organism:null-never") == "null-never"
    assert organism_variant("somebody/organism") is None
    assert model_folder(str(tmp_path)) == tmp_path
    assert model_folder("somebody/model") is None
    with pytest.raises(ModelError, match="no organism variant 'teapot'"):
        organism_variant("organism:teapot")
    with pytest.raises(ModelError, match="that is a file"):
        model_folder(str(tmp_path / "config.json"))
