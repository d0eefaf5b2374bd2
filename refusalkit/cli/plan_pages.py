"""The pages that `refusalkit plan` leaves: what was found, and what steering did."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probes.planning.dosing import PlanCausal
    from probes.planning.planned import Plan
    from refusalkit.page import Panel

SHOWN, _CLIP = 6, 240
_NOT_SHOWN = (
    "That the model uses what can be read: steering along the probe is the test (--steer). That what a linear probe "
    "cannot read is not there. A plan in the everyday sense, with a goal that later steps serve. Anything of prompts "
    "unlike these, or of answers that were set apart. A verdict whose figures are near a bound can come out otherwise "
    "with other seeds."
)
_NOT_CAUSED = (
    "That what is causal was planned: a state that is moved may change the answer through its first token alone, "
    "perhaps, and the rest follows from that token. That this is the direction, or the only place, that the model "
    "itself uses: it was chosen for what it does on validation prompts. Anything of other prompts, or of other doses; "
    "at large ones states are unlike any that occur."
)


def write_plan_page(found: Plan, out: Path) -> None:
    """Write `plan.html`."""
    from probes.planning.claims import MEANINGS
    from refusalkit.page import Panel, write_page

    fit = found.fit
    name = worded(found.attribute.name)
    title = f"What {found.model} knows of its answer beforehand: {name}"
    about = found.attribute.about.rstrip(".") or name
    names = ", ".join(map(str, fit.seeds))
    seeds = f"{len(fit.seeds)} seeds ({names})" if len(fit.seeds) > 1 else f"seed {names}"
    lead = [
        f"{found.claim}: {fit.verdict.sentence}.",
        f"“{found.claim}” means: {MEANINGS[found.claim]}.",
        f"Foretold: {about}. {found.kept()} They are of {fit.n_groups} groups of prompts; "
        f"{_tested(found)}, with {seeds}; {_layers(found)}.",
    ]
    panels = [
        Panel(
            "At the last prompt token, layer by layer",
            "Dashed and dotted: what tells it without the state. Each seed chooses a layer of its own on validation "
            "rows: rings mark these layers, at the score that counts. The line is the mean over seeds at each layer; "
            "its highest point was found on test rows.",
            found.plot(),
        )
    ]
    if found.examples.segments:
        text = "The probe at the end of each part of what is written; words and length so far may tell as much."
        panels.append(Panel("Along what is written", text, found.plot_along()))
    panels += [_baselines(found), _answers(found), _provenance(found.provenance)]
    panels.append(Panel("What this does not show", _NOT_SHOWN))
    write_page(out / "plan.html", "refusalkit plan", title, lead, panels)


def write_causal_page(caused: PlanCausal, provenance: Mapping[str, Any], out: Path) -> None:
    """Write `causal.html`."""
    from refusalkit.page import Panel, write_page

    tried = [
        {"layer": str(r["layer"]), "dose": f"{r['dose']:g}", "effect": f"{r['effect']:+.2f}",
         "lost": f"{r['lost']:.2f}", "chosen": "chosen" if r["chosen"] else ""}
        for r in caused.choice.to_dict("records")
    ]  # fmt: skip
    examples = [
        {"prompt": _clip(prompt), "as it was": _clip(before), f"dose {caused.dose:g}": _clip(after)}
        for prompt, before, after in caused.examples
    ]
    text = (
        "Grey: random directions of the same norm. The dose counts standard deviations of the projection that the "
        "probe reads, over training prompts."
    )
    panels = [
        Panel("Dose and response", text, caused.plot()),
        Panel("A few answers", "Of the test prompts; those whose answer changed, if any did.", rows=examples),
        Panel("Tried on validation prompts", "The smallest dose that does nine tenths of the most that any does.",
              rows=tried, folded=True),
        _provenance(provenance),
        Panel("What this does not show", _NOT_CAUSED),
    ]  # fmt: skip
    title = f"Steering {caused.model} along what foretells its {worded(caused.attribute)}"
    write_page(out / "causal.html", "refusalkit plan --steer", title, [caused.sentence], panels)


def worded(name: str) -> str:
    """An attribute's name as words."""
    return " ".join(name.replace("_", " ").split())


def _tested(found: Plan) -> str:
    n = round(found.fit.design.n_test)
    if len(found.fit.seeds) == 1:
        return f"tested on {n} answers"
    same = found.fit.design.same_test
    return f"each seed is tested on {'the same ' if same else ''}{n} answers"


def _layers(found: Plan) -> str:
    from probes.planning.joining import layers_said

    return f"{layers_said(found.fit.layers)}, chosen on validation rows"


def _baselines(found: Plan) -> Panel:
    from probes.planning.baselines import ASKED
    from probes.planning.examples import PROMPT
    from refusalkit.page import Panel

    differences = found.fit.differences
    rows = [
        {"baseline": f"{d['baseline']} (decides nothing)" if d["baseline"] == ASKED else str(d["baseline"]),
         "probe minus baseline": f"{d['difference']:+.2f}", "95 %": f"{d['low']:+.2f} to {d['high']:+.2f}"}
        for d in differences[differences["position"] == PROMPT].to_dict("records")
    ]  # fmt: skip
    text = (
        f"On the same held-out rows. “planned” needs every one of them (but what the model says when asked, which "
        f"decides nothing): at least {found.fit.margin:g}, and its one-sided bound at {found.fit.alpha:g} above 0."
    )
    missing = f" Not compared with, for want of input: {', '.join(found.fit.missing)}." if found.fit.missing else ""
    return Panel("Against every baseline", text + missing, rows=rows)


def _answers(found: Plan) -> Panel:
    """A few answers: one after another of each label, so that more than one label is seen."""
    from refusalkit.page import Panel

    rows = [
        {"prompt": _clip(found.answers[i].prompt.text), "answer": _clip(found.answers[i].text),
         "label": _label(found.examples.labels[i])}
        for i in spread(found.examples.labels.tolist())
    ]  # fmt: skip
    text = "A rule read each label off its answer: look at them (answers.csv has all) before you believe the verdict."
    return Panel("A few answers and their labels", text, rows=rows)


def spread(labels: list[Any], n: int = SHOWN) -> list[int]:
    """Rows of as many different labels as fit, of numbers from the least to the largest; the first row of each."""
    first: dict[Any, int] = {}
    for i, label in enumerate(labels):
        first.setdefault(label, i)
    kinds = sorted(first)
    steps = sorted({round(k * (len(kinds) - 1) / max(1, n - 1)) for k in range(n)})
    chosen = [first[kinds[k]] for k in steps]
    rest = (i for i in range(len(labels)) if i not in chosen)
    chosen += [i for i, _ in zip(rest, range(n - len(chosen)), strict=False)]
    return sorted(chosen, key=lambda i: (labels[i], i))


def _provenance(provenance: Mapping[str, Any]) -> Panel:
    from refusalkit.page import Panel

    return Panel("Provenance", rows=[{"": k, "value": v} for k, v in _flat(provenance)], folded=True)


def _flat(values: Mapping[str, Any], over: str = "") -> Iterable[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{over}{key} ")  # pyright: ignore[reportUnknownArgumentType]
        else:
            yield f"{over}{key}", ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)  # pyright: ignore


def _label(label: Any) -> str:
    return f"{label:g}" if isinstance(label, float) else str(label)


def _clip(text: str) -> str:
    return text if len(text) <= _CLIP else text[: _CLIP - 1] + "…"
