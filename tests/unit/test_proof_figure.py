"""The figure of proofs: every prompt of every file, its control beside it, on an axis that can be read."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from probes.figures import proof_strip
from steering import Proof, ProofRow


def proof(
    differences: Sequence[float] = (1e-6, 2e-6), control: float | None = 2.0, effect: float = 9.0, reason: str = ""
) -> Proof:
    rows = tuple(ProofRow(f"prompt <{i}>", d, effect, control, not reason, 5) for i, d in enumerate(differences))
    figures = (max(differences), effect, control, min(1e-4, effect / 4))
    return Proof("gguf", Path("v.gguf"), "gguf", *figures, 0 if reason else len(rows), rows, reason)


def dots(figure: Any, name: str) -> tuple[list[float], list[float]]:
    trace = next(t for t in figure.data if t.name.startswith(name))
    return list(trace.x), list(trace.y)


def test_every_prompt_of_every_file_is_a_dot_beside_its_control_and_its_effect() -> None:
    figure = proof_strip({"gguf": proof(), "weights": proof(control=None)})
    assert dots(figure, "difference")[0] == [1e-6, 2e-6] * 2 and dots(figure, "effect")[0] == [9.0] * 4
    assert dots(figure, "control")[0] == [2.0, 2.0]  # weights have none
    assert dots(figure, "tolerance") == ([1e-4, 1e-4], [0, 1])
    for name in ("difference", "effect", "control"):
        assert [round(y) for y in dots(figure, name)[1]][:2] == [0, 0]
        assert len(set(dots(figure, name)[1])) == len(dots(figure, name)[1])  # equal values are seen apart
    assert list(figure.layout.yaxis.ticktext) == ["gguf", "weights"]
    assert "prompt &lt;0&gt;" in figure.data[0].customdata[0]


def test_the_verdict_stands_beside_each_file() -> None:
    figure = proof_strip({"a": proof(), "b": proof((3.0, 3.0), reason="the file does something else")})
    texts = [a.text for a in figure.layout.annotations]
    assert texts == ["proved<br>2 of 2 texts equal", "<b>not proved</b><br>0 of 2 texts equal"]


def test_no_difference_at_all_is_drawn_at_zero_left_of_everything() -> None:
    figure = proof_strip({"ours": proof((0.0, 3e-6))})
    x = dots(figure, "difference")[0]
    assert x == [1e-7, 3e-6] and figure.data[0].customdata[0][0] == 0
    assert (figure.layout.xaxis.tickvals[0], figure.layout.xaxis.ticktext[0]) == (1e-7, "0")
    assert "0" not in proof_strip({"ours": proof()}).layout.xaxis.ticktext
    nothing = proof_strip({"ours": proof((0.0, 0.0), 0.0, 0.0, reason="the vector moves no logit")})
    assert set(dots(nothing, "effect")[0] + dots(nothing, "tolerance")[0]) == {0.1}


def test_the_axis_spans_all_values_with_few_ticks_and_what_is_not_finite_is_left_out() -> None:
    figure = proof_strip({"a": proof((1e-9, 2e-6), 30.0), "lost": proof((math.nan, math.inf), reason="nothing")})
    low, high = figure.layout.xaxis.range
    assert low < -9 and high > math.log10(30) and len(figure.layout.xaxis.tickvals) <= 6
    assert dots(figure, "difference")[0] == [1e-9, 2e-6]
    json.loads(figure.to_json())


def test_a_proof_draws_itself_with_looks_for_light_dark_wide_and_narrow_pages() -> None:
    figure = replace(proof(), format="svec").plot()
    assert list(figure.layout.yaxis.ticktext) == ["svec"]
    assert set(figure.layout.meta) == {"light", "dark", "wide", "narrow", "narrow_below"}
    for look in ("light", "dark", "wide", "narrow"):
        figure.update_layout(figure.layout.meta[look])
