"""Bypass, induce and KL of every candidate direction, over layer and position."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.figures.style import NEUTRAL, axis_names, dress, label_width, panel_title, place, plain, rows_of, visible

if TYPE_CHECKING:
    from probes.selection import Selection

_LEAST_KL = 1e-4
_MOST_LAYERS_ABREAST = 16


def candidate_maps(selection: Selection, tokens: Mapping[str, str] | None = None) -> Any:
    """Bypass, induce and KL of every candidate, over layer and position.

    A cross marks a cell that fails the map's own condition (in the bypass map: any condition), the dotted line is the
    deepest layer allowed, the ring the chosen candidate. Cells without a finite score are empty.

    Args:
        selection: The outcome of `select_direction`.
        tokens: Text of the token at each position, shown beside its name.
    """
    import plotly.graph_objects as go

    table, limits = selection.table, selection.thresholds
    kl = selection.kl
    maps = [
        (selection.bypass, "passed", "<b>Bypass</b><br>refused prompts, removed<br>the lowest is best"),
        ("induce", "ok_induce", f"<b>Induce</b><br>answered prompts, added<br>needs ≥ {limits['min_induce']:g}"),
        (kl, "ok_kl", f"<b>KL</b><br>answered prompts, removed<br>needs ≤ {limits['max_kl']:g}"),
    ]
    maps = [m for m in maps if m[0] in table.columns]
    positions = list(dict.fromkeys(table["position"].astype(str)))
    row = {p: i for i, p in enumerate(positions)}
    layers = range(int(table["layer"].max()) + 1)
    chosen = selection.chosen or {}
    deepest = math.ceil(limits["max_depth"] * len(layers)) - 0.5
    figure = go.Figure()
    for i, (column, ok, title) in enumerate(maps):
        n = "" if i == 0 else i + 1
        at = {"xaxis": f"x{n}", "yaxis": f"y{n}"}
        values = np.full((len(positions), len(layers)), np.nan)
        for p, layer, value in zip(table["position"], table["layer"], table[column], strict=True):
            values[row[str(p)], int(layer)] = value if value is not None and np.isfinite(value) else np.nan
        shown = np.log10(np.maximum(values, _LEAST_KL)) if column == kl else values
        figure.add_heatmap(
            z=_blanks(shown), x=list(layers), y=list(row.values()), xgap=1.5, ygap=1.5, hoverongaps=False, **at,
            customdata=[[[v, plain(p)] for v in _blanks(values)[r]] for p, r in row.items()],
            coloraxis="coloraxis2" if column == kl else "coloraxis",
            hovertemplate=f"layer %{{x}}, %{{customdata[1]}}<br>{plain(column)} %{{customdata[0]:.3g}}<extra></extra>",
        )  # fmt: skip
        fails = table[~table[ok].astype(bool)]
        for colour, width in (("rgba(255,255,255,0.6)", 2.8), ("#41464e", 1.1)):
            figure.add_scatter(
                x=fails["layer"].tolist(), y=[row[str(p)] for p in fails["position"]], mode="markers", **at,
                marker={"symbol": "x-thin", "size": 6, "line": {"width": width, "color": colour}}, hoverinfo="skip",
            )  # fmt: skip
        for colour, width in (("#ffffff", 5.0), ("#15181c", 2.2)) if chosen else ():
            figure.add_scatter(
                x=[int(chosen["layer"])], y=[row[str(chosen["position"])]], mode="markers",
                marker={"symbol": "circle-open", "size": 14, "color": colour, "line": {"width": width}},
                hoverinfo="skip", cliponaxis=False, **at,
            )  # fmt: skip
        figure.add_annotation(panel_title(title, i))
        if deepest < len(layers) - 0.5:
            figure.add_shape(
                type="line", xref=f"x{n}", yref=f"y{n} domain", x0=deepest, x1=deepest, y0=0, y1=1,
                line={"color": NEUTRAL, "width": 1.5, "dash": "dot"},
            )  # fmt: skip
    step = max(1, math.ceil(len(layers) / 12))
    labels = [_position(p, tokens) for p in positions]
    for x, y in axis_names(len(maps)):
        figure.layout[x] = {
            "tickvals": list(layers)[::step], "range": [-0.5, len(layers) - 0.5], "showgrid": False,
            "fixedrange": True, "title": {"text": "layer"},
        }  # fmt: skip
        figure.layout[y] = {
            "tickvals": list(row.values()), "ticktext": labels, "range": [len(row) - 0.5, -0.5], "showgrid": False,
            "fixedrange": True, "ticklabelstandoff": 6,
        }  # fmt: skip
    score = max([abs(v) for c in ("induce", selection.bypass) for v in _finite(table, c)], default=1.0) or 1.0
    low, high = math.log10(_LEAST_KL), max(1.0, math.log10(max([_LEAST_KL, *_finite(table, kl)])))
    ticks = [t for t in range(int(low), int(high) + 1) if t % 2 == 0]
    bar = {"thickness": 9, "outlinewidth": 0, "ticklen": 0, "tickfont": {"size": 11}, "xanchor": "left", "xpad": 4}
    figure.update_layout(
        showlegend=False,
        coloraxis={"cmin": -score, "cmax": score, "colorbar": {**bar, "nticks": 5, "yanchor": "bottom", "ypad": 0}},
        coloraxis2={
            "cmin": low, "cmax": high,
            "colorbar": {
                **bar, "tickvals": ticks, "ticktext": [f"{10.0**t:g}" for t in ticks], "yanchor": "bottom", "ypad": 0
            },
        },
    )  # fmt: skip
    narrow = _maps_stacked(len(maps), [plain(p) for p in positions])
    many = len(layers) > _MOST_LAYERS_ABREAST
    wide = _maps_stacked(len(maps), labels) if many else _maps_abreast(len(maps), labels)
    return dress(
        figure, wide=wide, narrow=narrow, narrow_below=860,
        scales={"coloraxis": "diverging", "coloraxis2": "sequential"},
    )  # fmt: skip


def _maps_stacked(n: int, labels: Sequence[str]) -> dict[str, Any]:
    domains, total = rows_of([max(60, 21 * len(labels))] * n, 80)
    patch: dict[str, Any] = {
        "height": total + 112, "margin": {"l": label_width(labels), "r": 52, "t": 66, "b": 46},
        **_bar("coloraxis", 1.0, [domains[min(1, n - 1)][0], domains[0][1]]), **_bar("coloraxis2", 1.0, domains[-1]),
    }  # fmt: skip
    for i, (x, y) in enumerate(axis_names(n)):
        patch |= place((x, y), [0, 1], domains[i])
        patch |= {f"{y}.ticktext": list(labels), f"{y}.showticklabels": True}
        patch[f"{x}.title.text"] = "layer" if i == n - 1 else ""
        patch[f"annotations[{i}].xshift"] = 10 - label_width(labels)
    return patch


def _maps_abreast(n: int, labels: Sequence[str]) -> dict[str, Any]:
    domains = [[0, 0.285], [0.31, 0.595], [0.675, 0.96]]
    patch: dict[str, Any] = {
        "height": max(84, 26 * len(labels)) + 112, "margin": {"l": label_width(labels), "r": 10, "t": 66, "b": 46},
        **_bar("coloraxis", 0.595, [0, 1]), **_bar("coloraxis2", 0.96, [0, 1]),
    }  # fmt: skip
    for i, (x, y) in enumerate(axis_names(n)):
        patch |= place((x, y), domains[i], [0, 1])
        patch |= {f"{y}.ticktext": list(labels), f"{y}.showticklabels": i == 0}
        patch |= {f"{x}.title.text": "layer", f"annotations[{i}].xshift": 0}
    return patch


def _bar(axis: str, x: float, domain: Sequence[float]) -> dict[str, Any]:
    at = f"{axis}.colorbar"
    return {f"{at}.x": x, f"{at}.y": domain[0], f"{at}.len": round(domain[1] - domain[0], 4)}


def _position(name: str, tokens: Mapping[str, str] | None) -> str:
    """`post_inst[-1]`, with the token's text when known (white space made visible)."""
    text = (tokens or {}).get(name)
    if text is None:
        return plain(name)
    seen = visible(text)
    return f"{plain(name)}  {plain(seen if len(seen) <= 16 else seen[:15] + '…')}"


def _finite(table: Any, column: str) -> list[float]:
    if column not in table.columns:
        return []
    return [float(v) for v in table[column] if v is not None and math.isfinite(v)]


def _blanks(values: Any) -> list[list[float | None]]:
    return [[None if math.isnan(v) else float(v) for v in line] for line in values]
