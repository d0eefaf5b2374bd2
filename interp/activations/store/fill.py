"""Capture into a store: run what is missing, write it down, and open the result."""

from __future__ import annotations

import contextlib
from pathlib import Path

from interp.activations.job import Job, name_edits
from interp.activations.store.begin import begin, locked
from interp.activations.store.files import NAMES
from interp.activations.store.manifest import About, Plan, SiteFormat
from interp.activations.store.reader import Store, open_store
from interp.activations.store.writer import Writer
from interp.errors import EditError, StoreError
from interp.progress import progress_bar
from interp.provenance import digest_json


def fill(job: Job, path: Path, append: bool, progress: bool) -> Store:
    """Capture into a folder; see `interp.capture`."""
    about, plan = describe(job)
    with locked(path):
        number, writer = begin(path, about, plan, append)
        if writer is not None:
            _run(job, writer, progress)
            writer.seal()
    store = open_store(path)
    return store if append else store.segment(number)


def describe(job: Job) -> tuple[About, Plan]:
    """What the job is for the store."""
    model = job.model.provenance()
    versions: dict[str, str] = model.pop("versions")
    sites = tuple(SiteFormat(site, NAMES[dtype], width) for site, (dtype, width) in job.sites.items())
    arch = job.model.arch
    about = About(
        sites, job.layers, job.positions, arch.n_heads, arch.n_kv_heads, model, name_edits(job.all_edits)
    )  # fmt: skip
    digests = tuple(digest_json([e.ids, c]) for e, c in zip(job.encoded, job.columns, strict=True))
    plan = Plan(
        about.digest, job.prompts.name, tuple(job.prompts), digests, job.texts,
        tuple(job.offsets.tolist()) if job.ragged else None, tuple(tuple(batch) for batch in job.batches),
        {**versions, "device": job.model.device.type},
    )  # fmt: skip
    return about, plan


def _run(job: Job, writer: Writer, progress: bool) -> None:
    missing = writer.missing
    batches = [writer.batches[number] for number in missing]
    resumed = len(missing) < len(writer.batches)
    unsure = resumed and not missing
    steps = job.model.steps(job.encoded, job.reads, job.edits, stop=True, batches=batches)
    with progress_bar("capturing", len(job.encoded), progress) as advance:
        advance(len(job.encoded) - sum(map(len, batches)))
        try:
            for number, step in zip(missing, steps, strict=True):
                writer.add(number, step.reads)
                advance(len(step.rows))
        except EditError:
            if not resumed:
                raise
            unsure = True
        except BaseException:
            # What was computed is kept, also when the user stops it or one prompt fails.
            with contextlib.suppress(StoreError):
                writer.sync()
            raise
        if unsure and job.edits:
            # The part run now met no token of some edit; whether the whole does only the whole can tell.
            for _ in job.model.steps(job.encoded, (), job.edits, batches=writer.batches):
                pass
    writer.sync()
