"""The causal table as a picture, and the readings of questions about requests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from probes.figures.style import (
    ANSWERS,
    KINDS,
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
    from probes.inversion import Reading, ReplyInversion
    from probes.two_causal import Effect

_ROW = 38
_BAR = 0.6
_DOT = {"symbol": "circle", "size": 6, "color": "#ffffff", "line": {"width": 1.3, "color": "#33373d"}}
_COLOURS = {"harmfulness": KINDS[3], "refusal": REFUSES}
_WAYS = {"add": "added", "gap": "by its own gap"}
_FADED = "rgba(139,145,154,0.45)"


def dissociation_bars(effects: Sequence[Effect], least: float) -> Any:
    """Share of held-out prompts that each direction moves, a panel per direction and a row per behaviour and way.

    Bars have 95 % intervals; their grey end is the share whose answer became neither one nor the other. Each dot is a
    random direction of the same norm put through the same edit, the dotted line what counts as moving.

    Args:
        effects: The pooled effects.
        least: The threshold.
    """
    import plotly.graph_objects as go

    names = list(dict.fromkeys(e.direction for e in effects))
    panels = [[e for e in effects if e.direction == name] for name in names]
    figure = go.Figure()
    for i, (name, rows) in enumerate(zip(names, panels, strict=True)):
        n = "" if i == 0 else i + 1
        at: dict[str, Any] = {"xaxis": f"x{n}", "yaxis": f"y{n}"}
        share = [_share(e.tally.moved, e.tally.n) for e in rows]
        neither = [_share(e.tally.neither, e.tally.n) for e in rows]
        ends = [e.interval for e in rows]
        figure.add_bar(
            x=share, y=list(range(len(rows))), orientation="h", width=_BAR, showlegend=False,
            marker={"color": _COLOURS.get(name, ANSWERS), "line": {"width": 0}},
            error_x={"type": "data", "symmetric": False, "color": NEUTRAL, "thickness": 1.6, "width": 4,
                     "array": [max(0.0, high - s) for s, (_, high) in zip(share, ends, strict=True)],
                     "arrayminus": [max(0.0, s - low) for s, (low, _) in zip(share, ends, strict=True)]},
            customdata=[[_label(e), e.tally.moved, e.tally.n, e.tally.neither, e.verdict(least)] for e in rows],
            hovertemplate="%{customdata[0]}<br>moved %{customdata[1]} of %{customdata[2]}, neither %{customdata[3]}"
            "<br>%{customdata[4]}<extra></extra>", **at,
        )  # fmt: skip
        figure.add_bar(
            x=neither, base=share, y=list(range(len(rows))), orientation="h", width=_BAR, showlegend=False,
            marker={"color": _FADED, "line": {"width": 0}}, hoverinfo="skip", **at,
        )  # fmt: skip
        dots = [
            (y + 0.8 * _BAR * ((j + 0.5) / len(e.random) - 0.5), j, t)
            for y, e in enumerate(rows)
            for j, t in enumerate(e.random)
        ]
        figure.add_scatter(
            x=[_share(t.moved + t.neither, t.n) for _, _, t in dots], y=[y for y, _, _ in dots], mode="markers",
            marker=_DOT, cliponaxis=False, showlegend=False,
            customdata=[[j + 1, t.moved, t.neither, t.n] for _, j, t in dots],
            hovertemplate="random direction %{customdata[0]}<br>moved %{customdata[1]}, neither %{customdata[2]} of "
            "%{customdata[3]}<extra></extra>", **at,
        )  # fmt: skip
        for y, e in enumerate(rows):
            verdict = f"<span style='font-size:0.87em'>{e.verdict(least)}</span>"
            figure.add_annotation(
                text=f"<b>{fraction(share[y])}</b><br>{verdict}", x=1, xref=f"x{n} domain", xshift=10,
                xanchor="left", y=y, yref=f"y{n}", showarrow=False, font={"size": 12}, align="left",
            )  # fmt: skip
        figure.add_shape(
            type="line", xref=f"x{n}", yref=f"y{n} domain", x0=least, x1=least, y0=0, y1=1,
            line={"color": NEUTRAL, "width": 1.4, "dash": "dot"},
        )  # fmt: skip
        figure.layout[f"xaxis{n}"] = {
            "range": [-0.02, 1.02], "fixedrange": True,
        }  # fmt: skip
        figure.layout[f"yaxis{n}"] = {
            "range": [len(rows) - 0.4, -0.6], "tickvals": list(range(len(rows))), "showgrid": False,
            "ticktext": [_lines(e) for e in rows], "fixedrange": True, "ticklabelstandoff": 6,
        }  # fmt: skip
        figure.add_annotation(panel_title(f"<b>{plain(name).capitalize()}</b> direction", i))
    for label, marker in (
        ("moved", {"symbol": "square", "size": 10, "color": REFUSES}),
        ("neither", {"symbol": "square", "size": 10, "color": _FADED}),
        ("control: one random direction each", _DOT),
    ):
        figure.add_scatter(x=[None], y=[None], mode="markers", name=label, marker=marker)
    heights = [_ROW * max(1, len(rows)) for rows in panels]
    left = label_width([e.behaviour for e in effects] + [_way(e)[: round(0.9 * len(_way(e)))] for e in effects])
    domains, total = rows_of(heights, 62)
    shape: dict[str, Any] = {"height": total + 112, "margin": {"l": left, "r": 112, "t": 76, "b": 34}}
    for axes, domain in zip(axis_names(len(panels)), domains, strict=True):
        shape |= place(axes, [0, 1], domain)
    figure.update_layout(legend=legend_above(), bargap=0, barmode="overlay")
    narrow = {**shape, "height": total + 136, "margin": {"l": left, "r": 96, "t": 100, "b": 34}}
    for axes in axis_names(len(panels)):
        for look, ticks in ((shape, (0, 0.25, 0.5, 0.75, 1)), (narrow, (0, 0.5, 1))):
            look |= {f"{axes[0]}.tickvals": list(ticks), f"{axes[0]}.ticktext": [f"{t:g}" for t in ticks]}
    return dress(figure, wide=shape, narrow=narrow, narrow_below=620)


def reading_bars(result: ReplyInversion) -> Any:
    """What a model says of requests when asked, by label: judged harmful, judged harmless, or neither.

    Args:
        result: The readings.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    labels = [str(v) for v in dict.fromkeys(p.label for p in result.prompts)]
    kinds: tuple[tuple[Reading, str], ...] = (("harmful", REFUSES), ("harmless", ANSWERS), ("neither", _FADED))
    for reading, colour in kinds:
        rates = [result.rate(reading, label=label) for label in labels]
        ends = [r.interval for r in rates]
        figure.add_bar(
            x=[r.value for r in rates], y=labels, orientation="h", name=f"judged {reading}" if reading != "neither"
            else "neither yes nor no", marker={"color": colour, "line": {"width": 0}},
            error_x={"type": "data", "symmetric": False, "color": NEUTRAL, "thickness": 1.4, "width": 3,
                     "array": [h - r.value for r, (_, h) in zip(rates, ends, strict=True)],
                     "arrayminus": [r.value - low for r, (low, _) in zip(rates, ends, strict=True)]},
            customdata=[[r.k, r.n] for r in rates],
            hovertemplate="%{y}: %{customdata[0]} of %{customdata[1]}<extra></extra>",
        )  # fmt: skip
    figure.update_layout(
        xaxis={"range": [-0.02, 1.02], "fixedrange": True},
        yaxis={"autorange": "reversed", "showgrid": False, "fixedrange": True},
        legend=legend_above(),
    )
    margin = {"l": label_width(labels), "r": 16, "b": 34}
    height = 74 * len(labels) + 80
    return dress(
        figure, wide={"height": height, "margin": {**margin, "t": 44}},
        narrow={"height": height + 30, "margin": {**margin, "t": 74}}, narrow_below=520,
    )  # fmt: skip


def _label(effect: Effect) -> str:
    return f"{effect.behaviour}, {_way(effect)}"


def _lines(effect: Effect) -> str:
    return f"{plain(effect.behaviour)}<br><span style='font-size:11px'>{plain(_way(effect))}</span>"


def _way(effect: Effect) -> str:
    return _WAYS.get(effect.way, effect.way)


def _share(k: int, n: int) -> float:
    return k / n if n else math.nan
