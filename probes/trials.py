"""The runs behind `probes.two_causal`: prompts with where they start, edits, and where they end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp.activations.columns import resolve_columns
from interp.direction import Direction
from interp.edits import add_each
from interp.errors import DirectionError
from interp.model.model import Model
from interp.model.ops import Edit
from interp.text.encoded import Encoded
from interp.text.prompts import PromptSet
from probes.answers import Judge
from probes.beliefs import stream
from probes.inversion import Question
from probes.two_directions import HarmAndRefusal

Way = Literal["add", "gap"]
ON, OFF, NEITHER = 1, 0, -1
_MOST_TRAIN = 64
ADD_AT = {("harmfulness", "request"): "inst", ("harmfulness", "question"): "context",
          ("refusal", "request"): "prompt", ("refusal", "question"): "prompt"}  # fmt: skip
GAP_AT = {("harmfulness", "request"): "t_inst", ("harmfulness", "question"): "t_context",
          ("refusal", "request"): "post_inst", ("refusal", "question"): "post_inst"}  # fmt: skip
"""Where each direction acts, by kind of prompt."""


@dataclass(frozen=True)
class Tally:
    """How many of `n` prompts crossed to the other side, and how many ended on neither."""

    moved: int
    neither: int
    n: int

    @property
    def share(self) -> float:
        """Share moved, NaN for no prompts."""
        return self.moved / self.n if self.n else float("nan")


@dataclass(frozen=True)
class Choice:
    """A direction at a layer with a strength; for `"gap"`, 1 is the classes' own distance."""

    direction: Direction
    which: str
    way: Way
    layer: int
    coefficient: float


@dataclass(frozen=True)
class Start:
    """Prompts that the unedited model puts on their own side: harmful ones `ON`, harmless ones `OFF`."""

    behaviour: str
    encoded: tuple[Encoded, ...]
    sides: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.encoded)

    def first(self, n: int) -> Start:
        """The first `n` of each side."""
        rows = np.sort(np.concatenate([np.flatnonzero(self.sides == side)[:n] for side in (ON, OFF)]))
        return Start(self.behaviour, tuple(self.encoded[int(i)] for i in rows), self.sides[rows])

    def repeated(self, times: int) -> Start:
        """Every prompt so many times, the whole set one after another."""
        return Start(self.behaviour, self.encoded * times, np.tile(self.sides, times))


class Trials:
    """Runs prompts with and without edits, and tells the sides they end on."""

    def __init__(
        self,
        model: Model,
        found: HarmAndRefusal,
        questions: Mapping[str, Question],
        judge: Judge,
        max_new_tokens: int,
        question_tokens: int,
        seed: int,
    ) -> None:
        self.model, self.found, self.questions, self.judge, self.seed = model, found, questions, judge, seed
        self._tokens = {"refusal": max_new_tokens, **dict.fromkeys(questions, question_tokens)}
        self._states: dict[str, tuple[Tensor, tuple[str, ...]]] = {}

    def start(self, split: str, n: int) -> dict[str, Start]:
        """Prompts of a split in plain words, at most `n` of each side, by behaviour."""
        judged, beliefs = self.found.behaviour, self.found.beliefs
        rng = np.random.default_rng(self.seed)
        made: dict[str, Start] = {}
        for behaviour in ("refusal", *self.questions):
            rows: list[int] = []
            for label, did in (("harmful", judged.refused), ("harmless", judged.complied)):
                mask = judged.where(split=split, label=label) & np.asarray(beliefs["plain"], dtype=bool)
                if behaviour == "refusal":
                    mask = mask & did
                rows += sorted(int(i) for i in rng.permutation(np.flatnonzero(mask))[:n])
            prompts = PromptSet(tuple(judged.prompts[i] for i in rows))
            sides = np.array([ON if p.label == "harmful" else OFF for p in prompts], dtype=np.int64)
            if behaviour != "refusal" and len(prompts):
                prompts = self.questions[behaviour].ask(prompts)
            encoded = self.model.encode(prompts) if len(prompts) else []
            start = Start(behaviour, tuple(encoded), sides)
            keep = np.ones(len(start), dtype=bool) if behaviour == "refusal" else self._ends(start, []) == sides
            made[behaviour] = Start(
                behaviour, tuple(e for e, kept in zip(encoded, keep, strict=True) if kept), sides[keep]
            )
        return made

    def choose(
        self,
        which: str,
        way: Way,
        start: Start,
        target: str,
        coefficients: Sequence[float],
        layers: Sequence[int] | None,
    ) -> tuple[Choice, list[dict[str, Any]]]:
        """The layer and strength that move most, less what they make neither; the weakest and lowest of equals.

        Where nothing moves, the layer that reads best on validation prompts, and the largest strength.
        """
        there = self.found.harmfulness if which == "harmfulness" else self.found.refusal
        wanted = range(1, self.model.n_layers) if layers is None else layers
        directions = [(layer, there[layer]) for layer in wanted]
        options = [
            Choice(direction, which, way, layer, float(c))
            for c in (coefficients if way == "add" else (1.0,))
            for layer, direction in directions
            if direction is not None
        ]
        if not options:
            raise DirectionError(f"there is no {which} direction at any of the layers {list(wanted)}")
        tallies = self._tallies(options, start) if len(start) else [Tally(0, 0, 0)] * len(options)
        scores = [t.moved - t.neither for t in tallies]
        reads = self._reads(which)

        def rank(i: int) -> tuple[float, ...]:
            option = options[i]
            if max(scores) > 0:
                return scores[i], -abs(option.coefficient), -option.layer
            return reads[option.layer], abs(option.coefficient), -option.layer

        best = max(range(len(options)), key=rank)
        rows = [
            {"direction": which, "way": way, "target": target, "layer": o.layer, "coefficient": o.coefficient,
             "moved": t.moved, "neither": t.neither, "n": t.n, "chosen": i == best}
            for i, (o, t) in enumerate(zip(options, tallies, strict=True))
        ]  # fmt: skip
        return options[best], rows

    def _reads(self, which: str) -> list[float]:
        """How far validation prompts' cluster scores lie apart, harmful from harmless, at each point."""
        table, scores = self.found.beliefs, self.found.scores["harm" if which == "harmfulness" else "refusal"]
        here = np.asarray(table["plain"] & (table["split"] == "val"), dtype=bool)
        harmful = np.asarray(table["label"] == "harmful", dtype=bool)
        if not (here & harmful).any() or not (here & ~harmful).any():
            return [0.0] * scores.shape[1]
        on, off = (torch.from_numpy(mask) for mask in (here & harmful, here & ~harmful))
        return (scores[on].mean(0) - scores[off].mean(0)).tolist()

    def tally(self, choice: Choice, start: Start) -> dict[str, Tally]:
        """Where prompts end under an edit, by class and pooled."""
        if not len(start):
            return dict.fromkeys(("harmful", "harmless", "both"), Tally(0, 0, 0))
        vectors = choice.direction.vector.expand(len(start), -1)
        return _by_class(start.sides, self._ends(start, self._edits(choice, start, vectors)))

    def random(self, choice: Choice, start: Start, n: int) -> list[dict[str, Tally]]:
        """The same for random directions of the same norm, all in one run."""
        if not len(start) or not n:
            return []
        noise = [choice.direction.random_like(self.seed * 1000 + i).vector for i in range(n)]
        many = start.repeated(n)
        vectors = torch.stack(noise).repeat_interleave(len(start), 0)
        # By "gap" they are moved as far as the real one: along a random direction the classes hardly lie apart.
        ends = self._ends(many, self._edits(choice, many, vectors)).reshape(n, -1)
        return [_by_class(start.sides, row) for row in ends]

    def _tallies(self, options: Sequence[Choice], start: Start) -> list[Tally]:
        """Every option on the same prompts, in one run: outside its own rows, each option's vectors are zero."""
        many = start.repeated(len(options))
        edits: list[Edit] = []
        for layer in sorted({o.layer for o in options}):
            here = [o for o in options if o.layer == layer]
            vectors = torch.zeros(len(many), len(here[0].direction.vector))
            for i, option in enumerate(options):
                if option.layer == layer:
                    rows = slice(i * len(start), (i + 1) * len(start))
                    vectors[rows] = option.direction.vector * option.coefficient
            edits += self._edits(here[0], many, vectors, strength=1.0)
        ends = self._ends(many, edits).reshape(len(options), -1)
        return [_by_class(start.sides, row)["both"] for row in ends]

    def _edits(self, choice: Choice, start: Start, vectors: Tensor, strength: float | None = None) -> list[Edit]:
        """Subtract from prompts that start `ON`, add to the others; `vectors` is a row per prompt."""
        kind = "request" if start.behaviour == "refusal" else "question"
        signs = torch.from_numpy(np.where(start.sides == ON, -1.0, 1.0)).float()[:, None]
        where: dict[str, Any] = {"site": choice.direction.site, "layer": choice.layer}
        if choice.way == "add":
            moved = signs * vectors * (choice.coefficient if strength is None else strength)
            return [add_each(moved, positions=ADD_AT[choice.which, kind], **where)]
        gaps, names = self._gaps(choice, start.behaviour)
        return [
            add_each(signs * vectors / choice.direction.norm * gap, positions=name, **where)
            for gap, name in zip(gaps.tolist(), names, strict=True)
        ]

    def _gaps(self, choice: Choice, behaviour: str) -> tuple[Tensor, tuple[str, ...]]:
        """How far the training prompts' two classes of this kind lie apart along the direction, at each position."""
        kind = "request" if behaviour == "refusal" else "question"
        if behaviour not in self._states:
            self._states[behaviour] = self._differences(behaviour, kind)
        differences, names = self._states[behaviour]
        wanted = GAP_AT[choice.which, kind]
        places = [i for i, name in enumerate(names) if name.partition("[")[0] == wanted]
        return differences[choice.layer, places] @ choice.direction.unit, tuple(names[i] for i in places)

    def _differences(self, behaviour: str, kind: str) -> tuple[Tensor, tuple[str, ...]]:
        """Harmful minus harmless training prompts of a kind, `[point, position, d_model]`, where directions act."""
        table, rows = self.found.beliefs, list[int]()
        for label, did in (("harmful", "refused"), ("harmless", "accepted")):
            mask = table["centre"] & (table["label"] == label) & (table["did"] == did)
            rows += [int(i) for i in np.flatnonzero(np.asarray(mask, dtype=bool))[:_MOST_TRAIN]]
        prompts = PromptSet(tuple(self.found.behaviour.prompts[i] for i in rows))
        encoded = self.model.encode(prompts if kind == "request" else self.questions[behaviour].ask(prompts))
        positions = [GAP_AT[which, kind] for which in ("harmfulness", "refusal")]
        states = stream(self.model, encoded, positions).float()
        harmful = torch.tensor([p.label == "harmful" for p in prompts])
        return states[harmful].mean(0) - states[~harmful].mean(0), resolve_columns(encoded, positions)[0]

    def _ends(self, start: Start, edits: Sequence[Edit]) -> NDArray[np.int64]:
        """The side each prompt ends on."""
        if not len(start):
            return np.zeros(0, dtype=np.int64)
        written = self.model.generate(
            list(start.encoded), max_new_tokens=self._tokens[start.behaviour], edits=list(edits)
        )
        found: list[int] = []
        for completion in written:
            if start.behaviour == "refusal":
                verdict = self.judge(completion.prompt.text, completion.answer)
                found.append(ON if verdict.refused else OFF if verdict.complied else NEITHER)
            else:
                reading = self.questions[start.behaviour].read(completion.answer)
                found.append({"harmful": ON, "harmless": OFF, "neither": NEITHER}[reading])
        return np.array(found, dtype=np.int64)


def _by_class(sides: NDArray[np.int64], ends: NDArray[np.int64]) -> dict[str, Tally]:
    def count(mask: NDArray[np.bool_]) -> Tally:
        moved, neither = int((ends[mask] == 1 - sides[mask]).sum()), int((ends[mask] == NEITHER).sum())
        return Tally(moved, neither, int(mask.sum()))

    return {"harmful": count(sides == ON), "harmless": count(sides == OFF), "both": count(sides == sides)}
