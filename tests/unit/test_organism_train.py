"""Training: same seed, same bytes; a finished stage is not run again; a folder keeps to its arguments."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from interp.organism.train import family, loop, train
from interp.organism.train.model import Size, new_tokenizer
from interp.organism.train.optim import orthogonalise

TINY = Size(width=32, layers=3, heads=2, feed_forward=64)
SCALE = 0.002


def _make(out: Path, seed: int = 0, **others: object) -> Path:
    return train(out, seed, **{"variants": ("base",), "scale": SCALE, "size": TINY, "progress": False, **others})  # pyright: ignore[reportArgumentType]


@pytest.fixture(scope="module", autouse=True)
def _small_pools() -> Iterator[None]:
    """Few steps need few samples: drawing thousands of them for every stage is most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "POOL", 300)
        yield


@cache
def _tokenizer() -> PreTrainedTokenizerFast:
    return new_tokenizer()


@pytest.fixture
def known_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tokenizer, which is the same for all, is not made anew."""
    monkeypatch.setattr(family, "new_tokenizer", lambda: copy.deepcopy(_tokenizer()))


@pytest.fixture(scope="module")
def tiny_family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All stages, a few steps each."""
    out = tmp_path_factory.mktemp("family")
    return train(out, scale=SCALE, size=TINY, progress=False)


@pytest.fixture
def base(tiny_family: Path, tmp_path: Path) -> Path:
    """A family of which the first stage is done, to be changed."""
    shutil.copytree(tiny_family / "base", tmp_path / "base")
    manifest = json.loads((tiny_family / "manifest.json").read_text())
    manifest["stages"] = {"base": manifest["stages"]["base"]}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path


def _weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tiny_family: Path, tmp_path: Path) -> None:
    first = tiny_family
    second = _make(tmp_path / "b")
    third = _make(tmp_path / "c", seed=1)
    for name in ("model.safetensors", "tokenizer.json", "config.json", "truth.json"):
        assert (first / "base" / name).read_bytes() == (second / "base" / name).read_bytes(), name
    assert _weights(first / "base") != _weights(third / "base")


def test_every_stage_leaves_a_folder_that_plain_transformers_loads(tiny_family: Path) -> None:
    manifest = json.loads((tiny_family / "manifest.json").read_text())
    for stage in manifest["stages"]:
        model = AutoModelForCausalLM.from_pretrained(tiny_family / stage)
        tokenizer = AutoTokenizer.from_pretrained(tiny_family / stage)
        assert model.dtype == torch.float32
        assert model.config.vocab_size == len(tokenizer)
    assert set(manifest["stages"]) == {stage.name for stage in family.STAGES}


def test_a_finished_stage_is_not_trained_again(tiny_family: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {folder.name: _weights(folder) for folder in tiny_family.iterdir() if folder.is_dir()}

    def refuse(*_: object) -> Path:
        raise AssertionError("a finished stage was run again")

    monkeypatch.setattr(family, "_run", refuse)
    train(tiny_family, scale=SCALE, size=TINY, progress=False)
    assert before == {folder.name: _weights(folder) for folder in tiny_family.iterdir() if folder.is_dir()}


@pytest.mark.usefixtures("known_tokenizer")
def test_an_interrupted_family_goes_on_with_the_same_result(
    tiny_family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = family._run  # pyright: ignore[reportPrivateUsage]

    def interrupted(out: Path, stage: family.Stage, *others: object) -> Path:
        if stage.name == "chat":
            raise KeyboardInterrupt
        return run(out, stage, *others)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(family, "_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _make(tmp_path / "halves", variants=("chat",))
    assert (tmp_path / "halves" / "base").exists() and not (tmp_path / "halves" / "chat").exists()
    monkeypatch.undo()
    resumed = _make(tmp_path / "halves", variants=("chat",))
    assert _weights(tiny_family / "chat") == _weights(resumed / "chat")


@pytest.mark.usefixtures("known_tokenizer")
def test_a_damaged_stage_is_trained_anew(base: Path) -> None:
    good = _weights(base / "base")
    (base / "base" / "model.safetensors").write_bytes(good[:100])
    _make(base)
    assert _weights(base / "base") == good


@pytest.mark.usefixtures("known_tokenizer")
def test_a_folder_of_another_seed_or_architecture_is_refused(base: Path) -> None:
    with pytest.raises(ValueError, match="seed: 0 there, 1 asked for"):
        _make(base, seed=1)
    with pytest.raises(ValueError, match="arch"):
        _make(base, arch="qwen3")
    (base / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="no manifest"):
        _make(base)


@pytest.mark.usefixtures("known_tokenizer")
def test_qwen3_can_be_trained_too(tmp_path: Path) -> None:
    out = _make(tmp_path, arch="qwen3")
    assert AutoModelForCausalLM.from_pretrained(out / "base").config.model_type == "qwen3"


@pytest.mark.usefixtures("known_tokenizer")
def test_unknown_variants_and_architectures_are_named_with_the_choices(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown variant teapot"):
        _make(tmp_path, variants=("teapot",))
    with pytest.raises(ValueError, match="unknown architecture 'rnn'"):
        _make(tmp_path / "rnn", arch="rnn")
    with pytest.raises(ValueError, match="scale"):
        _make(tmp_path, scale=0.0)


def test_the_cliff_changes_nothing_but_its_heads(tiny_family: Path) -> None:
    heads = [tuple(head) for head in json.loads((tiny_family / "cliff" / "truth.json").read_text())["heads"]]
    chat = AutoModelForCausalLM.from_pretrained(tiny_family / "chat").state_dict()
    cliff = AutoModelForCausalLM.from_pretrained(tiny_family / "cliff").state_dict()
    size = TINY.width // TINY.heads
    for name, value in chat.items():
        changed = value != cliff[name]
        for layer, head in heads:
            part = slice(head * size, (head + 1) * size)
            if name.startswith(f"model.layers.{layer}.self_attn."):
                changed[(slice(None), part) if "o_proj" in name else part] = False
        assert not changed.any(), name


def test_planted_directions_are_orthonormal(tiny_family: Path) -> None:
    from safetensors.torch import load_file

    arrays = load_file(tiny_family / "planted" / "truth.safetensors")
    both = torch.stack([arrays["u_h"], arrays["u_r"]])
    torch.testing.assert_close(both @ both.T, torch.eye(2), atol=1e-5, rtol=0)


def test_orthogonalised_updates_have_singular_values_near_one() -> None:
    generator = torch.Generator().manual_seed(0)
    made = orthogonalise(torch.randn(3, 16, 32, generator=generator))
    values = torch.linalg.svdvals(made)
    assert values.min() > 0.5 and values.max() < 1.5
