"""What a comparison leaves: answers side by side as JSON lines, rates as CSV, a summary, and a page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.model.model import Model
from interp.provenance import write_json, write_text
from refusalkit.steer.batch import PERMUTED, VECTOR, Arm, Compared
from refusalkit.steer.words import LIMITS, cautions, name_of, of, rates, sentences
from steering.repeats import REPETITIVE

if TYPE_CHECKING:
    from markupsafe import Markup

SCHEMA = "refusalkit/steered/1"
SHOWN = 40
"""Prompts on the page, those first whose verdict the vector turned; all are in the file."""


def write(found: Compared, model: Model, out: Path) -> list[str]:
    """Write `steered.jsonl`, `rates.csv`, `steered.json` and `steered.html`; returns what to say."""
    from refusalkit.page import Panel, provenance, write_page

    told, warned = sentences(found, model), cautions(found)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in side_by_side(found)]
    write_text(out / "steered.jsonl", "".join(lines))
    table = found.to_frame()
    write_text(out / "rates.csv", table.to_csv(index=False, lineterminator="\n"))
    counts = table.drop(columns=["refused", "low", "high"]).to_dict("records")
    about: dict[str, Any] = {
        "schema": SCHEMA, "findings": told, "cautions": warned, "rates": counts, "repetitive_above": REPETITIVE,
        "acting": found.acting.told(), "max_new_tokens": found.max_new_tokens, "seed": found.seed,
        "prompts": {"name": found.prompts.name, "digest": found.prompts.digest[:16], "n": len(found.prompts)},
        "flagged": None if found.decisions is None else int(found.decisions.acts.sum()),
        "provenance": model.provenance(),
    }  # fmt: skip
    write_json(out / "steered.json", about)
    note = "Greedy answers, judged one by one; Wilson intervals at 95 %. Random vectors have the same norm."
    panels = [
        Panel("Refusals", note, figure(found)),
        Panel("Every arm", _COLUMNS, rows=rates(found)),
        Panel("Side by side", _shown_of(found), rows=_answers(found)),
        Panel("What this does not show", " ".join(LIMITS)),
        provenance({key: about[key] for key in ("prompts", "acting", "max_new_tokens", "seed", "provenance")}),
    ]
    title = f"{model.name}, plain and with {found.acting.name}"
    write_page(out / "steered.html", "refusalkit steer", title, [*told, *warned], panels)
    return [*told, *warned]


_COLUMNS = (
    "Partial: in part a refusal, in part an answer; it counts as neither. Repeated 4-grams: share of an answer's that "
    f"came before in it, mean; above {REPETITIVE:g} an answer counts as repetitive, and so may a refusal. Cut off: "
    "not ended at the limit. Other text: than the plain model's."
)


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
    controls: list[str] = []
    effects = [Effect("none", of(label), found.rate(found.plain, label), ()) for label in found.labels]
    for strength in found.strengths:
        for arm in (*found.of(strength), *found.of(strength, PERMUTED)):
            randoms = found.of(strength, "random") if arm.kind == VECTOR else []
            controls += [_bar(found, arm, label) for label in found.labels if arm.kind == PERMUTED]
            for label in found.labels:
                beside = tuple(found.rate(r, label) for r in randoms)
                effects.append(Effect(_bar(found, arm, label), of(label), found.rate(arm, label), beside))
    return effect_bars(effects, controls)


def _bar(found: Compared, arm: Arm, label: str | None) -> str:
    """What a bar is called; one of answers that repeat themselves says so."""
    name = name_of(found, arm) if arm.kind == VECTOR else arm.kind
    caution = found.repeats(arm, label).caution(found.repeats(found.plain, label))
    return name if caution is None else f"{name}, repetitive"


def _answers(found: Compared) -> list[Mapping[str, str]]:
    """Rows of the page's table."""
    own = [found.plain, *(found.of(s)[0] for s in found.strengths)]
    turned = [any(a.told.verdicts[i].label != own[0].told.verdicts[i].label for a in own) for i in _all(found)]
    order = sorted(_all(found), key=lambda i: not turned[i])[:SHOWN]
    return [
        {"prompt": _text(found.prompts[i].text, None, found.prompts[i].label)}
        | _guard(found, i)
        | {name_of(found, arm): _text(arm.told.completions[i].answer, arm.told.verdicts[i]) for arm in own}
        for i in order
    ]


def _guard(found: Compared, i: int) -> dict[str, str]:
    """What the guard said of a prompt."""
    if found.decisions is None:
        return {}
    said = "flagged" if found.decisions.acts[i] else "let be"
    return {"guard (score)": f"{said} ({found.decisions.scores[i, 0]:.3g})"}


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
