"""The table of a repair: numbers of examples x rules of picking them x seeds, each cell trained and measured by itself.

Every cell trains for the same number of steps, so that rules are compared at equal cost. Cells are kept on disk one by
one; what is there is not done again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from interp.errors import FormatError, PromptError
from interp.model.model import Model
from interp.progress import progress_bar
from interp.provenance import digest_json, write_json
from interp.stats import Rate
from interp.stats_change import mean_interval
from interp.text.encoded import as_prompt
from interp.text.judge import Judge, judge
from interp.text.prompts import HARMFUL, HARMLESS, PromptSet
from interp.tracing.rollouts import rollouts
from interp.tracing.traces import Traces
from probes.cliff_judge import RULES, CliffJudge, Rule
from steering.repairs.effect import LABELS, refused_of
from steering.repairs.fine_tune import repair

CLOSE = 0.03
"""How far from training on all a repair may stay and still count as one as good."""
_FORMAT = "refusalkit/repair-cell/1"


@dataclass(frozen=True, eq=False)
class RepairTable:
    """Repairs by size, rule and seed, on the same held-out prompts.

    Attributes:
        cells: pandas, one row per repair: `rule`, `size` (as asked for), `n` (examples), `share` (of the harmful
            traces), `seed`, `harmful` and `harmless` (refused after thinking), `loss` (of the last step).
        table: pandas, one row per size and rule, over seeds: `harmful`, its interval `low`, `high` (bootstrap over
            groups of prompts of the mean over seeds), `least`, `most` (of a seed), `harmless` with `harmless_low` and
            `harmless_high`, `rise` (harmless refusal, less that before), `to_all` (harmful, less that of training on
            all) with `to_all_low` and `to_all_high`, `to_random` likewise against random picks of the same size.
        plain: Refused before, by label.
        n_pool: Harmful traces that the picks come from.
        provenance: Model, prompts, recipe.
    """

    cells: Any
    table: Any
    plain: Mapping[str, Rate]
    n_pool: int
    provenance: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __repr__(self) -> str:
        return f"RepairTable({len(self.cells)} repairs, {len(self.table)} rows)"

    def to_frame(self) -> Any:
        """One row per size and rule (pandas)."""
        return self.table

    def sentences(self) -> list[str]:
        """What the table says, the comparison with random picks first."""
        said: list[str] = []
        by = self.table.set_index(["n", "rule"])
        for n, own in self.table[self.table["rule"] != "all"].groupby("n", sort=True):
            if not {"cliff", "random"} <= set(own["rule"]):
                continue
            cliff, drawn = by.loc[(n, "cliff")], by.loc[(n, "random")]
            d, low, high = (cliff[f"to_random{end}"] for end in ("", "_low", "_high"))
            verdict = (
                "the cliff rule does better than random picks" if low > 0
                else "random picks do better than the cliff rule" if high < 0
                else "random picks do as well as the cliff rule"
            )  # fmt: skip
            said.append(
                f"with {n} examples ({cliff['share']:.1%}) {verdict}: {cliff['harmful']:.3f} and "
                f"{drawn['harmful']:.3f} of harmful prompts refused, difference {d:+.3f} [{low:+.3f}, {high:+.3f}]"
            )
        return said

    def plot(self) -> Any:
        """Refusal against the number of examples, a line per rule (plotly)."""
        from probes.figures import repair_lines

        return repair_lines(self)


def repair_table(
    model: Model,
    scored: CliffJudge,
    prompts: PromptSet,
    *,
    out: str | os.PathLike[str] | None = None,
    rules: Sequence[Rule] = RULES,
    sizes: Sequence[float] = (0.005, 0.01, 0.02),
    seeds: Sequence[int] = (0, 1, 2),
    retain: Traces | None = None,
    refusals: Sequence[str] | None = None,
    max_new_tokens: int = 2048,
    judged: Judge = judge,
    progress: bool = False,
    **recipe: Any,
) -> RepairTable:
    """Repair a model once for every size, rule and seed, and measure each on the same held-out prompts.

    A seed draws picks and ties, refusals, the adapter's first weights and the order.

    Args:
        model: The model, in thinking mode.
        scored: The judged pool, from `probes.cliff_as_judge`.
        prompts: Held-out prompts, labelled harmful and harmless.
        out: Folder for the cells; a folder of another table is refused.
        rules: Rules of picking; `"all"` is done once per seed.
        sizes: Numbers or shares, as in `CliffJudge.pick`.
        seeds: At least one; three show the spread.
        retain: As in `repair`, for every cell.
        refusals: As in `repair`.
        max_new_tokens: Longest thought and answer.
        judged: Judges answers.
        progress: Show a progress bar.
        recipe: More for `repair`: `steps`, `lr`, ...

    Raises:
        PromptError: When a rule cannot pick as many as asked for: said before anything is trained.
        FormatError: When the folder holds cells of another table.
    """
    if not rules or not sizes or not seeds:
        raise PromptError("a table needs at least one rule, one size and one seed")
    kept = prompts.filter(label=LABELS)
    if set(kept.labels) != set(LABELS):
        raise PromptError("the prompts to measure repairs on have to be labelled harmful and harmless, some of each")
    wanted: list[tuple[Rule, float, int]] = [
        (rule, size, seed) for rule in rules for size in (sizes if rule != "all" else sizes[-1:]) for seed in seeds
    ]
    picks = {cell: scored.pick(*cell) for cell in wanted}
    provenance = {
        **model.provenance(), "prompts": kept.digest, "pool": dict(scored.provenance), "recipe": recipe,
        "retain": [] if retain is None else digest_json([[as_prompt(t).text, t.thinking, t.answer] for t in retain]),
        "refusals": refusals, "max_new_tokens": max_new_tokens,
    }  # fmt: skip
    key = digest_json(provenance)
    folder = None if out is None else Path(out)

    def measured(one: Model) -> list[bool]:
        return refused_of(rollouts(one, kept, max_new_tokens=max_new_tokens), judged)

    rows: list[dict[str, Any]] = []
    with progress_bar("repairs", len(wanted), progress) as advance:
        plain = _kept(folder, "plain", key) or _keep(folder, "plain", key, {"refused": measured(model)})
        for rule, size, seed in wanted:
            name = f"{rule}-{seed}" if rule == "all" else f"{rule}-{size:g}-{seed}"
            cell = _kept(folder, name, key)
            if cell is None:
                own = picks[rule, size, seed]
                done = repair(model, own.traces, retain=retain, refusals=refusals, judged=judged, seed=seed, **recipe)
                found = {"n": len(own), "loss": done.losses[-1], "refused": measured(done.model)}
                cell = _keep(folder, name, key, found)
            rows.append({"rule": rule, "size": size, "seed": seed, **cell})
            advance(1)
    return _table(rows, plain["refused"], kept, scored.n_harmful, provenance)


def _kept(folder: Path | None, name: str, key: str) -> dict[str, Any] | None:
    if folder is None or not (file := folder / f"{name}.json").exists():
        return None
    try:
        cell: Any = json.loads(file.read_text(encoding="utf-8"))
        ours = cell["format"] == _FORMAT and isinstance(cell["refused"], list)
    except (ValueError, LookupError, TypeError) as error:
        raise FormatError(f"{file} is damaged: delete it, and it is made again") from error
    if not ours or cell["key"] != key:
        raise FormatError(
            f"{file} belongs to a table of another model, pool or recipe: give another folder, or delete it"
        )
    return cell


def _keep(folder: Path | None, name: str, key: str, found: dict[str, Any]) -> dict[str, Any]:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / f"{name}.json", {"format": _FORMAT, "key": key, **found})
    return found


def _table(
    rows: Sequence[dict[str, Any]], plain: Sequence[bool], prompts: PromptSet, n_pool: int, provenance: dict[str, Any]
) -> RepairTable:
    import pandas as pd

    side = {label: np.asarray([given == label for given in prompts.labels]) for label in LABELS}
    groups = {label: np.asarray(prompts.groups)[mask] for label, mask in side.items()}
    before = np.asarray(plain)
    cells: list[dict[str, Any]] = []
    refused: dict[tuple[str, int], list[np.ndarray[Any, Any]]] = {}
    for row in rows:
        own = np.asarray(row["refused"], dtype=float)
        refused.setdefault((row["rule"], row["n"]), []).append(own)
        rates = {label: float(own[mask].mean()) for label, mask in side.items()}
        cells.append({**{k: row[k] for k in ("rule", "size", "n", "seed")}, "share": row["n"] / n_pool, **rates,
                      "loss": row["loss"]})  # fmt: skip
    mean = {at: np.mean(several, 0) for at, several in refused.items()}
    every = next((at for at in mean if at[0] == "all"), None)
    made: list[dict[str, Any]] = []
    for (rule, n), values in sorted(mean.items(), key=lambda item: (item[0][1], RULES.index(item[0][0]))):
        each = [float(v[side[HARMFUL]].mean()) for v in refused[rule, n]]
        made.append(
            {"n": n, "share": n / n_pool, "rule": rule, "seeds": len(each), "least": min(each), "most": max(each)}
        )

        def told(name: str, difference: np.ndarray[Any, Any], label: str) -> None:
            value, low, high = mean_interval(difference[side[label]], groups=groups[label])
            made[-1] |= {name: value, ("" if name == HARMFUL else f"{name}_") + "low": low,
                         ("" if name == HARMFUL else f"{name}_") + "high": high}  # fmt: skip

        told(HARMFUL, values, HARMFUL)
        told(HARMLESS, values, HARMLESS)
        made[-1]["rise"] = made[-1][HARMLESS] - float(before[side[HARMLESS]].mean())
        for name, other in (("to_all", every), ("to_random", ("random", n))):
            if other is not None and other in mean:
                told(name, values - mean[other], HARMFUL)
    rates = {label: Rate(int(before[mask].sum()), int(mask.sum())) for label, mask in side.items()}
    return RepairTable(pd.DataFrame(cells), pd.DataFrame(made), rates, n_pool, provenance)
