"""A capture through Ray is the local one, also when a worker is lost or the job is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import interp
from interp.activations.engines.ray import Ray
from interp.errors import RefusalkitError, StoreError
from interp.model.architecture import Architecture
from interp.model.ops import Op
from tests.helpers.command import save_model

pytest.importorskip("ray")
TEXTS = [f"Tell me about {thing}." for thing in ("bread", "the sea", "a very long road", "x", "birds", "tea", "ice")]
WANTED: dict[str, Any] = {"sites": ["resid_post", "z"], "positions": ["t_inst", "post_inst"], "layers": [0, 2]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@dataclass(frozen=True)
class DieOnce:
    """Kills the process it runs in, the first time."""

    marker: str

    def ops(self, arch: Architecture) -> list[Op]:
        del arch

        def change(x: Any, cells: Any) -> Any:
            del cells
            if not Path(self.marker).exists():
                Path(self.marker).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return x + 0

        return [Op("resid_pre", 0, change, ("all",), "both", self)]


@pytest.mark.parametrize("lost", [pytest.param(False, marks=pytest.mark.soak), True])
def test_two_workers_give_what_one_process_gives_also_when_one_is_lost(
    lost: bool, folder: Path, tmp_path: Path
) -> None:
    """Every worker costs the CPU seconds of its imports; without a loss it is no other run, and a soak test."""
    edits = [DieOnce(str(tmp_path / "died"))] if lost else []
    store = interp.capture(
        str(folder), TEXTS, out=tmp_path / "ray", engine=Ray(workers=2, cpus_per_worker=0.4, part=2), edits=edits,
        **WANTED,
    )  # fmt: skip
    assert (tmp_path / "died").exists() == lost
    acts = interp.capture(interp.load(folder), TEXTS, **WANTED)
    assert [p.text for p in store.prompts] == TEXTS
    for site in acts.sites:
        torch.testing.assert_close(store.load().data[site], acts.data[site], rtol=1e-5, atol=1e-5)
    store.verify()
    again = interp.capture(str(folder), TEXTS, out=tmp_path / "ray", engine=Ray(part=2), edits=edits, **WANTED)
    assert len(again) == len(TEXTS)
    with pytest.raises(StoreError, match="another folder|not empty"):
        interp.capture(str(folder), TEXTS[:3], out=tmp_path / "ray", engine=Ray(part=2), **WANTED)


def test_what_a_worker_cannot_do_is_said_in_words(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RefusalkitError, match="no model folder|worker failed"):
        interp.capture(str(tmp_path / "nowhere"), TEXTS, out=tmp_path / "out", engine=Ray(cpus_per_worker=0.4))
    with pytest.raises(RefusalkitError, match="give its name or folder"):
        interp.capture(interp.load(folder), TEXTS, out=tmp_path / "out", engine="ray")
    with pytest.raises(RefusalkitError, match="out="):
        interp.capture(str(folder), TEXTS, engine="ray")
