"""Generation: batching, caching, compaction and sampling leave the words as they would be one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import interp
from interp.errors import PromptError
from tests.helpers import templates
from tests.helpers.slow import PROMPTS, lively, slow_greedy
from tests.helpers.tiny import tiny_model, tiny_tokenizer


def written(model: Any, prompts: Any = PROMPTS, **options: Any) -> list[tuple[int, ...]]:
    options.setdefault("max_new_tokens", 12)
    return [c.ids for c in model.generate(prompts, **options)]


def test_a_batch_of_different_lengths_writes_what_single_prompts_write() -> None:
    model = lively()
    together = written(model)
    assert together == [written(model, p)[0] for p in PROMPTS]
    assert len({t for ids in together for t in ids}) > 8, "too few different tokens to show anything"
    assert together == written(model, batch_size=2) == written(model, token_budget=80)
    assert together == written(model, PROMPTS[::-1])[::-1]


def test_padding_does_not_shift_the_position_ids() -> None:
    """Rotary positions are relative and would hide a shift; learned ones would not."""
    model = lively()
    seen: list[torch.Tensor] = []
    handle = model.arch.backbone.register_forward_pre_hook(
        lambda _m, _a, k: seen.append(k["position_ids"].clone()), with_kwargs=True
    )
    prompts = ["Hi", "Hello there"]
    model.generate(prompts, max_new_tokens=3)
    handle.remove()
    short, long = (len(e) for e in model.encode(prompts))
    assert seen[0][0, long - short :].tolist() == list(range(short))
    assert seen[0][1].tolist() == list(range(long))
    assert [s[:, 0].tolist() for s in seen[1:]] == [[short, long], [short + 1, long + 1]]


def ending_at_different_times(ends: tuple[int, ...]) -> interp.Model:
    """The same model whose turns end at any of many tokens, so that rows end at different steps."""
    model = interp.load(lively().hf, tiny_tokenizer())
    model.chat.__dict__["end_ids"] = ends
    return model


def test_rows_that_end_leave_the_batch_and_the_others_go_on_as_before() -> None:
    model = ending_at_different_times(tuple(range(0, 320, 9)))
    together = written(model, max_new_tokens=20)
    lengths = {len(ids) for ids in together}
    assert len(lengths) > 1, "all ended at once, so nothing was compacted"
    assert together == [written(model, p, max_new_tokens=20)[0] for p in PROMPTS]
    for encoded, ids in zip(model.encode(PROMPTS), together, strict=True):
        assert list(ids) == slow_greedy(model.hf, "llama", encoded.ids, 20, ends=model.chat.end_ids)[0]


def test_edits_follow_their_rows_when_others_leave() -> None:
    model = ending_at_different_times(tuple(range(0, 320, 9)))
    values = torch.randn(len(PROMPTS), 1, model.d_model, generator=torch.Generator().manual_seed(0)) * 5
    edits = [
        interp.edits.patch(values, site="resid_post", layer=1, positions="t_inst"),
        interp.edits.add(torch.ones(model.d_model), site="resid_post", layer=0),
    ]
    together = written(model, edits=edits, max_new_tokens=20)
    for row, prompt in enumerate(PROMPTS):
        own = interp.edits.patch(values[row : row + 1], site="resid_post", layer=1, positions="t_inst")
        assert written(model, prompt, edits=[own, edits[1]], max_new_tokens=20)[0] == together[row]


def test_sampling_depends_on_the_seed_and_not_on_the_batch() -> None:
    model = lively()
    options: dict[str, Any] = {"temperature": 0.8, "seed": 3}
    first = written(model, **options)
    assert first == written(model, **options) == written(model, batch_size=1, **options)
    assert first != written(model, temperature=0.8, seed=4)
    assert first != written(model)
    short = written(model, max_new_tokens=5, **options)
    assert [ids[:5] for ids in first] == short


def test_a_small_top_p_or_temperature_is_greedy() -> None:
    model = lively()
    greedy = written(model)
    assert written(model, temperature=1.0, top_p=1e-6) == greedy
    assert written(model, temperature=1e-4) == greedy


def test_sampled_tokens_follow_the_models_probabilities() -> None:
    model = lively()
    p = torch.softmax(model.logits("Hi")[0], -1)
    n = 3000
    drawn = torch.tensor(
        [ids[0] for ids in written(model, ["Hi"] * n, max_new_tokens=1, temperature=1.0, batch_size=n)]
    )
    share = torch.bincount(drawn, minlength=len(p)) / n
    assert (share - p).abs().max() < 4 * 0.5 / n**0.5
    kept = p.sort(descending=True)
    inside = set(kept.indices[: int((kept.values.cumsum(0) < 0.5).sum()) + 1].tolist())
    drawn = {ids[0] for ids in written(model, ["Hi"] * 300, max_new_tokens=1, temperature=1.0, top_p=0.5)}
    assert drawn <= inside


def test_generation_stops_at_the_templates_end_token_and_keeps_it_out_of_the_text() -> None:
    model = lively()
    end = interp.edits.set_to(20 * model.hf.lm_head.weight[2].detach(), site="resid_post", layer=2, phase="generation")
    completion = model.generate("Hi", max_new_tokens=10, edits=[end])[0]
    assert completion.finished and completion.ids[-1] == 2 and len(completion.ids) == 2
    assert "<|im_end|>" not in completion.text + completion.answer
    unfinished = model.generate("Hi", max_new_tokens=3)[0]
    assert not unfinished.finished and len(unfinished.ids) == 3


def test_one_token_is_the_argmax_of_the_logits() -> None:
    model = lively()
    assert [ids[0] for ids in written(model, max_new_tokens=1)] == model.logits(PROMPTS).argmax(-1).tolist()


@pytest.mark.parametrize(
    "options",
    [
        {"max_new_tokens": 0},
        {"temperature": -1.0},
        {"temperature": 1.0, "top_p": 0.0},
        {"temperature": 1.0, "top_p": 2},
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(PromptError):
        lively().generate("Hi", **options)
    with pytest.raises(PromptError, match="no prompts"):
        lively().generate([])


def scripted(text: str, template: str, **options: Any) -> interp.Completion:
    """A completion of a given text, through the same door as a real one."""
    from interp.model.generate import completion_of

    model = interp.load(tiny_model(), tiny_tokenizer(template), **options)
    ids = tiny_tokenizer(template)(text, add_special_tokens=False)["input_ids"]
    return completion_of(model, model.encode("Hi")[0], ids)


def test_the_text_is_split_into_thinking_and_answer() -> None:
    done = scripted("Hm.\n</think>\n\nSo.<|im_end|>", templates.OPENS_THOUGHT, thinking=True)
    assert (done.thinking, done.answer, done.finished) == ("Hm.", "So.", True)
    assert done.text == "Hm.\n</think>\n\nSo."
    own = scripted("<think>\nHm.\n</think>\n\nSo.", templates.QWEN3, thinking=True)
    assert (own.thinking, own.answer, own.finished) == ("Hm.", "So.", False)
    cut = scripted("<think>\nHm. And", templates.QWEN3, thinking=True)
    assert (cut.thinking, cut.answer) == ("Hm. And", "")
    plain = scripted("So.<|im_end|>", templates.QWEN3)
    assert (plain.thinking, plain.answer) == (None, "So.")


def test_special_tokens_are_left_out_of_the_text() -> None:
    stray = scripted("<think>A<|im_start|></think>B<|im_start|>C<|im_end|>", templates.QWEN3, thinking=True)
    assert (stray.text, stray.thinking, stray.answer) == ("<think>A</think>BC", "A", "BC")


def test_generations_are_a_sequence_with_a_table() -> None:
    found = lively().generate(PROMPTS, max_new_tokens=2)
    assert len(found) == 4 and len(found[1:3]) == 2 and found[-1].prompt.text == PROMPTS[-1]
    assert found.answers == [c.answer for c in found]
    assert list(found.to_frame()["prompt"]) == PROMPTS
    assert "Generations of 4 prompts" in repr(found)


def test_another_chat_format_is_another_view_of_the_same_model() -> None:
    model = interp.load(lively().hf, tiny_tokenizer(templates.OPENS_THOUGHT))
    thinking = model.with_format(thinking=True)
    assert thinking.hf is model.hf and thinking.chat.thinks and not model.chat.thinks
    v = torch.ones(model.d_model)
    edit = interp.edits.add(v, site="resid_post", layer=0, positions="t_inst")
    with model.edited(edit):  # its positions are known to the view too
        inside = thinking.logits(PROMPTS)
    assert torch.equal(inside, thinking.logits(PROMPTS, edits=[edit]))


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    from interp.model.generate import _choose

    logits = torch.tensor([0.3, 0.5, 0.2]).log()[None]
    for top_p, draw, token in (
        (0.6, 0.0, 1), (0.6, 0.62, 1), (0.6, 0.63, 0), (0.6, 0.999, 0), (0.4, 0.999, 1), (1.0, 0.81, 2), (1.0, 0.79, 0),
    ):  # fmt: skip
        assert int(_choose(logits, torch.tensor([draw]), 1.0, top_p)) == token
