"""Capture as a Ray Data pipeline: actors that load the model once, prompts in parts, each part a segment of the store.

A part is a store of its own under `.parts` until all are done; then their segments are moved into place. So a worker
that is lost leaves a part that another finishes, and a job that is killed goes on with the parts that are missing.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from interp.activations.job import name_edits
from interp.activations.store.begin import locked
from interp.activations.store.checked import read_signed, write_signed
from interp.activations.store.files import sync_folder
from interp.activations.store.manifest import MANIFEST, About, read_manifest, write_manifest
from interp.activations.store.reader import Store, open_store
from interp.errors import RefusalkitError, StoreError
from interp.progress import progress_bar
from interp.provenance import digest_json
from interp.text.prompts import Prompt, PromptSet

PARTS, MOVED, JOB = ".parts", ".parts-moved", "job.json"
FORMAT = "refusalkit/activations/1/ray"
_ERROR = re.compile(r"[\w.]+(?:Error|Exception): ")


@dataclass(frozen=True)
class Ray:
    """How Ray runs a capture (`pip install 'refusalkit[ray]'`).

    Attributes:
        workers: Actors, each with the model loaded.
        cpus_per_worker: CPUs an actor takes; a fraction leaves some for Ray's own reading tasks on small machines.
        gpus_per_worker: GPUs an actor takes; with several, load with `device_map="auto"`.
        part: Prompts per part: what is lost and done again with a worker.
        load: Options of `interp.load` for the actors.
    """

    workers: int = 1
    cpus_per_worker: float = 0.5
    gpus_per_worker: float = 0.0
    part: int = 512
    load: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        if self.workers < 1 or self.part < 1 or self.cpus_per_worker < 0 or self.gpus_per_worker < 0:
            raise RefusalkitError(f"{self} asks for less than nothing: workers and part are at least 1")


def capture_with_ray(
    model: Any, prompts: Any, engine: Ray, out: Path, append: bool, progress: bool, **settings: Any
) -> Store:
    """Capture into a folder; see `interp.capture`.

    Raises:
        StoreError: When the folder holds something else, or another job's parts.
        RefusalkitError: When Ray is not installed, or a worker fails: with what it said.
    """
    if not isinstance(model, str | os.PathLike):
        raise RefusalkitError(
            "with engine='ray' every worker loads the model itself: give its name or folder, and options of "
            "interp.load in Ray(load=...)"
        )
    if "pattern" in settings["sites"]:
        raise RefusalkitError("the width of pattern depends on all prompts, which no worker sees: capture it locally")
    ray = _ray()
    name, chosen = os.fspath(model), _as_set(prompts)
    name = str(Path(name).expanduser().resolve()) if Path(name).expanduser().is_dir() else name
    parts = [chosen[i : i + engine.part] for i in range(0, len(chosen), engine.part)]
    job = {
        "model": name, "load": {k: str(v) for k, v in engine.load.items()}, "prompts": _digest(chosen),
        "part": engine.part, "edits": name_edits(settings["edits"]),
        **{k: v for k, v in settings.items() if k != "edits"},
    }  # fmt: skip
    with locked(out):
        shutil.rmtree(out / MOVED, ignore_errors=True)  # left by a kill: all of it stands in the store
        if (out / MANIFEST).is_file() and _finished(out, job):
            return open_store(out)
        _begin(out, job, append)
        missing = [i for i in range(len(parts)) if not _done(out, i)]
        with progress_bar("capturing", len(chosen), progress) as advance:
            advance(len(chosen) - sum(len(parts[i]) for i in missing))
            if missing:
                with _started(ray):
                    for number in _run(ray, name, engine, out, parts, missing, settings):
                        advance(len(parts[number]))
        _move(out, len(parts), job, append)
    return open_store(out)


class Worker:
    """An actor: loads the model once, then captures part after part."""

    def __init__(self, name: str, load: Mapping[str, Any], folder: str, settings: Mapping[str, Any]) -> None:
        import interp

        self._model = interp.load(name, **load)
        self._folder, self._settings = Path(folder), dict(settings)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Capture the parts of a batch (`part`, `prompts` as JSON)."""
        import interp

        for number, text in zip(batch["part"], batch["prompts"], strict=True):
            stated = json.loads(text)
            some = PromptSet(tuple(Prompt(**p) for p in stated["prompts"]), stated["name"])
            interp.capture(self._model, some, out=_part(self._folder, int(number)), **self._settings)
        return {"part": batch["part"]}


def _run(
    ray: Any, name: str, engine: Ray, out: Path, parts: Sequence[PromptSet], missing: Sequence[int],
    settings: Mapping[str, Any],
) -> Iterator[int]:  # fmt: skip
    items = [
        {"part": i, "prompts": json.dumps({"name": parts[i].name, "prompts": [asdict(p) for p in parts[i]]})}
        for i in missing
    ]
    options: dict[str, Any] = {"num_cpus": engine.cpus_per_worker}
    if engine.gpus_per_worker:
        options["num_gpus"] = engine.gpus_per_worker
    data = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        Worker, batch_size=1, fn_constructor_args=(name, dict(engine.load), str(out.resolve()), dict(settings)),
        compute=ray.data.ActorPoolStrategy(size=min(engine.workers, len(items))), **options,
    )  # fmt: skip
    try:
        for row in data.iter_rows():
            yield int(row["part"])
    except ray.exceptions.RayError as error:
        raise RefusalkitError(
            f"a Ray worker failed: {_said(error)}; what is captured is kept, the same call goes on"
        ) from error


def _said(error: BaseException) -> str:
    """The last line of a remote traceback that names an error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if _ERROR.match(line)]
    return (_ERROR.sub("", named[-1]) if named else (lines or [type(error).__name__])[-1])[:500]


def _move(out: Path, n: int, job: Mapping[str, Any], append: bool) -> None:
    """Put the parts' segments in place and list them; only then are the parts' folders removed.

    Killed in between, it does the same again: what is listed already is not listed twice, and the parts vanish at once.
    """
    about, listed = read_manifest(out) if append and (out / MANIFEST).is_file() else (None, [])
    found, there = list(listed), {digest for _, digest in listed}
    for i in range(n):
        part = _part(out, i)
        own, ((folder, digest),) = read_manifest(part)
        about = _same(about, own, out)
        if digest in there:
            continue
        target = out / f"seg-{len(found):04d}"
        if (part / folder).is_dir():
            os.replace(part / folder, target)
        found.append((target.name, digest))
    assert about is not None
    sync_folder(out)
    write_manifest(out, about, found)
    write_signed(out / JOB, {"format": FORMAT, "job": dict(job)})
    os.replace(out / PARTS, out / MOVED)
    shutil.rmtree(out / MOVED)


def _same(kept: About | None, own: About, out: Path) -> About:
    if kept is not None and (differences := kept.differences(own)):
        raise StoreError(f"{out} holds a capture of other things ({'; '.join(differences)}): use another folder")
    return own


def _begin(out: Path, job: Mapping[str, Any], append: bool) -> None:
    """Make the folder of parts, or check that those there are of this job."""
    folder = out / PARTS
    if folder.is_dir():
        kept = read_signed(folder / JOB, FORMAT).get("job") if (folder / JOB).is_file() else None
        if kept is not None and kept != json.loads(json.dumps(job)):
            changed = [k for k in job if json.loads(json.dumps(job[k])) != kept.get(k)]
            raise StoreError(
                f"{out} holds parts of another job (other {', '.join(changed)}): capture into another folder"
            )
    elif any(entry.name != ".lock" for entry in out.iterdir()) and not (append and (out / MANIFEST).is_file()):
        raise StoreError(f"{out} is not empty: give append=True to add to a store, or another folder")
    folder.mkdir(exist_ok=True)
    write_signed(folder / JOB, {"format": FORMAT, "job": dict(job)})


def _finished(out: Path, job: Mapping[str, Any]) -> bool:
    return (
        not (out / PARTS).is_dir()
        and (out / JOB).is_file()
        and read_signed(out / JOB, FORMAT).get("job") == json.loads(json.dumps(job))
    )


def _done(out: Path, number: int) -> bool:
    """Whether a part is captured; its segment may have been moved already."""
    part = _part(out, number)
    if not (part / MANIFEST).is_file():
        return False
    _, ((folder, _),) = read_manifest(part)
    return not (part / folder).is_dir() or open_store(part).complete


def _part(out: Path, number: int) -> Path:
    return out / PARTS / f"{number:06d}"


def _as_set(prompts: Any) -> PromptSet:
    if isinstance(prompts, PromptSet):
        return prompts
    several = [prompts] if isinstance(prompts, str | Prompt) else list(prompts)
    if not all(isinstance(p, str | Prompt) for p in several):
        raise RefusalkitError("with engine='ray' prompts are texts, Prompts or a PromptSet")
    return PromptSet(tuple(p if isinstance(p, Prompt) else Prompt(p) for p in several), "prompts")


def _digest(prompts: PromptSet) -> str:
    return digest_json([asdict(p) for p in prompts])


def _ray() -> Any:
    try:
        import_module("ray.data")
        return import_module("ray")
    except ImportError as error:
        raise RefusalkitError("engine='ray' needs Ray: pip install 'refusalkit[ray]'") from error


@contextmanager
def _started(ray: Any) -> Generator[None]:
    """A running Ray: the one the caller has, or one of our own that ends with the capture."""
    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS")
    ray.init(address=address, include_dashboard=False if address is None else None, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        yield
    finally:
        ray.shutdown()
