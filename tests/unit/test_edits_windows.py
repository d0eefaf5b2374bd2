"""Windows and rotations: a cached, padded batch gives what a hook by hand gives on every text run anew."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import interp
from interp import edits
from interp.errors import DirectionError, EditError
from tests.helpers.slow import PROMPTS, lively, loaded, slow_greedy, slow_read

CLOSE: dict[str, float] = {"rtol": 1e-4, "atol": 1e-4}
WIDTH, STEPS = 48, 5


def vector(seed: int = 0, scale: float = 1.0) -> Tensor:
    return torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed)) * scale


V, A, B = vector(1, 3.0), vector(2), vector(3)
SITE = ("resid_mid", 1)


def adding(**where: Any) -> Any:
    return edits.add(V, site=SITE[0], layer=SITE[1], **where)


def by_hand(weight: Callable[[int, int], float], change: Callable[[Tensor], Tensor] = lambda x: x + V) -> Any:
    """Changes for `slow_greedy`: of a change, each token gets the share `weight(column, n_prompt)`."""

    def changes(n_prompt: int) -> dict[Any, Any]:
        def apply(x: Tensor) -> Tensor:
            share = torch.tensor([weight(t, n_prompt) for t in range(x.shape[1])])[:, None]
            return x + share * (change(x) - x)

        return {SITE: apply}

    return changes


WINDOWS: dict[str, tuple[dict[str, Any], Callable[[int], float]]] = {
    "from the third": ({"start": 2}, lambda n: float(n >= 2)),
    "the second to the fourth": ({"start": 1, "stop": 4}, lambda n: float(1 <= n < 4)),
    "less and less": ({"decay": 0.5}, lambda n: 0.5**n),
    "less and less from the second": ({"start": 1, "decay": 0.5}, lambda n: 0.5 ** (n - 1) if n >= 1 else 0.0),
}


@pytest.mark.parametrize(
    ("case", "phase"), list(zip(WINDOWS, ["both", "generation", "generation", "both"], strict=True))
)
def test_a_window_of_generated_tokens_equals_a_hook_by_hand_without_a_cache(case: str, phase: Any) -> None:
    options, share = WINDOWS[case]
    model = lively()
    written = model.generate(PROMPTS, max_new_tokens=STEPS, edits=edits.during(adding(phase=phase), **options))
    whole = model.generate(PROMPTS, max_new_tokens=STEPS, edits=adding(phase=phase))
    prompt = 1.0 if phase == "both" else 0.0
    for encoded, completion in zip(model.encode(PROMPTS), written, strict=True):
        hand = by_hand(lambda t, n: share(t - n) if t >= n else prompt)
        slow, _ = slow_greedy(model.hf, "llama", encoded.ids, STEPS, hand, model.chat.end_ids)
        assert list(completion.ids) == slow
    assert [c.ids for c in written] != [c.ids for c in whole], "the window did nothing"


def test_a_window_ends_in_each_row_at_its_own_end_token() -> None:
    model = lively()
    plain = model.generate(PROMPTS, max_new_tokens=STEPS)
    ends = [c.ids[1] for c in plain[:2]]  # tokens that some rows do write
    written = model.generate(PROMPTS, max_new_tokens=STEPS, edits=edits.during(adding(phase="generation"), until=ends))
    for encoded, completion in zip(model.encode(PROMPTS), written, strict=True):
        tokens: list[int] = []
        for _ in range(STEPS):
            first = next((i for i, t in enumerate(tokens) if t in ends), STEPS)
            hand = by_hand(lambda t, n, first=first: float(0 <= t - n < first))
            ids = encoded.ids + tuple(tokens)
            changes = hand(len(encoded.ids))
            tokens.append(int(slow_read(model.hf, "llama", ids, changes)["logits"][-1].argmax()))
            if tokens[-1] in model.chat.end_ids:
                break
        assert list(completion.ids) == tokens


def test_a_given_answer_is_edited_as_one_that_is_written() -> None:
    """Right padding, one forward: the columns of a trace's answer are the numbers of its tokens."""
    model = loaded()
    traces = [interp.Trace(p, answer=a) for p, a in zip(PROMPTS, ("one two three", "a", "x y", "z"), strict=True)]
    end = model.encode(traces[0]).pop().ids[-2]
    for options, share in (
        ({"start": 1, "stop": 3}, lambda n, _: float(1 <= n < 3)),
        ({"until": end}, lambda n, ids: float(end not in ids[: n + 1])),
    ):
        edit = edits.during(adding(phase="both"), **options)
        logits = model.logits(traces, edits=[edit])
        for row, encoded in enumerate(model.encode(traces)):
            answer = encoded.ids[encoded.n_prompt :]
            hand = by_hand(lambda t, n, share=share, answer=answer: 1.0 if t < n else share(t - n, answer))
            slow = slow_read(model.hf, "llama", encoded.ids, hand(encoded.n_prompt))["logits"][-1]
            torch.testing.assert_close(logits[row], slow, **CLOSE)


def test_values_in_the_cache_are_changed_at_every_step_for_the_windows_tokens_alone() -> None:
    """The cache keeps values unedited, so that each step edits the whole history again."""
    hf = copy.deepcopy(lively().hf)
    hf.set_attn_implementation("eager")  # the reference changes the family's own eager attention
    model = interp.load(hf, lively().tokenizer)
    adds = edits.add(vector(4, 8.0)[: model.width("v", (), (1,))], site="v", layer=1, phase="generation")
    edit = edits.during(adds, start=1, stop=3)
    written = model.generate(PROMPTS, max_new_tokens=STEPS, edits=edit)
    for encoded, completion in zip(model.encode(PROMPTS), written, strict=True):

        def changes(n: int) -> dict[Any, Any]:
            def change(x: Tensor) -> Tensor:
                picked = torch.tensor([float(1 <= t - n < 3) for t in range(x.shape[1])])
                return x + picked[:, None] * adds.vector

            return {("v", 1): change}

        slow, _ = slow_greedy(model.hf, "llama", encoded.ids, STEPS, changes, model.chat.end_ids)
        assert list(completion.ids) == slow
    whole = model.generate(PROMPTS, max_new_tokens=STEPS, edits=adds)
    assert [c.ids for c in whole] != [c.ids for c in written]


def test_sampling_does_not_depend_on_the_batch_under_a_window() -> None:
    model = lively()
    edit = edits.during(adding(phase="both"), stop=3, decay=0.5)
    options: dict[str, Any] = {"max_new_tokens": STEPS, "temperature": 1.0, "seed": 3, "edits": edit}
    together = model.generate(PROMPTS, **options)
    apart = model.generate(PROMPTS, batch_size=1, **options)
    assert [c.ids for c in together] == [c.ids for c in apart]


def test_windows_nest() -> None:
    model = lively()
    once = edits.during(adding(phase="generation"), start=1, stop=3)
    twice = edits.during(edits.during(adding(phase="generation"), start=1), stop=3)
    run = [[c.ids for c in model.generate(PROMPTS, max_new_tokens=STEPS, edits=e)] for e in (once, twice)]
    assert run[0] == run[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": -1}, "no window"), ({"start": 3, "stop": 3}, "no window"), ({"decay": 0.0}, "decay"),
        ({"decay": 1.5}, "decay"), ({}, "whole answer"),
    ],
)  # fmt: skip
def test_a_window_that_is_none_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(EditError, match=message):
        edits.during(adding(phase="both"), **options)


def test_a_window_that_no_token_meets_is_an_error() -> None:
    model = lively()
    with pytest.raises(EditError, match="in its window"):
        model.generate(PROMPTS, max_new_tokens=3, edits=edits.during(adding(phase="generation"), start=10))
    with pytest.raises(EditError, match="act on the prompt alone"):
        model.generate(PROMPTS, max_new_tokens=3, edits=edits.during(adding(positions="t_inst"), start=1))
    with pytest.raises(EditError, match="no edits"):
        edits.during([], start=1)


def test_a_forward_started_elsewhere_cannot_have_a_window() -> None:
    model = loaded()
    ids = torch.tensor([model.encode(PROMPTS[0])[0].ids])
    edit = edits.during(adding(phase="both"), start=1)
    with pytest.raises(EditError, match=r"model\.generate"), model.edited(edit):
        model.hf.generate(ids, max_new_tokens=3, num_beams=2, do_sample=False, pad_token_id=0)


# --- beams ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [True, False], ids=["padded left", "one row"])
def test_beams_of_hugging_face_follow_an_edit_as_a_hook_by_hand_without_a_cache(left: bool) -> None:
    """Rows change places in a beam search; an edit that is the same for every row does not mind."""
    from tests.helpers.slow import hooked

    model = lively()
    texts = [e.ids for e in model.encode(PROMPTS[:3] if left else PROMPTS[1:2])]
    width = max(map(len, texts))
    ids = torch.tensor([(0,) * (width - len(t)) + t for t in texts])
    mask = torch.tensor([[0] * (width - len(t)) + [1] * len(t) for t in texts])
    options: dict[str, Any] = {
        "attention_mask": mask, "max_new_tokens": 4, "num_beams": 3, "do_sample": False, "pad_token_id": 0
    }  # fmt: skip
    with model.edited(adding(), edits.ablate(A, sites="resid_post", layers=2)):
        ours = model.hf.generate(ids, **options)
    unit = A / A.norm()
    changes: dict[Any, Any] = {SITE: lambda x: x + V, ("resid_post", 2): lambda x: x - (x @ unit)[..., None] * unit}
    with hooked(model.hf, "llama", changes):
        slow = model.hf.generate(ids, use_cache=False, **options)
    assert ours.tolist() == slow.tolist()
    assert ours.tolist() != model.hf.generate(ids, **options).tolist()


# --- rotation ---------------------------------------------------------------------------------------------------------


def turned(x: Tensor, degrees: float) -> Tensor:
    """By hand: the part in the plane, token by token, replaced by one of its length at the angle."""
    first = A / A.norm()
    second = B - (B @ first) * first
    second = second / second.norm()
    out = x.clone()
    flat = out.reshape(-1, x.shape[-1])
    for i, row in enumerate(flat):
        a, b = float(row @ first), float(row @ second)
        length, angle = (a * a + b * b) ** 0.5, torch.deg2rad(torch.tensor(degrees))
        flat[i] = row - a * first - b * second + length * (torch.cos(angle) * first + torch.sin(angle) * second)
    return flat.view_as(x)


@pytest.mark.parametrize("degrees", [0.0, 200.0])
def test_a_rotation_equals_one_by_hand_and_keeps_lengths(degrees: float) -> None:
    model = lively()
    edit = edits.rotate(A, B, degrees, site=SITE[0], layer=SITE[1])
    written = model.generate(PROMPTS, max_new_tokens=STEPS, edits=edit)
    hand = by_hand(lambda _t, _n: 1.0, lambda x: turned(x, degrees))
    for encoded, completion in zip(model.encode(PROMPTS), written, strict=True):
        slow, _ = slow_greedy(model.hf, "llama", encoded.ids, STEPS, hand, model.chat.end_ids)
        assert list(completion.ids) == slow
    plain = interp.capture(model, PROMPTS, SITE[0], layers=1).sel()
    after = interp.capture(model, PROMPTS, SITE[0], layers=1, edits=[edit]).sel()
    torch.testing.assert_close(after.norm(dim=-1), plain.norm(dim=-1), **CLOSE)
    assert not torch.allclose(after, plain)


def test_a_rotation_of_what_is_no_plane_is_refused() -> None:
    with pytest.raises(DirectionError, match="no plane"):
        edits.rotate(A, -2 * A, 10, site="resid_post", layer=0)
    with pytest.raises(DirectionError, match="widths"):
        edits.rotate(A, torch.ones(5), 10, site="resid_post", layer=0)
    with pytest.raises(DirectionError, match="non-zero"):
        edits.rotate(A, torch.zeros(WIDTH), 10, site="resid_post", layer=0)
    with pytest.raises(EditError, match="finite"):
        edits.rotate(A, B, float("nan"), site="resid_post", layer=0)
    with pytest.raises(EditError, match="site= and layer="):
        edits.rotate(A, B, 10)


def test_controls_keep_windows_and_planes() -> None:
    model = loaded()
    given = edits.during([adding(phase="both"), edits.rotate(A, B, 30, site="resid_post", layer=0)], start=1)
    (drawn,) = edits.random_like([given], model.arch, seed=1)
    assert (drawn.start, drawn.stop) == (1, None)
    one, plane = drawn.inner
    assert float(one.vector.norm()) == pytest.approx(float(V.norm()), rel=1e-5)
    assert not torch.allclose(one.vector, V)
    torch.testing.assert_close(plane.plane @ plane.plane.T, torch.eye(2), **CLOSE)
