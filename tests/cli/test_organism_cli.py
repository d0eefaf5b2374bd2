"""`refusalkit organism`: a family trained by command, resumed, and audited as any other model."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.command import refusalkit, refused, tree


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A family of another architecture and another seed, a few steps a stage."""
    out = tmp_path_factory.mktemp("family") / "qwen3"
    done = refusalkit(
        "organism", "train", "--out", out, "--arch", "qwen3", "--seed", "1", "--variant", "chat", "--scale", "0.002",
        "--quiet",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert str(out) in done.out
    return out


def test_training_again_finds_everything_done(qwen3: Path) -> None:
    before = tree(qwen3)
    same = ("--arch", "qwen3", "--seed", "1", "--variant", "chat", "--scale", "0.002", "--quiet")
    assert refusalkit("organism", "train", "--out", qwen3, *same).code == 0
    assert tree(qwen3) == before


def test_what_was_trained_is_audited_as_any_folder(qwen3: Path, files: tuple[str, ...], tmp_path: Path) -> None:
    """Issue 2, done when 3: another architecture, another seed, made by the same command."""
    done = refusalkit("audit", qwen3 / "chat", *files, "--max-new-tokens", "4", "--quiet", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--seed", "2", "--arch", "qwen3"), "seed: 1 there, 2 asked for"),
        (("--seed", "1"), "arch: 'qwen3' there, 'llama' asked for"),
    ],
)
def test_a_family_is_not_mixed_with_another(qwen3: Path, arguments: tuple[str, ...], named: str) -> None:
    before = tree(qwen3)
    message = refused("organism", "train", "--out", qwen3, "--scale", "0.002", "--quiet", *arguments)
    assert named in message
    assert "choose another folder" in message
    assert tree(qwen3) == before


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--arch", "mamba"), "no organism architecture 'mamba'; known: llama, qwen3"),
        (("--variant", "nonesuch"), "nonesuch"),
    ],
)
def test_what_cannot_be_trained_is_named(tmp_path: Path, arguments: tuple[str, ...], named: str) -> None:
    assert named in refused("organism", "train", "--out", tmp_path / "out", "--quiet", *arguments)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = refused("organism", "train", "--out", tmp_path / "file" / "out", "--variant", "base", "--quiet")
    assert str(tmp_path / "file" / "out") in message


def test_the_card_refuses_what_it_cannot_measure(qwen3: Path, tmp_path: Path) -> None:
    assert "no organism variant 'nonesuch'" in refused("organism", "card", "--variant", "nonesuch")
    assert "nodir" in refused("organism", "card", "--out", tmp_path / "nodir" / "truth.json")
    assert "choose with --variant" in refused("organism", "card", "--folder", qwen3, "--out", tmp_path / "truth.json")
    assert not (tmp_path / "truth.json").exists()


def test_the_card_measures_a_family_trained_here(qwen3: Path, tmp_path: Path) -> None:
    out = tmp_path / "truth.json"
    arguments = ("--folder", qwen3, "--variant", "base", "--n", "20", "--out", out, "--quiet")
    done = refusalkit("organism", "card", *arguments)
    assert out.is_file(), done.err
    assert "floors met" in done.out
