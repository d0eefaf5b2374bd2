"""Edits as words: `ablate:refusal.safetensors`, `add:v.safetensors:1.5`, `heads:3.1,4.2`, or JSON of the same."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp.activations.means import class_means
from interp.direction import Direction
from interp.edits import ablate, scale_heads
from interp.edits.control import random_like
from interp.errors import EditError
from interp.model.model import Model
from interp.model.ops import Edit, flatten_edits
from interp.text.checks import shorten
from interp.text.prompts import PromptSet
from steering.formats.exchange import import_vector
from steering.vector import SteeringVector

FORMS = "ablate:FILE, ablate:FILE:mean, add:FILE, add:FILE:TIMES, heads:LAYER.HEAD,...[:FACTOR], or a .json file"
_FIELDS = {"ablate": {"layer", "to"}, "add": {"times"}, "heads": {"factor"}}
_HEAD = re.compile(r"(\d+)\.(\d+)")


@dataclass(frozen=True)
class Part:
    """One edit of a specification.

    Attributes:
        edits: What it stands for.
        control: The same from a seed, in a random direction.
    """

    edits: list[Edit]
    control: Callable[[int], list[Edit]]


def parse_edit(text: str, model: Model, reference: PromptSet | None = None) -> list[Part]:
    """What a specification stands for.

    Args:
        text: One of `FORMS`. JSON, in a file or as it is, is an object or a list of them: `{"ablate": FILE, "layer":
            3, "to": "mean"}`, `{"add": FILE, "times": 1.5}`, `{"heads": ["3.1", "4.2"], "factor": 0}`.
        model: The model it is for.
        reference: Harmless prompts whose mean is ablated to, where "mean" is asked for.

    Raises:
        EditError: For what cannot be understood, or does not fit the model; names the part and the forms there are.
        FormatError: When a vector file cannot be read.
    """
    return [_part(item, text, model, reference) for item in _items(text)]


def _items(text: str) -> list[dict[str, Any]]:
    path = Path(text)
    if text.lstrip()[:1] in ("{", "["):
        return _json(text, "the edit")
    if path.suffix.lower() == ".json":
        try:
            return _json(path.read_text(encoding="utf-8"), str(path))
        except (OSError, UnicodeDecodeError) as e:
            raise EditError(f"{path}: cannot be read as an edit ({e}); check the name") from e
    kind, colon, rest = text.partition(":")
    if kind not in _FIELDS or not colon or not rest:
        raise EditError(f"{shorten(text)!r} is no edit; give {FORMS}")
    file, colon, last = rest.rpartition(":")
    if kind == "ablate":
        return [{"ablate": file, "to": last}] if last == "mean" and file else [{"ablate": rest}]
    number = _number(last) if colon else None
    name = {"add": "times", "heads": "factor"}[kind]
    return [{kind: rest} if number is None else {kind: file, name: number}]


def _json(text: str, where: str) -> list[dict[str, Any]]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise EditError(f"{where} is no JSON: {e}") from e
    items = found if isinstance(found, list) else [found]
    for item in items:
        kinds = [k for k in _FIELDS if isinstance(item, dict) and k in item]
        if len(kinds) != 1:
            raise EditError(f"{where}: {shorten(repr(item))} is not one of ablate, add, heads")
        if unknown := sorted(set(item) - {kinds[0]} - _FIELDS[kinds[0]]):
            raise EditError(f"{where}: {kinds[0]} has no {unknown[0]!r}; it has {', '.join(sorted(_FIELDS[kinds[0]]))}")
    if not items:
        raise EditError(f"{where} names no edit")
    return items


def _part(item: dict[str, Any], text: str, model: Model, reference: PromptSet | None) -> Part:
    if "heads" in item:
        edits: list[Edit] = [scale_heads(_heads(item["heads"]), _factor(item, "factor", 0.0))]
    elif "add" in item:
        times = _factor(item, "times", 1.0)
        edits = [*flatten_edits(_vector(item["add"]) * times)]
    else:
        direction = _direction(item)
        if item.get("to") == "mean":
            return _to_mean(direction, text, model, reference)
        if item.get("to") is not None:
            raise EditError(f"to is {item['to']!r}; it can be 'mean', or left out for an ablation to zero")
        edits = [ablate(direction)]
    return Part(edits, lambda seed: random_like(edits, model.arch, seed))


def _to_mean(direction: Direction, text: str, model: Model, reference: PromptSet | None) -> Part:
    """Ablation to the harmless mean at the tokens after the instruction, as in the causal check."""
    if reference is None:
        raise EditError(f"{shorten(text)!r} ablates to a mean: say of which harmless prompts (--reference PROMPTS)")
    if direction.vector.shape != (model.d_model,):
        raise EditError(f"a vector {len(direction.vector)} wide does not fit a model {model.d_model} wide")
    means = class_means(model, reference, [True] * len(reference), site="stream", positions="post_inst")

    def edit(one: Direction) -> list[Edit]:
        return [ablate(one, means.mean[0] @ one.unit, positions=means.positions)]

    return Part(edit(direction), lambda seed: edit(direction.random_like(seed)))


def _direction(item: dict[str, Any]) -> Direction:
    vector = _vector(item["ablate"])
    layer = item.get("layer", vector.layers[0])
    if "layer" not in item and len(vector.layers) > 1:
        raise EditError(
            f"{item['ablate']} holds vectors of layers {list(vector.layers)}, and an ablation takes one: name it, "
            '{"ablate": FILE, "layer": L}'
        )
    if layer not in vector.layers:
        raise EditError(f"{item['ablate']} has no layer {layer!r}; it has {list(vector.layers)}")
    return Direction(vector.vectors[layer], vector.site, layer, "file")


def _vector(file: Any) -> SteeringVector:
    if not isinstance(file, str) or not file:
        raise EditError(f"{file!r} is no name of a vector file")
    return import_vector(Path(file).expanduser())


def _heads(given: Any) -> list[tuple[int, int]]:
    names = given.split(",") if isinstance(given, str) else given
    if not isinstance(names, Sequence) or not names:
        raise EditError(f"heads are {given!r}; write them as LAYER.HEAD with commas: heads:3.1,4.2")
    found: list[tuple[int, int]] = []
    for name in names:
        match = _HEAD.fullmatch(str(name).strip())
        if match is None:
            raise EditError(f"{name!r} is no head; write it as LAYER.HEAD, both counted from 0: 3.1")
        found.append((int(match[1]), int(match[2])))
    return found


def _factor(item: dict[str, Any], name: str, default: float) -> float:
    value = item.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise EditError(f"{name} is {value!r}; it must be a number")
    return float(value)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
