"""The training loop of a repair: steps of a fixed order, kept on disk, resumed with the same result.

What a step sees is a function of seed and step alone and dropout is off, so the number of the step is all there is of a
random state; the optimizer's is kept as tensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.errors import FormatError, NonFiniteError, PromptError
from interp.model.backends.private import path_of
from interp.model.batching import plan
from interp.model.check import logit_finish
from interp.model.model import Model
from interp.progress import progress_bar
from interp.tensorfile import read_tensors, write_tensors
from steering.repairs.adapters import adapter_state, set_adapter
from steering.repairs.examples import Example, LossOn, mean_losses, pad_examples

CHECKPOINT = "checkpoint.safetensors"
_ENTRY = "repair-checkpoint"
_FORMAT = "refusalkit/repair-checkpoint/1"
_CLIP = 1.0
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Recipe:
    """How an adapter is trained.

    Attributes:
        steps: Updates.
        batch_size: Repairing examples per update; as many retained ones come with them.
        lr: Learning rate of Adam, reached after a tenth of the steps, then falling linearly to 0.
        rank: Rank of the adapter.
        alpha: Its scale is alpha / rank.
        loss_on: Tokens that the loss is taken on, see `make_examples`.
        checkpoint_every: Steps between checkpoints.
        token_budget: Padded tokens that go through the model at a time; the update does not depend on it.
        seed: For the adapter's first weights and the order of examples.
    """

    steps: int = 40
    batch_size: int = 4
    lr: float = 1e-3
    rank: int = 8
    alpha: int = 16
    loss_on: LossOn = "response"
    checkpoint_every: int = 20
    token_budget: int = 4096
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "rank", "checkpoint_every", "token_budget"):
            if getattr(self, name) < 1:
                raise PromptError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("lr", "alpha"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise PromptError(f"{name}={value} must be a number above 0")

    def learning_rate(self, step: int) -> float:
        """Of a step, from 0."""
        warm = max(1, self.steps // 10)
        return self.lr * min((step + 1) / warm, (self.steps - step) / max(1, self.steps - warm + 1), 1.0)

    def told(self) -> dict[str, Any]:
        """What the result depends on: how often it is kept, and in what pieces, is left out."""
        return {k: v for k, v in asdict(self).items() if k not in ("checkpoint_every", "token_budget")}


@dataclass
class Trainer:
    """An adapter being trained.

    Attributes:
        model: The model that is repaired; not changed.
        peft_model: The copy with the adapter.
        repairing: Examples that repair.
        retained: Examples that keep the rest as it is; may be empty.
        recipe: How.
        key: Digest of everything that the result depends on.
        folder: Where checkpoints go; `None` for none.
        losses: Loss of every step so far.
    """

    model: Model
    peft_model: Any
    repairing: Sequence[Example]
    retained: Sequence[Example]
    recipe: Recipe
    key: str
    folder: Path | None = None
    losses: list[float] = field(default_factory=list[float])

    def __post_init__(self) -> None:
        hf = self.peft_model.get_base_model()
        self._backbone = hf.get_submodule(path_of(self.model.hf, self.model.arch.backbone))
        self._head = hf.get_output_embeddings()
        self._finish = logit_finish(hf)
        named = [(n, p) for n, p in self.peft_model.named_parameters() if p.requires_grad]
        self._names, self._weights = [n for n, _ in named], [p for _, p in named]
        self._optimizer = torch.optim.Adam(self._weights, lr=self.recipe.lr)

    def run(self, progress: bool = False) -> list[float]:
        """Train to the end, from the last checkpoint if there is one; the loss of every step.

        Raises:
            NonFiniteError: When the loss becomes NaN or infinite; the last checkpoint stays.
            FormatError: When the checkpoint is damaged, or of another repair.
        """
        self._resume()
        steps = self.recipe.steps
        with progress_bar("repairing", steps, progress) as advance:
            advance(len(self.losses))
            while len(self.losses) < steps:
                self._step(len(self.losses))
                advance(1)
                if len(self.losses) % self.recipe.checkpoint_every == 0 and len(self.losses) < steps:
                    self._keep()
        return self.losses

    def drop_checkpoint(self) -> None:
        """Take the checkpoint away, once the adapter is saved."""
        if self.folder is not None:
            (self.folder / CHECKPOINT).unlink(missing_ok=True)

    def batch(self, step: int) -> list[Example]:
        """What a step sees: each example once before any comes again, in an order of its own every time."""
        found: list[Example] = []
        for side, pool in enumerate((self.repairing, self.retained)):
            n = len(pool)
            for place in range(step * self.recipe.batch_size, (step + 1) * self.recipe.batch_size if n else 0):
                order = np.random.default_rng([self.recipe.seed, side, place // n]).permutation(n)
                found.append(pool[int(order[place % n])])
        return found

    def loss(self, examples: Sequence[Example]) -> Tensor:
        """Mean over examples of each one's mean loss over its tokens."""
        ids, taken = (x.to(self.model.device) for x in pad_examples(examples, self.model.pad_id))
        positions = torch.arange(ids.shape[1], device=ids.device)[None].expand_as(ids)
        # Right padding and no mask: what stands after a text cannot reach it in a causal model.
        hidden = self._backbone(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state
        before = torch.zeros_like(taken)
        before[:, :-1] = taken[:, 1:]
        # The head runs only where a loss is taken: at all tokens, logits would be most of the memory.
        return mean_losses(self._finish(self._head(hidden[before])), ids, taken).mean()

    def _step(self, step: int) -> None:
        examples = self.batch(step)
        for group in self._optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate(step)
        self._optimizer.zero_grad()
        total = 0.0
        for rows in plan([len(e) for e in examples], self.recipe.token_budget):
            with torch.enable_grad():
                part = self.loss([examples[i] for i in rows]) * (len(rows) / len(examples))
            total += float(part.detach())
            if not math.isfinite(total):
                kept = " The last checkpoint is kept." if self.folder is not None else ""
                raise NonFiniteError(
                    f"the loss became {total} at step {step + 1} of {self.recipe.steps}: give a lower lr than "
                    f"{self.recipe.lr:g}, or load the model with dtype='float32'.{kept}"
                )
            part.backward()  # pyright: ignore[reportUnknownMemberType]
        torch.nn.utils.clip_grad_norm_(self._weights, _CLIP)
        self._optimizer.step()  # pyright: ignore[reportUnknownMemberType]
        self.losses.append(total)

    def _keep(self) -> None:
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"adapter/{name}": value for name, value in adapter_state(self.peft_model).items()}
        for name, weight in zip(self._names, self._weights, strict=True):
            state: dict[str, Any] = self._optimizer.state[weight]
            tensors |= {f"{moment}/{name}": state[moment].detach().cpu().contiguous() for moment in _MOMENTS}
        about = {"format": _FORMAT, "key": self.key, "step": len(self.losses), "losses": self.losses}
        write_tensors(self.folder / CHECKPOINT, _ENTRY, about, tensors)

    def _resume(self) -> None:
        if self.folder is None or not (self.folder / CHECKPOINT).exists():
            return
        source = self.folder / CHECKPOINT
        about, tensors = read_tensors(source, _ENTRY, _FORMAT, {"key": str, "step": int, "losses": list})
        if about["key"] != self.key:
            raise FormatError(
                f"{source} belongs to a repair with another model, other examples or settings: give another folder, "
                "or delete it to start over"
            )
        steps, losses = about["step"], [float(v) for v in about["losses"]]
        parts = {"adapter": adapter_state(self.peft_model)} | {
            moment: dict(zip(self._names, self._weights, strict=True)) for moment in _MOMENTS
        }
        wanted = {f"{part}/{name}": v.shape for part, of in parts.items() for name, v in of.items()}
        if len(losses) != steps or {name: v.shape for name, v in tensors.items()} != wanted:
            raise FormatError(f"{source} is damaged: delete it to start over")
        set_adapter(self.peft_model, {name: tensors[f"adapter/{name}"] for name in parts["adapter"]}, str(source))
        for name, weight in zip(self._names, self._weights, strict=True):
            self._optimizer.state[weight] = {
                "step": torch.tensor(float(steps)),
                **{moment: tensors[f"{moment}/{name}"].to(weight.device) for moment in _MOMENTS},
            }
        self.losses = losses


def with_seed(recipe: Recipe, seed: int) -> Recipe:
    """The same recipe with another seed."""
    return replace(recipe, seed=seed)
