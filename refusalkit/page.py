"""A self-contained HTML page of figures and tables, in the dress of the audit's report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interp.provenance import write_text


@dataclass(frozen=True)
class Panel:
    """One section: a figure, a table, or both.

    Attributes:
        title: Its heading.
        text: A line below it.
        figure: A plotly figure.
        rows: A table, one mapping of column to cell per row.
        folded: Whether it is shown only when it is asked for.
    """

    title: str
    text: str = ""
    figure: Any = None
    rows: Sequence[Mapping[str, str]] = field(default_factory=list[Mapping[str, str]])
    folded: bool = False


def render_page(over: str, title: str, lead: Sequence[str], panels: Sequence[Panel]) -> str:
    """The page as one HTML file that opens offline."""
    from refusalkit.html import dressed, environment

    figures = {f"figure-{i}": p.figure for i, p in enumerate(panels) if p.figure is not None}
    page = environment().get_template("page.html.jinja")
    return page.render(over=over, title=title, lead=lead, panels=panels, **dressed(figures))


def write_page(path: Path, over: str, title: str, lead: Sequence[str], panels: Sequence[Panel]) -> None:
    """Write a page; it appears whole or not at all."""
    write_text(path, render_page(over, title, lead, panels))


def provenance(*told: Mapping[str, Any]) -> Panel:
    """A section that says, folded away, what everything was made of.

    Args:
        told: Nested mappings, in order.
    """
    from refusalkit.html import flat

    rows = [{"": key, "value": str(value)} for one in told for key, value in flat(one)]
    return Panel("Provenance: model, vector, prompts, settings and versions", rows=rows, folded=True)
