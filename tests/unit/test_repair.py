"""A repair trains an adapter on what it says, leaves the model alone, and can be cut short and gone on with."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import interp
import steering
from interp.errors import FormatError, ModelError, NonFiniteError, PromptError
from interp.model.identity import memory_digest
from interp.text.encoded import Trace
from interp.text.prompts import Prompt
from interp.tracing.traces import Traces
from steering.repairs.adapters import ABOUT, CONFIG, WEIGHTS, adapted, lora_targets
from steering.repairs.examples import DEFAULT_REFUSAL, Example, make_examples, with_refusals
from steering.repairs.training import CHECKPOINT, Recipe, Trainer
from tests.helpers import templates
from tests.helpers.thinking import HARMONY, QWQ, R1, thinker
from tests.helpers.tiny import CHATML, tiny_model, tiny_tokenizer

FAMILIES = ("llama", "qwen3", "gpt_neox", "gpt2", "qwen3_moe", "gpt_oss")
SMALL: dict[str, Any] = {"steps": 6, "batch_size": 2, "lr": 1e-2, "refusals": ["No."]}


def some_traces(n: int = 4, label: str = "harmful") -> Traces:
    """Texts of different lengths."""
    return Traces.of(
        [Trace(Prompt(f"How to {'so ' * i}do it?", label), f"I {'hm ' * (2 * i)}see.", f"Sure {i}.") for i in range(n)]
    )


@cache
def organism() -> tuple[interp.Model, Traces]:
    model, prompts = interp.load("organism:cliff", thinking=True), interp.prompts("organism")
    return model, interp.rollouts(model, prompts.train.harmful[:12], max_new_tokens=96)


def bits(model: interp.Model) -> tuple[str, list[bool], list[str], bool]:
    hf = model.hf
    return (
        memory_digest(hf), [p.requires_grad for p in hf.parameters()], [type(m).__name__ for m in hf.modules()],
        any(m.training for m in hf.modules()),
    )  # fmt: skip


# --- what is trained on ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", [templates.OPENS_THOUGHT, R1, QWQ, HARMONY])
def test_the_loss_is_taken_on_what_follows_the_prompt_and_on_the_end_of_the_turn(template: str) -> None:
    model, traces = thinker(template=template), some_traces()
    decode = model.tokenizer.decode
    for trace, whole, answer in zip(
        traces, make_examples(model, traces), make_examples(model, traces, "answer"), strict=True
    ):
        assert whole.ids == answer.ids and whole.ids[-1] == model.chat.end_ids[0]
        assert decode(answer.ids[answer.start : -1]) == trace.answer
        taught = decode(whole.ids[whole.start : -1])
        assert trace.thinking in taught and taught.endswith(trace.answer) and "How to" not in taught
        prompt = model.encode(replace(trace, thinking=None, answer="").prompt)[0]
        assert whole.ids[: whole.start] == prompt.ids


def slow_loss(hf: Any, example: Example) -> float:
    """One text by itself, token by token."""
    with torch.no_grad():
        logits = hf(input_ids=torch.tensor([example.ids])).logits[0].double()
    losses = [-torch.log_softmax(logits[i - 1], -1)[example.ids[i]] for i in range(example.start, len(example.ids))]
    return float(torch.stack(losses).mean())


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "gemma2", "gpt_oss"])
def test_the_loss_of_a_batch_is_the_mean_of_its_texts_alone(family: str) -> None:
    model = thinker(family)
    examples = make_examples(model, some_traces(), "answer") + make_examples(model, some_traces(3))
    trainer = make_trainer(model, examples)
    with torch.no_grad():
        batch = float(trainer.loss(examples))
    assert batch == pytest.approx(np.mean([slow_loss(model.hf, e) for e in examples]), abs=2e-5)


def make_trainer(model: interp.Model, examples: list[Example], **recipe: Any) -> Trainer:
    peft_model = adapted(model, 4, 8, lora_targets(model), 0)
    return Trainer(model, peft_model, examples, examples[:3], Recipe(rank=4, alpha=8, **recipe), "key")


def test_an_update_does_not_depend_on_how_a_batch_is_cut() -> None:
    model = thinker()
    examples = make_examples(model, some_traces(6))
    runs = [make_trainer(model, examples, steps=3, lr=1e-2, token_budget=b) for b in (1, 200, 10_000)]
    losses = [run.run() for run in runs]
    assert np.allclose(losses[0], losses[1], atol=1e-5) and np.allclose(losses[0], losses[2], atol=1e-5)


def test_every_text_comes_once_before_any_comes_again() -> None:
    model = thinker()
    trainer = make_trainer(model, make_examples(model, some_traces(5)), batch_size=2)
    seen = [trainer.repairing.index(e) for step in range(10) for e in trainer.batch(step)[:2]]
    assert all(sorted(seen[i : i + 5]) == [0, 1, 2, 3, 4] for i in (0, 5, 10, 15))
    assert all(len(trainer.batch(step)) == 4 for step in range(5)), "half of each batch is retained"


def test_refusals_are_given_or_the_models_own_or_plain() -> None:
    model, traces = organism()
    own, origin = with_refusals(model, traces[:6])
    assert origin == {"own": 6}
    assert all(interp.judge(p.text, t.answer).refused for p, t in zip(own.prompts, own, strict=True))
    assert [t.thinking for t in own] == [t.thinking for t in traces[:6]]
    given, origin = with_refusals(model, traces, ["No.", " Never. "])
    assert {t.answer for t in given} == {"No.", "Never."} and origin == {"given": 12}
    plain, origin = with_refusals(thinker(template=R1), some_traces())
    assert {t.answer for t in plain} == {DEFAULT_REFUSAL} and origin == {"default": 4}
    calls: list[str] = []

    def first_only(prompt: str, answer: str) -> Any:
        calls.append(prompt)
        return interp.judge(prompt, answer if len(calls) == 1 else "Sure, here it is.")

    lent, origin = with_refusals(model, traces[:3], judged=first_only)
    assert origin == {"own": 1, "own, to another prompt": 2} and len({t.answer for t in lent}) == 1
    for bad in ([], [""], ["No.", "  "]):
        with pytest.raises(PromptError, match="none of them blank"):
            with_refusals(model, traces, bad)


# --- the adapter -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_any_family_is_repaired_and_stays_what_it_was(family: str, tmp_path: Path) -> None:
    from peft import PeftModel

    model = thinker(family)
    before = bits(model)
    found = steering.repair(model, some_traces(), out=tmp_path, retain=some_traces(2, "harmless"), **SMALL)
    assert bits(model) == before and found.losses[-1] < found.losses[0]
    prompt = some_traces()[1]
    new, old = found.model.logits([prompt]), model.logits([prompt])
    assert (new - old).abs().max() > 1e-3
    # Plain peft loads it onto a model of its own.
    fresh = tiny_model(family)
    loaded = PeftModel.from_pretrained(fresh, tmp_path)
    ids = torch.tensor([model.encode(prompt)[0].ids])
    with torch.no_grad():
        assert torch.allclose(loaded(input_ids=ids).logits[0, -1], new[0], atol=1e-4)
    assert torch.allclose(steering.load_repair(model, tmp_path).logits([prompt]), new, atol=1e-6)
    names = {t.removeprefix("base_model.model.") for t in lora_targets(model)}
    assert names and not any(n.endswith((".router", "mlp.gate")) for n in names)


def test_what_is_on_disk_is_pefts_and_says_where_it_comes_from(tmp_path: Path) -> None:
    model = thinker()
    steering.repair(model, some_traces(), out=tmp_path / "a", **SMALL)
    steering.repair(model, some_traces(), out=tmp_path / "b", **SMALL)
    assert {f.name for f in (tmp_path / "a").iterdir()} == {ABOUT, CONFIG, WEIGHTS}
    for name in (ABOUT, CONFIG, WEIGHTS):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), "same seed, same bytes"
    about = json.loads((tmp_path / "a" / ABOUT).read_text())
    assert about["base"] == model.identity and about["examples"]["refusals"] == {"given": 4}
    assert about["recipe"]["loss_on"] == "response" and len(about["losses"]) == 6 and "peft" in about["versions"]
    assert json.loads((tmp_path / "a" / CONFIG).read_text())["r"] == 8


def test_a_repaired_model_is_not_repaired_again_before_it_is_merged() -> None:
    found = steering.repair(thinker(), some_traces(), **SMALL)
    with pytest.raises(ModelError, match="has adapters already"):
        steering.repair(found.model, some_traces(), **SMALL)


def test_the_users_random_numbers_stay_where_they_were() -> None:
    torch.manual_seed(5)
    want = torch.rand(3)
    torch.manual_seed(5)
    steering.repair(thinker(), some_traces(), **SMALL)
    assert torch.equal(torch.rand(3), want)


def test_a_model_in_bfloat16_is_repaired_by_an_adapter_in_float32(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    hf = tiny_model("llama").to(torch.bfloat16)
    model = interp.load(hf, tiny_tokenizer(templates.OPENS_THOUGHT), thinking=True)
    before = memory_digest(hf)
    found = steering.repair(model, some_traces(), out=tmp_path, **SMALL)
    assert found.losses[-1] < found.losses[0] and memory_digest(hf) == before and found.model.dtype == torch.bfloat16
    assert {v.dtype for v in load_file(tmp_path / WEIGHTS).values()} == {torch.float32}


# --- cut short -------------------------------------------------------------------------------------------------------


class Stop(Exception):
    pass


def test_a_repair_that_was_cut_short_ends_as_if_it_never_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, options = thinker(), SMALL | {"steps": 9, "checkpoint_every": 2}
    retain = some_traces(3, "harmless")
    whole = steering.repair(model, some_traces(), out=tmp_path / "whole", retain=retain, **options)
    step = Trainer._step  # pyright: ignore[reportPrivateUsage]
    for at in (3, 6, 8):  # three cuts of the same repair

        def cut(self: Trainer, number: int, at: int = at) -> None:
            if number == at:
                raise Stop
            step(self, number)

        monkeypatch.setattr(Trainer, "_step", cut)
        with pytest.raises(Stop):
            steering.repair(model, some_traces(), out=tmp_path / "cut", retain=retain, **options)
        assert (tmp_path / "cut" / CHECKPOINT).exists() and not (tmp_path / "cut" / ABOUT).exists()
    resumed: list[int] = []

    def count(self: Trainer, number: int) -> None:
        resumed.append(number)
        step(self, number)

    monkeypatch.setattr(Trainer, "_step", count)
    again = steering.repair(model, some_traces(), out=tmp_path / "cut", retain=retain, **options)
    assert resumed == [8] and again.losses == whole.losses
    assert {f.name for f in (tmp_path / "cut").iterdir()} == {ABOUT, CONFIG, WEIGHTS}
    for name in (ABOUT, WEIGHTS):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    third = steering.repair(model, some_traces(), out=tmp_path / "cut", retain=retain, **options)
    assert resumed == [8] and third.losses == whole.losses, "a finished repair is read, not made again"


def test_a_folder_of_another_repair_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = thinker()
    steering.repair(model, some_traces(), out=tmp_path / "done", **SMALL)
    with pytest.raises(FormatError, match="holds a repair of another model, or with other examples"):
        steering.repair(model, some_traces(3), out=tmp_path / "done", **SMALL)
    monkeypatch.setattr(Trainer, "_step", lambda self, number: self.losses.append(0.0) if number < 2 else 1 / 0)
    monkeypatch.setattr(Trainer, "_keep", keep_empty)
    with pytest.raises(ZeroDivisionError):
        steering.repair(model, some_traces(), out=tmp_path / "half", **SMALL, checkpoint_every=2)
    with pytest.raises(FormatError, match="is damaged: delete it"):
        steering.repair(model, some_traces(), out=tmp_path / "half", **SMALL, checkpoint_every=2)
    with pytest.raises(FormatError, match="belongs to a repair with another model"):
        steering.repair(model, some_traces(), out=tmp_path / "half", **SMALL, seed=1)


def keep_empty(self: Trainer) -> None:
    from interp.tensorfile import write_tensors

    assert self.folder is not None
    self.folder.mkdir(parents=True, exist_ok=True)
    about = {"format": "refusalkit/repair-checkpoint/1", "key": self.key, "step": 2, "losses": [0.0, 0.0]}
    write_tensors(self.folder / CHECKPOINT, "repair-checkpoint", about, {"x": torch.zeros(1)})


def test_a_loss_that_is_no_number_stops_and_keeps_what_is_on_disk(tmp_path: Path) -> None:
    model = thinker()
    with pytest.raises(NonFiniteError, match="the loss became .* give a lower lr than 1e\\+30"):
        steering.repair(model, some_traces(), out=tmp_path, **SMALL | {"lr": 1e30, "checkpoint_every": 1})
    assert (tmp_path / CHECKPOINT).exists() and not (tmp_path / ABOUT).exists()


# --- what cannot be done ---------------------------------------------------------------------------------------------


def test_what_cannot_be_repaired_is_named() -> None:
    model, traces = thinker(), some_traces()
    with pytest.raises(PromptError, match="nothing was picked"):
        steering.repair(model, traces[:0])
    plain: Any = tiny_tokenizer.__wrapped__(CHATML)
    plain.get_added_vocab = lambda: {}
    with pytest.raises(ModelError, match="does not think"):
        steering.repair(interp.load(tiny_model(), plain), traces)
    with pytest.raises(ModelError, match="its thinking is off"):
        steering.repair(interp.load("organism:cliff"), organism()[1][:2])
    with pytest.raises(PromptError, match="has an empty thought"):
        steering.repair(model, Traces.of([Trace("How?", " ", "So.")]))
    with pytest.raises(PromptError, match="more than the model's context|longer than the model's context"):
        steering.repair(model, Traces.of([Trace("How?", "hm " * 300, "So.")]), refusals=["No."])
    with pytest.raises(PromptError, match="no answer to train on"):
        steering.repair(model, traces, retain=Traces.of([Trace("How?", "hm", " ")]), **SMALL)
    for name, value in (("steps", 0), ("rank", 0), ("lr", 0.0), ("lr", float("nan")), ("batch_size", 0)):
        with pytest.raises(PromptError, match=f"{name}="):
            steering.repair(model, traces, **SMALL | {name: value})
    with pytest.raises(PromptError, match="loss_on='thought'"):
        steering.repair(model, traces, loss_on="thought", **SMALL)  # pyright: ignore[reportArgumentType]
    with model.edited(interp.edits.scale_heads([(0, 0)], 0.0)), pytest.raises(ModelError, match="leave the"):
        steering.repair(model, traces, **SMALL)


def test_an_adapter_of_another_model_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    model = thinker()
    steering.repair(model, some_traces(), out=tmp_path, **SMALL)
    with pytest.raises(ModelError, match="not these weights"):
        steering.load_repair(thinker("qwen3"), tmp_path)
    with pytest.raises(FormatError, match="is no folder of a finished repair"):
        steering.load_repair(model, tmp_path / "none")
    weights, about = (tmp_path / WEIGHTS).read_bytes(), (tmp_path / ABOUT).read_text()
    (tmp_path / WEIGHTS).write_bytes(weights[:-9])
    with pytest.raises(FormatError, match="missing, or not the adapter"):
        steering.load_repair(model, tmp_path)
    (tmp_path / WEIGHTS).write_bytes(weights)
    for text in ("{", "[]", "{}", about.replace("refusalkit/repair/1", "other")):
        (tmp_path / ABOUT).write_text(text)
        with pytest.raises(FormatError, match="is damaged"):
            steering.load_repair(model, tmp_path)
    changed = json.loads(about)
    changed["lora"]["targets"] = ["lm_head"]
    (tmp_path / ABOUT).write_text(json.dumps(changed))
    with pytest.raises(FormatError, match="names linear maps"):
        steering.load_repair(model, tmp_path)
    changed["lora"] = json.loads(about)["lora"] | {"rank": 2}
    (tmp_path / ABOUT).write_text(json.dumps(changed))
    with pytest.raises(FormatError, match="other names or shapes"):
        steering.load_repair(model, tmp_path)
