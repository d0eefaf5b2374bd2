"""A process that has loaded torch and a tiny model, and forks a child for every capture asked of it.

A kill then costs milliseconds instead of the seconds of an import, so that a hundred of them can be afforded. The
child is a real process that really captures; what kills it is a real SIGKILL.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

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


def serve() -> None:
    """Fork a child per line "PATH POSITIONS SECONDS"; print its pid, and its status when it has ended."""
    from tests.helpers.slow import loaded

    loaded()
    _say("ready")
    for line in sys.stdin:
        path, positions, seconds = line.split()
        pid = os.fork()
        if not pid:
            code = 1
            try:
                slow_down(float(seconds))
                capture(Path(path), positions)
                code = 0
            finally:
                os._exit(code)
        _say(pid)
        _say(os.waitpid(pid, 0)[1])


def _say(value: object) -> None:
    sys.stdout.write(f"{value}\n")
    sys.stdout.flush()


class Server:
    """The process, seen from the test."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from tests.helpers.forkserver import serve; serve()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        assert self._read() == "ready"

    def start(self, out: Path, positions: str, seconds: float) -> int:
        """Begin a capture; gives the child's pid."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{out} {positions} {seconds}\n")
        self._process.stdin.flush()
        return int(self._read())

    def wait(self) -> int:
        """The child's exit status, as `waitpid` gives it."""
        return int(self._read())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()
