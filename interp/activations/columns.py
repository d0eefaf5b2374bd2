"""Named positions of many prompts as columns: one name per column, equally many in every prompt."""

from __future__ import annotations

from collections.abc import Sequence

from interp.errors import PositionError
from interp.text.encoded import Encoded
from interp.text.positions import REGIONS

FIXED_REGIONS = ("post_inst", "think_close")


def resolve_columns(
    encoded: Sequence[Encoded], positions: str | int | Sequence[str | int], ragged: bool = False
) -> tuple[tuple[str, ...], list[list[int]]]:
    """Column names, and for each prompt the token index of each column.

    A region of a fixed number of tokens (`post_inst`, `think_close`) becomes one column per token, counted from its
    end; where tokenisation makes it longer in some prompts, the tokens that all prompts have are taken.

    With `ragged`, a region of varying length may be asked for alone: its one name is then `inst[*]`, and each prompt
    has as many token indices as its region has tokens.

    Raises:
        PositionError: For a region of varying length (`inst`, `prompt`, `all`) otherwise, or a position that a prompt
            lacks.
    """
    wanted = [positions] if isinstance(positions, str | int) else list(positions)
    if not wanted:
        raise PositionError("no positions were given")
    if ragged and len(wanted) == 1 and wanted[0] in REGIONS and wanted[0] not in FIXED_REGIONS:
        return (f"{wanted[0]}[*]",), [list(e.columns(wanted[0])) for e in encoded]
    names: list[str] = []
    columns: list[list[int]] = [[] for _ in encoded]
    for name in wanted:
        found = [e.columns(name) for e in encoded]
        if name in REGIONS:
            if name not in FIXED_REGIONS:
                alone = "capture it alone, or name" if ragged else "name"
                raise PositionError(f"{name!r} is as long as the prompt; {alone} single tokens, t_inst or inst[0] say")
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
