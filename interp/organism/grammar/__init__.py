"""The frozen grammar of the model organism: every prompt, label and answer it was trained on and is measured by.

`items(task, split, ...)` gives prompts with their truth; the `draw_*` functions of the modules feed training.
"""

from interp.organism.grammar.catalogue import TASKS, digest, items
from interp.organism.grammar.item import COMPLY, REFUSE, Item
from interp.organism.grammar.parse import choice_letter, is_refusal, list_length, story_winner, yes_no
from interp.organism.grammar.wrappers import FAMILIES, JAILBREAKS

__all__ = [
    "COMPLY", "FAMILIES", "JAILBREAKS", "REFUSE", "TASKS", "Item", "choice_letter", "digest", "is_refusal", "items",
    "list_length", "story_winner", "yes_no",
]  # fmt: skip
