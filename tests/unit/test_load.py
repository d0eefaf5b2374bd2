"""Loading: what cannot be used is refused with what is wrong and what to do about it."""

from __future__ import annotations

import copy
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import interp
from interp.errors import ModelError, RefusalkitError, SiteError
from interp.provenance import digest_files, digest_text
from tests.helpers.slow import PROMPTS, fingerprint, loaded
from tests.helpers.tiny import CHATML, tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REFUSALKIT_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(saved, tmp_path / "tiny"))


def test_a_folder_gives_the_numbers_of_the_model_saved_in_it(folder: Path) -> None:
    model = interp.load(folder)
    torch.testing.assert_close(model.logits(PROMPTS), loaded().logits(PROMPTS))
    torch.testing.assert_close(interp.load(str(folder), dtype="float32").logits("Hi"), loaded().logits("Hi"))
    assert interp.load(folder, dtype=torch.bfloat16).dtype == torch.bfloat16
    assert "LlamaForCausalLM" in repr(model) and "3 layers" in repr(model)


def test_the_provenance_says_what_numbers_depend_on(folder: Path, tmp_path: Path) -> None:
    found = interp.load(folder).provenance()
    assert found["model"]["name"] == "tiny" and len(found["model"]["digest"]) == 16
    assert found["chat"]["template_digest"] == digest_text(CHATML)
    assert (found["dtype"], found["architecture"]) == ("float32", "LlamaForCausalLM")
    assert found["attention"] == "sdpa"
    assert {"python", "torch", "transformers", "tokenizers"} <= set(found["versions"])
    json.dumps(found)
    assert interp.load(folder).provenance() == found
    assert interp.load(folder, attn_implementation="eager").provenance()["attention"] == "eager"
    elsewhere = shutil.copytree(folder, tmp_path / "again" / "tiny")
    assert interp.load(elsewhere).provenance() == found
    weights = load_file(elsewhere / "model.safetensors")
    weights["lm_head.weight"][0, 0] += 1
    save_file(weights, elsewhere / "model.safetensors", metadata={"format": "pt"})
    assert interp.load(elsewhere).provenance()["model"]["digest"] != found["model"]["digest"]


def test_a_model_in_memory_is_named_by_its_contents() -> None:
    one, same, other = (interp.load(tiny_model(seed=s), tiny_tokenizer()).identity["digest"] for s in (0, 0, 1))
    assert one == same != other


def rewrite(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-5000])


def drop_a_tensor(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def drop_the_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def drop_the_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


def poison(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.2.self_attn.q_proj.weight"][1, 1] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "is no model: it has no config.json"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "no weights"),
    "empty weights": (lambda f: (f / "model.safetensors").write_bytes(b""), "cannot load the model.*complete"),
    "truncated weights": (truncate, "cannot load the model.*complete"),
    "a missing tensor": (
        drop_a_tensor,
        r"incomplete: 1 tensors are missing, among them model\.layers\.1\.mlp\.up_proj",
    ),
    "another shape": (lambda f: rewrite(f / "config.json", intermediate_size=64), "cannot load the model"),
    "a broken config": (lambda f: (f / "config.json").write_text("{"), "cannot load"),
    "no such architecture": (lambda f: rewrite(f / "config.json", model_type="nonesuch"), "cannot load"),
    "no chat template": (drop_the_template, "no chat template; pass one.*--chat-template FILE"),
    "no tokenizer": (drop_the_tokenizer, "tokenizer"),
    "NaN weights": (poison, r"layers\.2\.self_attn\.q_proj\.weight is not finite"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_folder_is_refused_with_one_line(damage: str, folder: Path) -> None:
    harm, message = DAMAGE[damage]
    harm(folder)
    with pytest.raises(RefusalkitError, match=message) as caught:
        interp.load(folder)
    assert "\n" not in str(caught.value)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    note = tmp_path / "notes.txt"
    note.write_text("hello")
    for name in (tmp_path / "nothing", "./nothing", "~/nothing-of-this-name", "a/b/c", str(note)):
        with pytest.raises(ModelError, match="no model folder"):
            interp.load(name)
    with pytest.raises(ModelError, match=r"no config\.json"):
        interp.load(tmp_path)


def test_a_hub_name_without_network_says_where_it_was_looked_for() -> None:
    with pytest.raises(ModelError, match="Hugging Face Hub: check the name and the network.*organism"):
        interp.load("nobody/no-such-model-of-refusalkit")


def test_an_unknown_organism_variant_lists_the_known() -> None:
    with pytest.raises(ModelError, match="no organism variant 'nonesuch'; known: .*chat"):
        interp.load("organism:nonesuch")


def test_a_model_in_memory_needs_its_tokenizer_and_its_place() -> None:
    with pytest.raises(ModelError, match="needs its tokenizer"):
        interp.load(tiny_model())
    with pytest.raises(ModelError, match="move it yourself"):
        interp.load(tiny_model(), tiny_tokenizer(), device="cpu")


def test_training_mode_is_refused_in_whole_and_in_part() -> None:
    with pytest.raises(ModelError, match=r"model\.eval\(\)"):
        interp.load(tiny_model().train(), tiny_tokenizer())
    hf = tiny_model()
    hf.model.layers[1].train()
    with pytest.raises(ModelError, match=r"model\.eval\(\)"):
        interp.load(hf, tiny_tokenizer())


def test_a_model_of_unknown_blocks_is_refused_by_what_they_look_like() -> None:
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(hidden_size=32, num_hidden_layers=2, vocab_size=320, state_size=4)
    with pytest.raises(ModelError, match=r"MambaForCausalLM are of no known kind \(children: norm, mixer"):
        interp.load(MambaForCausalLM(config).eval(), tiny_tokenizer())
    with pytest.raises(ModelError, match="no output head"):
        interp.load(tiny_model().model, tiny_tokenizer())


def test_a_block_that_works_otherwise_than_the_map_says_is_refused() -> None:
    hf = tiny_model()
    block = hf.model.layers[1]

    def forward(hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        middle = hidden_states + block.self_attn(hidden_states=block.input_layernorm(hidden_states), **kwargs)[0]
        return middle + 0.5 * block.mlp(block.post_attention_layernorm(middle))

    block.forward = forward
    with pytest.raises(SiteError, match=r"does not satisfy resid_post = resid_mid \+ mlp_out at layer 1"):
        interp.load(hf, tiny_tokenizer())
    assert interp.load(hf, tiny_tokenizer(), check=False).n_layers == 3


def test_logits_treated_in_an_unknown_way_are_refused() -> None:
    hf = tiny_model()
    own = hf.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        out = own(*args, **kwargs)
        out.logits = out.logits * 2
        return out

    hf.forward = forward
    with pytest.raises(ModelError, match="treats its logits in a way"):
        interp.load(hf, tiny_tokenizer())


def test_a_site_that_leads_nowhere_is_not_causal() -> None:
    hf = tiny_model()
    hf.model.layers[2].self_attn.o_proj.weight.data.zero_()
    model = interp.load(hf, tiny_tokenizer())
    with pytest.raises(SiteError, match="changing q at layer 2"):
        model.verify()


def test_double_precision_loads() -> None:
    assert interp.load(tiny_model().double(), tiny_tokenizer()).dtype == torch.float64


def test_the_context_length_bounds_prompts() -> None:
    with pytest.raises(interp.RefusalkitError, match="longer than the model's context of 512"):
        loaded().encode("word " * 2000)


def test_a_template_given_on_loading_replaces_a_missing_one(folder: Path, tmp_path: Path) -> None:
    drop_the_template(folder)
    path = tmp_path / "mine.jinja"
    path.write_text(CHATML)
    for template in (CHATML, path, str(path)):
        torch.testing.assert_close(interp.load(folder, chat_template=template).logits("Hi"), loaded().logits("Hi"))
    bare = copy.deepcopy(tiny_tokenizer())
    bare.chat_template = None
    with pytest.raises(ModelError, match="no chat template"):
        interp.load(tiny_model(), bare)


def test_a_format_table_shows_tokens_and_names() -> None:
    table = loaded().format("Hi")
    assert table.loc[table["names"].map(lambda n: "t_inst" in n), "token"].tolist() == ["i"]
    assert "t_post_inst" in table["names"].iloc[-1]


def test_loading_does_not_touch_a_model_in_memory() -> None:
    hf = tiny_model()
    before = fingerprint(hf)
    with pytest.raises(RefusalkitError):
        interp.load(hf, tiny_tokenizer(), chat_template="{% broken")
    interp.load(hf, tiny_tokenizer())
    assert fingerprint(hf) == before


def test_weights_are_read_once_to_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFUSALKIT_CACHE", str(tmp_path / "cache"))
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"a" * 1000)
    first = digest_files([weights])
    weights.write_bytes(b"b" * 1000)  # the same size, within the tick of a clock
    assert digest_files([weights]) != first
    weights.write_bytes(b"a" * 1000)
    old = time.time_ns() - 10**10
    os.utime(weights, ns=(old, old))
    assert digest_files([weights]) == first
    plain = Path.open

    def watched(self: Path, *args: Any, **options: Any) -> Any:
        assert self != weights, "read again"
        return plain(self, *args, **options)

    monkeypatch.setattr(Path, "open", watched)
    assert digest_files([weights]) == first
    monkeypatch.undo()
    monkeypatch.setenv("REFUSALKIT_CACHE", str(tmp_path / "cache"))
    for note in (tmp_path / "cache" / "digests").iterdir():
        note.write_text("x" * 64)  # damaged: not believed
    assert digest_files([weights]) == first


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"a")
    os.utime(weights, (1, 1))
    (tmp_path / "file").write_text("")
    want = digest_files([weights])
    monkeypatch.setenv("REFUSALKIT_CACHE", str(tmp_path / "file" / "cache"))
    assert digest_files([weights]) == want
    monkeypatch.setenv("REFUSALKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    assert digest_files([weights]) == want
