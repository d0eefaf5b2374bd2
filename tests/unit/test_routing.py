"""Routing edits: each does to a mixture of experts what a loop over tokens and experts does by hand."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import interp
from interp import edits
from interp.errors import EditError, SiteError
from interp.model.ops import Op
from tests.helpers.slow import PROMPTS, count_hooks, fingerprint, loaded
from tests.helpers.slow_routing import FAMILIES, Hand, mixture, slow_logits, tiny_mixture
from tests.helpers.tiny import tiny_tokenizer

CLOSE: dict[str, float] = {"rtol": 1e-4, "atol": 1e-4}
MODES = ("drop_renorm", "mask_pre_topk", "force")
LAYER = 1


def routed(name: str, *edit: Any, layer: int = LAYER, prompts: Any = PROMPTS) -> tuple[Tensor, Tensor]:
    """Experts `[tokens of all prompts, top_k]` and weights at one layer."""
    model, sites = mixture(name), ["expert_indices", "expert_weights"]
    found: list[list[Tensor]] = [[], []]
    with model.edited(*edit):
        for encoded in model.encode(prompts):
            acts = interp.capture(model, encoded.prompt, sites, list(range(len(encoded))), layer)
            for into, site in zip(found, sites, strict=True):
                into.append(acts.sel(site, layer=layer)[0])
    return torch.cat(found[0]), torch.cat(found[1])


def popular(name: str, layer: int = LAYER) -> int:
    """The expert that most tokens choose, but not all."""
    return int(torch.bincount(routed(name, layer=layer)[0].flatten()).argmax())


@pytest.mark.parametrize("name", FAMILIES)
def test_the_reference_is_the_models_own_forward(name: str) -> None:
    model = mixture(name)
    (encoded,) = model.encode(PROMPTS[1])
    slow = slow_logits(model.hf, encoded.ids, dict.fromkeys(model.arch.layers_with("router_logits")))
    with torch.no_grad():
        own = model.hf(input_ids=torch.tensor([encoded.ids])).logits[0]
    torch.testing.assert_close(slow, own, **CLOSE)


@pytest.mark.parametrize("positions", ["all", "t_inst", "inst"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", FAMILIES)
def test_an_edit_equals_a_loop_over_tokens_and_experts_in_a_batch(name: str, mode: Any, positions: Any) -> None:
    model = mixture(name)
    experts = [popular(name), (popular(name) + 1) % 6]
    edit = edits.route([(LAYER, e) for e in experts], mode, positions=positions)
    logits, plain = model.logits(PROMPTS, edits=[edit]), model.logits(PROMPTS)
    assert not torch.allclose(logits, plain, **CLOSE), "the edit did nothing"
    for row, encoded in enumerate(model.encode(PROMPTS)):
        hand = Hand(mode, experts, set(encoded.columns(positions)))
        torch.testing.assert_close(logits[row], slow_logits(model.hf, encoded.ids, {LAYER: hand})[-1], **CLOSE)


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe, not renormalised", "gpt_oss"])
def test_a_masked_expert_is_as_if_the_model_never_had_it(name: str) -> None:
    """A copy of the model from which the expert's weights and its row of the router are cut out."""
    model, expert = mixture(name), popular(name)
    cut = copy.deepcopy(model.hf)
    mlp = cut.model.layers[LAYER].mlp
    router = mlp.router if hasattr(mlp, "router") else mlp.gate
    for module in (router, mlp.experts):
        for key, weight in list(module.named_parameters()):
            rest = [e for e in range(len(weight)) if e != expert]
            setattr(module, key, nn.Parameter(weight.detach()[rest]))
    mlp.experts.num_experts -= 1
    logits = model.logits(PROMPTS, edits=[edits.route([(LAYER, expert)], "mask_pre_topk")])
    for row, encoded in enumerate(model.encode(PROMPTS)):
        with torch.no_grad():
            torch.testing.assert_close(logits[row], cut(input_ids=torch.tensor([encoded.ids])).logits[0, -1], **CLOSE)


@pytest.mark.parametrize("name", FAMILIES)
def test_dropping_keeps_the_choice_and_the_sum_of_the_weights(name: str) -> None:
    expert = popular(name)
    before, weights = routed(name)
    after, dropped = routed(name, edits.route([(LAYER, expert)]))
    torch.testing.assert_close(after, before)
    assert bool((dropped[before == expert] == 0).all())
    torch.testing.assert_close(dropped.sum(-1), weights.sum(-1))
    untouched = ~(before == expert).any(-1)
    assert bool(untouched.any()) and torch.equal(dropped[untouched], weights[untouched])


def test_a_token_all_of_whose_experts_are_dropped_gets_none() -> None:
    model = mixture("deepseek_v3")
    everyone = edits.route([(LAYER, e) for e in range(8)])
    _, weights = routed("deepseek_v3", everyone)
    assert not bool(weights.any())
    shared = interp.capture(model, PROMPTS[0], "mlp_out", "t_inst", LAYER, edits=[everyone]).data["mlp_out"]
    assert bool(torch.isfinite(shared).all()) and bool(shared.any()), "shared experts are not routed"
    alone = mixture("mixtral")
    everyone = edits.route([(LAYER, e) for e in range(6)])
    assert not bool(
        interp.capture(alone, PROMPTS[0], "mlp_out", "t_inst", LAYER, edits=[everyone]).data["mlp_out"].any()
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_every_expert_can_be_forced_and_every_one_masked(name: str) -> None:
    n = mixture(name).arch.feature("router_logits").width
    once = set(routed(name)[0].flatten().tolist())
    for expert in range(n):
        assert bool((routed(name, edits.route([(LAYER, expert)], "force"))[0] == expert).any(-1).all())
        if expert in once:
            chosen, weights = routed(name, edits.route([(LAYER, expert)], "mask_pre_topk"))
            assert not bool((chosen == expert).any()) and bool((weights > 0).all())


@pytest.mark.parametrize("name", FAMILIES)
def test_as_many_as_a_token_gets_can_be_forced_together(name: str) -> None:
    """In DeepSeek-V3 from different groups, of which its own rule would take one."""
    k = mixture(name).arch.feature("expert_indices").width
    experts = [0, 5, 3][:k]
    chosen, weights = routed(name, edits.route([(LAYER, e) for e in experts], "force"))
    assert chosen.sort(-1).values.unique(dim=0).tolist() == [sorted(experts)]
    if name != "deepseek_v3":
        torch.testing.assert_close(weights, weights[:, :1].expand_as(weights))
    with pytest.raises(EditError, match=f"chooses {k} experts: {k + 1} cannot all be forced"):
        mixture(name).logits(PROMPTS, edits=[edits.route([(LAYER, e) for e in range(k + 1)], "force")])


@pytest.mark.parametrize("phase", ["prompt", "generation", "both"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["gpt_oss", "deepseek_v3"])
def test_generation_is_the_same_by_hand_without_a_cache(name: str, mode: Any, phase: Any) -> None:
    model, expert = mixture(name), popular(name)
    written = model.generate(PROMPTS, max_new_tokens=4, edits=edits.route([(LAYER, expert)], mode, phase=phase))
    for encoded, completion in zip(model.encode(PROMPTS), written, strict=True):
        tokens = list(encoded.ids)
        for token in completion.ids:
            n, end = len(encoded), len(tokens)
            columns = {"prompt": range(n), "generation": range(n, end), "both": range(end)}[phase]
            assert int(slow_logits(model.hf, tokens, {LAYER: Hand(mode, [expert], columns)})[-1].argmax()) == token
            tokens.append(token)


@pytest.mark.parametrize("mode", MODES)
def test_named_positions_are_edited_in_generation_under_left_padding(mode: Any) -> None:
    model, expert = mixture("mixtral"), popular("mixtral")
    edit = edits.route([(LAYER, expert)], mode, positions="inst")
    together = model.generate(PROMPTS, max_new_tokens=4, edits=edit)
    for encoded, completion in zip(model.encode(PROMPTS), together, strict=True):
        hand = Hand(mode, [expert], set(encoded.columns("inst")))
        slow = slow_logits(model.hf, [*encoded.ids, *completion.ids[:-1]], {LAYER: hand})
        assert slow[len(encoded) - 1 :].argmax(-1).tolist() == list(completion.ids)


@pytest.mark.parametrize("name", FAMILIES)
def test_bf16_models_are_routed_as_asked(name: str) -> None:
    model = interp.load(tiny_mixture(name).bfloat16(), tiny_tokenizer())
    expert, sites = popular(name), ["expert_indices", "expert_weights"]
    read = lambda *e: interp.capture(model, PROMPTS, sites, ["t_inst", "last"], LAYER, edits=e).data  # noqa: E731
    plain, dropped = read(), read(edits.route([(LAYER, expert)]))
    total = plain["expert_weights"].float().sum(-1)
    torch.testing.assert_close(dropped["expert_weights"].float().sum(-1), total, rtol=1e-2, atol=1e-2)
    everywhere = (read(edits.route([(LAYER, expert)], "force"))["expert_indices"] == expert).any(-1)
    nowhere = (read(edits.route([(LAYER, expert)], "mask_pre_topk"))["expert_indices"] == expert).any(-1)
    assert bool(everywhere.all()) and not bool(nowhere.any())


def test_routes_compose_with_each_other_and_with_other_edits() -> None:
    model = mixture("gpt_oss")
    moved = edits.add(torch.randn(48, generator=torch.Generator().manual_seed(1)), site="resid_pre", layer=1)
    both = [
        edits.route([(1, 0)], "mask_pre_topk"),
        edits.route([(1, 1)], "force"),
        edits.route([(2, popular("gpt_oss", 2))]),
    ]
    run = model.run(PROMPTS, ["expert_indices"], edits=[moved, *both], layers=[1])
    chosen = run.reads["expert_indices"]
    assert bool((chosen == 1).any(-1).all()) and not bool((chosen == 0).any())
    for row, prompt in enumerate(PROMPTS):
        torch.testing.assert_close(model.logits(prompt, edits=[moved, *both])[0], run.logits[row], **CLOSE)
    with pytest.raises(EditError, match="masked and is chosen all the same; another edit brings it back"):
        model.logits(PROMPTS, edits=[edits.route([(1, 1)], "mask_pre_topk"), both[1]])
    with pytest.raises(EditError, match="forced, but does not take part; another edit keeps it out"):
        model.logits(
            PROMPTS, edits=[both[1], edits.set_to([0.0, 0.0, 0.0, 2, 3, 4][3:], site="expert_indices", layer=1)]
        )


def test_masked_logits_can_be_read() -> None:
    model = mixture("deepseek_v3")
    acts = interp.capture(
        model,
        PROMPTS,
        "router_logits",
        "t_inst",
        [LAYER],
        edits=[edits.route([(LAYER, popular("deepseek_v3"))], "mask_pre_topk")],
    )
    assert int(torch.isneginf(acts.data["router_logits"]).sum()) == len(PROMPTS)


@pytest.mark.parametrize("mode", MODES)
def test_a_context_routes_the_hugging_face_models_own_forward(mode: Any) -> None:
    model = mixture("qwen3_moe")
    edit = edits.route([(LAYER, popular("qwen3_moe"))], mode)
    (encoded,) = model.encode(PROMPTS[2])
    with model.edited(edit), torch.no_grad():
        own = model.hf(input_ids=torch.tensor([encoded.ids])).logits[0, -1]
        text = model.hf.generate(torch.tensor([encoded.ids]), max_new_tokens=4, do_sample=False)[0, len(encoded) :]
    torch.testing.assert_close(own, model.logits(PROMPTS[2], edits=[edit])[0], **CLOSE)
    assert text.tolist() == list(model.generate(PROMPTS[2], max_new_tokens=4, edits=edit)[0].ids)


@pytest.mark.parametrize("mode", ["drop_renorm", "mask_pre_topk"])
def test_experts_that_no_token_chose_are_an_error(mode: Any) -> None:
    model = mixture("mixtral of 24")
    prompt = PROMPTS[0]
    unused = sorted(set(range(24)) - set(routed("mixtral of 24", prompts=[prompt])[0].flatten().tolist()))[0]
    with pytest.raises(EditError, match="touched nothing.*none chose one of these experts"):
        model.logits(prompt, edits=[edits.route([(LAYER, unused)], mode)])
    used = popular("mixtral of 24")
    model.logits(PROMPTS, edits=[edits.route([(LAYER, unused), (LAYER, used)], mode)])


@pytest.mark.parametrize("mode", ["drop_renorm", "mask_pre_topk"])
def test_what_only_padding_chose_does_not_count(mode: Any) -> None:
    model = mixture("mixtral of 24")
    prompts = ["x", "a" * 40]
    seen: list[Tensor] = []
    handle = model.hf.model.layers[LAYER].mlp.experts.register_forward_pre_hook(lambda _m, args: seen.append(args[1]))
    model.logits(prompts)
    handle.remove()
    real = set(routed("mixtral of 24", prompts=prompts)[0].flatten().tolist())
    padding = sorted(set(torch.cat(seen).flatten().tolist()) - real)
    assert padding, "this test needs an expert that padding alone chooses"
    edit = edits.route([(LAYER, padding[0])], mode)
    with pytest.raises(EditError, match="touched nothing"):
        model.logits(prompts, edits=[edit])
    with pytest.raises(EditError, match="touched nothing"):
        model.generate(prompts, max_new_tokens=1, edits=edit)


def test_forcing_what_is_chosen_anyway_is_no_error() -> None:
    model = mixture("mixtral")
    chosen, _ = routed("mixtral", prompts=[PROMPTS[0]])
    model.logits(PROMPTS[0], edits=[edits.route([(LAYER, int(chosen[-1, 0]))], "force", positions="last")])


def test_what_cannot_be_routed_is_named() -> None:
    model, deepseek = mixture("mixtral"), mixture("deepseek_v3")
    cases: list[tuple[Any, Any, type[Exception], str]] = [
        (model, [(1, 6)], SiteError, "expert 6 of layer 1 is out of range: experts are 0 to 5"),
        (model, [(1, -1)], SiteError, "experts are 0 to 5"),
        (model, [(7, 0)], SiteError, "layer 7 is out of range: this model has layers 0 to 2"),
        (deepseek, [(0, 0)], SiteError, "layer 0 has no router_logits; the layers that have it are 1-2"),
        (loaded(), [(0, 0)], SiteError, "no router_logits: it has no mixture of experts"),
    ]
    for where, experts, error, message in cases:
        for mode in MODES:
            with pytest.raises(error, match=message):
                where.logits(PROMPTS, edits=[edits.route(experts, mode)])
    with pytest.raises(EditError, match="unknown mode 'drop'; known: drop_renorm, mask_pre_topk, force"):
        edits.route([(0, 0)], "drop")  # type: ignore[arg-type]
    with pytest.raises(EditError, match="no experts were given"):
        edits.route([])
    with pytest.raises(EditError, match="no more than 4 can be masked, but 5 were"):
        model.logits(PROMPTS, edits=[edits.route([(1, e) for e in range(5)], "mask_pre_topk")])
    halves = [edits.route([(1, e) for e in some], "mask_pre_topk") for some in ([0, 1, 2], [3, 4])]
    with pytest.raises(EditError, match="fewer than the 2 that a token gets are left"):
        model.logits(PROMPTS, edits=halves)
    with pytest.raises(EditError, match="fewer than the 2 .* within groups"):
        deepseek.logits(PROMPTS, edits=[edits.route([(1, e) for e in (0, 1, 2, 5, 6, 7)], "mask_pre_topk")])


@dataclass(frozen=True)
class Failing:
    """Raises inside the router."""

    error: BaseException

    def ops(self, arch: Any) -> list[Op]:
        del arch

        def change(x: Tensor, _cells: Any) -> Tensor:
            raise self.error

        return [Op("choice", LAYER, change, ("all",), "both", self)]


@contextmanager
def modes_unchanged() -> Iterator[None]:
    before = torch._C._len_torch_function_stack()
    yield
    assert torch._C._len_torch_function_stack() == before


@pytest.mark.parametrize("error", [RuntimeError("inside"), KeyboardInterrupt("inside")], ids=type)
def test_nothing_is_left_after_an_exception_inside_the_router(error: BaseException) -> None:
    model = mixture("mixtral")
    before, edit = fingerprint(model.hf), edits.route([(LAYER, popular("mixtral"))], "force")
    plain = model.logits(PROMPTS)
    for run in (model.logits, model.generate):
        with modes_unchanged(), pytest.raises(type(error), match="inside"):
            run(PROMPTS, edits=[edit, Failing(error)])
    with modes_unchanged(), pytest.raises(type(error)), model.edited(edit, Failing(error)):
        model.hf(input_ids=torch.tensor([[1, 2, 3]]))
    assert fingerprint(model.hf) == before and not count_hooks(model.hf)
    assert torch.equal(model.logits(PROMPTS), plain)


@pytest.mark.parametrize("mode", MODES)
def test_the_model_is_bit_for_bit_what_it_was(mode: Any) -> None:
    model = mixture("gpt_oss")
    before, plain = fingerprint(model.hf), model.logits(PROMPTS)
    with modes_unchanged():
        model.logits(PROMPTS, edits=[edits.route([(LAYER, popular("gpt_oss"))], mode)])
        model.generate(PROMPTS, max_new_tokens=3, edits=[edits.route([(LAYER, popular("gpt_oss"))], mode)])
    assert fingerprint(model.hf) == before and torch.equal(model.logits(PROMPTS), plain)
