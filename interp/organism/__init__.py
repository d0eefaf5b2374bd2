"""The model organism: a tiny refusing transformer with planted truth, trained from scratch on a synthetic grammar.

`path(variant)` is a folder plain transformers loads, `truth(variant)` what was planted in it, `grammar.items(...)` its
prompts; `interp.organism.measure.card()` is its measured behaviour, `interp.organism.train.train(out)` makes it anew.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from interp.organism.store import VARIANTS, path, truth

if TYPE_CHECKING:
    from interp.organism.grammar import Item, items

__all__ = ["VARIANTS", "Item", "items", "path", "truth"]

_WHERE = {
    "Item": "interp.organism.grammar",
    "items": "interp.organism.grammar",
}


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
