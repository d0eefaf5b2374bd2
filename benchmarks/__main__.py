"""The command: `python -m benchmarks`."""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

NAMES = ("capture", "memory", "store", "generation", "steering", "probes", "guard", "heads", "demo")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure against the floor and peers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)}; all by default")
    parser.add_argument("--quick", action="store_true", help="smaller and fewer rounds: does it run at all?")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    chosen = parser.parse_args()
    if unknown := sorted(set(chosen.names) - set(NAMES)):
        parser.error(f"there is no benchmark {unknown[0]!r}; known: {', '.join(NAMES)}")
    import torch

    from interp.provenance import versions

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    logging.getLogger("benchmarks").setLevel(logging.INFO)
    torch.set_num_threads(1)
    console, found = Console(), {}
    before = os.getloadavg()[0]
    for name in chosen.names or NAMES:
        found[name] = import_module(f"benchmarks.{name}").measure(chosen.quick)
        show(console, name, found[name])
    machine = {"cpus": os.cpu_count(), "processor": platform.processor(), "load_before": before,
               "load_after": os.getloadavg()[0]}  # fmt: skip
    console.print(f"load average {before:.1f} before, {machine['load_after']:.1f} after, on {machine['cpus']} CPUs")
    if chosen.out:
        report = {"quick": chosen.quick, "results": found, "machine": machine, "versions": versions()}
        chosen.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def show(console: Console, name: str, result: dict[str, Any]) -> None:
    """One table a benchmark and subject; what is not timed stands below it.

    A target is met when its interval reaches it; `slower` is how many times longer an arm takes than our own.
    """
    targets, faster = result["target"], result.get("faster", {})
    rows = result.get("rows", [])
    for subject in dict.fromkeys(row.get("subject", "") for row in rows):
        title = f"{name}: {subject}" if subject else name
        table = Table("", "seconds", "ratio to floor", "95 %", "target", "", title=title, title_justify="left")
        for row in (row for row in rows if row.get("subject", "") == subject):
            arm, (low, high) = row["arm"], row["interval"]
            target, met = "", ""
            if arm in targets:
                target, met = f"<= {targets[arm]:.2f}", "ok" if low <= targets[arm] else "MISSED"
            elif arm in faster:
                target = f"{row['slower']:.2f} x ours, wanted {faster[arm]:.2f}"
                met = "ok" if row["slower_interval"][1] >= faster[arm] else "MISSED"
            table.add_row(arm, f"{row['seconds']:.3f}", f"{row['ratio']:.3f}", f"{low:.3f}-{high:.3f}", target, met)
        console.print(table)
    for key, value in result.items():
        if key not in ("rows", "target", "faster"):
            target = f"  (target <= {targets[key]})" if key in targets else ""
            console.print(f"{name}: {key} {f'{value:.4g}' if isinstance(value, float) else value}{target}")


if __name__ == "__main__":
    main()
