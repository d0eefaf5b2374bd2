"""The heads behind a cliff: which attention heads hold refusal down after the thinking, and what if they are off?"""

from __future__ import annotations

from typing import Any

from interp.errors import PromptError
from interp.model.model import Model
from interp.text.judge import judge as rules
from interp.text.prompts import PromptSet
from probes.answers import Judge
from probes.suppression import SuppressionHeads, suppression_heads
from refusalkit.audit.sections import number, rate_json, records
from refusalkit.audit.settings import Settings
from refusalkit.audit.thinks import thinking_model

SHARES = (0.03, 0.1)
"""Shares of a model's heads that are switched off (arXiv 2510.06036 takes 1.5, 3 and 10 %)."""
_MOST = {"train": 24, "val": 24, "test": 24, "control": 8, "shown": 10}
_DRAWS = 20


def heads_section(
    model: Model, prompts: PromptSet, settings: Settings, max_new_tokens: int, *, judge: Judge = rules,
    progress: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """The heads that hold refusal down, as plain JSON.

    Args:
        model: The model, in any mode.
        prompts: The audit's prompts, labelled and split.
        settings: For the seed.
        max_new_tokens: Longest thought and answer.
        judge: The audit's judge.
        progress: Show progress bars.
    """
    thinking, reason = thinking_model(model, settings)
    if thinking is None:
        return {"ranked": False, "reason": reason}
    heads = model.n_layers * model.n_heads
    try:
        found = suppression_heads(
            thinking, prompts, sizes=sorted({max(1, round(share * heads)) for share in SHARES}),
            n_train=_MOST["train"], n_val=_MOST["val"], n_test=_MOST["test"], n_draws=_DRAWS,
            n_control=_MOST["control"], judge=judge, max_new_tokens=max_new_tokens, seed=settings.seed,
            progress=progress,
        )  # fmt: skip
    except PromptError as error:
        return {"ranked": False, "reason": str(error)}
    return {
        "ranked": True, "reason": found.reason, "chosen": found.chosen, "n_heads": heads,
        "plain": [rate_json(rate) for rate in found.plain],
        "top": [
            {"layer": layer, "head": head, "effect": number(mean), "low": number(low), "high": number(high)}
            for (layer, head), (mean, low, high) in (
                (h, found.confirmed[h]) for h in found.heads if h in found.confirmed
            )
        ][: _MOST["shown"]],
        "n_train": len(found.ranking.prompts), "n_val": len(found.confirmation.prompts),
        "ranking": _ranking(found), "curve": records(found.to_frame()), "points": _points(found),
    }  # fmt: skip


def _ranking(found: SuppressionHeads) -> list[dict[str, Any]]:
    table = found.ranking.to_frame()
    return records(table[["layer", "head", "effect", "low", "high"]])


def _points(found: SuppressionHeads) -> list[dict[str, Any]]:
    """What each number of heads does, with every draw of as many others."""
    return [
        {"heads": [list(h) for h in p.heads], "harmful": rate_json(p.harmful), "harmless": rate_json(p.harmless),
         "kl": list(p.kl), "perplexity": list(p.perplexity), "matched": p.matched, "draws": p.draws,
         "random_mean": number(p.control_mean), "random_most": number(p.control_most),
         "random": [{"heads": [list(h) for h in c.heads], "rate": rate_json(c.rate), "times": c.times}
                    for c in p.controls]}
        for p in found.curve
    ]  # fmt: skip
