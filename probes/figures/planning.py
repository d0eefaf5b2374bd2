"""Response planning in pictures: by layer, along what is written, across models, and under a dose."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from probes.figures.style import KINDS, NEUTRAL, dress, faded, fraction, legend_above, plain
from probes.planning.baselines import ASKED, EMBEDDING, FIRST, LENGTH, LENGTH_SO_FAR, SHUFFLED, WORDS, WORDS_SO_FAR
from probes.planning.examples import PROMPT, THOUGHT
from probes.planning.scoring import NAMES

if TYPE_CHECKING:
    from probes.planning.fitted import PlanFit
    from probes.planning.transfers import PlanTransfer

PROBE, _MLP, _RANDOM = KINDS[0], KINDS[3], NEUTRAL
LOOK = {
    FIRST: (KINDS[1], "dash"), WORDS: (KINDS[4], "dash"), EMBEDDING: (KINDS[2], "dash"), LENGTH: (KINDS[5], "dashdot"),
    ASKED: (KINDS[3], "dot"), SHUFFLED: (NEUTRAL, "dash"), WORDS_SO_FAR: (KINDS[4], "dot"),
    LENGTH_SO_FAR: (KINDS[5], "dot"),
}  # fmt: skip
_TITLES = {"linear": "linear probe", "mlp": "probe with a hidden layer"}


def plan_layers(fit: PlanFit) -> Any:
    """Score at the last prompt token by layer, with what foretells the attribute without looking inside.

    Lines with 95 % bands: probes, at each layer the mean over seeds. Named lines at the right: baselines; the band is
    that of the best of them. Each seed chooses a layer of its own on validation rows: rings mark these layers, at the
    height of the score that the verdict rests on, which need not be on the line.

    Args:
        fit: The fit.
    """
    import plotly.graph_objects as go

    layers = sorted(fit.examples.layers)
    table = fit.scores[fit.scores["position"] == PROMPT].sort_values("layer", kind="stable")
    figure = go.Figure()
    low, high = layers[0], layers[-1]
    pad = max(0.3, 0.03 * (high - low))
    labels = _baseline_lines(figure, fit, [low - pad, high + pad])
    for kind, rows in table.groupby("probe", sort=False):
        colour = PROBE if kind == fit.kinds[0] else _MLP
        _line(figure, rows["layer"].tolist(), rows, colour, _TITLES[str(kind)], "layer %{x}")
    figure.add_scatter(**score_rings(fit.layers, fit.comparisons.probe[PROMPT].value), name="the score that counts")
    step = max(1, math.ceil(len(layers) / 14))
    figure.update_layout(
        xaxis={"title": {"text": "layer (after the block), last prompt token"}, "range": [low - pad, high + pad],
               "tickvals": layers[::step], "showgrid": False, "fixedrange": True},
        yaxis=_score_axis(fit, table), legend=legend_above(),
    )  # fmt: skip
    return _finish(figure, labels)


def score_rings(chosen: Sequence[int], value: float) -> dict[str, Any]:
    """A ring at every layer that a seed chose, all at the one score that they make together."""
    counts = Counter(chosen)
    layers = sorted(counts)
    seeds = f" by %{{customdata}} of {len(chosen)} seeds" if len(chosen) > 1 else ""
    return {
        "x": layers, "y": [value] * len(layers), "mode": "lines+markers", "cliponaxis": False,
        "customdata": [counts[layer] for layer in layers],
        "line": {"color": PROBE, "width": 1.2, "dash": "dot"},
        "marker": {"symbol": "circle-open", "size": 14, "color": PROBE, "line": {"width": 2}},
        "hovertemplate": f"layer %{{x}}, chosen on validation{seeds}<br>the score that counts: %{{y:.2f}}"
        "<extra></extra>",
    }  # fmt: skip


def plan_along(fit: PlanFit) -> Any:
    """Score at the last prompt token and along what is written, with the baselines.

    Each point is the probe of the layer that validation rows chose there. The ring marks where it first exceeds every
    baseline of the prompt (Holm-corrected); dotted lines are baselines that read what was written by then.

    Args:
        fit: A fit with segments.
    """
    import plotly.graph_objects as go

    table = fit.curve.table
    x = list(range(len(table)))
    figure = go.Figure()
    labels = _baseline_lines(figure, fit, [-0.4, len(x) - 0.6])
    for name in (WORDS_SO_FAR, LENGTH_SO_FAR):
        rows = fit.baselines[(fit.baselines["baseline"] == name) & (fit.baselines["metric"] == fit.metric)]
        if len(rows):
            at = [table["position"].tolist().index(p) for p in rows["position"]]
            colour, dash = LOOK[name]
            figure.add_scatter(
                x=at, y=rows["value"].tolist(), mode="lines+markers", name=name, marker={"size": 4},
                line={"color": colour, "width": 1.6, "dash": dash},
                hovertemplate=f"{name}<br>%{{y:.2f}}<extra></extra>",
            )  # fmt: skip
    _line(figure, x, table, PROBE, _TITLES[fit.kinds[0]], "%{customdata[2]}")
    thought = [i for i, region in enumerate(table["region"]) if region == THOUGHT]
    if thought:
        figure.add_shape(
            type="rect", x0=thought[0] - 0.5, x1=thought[-1] + 0.5, y0=0, y1=1, yref="y domain", layer="below",
            line={"width": 0}, fillcolor=faded(NEUTRAL, 0.12),
        )  # fmt: skip
        figure.add_annotation(
            text="thought", x=(thought[0] + thought[-1]) / 2, y=0, yref="y domain", yanchor="bottom", showarrow=False,
            font={"size": 11.5},
        )  # fmt: skip
    if fit.curve.first is not None:
        i = table["position"].tolist().index(fit.curve.first)
        figure.add_scatter(
            x=[i], y=[table["value"].iloc[i]], mode="markers", name="first above every baseline", hoverinfo="skip",
            cliponaxis=False,
            marker={"symbol": "circle-open", "size": 14, "color": PROBE, "line": {"width": 2}},
        )  # fmt: skip
    figure.update_layout(
        xaxis={"tickvals": x, "ticktext": [plain(p) for p in table["position"]], "range": [-0.4, len(x) - 0.6],
               "showgrid": False, "fixedrange": True, "tickangle": -35 if len(x) > 4 else 0},
        yaxis=_score_axis(fit, table), legend=legend_above(),
    )  # fmt: skip
    return _finish(figure, labels, bottom=88)


def plan_scaling(fits: Mapping[str, PlanFit], sizes: Mapping[str, float] | None = None) -> Any:
    """Score at the last prompt token of several models on one attribute, each with its best baseline.

    Args:
        fits: By model, in the order of the family.
        sizes: Parameters of each; the axis then is their logarithm.
    """
    import plotly.graph_objects as go

    names = list(fits)
    metric = next(iter(fits.values())).metric
    x: list[float] = [float(i) for i in range(len(names))] if sizes is None else [float(sizes[n]) for n in names]
    probe = [fit.comparisons.probe[PROMPT] for fit in fits.values()]
    best = [str(fit.verdict.evidence["best baseline"]) for fit in fits.values()]
    foil = [fit.comparisons.baselines[name] for fit, name in zip(fits.values(), best, strict=True)]
    figure = go.Figure()
    for name, found, colour, symbol, notes in (
        ("best baseline", foil, NEUTRAL, "diamond", best),
        ("probe at the last prompt token", probe, PROBE, "circle", [f.verdict.claim for f in fits.values()]),
    ):
        ends = [j.interval() for j in found]
        figure.add_scatter(
            x=x, y=[j.value for j in found], mode="lines+markers", name=name,
            line={"color": colour, "width": 2 if name.startswith("probe") else 1.4},
            marker={"size": 9, "symbol": symbol},
            error_y={"type": "data", "symmetric": False, "thickness": 1.6, "width": 0,
                     "array": [high - j.value for j, (_, high) in zip(found, ends, strict=True)],
                     "arrayminus": [j.value - low for j, (low, _) in zip(found, ends, strict=True)]},
            customdata=[[plain(n), plain(note), *e] for n, note, e in zip(names, notes, ends, strict=True)],
            hovertemplate="%{customdata[0]}<br>%{y:.2f} [%{customdata[2]:.2f}, %{customdata[3]:.2f}]"
            "<br>%{customdata[1]}<extra></extra>",
        )  # fmt: skip
    ticks = {"tickvals": x, "ticktext": [plain(n) for n in names]}
    axis: dict[str, Any] = {**ticks, "showgrid": False, "fixedrange": True}
    if sizes is None:
        axis |= {"range": [-0.4, len(x) - 0.6]}
    else:
        axis |= {"type": "log", "title": {"text": "model, by parameters (log scale)"}}
    figure.update_layout(
        xaxis=axis, yaxis={"title": {"text": NAMES[metric]}, "tickformat": ".1f", "fixedrange": True},
        legend=legend_above(),
    )  # fmt: skip
    margin = {"l": 58, "r": 20, "b": 56}
    return dress(
        figure, wide={"height": 320, "margin": {**margin, "t": 44}},
        narrow={"height": 340, "margin": {**margin, "t": 66}}, narrow_below=460,
    )  # fmt: skip


def plan_dose(table: Any, attribute: str, kind: str = "regression") -> Any:
    """Mean attribute under a dose of the probe's direction, with random directions of the same norm as a band.

    The dose counts standard deviations of the projection that the probe reads, over training prompts.

    Args:
        table: pandas, a row per dose and draw: `dose`, `kind` (`"probe"` or `"random"`), `draw`, `value`, `low`,
            `high` (95 %).
        attribute: What is measured, for the axis.
        kind: Of the attribute; of `"classes"`, it is the share of answers with the class that they are steered to.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    random = table[table["kind"] == "random"]
    if len(random):
        by = random.groupby("dose", sort=True)["value"]
        x, low, high, mean = list(by.groups), by.min().tolist(), by.max().tolist(), by.mean().tolist()
        draws = int(random["draw"].nunique())
        figure.add_scatter(
            x=[*x, *x[::-1]], y=[*high, *low[::-1]], fill="toself", mode="lines", line={"width": 0},
            fillcolor=faded(_RANDOM, 0.28), name=f"{draws} random directions (range)", hoverinfo="skip",
        )  # fmt: skip
        figure.add_scatter(
            x=x, y=mean, mode="lines", line={"color": _RANDOM, "width": 1.6, "dash": "dash"}, name="their mean",
            hovertemplate="random, dose %{x:g}<br>%{y:.3g}<extra></extra>",
        )  # fmt: skip
    probe = table[table["kind"] == "probe"].sort_values("dose", kind="stable")
    _line(figure, probe["dose"].tolist(), probe, PROBE, "the probe's direction", "dose %{x:g}", "%{y:.3g}")
    figure.add_shape(
        type="line", x0=0, x1=0, y0=0, y1=1, yref="y domain", line={"color": NEUTRAL, "width": 1, "dash": "dot"}
    )
    figure.update_layout(
        xaxis={"title": {"text": "dose (standard deviations of the projection)"}, "showgrid": False,
               "fixedrange": True},
        yaxis={"title": {"text": plain(_measured(attribute, kind))}, "fixedrange": True}, legend=legend_above(),
    )  # fmt: skip
    margin = {"l": 58, "r": 14, "b": 46}
    return dress(
        figure, wide={"height": 320, "margin": {**margin, "t": 44}},
        narrow={"height": 350, "margin": {**margin, "t": 84}}, narrow_below=560,
    )  # fmt: skip


def _measured(attribute: str, kind: str) -> str:
    name = attribute.replace("_", " ")
    return f"mean {name}" if kind == "regression" else f"share with the {name} steered to"


def plan_transfer_map(transfer: PlanTransfer) -> Any:
    """Score of probes fitted in each set (rows) and tested in each (columns); below it, that of majority or mean.

    Args:
        transfer: The transfer.
    """
    import plotly.graph_objects as go

    table = transfer.table
    names = list(dict.fromkeys(table["train"]))
    cells = {(r["train"], r["test"]): r for r in table.to_dict("records")}
    figure = go.Figure()
    figure.add_heatmap(
        z=[[cells[a, b]["value"] for b in names] for a in names], x=list(range(len(names))), y=list(range(len(names))),
        xgap=2, ygap=2, coloraxis="coloraxis",
        customdata=[[[plain(a), plain(b), cells[a, b]["low"], cells[a, b]["high"], cells[a, b]["n"]] for b in names]
                    for a in names],
        hovertemplate="fitted in %{customdata[0]}, tested in %{customdata[1]}<br>%{z:.2f} [%{customdata[2]:.2f}, "
        "%{customdata[3]:.2f}]<br>%{customdata[4]} answers<extra></extra>",
    )  # fmt: skip
    top = max(1.0, float(table["value"].max()))
    for i, a in enumerate(names):
        for j, b in enumerate(names):
            found = cells[a, b]
            figure.add_annotation(
                x=j, y=i, showarrow=False, font={"size": 13},
                text=f"<b>{fraction(found['value'])}</b><br>{fraction(found['chance'])} without",
            )  # fmt: skip
    ticks = {"tickvals": list(range(len(names))), "ticktext": [plain(n) for n in names], "showgrid": False}
    figure.update_layout(
        xaxis={**ticks, "title": {"text": "tested in"}, "fixedrange": True},
        yaxis={**ticks, "title": {"text": "fitted in"}, "autorange": "reversed", "fixedrange": True},
        coloraxis={"cmin": 0.0, "cmax": top, "colorbar": {"thickness": 9, "outlinewidth": 0, "nticks": 5,
                                                          "title": {"text": NAMES[transfer.metric], "side": "right"}}},
        showlegend=False,
    )  # fmt: skip
    left = 40 + round(7.2 * max(len(n) for n in names))
    patch = {"height": 120 + 64 * len(names), "margin": {"l": left, "r": 80, "t": 16, "b": 56}}
    return dress(figure, wide=patch, narrow=dict(patch), narrow_below=360, scales={"coloraxis": "sequential"})


def _line(figure: Any, x: list[Any], rows: Any, colour: str, name: str, where: str, value: str = "%{y:.2f}") -> None:
    """Values with their band."""
    low, high = rows["low"].tolist(), rows["high"].tolist()
    figure.add_scatter(
        x=[*x, *x[::-1]], y=[*high, *low[::-1]], fill="toself", mode="lines", line={"width": 0},
        fillcolor=faded(colour, 0.18), showlegend=False, hoverinfo="skip", legendgroup=name,
    )  # fmt: skip
    named = rows["position"].tolist() if "position" in rows else [""] * len(x)
    form = value.replace("%{y", "%{customdata[0]"), value.replace("%{y", "%{customdata[1]")
    figure.add_scatter(
        x=x, y=rows["value"].tolist(), mode="lines+markers", name=name, legendgroup=name,
        line={"color": colour, "width": 2.2}, marker={"size": 6},
        customdata=[[a, b, plain(n)] for a, b, n in zip(low, high, named, strict=True)],
        hovertemplate=f"{name}, {where}<br>{value} [{form[0]}, {form[1]}]<extra></extra>",
    )  # fmt: skip


def _baseline_lines(figure: Any, fit: PlanFit, ends: Sequence[float]) -> list[tuple[float, str, str]]:
    """Baselines of the prompt as level lines; what to write at their right ends."""
    found = {name: joint for name, joint in fit.comparisons.baselines.items() if name != SHUFFLED}
    best = str(fit.verdict.evidence["best baseline"])
    shuffled = fit.comparisons.baselines[SHUFFLED]
    low, high = shuffled.interval()
    _band(figure, ends, low, high, NEUTRAL, 0.18)
    if best in found:
        _band(figure, ends, *found[best].interval(), LOOK.get(best, (NEUTRAL, "dot"))[0], 0.12)
    labels = [(shuffled.value, f"shuffled labels {fraction(shuffled.value)}", NEUTRAL)]
    for name, joint in found.items():
        colour, dash = LOOK.get(name, (NEUTRAL, "dot"))
        low, high = joint.interval()
        figure.add_scatter(
            x=list(ends), y=[joint.value] * 2, mode="lines", showlegend=False,
            line={"color": colour, "width": 1.7, "dash": dash},
            hovertemplate=f"{name}<br>{fraction(joint.value)} [{fraction(low)}, {fraction(high)}]<extra></extra>",
        )  # fmt: skip
        labels.append((joint.value, f"{name} {fraction(joint.value)}", colour))
    return labels


def _band(figure: Any, ends: Sequence[float], low: float, high: float, colour: str, alpha: float) -> None:
    figure.add_shape(
        type="rect", x0=ends[0], x1=ends[1], y0=low, y1=high, line={"width": 0}, layer="below",
        fillcolor=faded(colour, alpha),
    )  # fmt: skip


def _score_axis(fit: PlanFit, table: Any) -> dict[str, Any]:
    seen = [*table["low"], *(j.interval()[0] for j in fit.comparisons.baselines.values())]
    floor = (
        min(0.0, math.floor(10 * min(v for v in seen if math.isfinite(v))) / 10) if fit.kind == "regression" else 0.0
    )
    return {
        "title": {"text": NAMES[fit.metric]}, "range": [floor, 1.03], "dtick": 0.2, "tickformat": ".1f",
        "fixedrange": True,
    }  # fmt: skip


def _finish(figure: Any, labels: list[tuple[float, str, str]], bottom: int = 48) -> Any:
    """Write the baselines' names beside their lines, moved apart where they would overlap."""
    height, top = 360, 44
    first, last = figure.layout.yaxis.range
    apart = 15.5 / (height - top - bottom) * (last - first)
    labels = sorted(labels)
    places: list[float] = []
    for value, _, _ in labels:
        places.append(value if not places else max(value, places[-1] + apart))
    over = max(0.0, places[-1] - last)
    for i in reversed(range(len(places))):  # pushed over the top: all down again, as far as they must
        ceiling = last if i == len(places) - 1 else places[i + 1] - apart
        places[i] = min(places[i], ceiling) if over else places[i]
    for (_, text, colour), y in zip(labels, places, strict=True):
        figure.add_annotation(
            text=plain(text), x=1, xref="x domain", xanchor="left", xshift=6, y=y, yanchor="middle", showarrow=False,
            font={"size": 11.5, "color": colour},
        )  # fmt: skip
    right = 16 + round(6.6 * max(len(text) for _, text, _ in labels))
    margin = {"l": 54, "r": right, "b": bottom}
    return dress(
        figure, wide={"height": height, "margin": {**margin, "t": top}},
        narrow={"height": height + 40, "margin": {**margin, "t": top + 52}}, narrow_below=620,
    )  # fmt: skip
