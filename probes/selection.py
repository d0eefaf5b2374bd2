"""Selection: which candidate, if any, is taken for the refusal direction (Arditi et al. 2024, section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from interp.errors import DirectionError

CONDITIONS = ("finite", "induce", "kl", "depth")


@dataclass(frozen=True)
class Selection:
    """The outcome: a candidate, or the reason why there is none.

    Attributes:
        chosen: The chosen row as a mapping, or `None`.
        table: Every candidate with, per condition, whether it holds (`ok_*`), and `passed`.
        thresholds: What was asked for.
        bypass: Which column was minimised.
        kl: Which column was bounded.
        reason: One sentence.
    """

    chosen: dict[str, Any] | None
    table: Any
    thresholds: dict[str, float]
    bypass: str
    kl: str
    reason: str

    def __bool__(self) -> bool:
        return self.chosen is not None

    def to_frame(self) -> Any:
        """The candidate table (pandas)."""
        return self.table

    def plot(self) -> Any:
        """Bypass, induce and KL over layer and position (plotly), the chosen candidate marked."""
        from probes.figures import candidate_maps

        return candidate_maps(self)


def select_direction(
    table: Any,
    n_layers: int,
    *,
    min_induce: float = 0.0,
    max_kl: float = 0.1,
    max_depth: float = 0.8,
    bypass: str = "bypass",
    kl: str = "kl",
) -> Selection:
    """Choose the candidate that bypasses refusal best among those that pass every condition.

    A candidate passes when its scores are finite, `induce >= min_induce`, `kl <= max_kl` and
    `layer < max_depth * n_layers` (the paper's rule; the authors' code rounds the product down). Ties go to the earlier
    layer, then to the earlier row. That none passes is a result: the table is kept and the reason says which condition
    failed.

    Args:
        table: Candidates (pandas) with columns `position`, `layer`, `induce`, and those named by `bypass` and `kl`.
        n_layers: The model's number of layers.
        min_induce: Least refusal score when the direction is added on harmless prompts.
        max_kl: Most KL divergence on harmless prompts when it is ablated.
        max_depth: Share of the layers that may be used; directions of the last layers act on the output alone.
        bypass: Column to minimise.
        kl: Column that `max_kl` bounds.

    Raises:
        DirectionError: When the table lacks a column or has no rows.
    """
    needed = ("position", "layer", "induce", bypass, kl)
    missing = [name for name in needed if name not in table.columns]
    if missing:
        raise DirectionError(f"the candidate table lacks {', '.join(missing)}; it has {', '.join(table.columns)}")
    if not len(table):
        raise DirectionError("the candidate table is empty")
    out = table.copy().reset_index(drop=True)
    values = out[[bypass, "induce", kl]].to_numpy(dtype=np.float64)
    out["ok_finite"] = np.isfinite(values).all(1)
    out["ok_induce"] = out["induce"] >= min_induce
    out["ok_kl"] = out[kl] <= max_kl
    # 0.55 * 100 is 55.000000000000007 in floating point, which would let layer 55 in.
    out["ok_depth"] = out["layer"] < max_depth * n_layers - 1e-9
    oks = [f"ok_{name}" for name in CONDITIONS]
    out["passed"] = out[oks].all(axis=1)
    thresholds = {"min_induce": min_induce, "max_kl": max_kl, "max_depth": max_depth}
    passed = out[out["passed"]]
    if not len(passed):
        return Selection(None, out, thresholds, bypass, kl, _why_none(out, oks, thresholds, n_layers))
    best = passed.sort_values([bypass, "layer"], kind="stable").index[0]
    chosen = {str(k): v for k, v in out.loc[best].to_dict().items()}
    reason = (
        f"{len(passed)} of {len(out)} candidates pass; layer {chosen['layer']}, {chosen['position']} has the lowest "
        f"{bypass} ({chosen[bypass]:.2f})"
    )
    return Selection(chosen, out, thresholds, bypass, kl, reason)


def _why_none(out: Any, oks: list[str], thresholds: dict[str, float], n_layers: int) -> str:
    """Name the condition that nothing meets, or the one whose removal would let something pass."""
    words = {
        "ok_finite": "scores that are finite numbers",
        "ok_induce": f"induce ≥ {thresholds['min_induce']:g} (adding it makes the model refuse)",
        "ok_kl": f"KL ≤ {thresholds['max_kl']:g} (ablating it leaves harmless answers alone)",
        "ok_depth": f"layer < {thresholds['max_depth']:g} x {n_layers}",
    }
    never = [words[name] for name in oks if not out[name].any()]
    if never:
        return f"None of {len(out)} candidates passes: no candidate has " + ", nor ".join(never)
    alone = [words[name] for name in oks if out[[o for o in oks if o != name]].all(axis=1).any()]
    if alone:
        return f"None of {len(out)} candidates passes; without the condition {' or '.join(alone)} some would"
    return f"None of {len(out)} candidates passes: each condition is met by some, but no candidate meets them together"
