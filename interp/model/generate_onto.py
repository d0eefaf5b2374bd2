"""Generation onto disk: JSON lines, filled batch by batch, that the same call goes on with to the same result."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from interp.errors import PromptError
from interp.model.batching import plan
from interp.model.generate import Completion
from interp.model.model import Model
from interp.progress import progress_bar
from interp.provenance import digest_json
from interp.text.encoded import Encoded

SEED_RANGE = 2**31

Row = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """What a file holds.

    Attributes:
        format: Name and version, the first line's `format`.
        name: What the rows are called in messages: `"rollouts"`.
        doing: What the progress bar says: `"thinking"`.
    """

    format: str
    name: str
    doing: str


def generate_onto(
    model: Model,
    encoded: Sequence[Encoded],
    kind: Kind,
    out: str | os.PathLike[str] | None,
    row: Callable[[int, Completion], Row],
    prompts_digest: str,
    made_from: Mapping[str, Any],
    *,
    max_new_tokens: int,
    batch_size: int,
    token_budget: int,
    seed: int = 0,
    progress: bool = False,
    **options: Any,
) -> list[Row]:
    """Generate, and keep a row for every prompt, on disk as it goes.

    Args:
        model: The model.
        encoded: Prompts.
        kind: What the file is.
        out: The file; `None` keeps nothing on disk. One that was cut short is gone on with.
        row: Makes a completion, with the index of its prompt, JSON-able; it holds that `index`.
        prompts_digest: Says which prompts: a file of others is refused.
        made_from: Says which model, template and settings: likewise.
        max_new_tokens: Longest answer.
        batch_size: Most rows in a batch; also how often the file grows.
        token_budget: Most padded tokens in a batch.
        seed: Every batch samples from a seed of its own, made of this and its number.
        progress: Show a progress bar.
        options: More for `interp.generate`.

    Returns:
        The rows, in the order of the prompts.

    Raises:
        PromptError: When the file is of something else, or another process is writing to it.
    """
    header = {"format": kind.format, "prompts": prompts_digest, "provenance": digest_json(made_from)}
    file = None if out is None else Path(out)
    # Batches are planned over all prompts, done or not, so that one that is resumed samples what it would have.
    batches = plan([len(e) + max_new_tokens for e in encoded], token_budget, batch_size)
    with _alone(file, kind), progress_bar(kind.doing, len(encoded), progress) as advance:
        done = {} if file is None else _begun(file, kind, header)
        for number, batch in enumerate(batches):
            if not all(i in done for i in batch):
                written = model.generate(
                    [encoded[i] for i in batch], max_new_tokens=max_new_tokens, seed=_seed(seed, number),
                    batch_size=batch_size, token_budget=token_budget, **options,
                )  # fmt: skip
                new = {i: row(i, c) for i, c in zip(batch, written, strict=True) if i not in done}
                if file is not None:
                    _append(file, list(new.values()))
                done |= new
            advance(len(batch))
    return [done[i] for i in range(len(encoded))]


def _seed(seed: int, batch: int) -> int:
    return int(digest_json([seed, batch]), 16) % SEED_RANGE


@contextlib.contextmanager
def _alone(file: Path | None, kind: Kind) -> Generator[None]:
    """Keep others from the file; the system lets go of it when the process ends, however it ends."""
    if file is None or (file.exists() and not os.access(file.parent, os.W_OK)):
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.lock")
    lock = FileLock(beside, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise PromptError(
            f"another process is writing {kind.name} to {file}: wait until it ends, or give another name"
        ) from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()  # while it is held: whoever waits for it finds it gone, and begins anew
        lock.release()


def _begun(path: Path, kind: Kind, header: Row) -> dict[int, Row]:
    """What a file holds already, by index; a last line that was cut short is dropped."""
    if not path.exists():
        path.write_text(json.dumps(header) + "\n", encoding="utf-8")
        return {}
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise PromptError(f"{path} is no text file: give another name, or delete it to start over") from error
    whole, _, _ = text.rpartition("\n")
    lines = [_parsed(path, kind, n, line) for n, line in enumerate(whole.split("\n"), 1) if line]
    if not lines:  # cut short in its first line
        path.write_text(json.dumps(header) + "\n", encoding="utf-8")
        return {}
    if not isinstance(lines[0], dict) or lines[0].get("format") != kind.format:
        raise PromptError(f"{path} is no file of {kind.name}: give another name")
    for key, what in (("prompts", "other prompts"), ("provenance", "another model, template or settings")):
        if lines[0].get(key) != header[key]:
            raise PromptError(f"{path} holds {kind.name} of {what}: give another name, or delete it to start over")
    if text != whole + "\n":
        partial = path.with_name(path.name + ".partial")  # a kill in between must not cost what was there
        partial.write_text(whole + "\n", encoding="utf-8")
        os.replace(partial, path)
    try:
        return {int(line["index"]): line for line in lines[1:]}
    except (KeyError, TypeError, ValueError) as error:
        raise PromptError(f"{path} is damaged ({error!r}): delete it to start over") from error


def _parsed(path: Path, kind: Kind, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        if number == 1:
            raise PromptError(f"{path} is no file of {kind.name} ({error.msg}): give another name") from error
        raise PromptError(
            f"{path}, line {number} is damaged ({error.msg}): delete that line, and the same call writes what it held "
            "anew, or delete the file to start over"
        ) from error


def _append(path: Path, rows: list[Row]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))
        file.flush()
        os.fsync(file.fileno())
