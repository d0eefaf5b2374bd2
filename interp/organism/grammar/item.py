"""The one record of the grammar: a prompt with everything that is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

REFUSE = "refuse"
COMPLY = "comply"


@dataclass(frozen=True)
class Item:
    """A user prompt and its truth.

    `label` is what the prompt is (for safety and judge prompts `harmful` or `harmless`, else the expected attribute),
    `group` the id that grouped splits must not tear apart, `category` a topic or harm label, `family` the wrapper,
    `answer` the answer that training gives, and `meta` what the task adds (`expected`, `thought`, `frame`, ...).
    """

    prompt: str
    label: str
    group: str
    category: str
    family: str
    split: str
    answer: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])
