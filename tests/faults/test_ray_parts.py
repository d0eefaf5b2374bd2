"""A Ray job killed while its parts are moved into the store loses nothing and lists nothing twice (Ray left out)."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

import interp
from interp.activations.engines import ray
from interp.activations.engines.ray import Ray, Worker
from tests.helpers.command import save_model

FIRST = interp.PromptSet.from_texts(harmful=["Steal a car", "Pick a lock", "x"], harmless=["Bake bread", "The sea"])
SECOND = interp.PromptSet.from_texts(harmful=["Lie"], harmless=["Sing a song", "Dance"])
WANTED: dict[str, Any] = {"sites": ["resid_post"], "positions": ["t_inst"], "layers": [1]}


class Killed(BaseException):
    """As SIGKILL: nothing catches it."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers' code, in this process."""

    def run(_ray: Any, name: str, engine: Ray, out: Path, parts: Any, missing: Any, settings: Any) -> Iterator[int]:
        worker = Worker(name, engine.load, str(out), settings)
        for i in missing:
            some = {"name": parts[i].name, "prompts": [asdict(p) for p in parts[i]]}
            worker({"part": [i], "prompts": [json.dumps(some)]})
            yield i

    monkeypatch.setattr(ray, "_ray", lambda: None)
    monkeypatch.setattr(ray, "_started", lambda _ray: contextlib.nullcontext())
    monkeypatch.setattr(ray, "_run", run)


def capture(folder: Path, out: Path, prompts: interp.PromptSet, append: bool = False) -> interp.Store:
    return interp.capture(str(folder), prompts, out=out, engine=Ray(part=2), append=append, **WANTED)


def dying(monkeypatch: pytest.MonkeyPatch, at: int) -> Callable[[], int]:
    """Every call that moves, writes or removes something dies before it does, from the `at`-th on."""
    count = 0

    def instead(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count > at:
                raise Killed
            return real(*args, **kwargs)

        return call

    move = ray._move  # pyright: ignore[reportPrivateUsage]

    def watched(*args: Any) -> None:
        with monkeypatch.context() as patch:
            for module, name in ((ray.os, "replace"), (ray.shutil, "rmtree"), (ray, "sync_folder")):
                patch.setattr(module, name, instead(getattr(module, name)))
            move(*args)

    monkeypatch.setattr(ray, "_move", watched)
    return lambda: count


@pytest.mark.parametrize("append", [False, True])
def test_a_kill_at_any_step_of_the_move_costs_nothing(
    append: bool, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = interp.load(folder)
    prompts = SECOND if append else FIRST
    sets = [FIRST, SECOND] if append else [FIRST]
    want = torch.cat([interp.capture(model, some, **WANTED).data["resid_post"] for some in sets])
    for at in range(40):
        out = tmp_path / f"died-{at}"
        if append:
            capture(folder, out, FIRST)
        with monkeypatch.context() as patch:
            calls = dying(patch, at)
            with contextlib.suppress(Killed):
                capture(folder, out, prompts, append)
        store = capture(folder, out, prompts, append)
        torch.testing.assert_close(store.load().data["resid_post"], want, rtol=1e-5, atol=1e-5)
        assert [p.text for p in store.prompts] == [p.text for some in sets for p in some]
        store.verify()
        assert sorted(p.name for p in out.iterdir() if p.name.startswith(".parts")) == []
        shutil.rmtree(out)
        if calls() <= at:
            assert at > 5
            return
    raise AssertionError("it never got through")
