"""Muon for the hidden matrices, AdamW for the rest.

torch's own Muon runs Newton-Schulz in bf16, ten times slower than this on a CPU without bf16 arithmetic: here it is
fp32, and batched over matrices of one shape.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_STEPS = 5
_MOMENTUM = 0.95
_MATCH_ADAMW_RMS = 0.2
_WARMUP = 60
_CLIP = 1.0


def orthogonalise(gradients: Tensor) -> Tensor:
    """Nearest semi-orthogonal matrices to a stack [n, rows <= cols], by Newton-Schulz (Jordan et al. 2024, Muon)."""
    a, b, c = _COEFFICIENTS
    x = gradients / (gradients.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


class Muon:
    """Momentum, orthogonalised per matrix and scaled to AdamW's usual update size; decoupled weight decay."""

    def __init__(self, matrices: list[nn.Parameter], weight_decay: float) -> None:
        self.weight_decay = weight_decay
        shapes = sorted({tuple(p.shape) for p in matrices})
        self.groups = [[p for p in matrices if tuple(p.shape) == shape] for shape in shapes]
        self.momenta = [torch.zeros(len(group), *group[0].shape) for group in self.groups]

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Update every matrix from its `.grad`."""
        for group, momentum in zip(self.groups, self.momenta, strict=True):
            gradient = torch.stack([p.grad if p.grad is not None else torch.zeros_like(p) for p in group])
            momentum.lerp_(gradient, 1 - _MOMENTUM)
            update = gradient.lerp(momentum, _MOMENTUM)
            rows, cols = update.shape[1:]
            update = orthogonalise(update) if rows <= cols else orthogonalise(update.mT).mT
            size = lr * _MATCH_ADAMW_RMS * max(rows, cols) ** 0.5
            for parameter, change in zip(group, update, strict=True):
                parameter.mul_(1 - lr * self.weight_decay).add_(change, alpha=-size)


class Optimizer:
    """Muon on hidden matrices, AdamW on embeddings and norms; linear warm-up and linear decay to 5 %."""

    def __init__(
        self,
        model: nn.Module,
        lr: float,
        steps: int,
        *,
        weight_decay: float = 0.05,
        muon: bool = True,
        masks: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Train what requires a gradient; `masks`, by parameter name, confine its change to where they are 1."""
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        hidden = [p for name, p in named if muon and p.ndim == 2 and "embed" not in name]
        chosen = {id(p) for p in hidden}
        rest = [p for _, p in named if id(p) not in chosen]
        self.parameters = [p for _, p in named]
        self.masks = [(p, masks[name]) for name, p in named if masks and name in masks]
        self.lr, self.steps = lr, steps
        self.warmup = min(_WARMUP, max(1, steps // 5))
        self.muon = Muon(hidden, weight_decay) if hidden else None
        self.adamw = torch.optim.AdamW(rest, lr=lr, weight_decay=weight_decay, betas=(0.9, 0.95)) if rest else None

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        return self.lr * max(0.05, 1 - 0.95 * (step - self.warmup) / max(1, self.steps - self.warmup))

    def step(self, step: int) -> None:
        """Clip, update, and clear gradients."""
        for parameter, mask in self.masks:
            if parameter.grad is not None:
                parameter.grad *= mask
        nn.utils.clip_grad_norm_(self.parameters, _CLIP)
        lr = self.rate(step)
        if self.muon:
            self.muon.step(lr)
        if self.adamw:
            for group in self.adamw.param_groups:
                group["lr"] = lr
            self.adamw.step()
        for parameter in self.parameters:
            parameter.grad = None
