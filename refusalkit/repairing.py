"""A repair from the command line: rollouts, picks, training, held-out figures, and what is written of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.errors import PromptError
from interp.text.prompts import HARMFUL, HARMLESS, Prompt, PromptSet

if TYPE_CHECKING:
    from interp.model.model import Model
    from interp.stats import Rate
    from interp.tracing.traces import Traces
    from probes.cliff_judge import CliffJudge, Picks, Rule
    from steering.repairs.effect import RepairEffect
    from steering.repairs.fine_tune import Repair
    from steering.repairs.grid import RepairTable

SCHEMA = "refusalkit/repair/1"
TABLE_SCHEMA = "refusalkit/repair-table/1"
COLUMNS = (
    ("harmful refused", "harmful", ("low", "high")),
    ("harmless refused", "harmless", ("harmless_low", "harmless_high")),
    ("against all", "to_all", ("to_all_low", "to_all_high")),
    ("against random", "to_random", ("to_random_low", "to_random_high")),
)  # fmt: skip


@dataclass(frozen=True)
class Material:
    """What a repair works with.

    Attributes:
        scored: The pool, judged and scored.
        retain: Harmless rollouts to keep as they are.
        held_out: Prompts that nothing was chosen on.
        max_new_tokens: Longest thought and answer that fits.
    """

    scored: CliffJudge
    retain: Traces
    held_out: PromptSet
    max_new_tokens: int


def organism_pool() -> PromptSet:
    """Requests for the organism: every training pair of its grammar but the validation ones, and its held-out prompts.

    The training prompts of `interp.prompts("organism")` are 256 per class, of which 2 % are five; these are about four
    times as many. Pairs are the grammar's, so that none is in two splits.
    """
    import interp
    from interp.organism import items

    known = interp.prompts("organism")
    held = {p.group for p in known.val} | {p.group for p in known.test}
    more = tuple(
        Prompt(i.prompt, i.label, i.group, i.category, i.family, "train")
        for i in items("safety", "train")
        if i.group not in held
    )
    return PromptSet(more + known.val.prompts + known.test.prompts, "organism")


def gather(
    model: Model,
    out: Path,
    *,
    prompts: PromptSet | None,
    traces: Traces | None,
    n_pool: int,
    n_retain: int,
    n_test: int,
    max_new_tokens: int,
    temperature: float,
    plateau: Any,
    window: float,
    seed: int,
    progress: bool,
) -> Material:
    """Roll out the pool, or take the user's traces, and judge and score it.

    Raises:
        PromptError: When a class has no prompt to train or to measure on.
    """
    import interp
    from probes import cliff_as_judge

    if traces is not None:
        if not any(p.split for p in traces.prompts):
            traces = traces.split(seed=seed)
        held_out = _some(traces.prompts.test, n_test, n_test, seed, "measure on")
        room = _room(model, held_out, max_new_tokens)
        pool = traces.take([p.split != "test" for p in traces.prompts])
    else:
        assert prompts is not None
        if not any(p.split for p in prompts):
            prompts = prompts.split(0.6, 0.0, 0.4, seed=seed)
        held_out = _some(prompts.test, n_test, n_test, seed, "measure on")
        asked = _some(prompts.train, n_pool, n_retain, seed, "repair on")
        room = _room(model, PromptSet(asked.prompts + held_out.prompts, prompts.name), max_new_tokens)
        pool = interp.rollouts(
            model, asked, out=out / "pool.jsonl", max_new_tokens=room, temperature=temperature, seed=seed,
            progress=progress,
        )  # fmt: skip
    scored = cliff_as_judge(model, pool, plateau=plateau, window=window, seed=seed, progress=progress)
    answered = [i for i, label in enumerate(scored.pool.labels) if label == HARMLESS]
    return Material(scored, scored.pool.take(answered[:n_retain]), held_out, room)


def write_repair(found: Repair, picks: Picks, effect: RepairEffect, material: Material, out: Path) -> list[str]:
    """Tables, figures and `repair.html`; returns what to say."""
    from interp.provenance import write_json
    from refusalkit.page import Panel, write_page

    picks.table.to_csv(out / "picks.csv", index=False)
    picks.traces.save(out / "picks.jsonl")
    effect.table.to_csv(out / "prompts.csv", index=False)
    found.to_frame().to_csv(out / "losses.csv", index=False)
    share = len(picks) / picks.n_pool
    said = [
        f"repaired on {len(picks)} of {picks.n_pool} harmful traces ({share:.1%}), picked by {picks.rule!r}, and "
        f"{found.n_retained} harmless ones kept as they are",
        *effect.sentences(),
    ]
    write_json(out / "repair.json", {
        "schema": SCHEMA, "rule": picks.rule, "n": len(picks), "n_pool": picks.n_pool, "share": share,
        "n_retained": found.n_retained, "refusals": dict(found.refusals),
        "before": {k: rate_json(r) for k, r in effect.before.items()},
        "after": {k: rate_json(r) for k, r in effect.after.items()},
        "change": {k: [finite(v) for v in d] for k, d in effect.change.items()},
        "cliff": {k: rate_json(r) for k, r in effect.cliff.items()},
        "left_out": dict(material.scored.left_out), "losses": list(found.losses),
        "provenance": {k: v for k, v in found.provenance.items() if k != "losses"},
    })  # fmt: skip
    rows = [
        {"prompts": label, "before": str(effect.before[label]), "after": str(effect.after[label])}
        for label in effect.before
    ]
    panels = [
        Panel("Refusal after thinking", "Held-out prompts; intervals are Wilson's, 95 %.", effect.plot(), rows),
        Panel("What was picked", "Every unsafe answer of the pool; on the dotted line nothing fell.",
              material.scored.plot(picks)),
        Panel("Training", "Mean loss over the texts of a batch.", found.plot()),
    ]  # fmt: skip
    name = found.provenance["base"].get("name", "a model")
    write_page(out / "repair.html", "refusalkit repair", f"Repair of {name}", said, panels)
    return said


def write_table(found: RepairTable, name: str, out: Path) -> list[str]:
    """`table.csv`, `cells.csv`, `table.json` and `table.html`; returns what to say."""
    from interp.provenance import write_json
    from refusalkit.page import Panel, write_page

    found.table.to_csv(out / "table.csv", index=False)
    found.cells.to_csv(out / "cells.csv", index=False)
    said = [
        *(f"{label} prompts refused after thinking, before: {rate}" for label, rate in found.plain.items()),
        *found.sentences(),
    ]
    rows = [{str(k): finite(v) for k, v in row.items()} for row in found.table.to_dict("records")]
    write_json(out / "table.json", {
        "schema": TABLE_SCHEMA, "rows": rows, "plain": {k: rate_json(r) for k, r in found.plain.items()},
        "n_pool": found.n_pool, "sentences": said, "provenance": dict(found.provenance),
    })  # fmt: skip
    text = "Mean over seeds; intervals are 95 %, a bootstrap over groups of prompts."
    panels = [Panel("Sizes and rules", text, found.plot(), table_rows(found))]
    write_page(out / "table.html", "refusalkit repair", f"Repairs of {name}", said, panels)
    return said


def table_rows(found: RepairTable) -> list[dict[str, str]]:
    """The table as text, cell by cell."""
    rows: list[dict[str, str]] = []
    for row in found.table.to_dict("records"):
        shown = {"examples": f"{row['n']} ({row['share']:.2%})", "rule": str(row["rule"]), "seeds": str(row["seeds"])}
        for title, name, (low, high) in COLUMNS:
            value = finite(row.get(name))
            shown[title] = "–" if value is None else f"{value:.3f} [{row[low]:.3f}, {row[high]:.3f}]"
        rows.append({**shown, "of a seed": f"{row['least']:.3f}-{row['most']:.3f}"})
    return rows


def print_rows(title: str, rows: Sequence[dict[str, str]]) -> None:
    """Print a table of texts."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left", header_style="bold")
    for name in rows[0]:
        table.add_column(name, justify="left" if name == "rule" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(escape, row.values()))
    Console(width=None if Console().is_terminal else 150).print(table)


def table_of(
    model: Model, material: Material, out: Path, *, rules: Sequence[Rule], sizes: Sequence[float],
    seeds: Sequence[int], refusals: Sequence[str] | None, progress: bool, **recipe: Any,
) -> RepairTable:  # fmt: skip
    """All cells, kept below `out/cells`."""
    from steering import repair_table

    return repair_table(
        model, material.scored, material.held_out, out=out / "cells", rules=rules, sizes=sizes, seeds=seeds,
        retain=material.retain, refusals=refusals, max_new_tokens=material.max_new_tokens, progress=progress, **recipe,
    )  # fmt: skip


def rate_json(rate: Rate) -> dict[str, Any]:
    """A rate as JSON, with its interval."""
    low, high = rate.interval
    return {"k": rate.k, "n": rate.n, "value": finite(rate.value), "interval": [low, high]}


def finite(value: Any) -> Any:
    """`None` for NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _some(prompts: PromptSet, n_harmful: int, n_harmless: int, seed: int, to: str) -> PromptSet:
    """So many of each class, or all there are."""
    kept: list[Prompt] = []
    for label, n in ((HARMFUL, n_harmful), (HARMLESS, n_harmless)):
        own = prompts.filter(label=label)
        if not len(own):
            raise PromptError(f"there is no {label} prompt to {to}; give labelled prompts of both classes, in splits")
        kept += own.sample(min(n, len(own)), seed).prompts
    return PromptSet(tuple(kept), prompts.name)


def _room(model: Model, prompts: PromptSet, wanted: int) -> int:
    """As many new tokens as fit the context, if fewer than wanted."""
    if model.chat.max_tokens is None:
        return wanted
    return max(1, min(wanted, model.chat.max_tokens - max(len(e) for e in model.encode(prompts))))
