"""Edits: every change to a forward pass.

An edit says what changes (`add`, `add_each`, `ablate`, `rotate`, `set_to`, `patch`, `scale_heads`, `set_heads`,
`route`), where (site and layer), at which tokens (`positions`, named as for capture) and in which `phase`: `"prompt"`,
`"generation"` or `"both"`. By default an edit of all positions acts in both phases, and one of named positions on the
prompt only. Generated tokens have no names but numbers: `during` lets edits act on some of them. `when` lets them act
on those rows only for which a condition holds, `for_prompts` on prompts chosen before.
"""

from interp.edits.conditioned import ForPrompts, When, for_prompts, when
from interp.edits.conditions import Condition, Reading
from interp.edits.control import random_like
from interp.edits.decisions import DecisionLog, Decisions, decide
from interp.edits.each import AddEach, add_each
from interp.edits.edits import Ablate, Add, SetTo, ablate, add, set_to
from interp.edits.heads import Renorm, ScaleHeads, SetHeads, scale_heads, set_heads
from interp.edits.patching import Patch, patch
from interp.edits.rotation import Rotate, rotate
from interp.edits.routing import Route, RouteMode, route
from interp.edits.window import During, during

__all__ = [
    "Ablate",
    "Add",
    "AddEach",
    "Condition",
    "DecisionLog",
    "Decisions",
    "During",
    "ForPrompts",
    "Patch",
    "Reading",
    "Renorm",
    "Rotate",
    "Route",
    "RouteMode",
    "ScaleHeads",
    "SetHeads",
    "SetTo",
    "When",
    "ablate",
    "add",
    "add_each",
    "decide",
    "during",
    "for_prompts",
    "patch",
    "random_like",
    "rotate",
    "route",
    "scale_heads",
    "set_heads",
    "set_to",
    "when",
]
