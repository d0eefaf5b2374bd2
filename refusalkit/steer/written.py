"""What a comparison leaves: answers side by side as JSON lines, rates as CSV, a summary, and a page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.model.model import Model
from interp.provenance import write_json
from interp.stats import Rate
from refusalkit.evaluation.run import write_text
from refusalkit.steer.batch import PERMUTED, PLAIN, VECTOR, Arm, Compared

if TYPE_CHECKING:
    from markupsafe import Markup

SCHEMA = "refusalkit/steered/1"
SHOWN = 40
"""Prompts on the page, those first whose verdict the vector turned; all are in the file."""


def write(found: Compared, model: Model, out: Path) -> list[str]:
    """Write `steered.jsonl`, `rates.csv`, `steered.json` and `steered.html`; returns what to say."""
    from refusalkit.page import Panel, write_page

    said = sentences(found)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in side_by_side(found)]
    write_text(out / "steered.jsonl", "".join(lines))
    table = found.to_frame()
    write_text(out / "rates.csv", table.to_csv(index=False, lineterminator="\n"))
    about: dict[str, Any] = {
        "schema": SCHEMA, "findings": said, "rates": table.drop(columns=["refused", "low", "high"]).to_dict("records"),
        "acting": found.acting.told(), "max_new_tokens": found.max_new_tokens, "seed": found.seed,
        "prompts": {"name": found.prompts.name, "digest": found.prompts.digest[:16], "n": len(found.prompts)},
        "flagged": None if found.decisions is None else int(found.decisions.acts.sum()),
        "provenance": model.provenance(),
    }  # fmt: skip
    write_json(out / "steered.json", about)
    rates = [{"": _name(found, arm), **{_of(label): _cell(found.rate(arm, label)) for label in found.labels},
              "other text": str(int(found.changed(arm).sum()))} for arm in found.arms]  # fmt: skip
    note = "Greedy answers, judged one by one; Wilson intervals at 95 %. Random vectors have the same norm."
    panels = [
        Panel("Refusals", note, figure(found)),
        Panel("Every arm", f"Refused, of {len(found.prompts)} prompts in all.", rows=rates),
        Panel("Side by side", _shown_of(found), rows=_answers(found)),
    ]
    title = f"{model.name}, plain and with {found.acting.name}"
    write_page(out / "steered.html", "refusalkit steer", title, said, panels)
    return said


def sentences(found: Compared) -> list[str]:
    """What was measured, in words: a line for each class of prompts, one for the texts, one for the guard."""
    lines: list[str] = []
    for label in found.labels:
        parts = [f"plain {_rate(found.rate(found.plain, label))}"]
        for strength in found.strengths:
            arms = [*found.of(strength), *found.of(strength, "random"), *found.of(strength, PERMUTED)]
            parts += [f"{_name(found, arm)} {_rate(found.rate(arm, label))}" for arm in arms]
        lines.append(f"{_of(label)} refused: {'; '.join(parts)}")
    other = [f"{int(found.changed(own).sum())} at {found.acting.said(s)}" for s in found.strengths
             for own in found.of(s)]  # fmt: skip
    lines.append(f"answers in other words than the plain model's, of {len(found.prompts)}: {', '.join(other)}")
    if found.decisions is not None:
        lines.append(f"the guard flags {int(found.decisions.acts.sum())} of {len(found.prompts)} prompts")
    return lines


def side_by_side(found: Compared) -> list[dict[str, Any]]:
    """One row per prompt: the plain answer, and that of every arm, each with its verdict."""
    rows: list[dict[str, Any]] = []
    for i, prompt in enumerate(found.prompts):
        row: dict[str, Any] = {"id": prompt.id, "prompt": prompt.text, "label": prompt.label}
        if found.decisions is not None:
            row["guard"] = {"flagged": bool(found.decisions.acts[i]), "score": float(found.decisions.scores[i, 0])}
        row["answers"] = [{"arm": arm.kind, "strength": arm.strength, **_answer(arm, i)} for arm in found.arms]
        rows.append(row)
    return rows


def figure(found: Compared) -> Any:
    """Refusals of every arm, or over strength where there are several."""
    from probes.causal import Effect
    from probes.figures import effect_bars
    from probes.figures.steering import refusal_by_strength

    if len(found.strengths) > 1:
        return refusal_by_strength(found.to_frame())
    effects = [Effect("none", _of(label), found.rate(found.plain, label), ()) for label in found.labels]
    for strength in found.strengths:
        for arm in (*found.of(strength), *found.of(strength, PERMUTED)):
            name = found.acting.said(strength) if arm.kind == VECTOR else arm.kind
            randoms = found.of(strength, "random") if arm.kind == VECTOR else []
            effects += [
                Effect(name, _of(label), found.rate(arm, label), tuple(found.rate(r, label) for r in randoms))
                for label in found.labels
            ]
    return effect_bars(effects)


def _answers(found: Compared) -> list[Mapping[str, str]]:
    """Rows of the page's table."""
    own = [found.plain, *(found.of(s)[0] for s in found.strengths)]
    turned = [any(a.told.verdicts[i].label != own[0].told.verdicts[i].label for a in own) for i in _all(found)]
    order = sorted(_all(found), key=lambda i: not turned[i])[:SHOWN]
    return [
        {"prompt": _text(found.prompts[i].text, None, found.prompts[i].label)}
        | {_name(found, arm): _text(arm.told.completions[i].answer, arm.told.verdicts[i]) for arm in own}
        for i in order
    ]


def _all(found: Compared) -> range:
    return range(len(found.prompts))


def _text(text: str, verdict: Any, label: str | None = None) -> Markup:
    """A text as a cell, what stands over it first; everything escaped."""
    from markupsafe import Markup

    from refusalkit.html import clip

    if verdict is None:
        tag = Markup('<span class="tag">{}</span> ').format(label) if label else Markup("")
        return tag + clip(text)
    word = {"refusal": "refused", "compliance": "complied"}.get(verdict.label, verdict.label)
    over = Markup('<span class="verdict {}">{}</span><br>').format(verdict.label, word)
    return over + Markup('<span class="written">{}</span>').format(clip(text, verdict.phrase))


def _answer(arm: Arm, i: int) -> Mapping[str, Any]:
    completion, verdict = arm.told.completions[i], arm.told.verdicts[i]
    return {"answer": completion.answer, "thinking": completion.thinking, "finished": completion.finished,
            "verdict": verdict.label}  # fmt: skip


def _shown_of(found: Compared) -> str:
    n = len(found.prompts)
    if n <= SHOWN:
        return "All prompts, those first whose verdict the vector turned."
    return f"{SHOWN} of {n} prompts, those first whose verdict the vector turned; all are in steered.jsonl."


def _name(found: Compared, arm: Arm) -> str:
    if arm.kind == PLAIN:
        return PLAIN
    own = found.acting.said(arm.strength)
    return own if arm.kind == VECTOR else f"{arm.kind}, {own}"


def _of(label: str | None) -> str:
    return label or "all prompts"


def _cell(rate: Rate) -> str:
    return f"{_rate(rate)}, {rate.k} of {rate.n}"


def _rate(rate: Rate) -> str:
    low, high = rate.interval
    return f"{rate.value:.2f} [{low:.2f}, {high:.2f}]"
