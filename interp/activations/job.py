"""What a capture is asked for, worked out: rows, columns, types, batches, and what names it in a store."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp.activations.columns import resolve_columns
from interp.errors import PositionError, StoreError
from interp.model.batching import plan
from interp.model.model import Model, Prompts
from interp.model.ops import Edit, flatten_edits
from interp.provenance import digest_json
from interp.text.encoded import Encoded
from interp.text.prompts import PromptSet

WINDOW_BYTES = 64 << 20
WINDOW_PROMPTS = 256
WINDOW_BUDGETS = 16


@dataclass(frozen=True, eq=False)
class Job:
    """One capture.

    Attributes:
        model: The model.
        encoded: The prompts.
        prompts: The same as a set.
        sites: Type and width of each site.
        layers: 0-based layers.
        positions: Column names.
        columns: For each prompt, the token indices of its cells.
        batches: Prompts of each batch.
        edits: Changes to the forward pass.
    """

    model: Model
    encoded: list[Encoded]
    prompts: PromptSet
    sites: Mapping[str, tuple[torch.dtype, int]]
    layers: tuple[int, ...]
    positions: tuple[str, ...]
    columns: list[list[int]]
    batches: list[list[int]]
    edits: Sequence[Edit]

    @property
    def ragged(self) -> bool:
        """Whether rows are the tokens of a region."""
        return self.positions[0].endswith("[*]")

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """`[n_prompts + 1]`: the first row of each prompt."""
        sizes = [len(c) for c in self.columns] if self.ragged else [1] * len(self.encoded)
        return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    @property
    def reads(self) -> list[Any]:
        """As `Model.steps` takes them."""
        return [((site, self.layers), self.columns) for site in self.sites]

    @property
    def provenance(self) -> dict[str, Any]:
        """What the numbers depend on."""
        about = {"name": self.prompts.name, "digest": self.texts, "n": len(self.encoded)}
        return {**self.model.provenance(), "prompts": about, "edited": bool(self.all_edits)}

    @property
    def all_edits(self) -> list[Edit]:
        """What changes the forward passes: the edits of open `model.edited` blocks, then the capture's own."""
        return [edit for block in self.model.standing for edit in block] + list(self.edits)

    @property
    def texts(self) -> str:
        """Digest of all rendered texts."""
        return digest_json([e.text for e in self.encoded])


def make_job(
    model: Model, prompts: Prompts, sites: str | Sequence[str], positions: str | int | Sequence[str | int],
    layers: int | Sequence[int] | None, edits: Sequence[Edit], turn: int, token_budget: int,
) -> Job:  # fmt: skip
    """Work out a capture; see `interp.capture`."""
    names = [sites] if isinstance(sites, str) else list(dict.fromkeys(sites))
    chosen = model.layers_for(names, layers)
    encoded = model.encode(prompts, turn)
    labels, columns = resolve_columns(encoded, positions, ragged=True)
    if not any(columns):
        raise PositionError(f"{labels[0]} is empty in every prompt")
    shapes = {site: (model.site_dtype(site, chosen), model.width(site, encoded, chosen)) for site in names}
    kept = prompts if isinstance(prompts, PromptSet) else PromptSet(tuple(e.prompt for e in encoded), "prompts")
    cell = len(chosen) * sum(dtype.itemsize * width for dtype, width in shapes.values())
    batches = windowed([len(e) for e in encoded], [len(c) * cell for c in columns], token_budget)
    return Job(model, encoded, kept, shapes, chosen, labels, columns, batches, flatten_edits(edits))


def windowed(lengths: Sequence[int], sizes: Sequence[int], budget: int) -> list[list[int]]:
    """Batches planned by length within windows of consecutive prompts.

    A window is what the store writes at once, so that its rows stand together in the files; it ends with the prompt
    that brings it to `WINDOW_BYTES`, but has prompts and tokens enough that sorting them by length still pays.

    Args:
        lengths: Tokens of each prompt.
        sizes: Bytes captured of each prompt.
        budget: Padded tokens per batch.
    """
    batches: list[list[int]] = []
    start = n_bytes = n_tokens = 0
    for i, (length, size) in enumerate(zip(lengths, sizes, strict=True)):
        n_bytes, n_tokens = n_bytes + size, n_tokens + length
        many = i + 1 - start >= WINDOW_PROMPTS and n_tokens >= WINDOW_BUDGETS * budget
        if (n_bytes >= WINDOW_BYTES and many) or i + 1 == len(lengths):
            batches += [[start + j for j in batch] for batch in plan(lengths[start : i + 1], budget)]
            start, n_bytes, n_tokens = i + 1, 0, 0
    return batches


def name_edits(edits: Sequence[Edit]) -> list[Any]:
    """Edits as JSON that tells them apart: tensors by their digest.

    Raises:
        StoreError: For an edit with something in it that has no name, such as a function.
    """
    return [_named(edit, edit) for edit in edits]


def _named(value: Any, edit: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        data = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return {"tensor": list(value.shape), "dtype": str(value.dtype), "sha256": hashlib.sha256(data).hexdigest()}
    if isinstance(value, np.ndarray):
        return _named(torch.from_numpy(np.ascontiguousarray(value)), edit)
    if isinstance(value, list | tuple):
        return [_named(item, edit) for item in cast("list[Any]", value)]
    if isinstance(value, Mapping):
        return {str(k): _named(v, edit) for k, v in cast("Mapping[Any, Any]", value).items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {"kind": type(value).__name__, **{f.name: _named(getattr(value, f.name), edit) for f in fields(value)}}
    raise StoreError(
        f"{edit!r} holds a {type(value).__name__}, which has no name, so a store could not tell it from another "
        "when it resumes: capture in memory, or use the edits of interp.edits"
    )
