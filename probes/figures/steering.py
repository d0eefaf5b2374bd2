"""Steering in pictures: the dose-response curve of a vector, and how a vector was trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

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
)

if TYPE_CHECKING:
    # The room above gives its results by their shape, and is not imported.
    from typing import Protocol

    class _Calibration(Protocol):
        @property
        def strength(self) -> float | None: ...
        @property
        def reason(self) -> str: ...
        @property
        def target(self) -> Mapping[str, Any]: ...
        def to_frame(self) -> Any: ...

    class _Trained(Protocol):
        @property
        def history(self) -> Any: ...
        @property
        def max_kl(self) -> float: ...


_PANEL = 150.0
_GAP = 62.0
_NARROW_TOP = 134
_SMALL = 1e-4
"""KL below this is drawn at the floor of a logarithmic axis."""


def dose_response(found: _Calibration) -> Any:
    """Refusal, KL, perplexity and repetition over strength; random vectors of the same norms dotted.

    They are in a paler tone of the curve that they stand beside. Dashed: the chosen strength, and the target.

    Args:
        found: The calibration.
    """
    import plotly.graph_objects as go

    table = found.to_frame()
    own = table[table["arm"].isin(["plain", "vector"])].sort_values("strength")
    randoms = table[table["arm"].astype(str).str.startswith("random")]
    panels: list[tuple[str, tuple[tuple[str, str, str], ...]]] = [
        ("refused", tuple((f"refused_{label}", label, colour) for label, colour in
                          (("harmful", REFUSES), ("harmless", ANSWERS)) if f"refused_{label}" in table)),
        ("KL on harmless prompts, nats per token", (("kl", "KL", KINDS[3]),)),
        ("perplexity of plain answers, times its own", (("perplexity", "perplexity", KINDS[2]),)),
        ("repeated 4-grams", (("repetition", "repetition", KINDS[4]),)),
    ]  # fmt: skip
    figure = go.Figure()
    for i, (title, curves) in enumerate(panels):
        n = "" if i == 0 else i + 1
        at: dict[str, Any] = {"xaxis": f"x{n}", "yaxis": f"y{n}"}
        for column, name, colour in curves:
            for j, (arm, rows) in enumerate(randoms.groupby("arm")):
                figure.add_scatter(
                    x=rows["strength"].tolist(), y=_shown(rows[column], i), mode="lines+markers",
                    name=f"random vectors, {plain(name)}", legendgroup=f"random {name}", showlegend=i == 0 and j == 0,
                    line={"color": faded(colour, 0.8), "width": 1.3, "dash": "dot"}, marker={"size": 4},
                    hovertemplate=f"{plain(arm)}, {plain(name)}<br>strength %{{x:.3g}}: %{{y:.3g}}<extra></extra>",
                    **at,
                )  # fmt: skip
            x, y = own["strength"].tolist(), _shown(own[column], i)
            if f"{column}_low" in own:
                low, high = (_shown(own[f"{column}_{end}"], i) for end in ("low", "high"))
                figure.add_scatter(
                    x=[*x, *x[::-1]], y=[*high, *low[::-1]], fill="toself", mode="lines", line={"width": 0},
                    fillcolor=faded(colour, 0.18), showlegend=False, hoverinfo="skip", **at,
                )  # fmt: skip
            figure.add_scatter(
                x=x, y=y, mode="lines+markers", name=plain(name), showlegend=i == 0,
                line={"color": colour, "width": 2.2}, marker={"size": 6},
                hovertemplate=f"{plain(name)}<br>strength %{{x:.3g}}: %{{y:.3g}}<extra></extra>", **at,
            )  # fmt: skip
        figure.add_annotation(panel_title(title, i))
        if found.strength is not None:
            figure.add_shape(
                type="line", x0=found.strength, x1=found.strength, y0=0, y1=1, xref=f"x{n}", yref=f"y{n} domain",
                line={"color": NEUTRAL, "width": 1.4, "dash": "dash"},
            )  # fmt: skip
    for key, n in (("refused", ""), ("kl", 2)):
        if (target := found.target.get(key)) is not None:
            on = {"harmful": REFUSES, "harmless": ANSWERS}.get(found.target.get("on", ""), KINDS[3])
            figure.add_shape(type="line", x0=0, x1=1, xref=f"x{n} domain", y0=target, y1=target, yref=f"y{n}",
                             line={"color": on, "width": 1.2, "dash": "dash"})  # fmt: skip
    last = f"xaxis{len(panels)}"
    for i in range(len(panels)):
        n = "" if i == 0 else i + 1
        figure.layout[f"xaxis{n}"] = {"fixedrange": True, "showticklabels": f"xaxis{n}" == last, "rangemode": "tozero"}
        figure.layout[f"yaxis{n}"] = {"fixedrange": True}
    figure.layout[last].update(title={"text": "strength"})
    figure.layout["yaxis"].update(range=[-0.03, 1.03])
    for axis in ("yaxis2", "yaxis3"):
        figure.layout[axis].update(type="log", exponentformat="none")  # else 0.0001 is written as 100 millionths
    figure.layout["yaxis4"].update(rangemode="tozero")
    figure.update_layout(legend=legend_above())
    return dress(figure, wide=_stacked(len(panels)), narrow=_stacked(len(panels), _NARROW_TOP), narrow_below=640)


def refusal_by_strength(table: Any) -> Any:
    """Refusals, partial answers and repeated 4-grams over strength, the plain model at 0, for each class of prompts.

    Args:
        table: pandas, with `arm`, `strength`, `prompts`, `refused`, `low`, `high`, `k`, `n`, `partial` and `repeated`;
            the arm of random vectors begins with `random` and is drawn dotted, and arms other than these, `plain` and
            `vector` are drawn dashed.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    colours = {"harmful": REFUSES, "harmless": ANSWERS}
    panels = (("refused", "refused"), ("partly", "partial: in part a refusal, in part an answer"),
              ("repeated", "repeated 4-grams"))  # fmt: skip
    table = table.assign(partly=table["partial"] / table["n"])
    for i, (column, title) in enumerate(panels):
        n = "" if i == 0 else i + 1
        at: dict[str, Any] = {"xaxis": f"x{n}", "yaxis": f"y{n}"}
        for j, name in enumerate(dict.fromkeys(table["prompts"])):
            own = table[table["prompts"] == name]
            colour = colours.get(name, KINDS[2 + j % (len(KINDS) - 2)])
            beside = [arm for arm in dict.fromkeys(own["arm"]) if arm not in ("plain", "vector")]
            for arm in beside:
                random = str(arm).startswith("random")
                line = {"color": faded(colour, 0.8), "width": 1.3, "dash": "dot" if random else "dash"}
                label = f"{'random vectors' if random else arm}, {name}"
                rows = own[own["arm"].isin(["plain", arm])]
                figure.add_scatter(
                    **_over_strength(rows, label, column), line=line, marker={"size": 4}, legendgroup=label,
                    showlegend=i == 0 and (not random or arm == beside[0]), **at,
                )  # fmt: skip
            curve = own[own["arm"].isin(["plain", "vector"])].sort_values("strength")
            if column == "refused":
                x = curve["strength"].tolist()
                figure.add_scatter(
                    x=[*x, *x[::-1]], y=[*curve["high"], *curve["low"][::-1]], fill="toself", mode="lines",
                    line={"width": 0}, fillcolor=faded(colour, 0.18), showlegend=False, hoverinfo="skip", **at,
                )  # fmt: skip
            figure.add_scatter(**_over_strength(curve, name, column), line={"color": colour, "width": 2.2},
                               marker={"size": 6}, legendgroup=name, showlegend=i == 0, **at)  # fmt: skip
        figure.add_annotation(panel_title(title, i))
        figure.layout[f"xaxis{n}"] = {"fixedrange": True, "showticklabels": i == len(panels) - 1}
        figure.layout[f"yaxis{n}"] = {"fixedrange": True, "range": [-0.03, 1.03]}
    figure.layout[f"xaxis{len(panels)}"].update(title={"text": "strength"})
    figure.update_layout(legend=legend_above())
    return dress(figure, wide=_stacked(len(panels)), narrow=_stacked(len(panels), _NARROW_TOP), narrow_below=640)


def _over_strength(rows: Any, name: str, column: str) -> dict[str, Any]:
    """A line of shares over strength."""
    ordered = rows.sort_values("strength")
    said = {"refused": "refused %{customdata[0]} of %{customdata[1]}", "repeated": "repeated 4-grams %{y:.2f}",
            "partly": "partial %{customdata[2]} of %{customdata[1]}"}[column]  # fmt: skip
    return {
        "x": ordered["strength"].tolist(), "y": ordered[column].tolist(), "mode": "lines+markers",
        "name": plain(name), "customdata": ordered[["k", "n", "partial"]].to_numpy().tolist(),
        "hovertemplate": f"{plain(name)}<br>strength %{{x:.3g}}: {said}<extra></extra>",
    }  # fmt: skip


def training_lines(found: _Trained) -> Any:
    """Loss of the wanted answers, and KL on harmless ones with what the leash holds, step by step.

    Args:
        found: The trained vector.
    """
    import plotly.graph_objects as go

    history = found.history
    steps = list(range(1, len(history) + 1))
    figure = go.Figure()
    for i, (column, title, colour) in enumerate(
        (("nll", "wanted answers: loss, nats per token", REFUSES), ("kl", "harmless answers: KL, nats per token",
                                                                   ANSWERS))
    ):  # fmt: skip
        n = "" if i == 0 else i + 1
        figure.add_scatter(
            x=steps, y=history[column].tolist(), mode="lines", line={"color": colour, "width": 1.8}, showlegend=False,
            xaxis=f"x{n}", yaxis=f"y{n}", hovertemplate="step %{x}: %{y:.3g}<extra></extra>",
        )  # fmt: skip
        figure.add_annotation(panel_title(title, i))
        figure.layout[f"xaxis{n}"] = {"fixedrange": True, "showticklabels": i == 1}
        figure.layout[f"yaxis{n}"] = {"fixedrange": True, "rangemode": "tozero"}
    figure.add_shape(type="line", x0=0, x1=1, xref="x2 domain", y0=found.max_kl, y1=found.max_kl, yref="y2",
                     line={"color": NEUTRAL, "width": 1.4, "dash": "dash"})  # fmt: skip
    figure.layout["xaxis2"].update(title={"text": "step"})
    stacked = _stacked(2)
    return dress(figure, wide=stacked, narrow=stacked, narrow_below=640)


def _shown(values: Any, panel: int) -> list[float | None]:
    """Values as a panel draws them: those of a logarithmic one not below its floor."""
    numbers = [None if v is None or not math.isfinite(v) else float(v) for v in values.tolist()]
    return [v if v is None or panel != 1 else max(v, _SMALL) for v in numbers]


def _stacked(n: int, top: int = 74) -> dict[str, Any]:
    """Panels below each other; the legend of long names takes more rows on a narrow page."""
    domains, total = rows_of([_PANEL] * n, _GAP)
    patch: dict[str, Any] = {"height": total + top + 56, "margin": {"l": 64, "r": 14, "t": top, "b": 52}}
    for axes, domain in zip(axis_names(n), domains, strict=True):
        patch |= place(axes, [0, 1], domain)
    return patch
