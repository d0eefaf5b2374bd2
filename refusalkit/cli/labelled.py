"""Labelled prompts of a command: one source with labels, or one for each class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from interp.errors import PromptError

if TYPE_CHECKING:
    from interp.text.prompts import PromptSet

Prompts = Annotated[str | None, typer.Option(help="Labelled prompts: a file, a Hub dataset, headlines, organism ...")]
Harmful = Annotated[str | None, typer.Option(help="Harmful prompts, in place of --prompts: a file, a Hub dataset ...")]
Harmless = Annotated[str | None, typer.Option(help="Harmless prompts, likewise.")]


def labelled(prompts: str | None, harmful: str | None, harmless: str | None) -> PromptSet:
    """The prompts that were asked for.

    Raises:
        PromptError: When none were named, or both ways at once.
    """
    if (harmful is None) != (harmless is None):
        raise PromptError("give both --harmful and --harmless, or neither")
    if prompts is not None and harmful is not None:
        raise PromptError("give --prompts, or --harmful and --harmless, not all of them")
    from interp.text.sources import load_pair
    from interp.text.sources import prompts as load

    if prompts is not None:
        return load(prompts)
    if harmful is None or harmless is None:
        raise PromptError("no prompts were given: give labelled prompts as --prompts, or as --harmful and --harmless")
    return load_pair(harmful, harmless)
