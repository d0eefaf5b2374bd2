"""A folder that is there whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from interp.errors import FormatError


def check_free(path: str | os.PathLike[str]) -> Path:
    """The folder, if something may be written there: it does not exist yet, or is empty.

    Raises:
        FormatError: Otherwise.
    """
    target = Path(path).expanduser()
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise FormatError(f"cannot write the folder {target}: that is a file or a link; give another name")
    if target.is_dir() and any(target.iterdir()):
        raise FormatError(f"the folder {target} is not empty, and nothing in it is replaced; give a new one")
    if not target.parent.is_dir():
        raise FormatError(f"cannot write {target}: there is no folder {target.parent}")
    return target


def write_folder(path: str | os.PathLike[str], fill: Callable[[Path], None]) -> Path:
    """Fill a folder beside the wanted one and rename it.

    What a killed process leaves is called `NAME.PID.partial`, beside the wanted name, and can be deleted.
    """
    target = check_free(path)
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        fill(partial)
        os.replace(partial, target)
    except OSError as error:
        raise FormatError(f"cannot write the folder {target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target
