"""Response planning at a glance: for each attribute its score by layer, and along what is written, with baselines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from probes.figures.planning import LOOK, PROBE, score_rings
from probes.figures.style import (
    NEUTRAL,
    axis_names,
    dress,
    faded,
    fraction,
    legend_above,
    panel_title,
    plain,
    rows_of,
)
from probes.planning.baselines import ASKED, CHANCE, SHUFFLED
from probes.planning.examples import PROMPT, THOUGHT

_ROW, _GAP = 104, 58
_LEFT, _RIGHT = [0.0, 0.46], [0.54, 1.0]


def plan_grid(rows: Sequence[Mapping[str, Any]]) -> Any:
    """A row of two panels for each attribute: at the last prompt token by layer, and along what is written.

    The line with its 95 % band is the linear probe; level lines are baselines, the grey band shuffled labels. On the
    left, rings mark the layers that the seeds chose on validation rows, at the height of the score that they make
    together; on the right, where the probe first exceeds every baseline.

    Args:
        rows: For each attribute `title`, `score` (the score's name), `by_layer` (`layer`, `value`, `low`, `high`),
            `chosen` (the layer of each seed), `along` (`position`, `region`, `value`, `low`, `high`, the prompt first),
            `first` (a position, or None) and `baselines` (`baseline`, `value`, `low`, `high`).
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    domains, total = rows_of([_ROW] * len(rows), _GAP)
    axes = axis_names(2 * len(rows))
    seen: set[str] = set()
    layout: dict[str, Any] = {}
    for i, row in enumerate(rows):
        floor = _floor(row)
        for side, across in enumerate((_LEFT, _RIGHT)):
            k = 2 * i + side
            _panel(figure, k, row, by_layer=side == 0, seen=seen)
            x, y = axes[k]
            layout[x] = {
                "domain": across, "anchor": y.replace("axis", ""), "showgrid": False, "fixedrange": True,
            }  # fmt: skip
            layout[y] = {
                "domain": domains[i], "anchor": x.replace("axis", ""), "range": [floor, 1.1], "tickformat": ".1f",
                "dtick": 0.5, "fixedrange": True,
            }  # fmt: skip
        title = f"<b>{plain(row['title'])}</b> ({plain(row['score'])})"
        figure.add_annotation(panel_title(title, 2 * i))
    figure.update_layout(layout, legend=legend_above())
    margin = {"l": 34, "r": 10, "b": 44}
    top = 84
    return dress(
        figure, wide={"height": round(total) + top + 44, "margin": {**margin, "t": top}},
        narrow={"height": round(total) + top + 94, "margin": {**margin, "t": top + 50}}, narrow_below=620,
    )  # fmt: skip


def _floor(row: Mapping[str, Any]) -> float:
    lows = [v["low"] for v in (*row["by_layer"], *row["along"], *row["baselines"])]
    return min(0.0, math.floor(5 * min(v for v in lows if v is not None and math.isfinite(v))) / 5)


def _panel(figure: Any, k: int, row: Mapping[str, Any], *, by_layer: bool, seen: set[str]) -> None:
    n = "" if k == 0 else k + 1
    on: dict[str, Any] = {"xaxis": f"x{n}", "yaxis": f"y{n}"}
    axis = "xaxis" if k == 0 else f"xaxis{n}"
    points = row["by_layer"] if by_layer else row["along"]
    x = [p["layer"] for p in points] if by_layer else list(range(len(points)))
    if not by_layer and len(points) < 2:
        figure.add_scatter(
            x=[0], y=[0], mode="markers", marker={"opacity": 0}, showlegend=False, hoverinfo="skip", **on
        )
        figure.add_annotation(
            text="its first token gives it away:<br>nothing is written before", x=0.5, y=0.5, xref=f"x{n} domain",
            yref=f"y{n} domain", showarrow=False, font={"size": 12},
        )  # fmt: skip
        figure.update_layout({axis: {"visible": False}, axis.replace("x", "y", 1): {"visible": False}})
        return
    pad = max(0.25, 0.03 * (x[-1] - x[0]))
    ends = [x[0] - pad, x[-1] + pad]
    thought = [i for i, p in enumerate(points) if p.get("region") == THOUGHT]
    if thought:
        figure.add_shape(
            type="rect", x0=thought[0] - 0.5, x1=thought[-1] + 0.5, y0=0, y1=1, xref=f"x{n}", yref=f"y{n} domain",
            layer="below", line={"width": 0}, fillcolor=faded(NEUTRAL, 0.12),
        )  # fmt: skip
    _baselines(figure, row["baselines"], ends, on, seen)
    _probe(figure, x, points, on, seen, by_layer=by_layer)
    first = [i for i, p in enumerate(points) if p.get("position") == row["first"]]
    if by_layer or first:
        ring = score_rings(row["chosen"], row["along"][0]["value"]) if by_layer else {
            "x": first, "y": [points[i]["value"] for i in first], "mode": "markers",
            "hovertemplate": "first above every baseline<extra></extra>",
            "marker": {"symbol": "circle-open", "size": 14, "color": PROBE, "line": {"width": 2}},
        }  # fmt: skip
        figure.add_scatter(
            **ring, name="the score that counts, or first above every baseline", legendgroup="ring",
            showlegend="ring" not in seen, **on,
        )  # fmt: skip
        seen.add("ring")
    step = max(1, math.ceil(len(x) / 8)) if by_layer else 1
    ticks = [str(v) for v in x] if by_layer else [_short(p["position"]) for p in points]
    figure.update_layout({axis: {"range": ends, "tickvals": x[::step], "ticktext": ticks[::step], "tickangle": 0}})


def _short(position: str) -> str:
    """The prompt, and each region at its end: narrow pages have no room for more."""
    region, _, share = position.partition(" ")
    return PROMPT if position == PROMPT else f"100 %<br>{plain(region)}" if share == "100 %" else ""


def _baselines(figure: Any, found: Sequence[Mapping[str, Any]], ends: list[float], on: Mapping[str, Any],
               seen: set[str]) -> None:  # fmt: skip
    for row in found:
        name = row["baseline"]
        if name == SHUFFLED:
            figure.add_scatter(
                x=[*ends, *ends[::-1]], y=[row["low"]] * 2 + [row["high"]] * 2, fill="toself", mode="lines",
                line={"width": 0}, fillcolor=faded(NEUTRAL, 0.25), showlegend=False, hoverinfo="skip", **on,
            )  # fmt: skip
        if (name in CHANCE and name != SHUFFLED) or name == ASKED:
            continue
        colour, dash = LOOK.get(name, (NEUTRAL, "dot"))
        figure.add_scatter(
            x=ends, y=[row["value"]] * 2, mode="lines", name=name, legendgroup=name, showlegend=name not in seen,
            line={"color": colour, "width": 1.6, "dash": dash},
            hovertemplate=f"{name}<br>{fraction(row['value'])} [{fraction(row['low'])}, {fraction(row['high'])}]"
            "<extra></extra>", **on,
        )  # fmt: skip
        seen.add(name)


def _probe(figure: Any, x: list[Any], points: Sequence[Mapping[str, Any]], on: Mapping[str, Any], seen: set[str], *,
           by_layer: bool) -> None:  # fmt: skip
    low, high = [p["low"] for p in points], [p["high"] for p in points]
    figure.add_scatter(
        x=[*x, *x[::-1]], y=[*high, *low[::-1]], fill="toself", mode="lines", line={"width": 0},
        fillcolor=faded(PROBE, 0.18), showlegend=False, hoverinfo="skip", **on,
    )  # fmt: skip
    names = [f"layer {p['layer']}" if by_layer else plain(p["position"]) for p in points]
    figure.add_scatter(
        x=x, y=[p["value"] for p in points], mode="lines+markers", name="probe of the state", legendgroup="probe",
        showlegend="probe" not in seen, line={"color": PROBE, "width": 2.2}, marker={"size": 5},
        customdata=[[plain(name), fraction(a), fraction(b)] for name, a, b in zip(names, low, high, strict=True)],
        hovertemplate="%{customdata[0]}<br>%{y:.2f} [%{customdata[1]}, %{customdata[2]}]<extra></extra>", **on,
    )  # fmt: skip
    seen.add("probe")
