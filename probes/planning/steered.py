"""The runs behind `probes.plan_causal`: answers written under steering, many conditions at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from interp.direction import Direction
from interp.edits import add_each
from interp.errors import ProbeError
from interp.model.model import Model
from interp.text.encoded import Encoded
from probes.planning.attributes import Attribute, Label
from probes.planning.labelling import unfit
from probes.planning.planned import Plan
from probes.planning.writing import as_written

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Outcome:
    """Values `[condition, prompt]` (NaN where the attribute is lost), by what was done."""

    layer: int
    rows: NDArray[np.int64]
    plain: Floats
    probe: dict[float, Floats]
    random: list[dict[float, Floats]]
    directions: dict[str, Direction]
    texts: dict[float, list[str]]


class Runs:
    """Writes answers under steering, many conditions in one run."""

    def __init__(self, model: Model, planned: Plan, tokens: int, position: str, seed: int) -> None:
        self.model, self.planned, self.tokens, self.position, self.seed = model, planned, tokens, position, seed
        self.attribute: Attribute = planned.attribute
        self.classes = self.attribute.kind == "classes"
        self.targets = self._targets()

    def effects(self, layer: int, rows: NDArray[np.int64], doses: Sequence[float]) -> list[dict[str, Any]]:
        """The effect of every dose at a layer, on validation prompts."""
        found = self.measure(layer, rows, doses, 0)
        table: list[dict[str, Any]] = []
        for dose in doses:
            own = effect(found.plain, found.probe, dose, self.classes)
            lost = lost_share(found.plain, found.probe, dose)
            table.append({"layer": layer, "dose": dose, "effect": float(np.nanmean(own)), "lost": lost})
        return table

    def measure(self, layer: int, rows: NDArray[np.int64], doses: Sequence[float], n_random: int) -> Outcome:
        """All doses along the probe, and along random directions of the same norm."""
        directions = self._directions(layer)
        own = np.stack([directions[t].vector.numpy() for t in self.targets[rows]])
        signed = sorted({s * d for d in doses for s in ((1,) if self.classes else (-1, 1))})
        norms = np.linalg.norm(own, axis=1, keepdims=True)
        vectors: list[Floats] = [np.zeros_like(own), *(dose * own for dose in signed)]
        for i in range(n_random):
            noise = next(iter(directions.values())).random_like(self.seed * 1000 + i).unit.numpy()
            vectors += [dose * norms * noise for dose in signed]
        values, texts = self._write(layer, rows, np.concatenate(vectors))
        values, size = values.reshape(len(vectors), len(rows)), len(signed)
        blocks = [values[1 + i * size : 1 + (i + 1) * size] for i in range(n_random + 1)]
        named = [dict(zip(signed, block, strict=True)) for block in blocks]
        shown = {d: texts[i * len(rows) : (i + 1) * len(rows)] for i, d in enumerate((0.0, *signed))}
        return Outcome(layer, rows, values[0], named[0], named[1:], directions, shown)

    def _write(self, layer: int, rows: NDArray[np.int64], vectors: Floats) -> tuple[Floats, list[str]]:
        prompts = [self.planned.answers[int(i)].prompt for i in rows]
        encoded: list[Encoded] = self.model.encode(prompts) * (len(vectors) // len(rows))
        edit = add_each(
            torch.from_numpy(vectors.astype(np.float32)), site="resid_post", layer=layer, positions=self.position
        )  # fmt: skip
        written = self.model.generate(encoded, max_new_tokens=self.tokens, edits=[edit])
        targets = np.tile(self.targets[rows], len(vectors) // len(rows))
        values: list[float] = []
        for completion, target in zip(written, targets, strict=True):
            label = self._label(completion)
            missing = label is None
            values.append(np.nan if missing else float(label == target) if self.classes else float(label))
        return np.array(values), [c.answer for c in written]

    def _label(self, completion: Any) -> Label:
        one = as_written(self.model, completion)
        return None if unfit(self.attribute, one) else self.attribute(one.answer)

    def _directions(self, layer: int) -> dict[str, Direction]:
        """By class (of a regression, one): what one standard deviation of the probe's values looks like in states."""
        probe, parts = self.planned.fit.linear(layer), self.planned.fit.split()
        examples = self.planned.examples
        x = np.asarray(examples.prompt[parts == "train", examples.layers.index(layer)], dtype=np.float64)
        found: dict[str, Direction] = {}
        for name in examples.classes if self.classes else ("",):
            weights = probe.direction(name) if self.classes else probe.direction()
            vector = pattern(x, weights)
            if not np.any(vector):
                raise ProbeError(f"the probe of layer {layer} reads nothing, so there is nothing to steer along")
            title = f"{self.attribute.name} {name}".strip()
            found[str(name)] = Direction(torch.from_numpy(vector), "resid_post", layer, self.position, title)
        return found

    def _targets(self) -> NDArray[Any]:
        """For every answer the class to steer to: one that it has not."""
        examples = self.planned.examples
        found = np.full(len(examples), "", dtype=object)
        if not self.classes:
            return found
        rng = np.random.default_rng(self.seed)
        known = [str(c) for c in examples.classes]
        for i, (answer, label) in enumerate(zip(self.planned.answers, examples.labels.tolist(), strict=True)):
            open_ = [c for c in known if c != str(label) and (not answer.options or c in answer.options)]
            others = open_ or [c for c in known if c != str(label)]
            found[i] = others[int(rng.integers(len(others)))]
        return found


def pattern(x: Floats, weights: Floats) -> Floats:
    """How states `[n, d]` change with one standard deviation of `x @ weights` (Haufe et al. 2014, eq. 6)."""
    centred = x - x.mean(0)
    values = centred @ weights
    spread = float(values.std())
    return (centred.T @ values) / len(x) / spread if spread > 0 else np.zeros_like(weights)


def effect(plain: Floats, steered: Mapping[float, Floats], dose: float, classes: bool) -> Floats:
    """The effect of a dose on each prompt, NaN where a number is lost; an answer that lost its class is none."""
    if classes:
        return np.nan_to_num(steered[dose]) - np.nan_to_num(plain)
    return (steered[dose] - steered[-dose]) / 2


def lost_share(plain: Floats, steered: Mapping[float, Floats], dose: float) -> float:
    """Share of the answers that had the attribute and lose it at a dose, the worse of its two signs."""
    there = ~np.isnan(plain)
    shares = [float(np.isnan(v[there]).mean()) for d, v in steered.items() if abs(d) == dose]
    return max(shares) if there.any() else 1.0
