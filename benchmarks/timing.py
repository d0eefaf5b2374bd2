"""Interleaved rounds, and the median of per-round ratios with its interval."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Arm = Callable[[], object]


def compare(
    arms: Mapping[str, Arm], rounds: int, seed: int = 0, reference: str | None = None, beside: bool = False
) -> list[dict[str, Any]]:
    """Time every arm once a round, in random order; ratios are to the first arm, the floor, of the same round.

    With a `reference` arm each row also says how many times faster that one was, with its interval. `beside` runs the
    floor anew next to every arm, before or after it by chance: for differences smaller than the drift within a round.
    """
    rng, names = random.Random(seed), list(arms)
    for arm in arms.values():
        arm()  # warm up
    times: dict[str, list[float]] = {name: [] for name in names}
    floors: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in rng.sample(names, len(names)):
            pair = [(times[name], arms[name])]
            if beside:
                pair.insert(rng.randrange(2), (floors[name], arms[names[0]]))
            for found, arm in pair:
                found.append(_seconds(arm))
    own = {name: np.array(values) for name, values in times.items()}
    floor = {name: np.array(floors[name]) if beside else own[names[0]] for name in names}
    return [_row(name, own[name], floor[name], own.get(reference or ""), seed) for name in names]


def _seconds(arm: Arm) -> float:
    start = time.perf_counter()
    arm()
    return time.perf_counter() - start


def _row(name: str, own: Any, floor: Any, reference: Any, seed: int) -> dict[str, Any]:
    ratio, interval = _median(own / floor, seed)
    row = {"arm": name, "seconds": float(np.median(own)), "ratio": ratio, "interval": interval, "rounds": len(own)}
    if reference is not None:
        row["slower"], row["slower_interval"] = _median(own / reference, seed)
    return row


def _median(ratios: Any, seed: int) -> tuple[float, list[float]]:
    """A median and its 95 % bootstrap interval."""
    draws = np.random.default_rng(seed).integers(0, len(ratios), (2000, len(ratios)))
    low, high = np.quantile(np.median(ratios[draws], axis=1), (0.025, 0.975))
    return float(np.median(ratios)), [float(low), float(high)]
