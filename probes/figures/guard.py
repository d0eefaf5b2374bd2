"""Figures of the latent guard: ROC, reliability, flags beside the baselines, scores by token, learning curves."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.figures.style import (
    ANSWERS,
    KINDS,
    NEUTRAL,
    REFUSES,
    axis_names,
    dress,
    faded,
    fraction,
    label_width,
    legend_above,
    panel_title,
    place,
    plain,
    rows_of,
)

if TYPE_CHECKING:
    from probes.guard.baselines import LearningCurve
    from probes.guard.guard import LatentGuard
    from probes.guard.report import GuardReport
    from probes.guard.scores import GuardScores
    from probes.guard.stream import Watched

_UNIT = {"range": [-0.02, 1.02], "tickvals": [0, 0.25, 0.5, 0.75, 1], "fixedrange": True}
_DASHES = ("solid", "dash", "dashdot", "dot", "longdash")


def roc_curves(report: GuardReport) -> Any:
    """ROC of every detector, a panel per set that has both classes; the grey diagonal is chance.

    Args:
        report: The evaluation.
    """
    import plotly.graph_objects as go

    from probes.guard.metrics import roc
    from probes.guard.report import GUARD

    sets = {name: s for name, s in report.scored.items() if s.labels.any() and not s.labels.all()}
    figure = go.Figure()
    for i, (name, scored) in enumerate(sets.items()):
        n = "" if i == 0 else i + 1
        at: dict[str, Any] = {"xaxis": f"x{n}", "yaxis": f"y{n}"}
        figure.add_scatter(
            x=[0, 1], y=[0, 1], mode="lines", line={"color": NEUTRAL, "width": 1.2, "dash": "dot"}, hoverinfo="skip",
            name="chance", showlegend=i == 0, legendgroup="chance", **at,
        )  # fmt: skip
        curves = {GUARD: scored.guard.score, **{d: s for d, (s, _) in scored.others.items()}}
        for j, (detector, scores) in enumerate(curves.items()):
            fpr, tpr = roc(scores, scored.labels)
            row = report.row(name, detector)
            figure.add_scatter(
                x=fpr.tolist(), y=tpr.tolist(), mode="lines", name=plain(detector), legendgroup=detector,
                showlegend=i == 0, line={"color": _colour(j), "width": 2.4 if j == 0 else 1.7,
                                         "dash": _DASHES[j % len(_DASHES)]},
                hovertemplate=f"{plain(detector)}<br>AUROC {fraction(row['auroc'])} [{fraction(row['auroc_low'])}, "
                f"{fraction(row['auroc_high'])}]<br>false positives %{{x:.3f}}, recall %{{y:.3f}}<extra></extra>",
                **at,
            )  # fmt: skip
        figure.layout[f"xaxis{n}"] = {**_UNIT, "title": {"text": "false-positive rate"}}
        figure.layout[f"yaxis{n}"] = {**_UNIT, "title": {"text": "recall"}}
        own = report.row(name)
        figure.add_annotation(panel_title(f"<b>{plain(name)}</b>: AUROC {fraction(own['auroc'])}", i))
    return _panels(figure, len(sets), 300)


def reliability_curves(report: GuardReport) -> Any:
    """Observed frequency of harm by the guard's probability, a panel per set, with Wilson intervals and sizes.

    Args:
        report: The evaluation.
    """
    import plotly.graph_objects as go

    table, figure = report.reliability(), go.Figure()
    for i, name in enumerate(report.scored):
        n = "" if i == 0 else i + 1
        at: dict[str, Any] = {"xaxis": f"x{n}", "yaxis": f"y{n}"}
        rows = table[table["set"] == name]
        figure.add_scatter(
            x=[0, 1], y=[0, 1], mode="lines", line={"color": NEUTRAL, "width": 1.2, "dash": "dot"}, hoverinfo="skip",
            name="well calibrated", showlegend=i == 0, legendgroup="diagonal", **at,
        )  # fmt: skip
        share = np.sqrt(rows["n"].to_numpy() / max(1, int(rows["n"].max())))
        figure.add_scatter(
            x=rows["mean"].tolist(), y=rows["rate"].tolist(), mode="markers+lines", name="latent guard",
            showlegend=i == 0, legendgroup="guard", line={"color": faded(KINDS[0], 0.5), "width": 1.4},
            marker={"color": KINDS[0], "size": (6 + 10 * share).tolist()},
            error_y={"type": "data", "symmetric": False, "color": faded(KINDS[0], 0.6), "thickness": 1.4, "width": 3,
                     "array": (rows["rate_high"] - rows["rate"]).tolist(),
                     "arrayminus": (rows["rate"] - rows["rate_low"]).tolist()},
            customdata=rows[["k", "n"]].to_numpy().tolist(),
            hovertemplate="probability %{x:.2f}<br>harmful %{customdata[0]} of %{customdata[1]} (%{y:.2f})"
            "<extra></extra>",
            **at,
        )  # fmt: skip
        figure.layout[f"xaxis{n}"] = {**_UNIT, "title": {"text": "probability of harm"}}
        figure.layout[f"yaxis{n}"] = {**_UNIT, "title": {"text": "share harmful"}}
        figure.add_annotation(panel_title(f"<b>{plain(name)}</b>: ECE {fraction(report.row(name)['ece'])}", i))
    return _panels(figure, len(report.scored), 300)


def flag_bars(report: GuardReport) -> Any:
    """Share of harmful and of harmless prompts that each detector flags at its own threshold, a panel per set.

    Args:
        report: The evaluation.
    """
    import plotly.graph_objects as go

    figure, sets = go.Figure(), list(report.scored)
    names = [plain(d) for d in dict.fromkeys(report.table["detector"])]
    for i, name in enumerate(sets):
        n = "" if i == 0 else i + 1
        rows = report.table[report.table["set"] == name]
        for side, colour in (("harmful", REFUSES), ("harmless", ANSWERS)):
            value, low, high = (rows[f"flagged_{side}{end}"].to_numpy() for end in ("", "_low", "_high"))
            figure.add_bar(
                x=[_number(v) for v in value], y=names, orientation="h", name=f"{side} prompts flagged",
                legendgroup=side, showlegend=i == 0, marker={"color": colour}, xaxis=f"x{n}", yaxis=f"y{n}",
                error_x={"type": "data", "symmetric": False, "color": NEUTRAL, "thickness": 1.4, "width": 3,
                         "array": [_number(v) for v in high - value], "arrayminus": [_number(v) for v in value - low]},
                customdata=rows[[f"flagged_{side}_k", f"flagged_{side}_n"]].to_numpy().tolist(),
                hovertemplate=f"%{{y}}<br>{side}: flagged %{{customdata[0]}} of %{{customdata[1]}} (%{{x:.2f}})"
                "<extra></extra>",
            )  # fmt: skip
        figure.layout[f"xaxis{n}"] = dict(_UNIT)
        figure.layout[f"yaxis{n}"] = {"autorange": "reversed", "showgrid": False, "fixedrange": True}
        figure.add_annotation(panel_title(f"<b>{plain(name)}</b>", i))
    figure.update_layout(barmode="group", bargap=0.25, legend=legend_above())
    heights = [34 * len(names) + 20] * len(sets)
    domains, total = rows_of(heights, 58)
    patch: dict[str, Any] = {"margin": {"l": label_width(names), "r": 16, "t": 76, "b": 30}, "height": total + 106}
    for axes, domain in zip(axis_names(len(sets)), domains, strict=True):
        patch |= place(axes, [0, 1], domain)
    return dress(figure, wide=patch, narrow=patch, narrow_below=640)


def token_scores(watched: Watched) -> Any:
    """Score by generated token, one thin line per answer, the mean of each class over it, and the threshold.

    Args:
        watched: Answers that were written under a guard.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    table = watched.to_frame()
    labels = [c.prompt.label or "prompt" for c in watched.generations]
    colours = dict(zip(sorted(set(labels)), (REFUSES, ANSWERS, *KINDS[2:]), strict=False))
    thin = max(0.08, min(0.5, 12 / max(1, len(labels))))
    for i, (label, scores, tokens) in enumerate(zip(labels, watched.scores, watched.tokens, strict=True)):
        stopped = watched.generations[i].stopped is not None
        figure.add_scatter(
            x=tokens.tolist(), y=scores.tolist(), mode="lines", line={"color": faded(colours[label], thin), "width": 1},
            showlegend=False,
            hovertemplate=f"{plain(watched.generations[i].prompt.text[:80])}<br>"
            "token %{x}: %{y:.2f}<extra></extra>",
        )  # fmt: skip
        if stopped and len(tokens):
            figure.add_scatter(
                x=[int(tokens[-1])], y=[float(scores[-1])], mode="markers", showlegend=False, hoverinfo="skip",
                marker={"symbol": "x", "size": 8, "color": colours[label]},
            )  # fmt: skip
    for label in sorted(set(labels)) if len(table) else ():
        mean = table[table["label"].fillna("prompt") == label].groupby("token")["score"].mean()
        figure.add_scatter(
            x=[int(t) for t in mean.index], y=mean.tolist(), mode="lines+markers", name=f"{plain(label)}, mean",
            line={"color": colours[label], "width": 2.4}, marker={"size": 5},
        )  # fmt: skip
    last = int(table["token"].max()) if len(table) else 1
    figure.add_scatter(
        x=[1, last], y=[watched.threshold] * 2, mode="lines", name="threshold", hoverinfo="skip",
        line={"color": NEUTRAL, "width": 1.6, "dash": "dash"},
    )  # fmt: skip
    figure.update_layout(
        xaxis={"title": {"text": "generated token"}, "fixedrange": True, "showgrid": False},
        yaxis={"title": {"text": "guard score"}, "fixedrange": True}, legend=legend_above(),
    )  # fmt: skip
    return _single(figure, 340)


def learning_curves(curve: LearningCurve) -> Any:
    """AUROC by the number of labelled prompts, one line with its interval per detector; the dotted line is chance.

    Args:
        curve: The learning curve.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    for i, (name, rows) in enumerate(curve.table.groupby("detector", sort=False)):
        x, colour = rows["n"].tolist(), _colour(i)
        figure.add_scatter(
            x=[*x, *x[::-1]], y=[*rows["high"].tolist(), *rows["low"].tolist()[::-1]], fill="toself", mode="lines",
            line={"width": 0}, fillcolor=faded(colour, 0.16), showlegend=False, hoverinfo="skip",
        )  # fmt: skip
        figure.add_scatter(
            x=x, y=rows["auroc"].tolist(), mode="lines+markers", name=plain(name), marker={"size": 6},
            line={"color": colour, "width": 2.2, "dash": _DASHES[i % len(_DASHES)]},
            customdata=rows[["low", "high"]].to_numpy().tolist(),
            hovertemplate=f"{plain(name)}, %{{x}} labels<br>AUROC %{{y:.2f}} [%{{customdata[0]:.2f}}, "
            "%{customdata[1]:.2f}]<extra></extra>",
        )  # fmt: skip
    sizes = sorted(set(curve.table["n"]))
    figure.add_scatter(
        x=[sizes[0], sizes[-1]], y=[0.5, 0.5], mode="lines", name="chance", hoverinfo="skip",
        line={"color": NEUTRAL, "width": 1.2, "dash": "dot"},
    )  # fmt: skip
    floor = math.floor(10 * min(0.45, *curve.table["low"].fillna(0.45))) / 10
    figure.update_layout(
        xaxis={"title": {"text": "labelled prompts"}, "type": "log", "tickvals": sizes, "fixedrange": True,
               "showgrid": False},
        yaxis={"title": {"text": "AUROC"}, "range": [floor, 1.02], "fixedrange": True}, legend=legend_above(),
    )  # fmt: skip
    return _single(figure, 340)


def score_strip(scores: GuardScores) -> Any:
    """Scores by label, one dot per prompt, and the threshold.

    Args:
        scores: The scores.
    """
    labels = np.array([p.label or "prompts" for p in scores.prompts])
    return _strip(scores.score, labels, scores.threshold, [p.text for p in scores.prompts])


def held_out_strip(guard: LatentGuard) -> Any:
    """The scores of the prompts that calibration and threshold were set on.

    Args:
        guard: The guard.
    """
    labels = np.where(guard.held_out_labels, "harmful", "harmless")
    return _strip(guard.held_out_scores, labels, guard.threshold, None)


def _strip(scores: Any, labels: Any, threshold: float, texts: list[str] | None) -> Any:
    import plotly.graph_objects as go

    figure = go.Figure()
    kinds = sorted({str(label) for label in labels})
    jitter = np.random.default_rng(0).uniform(-0.3, 0.3, len(scores))
    for i, kind in enumerate(kinds):
        rows = np.flatnonzero(labels == kind)
        colour = {"harmful": REFUSES, "harmless": ANSWERS}.get(kind, KINDS[(2 + i) % len(KINDS)])
        figure.add_scatter(
            x=scores[rows].tolist(), y=(i + jitter[rows]).tolist(), mode="markers", showlegend=False,
            marker={"color": faded(colour, 0.55), "size": 6},
            text=[plain(texts[r][:80]) for r in rows] if texts else None,
            hovertemplate="%{text}<br>score %{x:.3f}<extra></extra>" if texts else "score %{x:.3f}<extra></extra>",
        )  # fmt: skip
    figure.add_shape(
        type="line", x0=threshold, x1=threshold, y0=-0.5, y1=len(kinds) - 0.5,
        line={"color": NEUTRAL, "width": 1.6, "dash": "dash"},
    )  # fmt: skip
    figure.add_annotation(
        text=f"threshold {threshold:.3g}", x=threshold, y=len(kinds) - 0.5, yanchor="bottom", showarrow=False
    )
    figure.update_layout(
        xaxis={"title": {"text": "guard score"}, "fixedrange": True},
        yaxis={"tickvals": list(range(len(kinds))), "ticktext": [plain(k) for k in kinds], "showgrid": False,
               "range": [-0.6, len(kinds) - 0.4], "fixedrange": True},
    )  # fmt: skip
    patch = {"height": 90 + 80 * len(kinds), "margin": {"l": label_width(kinds), "r": 16, "t": 34, "b": 46}}
    return dress(figure, wide=patch, narrow=patch, narrow_below=480)


def _panels(figure: Any, n: int, side: int) -> Any:
    """Square-ish panels, three abreast on a wide page, one below the other on a narrow one."""
    figure.update_layout(legend=legend_above())
    across = min(3, max(1, n))
    rows = math.ceil(max(1, n) / across)
    domains, total = rows_of([side] * rows, 92)
    wide: dict[str, Any] = {"height": total + 122, "margin": {"l": 54, "r": 16, "t": 74, "b": 48}}
    gap = 0.1
    width = (1 - gap * (across - 1)) / across
    for i, axes in enumerate(axis_names(n)):
        start = (i % across) * (width + gap)
        wide |= place(axes, [round(start, 4), round(min(1.0, start + width), 4)], domains[i // across])
    domains, total = rows_of([side] * max(1, n), 92)
    narrow: dict[str, Any] = {"height": total + 190, "margin": {"l": 54, "r": 16, "t": 142, "b": 48}}
    for axes, domain in zip(axis_names(n), domains, strict=False):
        narrow |= place(axes, [0, 1], domain)
    return dress(figure, wide=wide, narrow=narrow, narrow_below=700)


def _single(figure: Any, height: int) -> Any:
    margin = {"l": 54, "r": 12, "b": 46}
    return dress(
        figure, wide={"height": height, "margin": {**margin, "t": 52}},
        narrow={"height": height + 60, "margin": {**margin, "t": 112}}, narrow_below=640,
    )  # fmt: skip


def _colour(i: int) -> str:
    return KINDS[0] if i == 0 else (KINDS[1], KINDS[4], KINDS[2], KINDS[3], KINDS[5])[(i - 1) % 5]


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
