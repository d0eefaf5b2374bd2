"""The report's sections, in the order a reader meets them.

To add one: write `templates/NAME.html.jinja` and add a line to `SECTIONS`. The template gets `data`
(`audit["sections"][NAME]`), `audit`, and the macros of `macros.html.jinja`; `figures` turns the data into plotly
figures, which the template places with `picture(section, heights, "KEY", "caption")`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Data = Mapping[str, Any]


def no_figures(data: Data) -> dict[str, Any]:  # noqa: ARG001
    """For sections without pictures, or without extras."""
    return {}


@dataclass(frozen=True)
class Section:
    """One section of the report.

    Attributes:
        name: Key of its data in `audit["sections"]`, and its anchor.
        title: Heading.
        template: File in `templates/`.
        figures: From the data to named plotly figures.
        extras: From the data to what else the template is given.
        absent: What the report says where the data is null; when empty, the section is left out.
    """

    name: str
    title: str
    template: str
    figures: Callable[[Data], dict[str, Any]] = no_figures
    extras: Callable[[Data], dict[str, Any]] = no_figures
    absent: str = ""


def direction_figures(data: Data) -> dict[str, Any]:
    """The candidate maps; none where no candidate could be made."""
    if not data["table"] or not data["thresholds"]:
        return {}
    import pandas as pd

    from probes.figures import candidate_maps
    from probes.selection import Selection

    bypass, kl = ("bypass_mean", "kl_mean") if data["rule"] == "mean" else ("bypass", "kl")
    selection = Selection(data["chosen"], pd.DataFrame(data["table"]), data["thresholds"], bypass, kl, data["reason"])
    return {"maps": candidate_maps(selection, data.get("position_tokens"))}


def causal_figures(data: Data) -> dict[str, Any]:
    """Refusal under each intervention."""
    from interp.stats import Rate
    from probes.causal import Effect
    from probes.figures import effect_bars

    def rate(value: Data) -> Rate:
        return Rate(int(value["k"]), int(value["n"]))

    effects = [
        Effect(e["intervention"], e["on"], rate(e["rate"]), tuple(rate(r) for r in e["random"]))
        for e in data["effects"]
    ]
    return {"bars": effect_bars(effects)}


def harm_figures(data: Data) -> dict[str, Any]:
    """Refusal under each intervention with the harm direction."""
    return causal_figures(data["causal"]) if data["causal"] else {}


def separation_figures(data: Data) -> dict[str, Any]:
    """AUROC by layer."""
    if not data["table"]:
        return {}
    import pandas as pd

    from probes.figures import separation_lines
    from probes.readout import Separation

    def number(value: Any) -> float:
        return math.nan if value is None else float(value)

    text = data["text"]
    baseline = (number(text["value"]), number(text["low"]), number(text["high"]))
    table = pd.DataFrame(data["table"])
    return {
        "lines": separation_lines(
            Separation(table, baseline, number(data["length"]), int(data["n_train"]), int(data["n_test"]))
        )
    }


def knows_figures(data: Data) -> dict[str, Any]:
    """The two beliefs, what each direction moves, what other forms move, and the directions' cosine."""
    if not data["found"]:
        return {}
    import pandas as pd

    from probes.figures import belief_scatter, cosine_lines, dissociation_bars, jailbreak_shifts
    from probes.trials import Tally
    from probes.two_causal import Effect

    effects = [
        Effect(e["direction"], e["way"], e["behaviour"], e["on"], Tally(e["moved"], e["neither"], e["n"]),
               tuple(Tally(*t) for t in e["random"]))
        for e in data["causal"]["effects"] if e["on"] == "both"
    ]  # fmt: skip
    tables = {name: pd.DataFrame(data[name]) for name in ("points", "jailbreaks", "cosines")}
    for name in ("jailbreaks", "cosines"):  # null stands for what is not a number
        numbers = [c for c in tables[name] if c not in ("family", "explained_by", "site", "layer", "point")]
        tables[name][numbers] = tables[name][numbers].astype(float)
    return {
        "scatter": belief_scatter(tables["points"]),
        "effects": dissociation_bars(effects, data["causal"]["least"]),
        "jailbreaks": jailbreak_shifts(tables["jailbreaks"]),
        "cosines": cosine_lines(tables["cosines"]),
    }


def guard_figures(data: Data) -> dict[str, Any]:
    """Scores by form, of the guard and of the words, and the ROC of all detectors."""
    if not data["found"]:
        return {}
    import numpy as np
    import pandas as pd

    from interp.text.prompts import PromptSet
    from probes.figures import form_strips, roc_curves
    from probes.guard.report import GuardReport, Scored
    from probes.guard.scores import GuardScores

    points = pd.DataFrame(data["points"])
    points["text"] = [others[0] for others in points["others"]]
    table, scored = pd.DataFrame(data["detectors"]), dict[str, Scored]()
    for name, part in points.groupby("set", sort=False):
        named = [d for d in table[table["set"] == name]["detector"]][1:]
        others = {d: (np.array([o[i] for o in part["others"]]), 0.5) for i, d in enumerate(named)}
        score, flagged = part["score"].to_numpy(), part["flagged"].to_numpy()
        own = GuardScores((), score, part["probability"].to_numpy(), flagged, ~flagged & False, {}, 0.0)
        scored[str(name)] = Scored(PromptSet(()), (part["label"] == "harmful").to_numpy(), own, others, 0)
    numbers = [c for c in table if c not in ("set", "detector")]
    table[numbers] = table[numbers].astype(float)  # null stands for what is not a number
    return {
        "strips": form_strips(points, data["operating_point"]["threshold"], data["text_threshold"]),
        "roc": roc_curves(GuardReport(table, scored, {})),
    }


def thinking_figures(data: Data) -> dict[str, Any]:
    """The score along the thought, and the map of layers and places."""
    if not data.get("scores"):
        return {}
    import pandas as pd

    from probes.figures.trace import mean_curve, mean_map

    scores = data["scores"]
    curve, grid = (pd.DataFrame(scores[name]) for name in ("curve", "map"))
    curve[["mean", "low", "high"]] = curve[["mean", "low", "high"]].astype(float)  # null stands for what is no number
    grid["mean"] = grid["mean"].astype(float)
    return {
        "curve": mean_curve(curve, scores["unit"], scores["level"]),
        "map": mean_map(grid, scores["map_unit"]),
    }


def thinking_extras(data: Data) -> dict[str, Any]:
    """One trace, coloured token by token."""
    if not data.get("scores"):
        return {}
    from markupsafe import Markup

    from probes.figures.trace_page import trace_style, trace_tokens

    shown = data["scores"]["example"]
    tokens = trace_tokens(shown["tokens"], shown["regions"], shown["values"], 0.0, 1.0)
    return {"tokens": Markup(tokens), "colours": Markup(trace_style())}


def heads_figures(data: Data) -> dict[str, Any]:
    """Every head's effect, and refusal without the first few."""
    if not data["ranked"]:
        return {}
    import pandas as pd

    from probes.figures.heads import effect_map, refusal_by_heads

    curve, chosen = pd.DataFrame(data["curve"]), int(data["chosen"])
    numbers = [c for c in curve if c not in ("added", "layer_matched")]
    curve[numbers] = curve[numbers].astype(float)  # null stands for what is not a number
    drawn = [(len(p["heads"]), c["heads"], c["rate"]["value"], c["rate"]["n"], c["times"])
             for p in data["points"] for c in p["random"]]  # fmt: skip
    marked = [(t["layer"], t["head"]) for t in data["top"]][:chosen]
    gains = "the refusal score gains, head off"
    return {
        "map": effect_map(pd.DataFrame(data["ranking"]), int(data["n_train"]), gains, marked),
        "curve": refusal_by_heads(curve, drawn, chosen),
    }


def plans_figures(data: Data) -> dict[str, Any]:
    """Scores by layer and along what is written, a row per attribute."""
    from probes.figures import plan_grid
    from probes.planning.scoring import NAMES

    rows = [{**a, "score": NAMES[a["metric"]], "chosen": a["layers"]} for a in data["attributes"] if a["measured"]]
    return {"grid": plan_grid(rows)} if rows else {}


SECTIONS: tuple[Section, ...] = (
    Section("behaviour", "What the model does", "behaviour.html.jinja"),
    Section(
        "causal", "Does the direction carry refusal?", "causal.html.jinja", causal_figures,
        absent="Not run: there is no direction to test.",
    ),
    Section(
        "direction", "Where the direction is", "direction.html.jinja", direction_figures,
        absent="Not looked for: without refusals there are no two sides to take a difference of.",
    ),
    Section("knows", "Does it know?", "knows.html.jinja", knows_figures),
    Section("separation", "Where harm can be read", "separation.html.jinja", separation_figures),
    Section("guard", "Guard", "guard.html.jinja", guard_figures),
    Section("thinking", "Along the thinking", "thinking.html.jinja", thinking_figures, extras=thinking_extras),
    Section("heads", "Heads that hold refusal down", "heads.html.jinja", heads_figures),
    Section("plans", "What it plans", "plans.html.jinja", plans_figures),
    Section(
        "exports", "For other programs", "exports.html.jinja",
        absent="Nothing was written: there is no direction to export.",
    ),
    Section("harm", "Is harm, as it is read, acted on?", "harm.html.jinja", harm_figures),
)  # fmt: skip
