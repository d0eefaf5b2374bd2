"""Act on the model: steering vectors."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steering.vector import SteeringVector

__all__ = ["SteeringVector"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'steering' has no attribute {name!r}")
    return getattr(import_module("steering.vector"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
