"""What can be known to be wrong before torch is imported, which takes seconds: names, paths, a folder in use."""

from __future__ import annotations

import os
from pathlib import Path

from interp.errors import ModelError, RefusalkitError
from interp.organism import VARIANTS
from interp.text.checks import shorten
from refusalkit.audit.folder import check_free
from refusalkit.audit.prompts import is_organism

_HUB_ID_LIMIT = 96


def check_model(name: str) -> None:
    """Whether the name can be one: what `interp.load` would say of a missing folder, said at once.

    Raises:
        ModelError: For a path with no folder behind it, and for an unknown variant of the organism.
    """
    if is_organism(name):
        variant = name.partition(":")[2] or "chat"
        if variant not in VARIANTS:
            raise ModelError(f"there is no organism variant {variant!r}; known: {', '.join(VARIANTS)}")
        return
    try:
        folder = Path(name).expanduser()
        here = folder.exists()
    except (OSError, RuntimeError, ValueError) as error:  # too long, or the home of somebody unknown
        raise ModelError(f"there is no model folder at {shorten(name, 200)}: {error.args[-1]}") from error
    if here and not folder.is_dir():
        raise ModelError(f"there is no model folder at {name}: that is a file; give the folder it is in")
    if here and not (folder / "config.json").is_file():
        raise ModelError(
            f"the folder {folder} is no model: it has no config.json; give a folder written by save_pretrained"
        )
    looks_like_a_path = name.startswith((".", "/", "~")) or name.endswith("/") or name.count("/") > 1
    if not here and (looks_like_a_path or len(name) > _HUB_ID_LIMIT):
        raise ModelError(f"there is no model folder at {shorten(name, 200)}: check the path")


def check_template(file: str | Path | None) -> None:
    """Whether a chat template given as a file is there."""
    if isinstance(file, Path) and not file.is_file():
        raise ModelError(f"no chat template at {file}: check the path")


def check_out(out: Path) -> None:
    """Whether results can be written there; nothing is made yet, so that a wrong command leaves no folder behind.

    Raises:
        RefusalkitError: When the place cannot be written, or another audit is writing there.
    """
    there = out.absolute()
    while not there.exists():
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        reason = "no permission" if there.is_dir() else f"{there} is no folder"
        raise RefusalkitError(f"cannot write to {out}: {reason}; choose another folder with --out")
    check_free(out)
