"""Prompts and sets of prompts: labelled, grouped, split, and named by their contents."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, overload

from interp.errors import PromptError
from interp.text.checks import located, reject_repeats

if TYPE_CHECKING:
    import pandas as pd

HARMFUL = "harmful"
HARMLESS = "harmless"
SPLITS = ("train", "val", "test")
MAX_CHARACTERS = 1_000_000


@dataclass(frozen=True)
class Prompt:
    """One user request, and what is known about it.

    Attributes:
        text: What the user says, untemplated.
        label: "harmful", "harmless", or the user's own word.
        group: Prompts of one group never straddle a split. Default: a digest of the text, blind to case and spacing.
        category: Topic, if known.
        family: The wrapper or jailbreak family; "plain" for none.
        split: "train", "val", "test" or None.
        system: System prompt, if any.

    Raises:
        PromptError: The text is empty, longer than 1,000,000 characters or not valid Unicode, or the split is unknown.
    """

    text: str
    label: str | None = None
    group: str = ""
    category: str | None = None
    family: str = "plain"
    split: str | None = None
    system: str | None = None

    def __post_init__(self) -> None:
        if not any(c.isprintable() and not c.isspace() for c in self.text):
            raise PromptError("the prompt is empty: give it some text, or leave it out")
        for name, value in ((f.name, getattr(self, f.name) or "") for f in fields(Prompt)):
            if len(value) > MAX_CHARACTERS:
                raise PromptError(
                    f"the {name} has {len(value):,} characters, more than {MAX_CHARACTERS:,}: shorten it, "
                    "or check that the file really has one prompt per line"
                )
            if not _is_unicode(value):
                raise PromptError(f"the {name} holds half a surrogate pair, which is no character: save it as UTF-8")
        if self.split is not None and self.split not in SPLITS:
            raise PromptError(f"the split is {self.split!r}: it must be one of {', '.join(SPLITS)}, or left out")
        if not self.group:
            object.__setattr__(self, "group", _digest(" ".join(self.text.casefold().split()))[:12])

    @cached_property
    def id(self) -> str:
        """Twelve hex digits that name this text, system prompt and label on every machine."""
        return _digest(json.dumps([self.text, self.system, self.label]))[:12]


@dataclass(frozen=True, repr=False)
class PromptSet(Sequence[Prompt]):
    """An immutable, ordered set of prompts.

    Attributes:
        prompts: The prompts, in order.
        name: What to call the set in a report.
    """

    prompts: tuple[Prompt, ...]
    name: str = "prompts"

    @classmethod
    def from_texts(cls, harmful: Iterable[str] = (), harmless: Iterable[str] = (), name: str = "prompts") -> PromptSet:
        """Makes a labelled set from plain strings.

        Raises:
            PromptError: A text is empty, given twice, or in both classes; or one string came where a list belongs.
        """
        prompts: list[Prompt] = []
        places: list[str] = []
        for label, texts in ((HARMFUL, harmful), (HARMLESS, harmless)):
            if isinstance(texts, str):
                raise PromptError(f"{label} is one string: give a list of strings")
            for i, text in enumerate(texts):
                prompts.append(located(f"{label}[{i}]", Prompt, text, label))
                places.append(f"{label}[{i}]")
        reject_repeats(prompts, places)
        return cls(tuple(prompts), name)

    def __len__(self) -> int:
        return len(self.prompts)

    @overload
    def __getitem__(self, index: int) -> Prompt: ...
    @overload
    def __getitem__(self, index: slice) -> PromptSet: ...
    def __getitem__(self, index: int | slice) -> Prompt | PromptSet:
        return self._with(self.prompts[index]) if isinstance(index, slice) else self.prompts[index]

    def __add__(self, other: PromptSet) -> PromptSet:
        both = self.prompts + other.prompts
        places = [f"{part.name}[{i}]" for part in (self, other) for i in range(len(part))]
        reject_repeats(both, places)
        return PromptSet(both, self.name if self.name == other.name else f"{self.name}+{other.name}")

    def __repr__(self) -> str:
        labels = ", ".join(f"{n} {label or 'unlabelled'}" for label, n in Counter(self.labels).items())
        splits = Counter(p.split for p in self if p.split)
        parts = ", ".join(f"{split} {splits[split]}" for split in SPLITS if splits[split])
        return f"PromptSet({self.name!r}, {len(self)} prompts: {labels or 'none'}{'; ' + parts if parts else ''})"

    @property
    def texts(self) -> list[str]:
        """The texts, in order."""
        return [p.text for p in self.prompts]

    @property
    def labels(self) -> list[str | None]:
        """The labels, in order."""
        return [p.label for p in self.prompts]

    @property
    def groups(self) -> list[str]:
        """The groups, in order."""
        return [p.group for p in self.prompts]

    @cached_property
    def digest(self) -> str:
        """The sha256 of every field of every prompt, in order; the name of the set is left out."""
        return _digest("\n".join(json.dumps(asdict(p), sort_keys=True) for p in self.prompts))

    @property
    def train(self) -> PromptSet:
        """The prompts whose split is "train"."""
        return self._part("train")

    @property
    def val(self) -> PromptSet:
        """The prompts whose split is "val"."""
        return self._part("val")

    @property
    def test(self) -> PromptSet:
        """The prompts whose split is "test"."""
        return self._part("test")

    @property
    def harmful(self) -> PromptSet:
        """The prompts labelled harmful."""
        return self._class(HARMFUL)

    @property
    def harmless(self) -> PromptSet:
        """The prompts labelled harmless."""
        return self._class(HARMLESS)

    def filter(self, **wanted: str | None | Collection[str | None]) -> PromptSet:
        """The prompts whose fields have these values: `filter(family="role", split=("train", "val"))`.

        Raises:
            PromptError: A prompt has no such field.
        """
        known = {f.name for f in fields(Prompt)} | {"id"}
        if unknown := sorted(set(wanted) - known):
            raise PromptError(f"prompts have no field {unknown[0]!r}: they have {', '.join(sorted(known))}")
        allowed = {k: {v} if v is None or isinstance(v, str) else set(v) for k, v in wanted.items()}
        return self._with(p for p in self.prompts if all(getattr(p, k) in v for k, v in allowed.items()))

    def sample(self, n: int, seed: int) -> PromptSet:
        """`n` of the prompts, drawn by the seed without replacement and left in order.

        Raises:
            PromptError: There are fewer than `n`.
        """
        if not 0 <= n <= len(self):
            raise PromptError(f"cannot draw {n} of the {len(self)} prompts of {self.name!r}: ask for fewer")
        drawn = sorted(range(len(self)), key=lambda i: _digest(f"{seed}:{i}:{self.prompts[i].id}"))[:n]
        return self._with(self.prompts[i] for i in sorted(drawn))

    def split(self, train: float = 0.5, val: float = 0.2, test: float = 0.3, seed: int = 0) -> PromptSet:
        """Assigns every prompt to a split: groups stay whole, and each label is shared out in these proportions.

        Any earlier assignment is replaced. The order of the prompts doesn't matter to who goes where.

        Raises:
            PromptError: The fractions don't sum to 1, or a class has too few groups to reach every split.
        """
        shares = {s: f for s, f in zip(SPLITS, (train, val, test), strict=True) if f > 0}
        if min(train, val, test) < 0 or abs(sum(shares.values()) - 1) > 1e-6:
            raise PromptError(f"train={train}, val={val}, test={test}: give fractions >= 0 that sum to 1")
        members: defaultdict[str, list[Prompt]] = defaultdict(list)
        for p in self.prompts:
            members[p.group].append(p)
        need = {(s, label): f * n for s, f in shares.items() for label, n in Counter(self.labels).items()}
        whole = dict(need)
        where: dict[str, str] = {}
        for group in sorted(members, key=lambda g: (-len(members[g]), _digest(f"{seed}:{g}"))):
            labels = [p.label for p in members[group]]
            where[group] = max(shares, key=lambda s: sum(need[s, label] for label in labels))
            for label in labels:
                need[where[group], label] -= 1
        for (s, label), left in need.items():
            if left == whole[s, label]:
                raise PromptError(
                    f"{self.name!r}: no {label or 'unlabelled'} prompt is left for {s}, "
                    f"as it has only {self.labels.count(label)} in too few groups: add prompts"
                )
        return self._with(replace(p, split=where[p.group]) for p in self.prompts)

    def require(self, min_per_class: int, classes: Sequence[str] = (HARMFUL, HARMLESS)) -> PromptSet:
        """Returns the set itself where each class has enough prompts.

        Raises:
            PromptError: A class has fewer than `min_per_class`.
        """
        for label in classes:
            if (n := self.labels.count(label)) < min_per_class:
                raise PromptError(
                    f"{self.name!r} has {n} {label} prompts, and at least {min_per_class} are needed: add "
                    f"{min_per_class - n} more"
                )
        return self

    def to_frame(self) -> pd.DataFrame:
        """One row per prompt: its id and every field."""
        import pandas as pd

        columns = ["id", *(f.name for f in fields(Prompt))]
        return pd.DataFrame([{"id": p.id, **asdict(p)} for p in self.prompts], columns=columns)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the set as JSON lines, which `interp.prompts(path)` reads back; an old file stays whole until then.

        Raises:
            PromptError: The file cannot be written.
        """
        path = Path(path)
        rows = [{k: v for k, v in asdict(p).items() if v is not None} for p in self.prompts]
        lines = "".join(json.dumps({"prompt": r.pop("text"), **r}, ensure_ascii=False) + "\n" for r in rows)
        half: str | None = None
        try:
            fd, half = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            with os.fdopen(fd, "w", encoding="utf-8", newline="\n") as f:
                f.write(lines)
            Path(half).replace(path)
        except OSError as e:
            if half:
                Path(half).unlink(missing_ok=True)
            raise PromptError(f"{path}: cannot be written ({e.strerror or e}): choose a folder you may write to") from e
        return path

    def _with(self, prompts: Iterable[Prompt]) -> PromptSet:
        return PromptSet(tuple(prompts), self.name)

    def _part(self, split: str) -> PromptSet:
        if self.prompts and all(p.split is None for p in self.prompts):
            raise PromptError(f"{self.name!r} is not split yet: call .split(seed=0) first")
        return self.filter(split=split)

    def _class(self, label: str) -> PromptSet:
        if self.prompts and not {HARMFUL, HARMLESS} & set(self.labels):
            raise PromptError(
                f"{self.name!r} has no labels harmful and harmless: load it with label={label!r}, or two files with "
                "interp.load_pair(harmful, harmless)"
            )
        return self.filter(label=label)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
