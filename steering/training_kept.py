"""The state of a vector in training on disk after every step, so that a run that is cut short ends as if it had not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.errors import FormatError
from interp.provenance import digest_json
from interp.tensorfile import read_tensors, write_tensors

CHECKPOINT, ANSWERS = "checkpoint.safetensors", "answers.jsonl"
_ENTRY = "vector-checkpoint"
_FORMAT = "refusalkit/vector-checkpoint/1"
_MOMENTS = ("exp_avg", "exp_avg_sq")
History = list[dict[str, float]]


class TrainingState:
    """A vector and its optimizer, which are small enough to be written at every step.

    Args:
        folder: Where; `None` keeps nothing.
        key: What decides the result, JSON-able.
    """

    def __init__(self, folder: Path | None, key: Mapping[str, Any]) -> None:
        self._file = None if folder is None else folder / CHECKPOINT
        self._key = digest_json(key)

    def keep(self, learned: Tensor, adam: torch.optim.Adam, history: History, leash: float) -> None:
        """Write what the next step starts from.

        Raises:
            FormatError: When it cannot be written.
        """
        if self._file is None:
            return
        state: dict[str, Any] = adam.state[learned]
        tensors = {"vector": learned.detach().cpu(), **{m: state[m].detach().cpu() for m in _MOMENTS}}
        about = {"format": _FORMAT, "key": self._key, "leash": leash, "history": history}
        write_tensors(self._file, _ENTRY, about, tensors)

    def resume(self, learned: Tensor, adam: torch.optim.Adam) -> tuple[History, float]:
        """Set vector and optimizer to what was kept; the history so far, and the leash for the next step.

        Raises:
            FormatError: When what is there is damaged, or of another training.
        """
        if self._file is None or not self._file.exists():
            return [], 1.0
        about, tensors = read_tensors(self._file, _ENTRY, _FORMAT, {"key": str, "leash": float, "history": list})
        if about["key"] != self._key:
            raise FormatError(
                f"{self._file} belongs to a training with another model, other prompts or settings: give another "
                "folder, or delete it to start over"
            )
        if {name: t.shape for name, t in tensors.items()} != dict.fromkeys(("vector", *_MOMENTS), learned.shape):
            raise FormatError(f"{self._file} is damaged: delete it to start over")
        with torch.no_grad():
            learned.copy_(tensors["vector"])
        moments = {name: tensors[name].to(learned.device) for name in _MOMENTS}
        adam.state[learned] = {"step": torch.tensor(float(len(about["history"]))), **moments}
        return about["history"], about["leash"]
