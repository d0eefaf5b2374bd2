"""Whether prompts can be enough to plan with, before a model is loaded or has written anything; loads no torch."""

from __future__ import annotations

from collections.abc import Sequence

from interp.errors import ProbeError
from interp.text.prompts import Prompt
from interp.text.task import Task
from probes.planning.attributes import Attribute
from probes.planning.examples import LEAST_GROUPS, LEAST_ROWS


def check_prompts(attribute: Attribute, prompts: Sequence[Prompt]) -> None:
    """Whether the prompts would be enough, if every answer to them had a label.

    Raises:
        ProbeError: For too few prompts, or groups of them, or an attribute that needs what none of them says.
    """
    groups = len({p.group for p in prompts})
    for n, least, what in ((len(prompts), LEAST_ROWS, "prompts"), (groups, LEAST_GROUPS, "groups of prompts")):
        if n < least:
            raise ProbeError(
                f"attribute {attribute.name!r}: {n} {what} are too few to fit, choose and test on ({least} at least; "
                "some hundred prompts for narrow intervals): give more"
            )
    check_needs(attribute, prompts)


def check_needs(attribute: Attribute, prompts: Sequence[Prompt]) -> None:
    """Whether any of the prompts says what the attribute needs.

    Raises:
        ProbeError: When none does.
    """
    if not any(has_needed(attribute, p) for p in prompts):
        raise ProbeError(
            f"attribute {attribute.name!r} needs prompts that say {attribute.needs}, and none does: load them from a "
            f"file with a field {attribute.needs!r}, or make them with interp.Task"
        )


def has_needed(attribute: Attribute, prompt: Prompt) -> bool:
    """Whether a prompt says what an attribute needs of it."""
    if attribute.needs is None:
        return True
    return isinstance(prompt, Task) and bool(prompt.expected if attribute.needs == "expected" else prompt.options)
