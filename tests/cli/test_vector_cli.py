"""`refusalkit vector` makes, describes, calibrates and combines vectors, and refuses in words what it cannot use."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

import interp
from interp.text.prompts import PromptSet
from steering import SteeringVector
from tests.helpers.command import refusalkit, refused, strict_json


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prompts = interp.prompts("organism")
    some = [p for s, n in (("train", 12), ("val", 6), ("test", 4)) for c in ("harmful", "harmless")
            for p in prompts.filter(split=s, label=c).sample(n, 0)]  # fmt: skip
    return PromptSet(tuple(some)).save(tmp_path_factory.mktemp("asked") / "asked.jsonl")


@pytest.fixture(scope="module")
def made(asked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "vector.safetensors"
    done = refusalkit("vector", "train", "organism", "--prompts", asked, "--out", out, "--layers", "4", "--quiet")
    assert done.code == 0, done.err
    assert "of 12 pairs agree" in done.out and f"written: {out}" in done.out
    return out


def test_a_vector_is_made_from_the_training_part_and_described(made: Path) -> None:
    vector = SteeringVector.load(made)
    assert vector.layers == (4,) and vector.provenance["pairs"] == 12
    done = refusalkit("vector", "info", made)
    assert done.code == 0 and "layer 4: norm" in done.out and '"method": "mean of differences"' in done.out


def test_a_vector_is_trained_for_an_answer(asked: Path, tmp_path: Path) -> None:
    out = tmp_path / "trained.safetensors"
    done = refusalkit(
        "vector", "train", "organism", "--prompts", asked, "--out", out, "--method", "trained", "--layers", "4",
        "--answer", "I cannot help with that.", "--steps", "3", "--quiet",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert SteeringVector.load(out).provenance["method"] == "trained"
    assert "plain:" in done.out and "random:" in done.out
    assert [f.name for f in tmp_path.iterdir()] == ["trained.safetensors"]  # what was kept meanwhile is gone


def test_a_strength_is_found_and_written_with_its_curve(asked: Path, made: Path, tmp_path: Path) -> None:
    done = refusalkit(
        "vector", "calibrate", "organism", made, "--prompts", asked, "--out", tmp_path / "c", "--refusal-rate", "0.9",
        "--max-new-tokens", "10", "--quiet",
    )  # fmt: skip
    assert done.code == 0, done.err
    about = strict_json((tmp_path / "c" / "calibration.json").read_text())
    assert about["provenance"]["prompts"]["n"] == 12  # the validation part
    assert SteeringVector.load(tmp_path / "c" / "vector.safetensors").coefficient == pytest.approx(about["strength"])
    assert set(pd.read_csv(tmp_path / "c" / "calibration.csv")["arm"]) == {"plain", "vector", "random 1"}
    assert about["reason"] in done.out.replace("\n", " ") and "longer than the residual stream" in done.out
    assert {f.name for f in (tmp_path / "c").iterdir()} >= {"answers", "doses.jsonl"}  # the same command goes on
    page = (tmp_path / "c" / "calibration.html").read_text()
    assert "Dose and response" in page and "harmless refused" in page
    assert "<summary>Provenance: model, vector, prompts" in page
    assert "A random vector of the same norm, refused:" in page and "12 prompts" in page
    made_how = SteeringVector.load(tmp_path / "c" / "vector.safetensors").provenance["calibration"]
    assert made_how["target"] == {"refused": 0.9, "on": "harmless"} and made_how["strength"] == about["strength"]
    assert made_how["measured"]["refused_harmless"] >= 0.9 and made_how["prompts"]["n"] == 12


def test_vectors_are_added_with_weights_and_others_projected_out(made: Path, tmp_path: Path) -> None:
    one = SteeringVector.load(made)
    other = one.random_like(1)
    other.save(tmp_path / "other.safetensors")
    total, rest = tmp_path / "total.safetensors", tmp_path / "rest.safetensors"
    files = ("vector", "combine", made, tmp_path / "other.safetensors")
    assert refusalkit(*files, "--weights", "1,-0.5", "--out", total).code == 0
    torch.testing.assert_close(SteeringVector.load(total).vectors[4], one.vectors[4] - 0.5 * other.vectors[4])
    assert refusalkit("vector", "combine", made, "--without", files[3], "--out", rest).code == 0
    assert abs(SteeringVector.load(rest).cosine(other)[4]) < 1e-4


def test_what_cannot_be_used_is_refused_in_words(asked: Path, made: Path, tmp_path: Path) -> None:
    train = ("vector", "train", "organism", "--prompts", asked, "--out", tmp_path / "v")
    assert "no method" in refused(*train, "--method", "sum")
    assert "--phase is 'never'" in refused(*train, "--phase", "never")
    assert "wanted --answer" in refused(*train, "--method", "trained")
    assert "no folder" in refused("vector", "train", "organism", "--out", tmp_path / "x" / "y" / "v")
    assert "give labelled prompts" in refused("vector", "train", "organism", "--out", tmp_path / "v")
    assert "no vector file" in refused("vector", "info", tmp_path / "none")
    assert "one target" in refused("vector", "calibrate", "organism", made, "--out", tmp_path / "c")
    assert "2 weights were given for 1" in refused(
        "vector", "combine", made, "--weights", "1,2", "--out", tmp_path / "v"
    )
    assert "numbers with commas" in refused("vector", "combine", made, "--weights", "a", "--out", tmp_path / "v")
    (tmp_path / "bad").write_bytes(b"not a vector")
    assert "no readable safetensors" in refused("vector", "info", tmp_path / "bad")
    assert not (tmp_path / "v").exists()


def test_what_is_no_vector_is_called_what_it_is(made: Path, tmp_path: Path) -> None:
    assert f"did you mean {made}?" in refused("steer", "organism", "--vector", made.parent)
    save_file({"layer.4": torch.ones(8)}, tmp_path / "bare.safetensors")
    bare = refused("vector", "info", tmp_path / "bare.safetensors")
    assert "layer.4 [8]" in bare and "steering.SteeringVector({4: tensor}" in bare
    weights = tmp_path / "model"
    weights.mkdir()
    (weights / "config.json").write_text("{}")
    save_file({"embed.weight": torch.ones(8, 8)}, weights / "model.safetensors")
    assert "a folder of a model" in refused("steer", "organism", "--vector", weights)
    assert "looks like a model's weights" in refused("vector", "info", weights / "model.safetensors")
    (tmp_path / "none").mkdir()
    assert "is a folder without direction.pt" in refused("vector", "info", tmp_path / "none")
    sound = made.read_bytes()
    (tmp_path / "nan").write_bytes(sound[:-4] + b"\x00\x00\xc0\x7f")
    said = refused("vector", "info", tmp_path / "nan")
    assert "digest" in said and "Error(" not in said
