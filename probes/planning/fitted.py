"""`PlanFit`: what was fitted for an attribute, with its comparisons and its verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interp.errors import ProbeError
from probes.planning.baselines import ASKED, CHANCE, MAJORITY, MEAN, could_answer, missing_baselines
from probes.planning.claims import PLANNED, Comparisons, Verdict, decide
from probes.planning.curves import Curve, curve_of
from probes.planning.examples import PROMPT, PlanExamples
from probes.planning.joining import Design, Joint, join, layers_said
from probes.planning.linear import Floats
from probes.planning.rounds import Round, cells_of
from probes.planning.scoring import RANGES, metrics_of
from probes.planning.weights import PlanProbe, linear_probe


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
        kinds: Kinds of probe; the first of them is the one that claims rest on.
    """

    examples: PlanExamples = field(repr=False)
    rounds: tuple[Round, ...] = field(repr=False)
    metric: str
    alpha: float
    margin: float
    kinds: tuple[str, ...]

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
    def layers(self) -> tuple[int, ...]:
        """The layer that each seed chose on validation rows at the last prompt token: the verdict rests on these."""
        return tuple(r.chosen[PROMPT, self.kinds[0]] for r in self.rounds)

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
                cells = [r.cells[position, layer, kind] for r in self.rounds]
                rows.append({
                    "position": position, "region": region, "layer": layer, "probe": kind,
                    **_row(self.metric, self._joint(self.metric, [c.test for c in cells])),
                    "val": float(np.mean([c.val for c in cells])),
                })  # fmt: skip
        return _frame(rows)

    @cached_property
    def chosen(self) -> Any:
        """pandas, a row per position, kind of probe and seed: also `layer`, `setting`, `val`."""
        return _frame([
            {"position": p, "probe": kind, "seed": r.seed, "layer": layer, "setting": r.probe(p, kind).setting,
             "val": r.probe(p, kind).val}
            for r in self.rounds for (p, kind), layer in r.chosen.items()
        ])  # fmt: skip

    @cached_property
    def best(self) -> Any:
        """pandas, a row per position and score of the probe whose layer was chosen: `value`, `low`, `high`."""
        return _frame([
            {"position": p, **_row(m, self._joint(m, self._predicted(p)))} for p in self.positions for m in self.metrics
        ])  # fmt: skip

    @cached_property
    def baselines(self) -> Any:
        """pandas, a row per position, baseline and score: also `value`, `low`, `high`, `coverage`.

        Those of the prompt are the same at every position, but for shuffled labels; `coverage` is the share of answers
        for which there was a prediction at all.
        """
        return _frame([
            {"position": p, "baseline": name, **_row(m, self._joint(m, self._foil(p, name))),
             "coverage": self._coverage(name)}
            for p in self.positions for name in self._foils(p) for m in self.metrics
        ])  # fmt: skip

    @cached_property
    def differences(self) -> Any:
        """pandas, a row per position and baseline: the probe's score minus the baseline's, paired.

        `difference`, `low`, `high` (95 %), `bound` (one-sided at 1 - alpha: above 0, the probe is better), `p`.
        """
        return _frame([
            {"position": p, "baseline": name, **self._gap(d)}
            for p, found in self.comparisons.over.items() for name, d in found.items()
        ])  # fmt: skip

    @cached_property
    def networks(self) -> Any:
        """pandas: at the prompt, the probe with a hidden layer beside networks on what the baselines read.

        `baseline`, the network's own `score`, the baseline's `value`, and `difference` with its interval, as in
        `differences`. It decides nothing; empty where none was fitted. What it reads and the linear probe does not, it
        may have computed itself.
        """
        rows: list[dict[str, Any]] = []
        for kind in self.kinds[1:]:
            probe = self._predicted(PROMPT, kind)
            own = self._joint(self.metric, probe).value
            for name in self._foils(PROMPT, kind):
                foil = self._foil(PROMPT, name, kind)
                rows.append({
                    "probe": kind, "baseline": name, "score": own, "value": self._joint(self.metric, foil).value,
                    **self._gap(self._difference(probe, foil)),
                })  # fmt: skip
        return _frame(rows)

    @cached_property
    def comparisons(self) -> Comparisons:
        """Scores and paired differences, from which the verdict is made."""
        names = self._foils(PROMPT)
        chance = [name for name in CHANCE if name in names]
        foils = {name: self._foil(PROMPT, name) for name in names}
        return Comparisons(
            metric=self.metric,
            probe={p: self._joint(self.metric, self._predicted(p)) for p in self.positions},
            baselines={name: self._joint(self.metric, foils[name]) for name in names},
            over={
                p: {name: self._difference(self._predicted(p), self._foil(p, name)) for name in self._foils(p)}
                for p in self.positions
            },
            over_prompt={p: self.between(p, PROMPT) for p in self.positions[1:]},
            baseline_over_chance={
                name: {c: self._difference(foils[name], foils[c]) for c in chance}
                for name in names if name not in chance
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
        return self._difference(self._predicted(a), self._predicted(b))

    def linear(self, layer: int | None = None, seed: int | None = None) -> PlanProbe:
        """The linear probe of a layer at the last prompt token, fitted to a seed's training rows.

        Args:
            layer: By default the layer that this seed chose on validation rows.
            seed: By default the first.

        Raises:
            ProbeError: For a layer or seed that was not fitted.
        """
        seed = self.seeds[0] if seed is None else seed
        if seed not in self.seeds:
            raise ProbeError(f"seed {seed} was not fitted: {self.seeds} were")
        return linear_probe(self.examples, self.rounds[self.seeds.index(seed)], layer)

    def predictions(self) -> Any:
        """pandas, a row per seed and test row: `seed`, `row`, `id`, `group`, `label`, then what each foretold."""
        import pandas as pd

        ids, parts = self.examples.ids, list[Any]()
        for r in self.rounds:
            rows = r.split[2]
            columns: dict[str, Any] = {
                "seed": r.seed, "row": rows, "id": [str(i) if ids is None else ids[i] for i in rows],
                "group": self.examples.groups[rows], "label": self.examples.labels[rows],
            }  # fmt: skip
            columns |= {p: self._named(r.probe(p, self.kinds[0]).test) for p in self.positions}
            foils = r.baselines[PROMPT, self.kinds[0]]
            columns |= {name: self._named(found) for name, found in foils.items() if found.ndim == 1}
            parts.append(pd.DataFrame(columns))
        return pd.concat(parts, ignore_index=True)

    def to_frame(self) -> Any:
        """The scores of all cells (pandas); `best`, `baselines`, `differences` and `chosen` stand beside it."""
        return self.scores

    def plot(self) -> Any:
        """Score by layer with the baselines (plotly); `probes.figures.plan_along` draws it along the answer."""
        from probes.figures.planning import plan_layers

        return plan_layers(self)

    def report(self) -> str:
        """A few lines: the verdict, the curve, what was not compared with."""
        at_prompt = self.differences[self.differences["position"] == PROMPT].to_dict("records")
        return "\n".join([
            f"{self.attribute} ({self.n} answers, {self.n_groups} groups): {self.verdict}",
            f"  {layers_said(self.layers)}, chosen on validation rows; tested on {round(self.design.n_test)} answers"
            + (" by each seed" if len(self.seeds) > 1 else ""),
            *(f"  over {d['baseline']}: {d['difference']:+.2f} [{d['low']:+.2f}, {d['high']:+.2f}]" for d in at_prompt),
            *([f"  along what is written: {self.curve}"] if self.examples.segments else []),
            *([f"  not compared with (no input): {', '.join(self.missing)}"] if self.missing else []),
        ])  # fmt: skip

    def __str__(self) -> str:
        return f"{self.attribute}: {self.verdict}"

    # --- of the rounds -----------------------------------------------------------------------------------------------

    def _predicted(self, position: str, kind: str | None = None) -> list[Floats]:
        return [r.probe(position, kind or self.kinds[0]).test for r in self.rounds]

    def _foils(self, position: str, kind: str | None = None) -> tuple[str, ...]:
        return tuple(self.rounds[0].baselines[position, kind or self.kinds[0]])

    def _foil(self, position: str, name: str, kind: str | None = None) -> list[Floats]:
        return [r.baselines[position, kind or self.kinds[0]][name] for r in self.rounds]

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

    def _gap(self, d: Joint) -> dict[str, float]:
        low, high = d.interval()
        return {"difference": d.value, "low": low, "high": high, "bound": d.bound(self.alpha), "p": d.p}

    def _coverage(self, name: str) -> float:
        asked = self.examples.asked
        return 1.0 if name != ASKED or asked is None else float(np.mean([could_answer(v) for v in asked]))

    def _named(self, predicted: Floats) -> Any:
        return [self.classes[int(c)] if c >= 0 else None for c in predicted] if self.classes else predicted


def _row(metric: str, joint: Joint) -> dict[str, Any]:
    low, high = joint.interval(within=RANGES[metric])
    return {"metric": metric, "value": joint.value, "low": low, "high": high}


def _frame(rows: list[dict[str, Any]]) -> Any:
    import pandas as pd

    return pd.DataFrame(rows)
