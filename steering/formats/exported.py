"""`Exported`: what was written, and what could not be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Exported:
    """A steering vector as it was written for another program.

    Attributes:
        path: The file, or the folder.
        format: Name of the format, one of `steering.FORMATS`.
        files: All files that were written.
        notes: What the format cannot carry, and what became of it. Empty when nothing was lost.
    """

    path: Path
    format: str
    files: tuple[Path, ...]
    notes: tuple[str, ...]
