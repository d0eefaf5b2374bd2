"""What can be known to be wrong before torch is imported, which takes seconds: names, paths, a folder in use."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from interp.errors import ModelError, RefusalkitError
from interp.model.names import model_folder, organism_variant
from refusalkit.audit.folder import check_free
from refusalkit.audit.settings import OPTIONAL


def check_model(name: str) -> None:
    """Whether the name can be one: what `interp.load` would say of a missing folder, said at once.

    Raises:
        ModelError: For a path with no folder behind it, and for an unknown variant of the organism.
    """
    if organism_variant(name) is None:
        model_folder(name)


def check_skip(names: Sequence[str]) -> None:
    """Whether these are sections that an audit can do without."""
    if unknown := [name for name in names if name not in OPTIONAL]:
        raise RefusalkitError(f"there is no section {unknown[0]!r} to skip; known: {', '.join(OPTIONAL)}")


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
