"""Exported files beside the vector they are to be: how far they differ, how far the vector reaches, and the control."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from probes.figures.style import KINDS, NEUTRAL, dress, label_width, legend_above, plain

if TYPE_CHECKING:
    # The room above gives its results by their shape, and is not imported.
    from typing import Protocol

    class _Row(Protocol):
        @property
        def prompt(self) -> str: ...
        @property
        def difference(self) -> float: ...
        @property
        def effect(self) -> float: ...
        @property
        def control(self) -> float | None: ...

    class _Proof(Protocol):
        @property
        def tolerance(self) -> float: ...
        @property
        def same_texts(self) -> int: ...
        @property
        def rows(self) -> Sequence[_Row]: ...
        @property
        def ok(self) -> bool: ...


_ROW = 44
_SPREAD = 0.5
_TICKS = 6
_KINDS = (
    ("difference", "difference from the vector here", {"color": KINDS[2], "line_width": 0}),
    ("control", "control: other side of its block", {"symbol": "diamond-open", "color": NEUTRAL}),
    ("effect", "effect of the vector", {"symbol": "circle-open", "color": KINDS[3]}),
)


def proof_strip(proofs: Mapping[str, _Proof]) -> Any:
    """Largest difference of logits of every prompt, on a logarithmic axis, a line of dots per file.

    What a file does differently lies left of the dash, which is the tolerance, when the file is proved; what the vector
    does and what the control does lie right of it. No difference at all is drawn at the left end, at 0.

    Args:
        proofs: `steering.verify`'s proofs, by the name that stands before the line.
    """
    import plotly.graph_objects as go

    names = [plain(name) for name in proofs]
    drawn = {kind: _dots(list(proofs.values()), kind) for kind, _, _ in _KINDS}
    values = [*(x for dots in drawn.values() for x, _, _ in dots), *(p.tolerance for p in proofs.values())]
    low, high = _decades(values)
    figure = go.Figure()
    for kind, name, marker in _KINDS:
        figure.add_scatter(
            x=[x or 10.0**low for x, _, _ in drawn[kind]], y=[y for _, y, _ in drawn[kind]], mode="markers", name=name,
            marker={"size": 8, "line_width": 1.5, **marker},
            customdata=[[x, text] for x, _, text in drawn[kind]],
            hovertemplate=f"{name}<br>%{{customdata[0]:.2g}}<br>%{{customdata[1]}}<extra></extra>",
        )  # fmt: skip
    figure.add_scatter(
        x=[p.tolerance or 10.0**low for p in proofs.values()], y=list(range(len(proofs))), mode="markers",
        name="tolerance", customdata=[p.tolerance for p in proofs.values()],
        marker={"symbol": "line-ns-open", "size": 22, "color": NEUTRAL, "line": {"width": 2}},
        hovertemplate="tolerance %{customdata:.2g}<extra></extra>",
    )  # fmt: skip
    verdicts = [_verdict(proof) for proof in proofs.values()]
    for y, text in enumerate(verdicts):
        figure.add_annotation(
            text=text, x=1, xref="x domain", xshift=8, xanchor="left", y=y, showarrow=False, align="left",
            font={"size": 12},
        )  # fmt: skip
    ticks = list(range(low, high + 1, math.ceil((high - low + 1) / _TICKS)))
    figure.update_layout(
        xaxis={
            "type": "log", "range": [low - 0.15, high + 0.15], "fixedrange": True, "tickangle": 0,
            "tickvals": [10.0**t for t in ticks],
            "ticktext": ["0" if 0 in values and t == low else _power(t) for t in ticks],
            "title": {"text": "largest difference of logits, each prompt"},
        },
        yaxis={
            "range": [len(names) - 0.45, -0.55], "tickvals": list(range(len(names))), "ticktext": names,
            "showgrid": False, "fixedrange": True, "ticklabelstandoff": 6,
        },
        legend=legend_above(),
    )  # fmt: skip
    height = _ROW * len(names)
    margin = {"l": label_width(names), "r": 128, "b": 52}
    return dress(
        figure, wide={"height": height + 108, "margin": {**margin, "t": 56}},
        narrow={"height": height + 168, "margin": {**margin, "t": 116}}, narrow_below=860,
    )  # fmt: skip


def _dots(proofs: Sequence[_Proof], kind: str) -> list[tuple[float, float, str]]:
    """Value, height and prompt of every dot; those of a line stand above each other, so that equal ones are seen."""
    found: list[tuple[float, float, str]] = []
    for y, proof in enumerate(proofs):
        for j, row in enumerate(proof.rows):
            value = getattr(row, kind)
            if value is not None and math.isfinite(value):
                found.append((value, y + _SPREAD * ((j + 0.5) / len(proof.rows) - 0.5), plain(row.prompt)))
    return found


def _decades(values: Sequence[float]) -> tuple[int, int]:
    """Powers of ten around all values; the lowest is kept free when a value is 0."""
    seen = [v for v in values if v > 0 and math.isfinite(v)] or [1.0]
    low = math.floor(math.log10(min(seen)))
    return low - (0 in values), max(math.ceil(math.log10(max(seen))), low + 1)


def _verdict(proof: _Proof) -> str:
    texts = f"{proof.same_texts} of {len(proof.rows)} texts equal"
    return f"{'proved' if proof.ok else '<b>not proved</b>'}<br>{texts}"


def _power(exponent: int) -> str:
    return "1" if exponent == 0 else "10" if exponent == 1 else f"10<sup>{str(exponent).replace('-', '−')}</sup>"
