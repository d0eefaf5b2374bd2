"""`refusalkit capture` fills a store, `refusalkit store` says what is in it, checks it and exports it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import interp
from refusalkit.cli.activations import parse_layers, parse_names, parse_positions
from tests.helpers.command import refusalkit, refused

TEXTS = ["How do I bake bread?", "Tell me about the sea.", "Name a colour."]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("asked") / "requests.txt"
    file.write_text("\n".join(TEXTS) + "\n")
    return file


@pytest.fixture(scope="module")
def kept(llama: Path, asked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("kept") / "store"
    done = refusalkit(
        "capture", llama, "--prompts", asked, "--sites", "resid_post, z", "--positions", "t_inst,-1", "--layers", "0-1",
        "--label", "harmless", "--out", out, "--quiet",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "3 (3 harmless)" in done.out and "resid_post [48, F32]" in done.out
    return out


def test_the_command_captures_what_the_function_does(kept: Path, llama: Path) -> None:
    store = interp.open_store(kept)
    acts = interp.capture(interp.load(llama), TEXTS, ["resid_post", "z"], ["t_inst", -1], [0, 1])
    assert store.positions == acts.positions and store.layers == acts.layers
    for site in acts.sites:
        assert torch.equal(store.load().data[site], acts.data[site])


def test_the_same_command_again_finds_it_done_and_another_is_refused(kept: Path, llama: Path, asked: Path) -> None:
    same = ("capture", llama, "--prompts", asked, "--sites", "resid_post,z", "--positions", "t_inst,-1", "--label",
            "harmless", "--out", kept, "--quiet")  # fmt: skip
    assert refusalkit(*same, "--layers", "0,1").code == 0
    assert "layers" in refused(*same, "--layers", "2")


def test_store_verifies_and_exports_a_slice(kept: Path, tmp_path: Path) -> None:
    done = refusalkit(
        "store", kept, "--verify", "--quiet", "--export", tmp_path / "a.npz", "--site", "z", "--layers", "1"
    )
    assert done.code == 0 and "every checksum holds" in done.out
    with np.load(tmp_path / "a.npz") as file:
        assert file["values"].shape == (3, 1, 2, 48)
        assert list(file["labels"]) == ["harmless"] * 3
    out = tmp_path / "a.parquet"
    assert refusalkit("store", kept, "--export", out, "--site", "resid_post", "--positions", "t_inst").code == 0
    assert set(pd.read_parquet(out)["layer"]) == {0, 1}


def test_damage_is_named_and_ends_with_an_error(kept: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(kept, copy)
    victim = next(copy.rglob("z*.safetensors"))
    content = bytearray(victim.read_bytes())
    content[-5] ^= 4
    victim.write_bytes(content)
    assert victim.name in refused("store", copy, "--verify", "--quiet")


def test_wrong_options_are_refused_in_words(kept: Path, llama: Path, asked: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    base = ("capture", llama, "--prompts", asked, "--out", out, "--quiet")
    assert "unknown site 'resid'" in refused(*base, "--sites", "resid")
    assert "'5-3' is no layer" in refused(*base, "--layers", "5-3")
    assert "layer 9 is out of range" in refused(*base, "--layers", "9")
    assert "no engine 'spark'" in refused(*base, "--engine", "spark")
    assert "eager" in refused(*base, "--sites", "pattern")
    assert "no store at" in refused("store", tmp_path / "nowhere")
    assert "end its name in" in refused("store", kept, "--export", tmp_path / "a.txt")
    assert not out.exists() or not list(out.iterdir())


def test_lists_are_read_as_they_are_written() -> None:
    assert parse_layers("0-2, 5,2") == [0, 1, 2, 5]
    assert parse_layers("-1") == [-1] and parse_layers(None) is None
    assert parse_positions("t_inst, -1,post_inst[0]") == ["t_inst", -1, "post_inst[0]"]
    assert parse_names("a,b") == ["a", "b"]
