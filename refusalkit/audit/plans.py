"""The section "What it plans": what the states before an answer foretell of it, beside what tells it without them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import multimode
from typing import Any

import numpy as np

from interp.errors import ProbeError, PromptError
from interp.model.model import Model
from interp.text.encoded import as_prompt
from interp.text.judge import judge as rules
from interp.text.prompts import SPLITS, Prompt, PromptSet
from interp.text.sources import prompts as load_prompts
from probes.answers import Behaviour, Judge
from probes.planning.attributes import Attribute, Label
from probes.planning.elsewhere import labelled
from probes.planning.examples import PROMPT
from probes.planning.fitted import PlanFit
from probes.planning.fitting import fit_plan
from probes.planning.known import SHIPPED
from probes.planning.labelling import Sorted, sort_answers
from probes.planning.learning import LINEAR
from probes.planning.planned import fitting_length, plan_examples
from probes.planning.states import PlanStates, plan_states
from probes.planning.writing import Written, as_written, from_trace, write_answers
from refusalkit.audit.forms import asks_organism
from refusalkit.audit.sections import number, records
from refusalkit.audit.settings import Settings
from refusalkit.audit.thinks import thoughts_of

SEEDS = (0, 1, 2)
"""Where the prompts bring their own split, one of them: all would test the same rows."""
CHANGED = 0.1
"""Share of decisions that the thought must change before the decision without it is looked for along the thought."""
_SEGMENTS, _MOST_LAYERS, _LEAST = 4, 16, 10
_TASK_TOKENS = 96
_TASK_PROMPTS = {"train": 80, "val": 30, "test": 60}
"""The most that are asked of a task. The organism's third, a story, is left out: it takes 800 to tell its verdict."""
_TASKS = (
    ("list", "list_length", "how many items its list has", False),
    ("choice", "letter", "which option it picks after thinking", True),
)
Row = dict[str, Any]
Labels = dict[str, Label]


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers whose states are captured once, for several attributes.

    Attributes:
        written: The answers.
        states: What was captured of them; `None` where nothing could be.
    """

    written: tuple[Written, ...]
    states: PlanStates

    def of(self, attribute: Attribute, rows: Sequence[int], chosen: Sorted) -> PlanFit:
        """The fit of an attribute to some of the answers, of which some have a label."""
        kept = [rows[i] for i in chosen.rows]
        written = [self.written[i] for i in kept]
        examples = plan_examples(attribute, written, chosen, self.states.rows(kept), None)
        seeds = SEEDS[:1] if examples.parts is not None else SEEDS
        return fit_plan(examples, seeds=seeds, kinds=(LINEAR,))


def plans_section(
    model: Model, prompts: PromptSet, answers: Behaviour, settings: Settings, work: Path, *, thought: bool,
    judge: Judge = rules, progress: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """What is foretold of refusal, of length, along the thought, and of the organism's tasks, as plain JSON.

    Answers and thoughts are those that the audit has; only the organism's tasks are answered anew, and kept in `work`.
    Probes are linear, fitted on training prompts; layers are chosen on validation ones and held-out ones are looked at
    once. In deep models 16 layers are probed.

    Args:
        model: The model.
        prompts: The audit's prompts, labelled and split.
        answers: Judged answers to exactly these.
        settings: Sizes and seed.
        work: Where the audit keeps its stages.
        thought: Whether thoughts are there to read along.
        judge: The audit's judge.
        progress: Show progress bars.
    """
    rows = _answers(model, answers, progress)
    if thought:
        rows += _thoughts(model, prompts, answers, settings, work, judge, progress)
    if asks_organism(model, prompts):
        rows += _tasks(model, settings, work, progress)
    return {"thought": thought, "layers": list(_layers(model)), "attributes": rows}


def _answers(model: Model, answers: Behaviour, progress: bool) -> list[Row]:
    """Refusal and length of the answers that the audit has."""
    written = tuple(as_written(model, c) for c in answers.completions)
    labels = _labels(answers)
    refusal, length = labelled("refusal", SHIPPED["refusal"], labels), SHIPPED["length"]
    whole = _captured(model, written, [w.body for w in written], progress)
    if any(w.before_answer for w in written):
        before = _captured(model, written, [w.before_answer for w in written], progress)
    else:
        before = replace(whole, states=whole.states.at_prompt())
    everything = range(len(written))
    complied = [i for i, w in enumerate(written) if labels[w.answer.prompt.id] == "complied"]
    return [
        _measured("refusal", "whether it refuses", refusal, before, everything),
        _measured("length", "how long its answer is", length, whole, everything),
        _measured("length of answers", "how long its answer is, refusals left out", length, whole, complied),
    ]  # fmt: skip


def _thoughts(
    model: Model, prompts: PromptSet, answers: Behaviour, settings: Settings, work: Path, judge: Judge, progress: bool
) -> list[Row]:
    """The decision to refuse along the thought: what is done after it, and what would be done without it."""
    thinking, traces = thoughts_of(model, prompts, settings, work, progress)
    kept = [(t, s) for t, s in zip(traces, traces.status, strict=True) if s == "whole" and t.answer.strip()]
    after: Labels = {}
    for trace, _ in kept:
        prompt = as_prompt(trace)
        verdict = judge(prompt.text, trace.answer)
        after[prompt.id] = "refused" if verdict.refused else "complied" if verdict.complied else None
    written = [from_trace(thinking, t, s) for t, s in kept]
    # The thoughts are of training and held-out prompts, none to choose a layer on: their groups are split anew.
    free = tuple(replace(w, answer=replace(w.answer, prompt=replace(w.answer.prompt, split=None))) for w in written)
    captured = _captured(thinking, free, [w.before_answer for w in free], progress)
    everything = range(len(free))
    rows = [
        _measured("refusal after thinking", "whether it refuses after thinking",
                  labelled("refusal after thinking", SHIPPED["refusal"], after), captured, everything),
    ]  # fmt: skip
    direct = _labels(answers)
    both = [(after[w.answer.prompt.id], direct.get(w.answer.prompt.id)) for w in written]
    known = [(a, d) for a, d in both if a is not None and d is not None]
    changed = sum(a != d for a, d in known) / max(1, len(known))
    if not model.chat.thinks and changed >= CHANGED:
        told = labelled("refusal without thinking", SHIPPED["refusal"], direct)
        title = "whether it would refuse without thinking"
        rows.append(_measured("refusal without thinking", title, told, captured, everything))
        rows[-1]["changed"] = {"value": changed, "n": len(known)}
    return rows


def _tasks(model: Model, settings: Settings, work: Path, progress: bool) -> list[Row]:
    """The organism's planning tasks, asked as often as a class of the audit's own prompts, or less."""
    rows: list[Row] = []
    for task, attribute, title, thinks in _TASKS:
        source = model.with_format(thinking=thinks)
        asked = _sample(load_prompts(f"organism:{task}"), settings)
        room = fitting_length(source, asked, _TASK_TOKENS)
        file = work / f"plan-{task}.jsonl"
        try:
            written = tuple(write_answers(source, asked, out=file, max_new_tokens=room, progress=progress))
        except (PromptError, KeyError, TypeError, ValueError):
            file.unlink(missing_ok=True)  # what an earlier run left is damaged, and not just cut short
            written = tuple(write_answers(source, asked, out=file, max_new_tokens=room, progress=progress))
        rows.append(_task(source, task, title, SHIPPED[attribute], written, progress))
    return rows


def _task(
    model: Model, key: str, title: str, attribute: Attribute, written: tuple[Written, ...], progress: bool
) -> Row:
    def captured() -> Answers:
        chosen = sort_answers(attribute, written)
        reveal = [w.before_answer for w in written]
        for i, at in zip(chosen.rows, chosen.reveal, strict=True):
            reveal[i] = at
        return _captured(model, written, reveal, progress)

    return _measured(key, title, attribute, captured, range(len(written)), written)


def _sample(found: PromptSet, settings: Settings) -> list[Prompt]:
    sizes = dict(zip(SPLITS, (settings.n_train, settings.n_val, settings.n_test), strict=True))
    return [p for split, n in sizes.items() for p in found.filter(split=split)[: min(n, _TASK_PROMPTS[split])]]


def _labels(answers: Behaviour) -> Labels:
    """What the audit's judge made of each answer."""
    return {p.id: "refused" if v.refused else "complied" if v.complied else None
            for p, v in zip(answers.prompts, answers.verdicts, strict=True)}  # fmt: skip


def _layers(model: Model) -> tuple[int, ...]:
    n = model.n_layers
    return tuple(sorted({round(float(v)) for v in np.linspace(0, n - 1, min(_MOST_LAYERS, n))}))


def _captured(model: Model, written: tuple[Written, ...], reveal: Sequence[int], progress: bool) -> Answers:
    states = plan_states(
        model, written, reveal, segments=_SEGMENTS, layers=_layers(model), progress=progress
    )  # fmt: skip
    return Answers(written, states)


def _measured(
    key: str, title: str, attribute: Attribute, given: Answers | Callable[[], Answers], rows: Sequence[int],
    written: Sequence[Written] | None = None,
) -> Row:  # fmt: skip
    """One attribute: what is foretold of it, or why that cannot be told."""
    about: Row = {"key": key, "title": title, "attribute": attribute.name, "kind": attribute.kind}
    apart: dict[str, int] = {}
    labels: tuple[Label, ...] = ()
    try:
        several = given.written if isinstance(given, Answers) else written or ()
        chosen = sort_answers(attribute, [several[i] for i in rows], least=_LEAST)
        apart, labels = chosen.apart, chosen.labels
        answers = given if isinstance(given, Answers) else given()
        fit = answers.of(attribute, rows, chosen)
    except (ProbeError, PromptError) as error:
        reason = str(error).removeprefix(f"attribute {attribute.name!r}: ")
        return {**about, "measured": False, "reason": reason, "n": len(labels), "apart": apart,
                "labels": _counts(labels, attribute)}  # fmt: skip
    return {**about, "measured": True, "reason": "", "n": fit.n, "groups": fit.n_groups, "apart": apart,
            "labels": _counts(labels, attribute), **_figures(fit)}  # fmt: skip


def _counts(labels: Sequence[Label], attribute: Attribute) -> dict[str, int] | None:
    """Answers of each class; `None` for numbers."""
    return None if attribute.kind == "regression" else {str(k): n for k, n in sorted(Counter(map(str, labels)).items())}


def _figures(fit: PlanFit) -> Row:
    evidence = fit.verdict.evidence
    best = str(evidence["best baseline"])
    scores = fit.scores[(fit.scores["position"] == PROMPT) & (fit.scores["probe"] == LINEAR)]
    beside = fit.baselines[(fit.baselines["position"] == PROMPT) & (fit.baselines["metric"] == fit.metric)]
    gaps = {d["baseline"]: d for d in records(fit.differences) if d["position"] == PROMPT}
    baselines = [
        {"baseline": b["baseline"], **{k: b[k] for k in ("value", "low", "high")},
         "difference": {"value": gaps[b["baseline"]]["difference"],
                        **{k: gaps[b["baseline"]][k] for k in ("low", "high")}}}
        for b in records(beside)
    ]  # fmt: skip
    along = records(fit.curve.table)
    return {
        "metric": fit.metric, "claim": fit.verdict.claim, "sentence": fit.verdict.sentence,
        "alpha": fit.alpha, "margin": fit.margin, "n_test": int(round(fit.design.n_test)), "late": evidence["late"],
        "score": {k: along[0][k] for k in ("value", "low", "high")}, "best_baseline": best,
        "difference": next(b["difference"] for b in baselines if b["baseline"] == best),
        "layer": min(multimode(fit.layers)), "layers": list(fit.layers), "first": fit.curve.first,
        "shape": fit.curve.shape,
        "share_at_prompt": number(fit.curve.share_at_prompt), "missing": list(fit.missing),
        "by_layer": [{k: r[k] for k in ("layer", "value", "low", "high")} for r in records(scores)],
        "along": along, "baselines": baselines,
    }  # fmt: skip
