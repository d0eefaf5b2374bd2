"""Tensors that an audit keeps between its stages."""

from __future__ import annotations

import json
import os
from pathlib import Path

from interp.errors import FormatError
from probes.candidate_scores import Candidates


def save_candidates(path: Path, found: Candidates) -> None:
    """Write candidates as safetensors, whole or not at all."""
    from safetensors.torch import save

    about = {
        "positions": found.positions,
        "tokens": found.tokens,
        "counts": found.counts,
        "provenance": found.provenance,
    }
    tensors = {"difference": found.difference, "negative": found.negative, "norm": found.norm}
    data = save({k: v.contiguous() for k, v in tensors.items()}, metadata={"about": json.dumps(about)})
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    os.replace(partial, path)


def load_candidates(path: Path) -> Candidates:
    """Read what `save_candidates` wrote.

    Raises:
        FormatError: When it is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            about = json.loads(file.metadata()["about"])
            tensors = {name: file.get_tensor(name) for name in ("difference", "negative", "norm")}
        on, off = about["counts"]
        return Candidates(
            tensors["difference"], tensors["negative"], tensors["norm"], tuple(about["positions"]),
            tuple(about["tokens"]), (on, off), about["provenance"],
        )  # fmt: skip
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{path} is missing or damaged ({error})") from error
