"""What is known of a vector that another program wrote."""

from __future__ import annotations

import hashlib
from typing import Any

UNKNOWN = ("chat", "data", "dtype", "method", "model", "position", "seed", "versions")
"""What our own vectors' provenance says."""


def provenance_of(form: str, data: bytes, **known: Any) -> dict[str, Any]:
    """Provenance that says what is known, and names what is not.

    Args:
        form: The format.
        data: The file's bytes. Their digest says which file this was; the formats themselves have none, so that a
            number changed in the file before it got here goes unnoticed.
        **known: What the file says; `None` is nothing.
    """
    said = {key: value for key, value in known.items() if value is not None}
    unknown = [name for name in UNKNOWN if name not in said]
    return {"format": form, "file_digest": hashlib.sha256(data).hexdigest(), **said, "unknown": unknown}
