"""Formats of other programs: a vector does there what it does here, and what a format cannot say is refused or told."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import interp
import steering
from interp.errors import DirectionError, FormatError, RefusalkitError
from steering import SteeringVector
from tests.helpers.slow import PROMPTS, loaded
from tests.helpers.tiny import tiny_model, tiny_tokenizer
from tests.helpers.vector_files import INPUTS, as_its_reader_reads, hooked_logits

WIDTH = 48
NAMES = {
    "safetensors": "v.safetensors", "gguf": "v.gguf", "repeng": "v.gguf", "svec": "v.svec", "easysteer": "v.gguf",
    "refusal_direction": "run",
}  # fmt: skip
FOREIGN = [name for name in NAMES if name != "safetensors"]
OUTPUTS = [name for name in FOREIGN if name not in INPUTS]


def noise(seed: int, width: int = WIDTH) -> Tensor:
    return torch.randn(width, generator=torch.Generator().manual_seed(seed))


def vector(format: str, site: str = "resid_post", **changes: Any) -> SteeringVector:
    """A vector that a format can hold: two layers where it can, among them the lowest it can."""
    lowest = {"gguf": 1, "repeng": 0, "easysteer": 0}.get(format, 0) + (format not in INPUTS and site == "resid_pre")
    layers = [lowest] if format == "refusal_direction" else sorted({lowest, 1 if site == "resid_post" else 2})
    fields: dict[str, Any] = {"coefficient": -2.5, "provenance": {"model_type": "llama", "method": "by hand"}}
    return SteeringVector({layer: noise(layer) for layer in layers}, site, **(fields | changes))


def written(folder: Path, format: str, made: SteeringVector, **options: Any) -> steering.Exported:
    return made.export(folder / NAMES[format], format, **options)


def test_every_format_is_described_and_reachable() -> None:
    assert dict(steering.FORMATS).keys() == NAMES.keys()
    assert all(steering.FORMATS.values())


# --- the same behaviour ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("site", ["resid_pre", "resid_post"])
@pytest.mark.parametrize("format", FOREIGN)
def test_the_file_does_in_plain_hooks_what_the_vector_does_here_and_the_import_does_it_again(
    format: str, site: str, family: str, tmp_path: Path
) -> None:
    model = loaded(family)
    made = vector(format, site, provenance={})
    path = written(tmp_path, format, made, model=model).path
    here = model.logits(PROMPTS, edits=made.edits())
    there = hooked_logits(model, family, as_its_reader_reads(format, path), "inputs" if format in INPUTS else "outputs")
    back = model.logits(PROMPTS, edits=steering.import_vector(path, format, model=model).edits())
    assert float((here - model.logits(PROMPTS)).abs().max()) > 0.1, "there is something to see"
    torch.testing.assert_close(here, there, rtol=0, atol=2e-5)
    torch.testing.assert_close(back, there, rtol=0, atol=2e-5)


@pytest.mark.parametrize("format", FOREIGN)
def test_one_block_further_up_or_down_is_not_the_same(format: str, tmp_path: Path) -> None:
    """The control of the test above: it would notice an off-by-one."""
    model = loaded("llama")
    made = vector(format)
    held = as_its_reader_reads(format, written(tmp_path, format, made, model=model).path)
    here = model.logits(PROMPTS, edits=made.edits())
    for wrong in ("inputs", "outputs"):
        shifted = {layer: v for layer, v in held.items() if layer < 3}
        there = hooked_logits(model, "llama", shifted, wrong)
        right = wrong == ("inputs" if format in INPUTS else "outputs")
        assert (float((here - there).abs().max()) < 1e-4) == right


# --- round trips -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", FOREIGN)
def test_what_a_format_can_carry_comes_back_bit_for_bit_and_the_same_vector_gives_the_same_bytes(
    format: str, tmp_path: Path
) -> None:
    made = vector(format, "resid_pre" if format in INPUTS else "resid_post")
    done = written(tmp_path, format, made)
    back = steering.import_vector(done.path, format)
    assert (back.site, back.layers, back.coefficient, back.positions, back.phase) == (
        made.site, made.layers, 1.0, ("all",), "both"
    )  # fmt: skip
    assert all(torch.equal(back.vectors[n], made.vectors[n] * -2.5) for n in made.layers)
    (tmp_path / "again").mkdir()
    again = written(tmp_path / "again", format, back)
    assert [f.read_bytes() for f in again.files] == [f.read_bytes() for f in done.files]
    assert sorted(p for p in tmp_path.rglob("*") if "partial" in p.name) == []


def test_our_own_format_brings_back_everything(tmp_path: Path) -> None:
    made = vector("safetensors", positions=("t_inst",), phase="prompt", site="attn_out")
    done = made.export(tmp_path / "v.safetensors")
    back = steering.import_vector(done.path)
    assert (done.format, done.files, done.notes) == ("safetensors", (tmp_path / "v.safetensors",), ())
    assert (back.site, back.coefficient, back.positions, back.phase) == ("attn_out", -2.5, ("t_inst",), "prompt")
    assert back.provenance == made.provenance
    assert back.export(tmp_path / "again.safetensors").path.read_bytes() == done.path.read_bytes()


@pytest.mark.parametrize(
    ("name", "format"),
    [("v.safetensors", "safetensors"), ("v.gguf", "gguf"), ("v.svec", "svec"), ("run", "refusal_direction")],
)
def test_the_suffix_or_the_folder_says_the_format(name: str, format: str, tmp_path: Path) -> None:
    if format == "refusal_direction":
        (tmp_path / name).mkdir()
    made = vector(format, "resid_pre" if format in INPUTS else "resid_post")
    assert steering.export(made, tmp_path / name).format == format
    assert steering.import_vector(tmp_path / name).layers == made.layers
    if format == "refusal_direction":
        assert steering.import_vector(tmp_path / name / "direction.pt").layers == made.layers


def test_a_gguf_file_says_itself_which_program_it_is_for(tmp_path: Path) -> None:
    for format, expected in (("gguf", "gguf"), ("repeng", "repeng"), ("easysteer", "easysteer")):
        written(tmp_path, format, vector(format))
        assert steering.import_vector(tmp_path / "v.gguf").provenance["format"] == expected


def test_what_an_import_knows_is_said_and_what_it_does_not_is_named(tmp_path: Path) -> None:
    for format in FOREIGN:
        made = vector(format, "resid_pre", provenance={"model_type": "llama", "method": "by hand", "position": -2})
        found = steering.import_vector(written(tmp_path, format, made).path, format).provenance
        assert found["format"] == format and len(found["file_digest"]) == 64
        said = {"position": -2} if format == "refusal_direction" else {"model_type": "llama"}
        said |= {"method": "by hand"} if format == "easysteer" else {}
        assert {k: v for k, v in found.items() if k not in ("format", "file_digest", "unknown")} == said
        assert set(found["unknown"]) == {
            "chat", "data", "dtype", "method", "model", "position", "seed", "versions"
        } - set(said)  # fmt: skip


def test_variances_of_an_svec_are_kept(tmp_path: Path) -> None:
    whole = {"model_type": "llama", "directions": {"1": [0.5, -1], "0": [2, 3]}, "explained_variances": {"1": 0.25}}
    (tmp_path / "a.svec").write_text(json.dumps(whole))
    back = steering.import_vector(tmp_path / "a.svec")
    again = json.loads(back.export(tmp_path / "b.svec").path.read_text())
    assert again == {**whole, "directions": {"0": [2.0, 3.0], "1": [0.5, -1.0]}}


# --- what a format cannot say ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", FOREIGN)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positions": ("t_inst",)}, r"every token.*t_inst, phase prompt.*dataclasses.replace"),
        ({"phase": "generation"}, "every token.*phase generation"),
        ({"site": "mlp_out"}, "acts at mlp_out: use the format 'safetensors'"),
        ({"coefficient": 1e38, "vectors": {1: torch.full((4,), 100.0)}}, "no finite number"),
    ],
)
def test_a_vector_that_acts_elsewhere_is_refused_with_the_reason_and_the_remedy(
    format: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(RefusalkitError, match=message):
        written(tmp_path, format, replace(vector(format), **({"phase": None} | changes)))
    assert list(tmp_path.rglob("*")) == [], "nothing is left behind"


def test_what_is_lost_is_noted(tmp_path: Path) -> None:
    notes = {format: " / ".join(written(tmp_path, format, vector(format, "resid_pre")).notes) for format in FOREIGN}
    for text in notes.values():
        assert "coefficient -2.5 is multiplied" in text and "provenance is left behind" in text
    assert all("output of blocks" in notes[format] for format in OUTPUTS)
    assert "llama.cpp would refuse" in notes["repeng"] and "ControlModel with layers [0, 1]" in notes["repeng"]
    assert "fp16" in notes["svec"] and "behavior_layer_ids=[0, 2]" in notes["svec"]
    assert "pos is null" in notes["refusal_direction"]
    plain = vector("gguf", coefficient=1, provenance={})
    assert plain.export(tmp_path / "v.gguf").notes == (
        "the type of the model is not known, so the file does not say it: give model=",
    )


@pytest.mark.parametrize(("site", "layer"), [("resid_post", 0), ("resid_pre", 1)])
def test_block_0_is_refused_for_llama_cpp_with_the_reason(site: str, layer: int, tmp_path: Path) -> None:
    made = SteeringVector({layer: noise(1), 2: noise(2)}, site, provenance={"model_type": "llama"})
    with pytest.raises(FormatError, match=r"llama\.cpp never steers block 0.*whole file.*leave that layer out"):
        made.export(tmp_path / "v.gguf")
    path = made.export(tmp_path / "v.gguf", "repeng").path
    with pytest.raises(FormatError, match=r"llama\.cpp never steers block 0.*import it as 'repeng'"):
        steering.import_vector(path, "gguf")
    assert steering.import_vector(path).layers[0] == 0


@pytest.mark.parametrize("format", OUTPUTS)
def test_what_enters_the_first_block_is_no_blocks_output(format: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="enters block 0.*output of none"):
        SteeringVector({0: noise(1)}, "resid_pre", provenance={"model_type": "llama"}).export(
            tmp_path / "v.gguf", format
        )


@pytest.mark.parametrize("format", INPUTS)
def test_what_leaves_the_last_block_is_no_blocks_input(format: str, tmp_path: Path) -> None:
    made = SteeringVector({2: noise(1)}, "resid_post", provenance={"model_type": "llama"})
    with pytest.raises(FormatError, match="leaves the last one.*input of none"):
        written(tmp_path, format, made, model=loaded("llama"))
    assert any("if layer 2 is the model's last" in note for note in written(tmp_path, format, made).notes)


def test_refusal_direction_holds_one_layer(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="one direction of one layer"):
        vector("svec").export(tmp_path / "run", "refusal_direction")


@pytest.mark.parametrize(
    ("provenance", "pos"),
    [
        ({"position": -2}, -2), ({"position": "post_inst[-4]"}, -4), ({"position": "t_post_inst"}, -1),
        ({"directions": [{"position": "post_inst[-3]"}]}, -3), ({"position": "t_inst"}, None),
        ({"position": "inst[-3]"}, None), ({"position": 3}, None), ({}, None),
    ],
)  # fmt: skip
def test_the_token_a_direction_was_read_at_is_carried(provenance: Any, pos: int | None, tmp_path: Path) -> None:
    made = SteeringVector({1: noise(1)}, "resid_pre", provenance=provenance)
    done = made.export(tmp_path / "run", "refusal_direction")
    assert json.loads(done.files[1].read_text()) == {"pos": pos, "layer": 1}
    assert steering.import_vector(done.path).provenance.get("position") == pos


# --- models ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", NAMES)
def test_a_vector_for_another_model_is_refused_both_ways(format: str, tmp_path: Path) -> None:
    model = loaded("llama")
    wide, high = noise(1, 64), 7
    wrong = [
        (SteeringVector({1: wide}, "resid_pre"), "width 64; this model's residual stream has 48"),
        (SteeringVector({high: noise(1)}, "resid_pre"), r"acts at layer \d; this model has layers 0 to 2"),
        (SteeringVector({1: noise(1)}, "resid_pre", provenance={"model_type": "qwen3"}), "of type qwen3; this one is"),
        (
            SteeringVector({1: noise(1)}, "resid_pre", provenance={"of": [{"architecture": "GPT2LMHeadModel"}]}),
            "of type gpt2; this one is llama",
        ),
    ]
    for made, message in wrong:
        with pytest.raises(DirectionError, match=message):
            written(tmp_path, format, made, model=model)
        if format in OUTPUTS:
            made = replace(made, site="resid_post")
        typed = made if "type" in message else replace(made, provenance={"model_type": "llama"})
        path = written(tmp_path, format, typed).path
        if format != "refusal_direction" or "type" not in message:  # its files don't say the type
            with pytest.raises(DirectionError, match=message):
                steering.import_vector(path, format, model=model)


@pytest.mark.parametrize("format", ["repeng", "easysteer", "svec"])
def test_formats_that_name_the_models_type_ask_for_it(format: str, tmp_path: Path) -> None:
    bare = vector(format, provenance={"sum_of": [{"provenance": {"architecture": "UnheardOfForCausalLM"}}]})
    with pytest.raises(FormatError, match="what type of model.*give model="):
        written(tmp_path, format, bare)
    found = steering.import_vector(written(tmp_path, format, bare, model=loaded("llama")).path, format)
    assert found.provenance["model_type"] == "llama"
    told = replace(bare, provenance={"of": loaded("gpt2").provenance()})
    assert steering.import_vector(written(tmp_path, format, told).path, format).provenance["model_type"] == "gpt2"


@pytest.mark.parametrize(
    ("family", "hint"),
    [("gpt_neox", "gptneox"), ("mistral", "llama"), ("qwen3_moe", "qwen3moe"), ("gemma3", "gemma3")],
)
def test_llama_cpps_own_names_for_architectures_are_understood(family: str, hint: str, tmp_path: Path) -> None:
    path = vector("gguf", provenance={"model_type": hint}).export(tmp_path / "v.gguf").path
    steering.import_vector(path, model=loaded(family))
    with pytest.raises(DirectionError, match=f"of type {hint}"):
        steering.import_vector(path, model=interp.load(tiny_model("gpt2"), tiny_tokenizer(), check=False))


# --- files that don't fit --------------------------------------------------------------------------------------------


def svec(**changes: Any) -> str:
    whole = {"model_type": "llama", "directions": {"1": [0.5, 1.0]}, "explained_variances": {"1": 0.5}}
    return json.dumps(whole | changes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no readable JSON"), ("[]", "no object"), ("[" * 100_000, "no readable JSON"), ("{}", "model_type"),
        ('{"a": NaN}', "NaN is no JSON"), ('{"a": 1, "a": 1}', "'a' twice"),
        ('{"a": ' + "9" * 5000 + "}", "no readable JSON"),
        ('{"directions": ' + '{"a":' * 50_000, "no readable JSON"), (svec(model_type=None), "model_type is no text"),
        (svec(directions=[]), "directions are no object"), (svec(directions={}), "at least one layer"),
        (svec(directions={"01": [1.0]}), "a layer '01'"), (svec(directions={"-1": [1.0]}), "a layer '-1'"),
        (svec(directions={"1": "x"}), "no list"), (svec(directions={"1": [True]}), "True, no number"),
        (svec(directions={"1": [[1.0]]}), "no number"), (svec(directions={"1": []}), r"not \[width\]"),
        (svec(directions={"1": [1e300]}), "NaN or infinite"), (svec(directions={"1": [10**400]}), "too large"),
        (svec(directions={"1": [1.0], "2": [1.0, 2.0]}), "widths differ"),
        (svec(directions={"1": [1.0], "100000": [1.0]}), "a layer '100000'"),
        (svec(explained_variances=3), "explained_variances are no object"),
        (svec(explained_variances={"1": "x"}), "no number"), (svec(explained_variances={"x": 1}), "a layer 'x'"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_an_svec_that_is_none_is_refused_with_the_reason(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "v.svec").write_text(text)
    with pytest.raises((FormatError, DirectionError), match=message) as caught:
        steering.import_vector(tmp_path / "v.svec")
    assert "v.svec" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda about: about | {"layer": -1}, "layer is -1"), (lambda about: about | {"layer": "1"}, "layer is '1'"),
        (lambda about: about | {"layer": True}, "layer is True"), (lambda about: about | {"pos": 0}, "pos is 0"),
        (lambda about: about | {"pos": 1.5}, "pos is 1.5"), (lambda about: {"layer": 1}, "pos is None"),
        (lambda about: [about], "no object"),
    ],
)  # fmt: skip
def test_metadata_of_a_direction_that_say_nothing_sensible_are_refused(
    change: Callable[[Any], Any], message: str, tmp_path: Path
) -> None:
    done = vector("refusal_direction").export(tmp_path / "run", "refusal_direction")
    about = done.files[1]
    about.write_text(json.dumps(change(json.loads(about.read_text()))))
    with pytest.raises(FormatError, match=message):
        steering.import_vector(done.path)


def test_a_direction_comes_from_the_means_it_was_chosen_from(tmp_path: Path) -> None:
    means = torch.randn(4, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    run, inner = tmp_path / "run", tmp_path / "run" / "generate_directions"
    inner.mkdir(parents=True)
    (run / "direction_metadata.json").write_text('{"pos": -3, "layer": 2}')
    torch.save(means, inner / "mean_diffs.pt")
    from_means = steering.import_vector(run)
    assert from_means.layers == (2,) and torch.equal(from_means.vectors[2], means[-3, 2].float())
    assert from_means.provenance["method"] == "difference in means"
    torch.save(means[-3, 2], run / "direction.pt")  # a view, so that the file has all means in it
    for path in (run, run / "direction.pt", inner / "mean_diffs.pt"):
        assert torch.equal(steering.import_vector(path).vectors[2], means[-3, 2].float())
    (run / "direction_metadata.json").write_text('{"pos": -2, "layer": 2}')
    with pytest.raises(DirectionError, match="not what .*mean_diffs.pt has at position -2 of layer 2"):
        steering.import_vector(run)
    for about, message in (('{"pos": -5, "layer": 2}', "4 positions"), ('{"pos": null, "layer": 2}', "the position")):
        (run / "direction_metadata.json").write_text(about)
        with pytest.raises(RefusalkitError, match=message):
            steering.import_vector(inner / "mean_diffs.pt")


def test_a_write_that_fails_leaves_no_direction_beside_the_metadata_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = vector("refusal_direction", "resid_pre")
    made.export(tmp_path / "run", "refusal_direction")
    monkeypatch.setattr("steering.formats.refusal_direction.write_json_file", _no_room)
    with pytest.raises(FormatError, match="no room"):
        replace(made, vectors={2: noise(7)}).export(tmp_path / "run", "refusal_direction")
    with pytest.raises(FormatError, match="no file at .*direction_metadata.json"):
        steering.import_vector(tmp_path / "run")


def _no_room(*_given: Any) -> None:
    raise FormatError("there is no room")


def test_a_provenance_as_deep_as_a_file_can_have_it_is_searched(tmp_path: Path) -> None:
    deep: Any = {"model_type": "qwen3"}
    for _ in range(900):
        deep = {"of": [deep]}
    made = SteeringVector({1: noise(1)}, provenance=deep)
    with pytest.raises(DirectionError, match="of type qwen3"):
        steering.export(made, tmp_path / "v.safetensors", model=loaded("llama"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_directions_of_every_precision_are_read(dtype: torch.dtype, tmp_path: Path) -> None:
    made = noise(1).to(dtype)
    torch.save(made, tmp_path / "direction.pt")
    (tmp_path / "direction_metadata.json").write_text('{"pos": -1, "layer": 0}')
    assert torch.equal(steering.import_vector(tmp_path).vectors[0], made.float())


def test_what_is_no_file_or_no_format_says_so(tmp_path: Path) -> None:
    for format, name in NAMES.items():
        with pytest.raises(FormatError, match="no .*file"):
            steering.import_vector(tmp_path / "missing" / name, format)
    (tmp_path / "loop.gguf").symlink_to(tmp_path / "loop.gguf")
    (tmp_path / "folder.gguf").mkdir()
    for name, format in (("loop.gguf", None), ("folder.gguf", "gguf"), ("folder.gguf", "safetensors")):
        with pytest.raises(FormatError, match=name):
            steering.import_vector(tmp_path / name, format)
    with pytest.raises(FormatError, match=r"no format 'onnx'; known: safetensors, gguf"):
        vector("gguf").export(tmp_path / "v.onnx", "onnx")
    with pytest.raises(FormatError, match="does not say which format is wanted"):
        vector("gguf").export(tmp_path / "v.bin")
    with pytest.raises(FormatError, match="no vector file"):
        steering.import_vector(tmp_path / "v.bin")
    for format, name in (("svec", "v.json"), ("easysteer", "v.bin")):
        with pytest.raises(FormatError, match="end in"):
            vector(format).export(tmp_path / name, format)
    (tmp_path / "file").write_text("x")
    for format, name in NAMES.items():
        with pytest.raises(FormatError, match="cannot"):
            vector(format).export(tmp_path / "file" / name, format)
