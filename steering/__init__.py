"""Act on the model: steering vectors, what they do, how strong, and under which conditions.

The public names are loaded on first use, so that importing the package is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steering.calibration import Calibration, calibrate
    from steering.conditions import Steered, if_guard, if_probe, if_projection, if_stream_guard, steer_when
    from steering.doses import Dose, stream_norms
    from steering.extract import contrast_vector
    from steering.operations import ablation, mean_projection, rotation, token_id
    from steering.training import HeldOut, TrainedVector, train_vector
    from steering.vector import SteeringVector

_WHERE = {
    "Calibration": "steering.calibration",
    "Dose": "steering.doses",
    "HeldOut": "steering.training",
    "Steered": "steering.conditions",
    "SteeringVector": "steering.vector",
    "TrainedVector": "steering.training",
    "ablation": "steering.operations",
    "calibrate": "steering.calibration",
    "contrast_vector": "steering.extract",
    "if_guard": "steering.conditions",
    "if_probe": "steering.conditions",
    "if_projection": "steering.conditions",
    "if_stream_guard": "steering.conditions",
    "mean_projection": "steering.operations",
    "rotation": "steering.operations",
    "steer_when": "steering.conditions",
    "stream_norms": "steering.doses",
    "token_id": "steering.operations",
    "train_vector": "steering.training",
}

__all__ = [
    "Calibration",
    "Dose",
    "HeldOut",
    "Steered",
    "SteeringVector",
    "TrainedVector",
    "ablation",
    "calibrate",
    "contrast_vector",
    "if_guard",
    "if_probe",
    "if_projection",
    "if_stream_guard",
    "mean_projection",
    "rotation",
    "steer_when",
    "stream_norms",
    "token_id",
    "train_vector",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'steering' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
