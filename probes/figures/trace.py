"""A score along the thought: the curve with its band, and the map of layers and positions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from interp.text.prompts import HARMFUL, HARMLESS
from interp.tracing.scores import TraceScores
from probes.figures.style import (
    ANSWERS,
    KINDS,
    NEUTRAL,
    REFUSES,
    axis_names,
    dress,
    faded,
    legend_above,
    panel_title,
    place,
    plain,
    rows_of,
    visible,
)

CONTROL = "shuffled labels"
_COLOURS = {HARMFUL: REFUSES, HARMLESS: ANSWERS}
_REGION = {"prompt": "prompt", "thinking": "thought", "think_close": "", "answer": "answer"}
_LONGEST = 12


def trace_curve(
    scores: TraceScores,
    layer: int | None = None,
    *,
    bins: int = 10,
    level: float | None = None,
    control: TraceScores | None = None,
) -> Any:
    """Mean score along prompt, thought, the tokens that end it and answer, one line with its 95 % band per label.

    Args:
        scores: From `interp.trace`.
        layer: May be left out where one layer was scored.
        bins: Bins of the thought.
        level: A line to compare with, such as `RefusalCliff.level`.
        control: Scores of one layer by a prober that was taught shuffled labels: one line of all traces.
    """
    return mean_curve(curve_table(scores, layer, bins=bins, control=control), unit_of(scores), level)


def curve_table(
    scores: TraceScores, layer: int | None = None, *, bins: int = 10, control: TraceScores | None = None
) -> Any:
    """What `mean_curve` draws (pandas): `Aligned.mean` of one layer, and of the control under the label `CONTROL`."""
    import pandas as pd

    table = scores.at_layer(scores.layers[scores.row(layer)]).aligned(bins).mean()
    if control is None:
        return table
    other = control.aligned(bins)
    pooled = replace(other, labels=(CONTROL,) * len(other.labels)).mean()
    return pd.concat([table, pooled], ignore_index=True)


def mean_curve(table: Any, unit: str, level: float | None = None) -> Any:
    """The curve from its table; see `trace_curve`.

    Args:
        table: From `curve_table`.
        unit: Title of the score's axis; one that begins with "probability" runs from 0 to 1.
        level: A line to compare with.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    spare = iter(k for k in KINDS if k not in (REFUSES, ANSWERS))
    for label in dict.fromkeys(table["label"]):
        rows = table[(table["label"] == label) & table["mean"].notna()]
        shuffled = label == CONTROL
        x = rows["place"].tolist()
        colour = NEUTRAL if shuffled else _COLOURS.get(str(label)) or next(spare, NEUTRAL)
        name = "traces" if label == "None" else f"{plain(label)}{'' if shuffled else ' prompts'}"
        figure.add_scatter(
            x=[*x, *x[::-1]], y=[*rows["high"].tolist(), *rows["low"].tolist()[::-1]], fill="toself", mode="lines",
            line={"width": 0}, fillcolor=faded(colour, 0.18), showlegend=False, hoverinfo="skip", legendgroup=name,
        )  # fmt: skip
        figure.add_scatter(
            x=x, y=rows["mean"].tolist(), mode="lines" if shuffled else "lines+markers", name=name, legendgroup=name,
            line={"color": colour, "width": 1.8 if shuffled else 2.2, "dash": "dash" if shuffled else "solid"},
            marker={"size": 5.5},
            customdata=[
                [plain(column), *rest] for column, *rest in rows[["column", "low", "high", "n"]].to_numpy().tolist()
            ],
            hovertemplate=f"{name}, %{{customdata[0]}}<br>%{{y:.3g}} [%{{customdata[1]:.3g}}, %{{customdata[2]:.3g}}]"
            "<br>%{customdata[3]} traces<extra></extra>",
        )  # fmt: skip
    columns = _columns(table)
    close = [place for place, (region, _) in enumerate(columns) if region == "think_close"]
    if close:
        figure.add_shape(
            type="rect", x0=close[0] - 0.5, x1=close[-1] + 0.5, y0=0, y1=1, yref="y domain", layer="below",
            line={"width": 0}, fillcolor=faded(NEUTRAL, 0.16),
        )  # fmt: skip
    if level is not None and np.isfinite(level):
        figure.add_shape(
            type="line", x0=-0.5, x1=len(columns) - 0.5, y0=level, y1=level,
            line={"color": NEUTRAL, "width": 1.2, "dash": "dot"},
        )  # fmt: skip
    figure.update_layout(
        xaxis=_axis(columns), yaxis={"title": {"text": plain(unit)}, "fixedrange": True}, legend=legend_above()
    )
    if unit.startswith("probability"):
        figure.update_layout(yaxis={"range": [-0.02, 1.02], "dtick": 0.25})
    margin = {"l": 54, "r": 12, "b": (below := _below(columns))}
    return dress(
        figure, wide={"height": 270 + below, "margin": {**margin, "t": 40}, "xaxis.tickangle": -45},
        narrow={"height": 320 + below, "margin": {**margin, "t": 70, "b": below + 10}, "xaxis.tickangle": -90},
        narrow_below=560,
    )  # fmt: skip


def trace_map(scores: TraceScores, *, bins: int = 10) -> Any:
    """Mean score by layer and place along the trace, a map per label, on one scale.

    Args:
        scores: From `interp.trace` with several layers.
        bins: Bins of the thought.
    """
    return mean_map(scores.aligned(bins).mean(draws=2), unit_of(scores))


def mean_map(table: Any, unit: str) -> Any:
    """The map from its table; see `trace_map`.

    Args:
        table: From `Aligned.mean` with several layers.
        unit: Title of the colour bar; one that begins with "probability" runs from 0 to 1.
    """
    import plotly.graph_objects as go

    columns, names = _columns(table), _names(table)
    labels, layers = list(dict.fromkeys(table["label"])), sorted(int(v) for v in set(table["layer"]))
    figure = go.Figure()
    for i, label in enumerate(labels):
        own = table[table["label"] == label]
        z = own.pivot(index="layer", columns="place", values="mean").reindex(layers).to_numpy(dtype=float)
        n = "" if i == 0 else i + 1
        figure.add_heatmap(
            z=[[None if np.isnan(v) else float(v) for v in row] for row in z], x=list(range(len(columns))),
            y=list(range(len(layers))), xgap=1, ygap=1, xaxis=f"x{n}", yaxis=f"y{n}", coloraxis="coloraxis",
            customdata=[[[name, layer] for name in names] for layer in layers],
            hovertemplate=f"{plain(label)}, layer %{{customdata[1]}}, %{{customdata[0]}}<br>%{{z:.3g}}<extra></extra>",
            hoverongaps=False,
        )  # fmt: skip
        figure.add_annotation(panel_title(f"<b>{'traces' if label == 'None' else f'{plain(label)} prompts'}</b>", i))
    domains, total = rows_of([max(90, 20 * len(layers))] * len(labels), 40)
    below = _below(columns)
    patch: dict[str, Any] = {"height": total + 34 + below, "margin": {"l": 54, "r": 74, "t": 34, "b": below}}
    step = max(1, math.ceil(len(layers) / 12))
    for i, (x, y) in enumerate(axis_names(len(labels))):
        last = i == len(labels) - 1
        figure.layout[x] = {**_axis(columns), "showgrid": False, "showticklabels": last}
        figure.layout[y] = {
            "title": {"text": "layer"}, "tickvals": list(range(0, len(layers), step)),
            "ticktext": [str(v) for v in layers[::step]], "showgrid": False, "fixedrange": True,
        }  # fmt: skip
        patch |= place((x, y), [0, 1], domains[i])
    means = table["mean"].to_numpy(dtype=float)
    spread = float(np.nanmax(np.abs(means))) or 1.0
    probability = unit.startswith("probability")
    figure.update_layout(
        showlegend=False,
        coloraxis={"cmin": 0.0 if probability else -spread, "cmax": 1.0 if probability else spread,
                   "colorbar": {"thickness": 9, "outlinewidth": 0, "tickfont": {"size": 11}, "nticks": 5, "xpad": 4,
                                "title": {"text": plain(unit), "side": "right", "font": {"size": 11.5}}}},
    )  # fmt: skip
    axis = axis_names(len(labels))[-1][0]
    narrow = {**patch, "height": patch["height"] + 10, "margin": {**patch["margin"], "b": below + 10}}
    return dress(
        figure, wide={**patch, f"{axis}.tickangle": -45}, narrow={**narrow, f"{axis}.tickangle": -90}, narrow_below=560,
        scales={"coloraxis": "diverging"},
    )  # fmt: skip


def unit_of(scores: TraceScores) -> str:
    """What the scores are measured in, and where: `probability of refusal, layer 5`."""
    where = {"site": "", "normed": ", after the final norm", "lens": ", logit lens", "logits": ""}[scores.space]
    layer = f", layer {scores.layers[0]}" if len(scores.layers) == 1 and scores.space != "logits" else ""
    return f"{scores.unit or scores.name}{layer}{where}"


def _columns(table: Any) -> list[tuple[str, str]]:
    """Region and token text of every place."""
    first = table.drop_duplicates("place").sort_values("place")
    return list(zip(first["region"].tolist(), first["text"].tolist(), strict=True))


def _names(table: Any) -> list[str]:
    return [plain(c) for c in table.drop_duplicates("place").sort_values("place")["column"]]


def _axis(columns: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Ticks: the end tokens by their text, the other regions named at their middle."""
    values: list[float] = []
    texts: list[str] = []
    for region in dict.fromkeys(r for r, _ in columns):
        places = [i for i, (r, _) in enumerate(columns) if r == region]
        if region == "think_close":
            values += places
            texts += [_shown(columns[i][1]) for i in places]
        else:
            values.append((places[0] + places[-1]) / 2)
            texts.append(_REGION[region])
    return {
        "tickvals": values, "ticktext": texts, "range": [-0.6, len(columns) - 0.4], "showgrid": False,
        "fixedrange": True,
    }  # fmt: skip


def _below(columns: Sequence[tuple[str, str]]) -> int:
    """Bottom margin in pixels that holds the slanted tick labels."""
    return 16 + round(5.2 * max(len(_shown(text)) for _, text in [("", "thought"), *columns]))


def _shown(text: str) -> str:
    seen = visible(text)
    return plain(seen if len(seen) <= _LONGEST else seen[: _LONGEST - 1] + "…")
