"""A repair that is killed ends, when it is run again, with the bytes of one that never was."""

from __future__ import annotations

import time
from pathlib import Path

from tests.helpers.forks import Forks, run_whole

CODE = """
import sys
import steering
from interp.text.encoded import Trace
from interp.text.prompts import Prompt
from interp.tracing.traces import Traces
from tests.helpers.thinking import thinker

texts = Traces.of([Trace(Prompt(f"How to {'so ' * i}do it?", "harmful"), "I see.", "Sure.") for i in range(3)])
found = steering.repair(
    thinker(), texts, out=sys.argv[1], refusals=["No.", "Never."], steps=25, batch_size=2, checkpoint_every=1
)
sys.stdout.write(repr(found.losses))
"""


def test_a_repair_that_was_killed_ends_as_if_it_never_was(forks: Forks, tmp_path: Path) -> None:
    whole = run_whole(CODE, tmp_path / "whole")
    killed = forks.start(CODE, tmp_path / "killed")
    while not (tmp_path / "killed" / "checkpoint.safetensors").exists() and killed.poll() is None:
        time.sleep(0.01)
    assert killed.kill(), "it ended before it was killed"
    assert (tmp_path / "killed" / "checkpoint.safetensors").exists()
    assert forks.start(CODE, tmp_path / "killed").finish() == whole
    for name in ("adapter_model.safetensors", "adapter_config.json", "repair.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
