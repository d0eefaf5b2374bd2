"""What the fuzz tests of files share: bytes that were damaged, JSON that somebody has edited."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

Draw = Callable[[Any], Any]
SHORT = settings(deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
HOSTILE = [2**63, 2**64, -1, 0, [], {}, [[]]]


def values_like(*more: Any) -> st.SearchStrategy[Any]:
    """JSON values of every kind; among them those given, which look as if they belonged there."""
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
    leaves |= st.sampled_from([*HOSTILE, *more])
    return leaves | st.lists(leaves, max_size=3) | st.dictionaries(st.text(max_size=5), leaves, max_size=2)


@st.composite
def cut_or_changed(draw: st.DrawFn, data: bytes, start: int = 400) -> bytes:
    """Bytes cut off, taken out, put in or changed; half of them among the first `start`, where headers are."""
    found = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        near = draw(st.booleans())
        at = draw(st.integers(0, min(len(found), start) if near else len(found)))
        kind = draw(st.sampled_from(["flip", "cut", "out", "in"]))
        if kind == "flip" and at < len(found):
            found[at] ^= draw(st.integers(1, 255))
        elif kind == "cut":
            del found[at:]
        elif kind == "out":
            del found[at : at + draw(st.integers(1, 9))]
        else:
            found[at:at] = draw(st.binary(min_size=1, max_size=9))
    return bytes(found)


def changed(draw: Draw, value: Any, values: st.SearchStrategy[Any], leave: str = "", add: bool = True) -> Any:
    """A JSON value with something in it replaced, removed, repeated, counted up or down, or (`add`) added to.

    What stands under the key `leave` stays.
    """
    found = copy.deepcopy(value)
    *path, last = draw(st.sampled_from(sorted((p for p in _places(found) if p[0] != leave), key=str)))
    inner = found
    for key in path:
        inner = inner[key]
    kind = draw(st.sampled_from(["replace", "replace", "remove", "repeat", "nudge", *(["add"] if add else [])]))
    if kind == "remove":
        del inner[last]
    elif kind == "repeat" and isinstance(inner, list):
        inner.insert(last, copy.deepcopy(inner[last]))
    elif kind == "nudge" and type(inner[last]) is int:
        inner[last] += draw(st.sampled_from([-1, 1, 1 << 40]))
    elif kind == "add" and isinstance(inner, dict):
        inner[draw(st.text(max_size=4))] = draw(values)
    else:
        inner[last] = draw(values)
    return found


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something in a JSON value can be changed."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from _places(item, (*path, key))
