"""Router logits, taken inside the router, so that what is chosen follows from what an edit made of them.

A router module returns its logits together with the experts it has chosen already: changing its output changes nothing.
So its forward runs under a function mode that shows the result of its linear map, whatever the family makes of it then
(softmax, sigmoid, groups, renormalising).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode


@contextmanager
def tap_router(router: nn.Module, visit: Callable[[Tensor], Tensor]) -> Generator[None]:
    """Show a router's logits to `visit` while the context is open."""
    live: list[_Watch] = []

    def before(_module: Any, _args: Any) -> None:
        live.append(_Watch(visit))
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


class _Watch(TorchFunctionMode):
    def __init__(self, visit: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._visit = visit
        self._logits: Tensor | None = None
        self._masked: Tensor | None = None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        value = func(*args, **(kwargs or {}))
        if self._logits is None and func is functional.linear:
            self._logits = self._visit(value)
            masked = torch.isneginf(self._logits)
            self._masked = masked if bool(masked.any()) else None
            return self._logits
        if self._masked is not None and func in (Tensor.sigmoid, torch.sigmoid) and args[0] is self._logits:
            # A sigmoid sends minus infinity to 0, from where a correction bias could bring an expert back.
            return value.masked_fill(self._masked, float("-inf"))
        return value
