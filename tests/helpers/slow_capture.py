"""The capture that is killed a hundred times: slowed down, in a child of `tests.helpers.forks`."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

CODE = """
import sys
from pathlib import Path
from tests.helpers.slow_capture import capture, slow_down
out, positions, seconds = sys.argv[1:]
slow_down(float(seconds))
capture(Path(out), positions)
"""
PROMPTS = [f"Prompt number {i} " + "and more " * (i % 5) for i in range(12)]


def capture(out: Path, positions: str = "post_inst") -> Any:
    """The capture that is killed: several batches, each written and synced for itself."""
    import interp
    from interp.activations.store import writer
    from tests.helpers.slow import loaded

    writer.GATHER, writer.SYNC_BYTES = 1, 60_000
    return interp.capture(loaded(), PROMPTS, ["resid_post", "z"], positions, token_budget=150, out=out)


def slow_down(seconds: float) -> None:
    """Make every system call that changes the store take a while, so that kills land between any two of them."""
    for name in ("pwrite", "pwritev", "fsync", "replace", "posix_fallocate", "mkdir", "unlink"):
        setattr(os, name, _slowed(getattr(os, name), seconds))


def _slowed(call: Any, seconds: float) -> Any:
    def slow(*args: Any, **kwargs: Any) -> Any:
        time.sleep(seconds)
        return call(*args, **kwargs)

    return slow
