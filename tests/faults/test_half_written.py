"""An audit whose folder was left half written, or damaged since, goes on and ends as if nothing had happened."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from interp.errors import FormatError, RefusalkitError
from interp.model.load import load
from interp.model.model import Model
from refusalkit.audit import forms
from refusalkit.audit.pipeline import audit
from tests.helpers.command import LOOSE, results, tree


@pytest.fixture(scope="module", autouse=True)
def _made_once() -> Iterator[None]:
    """The held-out prompts in other forms, which the grammar makes anew in a second, are the same in every audit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forms, "load_prompts", cache(forms.load_prompts))
        yield


@pytest.fixture(scope="module")
def model() -> Model:
    return load("organism:chat")


EVERYTHING: tuple[str, ...] = ()
SHORT = ("knows", "guard", "thinking", "plans")
"""Left out where what is damaged is no file of theirs."""


@pytest.fixture(scope="module")
def finished(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An audit that ran through, with a direction and its causal check; tests copy it."""
    out = tmp_path_factory.mktemp("finished") / "audit"
    found = audit(model, out, settings=LOOSE, skip=SHORT)
    assert found["sections"]["causal"] is not None
    return out


@pytest.fixture(scope="module")
def whole(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with every section; only looked at."""
    out = tmp_path_factory.mktemp("whole") / "audit"
    audit(model, out, settings=LOOSE)
    return out


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "audit"))


def cut(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) * 2 // 3])

    return damage


def lost(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).unlink()

    return damage


def replaced(folder: Path) -> None:
    from steering import SteeringVector

    vector = folder / "vectors" / "refusal.safetensors"
    (SteeringVector.load(vector) + SteeringVector.load(vector)).save(vector)


FILES = (
    ".work/answers.jsonl", ".work/direction.json", ".work/causal.json", ".work/separation.json",
    ".work/candidates.safetensors", "vectors/refusal.safetensors", "audit.json", "report.html",
)  # fmt: skip


@pytest.mark.parametrize(
    "damage",
    [*(cut(name) for name in FILES), *(lost(name) for name in FILES), replaced],
    ids=[*(f"cut {name}" for name in FILES), *(f"lost {name}" for name in FILES), "replaced vector"],
)
def test_a_damaged_folder_is_mended(damage: Callable[[Path], None], copy: Path, finished: Path, model: Model) -> None:
    damage(copy)
    audit(model, copy, settings=LOOSE, skip=SHORT)
    assert results(copy) == results(finished)


@pytest.mark.parametrize("damage", [cut(".work/key.json"), lost(".work/key.json")], ids=["cut", "lost"])
def test_a_folder_that_does_not_say_what_it_holds_is_left_alone(
    damage: Callable[[Path], None], copy: Path, model: Model
) -> None:
    damage(copy)
    before = tree(copy)
    with pytest.raises(FormatError, match=r"key\.json is missing or damaged.*another --out, or --force"):
        audit(model, copy, settings=LOOSE, skip=SHORT)
    assert tree(copy) == before


def test_a_key_of_another_shape_is_damage_too(copy: Path, model: Model) -> None:
    for text in ("[]", "3", '{"digest": 1, "parts": 3}', "\xff"):
        (copy / ".work" / "key.json").write_text(text)
        with pytest.raises(FormatError, match="missing or damaged"):
            audit(model, copy, settings=LOOSE, skip=SHORT)


def test_answers_of_another_shape_are_generated_again(copy: Path, finished: Path, model: Model) -> None:
    answers = copy / ".work" / "answers.jsonl"
    lines = answers.read_text(encoding="utf-8").split("\n")
    lines[5] = lines[5].replace('"ids": [', '"ids": null, "other": [')
    answers.write_text("\n".join(lines), encoding="utf-8")
    audit(model, copy, settings=LOOSE, skip=SHORT)
    assert results(copy) == results(finished)


class Killed(BaseException):
    """What stands for a kill: nothing catches it."""


def test_a_kill_at_any_write_costs_nothing(
    whole: Path, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files appear by being renamed: die at the first renaming, then, going on, at the second, and so on."""
    out, plain, kills, left = tmp_path / "audit", os.replace, 0, [0]

    def dying(source: Any, target: Any) -> None:
        if Path(target).is_relative_to(out):
            if not left[0]:
                raise Killed
            left[0] -= 1
        plain(source, target)

    monkeypatch.setattr(os, "replace", dying)
    while True:
        left[0] = kills
        try:
            audit(model, out, settings=LOOSE)
            break
        except Killed:
            kills += 1
    assert kills >= 4
    assert {k: v for k, v in results(out).items() if "partial" not in k} == results(whole)


@pytest.mark.parametrize(("limit", "skip"), [(2_000, SHORT), (20_000, EVERYTHING), (200_000, SHORT)])
def test_a_full_disk_is_said_and_the_next_run_finishes(
    limit: int, skip: tuple[str, ...], finished: Path, whole: Path, model: Model, tmp_path: Path
) -> None:
    out, want = tmp_path / "audit", results(finished if skip else whole)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(RefusalkitError, match="cannot write"):
            audit(model, out, settings=LOOSE, skip=skip)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    kept = tree(out)
    audit(model, out, settings=LOOSE, skip=skip)
    assert {k: v for k, v in results(out).items() if "partial" not in k} == want
    stages = {k: v for k, v in kept.items() if k.startswith(".work") and k.endswith(".json")}
    assert {k: tree(out)[k] for k in stages} == stages  # what was finished was not done again
