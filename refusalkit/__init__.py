"""refusalkit: how a language model recognises harm, decides to refuse, and loses that decision.

The dozen names that most sessions start from; each comes from the package it lives in, on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp import Activations, Direction, Model, PromptSet, Trace, capture, edits, judge, load, prompts
    from probes import refusal_direction
    from steering import SteeringVector

_WHERE = {
    **dict.fromkeys(
        ("Activations", "Direction", "Model", "PromptSet", "Trace", "capture", "edits", "judge", "load", "prompts"),
        "interp",
    ),
    "SteeringVector": "steering",
    "refusal_direction": "probes",
}

__version__ = "0.1.0"
__all__ = [
    "Activations", "Direction", "Model", "PromptSet", "SteeringVector", "Trace", "capture", "edits", "judge", "load",
    "prompts", "refusal_direction",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'refusalkit' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
