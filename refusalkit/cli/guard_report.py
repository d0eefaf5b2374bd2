"""What `refusalkit guard` says of a guard, and the files of an evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probes import GuardReport, LatentGuard


def describe(guard: LatentGuard) -> list[str]:
    """What was fitted, in sentences."""
    about, point = guard.provenance["guard"], guard.operating_point
    low, high = point.interval
    lines = [
        f"{guard.rule.kind} rule on {guard.site} at layers {', '.join(map(str, guard.layers))}, "
        f"{'+'.join(guard.positions)}; {about['harmful']} harmful and {about['harmless']} harmless prompts",
        f"{about['held_out']} on {about['calibrated_on']}: threshold {point.threshold:.4g} (a probability of "
        f"{float(guard.calibration(point.threshold)):.3f}), expected false-positive rate {point.expected:.3f} "
        f"[{low:.3f}, {high:.3f}], wanted {point.target:g}",
    ]
    if guard.categories:
        lines.append(f"categories: {', '.join(guard.categories)}")
    if about["categories_left_out"]:
        lines.append(f"left out: {'; '.join(f'{k} ({v})' for k, v in about['categories_left_out'].items())}")
    if guard.stream is not None:
        stream, (n, m) = guard.stream, guard.stream.n_answers
        low, high = stream.operating_point.interval
        lines.append(
            f"generated tokens: {stream.rule.kind} rule at layers {', '.join(map(str, stream.layers))}, fitted on the "
            f"answers to {n} harmful and {m} harmless prompts; stops after {stream.consecutive} tokens in a row above "
            f"{stream.operating_point.threshold:.4g}, of harmless answers an expected share of "
            f"{stream.operating_point.expected:.3f} [{low:.3f}, {high:.3f}]"
        )
    return lines


def write_evaluation(guard: LatentGuard, report: GuardReport, out: Path) -> None:
    """`eval.csv`, `eval.json` and `eval.html`."""
    from interp.provenance import write_json
    from refusalkit.page import Panel, render_page

    out.mkdir(parents=True, exist_ok=True)
    table = report.to_frame()
    table.to_csv(out / "eval.csv", index=False)
    rows = [{str(k): _finite(v) for k, v in row.items()} for row in table.to_dict("records")]
    write_json(out / "eval.json", {"rows": rows, "reliability": report.reliability().to_dict("records"),
                                   "provenance": dict(report.provenance)})  # fmt: skip
    shown = [
        {"set": str(r["set"]), "detector": str(r["detector"]), "n": str(r["n"]),
         **{label: figure(r, key) for key, label in _COLUMNS.items()}}
        for r in table.to_dict("records")
    ]  # fmt: skip
    seen = {name: n for name, n in report.seen.items() if n}
    lead = [*describe(guard), "Intervals are 95 %: bootstrap over groups, Wilson for rates."]
    lead += [f"{n} prompts of {name} are of groups that the guard was fitted on: its figures flatter it" for name, n in
             seen.items()]  # fmt: skip
    two = any(s.labels.any() and not s.labels.all() for s in report.scored.values())
    panels = [
        Panel("Against the baselines", "Each at its own threshold.", report.plot_flags(), shown),
        *([Panel("ROC", "", report.plot())] if two else []),
        Panel("Reliability", "Observed share of harm where the guard says so much.", report.plot_reliability()),
        Panel("Held-out scores", "What calibration and threshold were set on.", guard.plot()),
    ]
    page = render_page("refusalkit guard", f"Latent guard of {_name(guard)}", lead, panels)
    (out / "eval.html").write_text(page, encoding="utf-8")


_COLUMNS = {
    "auroc": "AUROC", "auprc": "AUPRC", "recall_1": "recall at 1 %", "recall_5": "recall at 5 %",
    "flagged_harmful": "harmful flagged", "flagged_harmless": "harmless flagged", "ece": "ECE", "gain": "guard's gain",
}  # fmt: skip


def figure(row: Mapping[str, Any], key: str) -> str:
    """A figure with its interval."""
    value = row.get(key)
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.3f} [{row[f'{key}_low']:.3f}, {row[f'{key}_high']:.3f}]"


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _name(guard: LatentGuard) -> str:
    return str((guard.provenance.get("model") or {}).get("name") or "an unknown model")
