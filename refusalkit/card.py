"""`refusalkit organism card`: planted truth and measured behaviour, with intervals, written to truth.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interp.errors import RefusalkitError
from interp.organism import VARIANTS, truth
from interp.organism.measure import Row, passes
from interp.organism.measure import card as measure
from interp.organism.store import WEIGHTS
from interp.provenance import versions, write_json
from interp.stats import wilson
from refusalkit.table import print_table


def card(variants: tuple[str, ...] | None, n: int, out: Path, folder: Path | None, *, progress: bool) -> bool:
    """Measure, print, and write every figure; returns whether all floors are met.

    Args:
        variants: Which; all by default.
        n: Prompts per cell.
        out: Where to write `truth.json`.
        folder: A trained family, in place of the shipped one.
        progress: Show what is being measured.
    """
    unknown = sorted(set(variants or ()) - set(VARIANTS))
    if unknown:
        raise RefusalkitError(f"there is no organism variant {unknown[0]!r}; known: {', '.join(VARIANTS)}")
    if not out.parent.is_dir() or out.is_dir():
        raise RefusalkitError(f"cannot write {out}: give --out the name of a file in a folder that exists")
    try:
        planted = {name: plain_truth(truth(name, folder or WEIGHTS)) for name in variants or VARIANTS}
        rows = [card_row(row) for row in measured(variants, n, folder, progress)]
    except FileNotFoundError as error:
        where = folder or "this installation"
        raise RefusalkitError(f"{where} does not hold every variant ({error}); choose with --variant") from error
    print_table("Model organism", rows)
    write_json(out, {"n_per_cell": n, "planted": planted, "measured": rows, "versions": versions()})
    return all(row["ok"] for row in rows)


def measured(variants: tuple[str, ...] | None, n: int, folder: Path | None, progress: bool) -> list[Row]:
    """The measured rows, with a line on standard error for what was measured last."""
    if not progress:
        return measure(variants, n, folder=folder)
    from rich.console import Console

    with Console(stderr=True).status("measuring the organism") as status:

        def show(row: Row) -> None:
            status.update(f"measured {row['variant']}: {row['name']}")

        return measure(variants, n, folder=folder, progress=show)


def card_row(row: Row) -> dict[str, Any]:
    """A row with its interval, in the form that tables print."""
    interval = wilson(row["k"], row["n"]) if row["k"] is not None and row["n"] else None
    return {
        "variant": row["variant"],
        "figure": row["name"],
        "value": row["value"],
        "interval": list(interval) if interval else None,
        "n": row["n"],
        "floor": None if row["sense"] == "info" else f"{row['sense']} {row['floor']}",
        "ok": passes(row),
    }


def plain_truth(value: Any) -> Any:
    """Truth as JSON: arrays become lists."""
    if isinstance(value, dict):
        return {str(k): plain_truth(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain_truth(v) for v in value]
    return plain_truth(value.tolist()) if hasattr(value, "tolist") else value
