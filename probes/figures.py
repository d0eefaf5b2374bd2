"""Figures of what `probes` finds, each with its control in it. Pure functions: a result in, a plotly figure out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.figure_style import (
    ANSWERS,
    KINDS,
    NEUTRAL,
    REFUSES,
    axis_names,
    dress,
    faded,
    grid,
    panel_title,
    plain,
    share,
)

if TYPE_CHECKING:
    from probes.causal import CausalCheck, Effect
    from probes.readout import Separation
    from probes.selection import Selection

_SMALLEST_KL = 1e-4
_MANY_LAYERS = 20


def candidate_maps(selection: Selection, tokens: Mapping[str, str] | None = None) -> Any:
    """Bypass, induce and KL of every candidate, over layer and position.

    A cross marks a cell that fails the map's own condition (in the bypass map: any condition), the dotted line the
    deepest layer allowed, the ring the chosen candidate. Cells without a finite score are empty.

    Args:
        selection: The outcome of `select_direction`.
        tokens: Text of the token at each position, shown beside its name.
    """
    import plotly.graph_objects as go

    table, limits = selection.table, selection.thresholds
    kl = selection.bypass.replace("bypass", "kl")
    kl = kl if kl in table.columns else "kl"
    positions = list(dict.fromkeys(table["position"].astype(str)))
    layers = list(range(int(table["layer"].max()) + 1))
    labels = [_position(p, tokens) for p in positions]
    induce = f"adding it makes harmless prompts refused (needs ≥ {limits['min_induce']:g})"
    maps = [
        (selection.bypass, "passed", "<b>Bypass</b>  score on harmful prompts, direction removed"),
        ("induce", "ok_induce", f"<b>Induce</b>  {induce}"),
        (kl, "ok_kl", f"<b>KL</b>  side effect on harmless prompts (needs ≤ {limits['max_kl']:g})"),
    ]
    maps = [m for m in maps if m[0] in table.columns]
    shared = _largest(table, [selection.bypass, "induce"])
    figure = go.Figure()
    for i, (column, ok, title) in enumerate(maps):
        n = "" if i == 0 else i + 1
        at = {"xaxis": f"x{n}", "yaxis": f"y{n}"}
        log = column == kl
        values = _matrix(table, column, positions, layers)
        shown = np.log10(np.maximum(values, _SMALLEST_KL)) if log else values
        figure.add_heatmap(
            z=_blank(shown), x=layers, y=labels, customdata=_blank(values), xgap=1, ygap=1, **at,
            coloraxis="coloraxis2" if log else "coloraxis", hoverongaps=False,
            hovertemplate=f"layer %{{x}}, %{{y}}<br>{plain(column)} %{{customdata:.3g}}<extra></extra>",
        )  # fmt: skip
        fails = table[~table[ok].astype(bool)]
        figure.add_scatter(
            x=fails["layer"].tolist(), y=[labels[positions.index(str(p))] for p in fails["position"]], mode="markers",
            marker={"symbol": "x-thin", "size": 6, "line": {"width": 1.2, "color": NEUTRAL}}, hoverinfo="skip", **at,
        )  # fmt: skip
        if selection.chosen is not None:
            spot = ([int(selection.chosen["layer"])], [labels[positions.index(str(selection.chosen["position"]))]])
            for colour, line in (("#ffffff", 5.0), ("#15181c", 2.2)):
                figure.add_scatter(
                    x=spot[0], y=spot[1], mode="markers", hoverinfo="skip", cliponaxis=False, **at,
                    marker={"symbol": "circle-open", "size": 15, "color": colour, "line": {"width": line}},
                )  # fmt: skip
        figure.add_annotation(panel_title(title, i))
        figure.add_shape(
            type="line", xref=f"x{n}", yref=f"y{n} domain", y0=0, y1=1,
            x0=math.ceil(limits["max_depth"] * len(layers)) - 0.5, x1=math.ceil(limits["max_depth"] * len(layers)) - 0.5,
            line={"color": NEUTRAL, "width": 1.5, "dash": "dot"},
        )  # fmt: skip
    step = max(1, math.ceil(len(layers) / 12))
    for x, y in axis_names(len(maps)):
        figure.layout[x] = {"tickvals": layers[::step], "range": [-0.5, len(layers) - 0.5], "showgrid": False}
        figure.layout[y] = {"categoryarray": labels, "categoryorder": "array", "showgrid": False, "ticksuffix": " "}
        figure.layout[y]["range"] = [len(labels) - 0.5, -0.5]
    bar = {"thickness": 9, "outlinewidth": 0, "tickfont": {"size": 11}, "xanchor": "left", "yanchor": "middle"}
    low, high = math.log10(_SMALLEST_KL), max(1.0, math.log10(max(_largest(table, [kl]), _SMALLEST_KL)))
    ticks = [t for t in range(int(low), int(high) + 1) if t % 2 == 0]
    figure.update_layout(
        showlegend=False,
        coloraxis={"cmin": -shared, "cmid": 0, "cmax": shared, "colorbar": {**bar, "nticks": 5}},
        coloraxis2={"cmin": low, "cmax": high, "colorbar": {**bar, "tickvals": ticks, "ticktext": [f"{10.0**t:g}" for t in ticks]}},
    )  # fmt: skip
    many = len(layers) > _MANY_LAYERS
    wide = _stacked(len(maps), len(labels)) if many else _abreast(len(maps), len(labels))
    return dress(
        figure, wide=wide, narrow=_stacked(len(maps), len(labels)),
        scales={"coloraxis": "diverging", "coloraxis2": "sequential"},
    )  # fmt: skip
