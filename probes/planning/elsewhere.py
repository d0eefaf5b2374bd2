"""An attribute of other answers to the same prompts: of a model in another mode, or of another model.

States along a thought can so be asked what the model would do without the thought, and states of one model what
another does. After a thought that loses a decision this is the only label that varies.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from interp.errors import ProbeError, PromptError
from interp.model.model import Model
from interp.text.prompts import Prompt, PromptSet
from probes.planning.attributes import Answer, Attribute, Found, Label, as_attribute
from probes.planning.labelling import unfit
from probes.planning.writing import write_answers


def answered_by(
    model: Model,
    prompts: PromptSet | Sequence[Prompt],
    attribute: Attribute | str,
    *,
    name: str | None = None,
    out: str | os.PathLike[str] | None = None,
    max_new_tokens: int = 256,
    progress: bool = False,
) -> Attribute:
    """The attribute of the answers that another model, or the same in another mode, gives to the same prompts.

    Example:
        ```python
        direct = probes.answered_by(model.with_format(thinking=False), prompts, "refusal")
        probes.plan(model.with_format(thinking=True), prompts, direct)   # read along the thought, to its end
        ```

    Args:
        model: Who answers.
        prompts: The prompts that will be planned with.
        attribute: An attribute, its name, or `FILE.py:function`.
        name: What to call it: `"refusal of organism:chat"` by default.
        out: A file that keeps the answers, as in `probes.plan`.
        max_new_tokens: Longest answer.
        progress: Show a progress bar.

    Raises:
        PromptError: For no prompts.
        ProbeError: For an unknown attribute, or a label that is not of its kind.
    """
    own = as_attribute(attribute)
    written = write_answers(model, list(prompts), out=out, max_new_tokens=max_new_tokens, progress=progress)
    labels = {w.answer.prompt.id: None if unfit(own, w) else own(w.answer) for w in written}
    return labelled(name or f"{own.name} of {model.name}", own, labels)


def labelled(name: str, like: Attribute, labels: Mapping[str, Label]) -> Attribute:
    """An attribute whose labels are known by the prompt's id; no answer of the model that is probed gives it away.

    Its segments therefore run to the end of the thought, and stop before the answer.

    Args:
        name: For tables and files.
        like: The attribute that the labels are of.
        labels: By prompt id; `None` where there is none.

    Raises:
        PromptError: For no labels.
    """
    if not labels:
        raise PromptError("no labels were given")

    def read(answer: Answer) -> Found:
        if answer.prompt.id not in labels:
            raise ProbeError(f"{answer.prompt.text[:50]!r} was not among the prompts that were answered elsewhere")
        return Found(labels[answer.prompt.id], 0)

    return Attribute(name, like.kind, read, f"{like.about}, of answers given elsewhere", whole=False)
