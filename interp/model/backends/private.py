"""A private copy of the user's model for a peer that changes what it wraps."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from typing import Any

from torch import nn

from interp.errors import EditError, ModelError
from interp.model.architecture import Architecture


def private_copy(hf: Any, share_weights: bool) -> Any:
    """A copy of a model's modules, with its own weights or with the user's.

    Shared weights cost no memory and follow what the user does to them; they are for a peer that writes to none.
    """
    if getattr(hf, "hf_device_map", None) and len(set(hf.hf_device_map.values())) > 1:
        raise ModelError("a model spread over several devices runs on plain hooks only: load it with backend='hooks'")
    shared: dict[int, Any] = {}
    if share_weights:
        for weight in hf.parameters():
            shared[id(weight)] = nn.Parameter(weight.data, requires_grad=weight.requires_grad)
    return copy.deepcopy(hf, shared)


def backbone_of(copied: Any, hf: Any, arch: Architecture) -> nn.Module:
    """The backbone in a copy of a model."""
    return copied.get_submodule(path_of(hf, arch.backbone))


def path_of(hf: Any, module: nn.Module) -> str:
    """Where a module is in a model."""
    return next(name for name, found in hf.named_modules() if found is module)


def forbid(stack: ExitStack, hf: Any, name: str) -> None:
    """Until the stack is closed, a forward of the user's own model is an error: the peer runs its copy."""

    def refuse(*_: Any) -> None:
        raise EditError(
            f"the backend {name} runs its own copy, so edits do not reach model.hf; run model.run, model.logits or "
            "model.generate, or load the model with backend='hooks'"
        )

    stack.callback(hf.register_forward_pre_hook(refuse).remove)


def missing(package: str, error: ImportError) -> ModelError:
    """The error for a peer that is not installed."""
    return ModelError(
        f"the backend needs {package}, which is not installed ({error}): pip install refusalkit[backends]"
    )
