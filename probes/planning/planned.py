"""`probes.plan`: what a model already knows of its answer at the prompt's last token, beside what is no planning.

Emergent response planning (Dong et al. 2025, arXiv 2502.06258): answers are written greedily, an attribute of each is
read off it, and probes of the states before the answer are to foretell it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interp.errors import ProbeError, PromptError
from interp.model.model import Model
from interp.provenance import write_json
from interp.text.encoded import as_prompt
from interp.text.prompts import Prompt, PromptSet
from probes.planning.asking import ask_model
from probes.planning.attributes import Answer, Attribute, as_attribute
from probes.planning.claims import MEANINGS
from probes.planning.enough import check_prompts
from probes.planning.examples import PlanExamples, Segment
from probes.planning.fitted import PlanFit
from probes.planning.fitting import check_settings, fit_plan
from probes.planning.labelling import Sorted, sort_answers
from probes.planning.states import PlanStates, plan_states
from probes.planning.writing import Written, write_answers

SCHEMA = "refusalkit/plan/1"


@dataclass(frozen=True, eq=False)
class Plan:
    """What a model's states foretell of an attribute of its answers.

    Attributes:
        attribute: The attribute.
        fit: Scores of the probes by layer and along the answer, baselines beside, and the verdict.
        examples: What was fitted to: labels, states, and the inputs of the baselines.
        answers: The answers that have a label, in the rows' order.
        apart: How many answers were set apart, by reason.
        model: The model's name.
        n_parameters: Of the model.
        provenance: Model, prompts, lengths, versions.
    """

    attribute: Attribute
    fit: PlanFit
    examples: PlanExamples
    answers: tuple[Answer, ...]
    apart: Mapping[str, int]
    model: str
    n_parameters: int
    provenance: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def claim(self) -> str:
        """The verdict in a word or two: `"planned"`, `"decided while thinking"`, ..."""
        return self.fit.verdict.claim

    def to_frame(self) -> Any:
        """One row per position, layer and probe (pandas); see `PlanFit`."""
        return self.fit.to_frame()

    def plot(self) -> Any:
        """The score by layer, baselines beside (plotly)."""
        return self.fit.plot()

    def plot_along(self) -> Any:
        """The score along the answer (plotly)."""
        from probes.figures.planning import plan_along

        return plan_along(self.fit)

    def __repr__(self) -> str:
        return f"Plan of {self.model}, {self.fit}"

    def report(self) -> str:
        """The result in sentences: what was kept, what was found."""
        return f"{self.model}, {self.attribute.name}: {self.kept()}\n{self.fit.report()}"

    def kept(self) -> str:
        """How many answers have a label, and why the others have none, as a sentence."""
        total = len(self.answers) + sum(self.apart.values())
        apart = "; ".join(f"{n} {reason}" for reason, n in self.apart.items())
        return f"{len(self.answers)} of {total} answers have a label{f'; set apart: {apart}' if apart else ''}."

    def answers_frame(self) -> Any:
        """One row per answer that has a label (pandas)."""
        import pandas as pd

        return pd.DataFrame(
            [
                {"prompt": a.prompt.text, "group": a.prompt.group, "split": a.prompt.split, "label": label,
                 "answer": a.text, "thinking": a.thinking, "tokens": a.n_tokens}
                for a, label in zip(self.answers, self.examples.labels.tolist(), strict=True)
            ]
        )  # fmt: skip

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write verdict and tables into a folder: `plan.json`, `scores.csv`, `differences.csv` and so on."""
        out = Path(folder)
        out.mkdir(parents=True, exist_ok=True)
        for name, table in (
            ("scores", self.to_frame()), ("baselines", self.fit.baselines), ("differences", self.fit.differences),
            ("networks", self.fit.networks), ("curve", self.fit.curve.table), ("answers", self.answers_frame()),
        ):  # fmt: skip
            (out / f"{name}.csv").unlink(missing_ok=True)
            if len(table):
                table.to_csv(out / f"{name}.csv", index=False)
        verdict = self.fit.verdict
        write_json(
            out / "plan.json",
            _plain({
                "schema": SCHEMA, "model": self.model, "n_parameters": self.n_parameters,
                "attribute": self.attribute.name, "kind": self.attribute.kind, "about": self.attribute.about,
                "claim": verdict.claim, "sentence": verdict.sentence, "evidence": verdict.evidence,
                "meaning": MEANINGS[verdict.claim], "n": len(self.answers), "n_groups": self.fit.n_groups,
                "n_test": round(self.fit.design.n_test), "seeds": list(self.fit.seeds),
                "layers": list(self.fit.layers), "apart": dict(self.apart), "missing": list(self.fit.missing),
                "provenance": dict(self.provenance),
            }),
        )  # fmt: skip
        return out


def plan(
    model: Model,
    prompts: PromptSet | Sequence[Prompt | str],
    attribute: Attribute | str,
    *,
    out: str | os.PathLike[str] | None = None,
    max_new_tokens: int = 256,
    segments: int = 5,
    balance: bool = False,
    ask: bool = True,
    seeds: Sequence[int] = (0, 1, 2),
    kinds: Sequence[str] = ("linear", "mlp"),
    widths: Sequence[int] = (32, 128),
    alpha: float = 0.01,
    batch_size: int = 64,
    token_budget: int = 16384,
    progress: bool = False,
) -> Plan:
    """Measure how early and how well hidden states foretell an attribute of the answer.

    Args:
        model: The model; one in thinking mode thinks first, and its thought has segments of its own.
        prompts: Prompts. Where they bring a split it is kept to; else groups are split 60/20/20 anew for every seed.
        attribute: An attribute, its name (`probes.planning.known`), or `FILE.py:function`.
        out: A folder that keeps answers and states as they come, and takes tables and figures. The same call goes on
            where an earlier one was cut short, with the same result.
        max_new_tokens: Longest thought and answer; as many as fit the context, if fewer do.
        segments: Stretches that thought and answer are cut into, up to the token that gives the attribute away; each is
            probed at its last token. 0 probes the prompt alone.
        balance: Keep equally many answers of every class.
        ask: Also ask the model to foretell the attribute.
        seeds: For splits, probes and draws; one fit each.
        kinds: `"linear"`, `"mlp"` (one hidden layer).
        widths: Hidden widths of the MLP.
        alpha: Level of the verdict.
        batch_size: Most answers written at once.
        token_budget: Most padded tokens in a batch of writing.
        progress: Show progress bars.

    Raises:
        PromptError: For no prompts, or an `out` that holds answers of something else.
        ProbeError: For an unknown attribute, one with a single class, too few prompts or examples, NaN labels, seeds
            or kinds that are none, or an `out` that cannot be written to.
    """
    own = as_attribute(attribute)
    given = [prompts] if isinstance(prompts, str) else list(prompts)
    several = [as_prompt(p) for p in given]
    if not several:
        raise PromptError("no prompts were given")
    if segments < 0:
        raise ProbeError(f"segments={segments}: give 0 for the prompt alone, or more")
    check_settings(seeds, kinds, widths, alpha)
    check_prompts(own, several)
    folder = None if out is None else _folder(out)

    def file(name: str) -> Path | None:
        return None if folder is None else folder / name

    written = write_answers(
        model, several, out=file("answers.jsonl"), max_new_tokens=fitting_length(model, several, max_new_tokens),
        batch_size=batch_size, token_budget=token_budget, progress=progress,
    )  # fmt: skip
    chosen = sort_answers(own, written, balance=balance, seed=seeds[0] if seeds else 0)
    kept = [written[i] for i in chosen.rows]
    states = plan_states(
        model, kept, chosen.reveal, segments=segments, out=file("states.safetensors"), progress=progress
    )  # fmt: skip
    classes = sorted({str(label) for label in chosen.labels}) if own.kind == "classes" else []
    asked = None
    if ask:
        asked = ask_model(
            model, own, [w.answer.prompt for w in kept], classes, out=file(f"asked-{own.name}.jsonl"), progress=progress
        )  # fmt: skip
    examples = plan_examples(own, kept, chosen, states, asked)
    found = fit_plan(
        examples, seeds=tuple(seeds), kinds=tuple(kinds), widths=tuple(widths), alpha=alpha, progress=progress
    )  # fmt: skip
    name = prompts.name if isinstance(prompts, PromptSet) else "prompts"
    result = Plan(
        own, found, examples, tuple(w.answer for w in kept), chosen.apart, model.name,
        sum(p.numel() for p in model.hf.parameters()),
        {**model.provenance(), "prompts": name, "max_new_tokens": max_new_tokens, "segments": segments,
         "balance": balance, "seeds": list(seeds), "kinds": list(kinds), "widths": list(widths)},
    )  # fmt: skip
    if folder is not None:
        result.save(folder)
    return result


def _folder(out: str | os.PathLike[str]) -> Path:
    """The folder for results, made if need be."""
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "it is a file" if folder.is_file() else error.strerror or error
        raise ProbeError(f"cannot write to {folder}: {reason}; give another folder as out") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ProbeError(f"cannot write to {folder}: no permission; give another folder as out")
    return folder


def fitting_length(model: Model, prompts: Sequence[Prompt], wanted: int) -> int:
    """As many new tokens as fit the context, if fewer than wanted."""
    if model.chat.max_tokens is None:
        return wanted
    return max(1, min(wanted, model.chat.max_tokens - max(len(e) for e in model.encode(prompts))))


def plan_examples(
    attribute: Attribute, kept: Sequence[Written], chosen: Sorted, states: PlanStates, asked: Sequence[Any] | None
) -> PlanExamples:
    """What probes are fitted to, from answers with a label and the states before and along them.

    Args:
        attribute: The attribute.
        kept: The answers that have a label.
        chosen: Their labels.
        states: Their states, row by row.
        asked: What the model foretold when asked, if it was.

    Raises:
        ProbeError: For a single class, or too few examples.
    """
    prompts = [w.answer.prompt for w in kept]
    splits = [p.split for p in prompts]
    along = states.states[:, 1:] if states.segments else None
    return PlanExamples(
        attribute=attribute.name, kind=attribute.kind, labels=np.array(chosen.labels),
        groups=np.array([p.group for p in prompts]), prompt=states.states[:, 0],
        layers=states.layers, along=along,
        segments=tuple(Segment(name, region) for name, region in states.segments),  # pyright: ignore
        texts=[p.text for p in prompts], lengths=states.lengths, embedding=states.embedding,
        first_token=states.first_token, asked=asked, ids=[p.id for p in prompts],
        parts=None if None in splits else _parts(splits),
        written=states.written if states.segments else None,
        written_lengths=states.written_lengths if states.segments else None,
    )  # fmt: skip


def _parts(splits: Sequence[str | None]) -> NDArray[np.str_]:
    return np.array([str(s) for s in splits])


def _plain(value: Any) -> Any:
    """JSON's own types; what is not finite becomes `None`."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(v) for v in value]
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not np.isfinite(value) else value
