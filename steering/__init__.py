"""Act on the model: steering vectors, and edits written into its weights."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steering.vector import SteeringVector
    from steering.weights.adapter import Adapter, lora
    from steering.weights.agreement import Agreement
    from steering.weights.baking import Baked, bake

_WHERE = {
    "Adapter": "steering.weights.adapter",
    "Agreement": "steering.weights.agreement",
    "Baked": "steering.weights.baking",
    "SteeringVector": "steering.vector",
    "bake": "steering.weights.baking",
    "lora": "steering.weights.adapter",
}

__all__ = ["Adapter", "Agreement", "Baked", "SteeringVector", "bake", "lora"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'steering' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
