"""Trained vectors: a vector optimised for a wanted behaviour, on a leash that keeps harmless answers what they were."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.edits import Add
from interp.edits.fitting import where as checked_where
from interp.errors import DirectionError, ModelError, PromptError
from interp.model.differentiable import answer_logits
from interp.model.forced import teacher_forced, with_answer
from interp.model.model import Model
from interp.model.sites import check_layers
from interp.progress import progress_bar
from interp.provenance import digest_json
from interp.stats_change import mean_interval
from interp.text.encoded import Encoded, PromptLike, Trace
from probes.answers_kept import answer_onto
from steering.doses import stream_norms
from steering.training_kept import ANSWERS, TrainingState
from steering.vector import SteeringVector

Interval = tuple[float, float, float]
_HELD_OUT = 0.25
_FEWEST = 8


@dataclass(frozen=True)
class HeldOut:
    """What a vector does to prompts that it was not trained on.

    Attributes:
        arm: `"plain"`, `"trained"` or `"random"`, a random vector of the same norm.
        nll: Negative log-likelihood of the wanted answers, in nats per token: mean over prompts and 95 % interval.
        first: Share of wanted answers whose first token the model writes itself.
        kl: KL(plain || this) on the harmless answers, in nats per token: mean over prompts and 95 % interval.
        n: Wanted answers and harmless prompts.
    """

    arm: str
    nll: Interval
    first: float
    kl: Interval
    n: tuple[int, int]


@dataclass(frozen=True)
class TrainedVector:
    """A trained vector with its history and its check on held-out prompts.

    Attributes:
        vector: The vector.
        history: pandas, one row per step: `nll` of the wanted answers, `kl` on the harmless ones, `leash`, `norm`.
        held_out: Plain model, trained vector, random vector.
        max_kl: What the leash holds.
    """

    vector: SteeringVector
    history: Any
    held_out: tuple[HeldOut, ...]
    max_kl: float

    def to_frame(self) -> Any:
        """One row per arm (pandas)."""
        import pandas as pd

        rows: list[dict[str, Any]] = []
        for arm in self.held_out:
            row: dict[str, Any] = {"arm": arm.arm, "first token": arm.first}
            for name, three in (("nll", arm.nll), ("kl", arm.kl)):
                row |= dict(zip((name, f"{name}_low", f"{name}_high"), three, strict=True))
            rows.append({**row, "wanted": arm.n[0], "harmless": arm.n[1]})
        return pd.DataFrame(rows)

    def plot(self) -> Any:
        """Training: likelihood of the wanted answers and KL on harmless ones, step by step (plotly)."""
        from probes.figures.steering import training_lines

        return training_lines(self)


def train_vector(
    model: Model,
    wanted: Sequence[Trace],
    harmless: Sequence[PromptLike],
    *,
    layer: int,
    site: str = "resid_post",
    max_kl: float = 0.1,
    max_norm: float | None = None,
    steps: int = 100,
    rate: float = 0.05,
    batch: int = 16,
    max_new_tokens: int = 32,
    start: SteeringVector | None = None,
    positions: str | int | Sequence[str | int] = "all",
    folder: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: bool = False,
) -> TrainedVector:
    """Optimise a vector that makes a model give wanted answers, while harmless prompts keep theirs.

    The vector that is added at a layer is moved by Adam so that the wanted answers become likely. The leash is a
    multiplier on the KL divergence from the plain model along its own answers to harmless prompts; it grows while the
    mean is above `max_kl` and slackens below (dual ascent), so that `max_kl` is held and not merely weighed. The idea
    of optimising a steering vector by gradient is Subramani et al.'s (2022, 2205.05124); of few examples, Dunefsky and
    Cohan (2025, 2502.18862).

    Prompts with a split "train" are trained on and the others held out; where none has a split, a quarter is held out,
    whole groups at a time.

    Args:
        model: The model, behind the plain backend.
        wanted: Prompts with the answers that they shall get.
        harmless: Prompts whose answers shall stay; the plain model answers them first.
        layer: 0-based.
        site: Where to add.
        max_kl: What the leash holds, in nats per answer token.
        max_norm: Longest vector; by default the median norm of the stream there, beyond which any vector breaks text.
        steps: Steps of Adam.
        rate: Size of a step, as a share of `max_norm` over the square root of the width.
        batch: Wanted answers and harmless prompts in a step.
        max_new_tokens: Longest answer to a harmless prompt.
        start: Begin with this vector's layer; by default with a small random one.
        positions: Tokens it acts on; with `"all"`, the answer's too.
        folder: Keep the plain model's answers and every step there. The same call goes on where it was cut short, to
            the same result. A folder of another training is refused.
        seed: For the start, the order, the held-out groups and the random control.
        progress: Show a progress bar.

    Raises:
        PromptError: For too few prompts, or wanted answers that are empty.
        ModelError: For a backend without gradients.
        DirectionError: When `start` lacks the layer, or a setting is out of range.
        FormatError: When the folder holds another training, or is damaged.
    """
    (at,) = check_layers(layer, model.n_layers)
    if model.backend.name != "hooks":
        raise ModelError(f"gradients need the plain model: load it with backend='hooks', not {model.backend.name!r}")
    if not (max_kl > 0 and steps >= 1 and rate > 0 and batch >= 1):
        raise DirectionError(f"max_kl={max_kl}, steps={steps}, rate={rate} and batch={batch} must be above 0")
    targets = model.encode(list(wanted))
    if empty := [e for e in targets if len(e) <= e.n_prompt]:
        raise PromptError(f"a wanted answer is missing: {empty[0].prompt.text[:60]!r}; give Traces with answers")
    asked, keep = model.encode(list(harmless)), None if folder is None else Path(folder)
    file = None if keep is None else keep / ANSWERS
    answered = answer_onto(model, asked, file, max_new_tokens=max_new_tokens, progress=progress)
    kept = [with_answer(e, c.ids) for e, c in zip(asked, answered, strict=True)]
    fit, check = _parts(targets, seed, "wanted answers")
    fit_kept, check_kept = _parts(kept, seed, "harmless prompts")
    norms = stream_norms(model, fit_kept, site, (at,))
    ceiling = norms[at] if max_norm is None else max_norm
    learned = _start(start, at, model.width(site, (), (at,)), ceiling, seed).to(model.device).requires_grad_()
    names, phase = checked_where(positions, None)
    edit = Add(names, phase, learned, 1.0, site, (at,))
    adam = torch.optim.Adam([learned], lr=rate * ceiling / len(learned) ** 0.5)
    provenance = {
        **model.provenance(), "method": "trained", "max_kl": max_kl, "max_norm": ceiling, "steps": steps, "rate": rate,
        "batch": batch, "seed": seed, "n": {"wanted": len(fit), "harmless": len(fit_kept)},
    }  # fmt: skip
    texts = digest_json([[list(e.ids) for e in part] for part in (fit, fit_kept)])
    state = TrainingState(keep, {**provenance, "at": [site, at, repr(names), phase], "texts": texts,
                                 "start": digest_json(learned.tolist())})  # fmt: skip
    history, leash = state.resume(learned, adam)
    rng = np.random.default_rng(seed)
    with progress_bar("training", steps, progress) as advance:
        advance(len(history))
        for step in range(steps):
            drawn, drawn_kept = _drawn(fit, batch, rng), _drawn(fit_kept, batch, rng)
            if step < len(history):
                continue  # but the draws go on as they were
            nll = -_likelihood(model, drawn, edit).mean()
            kl = _divergence(model, drawn_kept, edit).mean()
            (gradient,) = torch.autograd.grad(nll + leash * kl, learned)
            learned.grad = gradient
            adam.step()
            with torch.no_grad():
                learned.mul_(min(1.0, ceiling / max(float(learned.norm()), 1e-12)))
            loss, far, norm = (float(x.detach()) for x in (nll, kl, learned.norm()))
            history.append({"nll": loss, "kl": far, "leash": leash, "norm": norm})
            leash = min(max(leash + far / max_kl - 1.0, 0.0), 1e4)
            state.keep(learned, adam, history, leash)
            advance(1)
    made = SteeringVector({at: learned.detach()}, site, positions=names, phase=phase, provenance=provenance)
    arms: dict[str, Any] = {"plain": (), "trained": made.edits(), "random": made.random_like(seed).edits()}
    import pandas as pd

    lines = pd.DataFrame(history, columns=["nll", "kl", "leash", "norm"])  # a history that was kept is sorted by name
    return TrainedVector(made, lines, _held_out(model, check, check_kept, arms, seed), max_kl)


def _start(given: SteeringVector | None, layer: int, width: int, ceiling: float, seed: int) -> Tensor:
    if given is None:
        noise = torch.randn(width, generator=torch.Generator().manual_seed(seed))
        return noise / noise.norm() * 0.01 * ceiling
    if layer not in given.vectors or len(given.vectors[layer]) != width:
        raise DirectionError(f"{given!r} has no vector {width} wide at layer {layer} to start from")
    return (given.coefficient * given.vectors[layer]).clone()


def _parts(encoded: Sequence[Encoded], seed: int, what: str) -> tuple[list[Encoded], list[Encoded]]:
    """Those to train on and those held out."""
    if any(e.prompt.split for e in encoded):
        train = [e for e in encoded if e.prompt.split == "train"]
        rest = [e for e in encoded if e.prompt.split != "train"]
    else:
        groups = sorted({e.prompt.group for e in encoded})
        drawn = np.random.default_rng(seed).permutation(len(groups))[: max(1, round(_HELD_OUT * len(groups)))]
        out = {groups[i] for i in drawn}
        train = [e for e in encoded if e.prompt.group not in out]
        rest = [e for e in encoded if e.prompt.group in out]
    if len(train) < _FEWEST or not rest:
        raise PromptError(
            f"of the {what}, {len(train)} are to train on and {len(rest)} are held out; {_FEWEST} and 1 are needed"
        )
    return train, rest


def _drawn(encoded: Sequence[Encoded], batch: int, rng: np.random.Generator) -> list[Encoded]:
    chosen = rng.choice(len(encoded), min(batch, len(encoded)), replace=False)
    return [encoded[int(i)] for i in chosen]


def _likelihood(model: Model, encoded: Sequence[Encoded], edit: Add) -> Tensor:
    """Log-probability per answer token of each prompt, differentiable."""
    logits, owner = answer_logits(model, encoded, [edit])
    targets = torch.tensor([t for e in encoded for t in e.ids[e.n_prompt :]], device=logits.device)
    own = torch.log_softmax(logits.float(), -1).gather(-1, targets[:, None])[:, 0]
    return _averaged(own, owner)


def _divergence(model: Model, encoded: Sequence[Encoded], edit: Add) -> Tensor:
    """KL(plain || steered) per answer token of each prompt, differentiable."""
    with torch.no_grad():
        plain = torch.log_softmax(answer_logits(model, encoded, [])[0].float(), -1)
    logits, owner = answer_logits(model, encoded, [edit])
    steered = torch.log_softmax(logits.float(), -1)
    return _averaged((plain.exp() * (plain - steered)).sum(-1), owner)


def _averaged(values: Tensor, owner: Tensor) -> Tensor:
    total = torch.zeros(int(owner.max()) + 1, device=values.device).index_add(0, owner, values)
    return total / torch.bincount(owner)


def _held_out(
    model: Model, wanted: Sequence[Encoded], harmless: Sequence[Encoded], arms: dict[str, Any], seed: int
) -> tuple[HeldOut, ...]:
    edits = list(arms.values())
    liked, kept = teacher_forced(model, wanted, edits), teacher_forced(model, harmless, edits)
    found: list[HeldOut] = []
    plain = [replace(e, ids=e.ids[: e.n_prompt], offsets=e.offsets[: e.n_prompt]) for e in wanted]
    firsts = torch.tensor([e.ids[e.n_prompt] for e in wanted])
    for (arm, own), like, keep in zip(arms.items(), liked, kept, strict=True):
        written = model.logits(plain, edits=own).argmax(-1)
        nll = mean_interval(
            [-x.mean() for x in like.logprob], groups=[e.prompt.group for e in wanted], seed=seed
        )  # fmt: skip
        kl = mean_interval([x.mean() for x in keep.kl], groups=[e.prompt.group for e in harmless], seed=seed)
        first = float((written == firsts).double().mean())
        found.append(HeldOut(arm, nll, first, kl, (len(wanted), len(harmless))))
    return tuple(found)
