"""A router's logits and choice, taken inside the router, so that what is chosen follows from what an edit made of them.

A router module returns its logits together with the experts it has chosen already: changing its output changes nothing.
So its forward runs under a function mode that shows the result of its linear map, whatever the family makes of it then
(softmax, sigmoid, groups, renormalising), and the scores that it takes its top-k of.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from interp.errors import SiteError

_Show = Callable[[Tensor], Tensor]


@contextmanager
def tap_router(router: nn.Module, logits: _Show | None, choice: _Show | None = None) -> Generator[None]:
    """Show what a router computes while the context is open.

    Args:
        router: The module.
        logits: Shown the logits `[tokens, n_experts]`. Where it returns minus infinity, the expert is kept out of the
            choice.
        choice: Shown the scores that the experts are chosen by `[tokens, n_experts]`: what it makes of them concerns
            the choice only, and the chosen experts' weights are still those of the scores as they were.
    """
    live: list[_Watch] = []

    def before(_module: Any, _args: Any) -> None:
        live.append(_Watch(logits, choice))
        live[-1].__enter__()

    def after(_module: Any, _args: Any, _output: Any) -> None:
        live.pop().__exit__(None, None, None)

    handles = [
        router.register_forward_pre_hook(before),
        router.register_forward_hook(after, always_call=True),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        while live:
            live.pop().__exit__(None, None, None)


def chosen_experts(router: nn.Module, logits: Tensor, d_model: int) -> Tensor:
    """The experts `[tokens, top_k]` that a router chooses on given logits `[tokens, n_experts]`."""
    weight = next(router.parameters())
    unread = torch.zeros(1, d_model, dtype=weight.dtype, device=logits.device).expand(len(logits), d_model)
    with _Watch(lambda _: logits):
        found = router.forward(unread)
    for value in found:
        if isinstance(value, Tensor) and not value.is_floating_point():
            return value
    raise SiteError(f"{type(router).__name__} does not return the experts that it chooses")


class _Watch(TorchFunctionMode):
    def __init__(self, show: _Show | None, choice: _Show | None = None) -> None:
        super().__init__()
        self._show = show
        self._choice = choice
        self._logits: Tensor | None = None
        self._masked: Tensor | None = None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        options = kwargs or {}
        if self._choice and self._logits is not None and func in (torch.topk, Tensor.topk):
            return self._chosen(self._choice, func, args, options)
        value = func(*args, **options)
        if self._logits is None and func is functional.linear:
            self._logits = logits = self._show(value) if self._show else value
            masked = torch.isneginf(logits)
            self._masked = masked if bool(masked.any()) else None
            return logits
        if self._masked is not None and func in (Tensor.sigmoid, torch.sigmoid) and args[0] is self._logits:
            # A sigmoid sends minus infinity to 0, from where a correction bias could bring an expert back.
            return value.masked_fill(self._masked, float("-inf"))
        return value

    def _chosen(self, choice: _Show, func: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        assert self._logits is not None
        scores = args[0]
        # Other shapes are groups, of which some are chosen first.
        new = choice(scores) if scores.shape == self._logits.shape else scores
        found = func(new, *args[1:], **options)
        if new is scores:
            return found
        return torch.return_types.topk((scores.gather(-1, found.indices), found.indices))
