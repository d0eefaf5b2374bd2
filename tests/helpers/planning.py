"""Made-up examples for planning probes: an attribute that is where a test puts it."""

from __future__ import annotations

from typing import Any

import numpy as np

from probes.planning.examples import ANSWER, THOUGHT, PlanExamples, Segment

NAMES = ("fox", "crow", "bear", "mole")


def examples(
    seed: int = 0,
    kind: Any = "classes",
    n: int = 300,
    d: int = 16,
    layers: int = 3,
    at_prompt: float = 0.0,
    along: tuple[float, ...] = (),
    words: float = 0.0,
    first: float = 0.0,
    thought: int = 0,
    group: int = 2,
    **more: Any,
) -> PlanExamples:
    """Examples whose label is in the states, the words or the first token to the degree that is asked for.

    Args:
        seed: Of everything.
        kind: `"classes"` (four, equally frequent) or `"regression"`.
        n: Rows.
        d: Width of the states.
        layers: Layers; the first of them carries nothing.
        at_prompt: Size of the label's trace in states at the last prompt token, in units of the noise.
        along: The same for each segment.
        words: Share of prompts that name the label.
        first: Share of rows whose first token is the label's.
        thought: How many segments, from the first, are of the thought.
        group: Rows in a group; labels are drawn for each row.
        more: Other fields.
    """
    rng = np.random.default_rng([seed, 3])
    code = rng.integers(0, len(NAMES), n)
    y = code if kind == "classes" else code + 0.3 * rng.standard_normal(n)
    trace = rng.standard_normal((len(NAMES), d))[code]
    if kind == "regression":
        trace = np.outer(y - y.mean(), rng.standard_normal(d))

    def states(size: float) -> np.ndarray:
        depth = np.minimum(np.arange(layers), 1)
        return rng.standard_normal((n, layers, d)) + size * depth[None, :, None] * trace[:, None]

    def named(share: float) -> np.ndarray:
        return np.where(rng.random(n) < share, code, rng.integers(0, len(NAMES), n))

    told, begun = named(words), named(first)
    prompt = states(at_prompt)
    written = np.stack([states(s) for s in along], 1) if along else None
    probabilities = 0.05 + 0.8 * np.eye(len(NAMES))[begun]
    fields: dict[str, Any] = {
        "attribute": "ending", "kind": kind, "labels": np.array(NAMES)[code] if kind == "classes" else y,
        "groups": np.array([f"g{i // group}" for i in range(n)]), "prompt": prompt, "layers": tuple(range(layers)),
        "along": written,
        "segments": tuple(Segment(f"part {i + 1}", THOUGHT if i < thought else ANSWER) for i in range(len(along))),
        "texts": [f"tell of the {NAMES[w]} on day {rng.integers(9)}" for w in told],
        "lengths": rng.integers(5, 30, n), "embedding": rng.standard_normal((n, 8)), "first_token": probabilities,
    }  # fmt: skip
    return PlanExamples(**(fields | more))
