"""The model's own prediction: asked beforehand what its answer will be like (the self-report of arXiv 2502.06258)."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from interp.model.model import Model
from interp.text.prompts import Prompt
from probes.planning.attributes import Attribute, Label
from probes.planning.writing import write_answers

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
MAX_TOKENS = 16


def ask_model(
    model: Model,
    attribute: Attribute,
    prompts: Sequence[Prompt],
    classes: Sequence[str] = (),
    *,
    out: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> list[Label] | None:
    """What a model says when it is asked to foretell an attribute of its own answer.

    It is asked without thinking, where that can be switched off, and told to reply with the label alone.

    Args:
        model: The model.
        attribute: The attribute; one without a question is not asked.
        prompts: The requests.
        classes: The classes there are, which the question names.
        out: A file that keeps the replies, as in `write_answers`.
        progress: Show a progress bar.

    Returns:
        A label per prompt, `None` where the reply holds none; or `None` when the attribute has no question.
    """
    if attribute.question is None:
        return None
    asked = model if model.chat.switch is None else model.with_format(thinking=False)
    question = attribute.question.replace("{classes}", ", ".join(classes))
    told = [
        Prompt(f"{question}\n\n{p.text}", group=p.group, category=p.category, family=p.family, system=p.system)
        for p in prompts
    ]  # fmt: skip
    written = write_answers(asked, told, out=out, max_new_tokens=MAX_TOKENS, progress=progress)
    return [hear(attribute, w.answer.text, classes) for w in written]


def hear(attribute: Attribute, reply: str, classes: Sequence[str]) -> Label:
    """The label that a reply names: the first number, or the first of the classes; `None` for neither."""
    if attribute.kind == "regression":
        number = _NUMBER.search(reply)
        return None if number is None else float(number[0].replace(",", ""))
    several = sorted(classes, key=len, reverse=True)
    named = re.search("|".join(rf"(?<!\w){re.escape(c)}(?!\w)" for c in several), reply, re.I) if several else None
    return None if named is None else {c.casefold(): c for c in classes}[named[0].casefold()]
