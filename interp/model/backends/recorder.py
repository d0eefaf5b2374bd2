"""What edits and reads do to tensors, written down as torch operations, for a forward that happens elsewhere.

A remote trace may hold torch operations and plain values only, no functions of ours. So a visit is run here on zeros
first, while a dispatch mode writes down every operation that depends on the model's values. Copies into a buffer of
ours are the reads: they become values to be sent back, and are made when these have come.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from interp.errors import EditError

Instruction = tuple[Any, ...]
"""Built-in types and tensors only. A string that begins with `%` names a value of the model's; `%device` is where its
values are."""


class Recorder(TorchDispatchMode):
    """Writes down what is done to tracked tensors.

    Attributes:
        program: Instructions: `("op", name, args, kwargs, results)`, `("save", value)` and what is added by hand.
        reads: Buffers to be filled with what was saved, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.program: list[Instruction] = []
        self.reads: list[Tensor] = []
        self._names: dict[int, str] = {}
        self._kept: list[Tensor] = []

    def track(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A stand-in for a value of the model's."""
        stand_in = torch.zeros(tuple(shape), dtype=dtype)
        self._name(stand_in)
        return stand_in

    def name(self, x: Tensor) -> str | Tensor:
        """What stands for a tensor in the program: a name when tracked, else itself."""
        return self._names.get(id(x), x)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation on the stand-ins, and write it down when one of them is among its arguments."""
        del types
        kwargs = kwargs or {}
        tracked = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor) and id(x) in self._names]
        if not tracked:
            return func(*args, **kwargs)
        if func is torch.ops.aten.copy_.default and id(args[0]) not in self._names:
            self.program.append(("save", self.name(args[1])))
            self.reads.append(args[0])
            return args[0]
        # Constants as they are now: a buffer may be used again.
        written = tree_map(lambda x: self._argument(x), (args, kwargs))
        result = func(*args, **kwargs)
        several = list(result) if isinstance(result, tuple | list) else [result]
        if not all(isinstance(x, Tensor) for x in several):  # a number or a truth value
            raise EditError(
                "this edit decides by the values it meets, which a remote trace cannot: make it of torch operations "
                "alone, or run it with backend='hooks'"
            )
        names = [self._name(x) for x in several]
        self.program.append(("op", str(func).removeprefix("aten."), *written, names))
        return result

    def _argument(self, x: Any) -> Any:
        if isinstance(x, Tensor):
            return self._names.get(id(x)) or x.detach().clone()
        return "%device" if isinstance(x, torch.device) else x

    def _name(self, x: Tensor) -> str:
        if id(x) not in self._names:
            self._names[id(x)] = f"%{len(self._names)}"
            self._kept.append(x)  # an id stays taken for as long as its tensor lives
        return self._names[id(x)]
