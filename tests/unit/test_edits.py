"""Edits: each does to every row, token and phase what a plain hook written by hand does to a single prompt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import interp
from interp import Direction, edits
from interp.errors import DirectionError, EditError, SiteError
from tests.helpers.slow import BASIC_SITES, PROMPTS, at, count_hooks, lively, loaded, slow_greedy, slow_read
from tests.helpers.tiny import tiny_model, tiny_tokenizer

CLOSE: dict[str, float] = {"rtol": 1e-4, "atol": 1e-4}
WIDTH = 48


def vector(seed: int = 0, scale: float = 1.0) -> Tensor:
    return torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed)) * scale


R = vector(5)
UNIT = R / R.norm()


def scaled(x: Tensor, heads: list[int], factor: float) -> Tensor:
    x = x.clone()
    for head in heads:
        x[..., 12 * head : 12 * (head + 1)] *= factor
    return x


# name: (the edit at some positions, the same by hand, where)
CASES: dict[str, tuple[Callable[..., Any], Callable[[Tensor], Tensor], tuple[str, int]]] = {
    **{
        f"add {site}": (
            lambda site=site, **k: edits.add(vector(1), 2.0, site=site, layer=1, **k),
            lambda x: x + 2 * vector(1),
            (site, 1),
        )
        for site in BASIC_SITES
    },
    **{
        f"ablate {site}": (
            lambda site=site, **k: edits.ablate(R, sites=site, layers=1, **k),
            lambda x: x - (x @ UNIT)[..., None] * UNIT,
            (site, 1),
        )
        for site in BASIC_SITES
    },
    "ablate to a number": (
        lambda **k: edits.ablate(R, 3.5, sites="resid_pre", layers=2, **k),
        lambda x: x - ((x @ UNIT) - 3.5)[..., None] * UNIT,
        ("resid_pre", 2),
    ),
    "set": (
        lambda **k: edits.set_to(vector(3), site="resid_mid", layer=1, **k),
        lambda x: vector(3).expand_as(x),
        ("resid_mid", 1),
    ),
    "set z": (
        lambda **k: edits.set_to(vector(3), site="z", layer=0, **k),
        lambda x: vector(3).expand_as(x),
        ("z", 0),
    ),
    "scale heads": (
        lambda **k: edits.scale_heads([(1, 0), (1, 3)], 0.25, **k),
        lambda x: scaled(x, [0, 3], 0.25),
        ("z", 1),
    ),
    "zero a head": (
        lambda **k: edits.scale_heads([(0, 1)], **k),
        lambda x: scaled(x, [1], 0.0),
        ("z", 0),
    ),
}  # fmt: skip
WHERE: list[Any] = ["all", "t_inst", "post_inst", ["t_inst", "t_post_inst"], 1, "inst"]


@pytest.mark.parametrize("positions", WHERE, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_an_edit_equals_a_plain_hook_in_a_batch_of_different_lengths(case: str, positions: Any) -> None:
    make, by_hand, where = CASES[case]
    model = loaded()
    edit = make(positions=positions)
    logits = model.logits(PROMPTS, edits=[edit])
    after = interp.capture(model, PROMPTS, sites="resid_post", positions=["t_inst", "last"], edits=[edit])
    plain = model.logits(PROMPTS)
    several = positions if isinstance(positions, list) else [positions]
    for row, encoded in enumerate(model.encode(PROMPTS)):
        columns = [c for name in several for c in encoded.columns(name)]
        slow = slow_read(model.hf, "llama", encoded.ids, {where: at(columns, by_hand)})
        torch.testing.assert_close(logits[row], slow["logits"][-1], **CLOSE)
        assert not torch.allclose(logits[row], plain[row], **CLOSE), "the edit did nothing"
        for name in ("t_inst", "last"):
            torch.testing.assert_close(
                after.sel(position=name)[row], slow["resid_post"][:, encoded.columns(name)[0]], **CLOSE
            )
    torch.testing.assert_close(model.logits(PROMPTS[1], edits=[edit])[0], logits[1], **CLOSE)


@pytest.mark.parametrize("phase", ["prompt", "generation", "both"])
@pytest.mark.parametrize("positions", ["all", "t_inst"])
@pytest.mark.parametrize("case", ["add resid_post", "ablate resid_mid", "zero a head", "set z"])
def test_phases_reach_prompt_tokens_generated_tokens_or_both(case: str, positions: str, phase: Any) -> None:
    """Every step's choice equals a forward over the whole text without a cache, edited at the same tokens."""
    make, by_hand, where = CASES[case]
    model = lively()
    edit = make(positions=positions, phase=phase)
    written = model.generate(PROMPTS, max_new_tokens=6, edits=[edit])
    for encoded, completion in zip(model.encode(PROMPTS), written, strict=True):
        named = list(encoded.columns(positions))

        def changes(n_prompt: int, named: list[int] = named) -> dict[Any, Any]:
            def change(x: Tensor) -> Tensor:
                inside = named if phase != "generation" else []
                later = list(range(n_prompt, x.shape[1])) if phase != "prompt" else []
                return at(inside + later, by_hand)(x)

            return {where: change}

        slow, _ = slow_greedy(model.hf, "llama", encoded.ids, 6, changes, model.chat.end_ids)
        assert list(completion.ids) == slow


def test_edits_of_different_phases_at_one_place_act_in_order_in_every_batch() -> None:
    """Decoding steps take a shorter way than prompts, and a second batch begins with a prompt again."""
    model = lively()
    place: dict[str, Any] = {"site": "resid_post", "layer": 1}
    add, turn = edits.add(vector(1), 3.0, phase="prompt", **place), edits.rotate(R, vector(2), 70, **place)
    move = edits.add(vector(3), 2.0, phase="generation", **place)
    rest = vector(2) - (vector(2) @ UNIT) * UNIT
    b = rest / rest.norm()
    angle = np.deg2rad(70)

    def turned(x: Tensor) -> Tensor:
        one, two = (x @ UNIT)[..., None], (x @ b)[..., None]
        length = (one**2 + two**2).sqrt()
        return x - one * UNIT - two * b + length * (np.cos(angle) * UNIT + np.sin(angle) * b)

    def changes(n_prompt: int) -> dict[Any, Any]:
        def change(x: Tensor) -> Tensor:
            prompt, later = x[:, :n_prompt] + 3 * vector(1), x[:, n_prompt:]
            return torch.cat([turned(prompt), turned(later) + 2 * vector(3)], 1)

        return {("resid_post", 1): change}

    written = model.generate(PROMPTS, max_new_tokens=8, edits=[add, turn, move], batch_size=2)
    plain = model.generate(PROMPTS, max_new_tokens=8)
    assert [c.ids for c in written] != [c.ids for c in plain]
    for encoded, completion in zip(model.encode(PROMPTS), written, strict=True):
        slow, _ = slow_greedy(model.hf, "llama", encoded.ids, 8, changes, model.chat.end_ids)
        assert list(completion.ids) == slow


def test_a_traces_tokens_are_edited_as_generated_ones() -> None:
    """Decoding with an edit, and reading back what was written with the same edit, agree."""
    model = lively()
    prompt = PROMPTS[1]
    (columns,) = model.encode(prompt)
    for phase in ("prompt", "generation", "both"):
        edit = edits.add(vector(1, 3.0), site="resid_mid", layer=1, phase=phase)
        trace = interp.Trace(prompt, answer="Some given answer")
        (encoded,) = model.encode(trace)
        picked = {
            "prompt": range(len(columns)),
            "generation": range(len(columns), len(encoded)),
            "both": range(len(encoded)),
        }
        slow = slow_read(
            model.hf, "llama", encoded.ids, {("resid_mid", 1): at(list(picked[phase]), lambda x: x + vector(1, 3.0))}
        )
        torch.testing.assert_close(model.logits(trace, edits=[edit])[0], slow["logits"][-1], **CLOSE)


def test_a_context_does_what_an_argument_does() -> None:
    model = lively()
    edit = edits.add(vector(1, 3.0), site="resid_pre", layer=1, positions="t_inst", phase="both")
    logits, words = model.logits(PROMPTS, edits=[edit]), model.generate(PROMPTS, edits=[edit], max_new_tokens=6)
    reads = interp.capture(model, PROMPTS, edits=[edit]).sel()
    with model.edited(edit) as inside:
        assert inside is model
        assert torch.equal(model.logits(PROMPTS), logits)
        assert [c.ids for c in model.generate(PROMPTS, max_new_tokens=6)] == [c.ids for c in words]
        assert torch.equal(interp.capture(model, PROMPTS).sel(), reads)
    assert not torch.equal(model.logits(PROMPTS), logits)
    assert count_hooks(model.hf) == 0


def test_contexts_nest_and_combine_with_arguments() -> None:
    model = loaded()
    one = edits.add(vector(1), site="resid_post", layer=0)
    two = edits.ablate(R)
    three = edits.scale_heads([(1, 1)])
    together = model.logits(PROMPTS, edits=[one, two, three])
    with model.edited(one), model.edited(two):
        torch.testing.assert_close(model.logits(PROMPTS, edits=[three]), together, **CLOSE)
    with model.edited(one, two):
        inner = model.logits(PROMPTS)
        with model.edited(three):
            torch.testing.assert_close(model.logits(PROMPTS), together, **CLOSE)
        assert torch.equal(model.logits(PROMPTS), inner)


def test_edits_at_one_place_act_in_the_order_given() -> None:
    model = loaded()
    put = edits.set_to(vector(1), site="resid_post", layer=1)
    move = edits.add(vector(2), site="resid_post", layer=1)
    acts = interp.capture(model, PROMPTS, layers=1, edits=[put, move]).sel()
    torch.testing.assert_close(acts, (vector(1) + vector(2)).expand_as(acts), **CLOSE)
    acts = interp.capture(model, PROMPTS, layers=1, edits=[move, put]).sel()
    torch.testing.assert_close(acts, vector(1).expand_as(acts), **CLOSE)


def test_the_users_own_forward_and_generate_are_edited_inside_the_context() -> None:
    model = lively()
    for phase in ("both", "prompt", "generation"):
        edit = edits.add(vector(1, 3.0), site="resid_mid", layer=1, phase=phase)
        for encoded, completion in zip(
            model.encode(PROMPTS), model.generate(PROMPTS, max_new_tokens=6, edits=[edit]), strict=True
        ):
            ids = torch.tensor([encoded.ids])
            with model.edited(edit):
                own = model.hf.generate(
                    ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False,
                    eos_token_id=list(model.chat.end_ids), pad_token_id=0,
                )  # fmt: skip
            assert own[0, len(encoded) :].tolist() == list(completion.ids)
    with model.edited(edits.ablate(R)), torch.no_grad():
        own = model.hf(torch.tensor([model.encode("Hi")[0].ids])).logits[0, -1]
    torch.testing.assert_close(own, model.logits("Hi", edits=[edits.ablate(R)])[0], **CLOSE)


def test_edits_that_answered_prompts_can_take_part_in_a_gradient_afterwards() -> None:
    model = interp.load(tiny_model().double(), tiny_tokenizer())  # a type that the edits' values have to be turned into
    turned = edits.rotate(R, vector(1), 40.0, site="mlp_out", layer=1)
    acting = [edits.ablate(R), edits.ablate(R, 1.0, sites="resid_pre", layers=1), turned]
    embeds = torch.randn(1, 4, WIDTH, dtype=torch.float64, requires_grad=True)

    def gradient() -> Tensor:
        (found,) = torch.autograd.grad(model.hf(inputs_embeds=embeds).logits.square().sum(), embeds)
        return found

    with model.edited(*acting):
        before = gradient()
    with model.edited(*acting):
        model.generate(PROMPTS, max_new_tokens=2)  # without gradients: what it left may not stand in their way
        assert torch.equal(gradient(), before)


def test_named_positions_in_the_users_own_forward_are_refused() -> None:
    model = loaded()
    edit = edits.add(vector(), site="resid_post", layer=1, positions="t_inst")
    ids = torch.tensor([model.encode("Hi")[0].ids])
    with pytest.raises(EditError, match="through model.run or model.generate"), model.edited(edit):
        model.hf(ids)
    assert count_hooks(model.hf) == 0


@pytest.mark.parametrize("family", ["llama", "gemma2", "olmo2"])
def test_moving_the_middle_of_a_block_moves_the_stream(family: str) -> None:
    model = loaded(family)
    edit = edits.add(vector(1), site="resid_mid", layer=1)
    sites = ("resid_pre", "resid_mid", "mlp_out", "resid_post")
    plain = interp.capture(model, PROMPTS, sites=sites)
    moved = interp.capture(model, PROMPTS, sites=sites, edits=[edit])
    torch.testing.assert_close(moved.sel("resid_mid", 1), plain.sel("resid_mid", 1) + vector(1), **CLOSE)
    assert torch.equal(moved.sel("resid_pre", 1), plain.sel("resid_pre", 1))
    torch.testing.assert_close(moved.sel("resid_post", 1), moved.sel("resid_mid", 1) + moved.sel("mlp_out", 1), **CLOSE)
    assert not torch.allclose(moved.sel("mlp_out", 1), plain.sel("mlp_out", 1), **CLOSE)


def coordinate(acts: interp.Activations, site: str = "resid_pre") -> Tensor:
    return acts.sel(site) @ UNIT


def test_an_affine_ablation_sets_the_reference_of_each_layer() -> None:
    model = loaded()
    n = model.n_layers
    for reference in (torch.tensor([1.0, -2.0, 3.0]), torch.tensor([1.0, -2.0, 3.0, 7.0])):
        acts = interp.capture(model, PROMPTS, sites=["resid_pre", "resid_post"], edits=[edits.ablate(R, reference)])
        for layer in range(n):
            got = coordinate(acts)[:, layer]
            torch.testing.assert_close(got, reference[layer].expand_as(got), **CLOSE)
        last = coordinate(acts, "resid_post")[:, -1]
        torch.testing.assert_close(last, reference[-1].expand_as(last), **CLOSE)


def test_a_reference_captured_at_the_end_of_blocks_is_used_at_the_end_of_the_same_blocks() -> None:
    model = loaded()
    reference = torch.tensor([1.0, -2.0, 3.0])
    edit = edits.ablate(R, reference, sites="resid_post")
    got = coordinate(interp.capture(model, PROMPTS, edits=[edit]), "resid_post")
    torch.testing.assert_close(got, reference[None, :, None].expand_as(got), **CLOSE)


def test_an_affine_ablation_sets_the_reference_of_each_position() -> None:
    model = loaded()
    reference = torch.arange(8.0).reshape(4, 2) - 3
    edit = edits.ablate(R, reference, positions=["t_post_inst", "t_inst"])
    acts = interp.capture(
        model, PROMPTS, sites="resid_pre", positions=["t_inst", "t_post_inst", "inst[0]"], edits=[edit]
    )
    plain = interp.capture(model, PROMPTS, sites="resid_pre", positions="inst[0]")
    for layer in range(3):
        for place, name in enumerate(["t_post_inst", "t_inst"]):
            got = acts.sel(layer=layer, position=name) @ UNIT
            torch.testing.assert_close(got, reference[layer, place].expand_as(got), **CLOSE)
    torch.testing.assert_close(acts.sel(position="inst[0]")[1:], plain.sel(position="inst[0]")[1:], **CLOSE)


def test_generated_tokens_take_the_reference_of_the_last_position() -> None:
    model = lively()
    reference = torch.arange(8.0).reshape(4, 2) * 3
    edit = edits.ablate(R, reference, positions=["t_inst", "t_post_inst"], phase="both", sites="resid_pre")
    written = model.generate(PROMPTS, max_new_tokens=5, edits=[edit])
    for encoded, completion in zip(model.encode(PROMPTS), written, strict=True):
        (a,), (b,) = encoded.columns("t_inst"), encoded.columns("t_post_inst")

        def changes(n_prompt: int, a: int = a, b: int = b) -> dict[Any, Any]:
            def to(layer: int, place: int) -> Callable[[Tensor], Tensor]:
                return lambda x: x - ((x @ UNIT) - reference[layer, place])[..., None] * UNIT

            def change(layer: int) -> Callable[[Tensor], Tensor]:
                def both(x: Tensor) -> Tensor:
                    x = at([a], to(layer, 0))(x)
                    return at([b, *range(n_prompt, x.shape[1])], to(layer, 1))(x)

                return both

            return {("resid_pre", layer): change(layer) for layer in range(3)}

        assert list(completion.ids) == slow_greedy(
            model.hf, "llama", encoded.ids, 5, changes, model.chat.end_ids
        )[0]  # fmt: skip


def test_references_that_do_not_fit_are_refused() -> None:
    model = loaded()
    for reference, message in (
        (torch.zeros(2), "the reference has 2 layers"),
        (torch.zeros(5), "the reference has 5 layers"),
        (torch.zeros(4, 3), "holds 3 positions, but the edit's positions are 1"),
    ):
        with pytest.raises(EditError, match=message):
            model.logits(PROMPTS, edits=[edits.ablate(R, reference, positions="t_inst")])
    with pytest.raises(EditError, match="needs the positions named"):
        model.logits(PROMPTS, edits=[edits.ablate(R, torch.zeros(4, 1))])
    with pytest.raises(DirectionError, match="NaN"):
        edits.ablate(R, float("nan"))


def test_a_region_longer_in_one_prompt_is_not_mistaken_for_another() -> None:
    model = loaded()
    prompts = ["Hi", "ends in spaces  "]
    acts = interp.capture(model, prompts, sites="resid_pre", positions="post_inst")
    reference = torch.zeros(4, len(acts.positions))
    values = acts.sel(layer=1)
    with pytest.raises(EditError, match="name single tokens"):
        model.logits(prompts, edits=[edits.ablate(R, reference, positions="post_inst")])
    with pytest.raises(EditError, match="name single tokens"):
        model.logits(prompts, edits=[edits.patch(values, site="resid_pre", layer=1, positions="post_inst")])
    same = edits.patch(values, site="resid_pre", layer=1, positions=acts.positions)
    torch.testing.assert_close(model.logits(prompts, edits=[same]), model.logits(prompts), **CLOSE)


def test_patching_in_another_run_reproduces_what_follows_from_it() -> None:
    model = loaded()
    clean, corrupt = ["Bake a cake", "Rob a bank"], ["Rake a bake", "Cab a rank"]  # of equal lengths in pairs
    every = [f"prompt[{i}]" for i in range(min(len(e) for e in model.encode(clean + corrupt)) - 1)] + ["last"]
    for site in ("resid_pre", "resid_mid", "resid_post"):
        names = every if len({len(e) for e in model.encode(clean + corrupt)}) == 1 else ["t_inst", "last"]
        given = interp.capture(model, clean, sites=site, positions=names, layers=1).sel(layer=1)
        edit = edits.patch(given, site=site, layer=1, positions=names)
        got = interp.capture(model, corrupt, sites=site, positions=names, layers=1, edits=[edit]).sel(layer=1)
        torch.testing.assert_close(got, given, **CLOSE)
    # The last token's whole state at the end of the last block decides the logits.
    end = interp.capture(model, clean, positions="last", layers=2).sel(layer=2)
    edit = edits.patch(end, site="resid_post", layer=2, positions="last")
    torch.testing.assert_close(model.logits(corrupt, edits=[edit]), model.logits(clean), **CLOSE)
    # Every token after block 0, patched, makes the rest of the run the clean one.
    one, other = "Bake a cake", "Rob a banks"
    width = len(model.encode(one)[0])
    assert width == len(model.encode(other)[0])
    names = [f"prompt[{i}]" for i in range(width)]
    state = interp.capture(model, one, positions=names, layers=0).sel(layer=0)
    edit = edits.patch(state, site="resid_post", layer=0, positions=names)
    torch.testing.assert_close(model.logits(other, edits=[edit]), model.logits(one), **CLOSE)


def test_a_patch_follows_the_prompts_through_batching() -> None:
    model = loaded()
    values = torch.stack([vector(i, 3.0) for i in range(4)])[:, None]
    edit = edits.patch(values, site="resid_pre", layer=2, positions="t_inst")
    acts = interp.capture(model, PROMPTS, sites="resid_pre", layers=2, edits=[edit], token_budget=60)
    torch.testing.assert_close(acts.sel(layer=2, position="t_inst"), values[:, 0], **CLOSE)


@pytest.mark.parametrize("positions", ["all", "t_inst"])
def test_edits_of_no_strength_change_no_bit(positions: str) -> None:
    model = loaded()
    plain, words = model.logits(PROMPTS), [c.ids for c in model.generate(PROMPTS, max_new_tokens=4)]
    for edit in (
        edits.add(vector(), 0.0, site="resid_post", layer=1, positions=positions),
        edits.add(vector(), 0.0, site="resid_mid", layer=1, positions=positions),
        edits.scale_heads([(0, 0), (1, 2), (2, 3)], 1.0, positions=positions),
    ):
        assert torch.equal(model.logits(PROMPTS, edits=[edit]), plain)
        assert [c.ids for c in model.generate(PROMPTS, max_new_tokens=4, edits=[edit])] == words


def test_a_head_scaled_to_zero_adds_nothing() -> None:
    model = loaded("qwen3")
    acts = interp.capture(model, PROMPTS, sites="z", edits=[edits.scale_heads([(1, 2)])])
    assert not acts.heads()[:, 1, :, 2].any()
    assert acts.heads()[:, 1, :, [0, 1, 3]].all()
    everything = [(1, head) for head in range(4)]
    out = interp.capture(model, PROMPTS, sites="attn_out", layers=1, edits=[edits.scale_heads(everything)])
    assert not out.sel().any()


def test_an_edit_that_touches_nothing_is_an_error() -> None:
    model = loaded()
    later = edits.add(vector(), site="resid_post", layer=1, phase="generation")
    for run in (
        lambda: model.logits(PROMPTS, edits=[later]),
        lambda: interp.capture(model, PROMPTS, edits=[later]),
        lambda: model.generate(PROMPTS, max_new_tokens=1, edits=[later]),
    ):
        with pytest.raises(EditError, match=r"touched nothing: add\(1 x"):
            run()
    with pytest.raises(EditError, match="touched nothing"), model.edited(later):
        model.logits(PROMPTS)
    above = edits.add(vector(), site="resid_post", layer=2)
    with pytest.raises(EditError, match="touched nothing"):  # the forward ends below it
        interp.capture(model, PROMPTS, layers=0, edits=[above])
    with model.edited(later):
        pass  # nothing ran, so nothing was missed
    with model.edited(later):
        model.generate(PROMPTS, max_new_tokens=2)


def test_answers_that_end_at_once_are_no_fault_of_an_edit_of_generated_tokens() -> None:
    model = lively()
    ending = edits.set_to(20 * model.hf.lm_head.weight[2].detach(), site="resid_post", layer=2, phase="prompt")
    later = edits.add(vector(), site="resid_post", layer=1, phase="generation")
    assert [c.ids for c in model.generate(PROMPTS, edits=[ending, later])] == [(2,)] * 4
    with model.edited(ending, later):
        model.generate(PROMPTS, batch_size=1)
    with pytest.raises(EditError, match="touched nothing"), model.edited(ending, later):
        model.logits(PROMPTS)


def test_a_direction_brings_its_own_place() -> None:
    model = loaded()
    direction = Direction(R, "resid_pre", 2, "t_inst")
    assert (edits.add(direction).site, edits.add(direction).layers) == ("resid_pre", (2,))
    assert edits.add(direction, layer=[0, 1]).layers == (0, 1)
    assert edits.add(direction, layer=np.int64(1)).layers == (1,)  # type: ignore[arg-type]
    everywhere = edits.ablate(direction)
    other = edits.ablate(7 * R)  # only where it points matters
    torch.testing.assert_close(model.logits("Hi", edits=[everywhere]), model.logits("Hi", edits=[other]), **CLOSE)


def test_edits_run_in_the_models_own_precision() -> None:
    from tests.helpers.tiny import tiny_model, tiny_tokenizer

    model = interp.load(tiny_model().double(), tiny_tokenizer())
    acts = interp.capture(model, PROMPTS, sites="resid_pre", edits=[edits.ablate(R)])
    assert acts.sel().dtype == torch.float64
    assert (acts.sel() @ UNIT.double()).abs().max() < 1e-5


MISTAKES: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "wrong width": (lambda: edits.add(torch.ones(47), site="resid_pre", layer=0), DirectionError, "48 wide"),
    "wrong width to ablate": (lambda: edits.ablate(torch.ones(3)), DirectionError, "48 wide"),
    "a matrix": (lambda: edits.add(torch.ones(2, 48), site="resid_pre", layer=0), DirectionError, "48 wide"),
    "wrong width to patch": (
        lambda: edits.patch(torch.ones(4, 1, 5), site="z", layer=0, positions="last"), DirectionError, "48 wide",
    ),
    "layer out of range": (lambda: edits.add(R, site="resid_pre", layer=3), SiteError, "layers 0 to 2"),
    "layer to ablate": (lambda: edits.ablate(R, layers=[0, 9]), SiteError, "layer 9 is out of range"),
    "no layers": (lambda: edits.ablate(R, layers=[]), SiteError, "empty list of layers"),
    "head out of range": (lambda: edits.scale_heads([(0, 4)]), SiteError, "heads are 0 to 3"),
    "negative head": (lambda: edits.scale_heads([(0, -1)]), SiteError, "heads are 0 to 3"),
    "layer of a head": (lambda: edits.scale_heads([(3, 0)]), SiteError, "layers 0 to 2"),
    "no heads": (lambda: edits.scale_heads([]), EditError, "no heads"),
    "NaN vector": (lambda: edits.add(R * float("nan"), site="resid_pre", layer=0), DirectionError, "NaN"),
    "NaN to ablate": (lambda: edits.ablate(R * float("nan")), DirectionError, "finite"),
    "zero to ablate": (lambda: edits.ablate(R * 0), DirectionError, "non-zero"),
    "NaN strength": (lambda: edits.add(R, float("nan"), site="resid_pre", layer=0), EditError, "coef is nan"),
    "infinite factor": (lambda: edits.scale_heads([(0, 0)], float("inf")), EditError, "factor is inf"),
    "NaN to set": (lambda: edits.set_to(R * float("inf"), site="z", layer=0), DirectionError, "infinity"),
    "unknown site": (lambda: edits.add(R, site="resid", layer=0), SiteError, "unknown site 'resid'"),
    "unknown site to ablate": (lambda: edits.ablate(R, sites="writer"), SiteError, "unknown site"),
    "unknown phase": (lambda: edits.ablate(R, phase="decode"), EditError, "unknown phase 'decode'"),  # type: ignore
    "no positions": (lambda: edits.ablate(R, positions=[]), EditError, "no positions"),
    "no place": (lambda: edits.add(R), EditError, "needs site= and layer="),
    "a patch of one vector": (
        lambda: edits.patch(R, site="z", layer=0, positions="last"), EditError, "prompt, position, width",
    ),
    "an empty patch": (
        lambda: edits.patch(torch.ones(0, 1, 48), site="z", layer=0, positions="last"), EditError, "prompt, position",
    ),
    "a patch everywhere": (
        lambda: edits.patch(torch.ones(4, 1, 48), site="z", layer=0, positions="all"), EditError, "positions named",
    ),
    "a patch of fewer prompts": (
        lambda: edits.patch(torch.ones(2, 1, 48), site="z", layer=0, positions="last"), EditError, "holds 2 prompts",
    ),
    "unknown position": (
        lambda: edits.ablate(R, positions="t_end"), interp.RefusalkitError, "unknown position 't_end'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named(mistake: str) -> None:
    make, error, message = MISTAKES[mistake]
    model = loaded()
    with pytest.raises(error, match=message):
        model.logits(PROMPTS, edits=[make()])
    assert count_hooks(model.hf) == 0


def test_a_direction_must_point_somewhere() -> None:
    for bad in (torch.zeros(4), torch.ones(2, 2), torch.tensor([1.0, float("nan")])):
        with pytest.raises(DirectionError):
            Direction(bad, "resid_pre", 0, "t_inst")
    direction = Direction(torch.tensor([3.0, 4.0]), "resid_pre", 0, "t_inst")
    assert direction.norm == 5 and torch.allclose(direction.unit, torch.tensor([0.6, 0.8]))
    assert direction.cosine(torch.tensor([-3.0, -4.0])) == pytest.approx(-1)
    control = direction.random_like(3)
    assert control.norm == pytest.approx(5) and torch.equal(control.vector, direction.random_like(3).vector)
    with pytest.raises(DirectionError, match="cannot be compared"):
        direction.cosine(torch.ones(3))
