"""Issue 3: captured numbers are those of transformers, in memory and on disk. Speed: `make bench-capture`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

import interp
from interp.text.encoded import Encoded
from refusalkit.accept.rows import Rows, claim_row, value_row

LAST = (-5, -4, -3, -2, -1)
TOLERANCE = 1e-5
"""Largest difference in fp32, as a share of the largest value."""


def capture(progress: bool) -> Rows:
    """The organism's residual stream at the last five tokens, against transformers on one prompt after another."""
    model, prompts = interp.load("organism:chat"), interp.prompts("organism").test
    name = "capture organism:chat"
    ours = interp.capture(model, prompts, "resid_post", LAST, progress=progress).sel("resid_post")
    # A model of its own: transformers leaves hooks on one that was asked for hidden states.
    plain = AutoModelForCausalLM.from_pretrained(interp.organism.path("chat"), dtype=torch.float32).eval()
    alone = torch.stack([_hidden_states(plain, encoded) for encoded in model.encode(prompts)])
    with torch.inference_mode():
        final = plain.model.norm(ours[:, -1])
    yield value_row(name, "largest error, blocks before the last", _error(ours[:, :-1], alone[:, :-1]), "<=", TOLERANCE)
    yield value_row(name, "largest error, last block, normed as transformers does", _error(final, alone[:, -1]), "<=",
                    TOLERANCE, len(prompts))  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        stored = interp.capture(model, prompts, "resid_post", LAST, out=Path(folder) / "store")
        yield claim_row(name, "the store holds the same bits", torch.equal(stored.sel("resid_post"), ours))
        again = interp.open_store(Path(folder) / "store")
        again.verify()
        yield claim_row(name, "opened again, too", torch.equal(again.sel("resid_post", layer=3), ours[:, 3]))


@torch.inference_mode()
def _hidden_states(plain: Any, encoded: Encoded) -> Tensor:
    states = plain(torch.tensor([encoded.ids]), output_hidden_states=True).hidden_states[1:]
    return torch.stack([state[0, list(LAST)] for state in states])


def _error(ours: Tensor, reference: Tensor) -> float:
    return float((ours - reference).abs().max() / reference.abs().max())
