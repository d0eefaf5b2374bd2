"""An edit that changes nothing and writes down what every site shows, token by token, however a batch is padded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from interp.model.batch import Cells
from interp.model.ops import Op


@dataclass(eq=False)
class Recorder:
    """Notes `rows[site, layer][row]`: one value for every prompt token, then one for every generated token.

    Put it last among the edits. `k` and `v` are noted as the latest step shows them, which is the whole history (or
    what a sliding cache keeps of it); of `pattern`, only the prompt's.
    """

    sites: Sequence[str]
    rows: dict[tuple[str, int], dict[int, list[Tensor]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )

    def ops(self, arch: Any) -> list[Op]:
        found = []
        for site in self.sites:
            phase = "prompt" if site == "pattern" else "both"
            for layer in arch.layers_with(site):
                note = self._note(site, layer, arch.n_heads)
                found.append(Op(site, layer, note, ("prompt",), phase, self))
        return found

    def _note(self, site: str, layer: int, n_heads: int) -> Any:
        def change(x: Tensor, cells: Cells | None) -> Tensor:
            assert cells is not None
            kept = self.rows[site, layer]
            if site in ("k", "v"):
                for row in set(cells.rows.tolist()):
                    kept[row].clear()
            order = sorted(range(len(x)), key=lambda i: (int(cells.places[i]) < 0, int(cells.places[i])))
            for i in order:
                value = x[i]
                if site == "pattern":  # keys are columns: those of the padding go
                    value = value.view(n_heads, -1)[:, int(cells.pads[i]) :]
                kept[int(cells.rows[i])].append(value.detach().float().cpu().clone())
            return x

        return change

    def of(self, site: str, layer: int, row: int) -> Tensor:
        return torch.stack(self.rows[site, layer][row])
