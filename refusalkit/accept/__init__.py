"""`refusalkit accept`: the figures that every issue asks for, measured now, in one table.

A module per topic gives its rows; what a later issue asks for is a module more. The longest topic comes first: two
processes share them.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from refusalkit.accept.capture import capture
from refusalkit.accept.cliff import cliff
from refusalkit.accept.exports import exports
from refusalkit.accept.foundation import audits, organism
from refusalkit.accept.guard import guard
from refusalkit.accept.heads import heads
from refusalkit.accept.judge import judge
from refusalkit.accept.planning import planning
from refusalkit.accept.probing import probing
from refusalkit.accept.repair import repair
from refusalkit.accept.rows import Rows
from refusalkit.accept.steering import steering
from refusalkit.accept.two_directions import two_directions
from refusalkit.accept.weights import weights
from refusalkit.table import print_table

TOPICS: tuple[Callable[[bool], Rows], ...] = (
    organism,
    audits,
    capture,
    probing,
    two_directions,
    guard,
    judge,
    cliff,
    heads,
    weights,
    repair,
    steering,
    planning,
    exports,
)
_PROCESSES = 2


def accept(*, progress: bool) -> bool:
    """Measure and print everything; returns whether all floors are met."""
    from interp.progress import progress_bar

    with (
        ProcessPoolExecutor(_PROCESSES, get_context("spawn"), initializer=_alone) as pool,
        progress_bar("measuring", len(TOPICS), progress) as advance,
    ):
        waiting = [pool.submit(_measure, topic) for topic in TOPICS]
        for done in waiting:
            done.add_done_callback(lambda _: advance(1))
        rows = [row for done in waiting for row in done.result()]
    print_table("Acceptance", rows)
    return all(row["ok"] for row in rows)


def _alone() -> None:
    """One thread to a process: threads that wait for each other's cores take longer than they save."""
    import torch

    torch.set_num_threads(1)


def _measure(topic: Callable[[bool], Rows]) -> list[dict[str, Any]]:
    return list(topic(False))
