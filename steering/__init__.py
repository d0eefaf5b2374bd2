"""Act on the model: steering vectors, edits written into its weights, and repair by fine-tuning."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steering.repairs.adapters import load_repair
    from steering.repairs.effect import RepairEffect, repair_effect
    from steering.repairs.fine_tune import Repair, repair
    from steering.repairs.grid import RepairTable, repair_table
    from steering.vector import SteeringVector
    from steering.weights.adapter import Adapter, lora
    from steering.weights.agreement import Agreement
    from steering.weights.baking import Baked, bake

_WHERE = {
    "Adapter": "steering.weights.adapter",
    "Agreement": "steering.weights.agreement",
    "Baked": "steering.weights.baking",
    "Repair": "steering.repairs.fine_tune",
    "RepairEffect": "steering.repairs.effect",
    "RepairTable": "steering.repairs.grid",
    "SteeringVector": "steering.vector",
    "bake": "steering.weights.baking",
    "load_repair": "steering.repairs.adapters",
    "lora": "steering.weights.adapter",
    "repair": "steering.repairs.fine_tune",
    "repair_effect": "steering.repairs.effect",
    "repair_table": "steering.repairs.grid",
}

__all__ = [
    "Adapter",
    "Agreement",
    "Baked",
    "Repair",
    "RepairEffect",
    "RepairTable",
    "SteeringVector",
    "bake",
    "load_repair",
    "lora",
    "repair",
    "repair_effect",
    "repair_table",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'steering' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
