"""The weights behind each writer of the stream: which tensors, and along which of their axes the stream lies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from interp.errors import ModelError
from interp.model.architecture import DOWN, Architecture
from interp.model.backends.private import path_of
from steering.weights.plan import Place

Kind = Literal["linear", "experts", "embedding", "parameter"]


@dataclass(frozen=True)
class Part:
    """One tensor of a writer.

    Attributes:
        module: Path of the module that owns it.
        name: Its name there.
        axis: Axis that is as long as the stream is wide.
        kind: What owns it: a `linear` layer (GPT-2's `Conv1D` too), an `embedding`, fused `experts`, or nothing but
            the module (`parameter`).
        bias: Whether it is added, rather than multiplied with.
    """

    module: str
    name: str
    axis: int
    kind: Kind
    bias: bool = False

    @property
    def path(self) -> str:
        """Its key in the state dict."""
        return f"{self.module}.{self.name}" if self.module else self.name


def writer_parts(hf: Any, arch: Architecture, place: Place) -> list[Part]:
    """The tensors whose change changes what one writer adds to the stream.

    Raises:
        ModelError: When they are quantised, elsewhere, or of a form that this version does not know.
    """
    layer, kind = place
    if kind == "embed":
        parts = list(_embeddings(hf, arch))
    elif kind == "attn":
        parts = list(_linear(path_of(hf, arch.module(layer, "o_proj")), arch.module(layer, "o_proj"), arch.d_model))
    else:
        mlp = arch.module(layer, "mlp")
        root = path_of(hf, mlp)
        parts = [
            part
            for name, module in mlp.named_modules()
            for part in _of_mlp(f"{root}.{name}" if name else root, name.rpartition(".")[2], module, arch.d_model)
        ]
    if not any(not part.bias for part in parts):
        raise ModelError(f"the {kind} of layer {layer} of {type(hf).__name__} keeps its weights in no known form")
    for part in parts:
        check_plain(part.path, hf.get_parameter(part.path))
    return parts


def check_whole(hf: Any) -> None:
    """Raise `ModelError` for a model whose weights are quantised, wrapped by an adapter, or not all in one place."""
    quantised = getattr(hf.config, "quantization_config", None)
    if quantised is not None or getattr(hf, "is_quantized", False):
        raise ModelError(
            "the model is quantised, and rounded weights cannot hold an exact edit: load it in bfloat16 or wider, edit "
            "it, and quantise the result"
        )
    if getattr(hf, "_hf_peft_config_loaded", False) or any(hasattr(m, "base_layer") for m in hf.modules()):
        raise ModelError("the model has an adapter on top: merge it first (peft's merge_and_unload)")
    if len(set((getattr(hf, "hf_device_map", None) or {}).values())) > 1:
        raise ModelError("the model is spread over several devices: load it on one (device='cpu' will do)")


def check_plain(path: str, weight: Tensor) -> None:
    """Raise `ModelError` for a weight that is no plain floating-point tensor here."""
    if weight.is_meta:
        raise ModelError(f"{path} has no values here (it is offloaded, or on the meta device): load the model whole")
    plain = type(weight) in (nn.Parameter, Tensor) and type(weight.data) is Tensor
    if not plain or not weight.is_floating_point() or weight.dtype.itemsize < 2:
        raise ModelError(
            f"{path} is quantised or otherwise no plain matrix ({type(weight).__name__}, {weight.dtype}): load the "
            "model in bfloat16 or wider"
        )


def _embeddings(hf: Any, arch: Architecture) -> Iterator[Part]:
    """Token and position embeddings, and what else of the backbone's own is a table of vectors for the stream."""
    inside = {id(m) for m in arch.blocks.modules()} | {id(arch.head)}
    found = {id(hf.get_input_embeddings()): hf.get_input_embeddings()}
    for module in arch.backbone.modules():
        if isinstance(module, nn.Embedding) and id(module) not in inside:
            found.setdefault(id(module), module)
    for module in found.values():
        weight = getattr(module, "weight", None)
        if not isinstance(weight, Tensor) or weight.ndim != 2 or weight.shape[1] != arch.d_model:
            raise ModelError(f"the embedding of {type(hf).__name__} is no table of vectors as wide as the stream")
        yield Part(path_of(hf, module), "weight", 1, "embedding")
    projectors = [name for name, _ in hf.named_parameters() if name.endswith(_PROJECTOR)]
    for name in projectors:
        module, _, own = name.rpartition(".")
        yield Part(module, own, 1, "parameter")
    if not projectors and any(getattr(hf.config, name, None) is not None for name in _TOWERS):
        raise ModelError(
            f"{type(hf).__name__} has a tower for images or sound, which writes to the stream by a part that this "
            "version does not know; load its language model alone, or use run-time edits"
        )


_PROJECTOR = "multi_modal_projector.mm_input_projection_weight"
"""The end of Gemma 3's image tower, which stands in for embeddings."""
_TOWERS = ("vision_config", "audio_config")


def _of_mlp(path: str, name: str, module: nn.Module, width: int) -> Iterator[Part]:
    """A down projection, or the fused ones of a mixture's experts."""
    if name in DOWN:
        yield from _linear(path, module, width)
    for own, weight in module.named_parameters(recurse=False):
        stem = own.removesuffix("_bias")
        if stem not in DOWN:
            continue
        if own != stem:
            yield Part(path, own, weight.ndim - 1, "experts", bias=True)
        elif weight.ndim == 3:
            yield Part(path, own, _axis(f"{path}.{own}", module, weight.shape, width), "experts")
        else:
            raise ModelError(f"{path}.{own} has shape {list(weight.shape)}; experts are [expert, ., .]")


def _axis(path: str, module: nn.Module, shape: torch.Size, width: int) -> int:
    """Where the stream lies in fused experts: last in a transposed layout (gpt-oss), else in the middle."""
    transposed = getattr(module, "is_transposed", None)
    fits = [axis for axis in (1, 2) if shape[axis] == width]
    if len(fits) == 2 and transposed is not None:
        return 2 if transposed else 1
    if len(fits) != 1:
        raise ModelError(f"{path} has shape {list(shape)}: which axis is the stream, {width} wide, cannot be told")
    return fits[0]


def _linear(path: str, module: nn.Module, width: int) -> Iterator[Part]:
    from transformers.pytorch_utils import Conv1D

    axis = 0 if type(module) is nn.Linear else 1 if type(module) is Conv1D else None
    weight = getattr(module, "weight", None)
    if axis is None or not isinstance(weight, Tensor) or weight.ndim != 2 or weight.shape[axis] != width:
        raise ModelError(
            f"{path} is a {type(module).__name__}, no plain linear layer that writes {width} features: load the model "
            "without quantisation, and merge adapters first (peft's merge_and_unload)"
        )
    yield Part(path, "weight", axis, "linear")
    if getattr(module, "bias", None) is not None:
        yield Part(path, "bias", 0, "linear", bias=True)
