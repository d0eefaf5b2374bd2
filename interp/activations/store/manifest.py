"""What a store says of itself: `manifest.json` for the whole, `segment.json` for each capture that was added to it.

The manifest says what all segments have in common and binds each by the digest of its plan; a segment's plan says which
prompts it holds, in which rows, and in which batches they are computed. A plan is written once and never changed. When
all rows are there, the segment is sealed: its file says so, and how each array's checksums sum up.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from interp.activations.store.checked import Fields, digest_of, read_signed, write_signed
from interp.activations.store.files import DTYPES, Array
from interp.errors import PromptError, StoreError
from interp.text.prompts import Prompt

FORMAT = "refusalkit/activations/1"
SEGMENT_FORMAT = "refusalkit/activations/1/segment"
MANIFEST = "manifest.json"
SEGMENT = "segment.json"
JOURNAL = "journal"
CHECKSUMS = "checksums.safetensors"
_FOLDER = re.compile(r"seg-\d{4,8}")
_SITE = re.compile(r"[a-z][a-z0-9_]{0,40}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MANY = 1 << 40


@dataclass(frozen=True)
class SiteFormat:
    """A site's type (in safetensors' words) and width."""

    site: str
    dtype: str
    width: int


@dataclass(frozen=True)
class About:
    """What all segments of a store have in common.

    Attributes:
        sites: Each with type and width.
        layers: 0-based layers.
        positions: Names of the columns; one name ending in `[*]` where every token of a region is a row.
        n_heads: Query heads of the model.
        n_kv_heads: Key and value heads.
        model: What decides the numbers: model, dtype, attention, chat format (no versions).
        edits: What was changed in the forward pass, JSON; empty for nothing.
    """

    sites: tuple[SiteFormat, ...]
    layers: tuple[int, ...]
    positions: tuple[str, ...]
    n_heads: int
    n_kv_heads: int
    model: Mapping[str, Any]
    edits: Sequence[Any]

    def to_json(self) -> dict[str, Any]:
        """As it stands in the manifest."""
        return {
            "sites": [asdict(site) for site in self.sites], "layers": list(self.layers),
            "positions": list(self.positions), "n_heads": self.n_heads,
            "n_kv_heads": self.n_kv_heads, "model": dict(self.model), "edits": list(self.edits),
        }  # fmt: skip

    def in_words(self) -> dict[str, Any]:
        """The same for a message: sites by name where type and width follow."""
        sites = {s.site: f"{s.dtype}, width {s.width}" for s in self.sites}
        return {**self.to_json(), "sites": ", ".join(sites), "site": sites}

    @cached_property
    def digest(self) -> str:
        """Names it."""
        return digest_of(self.to_json())

    @property
    def ragged(self) -> bool:
        """Whether rows are the tokens of a region."""
        return self.positions[0].endswith("[*]")

    def differences(self, other: About) -> list[str]:
        """Where another call asks for something else, in words."""
        mine, theirs = _flat(self.in_words()), _flat(other.in_words())
        return [
            f"{key}: the store has {_short(mine.get(key))}, asked is {_short(theirs.get(key))}"
            for key in dict.fromkeys([*mine, *theirs])
            if mine.get(key) != theirs.get(key)
        ]


@dataclass(frozen=True)
class Plan:
    """What a segment holds.

    Attributes:
        about: Digest of the store's `About`.
        name: Name of the prompt set.
        prompts: The prompts, in the order of the rows.
        digests: For each prompt, the digest of its tokens and of the columns read.
        texts: Digest of all rendered texts, for the provenance.
        offsets: `[n_prompts + 1]` rows of each prompt; `None` where each has one.
        batches: Prompts of each batch.
        versions: Versions that decide the bytes, and the kind of device.
    """

    about: str
    name: str
    prompts: tuple[Prompt, ...]
    digests: tuple[str, ...]
    texts: str
    offsets: tuple[int, ...] | None
    batches: tuple[tuple[int, ...], ...]
    versions: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """As it stands in the segment's file."""
        names = [f.name for f in fields(Prompt)]
        return {
            "about": self.about, "name": self.name,
            # Fields by column: one name each instead of one per prompt.
            "prompts": {name: [getattr(p, name) for p in self.prompts] for name in names},
            "ids": [p.id for p in self.prompts], "digests": list(self.digests), "texts": self.texts,
            "offsets": None if self.offsets is None else list(self.offsets),
            "batches": [list(batch) for batch in self.batches], "versions": dict(self.versions),
        }  # fmt: skip

    @cached_property
    def digest(self) -> str:
        """Names it; the manifest lists it, and every file of the segment carries it."""
        return digest_of(self.to_json())

    @cached_property
    def contents(self) -> str:
        """Names what is captured, however it is batched: equal for equal prompts, labels included."""
        return digest_of([self.digests, [asdict(p) for p in self.prompts]])

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """`[n_prompts + 1]`: the first row of each prompt."""
        return np.array(range(len(self.prompts) + 1) if self.offsets is None else self.offsets, dtype=np.int64)

    def arrays(self, folder: Path, about: About) -> dict[tuple[str, int], Array]:
        """The files, by site and layer."""
        n, columns = int(self.rows[-1]), len(about.positions)
        return {
            (s.site, layer): Array(
                folder / f"{s.site}.{layer:02d}.safetensors", s.site, s.dtype, (n, columns, s.width),
                (("format", FORMAT), ("plan", self.digest), ("site", s.site), ("layer", str(layer))),
            )
            for s in about.sites for layer in about.layers
        }  # fmt: skip

    def checksums(self, folder: Path, about: About) -> Array:
        """The file of checksums: xxh3-64 of every prompt's rows in every array, `[array, prompt]`."""
        shape = (len(about.sites) * len(about.layers), len(self.prompts))
        return Array(folder / CHECKSUMS, "xxh3_64", "U64", shape, (("format", FORMAT), ("plan", self.digest)))


def write_manifest(path: Path, about: About, segments: Sequence[tuple[str, str]]) -> None:
    """Write the manifest; `segments` are pairs of folder and plan digest."""
    listed = [{"folder": folder, "plan": digest} for folder, digest in segments]
    write_signed(path / MANIFEST, {"format": FORMAT, "about": about.to_json(), "segments": listed})


def read_manifest(path: Path) -> tuple[About, list[tuple[str, str]]]:
    """Read the manifest: what is common, and the segments' folders and plan digests.

    Raises:
        StoreError: When it is missing, damaged, edited, or names a folder outside the store.
    """
    file = path / MANIFEST
    if not file.is_file():
        raise StoreError(f"{path} is no store: there is no {MANIFEST} in it; give the folder that was captured into")
    top = Fields(file, read_signed(file, FORMAT), "the manifest")
    about = _about(file, top.get("about", dict))
    segments: list[tuple[str, str]] = []
    for entry in top.several("segments", dict):
        one = Fields(file, entry, "a segment")
        folder, digest = one.get("folder", str), one.get("plan", str)
        if not _FOLDER.fullmatch(folder):
            raise StoreError(
                f"{file} names the folder {folder!r:.80}, which is none of this store's (seg-0000 and so on): it was "
                "edited, do not trust it"
            )
        if not _DIGEST.fullmatch(digest):
            one.fail("has a plan that is no digest")
        segments.append((folder, digest))
    if not segments or len({folder for folder, _ in segments}) < len(segments):
        top.fail("lists no segment, or one twice")
    return about, segments


def write_segment(folder: Path, plan: Plan, sealed: Mapping[str, str] | None) -> None:
    """Write a segment's file; `sealed` sums up each finished array's checksums, `None` while some rows are missing."""
    value = {"format": SEGMENT_FORMAT, "plan": plan.to_json(), "sealed": None if sealed is None else dict(sealed)}
    write_signed(folder / SEGMENT, value)


def read_segment(folder: Path, about: About, digest: str) -> tuple[Plan, dict[str, str] | None]:
    """Read a segment's file.

    Raises:
        StoreError: When it is missing, damaged, edited, or not the one that the manifest lists.
    """
    file = folder / SEGMENT
    if not file.is_file():
        raise StoreError(f"{file} is missing: copy the whole folder again")
    top = Fields(file, read_signed(file, SEGMENT_FORMAT), "the segment")
    raw = top.get("plan", dict)
    if digest_of(raw) != digest:
        raise StoreError(f"{file} is not the segment that the manifest lists: it was edited or comes from elsewhere")
    plan = _plan(file, raw)
    plan.__dict__["digest"] = digest  # just computed: making it again would double the time to open
    if plan.about != about.digest:
        raise StoreError(f"{file} belongs to another store: copy the whole folder again")
    if (plan.offsets is not None) != about.ragged:
        top.fail("has offsets where its store has none, or the other way round")
    if "sealed" not in top.values:
        top.fail("does not say whether it is sealed")
    sealed = top.values["sealed"]
    arrays = [array.path for array in plan.arrays(folder, about).values()]
    if sealed is not None:
        kept = Fields(file, sealed, "the seal")
        if set(kept.values) != {a.name for a in arrays} or not all(isinstance(v, str) for v in kept.values.values()):
            kept.fail("does not fit the arrays")
    elif finished := [array for array in arrays if array.is_file()]:
        top.fail(f"is not sealed although {finished[0].name} is finished")
    return plan, cast("dict[str, str] | None", sealed)


def _about(file: Path, raw: Any) -> About:
    top = Fields(file, raw, "'about'")
    sites: list[SiteFormat] = []
    for entry in top.several("sites", dict):
        one = Fields(file, entry, "a site")
        site, dtype = one.get("site", str), one.get("dtype", str)
        if not _SITE.fullmatch(site) or dtype not in DTYPES:
            one.fail(f"has the name {site!r:.50} or the type {dtype!r:.20}, which is none")
        sites.append(SiteFormat(site, dtype, one.number("width", 1, _MANY)))
    layers, positions = top.several("layers", int), top.several("positions", str)
    if not sites or not layers or not positions or not all(0 <= layer < 100_000 for layer in layers):
        top.fail("has no sites, layers or positions, or a layer that is none")
    for names in ([s.site for s in sites], layers, positions):
        if len(set(names)) < len(names):
            top.fail(f"names something twice: {names!r:.80}")
    if any(name.endswith("[*]") for name in positions) and len(positions) > 1:
        top.fail("has a region beside other positions")
    return About(
        tuple(sites), tuple(layers), tuple(positions), top.number("n_heads", 1, _MANY),
        top.number("n_kv_heads", 1, _MANY), top.get("model", dict), top.get("edits", list),
    )  # fmt: skip


def _plan(file: Path, raw: Any) -> Plan:
    top = Fields(file, raw, "the plan")
    digests, batches = top.several("digests", str), top.several("batches", list)
    prompts = _prompts(file, top.get("prompts", dict), len(digests))
    if len(top.several("ids", str)) != len(prompts):
        top.fail("has not one id per prompt")
    offsets = None if top.values.get("offsets") is None else top.several("offsets", int)
    if offsets is not None and not (
        len(offsets) == len(prompts) + 1
        and offsets[0] == 0
        and 0 < offsets[-1] < _MANY
        and all(a <= b for a, b in zip(offsets, offsets[1:], strict=False))
    ):
        top.fail("has offsets that do not ascend from 0, one more than prompts")
    members = [i for batch in batches for i in batch]
    if not all(type(i) is int for i in members) or sorted(members) != list(range(len(prompts))):
        top.fail("has batches that do not hold every prompt once")
    return Plan(
        top.get("about", str), top.get("name", str), prompts, tuple(digests), top.get("texts", str),
        None if offsets is None else tuple(offsets), tuple(tuple(batch) for batch in batches),
        top.get("versions", dict),
    )  # fmt: skip


def _prompts(file: Path, raw: Any, n: int) -> tuple[Prompt, ...]:
    top = Fields(file, raw, "'prompts'")
    names = [f.name for f in fields(Prompt)]
    columns = [top.several(name, str | None) for name in names]  # pyright: ignore[reportArgumentType]
    if not n or set(top.values) != set(names) or any(len(column) != n for column in columns):
        top.fail("has not one entry per prompt and field")
    try:
        return tuple(Prompt(**dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True))
    except (PromptError, TypeError) as error:
        raise StoreError(f"{file} is damaged: one of its prompts is none ({error})") from error


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            found.update(_flat(cast("Mapping[str, Any]", item), f"{prefix}{key}."))
        else:
            found[prefix + key] = item
    return found


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."
