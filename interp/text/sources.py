"""Where prompts come from: the shipped set, the organism's grammar, a file, or a dataset of the Hub."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.errors import PromptError
from interp.text import catalogue
from interp.text.checks import located, reject_repeats, shorten
from interp.text.files import READERS, Record, read_records
from interp.text.prompts import HARMFUL, HARMLESS, Prompt, PromptSet
from interp.text.published import published
from interp.text.task import Task, task_fields

if TYPE_CHECKING:
    from interp.organism.grammar import Item

TEXT_FIELDS = ("prompt", "instruction", "text", "goal", "behavior")
OTHER_FIELDS = ("label", "group", "category", "family", "split", "system")
HEADLINES = Path(str(files("interp.text") / "data" / "headlines.jsonl"))
HUB_NAME = re.compile(r"(?P<name>[\w-][\w.-]*/[\w.-]+)(:(?P<column>.+))?")
ORGANISM_SIZES = {"train": 256, "val": 64, "test": 200}
ORGANISM_TASKS = ("story", "list", "choice")
TASK_SIZES = {"train": 480, "val": 160, "test": 200}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Found:
    prompts: list[Prompt]
    places: list[str]
    name: str


def prompts(
    source: str | os.PathLike[str] | PromptSet, *, name: str | None = None, label: str | None = None
) -> PromptSet:
    """Loads prompts.

    Args:
        source: One of
            "headlines": the shipped set, 240 harmful and 240 matched harmless one-sentence requests, split;
            the name of a published set ("advbench", "xstest", "orbench:toxic"; `interp.text.catalogue.known()` lists
            them), in any case and with or without hyphens, from the Hub; "NAME=FILE" for a local copy of it, fields as
            published;
            "organism": requests of the organism's grammar, split into 256 + 64 + 200 per class ("organism:role" and
            "organism:role,suffix" for those wrappers); "organism:story", "organism:list" and "organism:choice": the
            tasks whose answer has an attribute to plan, as `interp.Task`, split into 480 + 160 + 200;
            a txt file with one prompt per line;
            a csv, tsv, jsonl, json or parquet file whose prompts stand in the first of the fields prompt, instruction,
            text, goal and behavior that it has, beside any of label, group, category, family, split, system, and, of
            the answer, expected and options;
            "owner/name" or "owner/name:column": a dataset of the Hub (its train split, else its first);
            or a PromptSet, given back.
        name: What to call the set in a report; by default the file's or dataset's own name.
        label: Labels every prompt, "harmful" or "harmless" for instance.

    Returns:
        The prompts in the order of the source. What the source doesn't split is not split: call `.split(seed=0)`.

    Raises:
        PromptError: The source is missing, unreadable, malformed or empty; a prompt is empty, too long, given twice or
            in both classes. The message names the file and the line. Repeats in a dataset of the Hub, which
            the user cannot edit, are left out with a warning instead.
    """
    found = _find(source, label)
    reject_repeats(found.prompts, found.places)
    _reject_half_split(found)
    return PromptSet(tuple(found.prompts), name or found.name)


def load_pair(harmful: str | os.PathLike[str] | PromptSet, harmless: str | os.PathLike[str] | PromptSet) -> PromptSet:
    """Loads two sources, as in `prompts`, into one set labelled harmful and harmless.

    Raises:
        PromptError: As in `prompts`; also where a file labels its prompts as the other class.
    """
    one, two = _find(harmful, HARMFUL), _find(harmless, HARMLESS)
    both = _Found(one.prompts + two.prompts, one.places + two.places, f"{one.name} / {two.name}")
    reject_repeats(both.prompts, both.places)
    _reject_half_split(both)
    return PromptSet(tuple(both.prompts), both.name)


def _find(source: str | os.PathLike[str] | PromptSet, label: str | None) -> _Found:
    if isinstance(source, PromptSet):
        places = [f"{source.name}[{i}]" for i in range(len(source))]
        relabelled = [located(places[i], _relabel, p, label) for i, p in enumerate(source)]
        return _Found(relabelled, places, source.name)
    if not isinstance(source, str | os.PathLike):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise PromptError(f"{shorten(repr(source))} is no source: for strings, use PromptSet.from_texts(...)")
    text = os.fspath(source)
    if text == "headlines":
        return replace(_from_records(read_records(HEADLINES), label), name=text)
    if text == "organism" or text.startswith("organism:"):
        return _from_organism(text, label)
    name, equals, copy = text.partition("=")
    if isinstance(source, str) and (entry := catalogue.find(name)):
        return _from_published(entry, copy if equals else None, label)
    try:
        path = Path(text).expanduser()
        here = path.exists()
    except (OSError, RuntimeError, ValueError) as e:  # too long, a NUL, or the home of somebody unknown
        raise PromptError(f"{shorten(text)!r} is no file: {e.args[-1]}: check the name") from e
    if here or path.suffix.lower() in READERS or not isinstance(source, str):
        return replace(_from_records(read_records(path), label), name=path.stem)
    if hub := HUB_NAME.fullmatch(text):
        return _from_hub(hub["name"], hub["column"], label)
    raise PromptError(
        f"{text!r} is no file and no source of prompts: give 'headlines', 'organism', a published set "
        f"({', '.join(catalogue.known())}), a {', '.join(READERS)} file, or a dataset of the Hub as 'owner/name'"
    )


def _from_published(entry: catalogue.Published, copy: str | None, label: str | None) -> _Found:
    if copy is not None and not copy.strip():
        raise PromptError(f"'{entry.key}=' names no file: give '{entry.key}=FILE', or '{entry.key}' for the Hub")
    found, places = published(entry, None if copy is None else Path(copy).expanduser(), label)
    return _Found(found, places, entry.key)


def _from_records(records: Sequence[tuple[Record, str]], label: str | None, column: str | None = None) -> _Found:
    made = [located(place, _prompt, record, label, column) for record, place in records]
    return _Found(made, [place for _, place in records], "")


def _prompt(record: Record, label: str | None, column: str | None) -> Prompt:
    named = {str(k).strip().lower(): v for k, v in record.items()}
    wanted = (column.lower(),) if column else TEXT_FIELDS
    field = next((f for f in wanted if f in named), None)
    if field is None:
        raise PromptError(
            f"no field {' or '.join(wanted)}, only {shorten(', '.join(named)) or 'nothing'}: name the field "
            f"with the prompt {wanted[0]!r}"
        )
    given = {"text": named[field] if named[field] is not None else ""}
    given |= {f: named[f] for f in OTHER_FIELDS if f != field and named.get(f) not in (None, "")}
    for key, value in given.items():
        if not isinstance(value, str):
            raise PromptError(f"the {field if key == 'text' else key} is {shorten(repr(value))}: it must be a string")
    known = task_fields(named)
    return _relabel(Task(**given, **known) if known else Prompt(**given), label)


def _relabel(prompt: Prompt, label: str | None) -> Prompt:
    if label is None or label == prompt.label:
        return prompt
    if {label, prompt.label} == {HARMFUL, HARMLESS}:
        raise PromptError(f"the prompt is labelled {prompt.label} but was given as {label}: are the sources swapped?")
    return replace(prompt, label=label)


def _reject_half_split(found: _Found) -> None:
    splits = [p.split for p in found.prompts]
    if None in splits and any(splits):
        raise PromptError(
            f"{found.places[splits.index(None)]}: the prompt has no split, but others have: give one to all or to none"
        )


def _from_hub(name: str, column: str | None, label: str | None) -> _Found:
    try:
        import datasets
    except ImportError as e:
        raise PromptError(f"{name!r}: datasets of the Hub need the package datasets: pip install datasets") from e
    try:
        loaded: Any = datasets.load_dataset(name)
        part = loaded["train"] if "train" in loaded else next(iter(loaded.values()))
        rows = [dict(row) for row in part]
    except Exception as e:  # whatever the network, the Hub or a damaged dataset raises
        reason = shorten(" ".join(str(e).split()), 200)
        raise PromptError(
            f"{name!r} is no file here, and could not be loaded as a dataset of the Hub ({type(e).__name__}: "
            f"{reason}): check the name and the network, or download it and give the file"
        ) from e
    if not rows:
        raise PromptError(f"{name!r} is empty: choose another dataset")
    for row in rows:  # class numbers mean nothing here
        for field in OTHER_FIELDS:
            if not isinstance(row.get(field), str):
                row.pop(field, None)
        row.pop("split", None)
    found = _from_records([(row, f"{name}, row {i}") for i, row in enumerate(rows)], label, column)
    kept: dict[tuple[str, str | None, str | None], int] = {}
    for i, p in enumerate(found.prompts):
        kept.setdefault((p.text.strip(), p.system, p.label), i)
    if dropped := len(rows) - len(kept):
        log.warning("%s: %d repeated prompts of %d were left out", name, dropped, len(rows))
    return _Found([found.prompts[i] for i in kept.values()], [found.places[i] for i in kept.values()], name)


def _from_organism(source: str, label: str | None) -> _Found:
    from interp.organism import grammar

    families = source.partition(":")[2].split(",") if ":" in source else ["plain"]
    if label is not None:
        raise PromptError(f"{source!r} carries its own labels: leave label out, or take .harmful or .harmless")
    if len(families) == 1 and families[0] in ORGANISM_TASKS:
        return _from_organism_task(source, families[0])
    chosen: list[Prompt] = []
    for family in families:
        if family not in grammar.FAMILIES:
            raise PromptError(
                f"{source!r}: the organism has no wrapper {family!r}: {', '.join(grammar.FAMILIES)}; nor is it one "
                f"of its tasks, which stand alone: {', '.join(ORGANISM_TASKS)}"
            )
        ranked = [sorted(grammar.items("safety", split, family=family), key=_rank) for split in ("train", "test")]
        for name in (HARMFUL, HARMLESS):
            seen, unseen = ([i for i in items if i.label == name] for items in ranked)
            held = len(seen) // 5  # the same combinations under every wrapper, so that sets can be joined
            for split, items in (("train", seen[held:]), ("val", seen[:held]), ("test", unseen)):
                chosen += [
                    Prompt(i.prompt, i.label, i.group, i.category, i.family, split)
                    for i in items[: ORGANISM_SIZES[split]]
                ]
    return _Found(chosen, [f"{source}, prompt {n}" for n in range(1, len(chosen) + 1)], source)


def _from_organism_task(source: str, task: str) -> _Found:
    """Prompts of a task; test prompts are combinations no training saw, validation shares no group with training."""
    from interp.organism import grammar

    seen = grammar.items(task, "train", n=TASK_SIZES["train"] + TASK_SIZES["val"])
    order = sorted({i.group for i in seen}, key=lambda group: hashlib.sha256(group.encode()).hexdigest())
    held: set[str] = set()
    for group in order:  # whole groups, until there are enough
        if sum(i.group in held for i in seen) < TASK_SIZES["val"]:
            held.add(group)
    chosen = [(i, "val" if i.group in held else "train") for i in seen]
    chosen += [(i, "test") for i in grammar.items(task, "test", n=TASK_SIZES["test"])]
    found: list[Prompt] = [
        Task(
            i.prompt, None, i.group, i.category, i.family, split, expected=str(i.meta["expected"]),
            options=tuple(i.meta.get("characters", ())),
        )
        for i, split in chosen
    ]  # fmt: skip
    return _Found(found, [f"{source}, prompt {n}" for n in range(1, len(found) + 1)], source)


def _rank(item: Item) -> str:
    return hashlib.sha256(item.group.encode()).hexdigest()
