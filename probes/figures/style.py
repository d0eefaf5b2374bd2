"""House style of the figures: colours that mean one thing each, and how a figure follows the page around it.

A figure is drawn for any background: transparent, mid-grey text. `Figure.layout.meta` carries flat `relayout` patches
for pages that can do better: `light` and `dark` for the colours, `wide` and `narrow` for the arrangement.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape, unescape
from typing import Any

REFUSES = "#d4601c"
ANSWERS = "#2f7fc1"
NEUTRAL = "#8b919a"
KINDS = (ANSWERS, REFUSES, "#1a9c77", "#b06fb5", "#c79a1e", "#5d6fd0")
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'

_THEMES = {
    "light": {"ink": "#33373d", "grid": "rgba(40,48,60,0.13)", "paper": "#ffffff"},
    "dark": {"ink": "#c9cdd3", "grid": "rgba(215,222,232,0.16)", "paper": "#23272e"},
}
_ANY = {"ink": "#777e88", "grid": "rgba(128,134,144,0.25)"}
_DIVERGING = {
    "light": ((0.0, "#1f5f99"), (0.25, "#82b1d8"), (0.5, "#f3f2ef"), (0.75, "#eeab7f"), (1.0, "#b8480d")),
    "dark": ((0.0, "#6fb4ea"), (0.25, "#35658c"), (0.5, "#22262c"), (0.75, "#96512a"), (1.0, "#f58a4b")),
}
_SEQUENTIAL = {
    "light": ((0.0, "#f3f2ef"), (0.5, "#b9a5cf"), (1.0, "#5b3a87")),
    "dark": ((0.0, "#22262c"), (0.5, "#66538a"), (1.0, "#c3a6ee")),
}
SCALES: Mapping[str, Mapping[str, tuple[tuple[float, str], ...]]] = {
    "diverging": _DIVERGING, "sequential": _SEQUENTIAL,
}  # fmt: skip


def plain(text: Any) -> str:
    """Text as it is: plotly reads labels as HTML, and a token may look like a tag."""
    return escape(str(text), quote=False)


def visible(text: str) -> str:
    """A token's text with its white space made visible."""
    return text.replace("\n", "↵").replace("\t", "⇥").replace(" ", "␣")


def fraction(value: float | None) -> str:
    """A rate, a difference of rates or an AUROC: two decimals, `–` when there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def faded(colour: str, alpha: float) -> str:
    """A `#rrggbb` colour made transparent."""
    r, g, b = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({r},{g},{b},{alpha})"


def dress(
    figure: Any,
    *,
    wide: Mapping[str, Any],
    narrow: Mapping[str, Any],
    narrow_below: int,
    scales: Mapping[str, str] | None = None,
) -> Any:
    """Give a figure the house style and the patches that pages apply.

    Args:
        figure: A plotly figure whose axes all exist; changed in place.
        wide: Flat layout patch for wide pages, applied now (`{"xaxis2.domain": [0, 1], "height": 200}`).
        narrow: The same for narrow pages.
        narrow_below: Width in pixels below which a page is narrow.
        scales: Which colour scale each colour axis has: `{"coloraxis": "diverging"}`.
    """
    # Sorted, as a layout lists its keys in another order in every process: the same figure is the same bytes.
    axes = sorted(a for a in figure.layout if a[:5] in ("xaxis", "yaxis"))
    figure.update_layout(
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", font={"family": FONT, "size": 12.5},
        hoverlabel={"font": {"family": FONT, "size": 12.5}, "align": "left"}, hovermode="closest",
        template="none",
    )  # fmt: skip
    for axis in axes:
        figure.layout[axis].update(zeroline=False, automargin=False, ticks="", title_standoff=8, title_font_size=12.5)
    meta = {name: _theme(axes, colours, scales or {}, name) for name, colours in _THEMES.items()}
    meta |= {"wide": dict(wide), "narrow": dict(narrow), "narrow_below": narrow_below}
    start = _theme(axes, _ANY, scales or {}, "light")
    figure.update_layout(start)
    figure.update_layout(dict(wide))
    figure.layout.meta = meta
    return figure


def rows_of(heights: Sequence[float], gap: float) -> tuple[list[list[float]], float]:
    """Vertical domains of panels below each other, from the top, and their total height; all in pixels."""
    total = sum(heights) + gap * (len(heights) - 1)
    domains: list[list[float]] = []
    top = total
    for height in heights:
        domains.append([round((top - height) / total, 4), round(top / total, 4)])
        top -= height + gap
    return domains, total


def label_width(labels: Iterable[str]) -> int:
    """Left margin in pixels that holds these tick labels."""
    return 18 + round(7.2 * max(len(unescape(label)) for label in labels))


def axis_names(n: int) -> list[tuple[str, str]]:
    """Layout keys of n pairs of axes: `("xaxis", "yaxis")`, `("xaxis2", "yaxis2")`, ..."""
    return [(f"xaxis{'' if i == 0 else i + 1}", f"yaxis{'' if i == 0 else i + 1}") for i in range(n)]


def place(axes: tuple[str, str], x: Sequence[float], y: Sequence[float]) -> dict[str, Any]:
    """Layout patch that puts a pair of axes somewhere."""
    across, up = axes
    return {
        f"{across}.domain": list(x), f"{across}.anchor": up.replace("axis", ""),
        f"{up}.domain": list(y), f"{up}.anchor": across.replace("axis", ""),
    }  # fmt: skip


def panel_title(text: str, i: int) -> dict[str, Any]:
    """An annotation above the i-th pair of axes, which moves with it."""
    n = "" if i == 0 else i + 1
    return {
        "text": text, "xref": f"x{n} domain", "yref": f"y{n} domain", "x": 0, "y": 1, "xanchor": "left",
        "yanchor": "bottom", "yshift": 5, "showarrow": False, "align": "left", "font": {"size": 13},
    }  # fmt: skip


def legend_above() -> dict[str, Any]:
    """A legend in a line over the figure."""
    return {
        "orientation": "h", "x": 0, "xanchor": "left", "xref": "container", "y": 1, "yref": "container",
        "yanchor": "top", "itemclick": False, "itemdoubleclick": False, "font": {"size": 12},
    }  # fmt: skip


def _theme(axes: Iterable[str], colours: Mapping[str, str], scales: Mapping[str, str], name: str) -> dict[str, Any]:
    patch: dict[str, Any] = {"font.color": colours["ink"]}
    for axis in axes:
        patch |= {f"{axis}.gridcolor": colours["grid"], f"{axis}.linecolor": colours["grid"]}
    for axis, scale in scales.items():
        patch[f"{axis}.colorscale"] = [list(stop) for stop in SCALES[scale][name]]
    if "paper" in colours:
        patch |= {
            "hoverlabel.bgcolor": colours["paper"], "hoverlabel.font.color": colours["ink"],
            "hoverlabel.bordercolor": NEUTRAL,
        }  # fmt: skip
    return patch
