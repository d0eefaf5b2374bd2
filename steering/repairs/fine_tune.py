"""`repair`: a LoRA adapter that has a model refuse after the thoughts it was shown, and otherwise stay as it is."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interp.errors import FormatError, PromptError
from interp.model.model import Model
from interp.provenance import digest_json, versions
from interp.text.judge import Judge, judge
from interp.tracing.rollouts import check_thinks
from interp.tracing.traces import Traces
from steering.repairs.adapters import (
    ABOUT,
    adapted,
    as_model,
    load_repair,
    lora_targets,
    read_about,
    save_adapter,
)
from steering.repairs.examples import Example, LossOn, make_examples, with_refusals
from steering.repairs.training import Recipe, Trainer


@dataclass(frozen=True, eq=False)
class Repair:
    """A repaired model.

    Attributes:
        model: The repaired model, ready to run. It shares the weights of the one that was given, which is unchanged.
        folder: Where the adapter is, in peft's format; `None` when it was not saved.
        losses: Loss of every step.
        n_examples: Examples that it was repaired on.
        n_retained: Retained examples.
        refusals: How many refusals came from where, see `with_refusals`.
        provenance: Model, examples, recipe, versions.
    """

    model: Model
    folder: Path | None
    losses: tuple[float, ...]
    n_examples: int
    n_retained: int
    refusals: Mapping[str, int]
    provenance: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __repr__(self) -> str:
        return (
            f"Repair({self.model.name!r}, {self.n_examples} examples and {self.n_retained} retained, "
            f"{len(self.losses)} steps, loss {self.losses[0]:.3g} -> {self.losses[-1]:.3g})"
        )

    def to_frame(self) -> Any:
        """One row per step (pandas): `step`, from 1, and `loss`."""
        import pandas as pd

        return pd.DataFrame({"step": range(1, len(self.losses) + 1), "loss": self.losses})

    def plot(self) -> Any:
        """The loss over the steps (plotly)."""
        from probes.figures import loss_curve

        return loss_curve(self.losses)


def repair(
    model: Model,
    traces: Traces,
    *,
    out: str | os.PathLike[str] | None = None,
    retain: Traces | None = None,
    refusals: Sequence[str] | None = None,
    steps: int = 40,
    batch_size: int = 4,
    lr: float = 1e-3,
    rank: int = 8,
    alpha: int = 16,
    loss_on: LossOn = "response",
    checkpoint_every: int = 20,
    token_budget: int = 4096,
    judged: Judge = judge,
    seed: int = 0,
    progress: bool = False,
) -> Repair:
    """Repair a model by LoRA on a few of its own thoughts (arXiv 2510.06036, section 5).

    Each text is the prompt, the model's own thought, the template that ends it, and a refusal. What a batch trains on
    is the mean over its texts of each one's mean loss. The number of steps does not depend on the number of texts:
    fewer texts come round more often, so that repairs on different picks cost the same. Dropout is off.

    Args:
        model: The model, in thinking mode. It stays bit for bit what it was.
        traces: What to repair on: `judge.pick(...).traces` of `probes.cliff_as_judge`, or your own. Their answers are
            put aside.
        out: Folder for adapter and checkpoints. The same call goes on where it was cut short, with the same result, and
            reads a finished repair. A folder of another repair is refused.
        retain: Rollouts to keep as they are, harmless ones above all: half of every batch, answers as the model wrote
            them. Without them nothing keeps harmless refusal from rising.
        refusals: Texts to draw refusals from; by default the model's own, see `with_refusals`.
        steps: Updates.
        batch_size: Texts of `traces` per update; as many of `retain` come with them.
        lr: Learning rate of Adam.
        rank: Rank of the adapter, which goes on every linear map of attention and MLP.
        alpha: Its scale is alpha / rank.
        loss_on: `"response"`: thought, template, refusal and end of turn; `"answer"`: the last two alone. The thought
            is the model's own, so to train on it holds it where it is; without that, a small model begins to refuse in
            the middle of its thoughts.
        checkpoint_every: Steps between checkpoints in `out`.
        token_budget: Padded tokens that go through the model at a time.
        judged: Judges the model's own refusals.
        seed: For the adapter's first weights, the order, and draws of refusals.
        progress: Show a progress bar.

    Raises:
        PromptError: For no traces, thoughts that are not whole, a text that does not fit the context.
        ModelError: For a model without thinking, or without peft.
        NonFiniteError: When the loss becomes NaN; what is on disk stays.
        FormatError: When the folder holds another repair.
    """
    check_thinks(model)
    if not len(traces):
        raise PromptError("there are no traces to repair on: nothing was picked")
    recipe = Recipe(steps, batch_size, lr, rank, alpha, loss_on, checkpoint_every, token_budget, seed)
    refusing, origin = with_refusals(model, traces, refusals, judged=judged, seed=seed, progress=progress)
    repairing = make_examples(model, refusing, loss_on)
    retained = make_examples(model, retain, loss_on) if retain is not None and len(retain) else []
    targets = lora_targets(model)
    about = {
        "base": model.identity, "chat": model.chat.provenance(), "dtype": str(model.dtype).removeprefix("torch."),
        "recipe": recipe.told(), "lora": {"rank": rank, "alpha": alpha, "targets": targets},
        "examples": {"repairing": _digest(repairing), "retained": _digest(retained), "n_repairing": len(repairing),
                     "n_retained": len(retained), "refusals": dict(origin)},
    }  # fmt: skip
    key = digest_json(about)
    folder = None if out is None else Path(out)
    counts = (len(repairing), len(retained), origin)
    if folder is not None and (folder / ABOUT).exists():
        known = read_about(folder)
        if known.get("key") != key:
            raise FormatError(
                f"{folder} holds a repair of another model, or with other examples or settings: give another folder, "
                "or delete it to start over"
            )
        return Repair(load_repair(model, folder), folder, tuple(known["losses"]), *counts, known)
    peft_model = adapted(model, rank, alpha, targets, seed)
    trainer = Trainer(model, peft_model, repairing, retained, recipe, key, folder)
    losses = trainer.run(progress)
    about |= {"key": key, "losses": losses, "versions": versions("peft")}
    if folder is not None:
        save_adapter(peft_model, model.name, folder, about)
        trainer.drop_checkpoint()
        about = read_about(folder)
    return Repair(as_model(model, peft_model), folder, tuple(losses), *counts, about)


def _digest(examples: Sequence[Example]) -> str:
    return digest_json([[list(e.ids), e.start] for e in examples])
