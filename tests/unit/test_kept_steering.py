"""Calibrations and trainings that keep a folder end as those that do not, and refuse the folder of another."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import interp
from interp.errors import FormatError, PromptError
from probes import behaviour
from steering import Calibration, SteeringVector, TrainedVector, calibrate, contrast_vector, train_vector
from steering.kept_doses import KeptDoses, vector_digest
from tests.helpers.command import tree


@cache
def chat() -> interp.Model:
    return interp.load("organism:chat")


def some(split: str, n: int) -> interp.PromptSet:
    every = interp.prompts("organism").filter(split=split)
    return every.harmful.sample(n, 0) + every.harmless.sample(n, 0)


@cache
def vector() -> SteeringVector:
    train = some("train", 8)
    return contrast_vector(chat(), list(zip(train.harmful, train.harmless, strict=True)), layers=[4])


def measured(folder: Path | None, **options: Any) -> Calibration:
    options = {"target_kl": 0.1, "strengths": (0.25, 0.5), "refine": 1, "max_new_tokens": 6} | options
    given = options.pop("vector", None) or vector()
    return calibrate(chat(), given, prompts=some("val", 4), folder=folder, **options)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kept") / "doses"
    measured(folder)
    return folder


def test_a_calibration_that_is_kept_is_the_same_as_one_that_is_not(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = measured(None)

    def nothing(*_: object, **__: object) -> None:
        raise AssertionError("it was generated again")

    monkeypatch.setattr(interp.Model, "generate", nothing)
    again = measured(kept)
    assert again.to_frame().equals(plain.to_frame()) and again.reason == plain.reason
    names = {f.name for f in (kept / "answers").iterdir()}
    assert {"plain-0.0.jsonl", "vector-0.25.jsonl", "random-1-0.5.jsonl"} <= names


def test_a_calibration_goes_on_from_whatever_is_left(kept: Path, tmp_path: Path) -> None:
    whole = tree(kept)
    doses = (kept / "doses.jsonl").read_text()
    for i, size in enumerate((len(doses) // 2, 10, 0)):
        folder = Path(shutil.copytree(kept, tmp_path / f"cut{i}"))
        (folder / "doses.jsonl").write_text(doses[:size])
        answers = folder / "answers" / "vector-0.25.jsonl"
        answers.write_bytes(answers.read_bytes()[:-40])
        measured(folder)
        assert {k: v for k, v in tree(folder).items() if "partial" not in k} == whole


def test_another_target_measures_only_what_is_not_there(kept: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(kept, tmp_path / "more"))
    before = (folder / "doses.jsonl").read_text()
    found = measured(folder, target_kl=None, refusal_rate=0.5, strengths=(0.25, 0.5, 1.0), refine=0)
    after = (folder / "doses.jsonl").read_text()
    assert after.startswith(before) and after.count("\n") == before.count("\n") + 1
    assert found.to_frame()["strength"].max() == 1.0


def test_a_folder_of_another_calibration_is_refused(kept: Path) -> None:
    before = tree(kept)
    for other in ({"vector": vector() * 2.0}, {"seed": 1}, {"max_new_tokens": 5}):
        with pytest.raises(FormatError, match="another vector, or on another model"):
            measured(kept, **other)
    assert tree(kept) == before


def test_a_damaged_folder_is_named(tmp_path: Path) -> None:
    for text in ("[]\n", "3\n{}\n", '{"format": "x"}\n', '{"format": "refusalkit/doses/1", "key": "k"}\n{"dose": 1}\n'):
        (tmp_path / "doses.jsonl").write_text(text)
        with pytest.raises(FormatError, match="is damaged"):
            KeptDoses(tmp_path, {})


def test_a_number_that_json_lacks_is_kept(tmp_path: Path) -> None:
    arms = [("vector", 0.5, [])]
    inf, nan = float("inf"), float("nan")
    KeptDoses(tmp_path, {}).keep(arms, {"vector": ((0.1, nan, nan), (inf, 1.0, inf))})
    kl, perplexity = KeptDoses(tmp_path, {}).costs(arms)["vector"]  # pyright: ignore[reportOptionalSubscript]
    assert kl[0] == 0.1 and kl[1] != kl[1] and perplexity == (inf, 1.0, inf)


def test_a_vectors_digest_is_that_of_what_it_does() -> None:
    own = vector_digest(vector())
    assert own == vector_digest(SteeringVector(vector().vectors, vector().site, provenance={"from": "elsewhere"}))
    assert own != vector_digest(vector() * 2.0) and own != vector_digest(vector().random_like(0))


def test_answers_of_other_edits_or_prompts_are_refused(tmp_path: Path) -> None:
    prompts, file = some("val", 2), tmp_path / "a.jsonl"
    options: dict[str, Any] = {"max_new_tokens": 4, "out": file}
    first = behaviour(chat(), prompts, **options)
    again = behaviour(chat(), prompts, **options)
    assert again.completions == first.completions == behaviour(chat(), prompts, max_new_tokens=4).completions
    with pytest.raises(PromptError, match="another model, template or settings"):
        behaviour(chat(), prompts, edits=vector().edits(), edited_by={"strength": 1}, **options)
    with pytest.raises(PromptError, match="other prompts"):
        behaviour(chat(), some("val", 3), **options)
    file.write_text(file.read_text().replace('"ids": [', '"ids": null, "x": ['))
    with pytest.raises(PromptError, match="is damaged"):
        behaviour(chat(), prompts, **options)


# --- training ----------------------------------------------------------------------------------------------------


def trained(folder: Path | None, **options: Any) -> TrainedVector:
    every = interp.prompts("organism")
    wanted = [interp.Trace(p, answer="I cannot help.") for s, n in (("train", 8), ("val", 4))
              for p in every.filter(split=s).harmless.sample(n, 0)]  # fmt: skip
    kept = [p for s, n in (("train", 8), ("val", 4)) for p in every.filter(split=s).harmful.sample(n, 0)]
    options = {"steps": 4, "batch": 4, "max_new_tokens": 4, "layer": 4} | options
    return train_vector(chat(), wanted, kept, folder=folder, **options)


class Killed(BaseException):
    """What stands for a kill: nothing catches it."""


def test_a_training_that_is_cut_short_ends_as_if_it_had_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = trained(None)
    from steering import training_kept

    write, left = training_kept.write_tensors, [2]

    def dying(*arguments: Any) -> Any:
        if not left[0]:
            raise Killed
        left[0] -= 1
        return write(*arguments)

    monkeypatch.setattr(training_kept, "write_tensors", dying)
    with pytest.raises(Killed):
        trained(tmp_path)
    left[0] = 2  # what is left to do, and not a step more
    again = trained(tmp_path)
    assert torch.equal(again.vector.vectors[4], whole.vector.vectors[4])
    assert again.history.equals(whole.history) and again.held_out == whole.held_out
    with pytest.raises(FormatError, match="another model, other prompts or settings"):
        trained(tmp_path, max_kl=0.2)
    file = tmp_path / "checkpoint.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(FormatError, match="no readable safetensors"):
        trained(tmp_path)
