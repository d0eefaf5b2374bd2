"""The refusal metric: log-odds of the opening tokens, which are found from the model's own refusals."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from interp.errors import PromptError
from interp.model.refusal_metric import RefusalMetric
from tests.helpers.slow import lively

WORDS = ["Sure", "I", "Sorry", "No", "Here", "The"]


def metric(*ids: int) -> RefusalMetric:
    return RefusalMetric(ids, tuple(WORDS[i] for i in ids), (1.0, 0.0), 1.0, (4, 4))


def stub(rows: list[list[float]]) -> Any:
    """A model whose next-token probabilities are known."""
    logits = torch.tensor(rows).clamp(min=1e-12).log()
    return SimpleNamespace(
        logits=lambda prompts: logits[: len(prompts)], tokenizer=SimpleNamespace(decode=lambda ids: WORDS[ids[0]])
    )


def log_odds(p: float) -> float:
    return math.log(p + 1e-8) - math.log(1 - p + 1e-8)


def test_known_probabilities_give_known_log_odds() -> None:
    p = torch.tensor([[0.5, 0.1, 0.2, 0.1, 0.06, 0.04], [0.01, 0.6, 0.3, 0.05, 0.02, 0.02]])
    got = metric(1, 2)(p.log())
    assert got.shape == (2,) and got.dtype == torch.float64
    assert got.tolist() == pytest.approx([log_odds(0.3), log_odds(0.9)], rel=1e-5)
    assert got[0] < 0 < got[1]


def test_a_constant_added_to_the_logits_changes_nothing() -> None:
    logits = torch.randn(3, 6, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(metric(1, 3)(logits), metric(1, 3)(logits + 7))


def test_certainty_stays_finite() -> None:
    logits = torch.full((2, 6), -1e4)
    logits[0, 1], logits[1, 0] = 1e4, 1e4
    sure, never = metric(1, 2)(logits).tolist()
    assert sure == pytest.approx(-math.log(1e-8), abs=1e-3)
    assert never == pytest.approx(math.log(1e-8), abs=1e-3)
    assert math.isfinite(float(metric(*range(6))(torch.randn(1, 6)))), "every token is an opening"


def test_leading_axes_are_kept() -> None:
    assert metric(0)(torch.randn(2, 5, 6)).shape == (2, 5)


REFUSING = [0.04, 0.5, 0.3, 0.1, 0.03, 0.03]
ANSWERING = [0.5, 0.1, 0.02, 0.001, 0.349, 0.03]


def test_the_openings_of_refusals_are_found_most_likely_first() -> None:
    found = RefusalMetric.find(stub([REFUSING] * 4 + [ANSWERING] * 5), ["x"] * 9, [True] * 4 + [False] * 5)
    assert found.ids == (1, 2, 3)
    assert found.tokens == ("I", "Sorry", "No")
    assert found.mass == pytest.approx((0.9, 0.121), rel=1e-5)
    assert found.auroc == 1.0
    assert found.n == (4, 5)


def test_a_token_common_to_both_or_rare_in_refusals_is_left_out() -> None:
    refusing, answering = [0.3, 0.3, 0.391, 0.009, 0, 0], [0.6, 0.2, 0.2, 0, 0, 0]
    model, flags = stub([refusing] * 4 + [answering] * 4), [True] * 4 + [False] * 4
    with pytest.raises(PromptError, match="open with the same tokens"):
        RefusalMetric.find(model, ["x"] * 8, flags)
    assert RefusalMetric.find(model, ["x"] * 8, flags, min_mass=0.005).ids == (3,)
    assert RefusalMetric.find(model, ["x"] * 8, flags, min_ratio=1.9).ids == (2,)


def test_refusals_that_open_like_compliances_are_an_error_that_says_what_to_do() -> None:
    with pytest.raises(PromptError, match="judge its answers instead"):
        RefusalMetric.find(stub([ANSWERING] * 8), ["x"] * 8, [True] * 4 + [False] * 4)


@pytest.mark.parametrize("yes", [0, 3, 6, 9])
def test_too_few_of_either_kind_is_an_error_with_both_counts(yes: int) -> None:
    flags = [True] * yes + [False] * (9 - yes)
    with pytest.raises(PromptError, match=f"there are {yes} and {9 - yes}"):
        RefusalMetric.find(stub([REFUSING] * 9), ["x"] * 9, flags)


def test_verdicts_that_do_not_match_the_prompts_are_an_error() -> None:
    with pytest.raises(PromptError, match="9 prompts came with 8 verdicts"):
        RefusalMetric.find(stub([REFUSING] * 9), ["x"] * 9, [True, False] * 4)


def test_on_a_model_it_reads_the_next_token_after_each_prompt() -> None:
    model = lively()
    prompts = [f"{word} {i}" for i, word in enumerate(["how", "tell me", "x", "what is the sea?"] * 2)]
    flags = [True] * 4 + [False] * 4
    logits: Tensor = model.logits(prompts)
    p = torch.softmax(logits.double(), -1)
    on, off = p[:4].mean(0), p[4:].mean(0)
    wanted = {i for i in range(p.shape[1]) if on[i] >= 1e-4 and on[i] > 1.02 * off[i]}
    assert wanted
    found = RefusalMetric.find(model, prompts, flags, min_mass=1e-4, min_ratio=1.02)
    assert set(found.ids) == wanted
    assert found.mass[0] == pytest.approx(float(on[list(wanted)].sum()))
    assert found.mass[0] > found.mass[1]
