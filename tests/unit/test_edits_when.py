"""Conditional edits: each row of a mixed batch gets what it would get alone, and says why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import interp
from interp import edits
from interp.edits import DecisionLog, Reading, decide, for_prompts, when
from interp.errors import EditError, NonFiniteError
from tests.helpers.slow import PROMPTS, count_hooks, lively, slow_greedy, slow_read

WIDTH, STEPS = 48, 5


def vector(seed: int = 0, scale: float = 1.0) -> Tensor:
    return torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed)) * scale


V, A, B = vector(1, 3.0), vector(2), vector(3)
READ, WRITE = ("resid_post", 0), ("resid_mid", 2)


def along(axis: Tensor, above: float, name: str = "along", **changes: Any) -> Reading:
    def judge(x: Tensor) -> tuple[Tensor, Tensor]:
        score = x[:, 0, 0] @ axis
        return score, score > above

    fields: dict[str, Any] = {"site": READ[0], "layers": (READ[1],), "positions": ("t_inst",)} | changes
    return Reading(name, judge=judge, **fields)


def scores(axis: Tensor, position: str = "t_inst") -> list[float]:
    """By hand: one prompt at a time."""
    model = lively()
    return [
        float(slow_read(model.hf, "llama", e.ids)[READ[0]][READ[1], e.columns(position)[0]] @ axis)
        for e in model.encode(PROMPTS)
    ]


def between(values: list[float], n: int) -> float:
    """A threshold that n of the values are above."""
    order = sorted(values, reverse=True)
    return (order[n - 1] + order[n]) / 2


ADD = edits.add(V, site=WRITE[0], layer=WRITE[1])


def expected(acts: list[bool], phase: str = "both") -> list[list[int]]:
    """Every row run alone, without a cache, with the edit by hand or without it."""
    model, found = lively(), []
    for act, encoded in zip(acts, model.encode(PROMPTS), strict=True):

        def changes(n: int, act: bool = act) -> dict[Any, Any]:
            def change(x: Tensor) -> Tensor:
                moved = x + V
                return torch.cat([x[:, :n], moved[:, n:]], 1) if phase == "generation" else moved

            return {WRITE: change} if act else {}

        found.append(slow_greedy(model.hf, "llama", encoded.ids, STEPS, changes, model.chat.end_ids)[0])
    return found


@pytest.mark.parametrize("phase", ["both", "generation"])
def test_rows_of_a_mixed_batch_are_steered_where_the_condition_holds(phase: Any) -> None:
    model, values = lively(), scores(A)
    threshold = between(values, 2)
    edit = edits.add(V, site=WRITE[0], layer=WRITE[1], phase=phase)
    log = DecisionLog()
    written = model.generate(PROMPTS, max_new_tokens=STEPS, edits=when(along(A, threshold), edit, log=log))
    acts = [v > threshold for v in values]
    assert [list(c.ids) for c in written] == expected(acts, phase)
    assert log.decisions.acts.tolist() == acts and sum(acts) == 2
    np.testing.assert_allclose(log.decisions.scores[:, 0], values, rtol=1e-3, atol=1e-3)
    assert count_hooks(model.hf) == 0


def test_it_does_not_matter_which_rows_share_a_batch() -> None:
    model = lively()
    edit = when(along(A, between(scores(A), 2)), ADD)
    together = model.generate(PROMPTS, max_new_tokens=STEPS, edits=edit)
    apart = [model.generate(p, max_new_tokens=STEPS, edits=edit)[0] for p in PROMPTS]
    small = model.generate(PROMPTS, max_new_tokens=STEPS, edits=edit, batch_size=2)
    assert [c.ids for c in together] == [c.ids for c in apart] == [c.ids for c in small]
    sampled: dict[str, Any] = {"max_new_tokens": STEPS, "edits": edit, "temperature": 1.0, "seed": 1}
    assert [c.ids for c in model.generate(PROMPTS, **sampled)] == [
        c.ids for c in model.generate(PROMPTS, batch_size=1, **sampled)
    ]


def test_rules_join_conditions_as_logic_does() -> None:
    model = lively()
    one, two = along(A, between(scores(A), 2), "one"), along(B, between(scores(B, "t_post_inst"), 2), "two",
                                                              positions=("t_post_inst",))  # fmt: skip
    a = np.array(scores(A)) > between(scores(A), 2)
    b = np.array(scores(B, "t_post_inst")) > between(scores(B, "t_post_inst"), 2)
    for rule, truth in ((one & two, a & b), (one | two, a | b), (~one, ~a), (~(one | ~two), ~(a | ~b))):
        log = DecisionLog()
        model.logits(PROMPTS, edits=[when(rule, ADD, log=log)])
        assert log.decisions.acts.tolist() == truth.tolist()
        assert decide(model, PROMPTS, rule).acts.tolist() == truth.tolist()
    frame = decide(model, PROMPTS, one & two).to_frame()
    assert list(frame.columns) == ["prompt", "label", "acts", "one: score", "one: holds", "two: score", "two: holds"]
    assert frame["one: holds"].tolist() == a.tolist()


def test_readings_of_one_name_are_told_apart() -> None:
    rule = along(A, 0.0) & along(B, 0.0)
    assert decide(lively(), PROMPTS, rule).readings == ("along", "along (2)")


def test_a_condition_of_several_layers_waits_for_the_last() -> None:
    model = lively()

    def judge(x: Tensor) -> tuple[Tensor, Tensor]:
        assert x.shape[1:] == (2, 2, WIDTH)
        score = (x.mean((1, 2)) @ A).float()
        return score, score > 0

    rule = Reading("mean", "resid_post", (0, 1), ("t_inst", "t_post_inst"), judge)
    log = DecisionLog()
    model.logits(PROMPTS, edits=[when(rule, ADD, log=log)])
    by_hand = []
    for e in model.encode(PROMPTS):
        read = slow_read(model.hf, "llama", e.ids)["resid_post"][:2]
        by_hand.append(float(read[:, [e.columns("t_inst")[0], e.n_prompt - 1]].mean((0, 1)) @ A))
    np.testing.assert_allclose(log.decisions.scores[:, 0], by_hand, rtol=1e-3, atol=1e-3)


def test_decided_anew_at_every_token_it_acts_on_those_tokens_alone() -> None:
    model = lively()
    threshold = float(np.median(scores(A)))
    log = DecisionLog()
    written = model.generate(
        PROMPTS, max_new_tokens=STEPS, edits=when(along(A, threshold), ADD, decide="token", log=log)
    )
    for encoded, completion in zip(model.encode(PROMPTS), written, strict=True):
        holds: dict[str, Tensor] = {}

        def note(x: Tensor, holds: dict[str, Tensor] = holds) -> Tensor:
            holds["now"] = (x @ A > threshold)[..., None]
            return x

        def act(x: Tensor, holds: dict[str, Tensor] = holds) -> Tensor:
            return torch.where(holds["now"], x + V, x)

        changes = {READ: note, WRITE: act}
        slow, _ = slow_greedy(
            model.hf, "llama", encoded.ids, STEPS, lambda _n, changes=changes: changes, model.chat.end_ids
        )
        assert list(completion.ids) == slow
    table = log.to_frame()
    longest = max(len(e) for e in model.encode(PROMPTS))
    assert set(table.columns) == {"row", "token", "acts", "along: score", "along: holds"}
    assert 0 < table["acts"].mean() < 1 and table["token"].max() >= longest


def test_captures_and_given_answers_see_the_same_decisions() -> None:
    model, values = lively(), scores(A)
    threshold = between(values, 2)
    acts = [v > threshold for v in values]
    traces = [interp.Trace(p, answer="one two") for p in PROMPTS]
    logits = model.logits(traces, edits=[when(along(A, threshold), ADD)])
    for row, (act, encoded) in enumerate(zip(acts, model.encode(traces), strict=True)):
        slow = slow_read(model.hf, "llama", encoded.ids, {WRITE: lambda x: x + V} if act else {})["logits"][-1]
        torch.testing.assert_close(logits[row], slow, rtol=1e-4, atol=1e-4)


def test_nothing_is_kept_from_one_run_to_the_next() -> None:
    model = lively()
    edit = when(along(A, between(scores(A), 2)), ADD)
    before = model.logits(PROMPTS, edits=[edit])
    model.logits(["Something else entirely, and longer than the others"] * 6, edits=[edit])
    model.generate(PROMPTS[::-1], max_new_tokens=3, edits=edit)
    assert torch.equal(model.logits(PROMPTS, edits=[edit]), before)


def test_a_condition_that_holds_nowhere_changes_nothing_and_is_no_error() -> None:
    model = lively()
    plain = model.generate(PROMPTS, max_new_tokens=STEPS)
    never = model.generate(PROMPTS, max_new_tokens=STEPS, edits=when(along(A, 1e9), ADD))
    nobody = model.generate(PROMPTS, max_new_tokens=STEPS, edits=for_prompts(ADD, [False] * 4))
    assert [c.ids for c in plain] == [c.ids for c in never] == [c.ids for c in nobody]


def test_what_is_decided_before_acts_on_those_prompts_and_can_be_permuted() -> None:
    model, values = lively(), scores(A)
    found = decide(model, PROMPTS, along(A, between(values, 1)))
    assert found.acts.sum() == 1
    written = model.generate(PROMPTS, max_new_tokens=STEPS, edits=for_prompts(ADD, found.acts))
    assert [list(c.ids) for c in written] == expected(found.acts.tolist())
    drawn = [found.permuted(seed).acts.tolist() for seed in range(8)]
    assert all(sum(acts) == 1 for acts in drawn) and any(acts != found.acts.tolist() for acts in drawn)


def test_an_edit_before_its_condition_says_how_to_decide_in_a_pass_before() -> None:
    model = lively()
    early = edits.add(V, site="resid_pre", layer=0)
    gated = when(along(A, 0.0), [early, ADD])
    assert not gated.in_order(model.arch)
    with pytest.raises(EditError, match=r"resid_pre of layer 0.*resid_post of layer 0.*for_prompts"):
        model.logits(PROMPTS, edits=[gated])
    here = edits.add(V, site="resid_post", layer=0)  # where it reads: reading comes first
    assert when(along(A, 0.0), here).in_order(model.arch)


def test_a_beam_search_of_hugging_face_is_refused_since_its_rows_change_places() -> None:
    model = lively()
    ids = torch.tensor([model.encode(PROMPTS[0])[0].ids])
    for edit in (when(along(A, 0.0), ADD), when(along(A, 0.0), ADD, decide="token"), for_prompts(ADD, [True])):
        with pytest.raises(EditError, match=r"model\.(run or model\.)?generate"), model.edited(edit):
            model.hf.generate(ids, max_new_tokens=3, num_beams=2, do_sample=False, pad_token_id=0)
    assert count_hooks(model.hf) == 0


def test_mistakes_are_named() -> None:
    model = lively()
    with pytest.raises(EditError, match="single tokens"):
        model.logits(PROMPTS, edits=[when(along(A, 0.0, positions=("post_inst",)), ADD)])
    with pytest.raises(EditError, match="single tokens"):
        decide(model, PROMPTS, along(A, 0.0, positions=("inst",)))
    with pytest.raises(EditError, match="several tokens"):
        model.logits(PROMPTS, edits=[when(along(A, 0.0, positions=("t_inst", "last")), ADD, decide="token")])
    with pytest.raises(EditError, match="by 'prompt' or by 'token'"):
        when(along(A, 0.0), ADD, decide="word")  # pyright: ignore[reportArgumentType]
    with pytest.raises(EditError, match="no edits"):
        when(along(A, 0.0), [])
    with pytest.raises(EditError, match="for 2 prompts"):
        model.logits(PROMPTS, edits=[for_prompts(ADD, [True, False])])
    with pytest.raises(EditError, match="one boolean per prompt"):
        for_prompts(ADD, [0.5, 1.0])
    with pytest.raises(EditError, match="by name"):
        along(A, 0.0, positions=("all",))
    with pytest.raises(EditError, match="no decision for every prompt"):
        _ = DecisionLog().decisions
    with pytest.raises(NonFiniteError, match="not finite"):
        along(A, 0.0).ask(torch.full((1, 1, 1, WIDTH), float("nan")))
    with pytest.raises(EditError, match="judged 1 rows"):
        Reading("bad", "resid_post", (0,), ("last",), lambda x: (x, x > 0)).ask(torch.ones(1, 1, 1, WIDTH))


def test_a_control_keeps_the_condition_and_turns_the_vector() -> None:
    model = lively()
    rule = along(A, 0.0)
    (drawn,) = edits.random_like([when(rule, ADD)], model.arch, seed=0)
    assert drawn.condition is rule and not torch.allclose(drawn.inner[0].vector, V)
