"""What a repair picks, how it trains, and what it does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from probes.figures.style import ANSWERS, KINDS, NEUTRAL, REFUSES, dress, faded, legend_above, plain

_MARGIN = {"l": 58, "r": 14, "b": 48}
_RULES = ("cliff", "final", "keyword", "judge", "random", "all")
_LABELS = (("harmful", REFUSES), ("harmless", ANSWERS))


def misalignment_plane(judged: Any, picks: Any = None) -> Any:
    """Plateau against final score of unsafe answers; on the line, nothing fell.

    Args:
        judged: A `probes.CliffJudge`.
        picks: Picks of it, marked.
    """
    import plotly.graph_objects as go

    table = judged.table
    chosen = set() if picks is None else set(picks.table["trace"])
    figure = go.Figure()
    for name, mask, colour in (
        ("unsafe answers", ~table["trace"].isin(chosen), NEUTRAL), ("picked", table["trace"].isin(chosen), REFUSES),
    ):  # fmt: skip
        rows = table[mask]
        if not len(rows):
            continue
        figure.add_scatter(
            x=rows["plateau"].tolist(), y=rows["final"].tolist(), mode="markers", name=f"{name} ({len(rows)})",
            marker={"color": colour, "size": 7, "opacity": 0.65},
            customdata=[[plain(g), c] for g, c in zip(rows["group"], rows["cliff"], strict=True)],
            hovertemplate="%{customdata[0]}<br>plateau %{x:.2f}, final %{y:.2f}, misalignment %{customdata[1]:.2f}"
            "<extra></extra>",
        )  # fmt: skip
    ends = [float(min(table["plateau"].min(), table["final"].min())), float(table["plateau"].max())]
    figure.add_shape(
        type="line", x0=ends[0], y0=ends[0], x1=ends[1], y1=ends[1],
        line={"color": NEUTRAL, "width": 1.3, "dash": "dot"}, layer="below",
    )  # fmt: skip
    figure.update_layout(
        xaxis={"title": {"text": "plateau: refusal score late in the thought"}},
        yaxis={"title": {"text": "final: score before the answer"}}, legend=legend_above(),
    )  # fmt: skip
    return _dress(figure, 360)


def loss_curve(losses: Sequence[float]) -> Any:
    """The loss of every step."""
    import plotly.graph_objects as go

    steps = list(range(1, len(losses) + 1))
    figure = go.Figure(
        go.Scatter(x=steps, y=list(losses), mode="lines", line={"color": KINDS[2], "width": 2}, showlegend=False,
                   hovertemplate="step %{x}: %{y:.3f}<extra></extra>")
    )  # fmt: skip
    figure.update_layout(
        xaxis={"title": {"text": "step"}}, yaxis={"title": {"text": "loss, nats per token"}, "rangemode": "tozero"}
    )
    return _dress(figure, 240)


def repair_bars(effect: Any) -> Any:
    """Refusal after thinking before and after a repair, by label, with intervals.

    Args:
        effect: A `steering.RepairEffect`.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    for label, colour in _LABELS:
        rates = [getattr(effect, when)[label] for when in ("before", "after")]
        if not rates[0].n:
            continue
        figure.add_bar(
            x=["before", "after"], y=[r.value for r in rates], name=f"{label} prompts", marker={"color": colour},
            error_y={
                "type": "data", "symmetric": False, "color": NEUTRAL,
                "array": [r.interval[1] - r.value for r in rates],
                "arrayminus": [r.value - r.interval[0] for r in rates],
            },
            customdata=[r.n for r in rates],
            hovertemplate=f"{label}, %{{x}}: refused %{{y:.3f}}, n = %{{customdata}}<extra></extra>",
        )  # fmt: skip
    figure.update_layout(
        barmode="group", bargap=0.45, legend=legend_above(), xaxis={"showgrid": False, "fixedrange": True},
        yaxis={"title": {"text": "refused after thinking"}, "range": [0, 1.04], "fixedrange": True},
    )  # fmt: skip
    return _dress(figure, 300)


def repair_lines(table: Any) -> Any:
    """Harmful refusal against the number of examples, a line per rule with its interval; harmless ones dotted below.

    Args:
        table: A `steering.RepairTable`.
    """
    import plotly.graph_objects as go

    frame = table.table
    figure = go.Figure()
    for rule in [r for r in _RULES if r in set(frame["rule"])]:
        rows = frame[frame["rule"] == rule].sort_values("n")
        colour = KINDS[_RULES.index(rule) % len(KINDS)]
        x, hover = rows["n"].tolist(), rows[["low", "high", "seeds"]].to_numpy().tolist()
        if len(rows) > 1:
            figure.add_scatter(
                x=[*x, *x[::-1]], y=[*rows["high"], *rows["low"].tolist()[::-1]], fill="toself", mode="lines",
                line={"width": 0}, fillcolor=faded(colour, 0.12), showlegend=False, hoverinfo="skip",
            )  # fmt: skip
        figure.add_scatter(
            x=x, y=rows["harmful"].tolist(), mode="lines+markers", name=rule, line={"color": colour, "width": 2},
            marker={"size": 7}, customdata=hover,
            hovertemplate=f"{rule}, %{{x}} examples<br>harmful refused %{{y:.3f}} [%{{customdata[0]:.3f}}, "
            "%{customdata[1]:.3f}], %{customdata[2]} seeds<extra></extra>",
        )  # fmt: skip
        figure.add_scatter(
            x=x, y=rows["harmless"].tolist(), mode="lines+markers", showlegend=False,
            line={"color": colour, "width": 1.2, "dash": "dot"}, marker={"size": 4},
            hovertemplate=f"{rule}, %{{x}} examples<br>harmless refused %{{y:.3f}}<extra></extra>",
        )  # fmt: skip
    figure.update_layout(
        xaxis={"title": {"text": "examples repaired on"}, "type": "log"},
        yaxis={"title": {"text": "refused (dotted: harmless)"}, "range": [-0.03, 1.04], "fixedrange": True},
        legend=legend_above(),
    )
    return _dress(figure, 360)


def _dress(figure: Any, height: int) -> Any:
    look = {"height": height, "margin": {**_MARGIN, "t": 44}}
    return dress(figure, wide=look, narrow={"height": height + 30, "margin": {**_MARGIN, "t": 74}}, narrow_below=480)
