"""Doses on disk as they are measured, so that a calibration that is cut short goes on from there."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from interp.errors import FormatError
from interp.provenance import digest_json, write_text
from interp.tensorfile import digest_of
from steering.vector import SteeringVector

FORMAT = "refusalkit/doses/1"
DOSES = "doses.jsonl"
ANSWERS = "answers"
Interval = tuple[float, float, float]
Cost = tuple[Interval, Interval]
"""KL and perplexity, each with its interval."""


class KeptDoses:
    """What was measured of one vector on one model and prompt set: answers of every dose, and what it costs.

    Verdicts are not kept: answers are judged anew, by whatever judge is asked.

    Args:
        folder: Made when missing.
        key: What decides the numbers, JSON-able.

    Raises:
        FormatError: When the folder holds doses of something else, or is damaged.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any]) -> None:
        self._folder, self._file = folder, folder / DOSES
        self.key = digest_json(key)
        self._known: dict[str, dict[str, Cost]] = {}
        (folder / ANSWERS).mkdir(parents=True, exist_ok=True)
        header = json.dumps({"format": FORMAT, "key": self.key}) + "\n"
        text = self._file.read_text(encoding="utf-8") if self._file.exists() else ""
        whole = text[: text.rfind("\n") + 1] or header  # what was cut short in its last line is measured again
        if whole != text:
            write_text(self._file, whole)
        try:
            first, *rows = [json.loads(line) for line in whole.split("\n") if line]
            if first["format"] != FORMAT:
                raise ValueError(f"its format is not {FORMAT!r}")
            self._known = {row["dose"]: {arm: _read(cost) for arm, cost in row["costs"].items()} for row in rows}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise FormatError(f"{self._file} is damaged ({error!r:.120}): delete it to measure again") from error
        if first["key"] != self.key:
            raise FormatError(
                f"{folder} holds doses of another vector, or on another model, other prompts or settings: give another "
                "folder, or delete it to start over"
            )

    def answers(self, arm: str, strength: float) -> tuple[Path, dict[str, Any]]:
        """Where the answers at a dose are kept, and what they are answers under."""
        name = f"{arm} {strength!r}.jsonl".replace(" ", "-")
        return self._folder / ANSWERS / name, {"key": self.key, "arm": arm, "strength": strength}

    def costs(self, arms: Sequence[tuple[str, float, Any]]) -> dict[str, Cost] | None:
        """What these arms cost, by arm; `None` where that was not measured yet."""
        return self._known.get(_name(arms))

    def keep(self, arms: Sequence[tuple[str, float, Any]], costs: Mapping[str, Cost]) -> None:
        """Write down what arms cost.

        Raises:
            FormatError: When it cannot be written.
        """
        row = {"dose": _name(arms), "costs": {arm: _written(cost) for arm, cost in costs.items()}}
        try:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, allow_nan=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise FormatError(f"cannot write {self._file}: {error.strerror or error}") from error


def vector_digest(vector: SteeringVector) -> str:
    """Names what a vector does: its numbers, and where it acts; not where it came from."""
    about = {"site": vector.site, "coefficient": vector.coefficient, "positions": list(vector.positions),
             "phase": vector.phase}  # fmt: skip
    return digest_of("vector", about, {f"layer.{layer}": v for layer, v in vector.vectors.items()})[:16]


def _name(arms: Sequence[tuple[str, float, Any]]) -> str:
    return ", ".join(f"{arm} {strength!r}" for arm, strength, _ in arms)


def _written(cost: Cost) -> list[list[float | str]]:
    """Numbers that JSON lacks are written as words, which `float` reads."""
    return [[v if math.isfinite(v) else str(v) for v in three] for three in cost]


def _read(given: Any) -> Cost:
    kl, perplexity = ((float(a), float(b), float(c)) for a, b, c in given)
    return kl, perplexity
