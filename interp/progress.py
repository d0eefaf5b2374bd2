"""Progress bars and notes, off unless asked for, on standard error."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Generator


def note(text: str, show: bool) -> None:
    """A line about what is going on, where progress is shown."""
    if show:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


@contextlib.contextmanager
def progress_bar(what: str, total: int, show: bool) -> Generator[Callable[[int], None]]:
    """A bar with an estimate of the time left; yields a function that advances it."""
    if not show:
        yield lambda _n: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda n: bar.advance(task, n)
