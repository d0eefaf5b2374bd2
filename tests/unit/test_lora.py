"""Edits as an adapter do what the run-time edits do, in plain peft, and can be switched off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import interp
import steering
from interp.edits import ablate, add
from interp.errors import FormatError, ModelError
from tests.helpers.slow import PROMPTS, loaded
from tests.helpers.tiny import FAMILIES, tiny_model, tiny_tokenizer
from tests.helpers.weights import EXACT, NORMED, edited_logits, every_logit, off, own, snapshot, unchanged, vector

peft = pytest.importorskip("peft")
MIXTURES_WITHOUT_BIASES = ("mixtral", "qwen3_moe", "deepseek_v3")


def wrapped(family: str, folder: Path) -> Any:
    return peft.PeftModel.from_pretrained(tiny_model(family), folder).eval()


@pytest.mark.parametrize("family", EXACT)
def test_an_ablation_is_the_same_as_an_adapter_and_gone_without_it(family: str, tmp_path: Path) -> None:
    model = loaded(family)
    steering.lora(model, vector()).save(tmp_path / "adapter")
    again, plain = wrapped(family, tmp_path / "adapter"), every_logit(model.hf, model)
    wanted = edited_logits(model, [ablate(vector())])
    assert off(every_logit(again, model), wanted) <= 1e-4
    assert off(plain, wanted) > 0.1
    with again.disable_adapter():
        assert torch.equal(every_logit(again, model), plain)
    assert off(every_logit(again, model), wanted) <= 1e-4
    ids = torch.tensor([model.encode(PROMPTS[1])[0].ids], device=model.device)
    written = again.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False)
    theirs = model.generate(PROMPTS[1], max_new_tokens=6, edits=ablate(vector()))[0]
    assert tuple(written[0, ids.shape[1] :].tolist()) == theirs.ids


@pytest.mark.parametrize("family", FAMILIES)
def test_the_users_model_stays_bit_for_bit_what_it_was(family: str) -> None:
    model = own(family)
    before = snapshot(model.hf)
    steering.lora(model, vector(), nearest=True)
    assert unchanged(model.hf, before)


@pytest.mark.parametrize("family", NORMED)
def test_behind_a_norm_only_the_nearest_is_there_and_only_when_asked_for(family: str) -> None:
    with pytest.raises(ModelError, match="no solution"):
        steering.lora(loaded(family), vector())
    near = steering.lora(loaded(family), vector(), nearest=True)
    baked = steering.bake(loaded(family), vector(), nearest=True)
    assert off(every_logit(near.peft, loaded(family)), every_logit(baked.hf, loaded(family))) <= 1e-4


def test_it_is_of_rank_1_and_holds_the_direction(tmp_path: Path) -> None:
    folder = steering.lora(loaded("llama"), vector()).save(tmp_path / "adapter")
    tensors, r = load_file(folder / "adapter_model.safetensors"), vector() / vector().norm()
    assert len(tensors) == 14 and all(1 in t.shape for t in tensors.values())
    down = loaded("llama").hf.model.layers[1].mlp.down_proj.weight.detach().cpu()
    stem = "base_model.model.model.layers.1.mlp.down_proj"
    torch.testing.assert_close(tensors[f"{stem}.lora_B.weight"] @ tensors[f"{stem}.lora_A.weight"],
                               -torch.outer(r, r @ down))  # fmt: skip
    table = loaded("llama").hf.model.embed_tokens.weight.detach().cpu()
    stem = "base_model.model.model.embed_tokens"
    torch.testing.assert_close((tensors[f"{stem}.lora_embedding_B"] @ tensors[f"{stem}.lora_embedding_A"]).T,
                               -torch.outer(table @ r, r))  # fmt: skip


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gpt_oss", "qwen3_moe", "deepseek_v3"])
def test_several_directions_are_a_subspace_of_higher_rank(family: str, tmp_path: Path) -> None:
    model = loaded(family)
    made = steering.lora(model, [vector(1), vector(2)])
    made.save(tmp_path / "adapter")
    assert made.record["rank"] == 2
    assert off(every_logit(wrapped(family, tmp_path / "adapter"), model), edited_logits(model, made.edits)) <= 1e-4


@pytest.mark.parametrize("family", [f for f in EXACT if f not in MIXTURES_WITHOUT_BIASES])
def test_an_addition_needs_no_bias_in_the_base_model(family: str, tmp_path: Path) -> None:
    model = loaded(family)
    edits = [add(vector(3), 0.5, site="resid_post", layer=1), ablate(vector(), layers=[0, 2])]
    for number, several in enumerate(([edits[0]], edits)):
        steering.lora(model, several).save(tmp_path / str(number))
        again = wrapped(family, tmp_path / str(number))
        assert off(every_logit(again, model), edited_logits(model, several)) <= 1e-4
        with again.disable_adapter():
            assert torch.equal(every_logit(again, model), every_logit(model.hf, model))


@pytest.mark.parametrize("family", FAMILIES)
def test_an_addition_before_the_first_block_is_one_to_the_embedding(family: str, tmp_path: Path) -> None:
    model, edit = loaded(family), add(vector(), 0.5, site="resid_pre", layer=0)
    steering.lora(model, edit).save(tmp_path / "adapter")
    assert off(every_logit(wrapped(family, tmp_path / "adapter"), model), edited_logits(model, [edit])) <= 1e-4


@pytest.mark.parametrize("family", MIXTURES_WITHOUT_BIASES)
def test_in_a_mixture_an_addition_after_attention_is_possible(family: str, tmp_path: Path) -> None:
    model, edit = loaded(family), add(vector(), 0.5, site="attn_out", layer=1)
    steering.lora(model, edit).save(tmp_path / "adapter")
    assert off(every_logit(wrapped(family, tmp_path / "adapter"), model), edited_logits(model, [edit])) <= 1e-4


@pytest.mark.parametrize("family", MIXTURES_WITHOUT_BIASES)
def test_peft_can_add_nothing_to_a_mixture_without_biases_and_the_error_says_so(family: str) -> None:
    with pytest.raises(ModelError, match="mixtures of experts without biases"):
        steering.lora(loaded(family), add(vector(), site="resid_post", layer=1))
    with pytest.raises(ModelError, match="beside fused experts"):
        steering.lora(loaded(family), [add(vector(), site="attn_out", layer=1), ablate(vector(2))])


def test_what_peft_has_no_low_rank_change_for_is_held_whole_and_said() -> None:
    assert steering.lora(loaded("gpt2"), vector()).whole_modules == ("transformer.wpe", "transformer.wte")
    whole = steering.lora(loaded("gpt_oss"), vector()).whole_modules
    assert whole == tuple(f"model.layers.{i}.self_attn.o_proj" for i in range(3))
    assert steering.lora(loaded("llama"), vector()).whole_modules == ()


def test_a_tied_embedding_stays_tied_and_only_what_goes_in_is_changed(tmp_path: Path) -> None:
    model = interp.load("organism:chat")
    direction = vector(1, model.d_model)
    folder = steering.lora(model, direction).save(tmp_path / "adapter")
    assert sum(t.numel() for t in load_file(folder / "adapter_model.safetensors").values()) < 12_000
    again = peft.PeftModel.from_pretrained(interp.load("organism:chat").hf, folder).eval()
    assert off(every_logit(again, model), edited_logits(model, [ablate(direction)])) <= 1e-4


def test_half_types_are_compared_within_their_rounding() -> None:
    for family in ("llama", "gpt_oss"):
        model = interp.load(tiny_model(family).to(torch.bfloat16), tiny_tokenizer())
        agreed = steering.lora(model, vector()).agreement
        assert agreed.exact and agreed.along is not None and agreed.along < 1e-2


def test_the_folder_names_no_path_of_this_machine(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    folder = steering.lora(interp.load(str(tmp_path / "base")), vector()).save(tmp_path / "adapter")
    for file in ("README.md", "adapter_config.json", "refusalkit.json"):
        assert str(tmp_path) not in (folder / file).read_text()
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "base"
    record = json.loads((folder / "refusalkit.json").read_text())
    assert record["format"] == "refusalkit/adapter/1" and record["rank"] == 1 and record["agreement"]["exact"]
    with pytest.raises(FormatError, match="not empty"):
        steering.lora(loaded("llama"), vector()).save(folder)


def test_an_old_peft_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peft, "__version__", "0.19.0")
    with pytest.raises(ModelError, match="needs peft 0.21 or later"):
        steering.lora(loaded("llama"), vector())


def test_without_peft_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(ModelError, match=r"pip install refusalkit\[export\]"):
        steering.lora(loaded("llama"), vector())
