"""The stages of an audit that need the model, each kept in the folder when it is finished."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from interp.direction import Direction
from interp.errors import ModelError, PromptError, RefusalkitError
from interp.model.model import Model
from interp.text.prompts import PromptSet
from probes.answers import Behaviour, Judge
from probes.candidate_scores import Candidates
from probes.causal import CausalCheck, causal_check
from probes.harm import harm_direction, reads_harm
from probes.readout import separation
from probes.refusal import CONTRASTS, MIN_SIDE, find_direction, held_out, sides_of
from refusalkit.audit.exports import exports_kept, exports_section
from refusalkit.audit.findings import harm_explains, refuses
from refusalkit.audit.folder import AuditFolder
from refusalkit.audit.guarded import guard_kept, guard_section
from refusalkit.audit.kept import load_candidates, save_candidates
from refusalkit.audit.knows import knows_section
from refusalkit.audit.plans import plans_section
from refusalkit.audit.sections import behaviour_section, causal_section, direction_section, separation_section
from refusalkit.audit.settings import Settings
from refusalkit.audit.suppresses import heads_section
from refusalkit.audit.thinks import thinking_section
from steering import SteeringVector


def check_fit(model: Model, prompts: PromptSet, max_new_tokens: int) -> None:
    """What does not fit the model's context or vocabulary is found now, not after an hour."""
    encoded = model.encode(prompts)
    known, largest = model.hf.get_input_embeddings().weight.shape[0], max(max(e.ids) for e in encoded)
    if largest >= known:
        raise ModelError(
            f"the tokenizer gives the token {largest}, but the model knows only {known}: it belongs to another model; "
            "put the model's own tokenizer files into its folder"
        )
    longest, room = max(len(e) for e in encoded), model.chat.max_tokens
    if room is not None and longest + max_new_tokens > room:
        raise PromptError(
            f"the longest prompt has {longest} tokens, and with an answer of {max_new_tokens} it does not fit the "
            f"model's context of {room}: shorten it, or lower --max-new-tokens"
        )


def device_of(model: Model) -> str:
    """Where the weights are, as far as it can change a result: `cpu`, `cuda (NVIDIA H100 80GB HBM3)`."""
    kinds = sorted({str(p.device) if p.device.type == "cuda" else p.device.type for p in model.hf.parameters()})
    names = [f"cuda ({torch.cuda.get_device_name(kind)})" if kind.startswith("cuda") else kind for kind in kinds]
    return " + ".join(dict.fromkeys(names))


class Stages:
    """The stages of one audit."""

    def __init__(
        self,
        model: Model,
        prompts: PromptSet,
        answers: Behaviour,
        forms: Behaviour,
        judge: Judge,
        settings: Settings,
        folder: AuditFolder,
        progress: bool,
        skip: Collection[str] = (),
        export: bool = False,
    ) -> None:
        self.model, self.prompts, self.answers, self.forms, self.judge = model, prompts, answers, forms, judge
        self.settings, self.folder, self.progress = settings, folder, progress
        self.skip, self.export = skip, export

    def compute(self) -> dict[str, Any]:
        """The sections of the audit; one that does not apply, or is skipped, is `None`."""
        found: dict[str, Any] = {
            "behaviour": behaviour_section(self.answers, self.settings.max_new_tokens),
            "direction": None, "causal": None, "harm": None, "knows": None, "guard": None,
            "thinking": None, "heads": None, "plans": None,
        }  # fmt: skip
        explained = harm_explains(found["behaviour"])
        if refuses(found["behaviour"]):
            contrast = "harmful refused" if explained else "refused"
            found["direction"] = self.folder.stage("direction", lambda: self._direction(contrast), self._vector_kept)
            if found["direction"]["found"]:
                found["causal"] = self.folder.stage("causal", lambda: self._causal(found["direction"]))
                if explained and "knows" not in self.skip:
                    found["knows"] = self.folder.stage(
                        "knows", lambda: knows_section(self.model, self.answers, self.forms, self.prompts,
                                                       self.settings, judge=self.judge),
                    )  # fmt: skip
        found["separation"] = self.folder.stage(
            "separation",
            lambda: separation_section(
                separation(self.model, self.prompts, seed=self.settings.seed, progress=self.progress)
            ),
        )
        if found["separation"]["readable"] and not (found["direction"] and explained):
            found["harm"] = self.folder.stage("harm", self._harm)
        if "guard" not in self.skip:
            found["guard"] = self.folder.stage("guard", self._guard, lambda kept: guard_kept(kept, self.folder.path))
        followed = False
        if "thinking" not in self.skip:
            found["thinking"] = thinking = self.folder.stage("thinking", self._thinking)
            followed = thinking["followed"]
            if followed and thinking["found"]:
                found["heads"] = self.folder.stage("heads", lambda: self._heads(thinking["max_thought_tokens"]))
        if "plans" not in self.skip:
            # Of an earlier run that left the thinking out, it lacks what is read along the thought; of an earlier
            # version, the layers of all seeds.
            found["plans"] = self.folder.stage(
                "plans", lambda: self._plans(followed),
                lambda kept: kept["thought"] == followed
                and all("layers" in row for row in kept["attributes"] if row["measured"]),
            )  # fmt: skip
        if self.export:
            found["exports"] = None
            if found["direction"] and found["direction"]["found"]:
                found["exports"] = self.folder.stage(
                    "exports", self._exports, lambda kept: exports_kept(kept, self.folder.path)
                )
        return found

    def _direction(self, contrast: str) -> dict[str, Any]:
        s = self.settings
        found = find_direction(
            self.model, self.answers, contrast=contrast, n_train=s.n_train, n_val=s.n_val, seed=s.seed,
            progress=self.progress, **s.limits,
        )  # fmt: skip
        section = direction_section(found, contrast, self.model.n_layers)
        if found.direction is None or found.candidates is None:
            return section
        try:
            save_candidates(self._candidates, found.candidates)
            self._vector.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise RefusalkitError(
                f"cannot write to {self.folder.path}: {error.strerror or error}; make room"
            ) from error
        # As the causal check adds it; a vector that goes on into the answer is another intervention.
        SteeringVector.from_direction(found.direction, phase="prompt").save(self._vector)
        section["vector"] = "vectors/refusal.safetensors"
        if contrast == "refused":
            value, low, high = reads_harm(self.model, found.direction, self.prompts.test)
            section["harm_auroc"] = {"value": value, "low": low, "high": high}
        return section

    @property
    def _candidates(self) -> Path:
        return self.folder.work / "candidates.safetensors"

    @property
    def _vector(self) -> Path:
        return self.folder.path / "vectors" / "refusal.safetensors"

    def _vector_kept(self, section: dict[str, Any]) -> bool:
        """Whether the files that go with a finished direction stage are there and belong to it."""
        if not section["found"]:
            return True
        try:
            direction, vector = self._chosen(section), SteeringVector.load(self._vector)
        except RefusalkitError:
            return False
        return vector.layers == (direction.layer,) and torch.equal(vector.vectors[direction.layer], direction.vector)

    def _chosen(self, section: dict[str, Any]) -> Direction:
        return load_candidates(self._candidates).direction(section["chosen"]["layer"], section["chosen"]["position"])

    def _causal(self, section: dict[str, Any]) -> dict[str, Any]:
        contrast: str = section["contrast"]
        check = self._check(load_candidates(self._candidates), self._chosen(section), contrast)
        return causal_section(check, CONTRASTS[contrast])

    def _harm(self) -> dict[str, Any]:
        found = harm_direction(self.model, self.prompts, progress=self.progress)
        sides = sides_of(self.answers, "test", "refused")
        enough = refuses(behaviour_section(self.answers, 0)) and min(map(len, sides)) >= MIN_SIDE
        contrast = "refused" if enough else "harmful refused"
        value, low, high = reads_harm(self.model, found.direction, self.prompts.test)
        check = self._check(found.candidates, found.direction, contrast)
        return {
            "layer": found.direction.layer,
            "position": found.direction.position,
            "val": found.val,
            "auroc": {"value": value, "low": low, "high": high},
            "causal": causal_section(check, CONTRASTS[contrast]),
        }

    def _guard(self) -> dict[str, Any]:
        return guard_section(self.model, self.answers, self.forms, self.prompts, self.settings, self.folder.path)

    def _thinking(self) -> dict[str, Any]:
        return thinking_section(
            self.model, self.prompts, self.settings, self.folder.work, judge=self.judge, progress=self.progress
        )

    def _heads(self, max_new_tokens: int) -> dict[str, Any]:
        return heads_section(
            self.model, self.prompts, self.settings, max_new_tokens, judge=self.judge, progress=self.progress
        )

    def _exports(self) -> dict[str, Any]:
        asked = self.prompts.val.harmless if len(self.prompts.val.harmless) else self.prompts.harmless
        return exports_section(
            self.model, SteeringVector.load(self._vector), self.folder.path, asked, judge=self.judge,
            max_new_tokens=self.settings.max_new_tokens, seed=self.settings.seed,
        )  # fmt: skip

    def _plans(self, thought: bool) -> dict[str, Any]:
        return plans_section(
            self.model, self.prompts, self.answers, self.settings, self.folder.work, thought=thought, judge=self.judge,
            progress=self.progress,
        )  # fmt: skip

    def _check(self, found: Candidates, direction: Direction, contrast: str) -> CausalCheck:
        s = self.settings
        on, off = held_out(self.answers, contrast, s.n_test, s.seed)
        return causal_check(
            self.model, found, direction, on, off, names=CONTRASTS[contrast], judge=self.judge, n_random=s.n_random,
            max_new_tokens=s.max_new_tokens, seed=s.seed,
            baseline=(self.answers.part(on), self.answers.part(off)), progress=self.progress,
        )  # fmt: skip
