"""Named positions of many prompts as columns: one name per column, equally many in every prompt."""

from __future__ import annotations

from collections.abc import Sequence

from interp.errors import PositionError
from interp.text.chat import Encoded
from interp.text.positions import REGIONS


def resolve_columns(
    encoded: Sequence[Encoded], positions: str | int | Sequence[str | int]
) -> tuple[tuple[str, ...], list[list[int]]]:
    """Column names, and for each prompt the token index of each column.

    A region of a fixed number of tokens (`post_inst`, `think_close`) becomes one column per token, counted from its
    end; where tokenisation makes it longer in some prompts, the tokens that all prompts have are taken.

    Raises:
        PositionError: For a region of varying length (`inst`, `prompt`, `all`), or a position that a prompt lacks.
    """
    wanted = [positions] if isinstance(positions, str | int) else list(positions)
    if not wanted:
        raise PositionError("no positions were given")
    names: list[str] = []
    columns: list[list[int]] = [[] for _ in encoded]
    for name in wanted:
        found = [e.columns(name) for e in encoded]
        if name in REGIONS:
            if name not in ("post_inst", "think_close"):
                raise PositionError(f"{name!r} is as long as the prompt; name single tokens, such as t_inst or inst[0]")
            size = min(len(f) for f in found)
            if not size:
                raise PositionError(f"{name!r} is empty in some prompts")
            names += [f"{name}[{i}]" for i in range(-size, 0)]
            found = [f[-size:] for f in found]
        else:
            names.append(str(name))
        for row, picked in zip(columns, found, strict=True):
            row += picked
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise PositionError(f"positions named twice: {', '.join(sorted(repeated))}")
    return tuple(names), columns
