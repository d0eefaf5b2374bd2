"""Exported weights, loaded by the libraries they are for."""

from __future__ import annotations

import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

from interp.errors import ModelError
from interp.model.backends.private import private_copy
from interp.model.model import Model


def load_weights(format: str, path: Path, model: Model) -> Any:
    """A model folder (`hf`) by transformers, or an adapter on a copy that shares the user's weights (`lora`) by peft.

    Raises:
        ModelError: When it cannot be loaded.
    """
    try:
        if format == "hf":
            kind, attention = type(model.hf), model.hf.config._attn_implementation
            return kind.from_pretrained(path, dtype=model.dtype, attn_implementation=attention).to(model.device).eval()
        peft: Any = import_module("peft")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it cannot be merged, and that tied embeddings stay apart
            return peft.PeftModel.from_pretrained(private_copy(model.hf, share_weights=True), path).eval()
    except Exception as error:  # whatever the libraries raise for a folder that is not theirs
        raise ModelError(f"{path} cannot be loaded as {format}: {error!r:.300}") from error
