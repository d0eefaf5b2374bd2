"""A bake that is killed while it saves leaves nothing under the name that was asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

import interp
import steering
from tests.helpers.forks import Forks
from tests.helpers.weights import vector

# Stops at one moment of the save, and says so; the test then kills it there.
CODE = """
import sys, time
from tests.helpers.weights import own, vector
import steering, steering.weights.baking as baking

def stop(*_, **__):
    sys.stdout.write("here\\n"); sys.stdout.flush(); time.sleep(600)

out, moment = sys.argv[1:]
baked = steering.bake(own("llama"), vector())
if moment == "weights":
    whole = baked.hf.save_pretrained
    def half(folder):
        whole(folder)
        file = folder / "model.safetensors"
        file.write_bytes(file.read_bytes()[:50_000])
        stop()
    baked.hf.save_pretrained = half
else:
    baking.write_json = stop
baked.save(out)
"""


@pytest.mark.parametrize("moment", ["weights", "record"])
def test_a_save_that_is_killed_leaves_no_folder_that_passes_for_whole(
    moment: str, forks: Forks, tmp_path: Path
) -> None:
    out = tmp_path / "baked"
    process = forks.start(CODE, out, moment)
    while process.out != "here\n":
        assert process.wait(0.02) is None, process.err
    assert process.kill()
    assert not out.exists()
    assert [p.name for p in tmp_path.iterdir()] == [f"baked.{process.pid}.partial"]
    steering.bake(interp.load("organism:chat"), vector(1, 128)).save(out)
    assert interp.load(str(out)).n_layers == 6
