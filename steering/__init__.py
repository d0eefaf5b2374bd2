"""Act on the model: steering vectors, and repair by fine-tuning."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steering.repairs.adapters import load_repair
    from steering.repairs.effect import RepairEffect, repair_effect
    from steering.repairs.fine_tune import Repair, repair
    from steering.repairs.grid import RepairTable, repair_table
    from steering.vector import SteeringVector

_WHERE = {
    "Repair": "steering.repairs.fine_tune",
    "RepairEffect": "steering.repairs.effect",
    "RepairTable": "steering.repairs.grid",
    "SteeringVector": "steering.vector",
    "load_repair": "steering.repairs.adapters",
    "repair": "steering.repairs.fine_tune",
    "repair_effect": "steering.repairs.effect",
    "repair_table": "steering.repairs.grid",
}

__all__ = [
    "Repair",
    "RepairEffect",
    "RepairTable",
    "SteeringVector",
    "load_repair",
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
