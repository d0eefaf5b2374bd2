"""A second model around the user's weights: modules of its own, tensors shared until one is replaced.

The user's model stays as it is, and only what an edit changes takes memory again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from interp.model.architecture import Architecture
from interp.model.backends.private import path_of, private_copy
from steering.weights.plan import Change, Place
from steering.weights.writers import Part, check_plain

_FLAGS = {"attn": ("attention_bias", "attn_bias"), "mlp": ("mlp_bias",)}
"""Settings with which a configuration asks for biases where there are none."""


class Shell:
    """A private model that shares the user's weights.

    Attributes:
        hf: The private model.
        arch: The same reading of it as of the user's.
        changed: Keys of the state dict whose tensors are its own by now.
        untied: Whether its embedding and output head were one tensor, and are two.
        grown: The configuration's settings that gave it biases.
    """

    def __init__(self, hf: Any, arch: Architecture) -> None:
        self.hf: Any = private_copy(hf, share_weights=True)
        self.arch = replace(
            arch,
            backbone=self.hf.get_submodule(path_of(hf, arch.backbone)),
            blocks=self.hf.get_submodule(path_of(hf, arch.blocks)),
            head=self.hf.get_output_embeddings(),
        )
        self.changed: list[str] = []
        self.untied = False
        self.grown: list[str] = []

    def put(self, path: str, weight: Tensor) -> None:
        """Replace a parameter; whatever was tied to it keeps the old one."""
        module, _, name = path.rpartition(".")
        owner = self.hf.get_submodule(module)
        old = owner._parameters.get(name)
        if any(p is old for p in self.arch.head.parameters()) and owner is not self.arch.head:
            self._untie()
        owner.register_parameter(name, nn.Parameter(weight, requires_grad=False))
        self.changed += [path] * (path not in self.changed)

    def _untie(self) -> None:
        """From here on embedding and output head are two tensors, also for whoever loads the configuration."""
        self.untied = True
        head = path_of(self.hf, self.arch.head) + ".weight"
        for config in {id(c): c for c in (self.hf.config, self.hf.config.get_text_config())}.values():
            config.tie_word_embeddings = False
        # What transformers would tie again when it saves or loads this object.
        if hasattr(self.hf, "all_tied_weights_keys"):
            self.hf.all_tied_weights_keys = {k: v for k, v in self.hf.all_tied_weights_keys.items() if k != head}

    def grow_bias(self, place: Place) -> bool:
        """Give a kind of writer biases (zeros), where the configuration has a setting for that.

        The setting is believed when the class itself, built from the changed configuration, has the same parameters
        but for new biases: then plain transformers loads what is saved.
        """
        config = self.hf.config.get_text_config()
        for flag in _FLAGS.get(place[1], ()):
            if getattr(config, flag, None) is not False:
                continue
            setattr(config, flag, True)
            with torch.device("meta"):
                grown = {k: v.shape for k, v in type(self.hf)(self.hf.config).state_dict().items()}
            here = {k: v.shape for k, v in self.hf.state_dict().items()}
            new = set(grown) - set(here)
            if new and all(k.endswith(".bias") for k in new) and here.items() <= grown.items():
                like = self.hf.get_input_embeddings().weight
                for key in sorted(new):
                    self.put(key, torch.zeros(grown[key], dtype=like.dtype, device=like.device))
                self.grown.append(flag)
                return True
            setattr(config, flag, False)
        return False


@torch.no_grad()
def changed_weight(weight: Tensor, part: Part, change: Change, shift: float = 0.0) -> Tensor:
    """A copy of a tensor after the change to what it writes.

    Args:
        weight: The tensor.
        part: What it is.
        change: To each vector along the stream's axis.
        shift: What share of the change's shift is added to each of these vectors.
    """
    check_plain(part.path, weight)
    new = weight.detach().clone()
    kind = torch.promote_types(weight.dtype, torch.float32)
    # Expert by expert, so that one of them at a time is there in wider numbers.
    for piece in new if new.ndim == 3 else [new]:
        vectors = piece.movedim(part.axis - (new.ndim == 3), -1)
        wide = vectors.to(kind)
        wide = wide + change.linear(wide)
        if shift:
            wide = wide + change.shift.to(wide) * shift
        vectors.copy_(wide)
    return new
