"""How well each layer separates the classes, between its controls."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from probes.figures.style import KINDS, NEUTRAL, dress, faded, fraction, legend_above, plain

if TYPE_CHECKING:
    from probes.readout import Separation


def separation_lines(separation: Separation) -> Any:
    """AUROC by layer, one line with its interval per position, between its controls.

    Controls: the grey band is the same fit on shuffled labels (mean to largest draw), the dashed line a classifier of
    the text, the dash-dotted line the prompt's length, the dotted line chance.

    Args:
        separation: The separation.
    """
    import plotly.graph_objects as go

    table = separation.table.sort_values("layer", kind="stable")
    layers = sorted({int(layer) for layer in table["layer"]})
    ends = [min(layers, default=0) - 0.3, max(layers, default=0) + 0.3]
    figure = go.Figure()
    chance = table.groupby("layer", sort=True)
    low, high = chance["shuffled"].min(), chance["shuffled_high"].max()
    if low.notna().any():
        at = [int(layer) for layer in low.index]
        figure.add_scatter(
            x=[*at, *at[::-1]], y=[*high.tolist(), *low.tolist()[::-1]], fill="toself", mode="lines", line={"width": 0},
            fillcolor=faded(NEUTRAL, 0.28), name="shuffled labels (mean to largest)", hoverinfo="skip",
        )  # fmt: skip
    text, text_low, text_high = separation.text
    if math.isfinite(text):
        if math.isfinite(text_low) and math.isfinite(text_high):
            figure.add_shape(
                type="rect", x0=ends[0], x1=ends[1], y0=text_low, y1=text_high, line={"width": 0}, layer="below",
                fillcolor=faded(KINDS[4], 0.13),
            )  # fmt: skip
        figure.add_scatter(
            x=ends, y=[text, text], mode="lines", name=f"text alone ({fraction(text)})",
            line={"color": KINDS[4], "width": 1.8, "dash": "dash"},
            hovertemplate="TF-IDF and logistic regression<br>"
            f"{fraction(text)} [{fraction(text_low)}, {fraction(text_high)}]<extra></extra>",
        )  # fmt: skip
    if math.isfinite(separation.length):
        figure.add_scatter(
            x=ends, y=[separation.length] * 2, mode="lines", name=f"length alone ({fraction(separation.length)})",
            line={"color": NEUTRAL, "width": 1.8, "dash": "dashdot"}, hoverinfo="skip",
        )  # fmt: skip
    for i, position in enumerate(dict.fromkeys(separation.table["position"].astype(str))):
        rows = table[table["position"].astype(str) == position]
        colour, name, x = KINDS[i % 4], plain(position), [int(v) for v in rows["layer"]]
        figure.add_scatter(
            x=[*x, *x[::-1]], y=[*rows["high"].tolist(), *rows["low"].tolist()[::-1]], fill="toself", mode="lines",
            line={"width": 0}, fillcolor=faded(colour, 0.18), showlegend=False, hoverinfo="skip", legendgroup=name,
        )  # fmt: skip
        figure.add_scatter(
            x=x, y=rows["auroc"].tolist(), mode="lines+markers", name=name, legendgroup=name,
            line={"color": colour, "width": 2.2}, marker={"size": 6, "symbol": ("circle", "square", "diamond")[i % 3]},
            customdata=rows[["low", "high", "shuffled", "shuffled_high"]].to_numpy().tolist(),
            hovertemplate=f"{name}, layer %{{x}}<br>AUROC %{{y:.2f}} "
            "[%{customdata[0]:.2f}, %{customdata[1]:.2f}]<br>"
            "shuffled %{customdata[2]:.2f}, largest %{customdata[3]:.2f}<extra></extra>",
        )  # fmt: skip
    figure.add_shape(
        type="line", x0=ends[0], x1=ends[1], y0=0.5, y1=0.5, line={"color": NEUTRAL, "width": 1.2, "dash": "dot"}
    )
    seen = [v for c in ("auroc", "low", "shuffled") for v in table[c].tolist() if v is not None and math.isfinite(v)]
    floor = math.floor(10 * min([0.45, text if math.isfinite(text) else 1.0, *seen])) / 10
    step = max(1, math.ceil(len(layers) / 16))
    figure.update_layout(
        xaxis={"title": {"text": "layer (after the block, resid_post)"}, "range": ends, "tickvals": layers[::step],
               "showgrid": False, "fixedrange": True},
        yaxis={"title": {"text": "AUROC"}, "range": [floor, 1.02], "dtick": 0.1, "tickformat": ".1f",
               "fixedrange": True},
        legend=legend_above(),
    )  # fmt: skip
    margin = {"l": 54, "r": 12, "b": 46}
    return dress(
        figure,
        wide={"height": 320, "margin": {**margin, "t": 52}},
        narrow={"height": 380, "margin": {**margin, "t": 128}},
        narrow_below=640,
    )
