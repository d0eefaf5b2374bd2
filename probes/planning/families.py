"""The same attribute across models: a family by size, or before and after post-training."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp.errors import ModelError
from interp.model.load import load
from interp.model.model import Model
from interp.text.prompts import Prompt, PromptSet
from probes.planning.attributes import Attribute
from probes.planning.planned import Plan, plan


@dataclass(frozen=True, eq=False)
class PlanModels:
    """What several models plan of one attribute.

    Attributes:
        plans: By model, in the order they were given.
    """

    plans: Mapping[str, Plan]

    def __repr__(self) -> str:
        claims = ", ".join(f"{name}: {one.claim}" for name, one in self.plans.items())
        about = next((one.attribute.name for one in self.plans.values()), "nothing")
        return f"PlanModels of {about}, {len(self.plans)} models\n  {claims}"

    def to_frame(self) -> Any:
        """One row per model (pandas): size, answers, claim, probe at the prompt, best baseline, their difference."""
        import pandas as pd

        return pd.DataFrame([{"model": name, **_row(one)} for name, one in self.plans.items()])

    def changes(self) -> Any:
        """Each model's score at the prompt less that of the first one, with a 95 % interval (pandas).

        Models answer differently, so that neither labels nor rows are paired; the interval squares and adds the two
        scores' own (Newcombe 1998), which is wide where the same prompts make both models score alike.
        """
        import pandas as pd

        table = self.to_frame()
        first = table.iloc[0]
        rows: list[dict[str, Any]] = []
        for _, own in table.iloc[1:].iterrows():
            d = own["value"] - first["value"]
            low = d - math.hypot(own["value"] - own["low"], first["high"] - first["value"])
            high = d + math.hypot(own["high"] - own["value"], first["value"] - first["low"])
            rows.append({"model": own["model"], "against": first["model"], "difference": d, "low": low, "high": high})
        return pd.DataFrame(rows, columns=["model", "against", "difference", "low", "high"])

    def plot(self) -> Any:
        """The score at the prompt by the number of parameters, best baseline beside (plotly)."""
        from probes.figures.planning import plan_scaling

        return plan_scaling(
            {name: p.fit for name, p in self.plans.items()}, {name: p.n_parameters for name, p in self.plans.items()}
        )


def plan_models(
    models: Mapping[str, Model | str] | Sequence[Model | str],
    prompts: PromptSet | Sequence[Prompt | str],
    attribute: Attribute | str,
    *,
    out: str | os.PathLike[str] | None = None,
    loading: Mapping[str, Any] | None = None,
    progress: bool = False,
    **options: Any,
) -> PlanModels:
    """`probes.plan` for several models.

    Args:
        models: Models, or names, of which one at a time is loaded; or either by what to call them.
        prompts: The same for all of them.
        attribute: The attribute.
        out: A folder, with one of every model in it; see `probes.plan`.
        loading: Options of `interp.load` for models given by name.
        progress: Show progress bars.
        options: More for `probes.plan`.

    Raises:
        ModelError: For fewer than two models, or two of one name.
    """
    named = list(models.items()) if isinstance(models, Mapping) else [(_name(m), m) for m in models]
    if len(named) < 2 or len({name for name, _ in named}) < len(named):
        names = ", ".join(repr(name) for name, _ in named)
        raise ModelError(f"{names or 'no models'}: give two or more to compare, as {{name: model}} if names repeat")
    if len({_slug(name) for name, _ in named}) < len(named) and out is not None:
        raise ModelError("two models would share a folder: give them names that differ in letters, as {name: model}")
    found: dict[str, Plan] = {}
    for name, given in named:
        model = load(given, **dict(loading or {})) if isinstance(given, str) else given
        folder = None if out is None else Path(out) / _slug(name)
        found[name] = plan(model, prompts, attribute, out=folder, progress=progress, **options)
        del model  # before the next one is loaded
    return PlanModels(found)


def _name(model: Model | str) -> str:
    return model if isinstance(model, str) else model.name


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "model"


def _row(one: Plan) -> dict[str, Any]:
    evidence = one.fit.verdict.evidence
    (low, high), (gap_low, gap_high) = evidence["probe interval"], evidence["difference interval"]
    return {
        "n_parameters": one.n_parameters, "n": len(one.answers), "claim": one.claim, "metric": one.fit.metric,
        "value": evidence["probe"], "low": low, "high": high, "best_baseline": evidence["best baseline"],
        "difference": evidence["difference"], "difference_low": gap_low, "difference_high": gap_high,
    }  # fmt: skip
