"""`refusalkit export` writes what other programs read, proves it, and refuses what a format cannot say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import interp
import steering
from tests.helpers.command import refusalkit, refused
from tests.helpers.weights import vector


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, llama: Path) -> Path:
    folder = tmp_path_factory.mktemp("vectors")
    about = interp.load(str(llama)).provenance()
    everywhere = steering.SteeringVector({1: vector()}, "resid_post", 0.5, provenance=about)
    everywhere.save(folder / "one.safetensors")
    replace(everywhere, phase="prompt").save(folder / "prompt.safetensors")
    steering.SteeringVector({0: vector()}, "resid_post").save(folder / "first.safetensors")
    steering.SteeringVector({1: vector(1, 40)}).save(folder / "narrow.safetensors")
    return folder


@pytest.mark.parametrize("format", ["gguf", "repeng", "svec", "easysteer", "refusal_direction"])
def test_every_format_is_written_proved_and_read_back(format: str, llama: Path, saved: Path, tmp_path: Path) -> None:
    out = tmp_path / ("vector.gguf" if format == "easysteer" else f"vector.{format}")
    given = ("export", saved / "one.safetensors", "--format", format, "--model", llama, "--verify", "--quiet")
    done = refusalkit(*given, "--out", out)
    assert done.code == 0, done.err
    assert "note: the provenance is left behind" in done.out
    assert "proved: read by its program's rules" in done.out
    back = refusalkit("export", out, "--from", format, "--out", tmp_path / "back.safetensors", "--model", llama)
    assert back.code == 0, back.err
    again = steering.SteeringVector.load(tmp_path / "back.safetensors")
    (value,) = again.vectors.values()
    assert (again.coefficient * value).allclose(0.5 * vector())


def test_a_strength_is_written_into_the_file(llama: Path, saved: Path, tmp_path: Path) -> None:
    out = tmp_path / "v.gguf"
    done = refusalkit("export", saved / "one.safetensors", "--strength", 4, "--out", out, "--model", llama)
    assert done.code == 0 and "the coefficient 2 is multiplied into the vectors" in done.out, done.err
    assert steering.import_vector(out).vectors[1].allclose(2 * vector())


def test_weights_are_written_and_proved(llama: Path, saved: Path, tmp_path: Path) -> None:
    out = tmp_path / "edited"
    done = refusalkit(
        "export", saved / "one.safetensors", "--format", "hf", "--out", out, "--model", llama, "--verify", "--quiet"
    )
    assert done.code == 0 and "proved" in done.out, done.err
    assert (out / "config.json").is_file()


def test_what_acts_on_some_tokens_is_refused_until_told_to_act_everywhere(
    llama: Path, saved: Path, tmp_path: Path
) -> None:
    given = ("export", saved / "prompt.safetensors", "--out", tmp_path / "v.gguf", "--model", llama, "--quiet")
    assert "phase prompt" in (message := refused(*given)) and "--everywhere" in message and "dataclass" not in message
    assert not (tmp_path / "v.gguf").exists()
    assert refusalkit(*given, "--everywhere").code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nowhere.safetensors", "--out", "v.gguf"), "there is no vector at nowhere.safetensors"),
        (("{saved}/one.safetensors", "--out", "v.bin"), "does not say which format is wanted: give --format, one of"),
        (("{saved}/one.safetensors", "--out", "v.gguf", "--format", "nope"), "there is no format 'nope'"),
        (("{saved}/one.safetensors", "--out", "v.gguf", "--from", "hf"), "vectors are not read from 'hf'"),
        (("{saved}/one.safetensors", "--out", "v.gguf", "--strength", "0"), "a number other than 0"),
        (("{saved}/one.safetensors", "--out", "no/v.gguf"), "there is no folder no"),
        (("{saved}/one.safetensors", "--out", "{saved}/one.safetensors"), "--out is the vector itself"),
        (("{saved}/one.safetensors", "--out", "{saved}/first.safetensors"), "there already"),
        (("{saved}/first.safetensors", "--out", "v.gguf", "--model", "{llama}"), "block 0"),
        (("{saved}/first.safetensors", "--out", "v.svec", "--verify"), "give --model"),
        (("{saved}/narrow.safetensors", "--out", "v.gguf", "--model", "{llama}"), "has width 40"),
        (("{saved}/one.safetensors", "--out", "v.gguf", "--model", "organism:chat"), "has width"),
        (("{saved}/one.safetensors", "--out", "v.gguf", "--model", "./nowhere"), "no model folder at ./nowhere"),
        (("{llama}/config.json", "--out", "v.gguf", "--model", "{llama}"), "no readable safetensors file"),
    ],
)
def test_bad_input_is_one_message_and_writes_nothing(
    arguments: tuple[str, ...], words: str, llama: Path, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert words in refused("export", *(a.format(saved=saved, llama=llama) for a in arguments), "--quiet")
    assert list(tmp_path.iterdir()) == []
