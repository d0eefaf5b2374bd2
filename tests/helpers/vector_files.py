"""Files of steering vectors, read by what the formats' own programs read them with, and applied by plain hooks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import interp
from tests.helpers.slow import PROMPTS, blocks_of

INPUTS = ("svec", "refusal_direction")
"""Formats whose programs add to the inputs of blocks; the others add to outputs."""


def as_its_reader_reads(format: str, path: Path) -> dict[int, Tensor]:
    """Per block, what the format's own program adds: none of our code reads the file."""
    if format == "refusal_direction":
        about = json.loads((path / "direction_metadata.json").read_text())
        return {about["layer"]: torch.load(path / "direction.pt", weights_only=True, map_location="cpu").float()}
    if format == "svec":
        held = json.loads(path.read_text())["directions"]
        return {int(layer): torch.tensor(np.array(values), dtype=torch.float32) for layer, values in held.items()}
    import gguf

    tensors = gguf.GGUFReader(path).tensors
    return {int(t.name.removeprefix("direction.")): torch.tensor(np.array(t.data)) for t in tensors}


def hooked_logits(model: interp.Model, family: str, vectors: Mapping[int, Tensor], at: str) -> Tensor:
    """Last-token logits of `PROMPTS` with vectors added to the `inputs` or `outputs` of blocks: plain PyTorch."""
    handles: list[Any] = []
    for layer, vector in vectors.items():
        block = blocks_of(model.hf, family)[layer]
        if at == "inputs":

            def enter(_module: Any, given: Any, kwargs: Any, vector: Tensor = vector) -> Any:
                if given:
                    return (given[0] + vector, *given[1:]), kwargs
                return given, kwargs | {"hidden_states": kwargs["hidden_states"] + vector}

            handles.append(block.register_forward_pre_hook(enter, with_kwargs=True))
        else:

            def leave(_module: Any, _given: Any, out: Any, vector: Tensor = vector) -> Any:
                return (out[0] + vector, *out[1:]) if isinstance(out, tuple) else out + vector

            handles.append(block.register_forward_hook(leave))
    try:
        with torch.no_grad():
            rows = [model.hf(torch.tensor([e.ids])).logits[0, -1] for e in model.encode(PROMPTS)]
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(rows)
