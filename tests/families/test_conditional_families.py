"""Every family: conditions and windows give a row of a padded batch what it gets alone."""

from __future__ import annotations

import pytest
import torch

import interp
from interp import edits
from tests.helpers.slow import PROMPTS, loaded
from tests.helpers.tiny import FAMILIES

STEPS = 5


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_are_steered_in_a_batch_as_they_are_alone(family: str) -> None:
    model = loaded(family)
    source = torch.Generator().manual_seed(0)
    moved, axis = torch.randn(model.d_model, generator=source) * 5, torch.randn(model.d_model, generator=source)
    read = interp.capture(model, PROMPTS, "resid_post", "t_inst", [0]).sel("resid_post", 0, "t_inst").float().cpu()
    threshold = float((read @ axis).sort().values[1:3].mean())

    def judge(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        score = x[:, 0, 0] @ axis.to(x)
        return score, score > threshold

    rule = edits.Reading("half", "resid_post", (0,), ("t_inst",), judge)
    acts = edits.decide(model, PROMPTS, rule).acts
    assert acts.sum() == 2
    plain = [c.ids for c in model.generate(PROMPTS, max_new_tokens=STEPS)]
    add = edits.add(moved, site="resid_post", layer=1)
    for edit in (add, edits.during(add, 1, 4, decay=0.5)):
        together = [c.ids for c in model.generate(PROMPTS, max_new_tokens=STEPS, edits=edits.when(rule, edit))]
        alone = [
            model.generate(p, max_new_tokens=STEPS, edits=edit if act else ())[0].ids
            for p, act in zip(PROMPTS, acts, strict=True)
        ]
        assert together == alone
        assert together != plain
