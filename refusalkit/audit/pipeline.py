"""The audit from end to end: answers, direction, causal check, separation, findings, report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import interp
from interp.model.model import Model
from interp.provenance import write_json
from interp.text.judge import judge as rules
from interp.text.prompts import PromptSet
from probes.answers import Behaviour, Judge
from probes.candidate_scores import Candidates
from probes.causal import CausalCheck, causal_check
from probes.harm import harm_direction, reads_harm
from probes.readout import separation
from probes.refusal import CONTRASTS, find_direction, held_out
from refusalkit import __version__
from refusalkit.audit.answers import answer_all
from refusalkit.audit.findings import conclude, harm_explains, refuses
from refusalkit.audit.folder import AuditFolder
from refusalkit.audit.kept import load_candidates, save_candidates
from refusalkit.audit.prompts import audit_prompts
from refusalkit.audit.sections import (
    behaviour_section,
    causal_section,
    direction_section,
    separation_section,
)
from refusalkit.audit.settings import Settings
from steering import SteeringVector

SCHEMA = "refusalkit/audit/1"
LIMITS = (
    "Refusal is judged by rules on the English text of the answer: a refusal in other words or another language, or "
    "one that comes after the last generated token, is missed.",
    "A direction that carries refusal on these prompts need not carry it on others: other topics, languages, long "
    "conversations, jailbreaks and thinking mode are not tested here.",
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
    force: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Audit a model and write the report.

    Writes `report.html`, `audit.json` and `vectors/refusal.safetensors` (where a direction is found) to `out`. Called
    again with the same arguments it resumes, and gives the same results.

    Args:
        model: A name as for `interp.load`, or a loaded `Model`.
        out: Folder for the results.
        harmful: Harmful prompts: a txt, csv or jsonl file, or a Hub dataset.
        harmless: Harmless prompts, likewise.
        judge: Any callable `(prompt, answer) -> Verdict`.
        settings: Sizes, thresholds, seed.
        load_options: Passed to `interp.load`.
        force: Start over.
        progress: Show progress bars.

    Returns:
        What `audit.json` holds.

    Raises:
        RefusalkitError: For anything the user can mend; what was computed before is kept.
    """
    settings = settings or Settings()
    name = model.name if isinstance(model, Model) else str(model)
    prompts = audit_prompts(name, harmful, harmless, settings)
    loaded = model if isinstance(model, Model) else interp.load(model, **(load_options or {}))
    loaded.encode(prompts)  # an over-long prompt is found now, not after an hour
    provenance = loaded.provenance()
    judged_by = f"{judge.__module__}.{getattr(judge, '__qualname__', type(judge).__name__)}"
    folder = AuditFolder(
        Path(out),
        {
            "model": [name, provenance["model"], provenance["dtype"], provenance["attention"]],
            "chat format": provenance["chat"],
            "prompts": prompts.digest,
            "settings": settings.to_json(),
            "judge": judged_by,
            "version of refusalkit": __version__,
        },
        force,
    )
    answers = answer_all(
        loaded, prompts, judge, folder.work / "answers.jsonl", settings.max_new_tokens, progress
    )
    sections = _Sections(loaded, prompts, answers, judge, settings, folder, progress).compute()
    headline, findings = conclude(name, sections)
    result = {
        "schema": SCHEMA,
        "refusalkit": __version__,
        "model": name,
        "headline": headline,
        "findings": findings,
        "sections": sections,
        "limits": [*([ORGANISM_LIMIT] if name.startswith("organism") else []), *LIMITS],
        "provenance": {
            **provenance,
            "prompts": {
                "name": prompts.name, "digest": prompts.digest, "n": len(prompts),
                "splits": {s: len(prompts.filter(split=s)) for s in ("train", "val", "test")},
            },
            "settings": settings.to_json(),
            "judge": judged_by,
            "seconds": folder.seconds(),
        },
    }  # fmt: skip
    from refusalkit.audit.report import render_report

    write_json(folder.path / "audit.json", result)
    folder.write("report.html", render_report(result))
    return result


class _Sections:
    """The stages of one audit, each kept in the folder."""

    def __init__(
        self,
        model: Model,
        prompts: PromptSet,
        answers: Behaviour,
        judge: Judge,
        settings: Settings,
        folder: AuditFolder,
        progress: bool,
    ) -> None:
        self.model, self.prompts, self.answers, self.judge = model, prompts, answers, judge
        self.settings, self.folder, self.progress = settings, folder, progress

    def compute(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "behaviour": behaviour_section(self.answers, self.settings.max_new_tokens),
            "direction": None, "causal": None, "harm": None,
        }  # fmt: skip
        explained = harm_explains(found["behaviour"])
        if refuses(found["behaviour"]):
            contrast = "harmful refused" if explained else "refused"
            found["direction"] = self._stage("direction", lambda: self._direction(contrast))
            if found["direction"]["found"]:
                found["causal"] = self._stage("causal", lambda: self._causal(contrast))
        found["separation"] = self._stage(
            "separation",
            lambda: separation_section(separation(self.model, self.prompts, seed=self.settings.seed)),
        )
        if found["separation"]["readable"] and not (found["direction"] and explained):
            found["harm"] = self._stage("harm", self._harm)
        return found

    def _stage(self, name: str, compute: Callable[[], Any]) -> Any:
        return self.folder.stage(name, compute)

    def _direction(self, contrast: str) -> dict[str, Any]:
        s = self.settings
        found = find_direction(
            self.model, self.answers, contrast=contrast, n_train=s.n_train, n_val=s.n_val, seed=s.seed,
            progress=self.progress, **s.limits,
        )  # fmt: skip
        section = direction_section(found, contrast, self.model.n_layers)
        if found.direction is None or found.candidates is None:
            return section
        save_candidates(self.folder.work / "candidates.safetensors", found.candidates)
        vector = SteeringVector.from_direction(found.direction)
        vector.save(self.folder.path / "vectors" / "refusal.safetensors")
        section["vector"] = "vectors/refusal.safetensors"
        if contrast == "refused":
            value, low, high = reads_harm(self.model, found.direction, self.prompts.test)
            section["harm_auroc"] = {"value": value, "low": low, "high": high}
        return section

    def _causal(self, contrast: str) -> dict[str, Any]:
        found = load_candidates(self.folder.work / "candidates.safetensors")
        vector = SteeringVector.load(self.folder.path / "vectors" / "refusal.safetensors")
        place = vector.provenance["directions"][0]
        direction = found.direction(place["layer"], place["position"], place["name"])
        return causal_section(self._check(found, direction, contrast), CONTRASTS[contrast])

    def _harm(self) -> dict[str, Any]:
        found = harm_direction(self.model, self.prompts)
        contrast = "refused" if refuses(behaviour_section(self.answers, 0)) else "harmful refused"
        value, low, high = reads_harm(self.model, found.direction, self.prompts.test)
        check = self._check(found.candidates, found.direction, contrast)
        return {
            "layer": found.direction.layer,
            "position": found.direction.position,
            "val": found.val,
            "auroc": {"value": value, "low": low, "high": high},
            "causal": causal_section(check, CONTRASTS[contrast]),
        }

    def _check(self, found: Candidates, direction: interp.Direction, contrast: str) -> CausalCheck:
        s = self.settings
        on, off = held_out(self.answers, contrast, s.n_test, s.seed)
        return causal_check(
            self.model, found, direction, on, off, names=CONTRASTS[contrast], judge=self.judge, n_random=s.n_random,
            max_new_tokens=s.max_new_tokens, random_tokens=min(32, s.max_new_tokens), seed=s.seed,
            baseline=(self.answers.part(on), self.answers.part(off)), progress=self.progress,
        )  # fmt: skip
