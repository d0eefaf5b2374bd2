"""What each section of an audit holds, as plain JSON; `docs/formats.md` documents the schema."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from interp.stats import Rate
from probes.answers import Behaviour
from probes.causal import CausalCheck
from probes.readout import Separation
from probes.refusal import RefusalDirection


def rate_json(rate: Rate) -> dict[str, Any]:
    """A rate with its Wilson interval."""
    low, high = rate.interval
    return {"k": rate.k, "n": rate.n, "value": number(rate.value), "low": low, "high": high}


def number(value: Any) -> float | None:
    """A finite float, or `None`."""
    return float(value) if value is not None and math.isfinite(value) else None


def records(table: Any) -> list[dict[str, Any]]:
    """Rows of a pandas table with plain types; what is not finite becomes `None`."""
    return [{str(k): plain(v) for k, v in row.items()} for row in table.to_dict("records")]


def plain(value: Any) -> Any:
    """A numpy scalar as the Python value that JSON knows."""
    if isinstance(value, np.generic):
        value = value.item()
    return number(value) if isinstance(value, float) else value


def behaviour_section(judged: Behaviour, max_new_tokens: int) -> dict[str, Any]:
    """Refusal by class, the effect of harm, and examples."""
    rows: list[dict[str, Any]] = []
    for split in ("all", "test"):
        for label in ("harmful", "harmless"):
            mask = judged.where(label=label) if split == "all" else judged.where(label=label, split=split)
            verdicts = [v.label for v, here in zip(judged.verdicts, mask, strict=True) if here]
            words = {"refused": "refusal", "partial": "partial", "complied": "compliance", "empty": "empty"}
            rates = {key: rate_json(Rate(verdicts.count(word), len(verdicts))) for key, word in words.items()}
            rows.append({"label": label, "split": split, **rates})
    effect, (low, high) = judged.effect_of_harm()
    cut = sum(not c.finished for c in judged.completions)
    shown = [
        {"prompt": p.text, "label": p.label, "answer": c.answer, "verdict": v.label, "phrase": v.phrase}
        for label in ("harmful", "harmless")
        for p, c, v in _first(judged, judged.where(label=label, split="test"), 6)
    ]
    return {
        "rows": rows,
        "effect_of_harm": {"value": number(effect), "low": number(low), "high": number(high)},
        "refused": rate_json(Rate(int(judged.refused.sum()), len(judged.prompts))),
        "unfinished": rate_json(Rate(cut, len(judged.prompts))),
        "max_new_tokens": max_new_tokens,
        "examples": shown,
    }


def direction_section(found: RefusalDirection, contrast: str, n_layers: int) -> dict[str, Any]:
    """What was selected and why, with the full candidate table."""
    selection = found.selection if found.rule != "mean" else found.selection_mean
    chosen = selection.chosen if selection is not None else None
    metric = found.metric
    return {
        "contrast": contrast,
        "found": found.direction is not None,
        "reason": found.reason,
        "rule": found.rule,
        "n_layers": n_layers,
        "chosen": {k: plain(v) for k, v in chosen.items()} if chosen else None,
        "thresholds": selection.thresholds if selection is not None else None,
        "metric": {
            "tokens": list(metric.tokens), "auroc": metric.auroc, "mass": list(metric.mass), "n": list(metric.n),
        } if metric else None,
        "table": records(selection.table) if selection is not None else [],
        "position_tokens": found.candidates.labels if found.candidates else {},
        "counts": list(found.candidates.counts) if found.candidates else None,
        "vector": None,
    }  # fmt: skip


def causal_section(check: CausalCheck, classes: tuple[str, str]) -> dict[str, Any]:
    """Every intervention with its controls, and answers before and after."""
    effects = [
        {
            "intervention": e.intervention, "on": e.on, "rate": rate_json(e.rate),
            "random": [rate_json(r) for r in e.random], "random_mean": number(e.random_mean),
            "random_shift": number(check.random_shift(e.intervention, e.on)) if e.random else None,
        }
        for e in check.effects
    ]  # fmt: skip
    examples: list[dict[str, Any]] = []
    for intervention, on in ((check.bypass().intervention, classes[0]), ("add", classes[1])):
        before, after = check.examples["none", on], check.examples[intervention, on]
        changed = before.refused != after.refused
        order = [*np.flatnonzero(changed), *np.flatnonzero(~changed)][:6]
        examples += [
            {
                "prompt": before.prompts[i].text, "label": before.prompts[i].label, "intervention": intervention,
                "plain": before.completions[i].answer, "edited": after.completions[i].answer,
                "plain_verdict": before.verdicts[i].label, "edited_verdict": after.verdicts[i].label,
                "plain_phrase": before.verdicts[i].phrase, "edited_phrase": after.verdicts[i].phrase,
            }
            for i in (int(j) for j in order)
        ]  # fmt: skip
    return {
        "classes": list(classes),
        "layer": check.direction.layer,
        "position": check.direction.position,
        "coefficient": check.coefficient,
        "direction_norm": check.direction.norm,
        "residual_norm": check.residual_norm,
        "effects": effects,
        "examples": examples,
    }


def separation_section(sep: Separation) -> dict[str, Any]:
    """How well harm can be read by layer, with the text's own score beside."""
    return {
        "table": records(sep.table),
        "best": {k: plain(v) for k, v in sep.best.items()},
        "readable": sep.readable,
        "text": dict(zip(("value", "low", "high"), map(number, sep.text), strict=True)),
        "length": number(sep.length),
        "n_train": sep.n_train,
        "n_test": sep.n_test,
    }


def _first(judged: Behaviour, mask: Any, n: int) -> list[Any]:
    rows = [int(i) for i in np.flatnonzero(mask)[:n]]
    return [(judged.prompts[i], judged.completions[i], judged.verdicts[i]) for i in rows]
