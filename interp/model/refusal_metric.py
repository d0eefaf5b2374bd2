"""A refusal score from the next-token logits alone, with refusal tokens found from the model's own answers.

`log(p) - log(1 - p)`, `p` being the probability that the first answer token opens a refusal (Arditi et al. 2024,
appendix on the refusal metric). Their tokens are typed per family; here they are the openings that the model's
refusals have and its compliances have not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from interp.errors import PromptError
from interp.stats import auroc
from interp.text.encoded import PromptLike

if TYPE_CHECKING:
    from interp.model.model import Model

_EPSILON = 1e-8


@dataclass(frozen=True)
class RefusalMetric:
    """Log-odds that the answer opens like a refusal.

    Attributes:
        ids: Token ids that open refusals.
        tokens: The same as text.
        mass: Mean probability of these tokens on refused and on complied prompts.
        auroc: How well the metric tells refused from complied prompts, on the prompts it was found from.
        n: Refused and complied prompts it was found from.
    """

    ids: tuple[int, ...]
    tokens: tuple[str, ...]
    mass: tuple[float, float]
    auroc: float
    n: tuple[int, int]

    def __call__(self, logits: Tensor) -> Tensor:
        """Score of next-token logits `[..., vocabulary]`; above 0 the model is about to refuse."""
        p = torch.softmax(logits.double(), -1)[..., list(self.ids)].sum(-1).clamp(max=1.0)
        return torch.log(p + _EPSILON) - torch.log(1 - p + _EPSILON)

    @classmethod
    def find(
        cls,
        model: Model,
        prompts: Sequence[PromptLike],
        refused: Sequence[bool],
        *,
        min_mass: float = 0.01,
        min_ratio: float = 3.0,
        min_each: int = 4,
    ) -> RefusalMetric:
        """Find the opening tokens from prompts whose answers have been judged.

        Args:
            model: The model.
            prompts: Prompts.
            refused: For each, whether the model refused.
            min_mass: Least mean probability of a token on refused prompts.
            min_ratio: How many times likelier it must be there than on the others.
            min_each: Fewest prompts of each kind.

        Raises:
            PromptError: When there are too few of a kind, or refusals open like compliances.
        """
        mask = np.asarray(refused, dtype=bool)
        if mask.shape != (len(prompts),):
            raise PromptError(f"{len(prompts)} prompts came with {mask.size} verdicts")
        yes, no = int(mask.sum()), int((~mask).sum())
        if min(yes, no) < min_each:
            raise PromptError(
                f"the refusal metric needs at least {min_each} refused and {min_each} complied prompts, but there "
                f"are {yes} and {no}"
            )
        logits = model.logits(prompts)
        p = torch.softmax(logits.double(), -1)
        on, off = p[torch.from_numpy(mask)].mean(0), p[torch.from_numpy(~mask)].mean(0)
        found = ((on >= min_mass) & (on > min_ratio * off)).nonzero()[:, 0]
        if not len(found):
            raise PromptError(
                "this model's refusals open with the same tokens as its compliances, so refusal cannot be read off "
                "the first token; judge its answers instead"
            )
        ids = tuple(int(i) for i in found[on[found].argsort(descending=True)])
        made = cls(ids, tuple(model.tokenizer.decode([i]) for i in ids), (0.0, 0.0), 0.0, (yes, no))
        mass = (float(on[list(ids)].sum()), float(off[list(ids)].sum()))
        return cls(ids, made.tokens, mass, auroc(made(logits).numpy(), mask), (yes, no))
