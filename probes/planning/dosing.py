"""The causal check: does moving the last prompt token's state along the planning probe change what is written?

A probe may read what nothing else reads. So the state is moved by so many standard deviations of what the probe
foretells, the answer is written anew, and its attribute is read off. The direction is the probe's pattern, the states'
covariance with what it foretells (Haufe et al. 2014), since its weights say how to read and not where states vary.
Random directions of the same norm are the control.

Causal is not planned: a state that is moved may change the answer through its first token alone, and in the last layer
nothing else can, since no later token reads what the last block puts out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interp.bootstrap import drawn_means, group_draws, percentiles
from interp.direction import Direction
from interp.errors import ProbeError
from interp.model.model import Model
from interp.progress import progress_bar
from interp.text.checks import shorten
from probes.planning.planned import Plan, fitting_length
from probes.planning.steered import Floats, Outcome, Runs, effect, lost_share

DOSES = (1.0, 2.0, 4.0)
MOST_LOST = 0.2
"""Answers that an edit may make unreadable before its effect counts for nothing."""
SAME = 0.9
"""Share of the largest effect on validation prompts from which on a smaller dose counts as doing the same."""


LAST = "That is the last layer, which no later token reads: nothing beyond the first token is shown to be planned."


@dataclass(frozen=True, eq=False)
class PlanCausal:
    """What steering along a planning probe does to the attribute.

    Attributes:
        model: The model's name.
        attribute: Its name.
        kind: `"regression"`: the effect is half the difference between the mean at `+dose` and at `-dose`; `"classes"`:
            the share of answers that become the class they are steered to, less that without steering.
        position: The token that is moved.
        layer: Where; chosen on validation prompts, as is the dose.
        last: Whether that is the last layer, whose states reach the answer through its first token alone.
        dose: In standard deviations of the projection on the probe, over training prompts.
        effect: On test prompts, at that dose.
        low: Lower end of its 95 % interval (bootstrap over groups).
        high: Upper end.
        random: The same effect of each random direction of the same norm.
        excess: Effect less the mean of the random ones, with its 95 % interval, paired over prompts.
        lost: Share of the steered answers that have no such attribute any more, beyond those that had none before.
        n: Test prompts.
        holds: Whether steering works: the excess is above 0 with its interval, the effect above each random one, and no
            more than 0.2 of the answers are lost.
        table: The dose-response (pandas): `dose`, `kind` (`"probe"`, `"random"`), `draw`, `value`, `low`, `high`,
            `lost`, `n`.
        choice: What was tried on validation prompts (pandas): `layer`, `dose`, `effect`, `lost`, `chosen`.
        directions: The steering direction, by class; of a regression under `""`.
        examples: A few test prompts with what was written before and after.
    """

    model: str
    attribute: str
    kind: str
    position: str
    layer: int
    last: bool
    dose: float
    effect: float
    low: float
    high: float
    random: tuple[float, ...]
    excess: tuple[float, float, float]
    lost: float
    n: int
    holds: bool
    table: Any = field(repr=False)
    choice: Any = field(repr=False)
    directions: Mapping[str, Direction] = field(repr=False)
    examples: tuple[tuple[str, str, str], ...] = field(repr=False)

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        name, dose = self.attribute.replace("_", " "), f"{self.dose:g}"
        if self.kind == "regression":
            what, unit = f"mean {name}", f", half the difference between +{dose} and -{dose}"
        else:
            what, unit = f"the share of answers with the {name} steered to", ", against no steering"
        there = [r for r in self.random if math.isfinite(r)]
        among = f"{min(there):+.2f} to {max(there):+.2f}" if there else "nothing that can be read"
        figures = (
            f"at layer {self.layer}, {self.position}, {dose} standard deviations of the projection move {what} by "
            f"{self.effect:+.2f} [{self.low:+.2f}, {self.high:+.2f}]{unit}, on {self.n} test prompts; "
            f"{len(self.random)} random directions of the same norm move it by {among}; {self.lost:.0%} of the answers "
            "lose the attribute"
        )
        verdict = "readable and causal" if self.holds else "readable, not causal"
        if not (self.holds and self.last):
            return f"{verdict}: {figures}."
        return f"{verdict}, through its first token alone: {figures}. {LAST}"

    def to_frame(self) -> Any:
        """The dose-response (pandas)."""
        return self.table

    def plot(self) -> Any:
        """The dose-response, random directions beside (plotly)."""
        from probes.figures.planning import plan_dose

        return plan_dose(self.table, self.attribute, self.kind)

    def __repr__(self) -> str:
        return f"PlanCausal of {self.model}, {self.attribute}: {self.sentence}"


def plan_causal(
    model: Model,
    planned: Plan,
    *,
    layers: Sequence[int] | None = None,
    doses: Sequence[float] = DOSES,
    position: str = "t_post_inst",
    n_random: int = 8,
    n_val: int = 48,
    n_test: int = 96,
    max_new_tokens: int | None = None,
    draws: int = 500,
    seed: int = 0,
    progress: bool = False,
) -> PlanCausal:
    """Steer along the planning probe of the prompt's last token, and read the attribute off the new answers.

    Layer and dose are chosen on validation prompts: the smallest dose that moves nine tenths of the most that any does
    without losing the attribute, and the layer where it moves most; where nothing moves, the layer that reads best and
    the largest dose. Test prompts are looked at once. Of classes, every prompt is steered
    to one class that its answer has not, drawn by the seed (of the options it offers, where it offers some).

    Args:
        model: The model that was planned with, in the same mode.
        planned: What `probes.plan` found.
        layers: To choose from; all by default.
        doses: Standard deviations of what the probe foretells, above 0; a number is also steered down by each.
        position: The token that is moved while the prompt is read: the one that is probed, or `"prompt"` for all.
        n_random: Random directions of the same norm.
        n_val: Most validation prompts.
        n_test: Most test prompts.
        max_new_tokens: Longest answer; that of the plan by default.
        draws: Bootstrap draws of groups.
        seed: For targets, random directions and draws.
        progress: Show a progress bar.

    Raises:
        ProbeError: For what is no plan, doses that are not above 0, too few random directions, or a plan without
            validation prompts.
    """
    if not isinstance(planned, Plan):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ProbeError(f"{shorten(repr(planned))} is no plan: give what probes.plan(model, ...) returns")
    if not doses or min(doses) <= 0 or n_random < 2:
        raise ProbeError(f"doses={tuple(doses)}, n_random={n_random}: give doses above 0, and two random directions")
    parts = planned.fit.split()
    tested = {name: _rows(parts, name, n, seed) for name, n in (("val", n_val), ("test", n_test))}
    if min(len(rows) for rows in tested.values()) < 2:
        raise ProbeError("too few validation or test prompts to steer: give more prompts")
    wanted = max_new_tokens or int(planned.provenance.get("max_new_tokens", 256))
    tokens = fitting_length(model, [a.prompt for a in planned.answers], wanted)
    tried = tuple(range(model.n_layers)) if layers is None else tuple(layers)
    with progress_bar("steering", len(tried) + 1, progress) as advance:
        run = Runs(model, planned, tokens, position, seed)
        options: list[dict[str, Any]] = []
        for layer in tried:
            options += run.effects(layer, tested["val"], doses)
            advance(1)
        best = _chosen(options, planned.fit.linear().layer)
        found = run.measure(best["layer"], tested["test"], doses, n_random)
        advance(1)
    return _concluded(planned, found, best, options, position, best["layer"] == model.n_layers - 1, draws, seed)


def _chosen(options: Sequence[dict[str, Any]], reads: int) -> dict[str, Any]:
    """The weakest dose that moves as much as any, where it moves most; where nothing moves, see `plan_causal`."""
    sound = [o for o in options if o["lost"] <= MOST_LOST] or list(options)
    if (most := max(o["effect"] for o in sound)) > 0:
        alike = [o for o in sound if o["effect"] >= SAME * most]
        return max(alike, key=lambda o: (-o["dose"], o["effect"], -o["layer"]))
    return max(sound, key=lambda o: (o["layer"] == reads, o["dose"]))


def _rows(parts: NDArray[np.str_], name: str, n: int, seed: int) -> NDArray[np.int64]:
    rows = np.flatnonzero(parts == name)
    return np.sort(np.random.default_rng(seed).permutation(rows)[:n])


def _mean(values: Floats) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def _concluded(
    planned: Plan, found: Outcome, best: dict[str, Any], options: list[dict[str, Any]], position: str, last: bool,
    draws: int, seed: int,
) -> PlanCausal:  # fmt: skip
    import pandas as pd

    classes, dose = planned.attribute.kind == "classes", float(best["dose"])
    weights = group_draws(planned.examples.groups[found.rows], draws, seed)
    own = effect(found.plain, found.probe, dose, classes)
    others = np.stack([effect(found.plain, r, dose, classes) for r in found.random])
    random = tuple(_mean(o) for o in others)
    excess = own - np.where(np.isfinite(others), others, 0.0).mean(0)  # a control that breaks the answer moves nothing
    between = _interval(excess, weights)
    lost, (low, high) = lost_share(found.plain, found.probe, dose), _interval(own, weights)
    value = _mean(own)
    holds = bool(between[0] > 0 and value > max(map(abs, random)) and lost <= MOST_LOST)
    plain, changed = found.texts[0.0], found.texts[dose]
    shown = [i for i in range(len(plain)) if plain[i] != changed[i]] or list(range(len(plain)))
    return PlanCausal(
        planned.model, planned.attribute.name, planned.attribute.kind, position, found.layer, last, dose, value, low,
        high, random, (_mean(excess), *between), lost, len(found.rows), holds,
        pd.DataFrame(_dose_rows(found, weights, classes)),
        pd.DataFrame([{**o, "chosen": o is best} for o in options]), found.directions,
        tuple((planned.answers[int(found.rows[i])].prompt.text, plain[i], changed[i]) for i in shown[:5]),
    )  # fmt: skip


def _dose_rows(found: Outcome, weights: Floats, classes: bool) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for kind, several in (("probe", [found.probe]), ("random", found.random)):
        for draw, one in enumerate(several):
            for dose, values in sorted([(0.0, found.plain), *one.items()]):
                counted = np.nan_to_num(values) if classes else values
                low, high = _interval(counted, weights)
                rows.append({
                    "dose": dose, "kind": kind, "draw": draw, "value": _mean(counted), "low": low, "high": high,
                    "lost": float(np.isnan(values).mean()), "n": len(values),
                })  # fmt: skip
    return rows


def _interval(values: Floats, weights: Floats) -> tuple[float, float]:
    there = np.isfinite(values)
    if not there.any():
        return float("nan"), float("nan")
    return percentiles(drawn_means(values[there], weights[:, there]))
