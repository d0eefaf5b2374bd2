"""Capture: run prompts once and keep the wanted sites at the wanted positions, in memory or on disk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import torch

from interp.activations.activations import Activations
from interp.activations.job import Job, make_job
from interp.errors import ModelError, StoreError
from interp.model.batching import TOKEN_BUDGET
from interp.model.model import Model, Prompts
from interp.model.ops import Edit, flatten_edits
from interp.model.sites import as_layers
from interp.progress import progress_bar

if TYPE_CHECKING:
    from interp.activations.engines.ray import Ray
    from interp.activations.store.reader import Store

    Engine = Literal["local", "ray"] | Ray


@overload
def capture(
    model: Model,
    prompts: Prompts,
    sites: str | Sequence[str] = "resid_post",
    positions: str | int | Sequence[str | int] = ("t_inst", "t_post_inst"),
    layers: int | Sequence[int] | None = None,
    *,
    edits: Sequence[Edit] = (),
    turn: int = -1,
    token_budget: int = TOKEN_BUDGET,
    progress: bool = False,
    out: None = None,
    append: bool = False,
    engine: Literal["local"] = "local",
) -> Activations: ...
@overload
def capture(
    model: Model | str | os.PathLike[str],
    prompts: Prompts,
    sites: str | Sequence[str] = "resid_post",
    positions: str | int | Sequence[str | int] = ("t_inst", "t_post_inst"),
    layers: int | Sequence[int] | None = None,
    *,
    edits: Sequence[Edit] = (),
    turn: int = -1,
    token_budget: int = TOKEN_BUDGET,
    progress: bool = False,
    out: str | os.PathLike[str],
    append: bool = False,
    engine: Engine = "local",
) -> Store: ...
def capture(
    model: Model | str | os.PathLike[str],
    prompts: Prompts,
    sites: str | Sequence[str] = "resid_post",
    positions: str | int | Sequence[str | int] = ("t_inst", "t_post_inst"),
    layers: int | Sequence[int] | None = None,
    *,
    edits: Sequence[Edit] = (),
    turn: int = -1,
    token_budget: int = TOKEN_BUDGET,
    progress: bool = False,
    out: str | os.PathLike[str] | None = None,
    append: bool = False,
    engine: Engine = "local",
) -> Activations | Store:
    """Capture activations.

    Prompts run through the backbone alone, batched by length under a token budget; each hook copies the wanted rows
    into a buffer, and the forward ends after the last site that is needed.

    With `out`, they go to a folder on disk: one safetensors file per site and layer, filled while the model runs. If
    that is cut short, at any instant, the same call finishes it, and the files are those of a run that was not cut
    short (on the same machine and settings: libraries of other versions are refused). What is in the folder is never
    mixed with another model, template, dtype, site list or prompt set.

    Args:
        model: The model; with Ray its name or folder, which every worker loads.
        prompts: One or several; a `PromptSet` brings labels and groups along.
        sites: One or several of `interp.SITES`.
        positions: Names (`interp.POSITION_NAMES`) or integers; `"post_inst"` is every template token after the
            instruction, one column each. A region as long as the prompt (`"inst"`, `"all"`) may be the only one: then
            rows are its tokens, all prompts' one after another, see `Activations.offsets`.
        layers: 0-based; all by default.
        edits: Changes to the forward pass; reads see the values after them.
        turn: Which user turn is the instruction; the last by default.
        token_budget: Padded tokens per batch; a capture that is resumed keeps the one it was begun with.
        progress: Show a progress bar.
        out: A folder for a store; made when missing.
        append: Add prompts to the store in `out`. Prompts that are in it already are not added again.
        engine: `"local"`; or `"ray"` or `interp.Ray(...)`, which runs parts of the prompts in several workers and needs
            `out`.

    Returns:
        `Activations`, `[row, layer, position, feature]` per site, in the model's dtype, on the CPU, in the order of the
        prompts. With `out`, a `Store` with the same interface: of these prompts, or with `append` of all there are.

    Raises:
        SiteError, PositionError, PromptError: For what is not there.
        NonFiniteError: For a NaN or infinite activation.
        StoreError: When the folder holds something else, another process is writing to it, or the disk is full.
    """
    if append and out is None:
        raise StoreError("append=True adds to a store on disk: say where with out=")
    if engine != "local":
        return _with_ray(
            engine, model, prompts, out, append, progress, sites=[sites] if isinstance(sites, str) else list(sites),
            positions=[positions] if isinstance(positions, str | int) else list(positions),
            layers=None if layers is None else list(as_layers(layers)), edits=flatten_edits(edits), turn=turn,
            token_budget=token_budget,
        )  # fmt: skip
    if not isinstance(model, Model):
        raise ModelError(f"{model!r} is the name of a model: load it with interp.load, or give engine='ray'")
    job = make_job(model, prompts, sites, positions, layers, edits, turn, token_budget)
    if out is not None:
        from interp.activations.store.fill import fill

        return fill(job, Path(out).expanduser(), append, progress)
    return _in_memory(job, progress)


def _with_ray(
    engine: Any, model: Any, prompts: Any, out: Any, append: bool, progress: bool, **settings: Any
) -> Store:  # fmt: skip
    from interp.activations.engines.ray import Ray, capture_with_ray

    if engine != "ray" and not isinstance(engine, Ray):
        raise StoreError(f"there is no engine {engine!r}; known: local, ray")
    if out is None:
        raise StoreError("Ray captures into a store on disk: say where with out=")
    engine = Ray() if engine == "ray" else engine
    return capture_with_ray(model, prompts, engine, Path(out).expanduser(), append, progress, **settings)


def _in_memory(job: Job, progress: bool) -> Activations:
    n, depth, width = int(job.offsets[-1]), len(job.layers), len(job.positions)
    data = {site: torch.empty(n, depth, width, size, dtype=dtype) for site, (dtype, size) in job.sites.items()}
    with progress_bar("capturing", len(job.encoded), progress) as advance:
        for step in job.model.steps(job.encoded, job.reads, job.edits, stop=True, batches=job.batches, done=advance):
            for site in job.sites:
                if job.ragged:
                    rows = [r for i in step.rows for r in range(int(job.offsets[i]), int(job.offsets[i + 1]))]
                    data[site][rows, :, 0] = step.reads[site].transpose(0, 1)
                else:
                    data[site][step.rows] = step.grid(site)
    arch = job.model.arch
    return Activations(
        data, job.layers, job.positions, job.prompts, arch.n_heads, job.provenance, job.offsets, arch.n_kv_heads
    )  # fmt: skip
