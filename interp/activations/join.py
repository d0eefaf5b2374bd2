"""Join activations row by row, in memory or on disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar, cast

from interp.activations.activations import Activations, join_in_memory
from interp.activations.labelled import Labelled
from interp.errors import StoreError

A = TypeVar("A", bound=Labelled)


def join(parts: Sequence[A]) -> A:
    """Activations one after another, along the rows.

    Args:
        parts: All in memory (the result is too), or all stores (the result reads from their files).

    Raises:
        StoreError: When sites, widths, types, layers or positions differ, or models; names what.
    """
    from interp.activations.store.reader import Store

    if not parts:
        raise StoreError("nothing was given to join")
    first = parts[0]
    for other in parts[1:]:
        for what in ("sites", "layers", "positions", "n_heads"):
            mine, theirs = getattr(first, what), getattr(other, what)
            if mine != theirs:
                raise StoreError(f"these cannot be joined: their {what} differ, {mine} and {theirs}")
        for what in ("model", "dtype", "chat", "edited"):
            mine, theirs = first.provenance.get(what), other.provenance.get(what)
            if mine != theirs:
                raise StoreError(f"these cannot be joined: they come from another {what}, {mine} and {theirs}")
    if all(isinstance(part, Activations) for part in parts):
        several = cast("list[Activations]", list(parts))
        for other in several[1:]:
            for site, value in several[0].data.items():
                if value.shape[1:] != other.data[site].shape[1:] or value.dtype != other.data[site].dtype:
                    raise StoreError(f"these cannot be joined: {site} is of another width or type")
        return cast(A, join_in_memory(several))
    if not all(isinstance(part, Store) for part in parts):
        raise StoreError("activations in memory and on disk cannot be joined: read the stores with .load()")
    stores = cast("list[Store]", list(parts))
    if len({store.formats for store in stores}) > 1:
        raise StoreError("these cannot be joined: a site is of another width or type")
    return cast(A, Store.joined(stores))
