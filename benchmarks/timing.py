"""Interleaved rounds, and the median of per-round ratios with its interval."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Arm = Callable[[], object]


def compare(arms: Mapping[str, Arm], rounds: int, seed: int = 0) -> list[dict[str, Any]]:
    """Time every arm once a round, in random order; ratios are to the first arm, the floor, of the same round."""
    rng, names = random.Random(seed), list(arms)
    for arm in arms.values():
        arm()  # warm up
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in rng.sample(names, len(names)):
            start = time.perf_counter()
            arms[name]()
            times[name].append(time.perf_counter() - start)
    floor = np.array(times[names[0]])
    return [_row(name, np.array(times[name]), floor, seed) for name in names]


def _row(name: str, own: Any, floor: Any, seed: int) -> dict[str, Any]:
    ratios = own / floor
    draws = np.random.default_rng(seed).integers(0, len(ratios), (2000, len(ratios)))
    low, high = np.quantile(np.median(ratios[draws], axis=1), (0.025, 0.975))
    return {
        "arm": name, "seconds": float(np.median(own)), "ratio": float(np.median(ratios)),
        "interval": [float(low), float(high)], "rounds": len(ratios),
    }  # fmt: skip
