"""`refusalkit bake` leaves what plain transformers or peft loads; what cannot be is one message."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

import interp
import steering
from interp.edits import ablate
from tests.helpers.command import refusalkit, refused, save_model, tree
from tests.helpers.weights import edited_logits, every_logit, off, vector


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vectors")
    steering.SteeringVector({1: vector()}, coefficient=0.5, provenance={"why": "a test"}).save(
        folder / "one.safetensors"
    )
    steering.SteeringVector({0: vector(), 2: vector(2)}).save(folder / "two.safetensors")
    steering.SteeringVector({1: vector(1, 40)}).save(folder / "narrow.safetensors")
    return folder


def test_a_baked_model_is_written_and_read_back(llama: Path, saved: Path, tmp_path: Path) -> None:
    before = tree(llama)
    done = refusalkit("bake", llama, saved / "one.safetensors", "--out", tmp_path / "baked", "--quiet")
    assert done.code == 0, done.err
    assert "equal to the run-time edit" in done.out and "read back by plain transformers" in done.out
    model, again = interp.load(str(llama)), interp.load(str(tmp_path / "baked"))
    assert off(every_logit(again.hf, model), edited_logits(model, [ablate(vector())])) <= 1e-4
    assert tree(llama) == before
    assert '"why": "a test"' in (tmp_path / "baked" / "refusalkit.json").read_text()


def test_an_added_vector_is_written_with_its_strength(llama: Path, saved: Path, tmp_path: Path) -> None:
    given = ("bake", llama, saved / "two.safetensors", "--add", "--strength", 0.5, "--quiet")
    assert refusalkit(*given, "--out", tmp_path / "baked").code == 0
    model, again = interp.load(str(llama)), interp.load(str(tmp_path / "baked"))
    edits = (0.5 * steering.SteeringVector.load(saved / "two.safetensors")).edits()
    assert off(every_logit(again.hf, model), edited_logits(model, edits)) <= 1e-4


@pytest.mark.skipif(find_spec("peft") is None, reason="peft is not installed")
def test_an_adapter_is_written_and_read_back(llama: Path, saved: Path, tmp_path: Path) -> None:
    options = ("--layer", 2, "--lora", "--out", tmp_path / "adapter", "--quiet")
    done = refusalkit("bake", llama, saved / "two.safetensors", *options)
    assert done.code == 0, done.err
    assert "read back by plain peft" in done.out
    from peft import PeftModel  # pyright: ignore[reportMissingImports]

    model = interp.load(str(llama))
    again: Any = PeftModel.from_pretrained(interp.load(str(llama)).hf, tmp_path / "adapter").eval()
    assert off(every_logit(again, model), edited_logits(model, [ablate(vector(2))])) <= 1e-4


def test_the_nearest_has_to_be_asked_for(saved: Path, tmp_path: Path) -> None:
    gemma = save_model(tmp_path / "gemma", "gemma2")
    given = ("bake", gemma, saved / "one.safetensors", "--out", tmp_path / "baked", "--quiet")
    assert "--nearest" in refused(*given) and not (tmp_path / "baked").exists()
    done = refusalkit(*given, "--nearest")
    assert done.code == 0 and "nearest to the run-time edit" in done.out


def test_what_cannot_be_is_one_message_and_leaves_nothing(llama: Path, saved: Path, tmp_path: Path) -> None:
    one, two, out = saved / "one.safetensors", saved / "two.safetensors", ("--out", tmp_path / "out", "--quiet")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    assert "no model folder" in refused("bake", tmp_path / "no" / "model", one, *out)
    assert "no organism variant" in refused("bake", "organism:no", one, *out)
    assert "no vector file" in refused("bake", llama, saved / "no.safetensors", *out)
    assert "not empty" in refused("bake", llama, one, "--out", tmp_path / "full")
    assert "no folder" in refused("bake", llama, one, "--out", tmp_path / "a" / "b")
    assert "readable safetensors" in refused("bake", llama, llama / "config.json", *out)
    assert "not a steering vector" in refused("bake", llama, llama / "model.safetensors", *out)
    assert "--layer" in refused("bake", llama, two, *out)
    assert "no layer 1" in refused("bake", llama, two, "--layer", 1, *out)
    assert "leave out --layer" in refused("bake", llama, two, "--layer", 1, "--add", *out)
    assert "no strength" in refused("bake", llama, one, "--strength", 2, *out)
    assert "other than 0" in refused("bake", llama, one, "--strength", 0, "--add", *out)
    assert "does not fit" in refused("bake", llama, saved / "narrow.safetensors", *out)
    assert "no floating-point type" in refused("bake", llama, one, "--dtype", "int8", *out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["full"]


def test_wrong_names_are_said_without_torch(saved: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['refusalkit', 'bake', *sys.argv[1:]]\n"
        "from refusalkit.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    sys.stdout.write(str('torch' in sys.modules))"
    )
    one, out = str(saved / "one.safetensors"), str(tmp_path / "out")
    for given in (["/no/model", one, "--out", out], ["organism", "no.safetensors", "--out", out],
                  ["organism", one, "--out", str(saved)]):  # fmt: skip
        done = subprocess.run([sys.executable, "-c", code, *given], capture_output=True, text=True, timeout=60)
        assert done.stdout == "False" and done.stderr.startswith("refusalkit: "), done


def test_bfloat16_is_kept(llama: Path, saved: Path, tmp_path: Path) -> None:
    given = ("bake", llama, saved / "one.safetensors", "--dtype", "bfloat16", "--out", tmp_path / "baked", "--quiet")
    assert refusalkit(*given).code == 0
    assert interp.load(str(tmp_path / "baked")).dtype == torch.bfloat16
