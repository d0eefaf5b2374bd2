"""Heads: a map of layer and head, refusal against heads switched off, what heads look at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.figures.style import (
    ANSWERS,
    KINDS,
    NEUTRAL,
    REFUSES,
    dress,
    faded,
    label_width,
    legend_above,
    plain,
)

if TYPE_CHECKING:
    from interp.heads import Attribution, HeadAttention, HeadSweep
    from probes.suppression import SuppressionHeads


def head_map(found: HeadSweep | Attribution, marked: Sequence[tuple[int, int]] = ()) -> Any:
    """Every head's mean effect (a sweep) or contribution (an attribution), layer by head.

    A cross marks a head whose 95 % interval holds 0, a ring the heads that are `marked`.
    """
    from interp.heads import HeadSweep

    table = found.to_frame()
    if isinstance(found, HeadSweep):
        return effect_map(table, len(found.prompts), "the metric gains, head changed", marked)
    return effect_map(table.rename(columns={"mean": "effect"}), len(found.prompts), "written along it", marked)


def effect_map(table: Any, n: int, unit: str, marked: Sequence[tuple[int, int]] = ()) -> Any:
    """The map from its table; see `head_map`.

    Args:
        table: pandas with `layer`, `head`, `effect`, `low`, `high`; rows without a head are left out.
        n: Prompts behind each mean.
        unit: What the effect is; title of the colour bar.
        marked: Heads (layer, head) to mark.
    """
    import plotly.graph_objects as go

    table = table[table["head"].notna()]
    layers, heads = int(table["layer"].max()) + 1, int(table["head"].max()) + 1
    grid = np.full((layers, heads), np.nan)
    spread = np.full((layers, heads, 2), np.nan)
    for row in table.itertuples():
        grid[int(row.layer), int(row.head)] = row.effect
        spread[int(row.layer), int(row.head)] = row.low, row.high
    size = float(np.nanmax(np.abs(grid))) or 1.0
    figure = go.Figure()
    figure.add_heatmap(
        z=[[None if math.isnan(v) else v for v in line] for line in grid], x=list(range(heads)), y=list(range(layers)),
        xgap=1.5, ygap=1.5, hoverongaps=False, coloraxis="coloraxis", customdata=spread.tolist(),
        hovertemplate=f"layer %{{y}}, head %{{x}}<br>{unit}: %{{z:.3g}} "
        f"[%{{customdata[0]:.3g}}, %{{customdata[1]:.3g}}]<br>n = {n}<extra></extra>",
    )  # fmt: skip
    unsure = [(layer, head) for layer in range(layers) for head in range(heads)
              if spread[layer, head, 0] <= 0 <= spread[layer, head, 1]]  # fmt: skip
    figure.add_scatter(
        x=[h for _, h in unsure], y=[layer for layer, _ in unsure], mode="markers", hoverinfo="skip",
        marker={"symbol": "x-thin", "size": 6, "line": {"width": 1.1, "color": NEUTRAL}},
    )  # fmt: skip
    for colour, width in (("#ffffff", 5.0), ("#15181c", 2.2)) if marked else ():
        figure.add_scatter(
            x=[h for _, h in marked], y=[layer for layer, _ in marked], mode="markers", hoverinfo="skip",
            cliponaxis=False,
            marker={"symbol": "circle-open", "size": 14, "color": colour, "line": {"width": width}},
        )  # fmt: skip
    step, step_y = max(1, math.ceil(heads / 16)), max(1, math.ceil(layers / 24))
    figure.update_layout(
        showlegend=False,
        coloraxis={"cmin": -size, "cmax": size,
                   "colorbar": {"thickness": 9, "outlinewidth": 0, "ticklen": 0, "nticks": 5, "xpad": 4,
                                "title": {"text": plain(unit), "side": "right", "font": {"size": 11.5}}}},
        xaxis={"title": {"text": "head"}, "tickvals": list(range(heads))[::step], "range": [-0.5, heads - 0.5],
               "showgrid": False, "fixedrange": True},
        yaxis={"title": {"text": "layer"}, "tickvals": list(range(layers))[::step_y], "range": [-0.5, layers - 0.5],
               "showgrid": False, "fixedrange": True},
    )  # fmt: skip
    look = {"height": max(200, 22 * layers) + 80, "margin": {"l": 50, "r": 74, "t": 16, "b": 46}}
    return dress(figure, wide=look, narrow=look, narrow_below=480, scales={"coloraxis": "diverging"})


def suppression_curve(found: SuppressionHeads) -> Any:
    """Refusal against the number of heads switched off, with random heads, harmless prompts and intervals."""
    drawn = [(len(p.heads), c.heads, c.rate.value, c.rate.n, c.times) for p in found.curve for c in p.controls]
    return refusal_by_heads(found.to_frame(), drawn, found.chosen)


def refusal_by_heads(table: Any, drawn: Sequence[tuple[int, Any, float, int, int]], chosen: int) -> Any:
    """The curve from its table; see `suppression_curve`.

    Args:
        table: `SuppressionHeads.to_frame()`.
        drawn: Random heads: how many, which, refusal without them, prompts, how often they were drawn.
        chosen: Number of heads to mark; 0 for none.
    """
    import plotly.graph_objects as go

    x = table["n_heads"].tolist()
    figure = go.Figure()
    lines = (("harmful", "harmful", "low", "high", REFUSES, "circle"),
             ("harmless", "harmless", "harmless_low", "harmless_high", ANSWERS, "square"))  # fmt: skip
    for name, column, low, high, colour, symbol in lines:
        figure.add_scatter(
            x=[*x, *x[::-1]], y=[*table[high], *table[low].tolist()[::-1]], fill="toself", mode="lines",
            line={"width": 0}, fillcolor=faded(colour, 0.18), showlegend=False, hoverinfo="skip",
        )  # fmt: skip
        figure.add_scatter(
            x=x, y=table[column].tolist(), mode="lines+markers", name=f"{name} prompts",
            line={"color": colour, "width": 2.2}, marker={"size": 7, "symbol": symbol},
            customdata=table[["added", low, high, "kl", "perplexity"]].to_numpy().tolist(),
            hovertemplate=f"{name}, %{{x}} heads off %{{customdata[0]}}<br>refused %{{y:.2f}} "
            "[%{customdata[1]:.2f}, %{customdata[2]:.2f}]<br>on harmless prompts: KL %{customdata[3]:.2g} nats, "
            "perplexity x %{customdata[4]:.3f}<extra></extra>",
        )  # fmt: skip
    dots = [one for one in drawn for _ in range(one[4])]
    wide = 0.12 * (x[-1] or 1) / max(1, len(x) - 1)
    jitter = np.random.default_rng(0).uniform(-wide, wide, len(dots))
    figure.add_scatter(
        x=[one[0] + j for one, j in zip(dots, jitter, strict=True)], y=[one[2] for one in dots], mode="markers",
        name="harmful, other heads drawn", marker={"size": 6, "color": KINDS[2], "opacity": 0.55},
        customdata=[[str([tuple(h) for h in one[1]]), one[3]] for one in dots],
        hovertemplate="%{customdata[0]}<br>refused %{y:.2f}, n = %{customdata[1]}<extra></extra>",
    )  # fmt: skip
    if chosen:
        mark = {"color": NEUTRAL, "width": 1.2, "dash": "dot"}
        figure.add_shape(type="line", x0=chosen, x1=chosen, y0=0, y1=1, line=mark)
    edge = max(0.3, 0.05 * x[-1])
    figure.update_layout(
        xaxis={"title": {"text": "heads switched off"}, "tickvals": x, "range": [-edge, x[-1] + edge],
               "showgrid": False, "fixedrange": True},
        yaxis={"title": {"text": "share refused"}, "range": [-0.03, 1.03], "dtick": 0.25, "tickformat": ".2f",
               "fixedrange": True},
        legend=legend_above(),
    )  # fmt: skip
    margin = {"l": 54, "r": 12, "b": 46}
    return dress(
        figure,
        wide={"height": 320, "margin": {**margin, "t": 52}},
        narrow={"height": 360, "margin": {**margin, "t": 100}},
        narrow_below=560,
    )


def attention_picture(found: HeadAttention, prompt: int | None = None) -> Any:
    """What heads look at: the mean weight of each part of the prompt, or every token of one prompt."""
    import plotly.graph_objects as go

    heads = [f"layer {layer}, head {head}" for layer, head in found.heads]
    if prompt is None:
        names, values = list(found.regions), found.by_region.mean(0).numpy()
        said = f"mean over {len(found.prompts)} prompts"
    else:
        names = [f"{i} {token!r}" for i, token in enumerate(found.tokens[prompt])]
        values, said = found.weights[prompt].numpy(), f"prompt {prompt}"
    labels = [plain(name) for name in names]
    figure = go.Figure()
    figure.add_heatmap(
        z=values.T.tolist(), x=heads, y=list(range(len(names))), xgap=1.5, ygap=1.5, coloraxis="coloraxis",
        customdata=[[label] * len(heads) for label in labels],
        hovertemplate=f"%{{x}}<br>%{{customdata}}<br>weight %{{z:.3f}} ({said})<extra></extra>",
    )  # fmt: skip
    figure.update_layout(
        showlegend=False,
        coloraxis={"cmin": 0, "cmax": max(1e-6, float(values.max())),
                   "colorbar": {"thickness": 9, "outlinewidth": 0, "ticklen": 0, "nticks": 5}},
        xaxis={"title": {"text": f"what is looked at from {plain(found.position)}, {said}"}, "showgrid": False,
               "fixedrange": True},
        yaxis={"tickvals": list(range(len(names))), "ticktext": labels, "range": [len(names) - 0.5, -0.5],
               "showgrid": False, "fixedrange": True},
    )  # fmt: skip
    look = {"height": 18 * len(names) + 90, "margin": {"l": label_width(labels), "r": 60, "t": 12, "b": 52}}
    return dress(figure, wide=look, narrow=look, narrow_below=480, scales={"coloraxis": "sequential"})
