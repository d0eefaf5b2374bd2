"""`fit_plan`: probes of what an answer will be, beside what tells it without looking inside, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interp.errors import ProbeError
from interp.progress import progress_bar
from probes.planning.baselines import ASKED, CHANCE, MAJORITY, MEAN, could_answer, missing_baselines
from probes.planning.claims import ALPHA, MARGIN, PLANNED, Comparisons, Verdict, decide
from probes.planning.curves import Curve, curve_of
from probes.planning.examples import PROMPT, PlanExamples, cell
from probes.planning.joining import Design, Joint, join
from probes.planning.learning import KINDS, LINEAR, WIDTHS, Parts, Target, fit_kind
from probes.planning.linear import Floats
from probes.planning.rounds import Round, cells_of, one_round
from probes.planning.scoring import NAMES, RANGES, check_metric, metrics_of

SEEDS = (0, 1, 2)
DRAWS = 500


@dataclass(frozen=True, eq=False)
class PlanProbe:
    """A linear probe of an attribute, in the units of the activations.

    Attributes:
        weights: `[k, d]`; k is 1 for a regression, else the number of classes.
        intercept: `[k]`.
        classes: The classes; none for a regression.
        layer: The layer.
    """

    weights: Floats
    intercept: Floats
    classes: tuple[Any, ...]
    layer: int

    def values(self, x: NDArray[Any]) -> Floats:
        """Foretold numbers `[m]`, or logits `[m, k]`, of states `[m, d]`."""
        found = np.asarray(x, dtype=np.float64) @ self.weights.T + self.intercept
        return found if self.classes else found[:, 0]

    def predict(self, x: NDArray[Any]) -> NDArray[Any]:
        """Foretold labels of states `[m, d]`."""
        values = self.values(x)
        return np.asarray(self.classes)[values.argmax(1)] if self.classes else values

    def direction(self, towards: Any = None) -> Floats:
        """Weights `[d]`: towards a class, against the mean of the others; of a regression, towards more.

        Raises:
            ProbeError: When no class is named, or one that there is not.
        """
        if not self.classes:
            return self.weights[0]
        if towards not in self.classes:
            raise ProbeError(f"say towards which class: one of {list(self.classes)}, not {towards!r:.40}")
        i = self.classes.index(towards)
        return self.weights[i] - np.delete(self.weights, i, 0).mean(0)


@dataclass(frozen=True, eq=False)
class PlanFit:
    """What hidden states foretell of an attribute, beside what foretells it without them.

    Scores are on test rows, means over seeds, with 95 % intervals that draw groups and don't count seeds as
    independent (`probes.planning.joining`). The score of the highest layer in `scores` is no fair estimate, having been
    found on test rows; `best` is, chosen on validation rows.

    Attributes:
        examples: What was fitted.
        rounds: What each seed found, with predictions of its test rows.
        metric: The score that decides.
        alpha: Level of the verdict's claims, one-sided.
        margin: The smallest difference that counts.
        kinds: Kinds of probe that could be chosen.
        widths: Widths of networks.
    """

    examples: PlanExamples = field(repr=False)
    rounds: tuple[Round, ...] = field(repr=False)
    metric: str
    alpha: float
    margin: float
    kinds: tuple[str, ...]
    widths: tuple[int, ...]

    @property
    def attribute(self) -> str:
        """What is foretold."""
        return self.examples.attribute

    @property
    def kind(self) -> str:
        """`"regression"` or `"classes"`."""
        return self.examples.kind

    @property
    def classes(self) -> tuple[Any, ...]:
        """The classes; none for a regression."""
        return self.examples.classes

    @property
    def n(self) -> int:
        """Answers."""
        return len(self.examples)

    @property
    def n_groups(self) -> int:
        """Groups of prompts."""
        return self.examples.n_groups

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds."""
        return tuple(r.seed for r in self.rounds)

    @property
    def metrics(self) -> tuple[str, ...]:
        """All scores of this kind of attribute."""
        return metrics_of(self.kind)

    @property
    def missing(self) -> tuple[str, ...]:
        """Baselines that had no input."""
        return missing_baselines(self.examples)

    @property
    def positions(self) -> tuple[str, ...]:
        """`"prompt"`, and the segments in order."""
        return (PROMPT, *(s.name for s in self.examples.segments))

    @cached_property
    def design(self) -> Design:
        """How the seeds lie to each other."""
        tested = [r.split[2] for r in self.rounds]
        return Design(
            len(self.rounds), float(np.mean([len(r.split[0]) for r in self.rounds])),
            float(np.mean([len(t) for t in tested])),
            min(len(set(self.examples.groups[t].tolist())) for t in tested),
            all(np.array_equal(t, tested[0]) for t in tested),
        )  # fmt: skip

    def split(self, seed: int | None = None) -> NDArray[np.str_]:
        """For each row `"train"`, `"val"` or `"test"`; of the first seed by default."""
        return self.examples.split(self.seeds[0] if seed is None else seed)

    @cached_property
    def scores(self) -> Any:
        """pandas, a row per cell: `position`, `region`, `layer`, `probe`, `metric`, `value`, `low`, `high`, `val`."""
        rows: list[dict[str, Any]] = []
        for position, s, layer, kinds in cells_of(self.examples, self.kinds):
            region = self.examples.segments[s].region if s >= 0 else PROMPT
            for kind in kinds:
                key = (position, layer, kind)
                joint = self._joint(self.metric, [r.cells[key][0] for r in self.rounds])
                rows.append({
                    "position": position, "region": region, "layer": layer, "probe": kind,
                    **self._row(self.metric, joint), "val": float(np.mean([r.cells[key][1] for r in self.rounds])),
                })  # fmt: skip
        return _frame(rows)

    @cached_property
    def chosen(self) -> Any:
        """pandas, a row per position and seed: `position`, `seed`, `layer`, `probe`, `setting`, `val`."""
        return _frame([
            {"position": p, "seed": r.seed, "layer": c.layer, "probe": c.kind, "setting": c.setting, "val": c.val}
            for p in self.positions for r in self.rounds for c in [r.chosen[p]]
        ])  # fmt: skip

    @cached_property
    def best(self) -> Any:
        """pandas, a row per position and score of the chosen probe: `position`, `metric`, `value`, `low`, `high`."""
        return _frame([
            {"position": p, **self._row(m, self._joint(m, [r.predicted(p) for r in self.rounds]))}
            for p in self.positions for m in self.metrics
        ])  # fmt: skip

    @cached_property
    def baselines(self) -> Any:
        """pandas, a row per position, baseline and score: also `value`, `low`, `high`, `coverage`.

        Those of the prompt are the same at every position, but for shuffled labels; `coverage` is the share of answers
        for which there was a prediction at all.
        """
        asked = self.examples.asked
        share = 1.0 if asked is None else float(np.mean([could_answer(v) for v in asked]))
        return _frame([
            {"position": p, "baseline": name, **self._row(m, self._joint(m, [r.baselines[p][name] for r in self.rounds])),
             "coverage": share if name == ASKED else 1.0}
            for p in self.positions for name in self.rounds[0].baselines[p] for m in self.metrics
        ])  # fmt: skip

    @cached_property
    def differences(self) -> Any:
        """pandas, a row per position and baseline: the chosen probe's score minus the baseline's, paired.

        `difference`, `low`, `high` (95 %), `bound` (one-sided at 1 - alpha: above 0, the probe is better), `p`.
        """
        rows: list[dict[str, Any]] = []
        for position, found in self.comparisons.over.items():
            for name, d in found.items():
                low, high = d.interval()
                rows.append({
                    "position": position, "baseline": name, "difference": d.value, "low": low, "high": high,
                    "bound": d.bound(self.alpha), "p": d.p,
                })  # fmt: skip
        return _frame(rows)

    @cached_property
    def comparisons(self) -> Comparisons:
        """Scores and paired differences, from which the verdict is made."""
        first = self.rounds[0].baselines
        chance = [name for name in CHANCE if name in first[PROMPT]]

        def of(p: str, name: str) -> list[Floats]:
            return [r.baselines[p][name] for r in self.rounds]

        return Comparisons(
            metric=self.metric,
            probe={p: self._joint(self.metric, self._chosen(p)) for p in self.positions},
            baselines={name: self._joint(self.metric, of(PROMPT, name)) for name in first[PROMPT]},
            over={p: {name: self._difference(self._chosen(p), of(p, name)) for name in first[p]} for p in self.positions},
            over_prompt={p: self.between(p, PROMPT) for p in self.positions[1:]},
            baseline_over_chance={
                name: {c: self._difference(of(PROMPT, name), of(PROMPT, c)) for c in chance}
                for name in first[PROMPT] if name not in chance
            },
            segments=self.examples.segments,
        )  # fmt: skip

    @cached_property
    def verdict(self) -> Verdict:
        """The claim, by the rule of `probes.planning.claims`."""
        return decide(self.comparisons, self.alpha, self.margin)

    @cached_property
    def curve(self) -> Curve:
        """How the score runs over what is written."""
        chance = MAJORITY if self.classes else MEAN
        planned = self.verdict.claim == PLANNED
        return curve_of(self.comparisons, self.between, chance, planned, self.alpha, self.margin)

    def between(self, a: str, b: str) -> Joint:
        """Score of the probe at one position minus that at another, paired."""
        return self._difference(self._chosen(a), self._chosen(b))

    def predictions(self) -> Any:
        """pandas, a row per seed and test row: `seed`, `row`, `id`, `group`, `label`, then what each foretold."""
        import pandas as pd

        ids = self.examples.ids
        parts: list[Any] = []
        for r in self.rounds:
            rows = r.split[2]
            columns: dict[str, Any] = {
                "seed": r.seed, "row": rows, "id": [str(i) if ids is None else ids[i] for i in rows],
                "group": self.examples.groups[rows], "label": self.examples.labels[rows],
            }  # fmt: skip
            columns |= {p: self._named(r.predicted(p)) for p in self.positions}
            columns |= {
                name: self._named(found) for name, found in r.baselines[PROMPT].items() if found.ndim == 1
            }  # fmt: skip
            parts.append(pd.DataFrame(columns))
        return pd.concat(parts, ignore_index=True)

    def linear(self, layer: int | None = None, seed: int | None = None) -> PlanProbe:
        """The linear probe of a layer at the last prompt token, fitted to a seed's training rows.

        Args:
            layer: By default the layer that this seed chose on validation rows, among linear probes.
            seed: By default the first.

        Raises:
            ProbeError: For a layer or seed that was not fitted.
        """
        seed = self.seeds[0] if seed is None else seed
        if seed not in self.seeds:
            raise ProbeError(f"seed {seed} was not fitted: {self.seeds} were")
        found = self.rounds[self.seeds.index(seed)]
        if layer is None:
            vals = {at: found.cells[PROMPT, at, LINEAR][1] for at in self.examples.layers if LINEAR in self.kinds}
            layer = max(vals, key=lambda at: vals[at]) if vals else self.examples.layers[-1]
        if layer not in self.examples.layers:
            raise ProbeError(f"layer {layer} was not fitted: {self.examples.layers} were")
        x = cell(self.examples.prompt[:, self.examples.layers.index(layer)], f"layer {layer}")
        target = Target.of(self.examples.labels, self.classes)
        train, val, _ = (target.with_labels(target.y[rows]) for rows in found.split)
        probe = fit_kind(LINEAR, Parts.of(x, *found.split), train, val)
        assert probe.weights is not None and probe.intercept is not None
        return PlanProbe(probe.weights, probe.intercept, self.classes, layer)

    def to_frame(self) -> Any:
        """The scores of all cells (pandas); `best`, `baselines`, `differences` and `chosen` stand beside it."""
        return self.scores

    def plot(self) -> Any:
        """Score by layer with the baselines (plotly); `probes.figures.plan_along` draws it along the answer."""
        from probes.figures.planning import plan_layers

        return plan_layers(self)

    def report(self) -> str:
        """A few lines: the verdict, the curve, what was not compared with."""
        lines = [f"{self.attribute} ({self.n} answers, {self.n_groups} groups): {self.verdict}"]
        lines += [f"  {d['baseline']}: {d['difference']:+.2f} [{d['low']:+.2f}, {d['high']:+.2f}]"
                  for d in self.differences[self.differences["position"] == PROMPT].to_dict("records")]  # fmt: skip
        if self.examples.segments:
            lines.append(f"  along what is written: {self.curve}")
        if self.missing:
            lines.append(f"  not compared with (no input): {', '.join(self.missing)}")
        return "\n".join(lines)

    def __str__(self) -> str:
        return f"{self.attribute}: {self.verdict}"

    def _chosen(self, position: str) -> list[Floats]:
        return [r.predicted(position) for r in self.rounds]

    def _joint(self, metric: str, predicted: Sequence[Floats]) -> Joint:
        found = [r.scored(metric, p) for r, p in zip(self.rounds, predicted, strict=True)]
        return join([v for v, _ in found], [d for _, d in found], self.design)

    def _difference(self, a: Sequence[Floats], b: Sequence[Floats]) -> Joint:
        one = [r.scored(self.metric, p) for r, p in zip(self.rounds, a, strict=True)]
        two = [r.scored(self.metric, p) for r, p in zip(self.rounds, b, strict=True)]
        return join(
            [v - w for (v, _), (w, _) in zip(one, two, strict=True)],
            [d - e for (_, d), (_, e) in zip(one, two, strict=True)],
            self.design,
        )

    def _row(self, metric: str, joint: Joint) -> dict[str, Any]:
        low, high = joint.interval(within=RANGES[metric])
        return {"metric": metric, "value": joint.value, "low": low, "high": high}

    def _named(self, predicted: Floats) -> Any:
        if not self.classes:
            return predicted
        return [self.classes[int(c)] if c >= 0 else None for c in predicted]


def fit_plan(
    examples: PlanExamples,
    *,
    seeds: Sequence[int] = SEEDS,
    kinds: Sequence[str] = KINDS,
    widths: Sequence[int] = WIDTHS,
    metric: str | None = None,
    alpha: float = ALPHA,
    margin: float = MARGIN,
    draws: int = DRAWS,
    progress: bool = False,
) -> PlanFit:
    """Fit probes to every layer and segment, choose on validation rows, and compare on test rows.

    After Dong et al. 2025 ("Emergent Response Planning in LLMs"), with paired intervals and the baselines that say
    what is foretold by less than a plan.

    Args:
        examples: Labels, states and what baselines need.
        seeds: Each splits the groups 60/20/20 anew.
        kinds: `"linear"`, `"mlp"` or both; along the answer linear ones alone, where they are among them.
        widths: Widths of the network to choose from.
        metric: The score that decides: `"kendall"` for numbers, `"accuracy"` for classes by default.
        alpha: Level of the verdict's claims, one-sided.
        margin: The smallest difference that counts.
        draws: Bootstrap draws of test groups.
        progress: Show a bar.

    Raises:
        ProbeError: For settings that are none, a class in too few groups, or states that are not finite.
    """
    metric = check_metric(metric, examples.kind)
    if not seeds or len(set(seeds)) < len(seeds):
        raise ProbeError(f"seeds {tuple(seeds)}: give one or more, each once")
    if not kinds or set(kinds) - set(KINDS):
        raise ProbeError(f"kinds {tuple(kinds)}: choose of {', '.join(KINDS)}")
    if not 0 < alpha < 0.5 or margin < 0:
        raise ProbeError(f"alpha={alpha}, margin={margin}: alpha lies between 0 and 0.5, margin is 0 or more")
    kinds = tuple(k for k in KINDS if k in kinds)
    rounds: list[Round] = []
    total = len(seeds) * len(cells_of(examples, kinds))
    with progress_bar(f"planning probes ({NAMES[metric]})", total, progress) as advance:
        for seed in seeds:
            rounds.append(
                one_round(
                    examples, seed, kinds=kinds, widths=tuple(widths), metric=metric, draws=draws, advance=advance
                )
            )
    return PlanFit(examples, tuple(rounds), metric, alpha, margin, kinds, tuple(widths))


def _frame(rows: list[dict[str, Any]]) -> Any:
    import pandas as pd

    return pd.DataFrame(rows)
