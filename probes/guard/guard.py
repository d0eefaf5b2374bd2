"""`LatentGuard`: flags harmful prompts by what the model itself holds of them (arXiv 2507.11878, "Latent Guard").

The model may answer a prompt, and still represent it as harmful at the last token of the instruction. The guard reads
that token, before the model has written anything, from a forward pass that ends after the last layer it needs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from interp.activations.labelled import Labelled
from interp.errors import ModelError, PromptError
from interp.model.model import Model, Prompts
from interp.text.encoded import Encoded
from interp.text.prompts import HARMFUL, PromptSet
from probes.guard.build import built_from, capture_for
from probes.guard.match import check_model
from probes.guard.parts import GuardParts
from probes.guard.read import judged, read_activations, read_model
from probes.guard.rules import Features
from probes.guard.scores import GuardScores

if TYPE_CHECKING:
    from probes.guard.baselines import Detector
    from probes.guard.report import GuardReport
    from probes.guard.stream import Watched


@dataclass(frozen=True, eq=False, repr=False)
class LatentGuard(GuardParts):
    """A fitted guard; make one with `fit` or `from_activations`, read one with `load`.

    Its attributes are those of `GuardParts`: `threshold`, `layers`, `positions`, `operating_point`, `provenance`, ...
    """

    @classmethod
    def fit(
        cls,
        model: Model,
        prompts: PromptSet,
        *,
        rule: str = "centroid",
        layers: int | Sequence[int] | None = None,
        positions: Sequence[str | int] = ("t_inst",),
        site: str = "resid_post",
        target_fpr: float = 0.05,
        calibration: str = "platt",
        abstain: tuple[float, float] | None = None,
        positive: str = HARMFUL,
        seed: int = 0,
        progress: bool = False,
    ) -> LatentGuard:
        """Fit a guard on labelled prompts, from 20 a side upwards.

        Where the prompts are split, the rule is fitted on `train`, calibrated on `val` (if that has enough prompts;
        else train and val are cross-fitted together), and `test` is left alone. Where they are not, all are used and
        calibration is cross-fitted over groups.

        Args:
            model: The model to be guarded.
            prompts: Harmful and harmless ones; categories of the harmful ones give per-category scores.
            rule: `"centroid"`, the paper's: nearest centroid by cosine, averaged over all layers. `"logistic"`: a
                regression; its layer is chosen by the log-loss of a grouped cross-validation, where the prompts are of
                three families or more on families that were held out.
            layers: Read these and choose none. Fewer and earlier ones make the guard cheaper.
            positions: Tokens to read.
            site: Site to read.
            target_fpr: Share of harmless prompts that may be flagged; sets the threshold.
            calibration: `"platt"` or `"isotonic"` (some hundreds of held-out prompts).
            abstain: Probabilities between which the guard decides nothing, e.g. `(0.3, 0.7)`.
            positive: The label that counts as harmful.
            seed: For the folds.
            progress: Show a progress bar.

        Raises:
            PromptError: For fewer than 20 prompts a side, prompts without labels, or too few for `target_fpr`.
            NonFiniteError: For activations that are NaN or infinite.
        """
        acts = capture_for(model, prompts, rule, calibration, layers, positions, site, progress)
        return cls.from_activations(
            acts, rule=rule, layers=None if layers is None else acts.layers, positions=acts.positions, site=site,
            target_fpr=target_fpr, calibration=calibration, abstain=abstain, positive=positive, seed=seed, model=model,
        )  # fmt: skip

    @classmethod
    def from_activations(
        cls,
        acts: Labelled,
        labels: ArrayLike | None = None,
        *,
        rule: str = "centroid",
        layers: int | Sequence[int] | None = None,
        positions: Sequence[str | int] = ("t_inst",),
        site: str | None = None,
        target_fpr: float = 0.05,
        calibration: str = "platt",
        abstain: tuple[float, float] | None = None,
        positive: str = HARMFUL,
        seed: int = 0,
        model: Model | None = None,
    ) -> LatentGuard:
        """Fit a guard on activations in memory or a store on disk; see `fit`.

        Args:
            acts: `Activations` or a `Store`, one row per prompt.
            labels: Whether each row is harmful; by default, from the prompts' labels.
            rule: As in `fit`.
            layers: As in `fit`; by default those captured.
            positions: As in `fit`; they must have been captured.
            site: May be left out where one was captured.
            target_fpr: As in `fit`.
            calibration: As in `fit`.
            abstain: As in `fit`.
            positive: As in `fit`.
            seed: As in `fit`.
            model: The model to score with later.

        Raises:
            SiteError, PositionError: For what was not captured.
            PromptError: As in `fit`; also where rows are tokens, or prompts were captured under edits.
        """
        built = built_from(
            acts, labels, rule=rule, layers=layers, positions=positions, site=site, target_fpr=target_fpr,
            calibration=calibration, positive=positive, seed=seed, n_layers=model.n_layers if model else None,
        )  # fmt: skip
        return cls(
            built.found.rule, built.site, built.layers, built.positions, built.found.calibration, built.found.point,
            abstain, built.found.categories, built.found.scores, built.found.labels, None, built.selection,
            built.provenance, model,
        )  # fmt: skip

    def with_model(self, model: Model, *, allow_other_model: bool = False) -> LatentGuard:
        """The same guard, scoring with a model.

        Args:
            model: The model.
            allow_other_model: Take a model with other weights or another chat template (a fine-tune of the guard's
                own, say), as long as the widths fit. Calibration and threshold may not hold there: evaluate first.

        Raises:
            ModelError: When the model is not the guard's; the message names what differs.
        """
        check_model(self, model, allow_other_model)
        return replace(self, model=model)

    def score(self, texts: Prompts) -> GuardScores:
        """Score prompts with the guard's model: texts, a prompt set, or conversations.

        Raises:
            ModelError: When the guard has no model yet.
            PromptError: For an empty or over-long prompt.
            PositionError: For a prompt without the guard's positions.
            NonFiniteError: For activations that are NaN or infinite; names prompt and layer.
        """
        return self._score(self._need_model(), texts)

    def screen(self, model: Model, messages: Prompts, *, allow_other_model: bool = False) -> GuardScores:
        """Score conversations before the model answers them.

        One forward ends after the guard's last layer; nothing is generated. The guard reads the last user turn, with
        all turns and the system prompt before it as context.

        Args:
            model: The model that is about to answer.
            messages: One conversation (a list of messages) or several, or prompts.
            allow_other_model: See `with_model`.
        """
        return self.with_model(model, allow_other_model=allow_other_model)._score(model, messages)

    def score_activations(self, acts: Labelled) -> GuardScores:
        """Score activations that were captured before, in memory or in a store; one row per prompt.

        Raises:
            SiteError, PositionError: For what was not captured.
            ModelError: When they are of another model than the guard's.
            PromptError: Where rows are tokens.
        """
        return judged(self, read_activations(self, acts), tuple(acts.prompts))

    def features(self, model: Model, encoded: Sequence[Encoded]) -> Features:
        """What the guard reads of encoded prompts, fp32 `[prompt, layer, position, width]`."""
        return read_model(self, model, encoded)

    def evaluate(
        self,
        prompts: PromptSet | Labelled | Mapping[str, PromptSet | Labelled],
        baselines: Sequence[Detector] = (),
        *,
        positive: str = HARMFUL,
        seed: int = 0,
    ) -> GuardReport:
        """AUROC, AUPRC, recall at 1 % and 5 % false positives and calibration error, with intervals.

        Args:
            prompts: One labelled set, or several by name; captured activations of one are scored as they are.
            baselines: Detectors to compare with on the same prompts; see `probes.guard.baselines`.
            positive: The label that counts as harmful.
            seed: For the bootstrap.
        """
        from probes.guard.report import evaluate_guard

        return evaluate_guard(self, prompts, baselines, positive, seed)

    def fit_stream(self, prompts: PromptSet, **options: Any) -> LatentGuard:
        """The same guard with a rule for generated tokens; see `probes.guard.stream.fit_stream` for the options."""
        from probes.guard.stream import fit_stream

        return replace(self, stream=fit_stream(self._need_model(), prompts, self, **options))

    def generate(self, prompts: Prompts, *, stop: bool = True, **options: Any) -> Watched:
        """Let the model answer, scoring its tokens as they are written.

        Args:
            prompts: As for `score`.
            stop: Stop an answer whose scores have been above the threshold for as many looks in a row as the stream
                rule says; `False` only watches.
            **options: As for `model.generate`.

        Raises:
            PromptError: When no rule for generated tokens was fitted: the one for prompts does not carry over.
        """
        from probes.guard.stream import watch

        if self.stream is None:
            raise PromptError(
                "this guard was fitted for prompts only, and its scores mean nothing at generated tokens: fit it there "
                "with guard.fit_stream(prompts)"
            )
        return watch(self._need_model(), self.stream, prompts, stop, options)

    def to_frame(self) -> Any:
        """Cross-validated log-loss and AUROC by layer and strength (pandas); empty where nothing was chosen."""
        import pandas as pd

        return pd.DataFrame([dict(row) for row in self.selection])

    def plot(self) -> Any:
        """Held-out scores by label, with the threshold (plotly)."""
        from probes.figures.guard import held_out_strip

        return held_out_strip(self)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write as one safetensors file, with everything but the numbers as JSON in its metadata.

        Raises:
            FormatError: When it cannot be written.
        """
        from probes.guard.files import save_guard

        return save_guard(self, Path(path))

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], model: Model | None = None, *, allow_other_model: bool = False
    ) -> LatentGuard:
        """Read what `save` wrote. Nothing in the file is executed.

        Args:
            path: The file.
            model: The model to score with; checked against the guard's.
            allow_other_model: See `with_model`.

        Raises:
            FormatError: When the file is missing, damaged, or something else.
            ModelError: When the model is not the guard's.
        """
        from probes.guard.files import load_guard

        guard = load_guard(Path(path))
        return guard if model is None else guard.with_model(model, allow_other_model=allow_other_model)

    def _score(self, model: Model, texts: Prompts) -> GuardScores:
        encoded = model.encode(texts)
        return judged(self, self.features(model, encoded), tuple(e.prompt for e in encoded))

    def _need_model(self) -> Model:
        if self.model is None:
            raise ModelError("this guard has no model to score with: guard.with_model(model), or load(path, model)")
        return self.model
