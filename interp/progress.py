"""Progress bars and notes, off unless asked for, on standard error."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Generator

_EVERY = 30.0
"""Seconds between lines where there is no terminal to draw a bar on."""


def note(text: str, show: bool) -> None:
    """A line about what is going on, where progress is shown."""
    if show:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


@contextlib.contextmanager
def progress_bar(what: str, total: int, show: bool) -> Generator[Callable[[int], None]]:
    """A bar with an estimate of the time left, or a line now and then; yields a function that advances it."""
    if not show:
        yield lambda _n: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    if not sys.stderr.isatty():
        yield _lines(what, total)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda n: bar.advance(task, n)


def _lines(what: str, total: int) -> Callable[[int], None]:
    done, start = 0, time.monotonic()
    said = start

    def advance(n: int) -> None:
        nonlocal done, said
        done, now = done + n, time.monotonic()
        if now - said >= _EVERY and 0 < done < total:
            said = now
            note(f"{what}: {done:,} of {total:,}, {(now - start) * (total - done) / done / 60:.1f} minutes left", True)

    return advance
