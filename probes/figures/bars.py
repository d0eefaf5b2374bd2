"""Refusal under each intervention, with the random directions beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from probes.figures.style import (
    NEUTRAL,
    REFUSES,
    axis_names,
    dress,
    fraction,
    label_width,
    legend_above,
    panel_title,
    place,
    plain,
    rows_of,
)

if TYPE_CHECKING:
    from probes.causal import CausalCheck, Effect

_NAMES = {
    "none": "unedited", "ablate to zero": "removed, to zero", "ablate to mean": "removed, to mean",
    "subtract": "subtracted", "add": "added",
}  # fmt: skip
_ORDER = ("none", "ablate to zero", "ablate to mean", "subtract", "add")
_ROW = 46
_BAR = 0.62
_FIGURES = 80
_DOT = {"symbol": "circle", "size": 7, "color": "#ffffff", "line": {"width": 1.4, "color": "#33373d"}}
"""Seen on a bar and beside it, on a light page by its outline and on a dark one by its filling."""


def causal_bars(check: CausalCheck) -> Any:
    """Refusal under each intervention, per class, with Wilson intervals.

    The grey bar and the dotted line are the unedited model; each dot on an edit's row is one random direction of the
    same norm put through the same edit.

    Args:
        check: The causal check.
    """
    return effect_bars(check.effects)


def effect_bars(effects: Sequence[Effect], controls: Sequence[str] = ()) -> Any:
    """The same from the effects alone, as a stored audit has them.

    Args:
        effects: A bar each.
        controls: Interventions that are controls themselves; drawn in grey.
    """
    import plotly.graph_objects as go

    classes = list(dict.fromkeys(e.on for e in effects))
    panels = [sorted((e for e in effects if e.on == name), key=_rank) for name in classes]
    figure = go.Figure()
    for i, (name, rows) in enumerate(zip(classes, panels, strict=True)):
        n = "" if i == 0 else i + 1
        at: dict[str, Any] = {"xaxis": f"x{n}", "yaxis": f"y{n}"}
        figure.add_bar(**_bar_trace(rows, controls), **at)
        figure.add_scatter(**_dot_trace(rows), **at)
        for y, effect in enumerate(rows):
            figure.add_annotation(
                text=_figures(effect), x=1, xref=f"x{n} domain", xshift=8, xanchor="left", y=y, yref=f"y{n}",
                showarrow=False, font={"size": 12}, align="left",
            )  # fmt: skip
        base = next((e.rate.value for e in rows if e.intervention == "none"), math.nan)
        if math.isfinite(base):
            figure.add_shape(
                type="line", xref=f"x{n}", yref=f"y{n} domain", x0=base, x1=base, y0=0, y1=1,
                line={"color": NEUTRAL, "width": 1.5, "dash": "dot"},
            )  # fmt: skip
        figure.layout[f"xaxis{n}"] = {
            "range": [-0.02, 1.02], "tickvals": [0, 0.25, 0.5, 0.75, 1], "ticktext": ["0", "0.25", "0.5", "0.75", "1"],
            "fixedrange": True,
        }  # fmt: skip
        figure.layout[f"yaxis{n}"] = {
            "range": [len(rows) - 0.4, -0.5], "tickvals": list(range(len(rows))), "showgrid": False,
            "ticktext": [_name(e) for e in rows], "fixedrange": True, "ticklabelstandoff": 6,
        }  # fmt: skip
        figure.add_annotation(panel_title(f"Refusals, <b>{plain(name)}</b> prompts", i))
    grey = "unedited model, and controls" if controls else "unedited model"
    for label, marker in (
        ("this direction", {"symbol": "square", "size": 10, "color": REFUSES}),
        (grey, {"symbol": "square", "size": 10, "color": NEUTRAL}),
        ("control: one random direction each", _DOT),
    ):
        figure.add_scatter(x=[None], y=[None], mode="markers", name=label, marker=marker)
    heights = [_ROW * len(rows) for rows in panels]
    left = label_width(_name(e) for e in effects)
    figure.update_layout(legend=legend_above(), bargap=0)
    return dress(figure, wide=_abreast(heights, left), narrow=_stacked(heights, left), narrow_below=760)


def _bar_trace(rows: Sequence[Effect], controls: Sequence[str]) -> dict[str, Any]:
    ends = [e.rate.interval for e in rows]
    return {
        "x": [_number(e.rate.value) for e in rows], "y": list(range(len(rows))), "orientation": "h", "width": _BAR,
        "showlegend": False,
        "marker": {
            "color": [NEUTRAL if e.intervention in ("none", *controls) else REFUSES for e in rows], "line": {"width": 0}
        },
        "error_x": {
            "type": "data", "symmetric": False, "color": NEUTRAL, "thickness": 1.6, "width": 4,
            "array": [_number(high - e.rate.value) for e, (_, high) in zip(rows, ends, strict=True)],
            "arrayminus": [_number(e.rate.value - low) for e, (low, _) in zip(rows, ends, strict=True)],
        },
        "customdata": [
            [_name(e), e.rate.k, e.rate.n, fraction(e.rate.value), fraction(low), fraction(high)]
            for e, (low, high) in zip(rows, ends, strict=True)
        ],
        "hovertemplate": "%{customdata[0]}<br>refused %{customdata[1]} of %{customdata[2]} (%{customdata[3]})<br>"
        "95 % interval %{customdata[4]} to %{customdata[5]}<extra></extra>",
    }  # fmt: skip


def _dot_trace(rows: Sequence[Effect]) -> dict[str, Any]:
    """A strip of dots across each bar: equal rates stand above each other, so that all of them are seen."""
    dots = [
        (y + 0.8 * _BAR * ((j + 0.5) / len(e.random) - 0.5), j, r)
        for y, e in enumerate(rows)
        for j, r in enumerate(e.random)
    ]
    return {
        "x": [_number(r.value) for _, _, r in dots], "y": [y for y, _, _ in dots], "mode": "markers",
        "cliponaxis": False, "showlegend": False, "marker": _DOT,
        "customdata": [[j + 1, r.k, r.n] for _, j, r in dots],
        "hovertemplate": "random direction %{customdata[0]}<br>refused %{customdata[1]} of %{customdata[2]}"
        "<extra></extra>",
    }  # fmt: skip


def _abreast(heights: Sequence[float], left: int) -> dict[str, Any]:
    """Panels side by side; those after the first leave room for the rates of the one before."""
    n, gap = len(heights), 0.3
    width = (1 - gap * (n - 1)) / n
    patch: dict[str, Any] = {"height": max(heights) + 106, "margin": {"l": left, "r": _FIGURES, "t": 72, "b": 34}}
    for i, axes in enumerate(axis_names(n)):
        start = i * (width + gap)
        patch |= place(axes, [round(start, 4), round(min(1.0, start + width), 4)], [0, 1])
    return patch


def _stacked(heights: Sequence[float], left: int) -> dict[str, Any]:
    domains, total = rows_of(heights, 66)
    patch: dict[str, Any] = {"height": total + 144, "margin": {"l": left, "r": _FIGURES, "t": 110, "b": 34}}
    for axes, domain in zip(axis_names(len(heights)), domains, strict=True):
        patch |= place(axes, [0, 1], domain)
    return patch


def _figures(effect: Effect) -> str:
    """What stands at the right of a row: the rate, and below it that of the random directions."""
    control = (
        f"<br><span style='font-size:10.5px'>random {fraction(effect.random_mean)}</span>" if effect.random else ""
    )
    return f"<b>{fraction(effect.rate.value)}</b>{control}"


def _name(effect: Effect) -> str:
    return _NAMES.get(effect.intervention, plain(effect.intervention))


def _rank(effect: Effect) -> int:
    return _ORDER.index(effect.intervention) if effect.intervention in _ORDER else len(_ORDER)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
