"""Files of strangers, read with a limit."""

from __future__ import annotations

from pathlib import Path

from interp.errors import FormatError

LARGEST = 1 << 28
"""Bytes. Vectors for 128 layers of width 16,384 take 8 MiB in fp32, and 43 as JSON."""


def read_bytes(path: Path, largest: int = LARGEST) -> bytes:
    """What is in a file.

    Raises:
        FormatError: When there is no such file, it cannot be read, or has more than `largest` bytes.
    """
    try:
        if not path.is_file():  # a pipe would be waited for, a device would never end
            raise FormatError(f"there is no file at {path}")
        with path.open("rb") as file:
            data = file.read(largest + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"cannot read {path}: {error}") from error
    if len(data) > largest:
        raise FormatError(f"{path} has more than {largest >> 20} MiB, which no steering vector has")
    return data
