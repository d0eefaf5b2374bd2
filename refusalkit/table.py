"""The table that cards and acceptance runs print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def print_table(title: str, rows: Sequence[dict[str, Any]]) -> None:
    """Print rows of (variant, figure, value, interval, n, floor, ok); the last line counts them."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left", header_style="bold")
    for name in ("", "figure", "value", "95 %", "n", "floor", ""):
        table.add_column(name, justify="left" if name in ("", "figure") else "right", overflow="fold")
    before = None
    for row in rows:
        interval = row["interval"]
        verdict = "" if row["floor"] is None else ("ok" if row["ok"] else "[bold red]FAILS[/]")
        table.add_row(
            escape(row["variant"]) if row["variant"] != before else "",
            escape(row["figure"]), f"{row['value']:.3f}", f"{interval[0]:.3f}-{interval[1]:.3f}" if interval else "",
            "" if row["n"] is None else str(row["n"]), row["floor"] or "", verdict,
        )  # fmt: skip
        before = row["variant"]
    console = Console(width=None if Console().is_terminal else 140)
    console.print(table)
    held = [row for row in rows if row["floor"] is not None]
    console.print(f"{sum(row['ok'] for row in held)} of {len(held)} floors met")
