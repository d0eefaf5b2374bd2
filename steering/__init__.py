"""Act on the model: steering vectors, edits written into its weights, and repair by fine-tuning."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steering.calibration import Calibration, calibrate
    from steering.clients.huggingface import hf_hooks
    from steering.clients.nnsight import nnsight_steer
    from steering.clients.transformer_lens import lens_hooks
    from steering.conditions import Steered, if_guard, if_probe, if_projection, if_stream_guard, steer_when
    from steering.doses import Dose, stream_norms
    from steering.extract import contrast_vector
    from steering.formats.exchange import FORMATS, export, import_vector
    from steering.formats.exported import Exported
    from steering.operations import ablation, mean_projection, rotation, token_id
    from steering.proofs.proof import Proof, ProofRow, verify
    from steering.repairs.adapters import load_repair
    from steering.repairs.effect import RepairEffect, repair_effect
    from steering.repairs.fine_tune import Repair, repair
    from steering.repairs.grid import RepairTable, repair_table
    from steering.training import HeldOut, TrainedVector, train_vector
    from steering.vector import SteeringVector
    from steering.weights.adapter import Adapter, lora
    from steering.weights.agreement import Agreement
    from steering.weights.baking import Baked, bake

_WHERE = {
    "Adapter": "steering.weights.adapter",
    "Agreement": "steering.weights.agreement",
    "Baked": "steering.weights.baking",
    "Calibration": "steering.calibration",
    "Dose": "steering.doses",
    "Exported": "steering.formats.exported",
    "FORMATS": "steering.formats.exchange",
    "HeldOut": "steering.training",
    "Proof": "steering.proofs.proof",
    "ProofRow": "steering.proofs.proof",
    "Repair": "steering.repairs.fine_tune",
    "RepairEffect": "steering.repairs.effect",
    "RepairTable": "steering.repairs.grid",
    "Steered": "steering.conditions",
    "SteeringVector": "steering.vector",
    "TrainedVector": "steering.training",
    "ablation": "steering.operations",
    "bake": "steering.weights.baking",
    "calibrate": "steering.calibration",
    "contrast_vector": "steering.extract",
    "export": "steering.formats.exchange",
    "hf_hooks": "steering.clients.huggingface",
    "if_guard": "steering.conditions",
    "if_probe": "steering.conditions",
    "if_projection": "steering.conditions",
    "if_stream_guard": "steering.conditions",
    "import_vector": "steering.formats.exchange",
    "lens_hooks": "steering.clients.transformer_lens",
    "load_repair": "steering.repairs.adapters",
    "lora": "steering.weights.adapter",
    "mean_projection": "steering.operations",
    "nnsight_steer": "steering.clients.nnsight",
    "repair": "steering.repairs.fine_tune",
    "repair_effect": "steering.repairs.effect",
    "repair_table": "steering.repairs.grid",
    "rotation": "steering.operations",
    "steer_when": "steering.conditions",
    "stream_norms": "steering.doses",
    "token_id": "steering.operations",
    "train_vector": "steering.training",
    "verify": "steering.proofs.proof",
}

__all__ = [
    "Adapter",
    "Agreement",
    "Baked",
    "Calibration",
    "Dose",
    "Exported",
    "FORMATS",
    "HeldOut",
    "Proof",
    "ProofRow",
    "Repair",
    "RepairEffect",
    "RepairTable",
    "Steered",
    "SteeringVector",
    "TrainedVector",
    "ablation",
    "bake",
    "calibrate",
    "contrast_vector",
    "export",
    "hf_hooks",
    "if_guard",
    "if_probe",
    "if_projection",
    "if_stream_guard",
    "import_vector",
    "lens_hooks",
    "load_repair",
    "lora",
    "mean_projection",
    "nnsight_steer",
    "repair",
    "repair_effect",
    "repair_table",
    "rotation",
    "steer_when",
    "stream_norms",
    "token_id",
    "train_vector",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'steering' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
