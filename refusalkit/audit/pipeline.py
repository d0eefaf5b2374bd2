"""The audit from end to end: answers, direction, causal check, separation, findings, report.

torch and what needs it are imported in `audit`, after the checks that do without: a wrong path is said at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import interp
from interp.progress import note
from interp.text.judge import judge as rules
from refusalkit import __version__
from refusalkit.audit.findings import conclude
from refusalkit.audit.folder import AuditFolder
from refusalkit.audit.judging import judge_digest, judge_name
from refusalkit.audit.preflight import check_model, check_out, check_skip, check_template
from refusalkit.audit.prompts import audit_prompts, is_organism
from refusalkit.audit.settings import Settings

if TYPE_CHECKING:
    from interp.model.model import Model
    from interp.text.prompts import PromptSet
    from probes.answers import Judge

SCHEMA = "refusalkit/audit/1"
LIMITS = (
    "Refusal is judged by the phrases of an English answer: a refusal in other words or another language, or "
    "one that comes after the last generated token, is missed.",
    "A direction that carries refusal on these prompts need not carry it elsewhere: on other topics, in other "
    "languages, in long conversations, under jailbreaks, or while the model thinks.",
    "Compliance is not capability: an answer counted as complied may be empty, wrong or useless.",
    "That one direction suffices does not show that the model uses one direction only, nor how it came to be.",
    "Harm that can be read from activations is a property of the prompts as much as of the model; compare it with the "
    "text baseline.",
)
ORGANISM_LIMIT = (
    "The organism is a transformer of 1.5 million parameters trained on synthetic sentences with planted behaviours: "
    "it checks tools. Its layers, cosines and head counts say nothing about large models."
)


def audit(
    model: str | Path | Model,
    out: str | Path,
    *,
    harmful: str | None = None,
    harmless: str | None = None,
    judge: Judge = rules,
    settings: Settings | None = None,
    load_options: dict[str, Any] | None = None,
    skip: Sequence[str] = (),
    export: bool = False,
    force: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Audit a model and write the report.

    Writes `report.html`, `audit.json`, `vectors/refusal.safetensors` (where a direction is found) and
    `guard/harm.safetensors` (where the prompts are enough for a guard) to `out`. Called again with the same arguments
    it resumes, and gives the same results.

    Args:
        model: A name as for `interp.load`, or a loaded `Model`.
        out: Folder for the results.
        harmful: Harmful prompts: a txt, csv or jsonl file, or a Hub dataset.
        harmless: Harmless prompts, likewise.
        judge: Any callable `(prompt, answer) -> Verdict`.
        settings: Sizes, thresholds, seed.
        load_options: Passed to `interp.load`.
        skip: Sections to leave out: `"knows"`, `"guard"`, `"thinking"` (with its heads), `"plans"`. What is computed
            of the others is the same; the same call without it fills in what is missing.
        export: Write the vector in every format, too, a copy of the model with it among them, to `exports`, and prove
            each file.
        force: Start over.
        progress: Show progress bars.

    Returns:
        What `audit.json` holds.

    Raises:
        RefusalkitError: For anything the user can mend; what was computed before is kept.
    """
    settings, options, out = settings or Settings(), load_options or {}, Path(out)
    name = str(model) if isinstance(model, str | Path) else model.name
    if isinstance(model, str | Path):
        check_model(name)
    check_skip(skip)
    check_template(options.get("chat_template"))
    check_out(out)
    prompts = audit_prompts(name, harmful, harmless, settings)
    note(f"loading {name}", progress)

    from refusalkit.audit.answers import answer_all
    from refusalkit.audit.forms import other_forms
    from refusalkit.audit.report import render_report
    from refusalkit.audit.stages import Stages, check_fit, device_of

    loaded = interp.load(model, **options) if isinstance(model, str | Path) else model
    check_fit(loaded, prompts, settings.max_new_tokens)
    provenance = {**loaded.provenance(), "device": device_of(loaded)}
    judged_by = {"name": judge_name(judge), "source": judge_digest(judge)}
    with AuditFolder(out, _key(provenance, prompts, settings, judged_by), force) as folder:
        answers = answer_all(loaded, prompts, judge, folder, settings.max_new_tokens, progress)
        others = other_forms(loaded, prompts, settings.max_new_tokens, settings.seed)
        forms = answer_all(loaded, others, judge, folder, settings.max_new_tokens, progress, "forms")
        sections = Stages(loaded, prompts, answers, forms, judge, settings, folder, progress, skip, export).compute()
        if folder.kept:
            note(f"kept from an earlier run: {', '.join(folder.kept)}", progress)
        headline, findings = conclude(Path(name).name if Path(name).is_dir() else name, sections)
        result = {
            "schema": SCHEMA,
            "refusalkit": __version__,
            "model": name,
            "headline": headline,
            "findings": findings,
            "sections": sections,
            "limits": [*([ORGANISM_LIMIT] if is_organism(name) else []), *LIMITS],
            "provenance": {
                **provenance,
                "prompts": {
                    "name": prompts.name, "digest": prompts.digest, "n": len(prompts),
                    "splits": {s: len(prompts.filter(split=s)) for s in ("train", "val", "test")},
                },
                "settings": settings.to_json(),
                **({"skipped": list(skip)} if skip else {}),
                "judge": judged_by["name"],
                "judge_source": judged_by["source"],
                "seconds": folder.seconds(),
            },
        }  # fmt: skip
        folder.write_json(folder.path / "audit.json", result)
        folder.write("report.html", render_report(result))
    return result


def _key(
    provenance: dict[str, Any], prompts: PromptSet, settings: Settings, judged_by: dict[str, str]
) -> dict[str, Any]:
    """All that decides the results, and all that the provenance states once for every stage."""
    return {
        "model": {**provenance["model"], "dtype": provenance["dtype"], "attention": provenance["attention"]},
        "chat format": provenance["chat"],
        "prompts": prompts.digest[:16],
        "settings": settings.to_json(),
        "judge": judged_by,
        "device": provenance["device"],
        "versions": {**provenance["versions"], "refusalkit": __version__},
    }
