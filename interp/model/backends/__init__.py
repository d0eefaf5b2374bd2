"""Backends other than plain hooks: TransformerLens and nnsight, each on its own private copy of the model."""

from __future__ import annotations

from typing import Any, get_args

from interp.errors import ModelError
from interp.model.architecture import Architecture
from interp.model.hooks import Backend, BackendName, HooksBackend


def make_backend(
    name: str, hf: Any, tokenizer: Any, arch: Architecture, remote: bool | str = False
) -> tuple[Backend, Architecture]:
    """A backend by name, and the architecture as the backend runs it.

    Raises:
        ModelError: For an unknown name, a package that is not installed, or a model that the peer cannot take.
    """
    if remote and name != "nnsight":
        raise ModelError(f"remote={remote!r} needs backend='nnsight'; the backend {name} runs here")
    if name == "hooks":
        return HooksBackend(), arch
    if name == "transformer_lens":
        from interp.model.backends.transformer_lens import TransformerLensBackend

        lens = TransformerLensBackend(hf, arch)
        return lens, lens.arch
    if name == "nnsight":
        from interp.model.backends.nnsight import NNsightBackend
        from interp.model.backends.remote import RemoteBackend

        sight = RemoteBackend(hf, tokenizer, arch, remote) if remote else NNsightBackend(hf, tokenizer, arch)
        return sight, sight.arch
    raise ModelError(f"unknown backend {name!r}; known: {', '.join(get_args(BackendName))}")
