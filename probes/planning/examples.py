"""What planning probes are fitted to: answers with one attribute, the states before and along them, and baselines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from interp.errors import ProbeError, PromptError
from interp.text.prompts import SPLITS
from probes.splits import grouped_split

PROMPT = "prompt"
"""Name of the position that counts for planning: the last token of the prompt."""
THOUGHT, ANSWER = "thought", "answer"
LEAST_ROWS, LEAST_GROUPS, LEAST_OF_CLASS = 50, 20, 10


@dataclass(frozen=True)
class Segment:
    """A stretch of what the model writes.

    Attributes:
        name: Such as `"0-10 %"`.
        region: `"thought"` or `"answer"`.
    """

    name: str
    region: Literal["thought", "answer"] = ANSWER


@dataclass(frozen=True, eq=False)
class PlanExamples:
    """Answers whose attribute is known, one per row; truncated and unparsable ones are not among them.

    Checked when it is made: see `Raises`.

    Attributes:
        attribute: What is foretold, in a word or two.
        kind: `"regression"` for numbers, `"classes"` for choices.
        labels: `[n]`; numbers, or strings, flags or whole numbers.
        groups: `[n]`; rows of one group (paraphrases, one item in several forms) never straddle a split.
        prompt: `[n, layer, d]` at the last prompt token. A memory map will do: it is read a layer at a time.
        layers: The layers by number.
        along: `[n, segment, layer, d]`, one state (or mean) for each segment of what was written, up to the token that
            gives the attribute away and not including it.
        along_layers: Layers of `along`; those of `prompt` by default.
        segments: Their names, in order.
        texts: The prompts' words.
        lengths: `[n]` tokens of the prompt.
        embedding: `[n, e]`, the prompt in the embedding layer: before any layer has computed anything.
        first_token: `[n, v]`, probabilities of the first token written.
        asked: `[n]`, what the model said when it was asked to foretell the attribute; None or NaN where it could not.
        ids: `[n]`, names of the rows.
        parts: `[n]`, `"train"`, `"val"` or `"test"` where the prompts bring their split; it then holds for every seed.
            By default every seed splits the groups anew.
        written: For each segment, what each answer had said by its end: a bag of words beside the curve.
        written_lengths: `[n, segment]`, tokens written by the end of each segment.

    Raises:
        ProbeError: For labels that are missing, of one class or too few; shapes that do not fit; values not finite.
    """

    attribute: str
    kind: Literal["regression", "classes"]
    labels: NDArray[Any]
    groups: NDArray[Any]
    prompt: NDArray[Any]
    layers: tuple[int, ...]
    along: NDArray[Any] | None = None
    along_layers: tuple[int, ...] = ()
    segments: tuple[Segment, ...] = ()
    texts: Sequence[str] | None = None
    lengths: NDArray[Any] | None = None
    embedding: NDArray[Any] | None = None
    first_token: NDArray[Any] | None = None
    asked: Sequence[Any] | None = None
    ids: Sequence[str] | None = None
    parts: NDArray[Any] | None = None
    written: Sequence[Sequence[str]] | None = None
    written_lengths: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("regression", "classes"):
            raise ProbeError(f"{self._who}: kind {self.kind!r} is none; give 'regression' or 'classes'")
        object.__setattr__(self, "labels", self._checked_labels())
        object.__setattr__(self, "groups", np.asarray(self.groups))
        object.__setattr__(self, "along_layers", tuple(self.along_layers or self.layers))
        self._check_sizes()
        self._check_shapes()
        self._check_values()
        if self.parts is not None:
            self._check_parts(np.asarray(self.parts))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> tuple[Any, ...]:
        """The classes in order; none for numbers."""
        return () if self.kind == "regression" else tuple(np.unique(self.labels).tolist())

    @property
    def n_groups(self) -> int:
        """How many groups there are."""
        return len(set(self.groups.tolist()))

    def split(self, seed: int) -> NDArray[np.str_]:
        """For each row `"train"`, `"val"` or `"test"`: 60, 20 and 20 %, groups whole, classes in proportion.

        Raises:
            ProbeError: When a class has too few groups to reach every part.
        """
        if self.parts is not None:
            return np.asarray(self.parts, dtype=np.str_)
        strata = self.labels if self.classes else np.zeros(len(self))
        try:
            return grouped_split(strata, self.groups, seed=seed)
        except PromptError as error:
            raise ProbeError(f"{self._who}: {error}") from error

    @property
    def _who(self) -> str:
        return f"attribute {self.attribute!r}"

    def _checked_labels(self) -> NDArray[Any]:
        missing = [i for i, v in enumerate(list(self.labels)) if v is None or (isinstance(v, float) and math.isnan(v))]
        if missing:
            raise ProbeError(
                f"{self._who}: {len(missing)} of {len(self.labels)} labels are missing (NaN or None), the first in row "
                f"{missing[0]}: leave out the answers from which it cannot be read, and count them"
            )
        try:
            labels = np.asarray(self.labels, dtype=np.float64 if self.kind == "regression" else None)
        except (TypeError, ValueError) as error:
            raise ProbeError(
                f"{self._who}: a regression needs numbers as labels ({error}); or kind='classes'"
            ) from error
        if labels.dtype == object:
            kinds = {type(v).__name__ for v in labels.tolist()}
            if len(kinds) > 1:
                raise ProbeError(f"{self._who}: labels are of several types ({', '.join(sorted(kinds))}); give one")
            labels = np.array(labels.tolist())
        if labels.ndim != 1:
            raise ProbeError(f"{self._who}: one label per row is needed, not shape {labels.shape}")
        if self.kind == "regression" and not np.isfinite(labels).all():
            raise ProbeError(f"{self._who}: a label is infinite; leave that answer out")
        return labels

    def _check_sizes(self) -> None:
        values, counts = np.unique(self.labels, return_counts=True)
        if len(values) < 2:
            what = f"all {len(self)} labels are {values[0]!r}" if len(values) else "there are no labels"
            raise ProbeError(f"{self._who}: {what}, so there is nothing to foretell: give prompts on which it varies")
        if len(self) < LEAST_ROWS:
            raise ProbeError(
                f"{self._who}: {len(self)} answers are too few to fit, choose and test on ({LEAST_ROWS} at least; some "
                "hundred for narrow intervals): add prompts, or raise max_new_tokens if answers were cut off"
            )
        if len(self.groups) != len(self):
            raise ProbeError(f"{self._who}: there are {len(self)} labels and {len(self.groups)} groups: one each")
        if self.n_groups < LEAST_GROUPS:
            raise ProbeError(
                f"{self._who}: the {len(self)} answers are of {self.n_groups} groups of prompts, and groups are what "
                f"is drawn and split ({LEAST_GROUPS} at least): add prompts of other groups"
            )
        if self.kind == "classes" and counts.min() < LEAST_OF_CLASS:
            rare = values[counts.argmin()]
            raise ProbeError(
                f"{self._who}: the class {rare!r} has {counts.min()} answers, too few ({LEAST_OF_CLASS} at least): "
                "add prompts that lead to it, or leave the class out"
            )

    def _check_shapes(self) -> None:
        n = len(self)
        if self.prompt.ndim != 3 or self.prompt.shape[:2] != (n, len(self.layers)) or not len(self.layers):
            raise ProbeError(
                f"{self._who}: prompt must be [row, layer, d] = [{n}, {len(self.layers)}, d], not {self.prompt.shape}"
            )
        if (self.along is None) != (not self.segments):
            raise ProbeError(f"{self._who}: give states along the answer and the names of their segments, or neither")
        expected = (n, len(self.segments), len(self.along_layers))
        if self.along is not None and (self.along.ndim != 4 or self.along.shape[:3] != expected):
            raise ProbeError(
                f"{self._who}: along must be [row, segment, layer, d] with {list(expected)}, not {self.along.shape}"
            )
        names = [PROMPT, *(s.name for s in self.segments)]
        if len(set(names)) < len(names):
            raise ProbeError(f"{self._who}: segments need different names, none of them {PROMPT!r}: {names[1:]}")
        for name in ("texts", "lengths", "embedding", "first_token", "asked", "ids", "parts", "written_lengths"):
            given = getattr(self, name)
            if given is not None and len(given) != n:
                raise ProbeError(f"{self._who}: {name} has {len(given)} rows, and there are {n} labels")

        if self.written is not None and [len(w) for w in self.written] != [n] * len(self.segments):
            raise ProbeError(f"{self._who}: written must hold {n} texts for each of the {len(self.segments)} segments")
        if self.written_lengths is not None and self.written_lengths.shape != (n, len(self.segments)):
            raise ProbeError(f"{self._who}: written_lengths must be [row, segment] = [{n}, {len(self.segments)}]")

    def _check_parts(self, parts: NDArray[Any]) -> None:
        if set(parts.tolist()) != set(SPLITS):
            raise ProbeError(f"{self._who}: parts must name {', '.join(SPLITS)}, each at least once")
        where: dict[Any, str] = {}
        for group, part in zip(self.groups.tolist(), parts.tolist(), strict=True):
            if where.setdefault(group, part) != part:
                raise ProbeError(f"{self._who}: the group {group!r} is in {where[group]} and in {part}: keep it whole")
        if not self.classes and len(set(self.labels[parts == "train"].tolist())) > 1:
            return
        missing = [c for c in self.classes if c not in set(self.labels[parts == "train"].tolist())]
        if missing or not self.classes:
            what = f"no {missing[0]!r}" if missing else "one value only"
            raise ProbeError(f"{self._who}: the training part has {what}: split anew, or add training prompts")

    def _check_values(self) -> None:
        for name in ("lengths", "embedding", "first_token", "written_lengths"):
            given = getattr(self, name)
            if given is not None and not np.isfinite(given).all():
                raise ProbeError(f"{self._who}: {name} has values that are NaN or infinite: compute them in float32")
        if self.first_token is not None and (
            self.first_token.ndim != 2 or self.first_token.min() < 0 or self.first_token.sum(1).max() > 1.01
        ):
            raise ProbeError(f"{self._who}: first_token must be probabilities [row, token], not logits or their logs")


def cell(states: NDArray[Any], where: str) -> NDArray[np.float64]:
    """One layer's states as float64 `[row, d]`.

    Raises:
        ProbeError: When one is NaN or infinite.
    """
    rows = np.asarray(states, dtype=np.float64)
    if not np.isfinite(rows).all():
        raise ProbeError(f"{where}: a state is NaN or infinite: run the model in bfloat16 or float32")
    return rows
