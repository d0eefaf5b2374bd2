"""Findings of "What it plans": each verdict has its sentence, and none claims what was not shown."""

from __future__ import annotations

import json
from typing import Any

import pytest

from probes.figures import plan_grid
from probes.planning.claims import CLAIMS
from refusalkit.audit.findings import KINDS, conclude
from refusalkit.audit.panels import plans_figures
from refusalkit.audit.planning import plans_findings
from refusalkit.audit.report import render_report
from tests.helpers import audits


def row(key: str = "refusal", claim: str = "planned", *, last: float = 0.9, **more: Any) -> dict[str, Any]:
    """An attribute that was measured, with two segments of a thought."""
    along = [
        {"position": position, "region": position.split()[0], "value": value, "low": value - 0.1, "high": value}
        for position, value in (("prompt", 0.8), ("thought 50 %", 0.7), ("thought 100 %", last))
    ]
    baselines = [
        {"baseline": name, "value": value, "low": value - 0.1, "high": value + 0.1,
         "difference": {"value": 0.8 - value, "low": 0.7 - value, "high": 0.9 - value}}
        for name, value in (("majority", 0.5), ("shuffled labels", 0.48), ("bag of words", 0.55), ("first token", 0.6))
    ]  # fmt: skip
    return {
        "key": key, "title": f"whether <script>{key}</script>", "attribute": key, "kind": "classes", "measured": True,
        "reason": "", "n": 100, "groups": 90, "apart": {"cut off": 3}, "labels": {"complied": 50, "refused": 50},
        "metric": "accuracy", "claim": claim, "sentence": "accuracy 0.80 at the last prompt token", "alpha": 0.01,
        "margin": 0.1, "n_test": 40, "late": None, "score": along[0], "best_baseline": "first token",
        "difference": baselines[-1]["difference"], "layer": 2, "layers": [2, 2, 3], "first": "prompt", "shape": "flat",
        "share_at_prompt": 0.9, "missing": ["asked"],
        "by_layer": [{"layer": i, "value": 0.6 + i / 20, "low": 0.5, "high": 0.9} for i in range(5)],
        "along": along, "baselines": baselines, **more,
    }  # fmt: skip


def unmeasured(key: str = "refusal") -> dict[str, Any]:
    return {
        "key": key, "title": "whether it refuses", "attribute": key, "kind": "classes", "measured": False, "n": 9,
        "apart": {}, "labels": {"refused": 9}, "reason": "9 answers are too few to fit, choose and test on",
    }  # fmt: skip


def section(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"thought": True, "layers": [0, 1, 2, 3, 4], "attributes": list(rows)}


KIND = {
    "planned": ("found", "foretell whether it will refuse, beyond"),
    "committed to by its first token": ("caution", "no more than in its first token"),
    "in the words of the prompt": ("caution", "the words of the prompt tell as much"),
    "decided while thinking": ("found", "decided while it thinks"),
    "decided late": ("found", "decided while it writes"),
    "not readable": ("not found", "do not foretell whether the model will refuse"),
    "cannot tell": ("cannot tell", "cannot tell whether the states"),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_each_verdict_on_refusal_has_its_sentence(claim: str) -> None:
    (found,) = plans_findings(section(row(claim=claim), row("length", "planned")))
    kind, words = KIND[claim]
    assert found["kind"] == kind in KINDS and words in found["claim"]
    assert "Accuracy 0.80 at the last prompt token; of 100 answers, layers 2, 2, 3, tested" in found["evidence"]
    assert "length</script>: planned" in found["evidence"]


def test_there_is_nothing_to_say_where_refusal_was_not_measured() -> None:
    assert plans_findings(None) == [] == plans_findings(section(unmeasured(), row("length")))


def test_a_decision_that_the_thought_overturns_and_the_states_keep_is_said() -> None:
    changed = {"changed": {"value": 0.5, "n": 80}}
    (kept,) = plans_findings(section(unmeasured(), row("refusal without thinking", **changed)))
    assert "readable, and not acted on" in kept["claim"] and "may be the harm" in kept["evidence"]
    assert "0.50 of 80 decisions" in kept["evidence"] and "At thought 100 %" in kept["evidence"]
    assert plans_findings(section(unmeasured(), row("refusal without thinking", last=0.65, **changed))) == []


def test_the_section_is_drawn_and_told_with_what_was_not_measured() -> None:
    audit = audits.found()
    audit["sections"]["plans"] = section(row(), unmeasured("length of answers"))
    audit["sections"]["behaviour"]["effect_of_harm"] |= {"low": 0.9}
    audit["headline"], audit["findings"] = conclude("m", audit["sections"])
    assert any("foretell whether it will refuse" in f["claim"] for f in audit["findings"])
    page = render_report(audit)
    assert "What it plans" in page and "not measured. 9 answers are too few" in page and "Set apart: 3 cut off" in page
    assert "<script>refusal" not in page and "<td>2, 2, 3</td>" in page
    assert 'id="plans-grid"' in page and "What this does not show: that the model uses" in page


def test_nothing_is_drawn_where_nothing_was_measured() -> None:
    assert plans_figures(section(unmeasured())) == {}
    audit = audits.found()
    audit["sections"]["plans"] = section(unmeasured())
    assert "plans-grid" not in render_report(audit)


def test_the_grid_has_the_controls_in_both_panels_and_repeats_itself() -> None:
    rows = [{**row(), "score": "accuracy", "chosen": [2, 2, 3]}, {**row("other"), "score": "accuracy", "chosen": [0]}]
    alone = {**row(), "score": "accuracy", "chosen": [2], "along": row()["along"][:1], "first": None}
    figure = plan_grid([*rows, alone])
    named = [(t.name, t.xaxis) for t in figure.data if t.name]
    for axis in ("x", "x2", "x3", "x4", "x5"):
        assert {name for name, at in named if at == axis} >= {"shuffled labels", "bag of words", "probe of the state"}
    rings = {t.xaxis: t for t in figure.data if t.legendgroup == "ring"}
    assert list(rings["x"].x) == [2, 3] and set(rings["x"].y) == {0.8}  # the score that is quoted, not the line's
    assert list(rings["x3"].x) == [0] and list(rings["x2"].y) == [0.8] and "x6" not in rings
    assert not [name for name, at in named if at == "x6" and name == "probe of the state"]  # nothing to follow
    assert "majority" not in dict(named) and "its first token gives it away" in figure.to_json()
    assert sum(bool(t.showlegend) for t in figure.data) == len({t.name for t in figure.data if t.showlegend})
    assert figure.to_json() == plan_grid([*rows, alone]).to_json()
    assert json.loads(figure.to_json())["layout"]["meta"]["narrow_below"] == 620
