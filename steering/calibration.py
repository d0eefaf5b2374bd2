"""How strong: the dose-response curve of a vector, and the strength that meets a target."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from interp.errors import DirectionError, PromptError
from interp.model.model import Model
from interp.progress import progress_bar
from interp.text.judge import judge
from interp.text.prompts import HARMFUL, HARMLESS, PromptSet
from probes.answers import Judge, behaviour
from steering.doses import Dose, doses, stream_norms
from steering.kept_doses import KeptDoses, vector_digest
from steering.vector import SteeringVector
from steering.words import caution, chosen, gains

STRENGTHS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0)


@dataclass(frozen=True)
class Calibration:
    """The curve, and the strength that was chosen on it.

    Attributes:
        doses: Plain model, vector at every strength that was measured, random vectors of the same norms.
        strength: The strength that meets the target; `None` where none does.
        reason: How it was chosen, or why not, in one sentence.
        target: `{"kl": value}` or `{"refused": value}`, and of which prompts.
        given: The vector at strength 1.
        norms: By layer, the median norm of the stream where the vector is added.
        provenance: Model, prompts, settings.
    """

    doses: tuple[Dose, ...]
    strength: float | None
    reason: str
    target: Mapping[str, Any]
    given: SteeringVector
    norms: Mapping[int, float]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Calibration({self.reason})"

    @property
    def vector(self) -> SteeringVector:
        """The vector at the chosen strength; its provenance says how that was chosen.

        Raises:
            DirectionError: When no strength meets the target.
        """
        if self.strength is None:
            raise DirectionError(f"there is no calibrated vector: {self.reason}")
        dose = self.at("vector") or self.at("plain")  # at strength 0 nothing was added
        about = {
            "strength": self.strength, "reason": self.reason, "target": dict(self.target),
            "measured": None if dose is None else {k: v for k, v in dose.to_row().items() if not _lacking(v)},
            "prompts": self.provenance.get("prompts"), "max_new_tokens": self.provenance.get("max_new_tokens"),
            "seed": self.provenance.get("seed"),
        }  # fmt: skip
        made = self.given * self.strength
        return replace(made, provenance={**made.provenance, "calibration": about})

    def at(self, arm: str) -> Dose | None:
        """What was measured of an arm at the chosen strength (of the plain model, at 0); `None` where nothing was."""
        strength = 0.0 if arm == "plain" else self.strength
        return next((d for d in self.doses if d.arm == arm and d.strength == strength), None)

    @property
    def gains(self) -> list[str]:
        """What the chosen strength brings and costs, beside a random vector of the same norm, in sentences."""
        plain, own = self.at("plain"), self.at("vector")
        return [] if plain is None or own is None else gains(plain, own, self.at("random 1"))

    @property
    def caution(self) -> str | None:
        """That answers at the chosen strength repeat themselves more than plain ones (`steering.repeats`), if so."""
        plain, own = self.at("plain"), self.at("vector")
        return None if plain is None or own is None else caution(plain, own)

    @property
    def norm_share(self) -> dict[int, float]:
        """By layer, the length of what is added at the chosen strength over the stream's median norm."""
        strength = self.strength or 0.0
        return {layer: strength * norm / self.norms[layer] for layer, norm in self.given.norms.items()}

    def to_frame(self) -> Any:
        """One row per arm and strength (pandas), with intervals."""
        import pandas as pd

        rows = [{**d.to_row(), "norm_share": self._share(d.strength)} for d in self.doses]
        return pd.DataFrame(rows).sort_values(["arm", "strength"], ignore_index=True)

    def plot(self) -> Any:
        """Refusal, KL, perplexity and repetition over strength, with the random control beside (plotly)."""
        from probes.figures.steering import dose_response

        return dose_response(self)

    def measure(
        self, model: Model, prompts: PromptSet, *, n_random: int = 1, max_new_tokens: int = 32, judge: Judge = judge,
        seed: int = 0, progress: bool = False,
    ) -> tuple[Dose, ...]:  # fmt: skip
        """What the chosen strength does on other prompts, held-out ones say: plain, vector, random vectors.

        Raises:
            DirectionError: When no strength meets the target.
        """
        plain = behaviour(model, prompts, judge=judge, max_new_tokens=max_new_tokens, progress=progress)
        own = self.vector
        arms: list[tuple[str, float, Sequence[Any]]] = [
            ("plain", 0.0, []),
            ("vector", self.strength or 0.0, own.edits()),
        ]
        arms += [
            (f"random {i + 1}", self.strength or 0.0, own.random_like(seed * 1000 + i).edits()) for i in range(n_random)
        ]
        return tuple(
            doses(model, prompts, arms, plain, judge=judge, max_new_tokens=max_new_tokens, seed=seed, progress=progress)
        )

    def _share(self, strength: float) -> float:
        return max(abs(strength) * norm / self.norms[layer] for layer, norm in self.given.norms.items())


def calibrate(
    model: Model,
    vector: SteeringVector,
    *,
    prompts: PromptSet,
    target_kl: float | None = None,
    refusal_rate: float | None = None,
    on: str = HARMLESS,
    strengths: Sequence[float] = STRENGTHS,
    refine: int = 4,
    n_random: int = 1,
    judge: Judge = judge,
    max_new_tokens: int = 32,
    folder: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Calibration:
    """Find the strength at which a vector does what is wanted, and show what it does on the way there.

    With `target_kl`: the largest strength, before the first that goes beyond, at which the upper end of the 95 %
    interval of KL(plain || steered) on harmless prompts is at most the target. The interval's end and not the mean,
    because the target is to hold on prompts that were not seen here. With `refusal_rate`: the smallest strength at
    which that share of the prompts `on` is refused (or, where the plain model refuses more, at most that share).
    Between neighbouring strengths, halves are tried.

    Where the vector at the chosen strength is longer than the residual stream it is added to, a warning says so: a
    random vector of that length would change the model too, as the control beside the curve shows.

    Args:
        model: The model.
        vector: The vector; its coefficient is strength 1. For the other direction give `-vector`.
        prompts: Labelled harmful and harmless prompts. Of a split set the validation part is used, and nothing else.
        target_kl: In nats per answer token.
        refusal_rate: A share.
        on: Of which prompts: `"harmless"` or `"harmful"`.
        strengths: Where to measure, above 0.
        refine: How many halves are tried around the target.
        n_random: Random vectors of the same norms, at every strength.
        judge: Any callable `(prompt, answer) -> Verdict`.
        max_new_tokens: Longest answer.
        folder: Keep answers and doses there as they are measured. The same call goes on where it was cut short, to the
            same result, and another target or other strengths measure only what is not there yet. A folder of another
            vector, model, prompt set or setting is refused.
        seed: For random vectors and bootstrap.
        progress: Show a progress bar.

    Raises:
        DirectionError: Unless one target is given, in its range; for strengths that are none.
        PromptError: When the prompts lack those that the target is about.
        FormatError: When the folder holds something else.
    """
    used = prompts.val if any(p.split for p in prompts) else prompts
    grid = sorted(set(map(float, strengths)))
    _check(target_kl, refusal_rate, on, grid, used)
    kept = None if folder is None else KeptDoses(Path(folder), _key(model, vector, used, max_new_tokens, seed))
    out, edited_by = (None, None) if kept is None else kept.answers("plain", 0.0)
    plain = behaviour(model, used, judge=judge, max_new_tokens=max_new_tokens, out=out, edited_by=edited_by)
    controls = [vector.random_like(seed * 1000 + i) for i in range(n_random)]
    norms = stream_norms(model, [p for p in used if p.label == HARMLESS] or used, vector.site, vector.layers)

    def measured(arms: Sequence[tuple[str, float, Sequence[Any]]]) -> list[Dose]:
        return doses(model, used, arms, plain, judge=judge, max_new_tokens=max_new_tokens, seed=seed, kept=kept)

    found = measured([("plain", 0.0, [])])
    met = _target(target_kl, refusal_rate, on, found[0])
    with progress_bar("calibrating", len(grid) * (1 + n_random) + refine, progress) as advance:
        for strength in grid:
            arms = [("vector", strength, (vector * strength).edits())]
            arms += [(f"random {i}", strength, (one * strength).edits()) for i, one in enumerate(controls, 1)]
            found += measured(arms)
            advance(len(arms))
        own = {d.strength: met(d) for d in found if d.arm in ("plain", "vector")}
        low, high = _bracket(own, upward=refusal_rate is not None)
        for _ in range(refine if high else 0):
            assert high is not None
            middle = (low + high) / 2
            (dose,) = measured([("vector", middle, (vector * middle).edits())])
            found.append(dose)
            # `met` is true below the bracket's turn for a KL, and above it for a rate.
            low, high = (middle, high) if met(dose) == (refusal_rate is None) else (low, middle)
            advance(1)
    target: dict[str, Any] = {"kl": target_kl} if target_kl is not None else {"refused": refusal_rate, "on": on}
    strength, reason = chosen(target, low, high, grid, found)
    if controls and strength and strength not in grid:  # the control stands beside what is chosen
        found += measured([(f"random {i}", strength, (one * strength).edits()) for i, one in enumerate(controls, 1)])
    provenance = {
        **model.provenance(), "prompts": {"name": used.name, "digest": used.digest[:16], "n": len(used)},
        "target": target, "strengths": grid, "refine": refine, "n_random": n_random, "seed": seed,
        "max_new_tokens": max_new_tokens,
    }  # fmt: skip
    made = Calibration(tuple(found), strength, reason, target, vector, norms, provenance)
    if long := [f"layer {layer}: {share:.1f} times" for layer, share in made.norm_share.items() if share > 1]:
        warnings.warn(
            f"at strength {strength:.3g} the vector is longer than the residual stream that it is added to "
            f"({', '.join(long)}); any vector of that length changes the model, so compare with the random control",
            stacklevel=2,
        )
    return made


def _lacking(value: Any) -> bool:
    """Whether JSON lacks a number."""
    return isinstance(value, float) and not math.isfinite(value)


def _key(model: Model, vector: SteeringVector, used: PromptSet, max_new_tokens: int, seed: int) -> dict[str, Any]:
    """What decides a dose; which doses are measured, and to what end, does not."""
    return {
        **model.provenance(), "vector": vector_digest(vector), "prompts": used.digest,
        "max_new_tokens": max_new_tokens, "seed": seed,
    }  # fmt: skip


def _check(
    target_kl: float | None, refusal_rate: float | None, on: str, grid: Sequence[float], used: PromptSet
) -> None:  # fmt: skip
    if (target_kl is None) == (refusal_rate is None):
        raise DirectionError("give one target: target_kl= or refusal_rate=")
    if target_kl is not None and not (math.isfinite(target_kl) and target_kl > 0):
        raise DirectionError(f"target_kl is {target_kl}; it must be above 0")
    if refusal_rate is not None and not 0 <= refusal_rate <= 1:
        raise DirectionError(f"refusal_rate is {refusal_rate}; it is a share between 0 and 1")
    if not grid or grid[0] <= 0 or not math.isfinite(grid[-1]):
        raise DirectionError(f"strengths are numbers above 0, not {list(grid)}; for the other direction give -vector")
    if on not in (HARMFUL, HARMLESS):
        raise PromptError(f"on is {on!r}; it is 'harmful' or 'harmless'")
    needed = HARMLESS if target_kl is not None else on
    if not any(p.label == needed for p in used):
        raise PromptError(f"the target is about {needed} prompts, and of {len(used)} to calibrate on none is")


def _target(
    target_kl: float | None, refusal_rate: float | None, on: str, plain: Dose
) -> Callable[[Dose], bool]:  # fmt: skip
    if target_kl is not None:
        return lambda dose: _upper(dose) <= target_kl
    assert refusal_rate is not None
    if plain.refused[on].value <= refusal_rate:
        return lambda dose: dose.refused[on].value >= refusal_rate
    return lambda dose: dose.refused[on].value <= refusal_rate


def _upper(dose: Dose) -> float:
    """Upper end of the interval of the KL; its mean where a single group of prompts gives none."""
    return dose.kl[0] if math.isnan(dose.kl[2]) else dose.kl[2]


def _bracket(met: Mapping[float, bool], upward: bool) -> tuple[float, float | None]:
    """Neighbouring strengths between which the target turns, from below; the last one and `None` where it doesn't."""
    low = 0.0
    for strength in sorted(met):
        if met[strength] == upward:
            return (low, strength) if strength > 0 else (0.0, 0.0)
        low = strength
    return low, None
