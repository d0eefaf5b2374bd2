"""A process that has imported what the commands need, and forks a child for every program asked of it.

A run that is killed then costs what it does, and not the seconds of CPU of its imports. The child is a real process
that really works; what kills it is a real SIGKILL. `run_whole` starts a program from nothing, as a user does.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
"""One thread: a child that is forked has no others, and a program from nothing is to give the same bits."""
COMMAND = "from refusalkit.cli import main; main()"


def run_whole(code: str, *arguments: object) -> str:
    """A program from its start to its end in a process of its own; what it printed."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def serve() -> None:
    """Fork a child per line of JSON (code, arguments, files to print to); print its pid, and its status at its end."""
    import tqdm

    tqdm.tqdm.monitor_interval = 0  # no thread of it, which a child would lack
    import pandas
    import peft
    import plotly.graph_objects
    import sklearn.linear_model

    import interp
    import refusalkit.audit.pipeline
    from tests.helpers import slow_capture
    from tests.helpers.slow import loaded

    del pandas, peft, plotly, sklearn, refusalkit, slow_capture
    interp.load("organism:chat")  # imports what loading needs
    loaded()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are begun deaf to it
    _say("ready")
    for line in sys.stdin:
        asked = json.loads(line)
        pid = os.fork()
        if not pid:
            os._exit(_run(**asked))
        _say(pid)
        _say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def _run(code: str, arguments: list[str], out: str, err: str) -> int:
    for name, fd in ((os.devnull, 0), (out, 1), (err, 2)):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND), fd)
    sys.argv = ["-c", *arguments]
    status = 0
    try:
        exec(code, {"__name__": "__main__"})
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def _say(value: object) -> None:
    sys.stdout.write(f"{value}\n")
    sys.stdout.flush()


class Fork:
    """A child, seen from the test."""

    def __init__(self, forks: Forks, pid: int, out: Path, err: Path) -> None:
        self.pid, self.returncode = pid, None
        self._forks, self._out, self._err = forks, out, err

    returncode: int | None

    @property
    def out(self) -> str:
        """What it has printed so far."""
        return self._out.read_text(encoding="utf-8")

    @property
    def err(self) -> str:
        return self._err.read_text(encoding="utf-8")

    def wait(self, timeout: float) -> int | None:
        """Its exit status, as `subprocess` gives it; `None` when it has not ended by then."""
        if self.returncode is None and self._forks.ended(timeout):
            self.returncode = int(self._forks.read())
        return self.returncode

    def poll(self) -> int | None:
        return self.wait(0)

    def signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> bool:
        """Kill it, as nothing can prevent; whether it was still going."""
        self.signal(signal.SIGKILL)
        return self.wait(60) == -signal.SIGKILL

    def finish(self) -> str:
        """Wait until it ends well; what it printed."""
        assert self.wait(600) == 0, self.err
        return self.out


class Forks:
    """The process that forks: one child at a time."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from tests.helpers.forks import serve; serve()"], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, bufsize=0, env=ENVIRONMENT, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        self._started, self._last = 0, None
        assert self.read() == "ready"

    _last: Fork | None

    def start(self, code: str, *arguments: object) -> Fork:
        """Begin a program in a child of its own, with these arguments in `sys.argv`."""
        if self._last is not None:
            self._last.kill()  # what a test that failed has left
        self._started += 1
        out, err = (Path(self._folder.name) / f"{self._started}.{name}" for name in ("out", "err"))
        out.touch()
        err.touch()
        asked: dict[str, Any] = {"code": code, "arguments": [*map(str, arguments)], "out": str(out), "err": str(err)}
        assert self._process.stdin is not None
        self._process.stdin.write((json.dumps(asked) + "\n").encode())
        self._last = Fork(self, int(self.read()), out, err)
        return self._last

    def ended(self, timeout: float) -> bool:
        """Whether the child ends within so many seconds."""
        return bool(select.select([self._process.stdout], [], [], timeout)[0])

    def read(self) -> str:
        """The next line it says; not a byte more, so that `ended` sees the next."""
        assert self._process.stdout is not None
        line = b""
        while not line.endswith(b"\n"):
            byte = self._process.stdout.read(1)
            assert byte, "the process that forks has died"
            line += byte
        return line.decode().strip()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._folder.cleanup()
