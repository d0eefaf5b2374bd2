"""Which prompts an audit uses."""

from __future__ import annotations

from interp.errors import NoPromptsError, PromptError
from interp.text.prompts import SPLITS, PromptSet
from interp.text.sources import load_pair, prompts
from refusalkit.audit.settings import Settings

MIN_PER_CLASS = {"train": 8, "val": 4, "test": 8}
LEAST = sum(MIN_PER_CLASS.values())


def audit_prompts(model: str, harmful: str | None, harmless: str | None, settings: Settings) -> PromptSet:
    """The user's two files, else the organism's own prompts for the organism, else the shipped headlines.

    Raises:
        PromptError: When one file is missing, or a class has too few prompts in a split.
    """
    if (harmful is None) != (harmless is None):
        raise PromptError("give both --harmful and --harmless, or neither")
    if harmful is not None and harmless is not None:
        try:
            found = load_pair(harmful, harmless)
        except NoPromptsError as error:
            raise NoPromptsError(f"{error}, at least {LEAST} of each class for an audit") from error
    else:
        found = prompts("organism" if is_organism(model) else "headlines")
    if any(p.split is None for p in found):
        found = found.require(LEAST).split(seed=settings.seed)
    most = {"train": settings.n_train, "val": settings.n_val, "test": settings.n_test}
    kept = PromptSet((), found.name)
    for split in SPLITS:
        for label in ("harmful", "harmless"):
            side = found.filter(split=split, label=label)
            if len(side) < MIN_PER_CLASS[split]:
                raise PromptError(
                    f"{found.name!r} has {len(side)} {label} prompts to {split} on, and {MIN_PER_CLASS[split]} are "
                    "the least: add prompts"
                )
            kept = PromptSet(kept.prompts + side.sample(min(len(side), most[split]), settings.seed).prompts, found.name)
    return kept


def is_organism(model: str) -> bool:
    """Whether a model name means the project's own organism."""
    return model == "organism" or model.startswith("organism:")
