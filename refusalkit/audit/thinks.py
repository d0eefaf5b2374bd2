"""The section "Along the thinking": does the decision to refuse hold along the thought, and to its end?"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.errors import PromptError, RefusalkitError
from interp.model.model import Model
from interp.stats import auroc, auroc_interval
from interp.text.judge import judge as rules
from interp.text.prompts import HARMFUL, HARMLESS, PromptSet
from interp.tracing.rollouts import rollouts
from interp.tracing.trace import trace
from interp.tracing.traces import Traces
from probes.answers import Judge
from probes.cliff import RefusalCliff, refusal_cliff
from probes.figures.trace import curve_table, unit_of
from refusalkit.audit.sections import number, rate_json, records
from refusalkit.audit.settings import Settings

if TYPE_CHECKING:
    from interp.tracing.scores import TraceScores

THOUGHTS = "thoughts.jsonl"
_MOST = {"train": 24, "test": 32, "layers": 16}
_SHUFFLES = 2
_BINS = 10


def thinking_model(model: Model, settings: Settings) -> tuple[Model | None, str]:
    """The model in thinking mode, or `None` and why there is none."""
    if model.chat.markers is None:
        return None, "this model does not think (neither its template nor its vocabulary has markers of a thought)"
    if model.chat.switch is None and not model.chat.thinks:
        return None, "this model's template opens no thought and has no switch for it"
    if not settings.max_thought_tokens:
        return None, "it was left out (--max-thought-tokens 0)"
    return (model.with_format(thinking=True) if model.chat.switch is not None else model), ""


def thinking_section(
    model: Model, prompts: PromptSet, settings: Settings, work: Path, *, judge: Judge = rules, progress: bool = False
) -> dict[str, Any]:
    """Whether there is a refusal cliff, as plain JSON.

    Training and validation prompts give prober and level, held-out ones everything that is reported. Thoughts are kept
    in `work` batch by batch.

    Args:
        model: The model, in any mode.
        prompts: The audit's prompts, labelled and split.
        settings: Sizes and seed.
        work: Where the audit keeps its stages.
        judge: The audit's judge.
        progress: Show progress bars.
    """
    thinking, reason = thinking_model(model, settings)
    if thinking is None:
        return {"followed": False, "thinks": False, "reason": reason}
    chosen = _chosen(prompts)
    room = _room(thinking, prompts, settings.max_thought_tokens)
    if room < 1:
        return {"followed": False, "thinks": True, "reason": "the prompts leave no room for a thought in the context"}
    thoughts = _thoughts(thinking, chosen, room, work / THOUGHTS, progress)
    told = {"max_thought_tokens": room, "thoughts": dict(Counter(thoughts.status))}
    try:
        found = refusal_cliff(
            thinking, thoughts, n_shuffles=_SHUFFLES, seed=settings.seed, progress=progress,
            judged=judge,  # pyright: ignore[reportArgumentType] -- it is called by place
        )  # fmt: skip
    except PromptError as error:
        return {"followed": False, "thinks": True, "reason": str(error), **told}
    low, high = found.difference
    section: dict[str, Any] = {
        "followed": True, "thinks": True, "found": found.found, "reason": found.reason, **told,
        "behaviour": {name: rate_json(rate) for name, rate in found.behaviour.items()},
        "prober": None, "scores": None,
    }  # fmt: skip
    if found.scores is None or found.prober is None:
        return section
    prober, scores = found.prober, found.scores
    section["prober"] = {
        "layer": prober.layer, "kinds": list(prober.kinds), "left_out": dict(prober.left_out), "n": list(prober.n),
    }  # fmt: skip
    section["scores"] = {
        "harmful": rate_json(found.harmful), "harmless": rate_json(found.harmless),
        "difference": {
            "value": number(found.harmful.value - found.harmless.value), "low": number(low), "high": number(high),
        },
        "shuffled_labels": list(found.shuffled_labels), "shuffled_places": list(found.shuffled_places),
        "plateaus": _plateaus(found, settings.seed), "falls_at": _falls_at(found),
        "level": number(found.level), "min_drop": number(found.min_drop), "unit": _named(unit_of(scores)),
        "curve": records(curve_table(scores, bins=_BINS, control=_shuffled(thinking, found, settings.seed))),
        "map": _map(thinking, found), "map_unit": _named(scores.unit),
        "transfer": [] if found.transfer is None else records(found.transfer),
        "example": _example(found), "traces": _traces(found),
    }  # fmt: skip
    return section


def thoughts_of(
    model: Model, prompts: PromptSet, settings: Settings, work: Path, progress: bool
) -> tuple[Model, Traces]:
    """The model in thinking mode and the thoughts that the section follows, read back from `work`.

    Raises:
        PromptError: When the model does not think.
    """
    thinking, reason = thinking_model(model, settings)
    if thinking is None:
        raise PromptError(reason)
    room = _room(thinking, prompts, settings.max_thought_tokens)
    return thinking, _thoughts(thinking, _chosen(prompts), room, work / THOUGHTS, progress)


def _chosen(prompts: PromptSet) -> PromptSet:
    parts = ((prompts.train + prompts.val, _MOST["train"]), (prompts.test, _MOST["test"]))
    kept = [p for part, n in parts for label in (HARMFUL, HARMLESS) for p in part.filter(label=label)[:n]]
    return PromptSet(tuple(kept), prompts.name)


def _room(model: Model, prompts: PromptSet, wanted: int) -> int:
    """As many new tokens as fit the context, if fewer than wanted."""
    most = model.chat.max_tokens
    return wanted if most is None else min(wanted, most - max(len(e) for e in model.encode(prompts)))


def _thoughts(model: Model, prompts: PromptSet, room: int, file: Path, progress: bool) -> Traces:
    options: dict[str, Any] = {"out": file, "max_new_tokens": room, "progress": progress}
    kept = file.is_file()
    try:
        try:
            return rollouts(model, prompts, **options)
        except (PromptError, KeyError, TypeError, ValueError):
            if not kept:
                raise
            # What an earlier run left is damaged, and not just cut short.
            file.unlink(missing_ok=True)
            return rollouts(model, prompts, **options)
    except OSError as error:
        raise RefusalkitError(f"cannot write {file}: {error.strerror or error}; is the disk full?") from error


def _named(unit: str) -> str:
    return unit.replace("probability", "probability of refusal", 1)


def _plateaus(found: RefusalCliff, seed: int) -> dict[str, Any]:
    """AUROC of the plateaus, harmful against harmless."""
    value, y = found.table["plateau"].to_numpy(), (found.table["label"] == HARMFUL).to_numpy()
    low, high = auroc_interval(value, y, found.table["group"], seed=seed)
    return {"value": number(auroc(value, y)), "low": number(low), "high": number(high)}


def _falls_at(found: RefusalCliff) -> list[dict[str, Any]]:
    """At which tokens the harmful traces that show the cliff fall most, with the tokens' texts."""
    shown = found.table[found.table["falls"] & (found.table["label"] == HARMFUL)]
    counts = shown.groupby(["fall", "fall_text"], sort=True).size()
    return [{"place": str(place), "text": str(text), "n": int(n)} for (place, text), n in counts.items()]


def _shuffled(model: Model, found: RefusalCliff, seed: int) -> TraceScores:
    """The control of the curve: the same fit, taught labels that were dealt out anew among the training traces."""
    assert found.prober is not None and found.scores is not None
    rows = found.prober.fitted_on
    labels = np.arange(int(rows.trace.max()) + 1) % 2 == 0
    np.random.default_rng(seed).shuffle(labels)
    return trace(model, found.scores.traces, found.prober.relabelled(labels.tolist()))


def _map(model: Model, found: RefusalCliff) -> list[dict[str, Any]]:
    """Mean score of the prober at every layer, thinned out in deep models."""
    assert found.scores is not None
    n = model.n_layers
    layers = sorted({round(float(v)) for v in np.linspace(0, n - 1, min(_MOST["layers"], n))})
    scored = trace(model, found.scores.traces, found.prober, layers)
    table = scored.aligned(_BINS).mean(draws=2)
    return records(table.drop(columns=["low", "high", "n"]))


def _example(found: RefusalCliff) -> dict[str, Any]:
    """One harmful trace, token by token: the first that falls, or the first."""
    assert found.scores is not None
    harmful = np.asarray(found.table["label"] == HARMFUL)
    falls = harmful & np.asarray(found.table["falls"])
    i = int(np.flatnonzero(falls if falls.any() else harmful)[0])
    return {
        "prompt": found.scores.traces.prompts[i].text, "label": HARMFUL, "tokens": list(found.scores.tokens[i]),
        "regions": found.scores.regions(i), "values": [round(float(v), 4) for v in found.scores.of(i)],
    }  # fmt: skip


def _traces(found: RefusalCliff) -> list[dict[str, Any]]:
    """Every held-out trace with its plateau and what becomes of it."""
    assert found.scores is not None
    kept = ["label", "plateau", "plateau_low", "plateau_high", "final", "cliff", "fall", "falls"]
    rows = records(found.table[kept])
    return [{"prompt": p.text, **row} for p, row in zip(found.scores.traces.prompts, rows, strict=True)]
