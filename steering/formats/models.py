"""Which model a vector is for: what files and provenance say, held against a model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from interp.errors import DirectionError, FormatError
from interp.model.model import Model
from steering.vector import SteeringVector

_LLAMA_CPP = {"mistral": "llama", "mixtral": "llama", "gemma3text": "gemma3", "deepseekv3": "deepseek2"}
"""Hugging Face's `model_type` -> llama.cpp's name for the architecture, where they differ by more than signs."""
_CLASS = re.compile(r"[A-Za-z][A-Za-z0-9_]*(For\w+|LMHeadModel)")


def model_type_for(vector: SteeringVector, model: Model | None, form: str) -> str:
    """The `model_type` to write into a file.

    Args:
        vector: The vector, whose provenance may say it.
        model: The model, if given.
        form: The format's name.

    Raises:
        FormatError: When neither says it.
        DirectionError: When the vector does not fit the model.
    """
    if model is not None:
        check_fits(vector, model)
        return str(model.hf.config.model_type)
    known = types_in(vector.provenance)
    if len(known) != 1:
        raise FormatError(
            f"{form} files say what type of model they are for, and this vector's provenance does not: give model="
        )
    return known.pop()


def types_in(provenance: Any) -> set[str]:
    """Types of the models that a provenance speaks of, wherever it came together from."""
    return {found for value in _entries(provenance) if (found := _type_of(value)) is not None}


def check_fits(vector: SteeringVector, model: Model, name: str = "the vector") -> None:
    """That width, layers and, where it is known, type of model are a model's.

    Raises:
        DirectionError: When they aren't.
    """
    width = len(next(iter(vector.vectors.values())))
    known = types_in(vector.provenance)
    own = {str(model.hf.config.model_type), str(model.hf.config.get_text_config().model_type)}
    aliases = {alias for kind in own for alias in (_plain(kind), _LLAMA_CPP.get(_plain(kind), _plain(kind)))}
    if known and not {_plain(kind) for kind in known} & aliases:
        raise DirectionError(
            f"{name} is for models of type {', '.join(sorted(known))}; this one is {model.hf.config.model_type}"
        )
    if width != model.d_model:
        raise DirectionError(f"{name} has width {width}; this model's residual stream has {model.d_model}")
    if vector.layers[-1] >= model.n_layers:
        raise DirectionError(
            f"{name} acts at layer {vector.layers[-1]}; this model has layers 0 to {model.n_layers - 1}"
        )


def _plain(kind: str) -> str:
    return re.sub(r"[^a-z0-9]", "", kind.lower())


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key and value of a JSON value, however deep."""
    waiting: list[Any] = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            yield from value.items()
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value


def _type_of(entry: tuple[str, Any]) -> str | None:
    key, value = entry
    if not isinstance(value, str) or not value:
        return None
    if key == "model_type":
        return value
    if key == "architecture" and _CLASS.fullmatch(value):
        import transformers

        try:
            config = getattr(getattr(transformers, value, None), "config_class", None)
        except (ImportError, RuntimeError):  # a class that needs what is not installed
            return None
        return getattr(config, "model_type", None) or None
    return None
