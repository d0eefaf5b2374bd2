"""Whatever the command is given, it ends with one message that says what to do, and never with a traceback."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from safetensors.torch import load_file, save_file

import interp
from interp.errors import ModelError, PromptError
from steering import SteeringVector
from tests.helpers.command import refusalkit, refused
from tests.helpers.tiny import tiny_model, tiny_tokenizer

QUICK = ("--max-new-tokens", "4", "--quiet")


@pytest.fixture
def broken(llama: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, to be broken."""
    return Path(shutil.copytree(llama, tmp_path / "broken"))


def edit_weights(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def edit_json(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value))


# --- models ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("./nowhere", "no model folder at ./nowhere"),
        ("nowhere/", "no model folder at nowhere/"),
        ("/nowhere/at/all", "no model folder at /nowhere/at/all"),
        ("~nobody-of-this-name/model", "no model folder"),
        ("x" * 5000, "no model folder"),
        ("some-hub-name", "check the name and the network"),
        ("owner/name", "check the name and the network"),
        ("organism:nonesuch", "no organism variant 'nonesuch'; known: chat"),
    ],
)
def test_a_model_that_does_not_exist_is_named(name: str, words: str, files: tuple[str, ...], tmp_path: Path) -> None:
    message = refused("audit", name, *files, *QUICK, "--out", tmp_path / "out")
    assert words in message
    assert len(message) < 600
    assert not (tmp_path / "out").exists()


def test_a_folder_or_file_that_is_no_model_is_named(files: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no config.json" in refused("audit", tmp_path / "empty", *files, "--out", tmp_path / "out")
    assert "is a file" in refused("audit", files[1], *files, "--out", tmp_path / "out")


def nan_weight(weights: dict[str, Any]) -> None:
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] = float("nan")


def huge_weights(weights: dict[str, Any]) -> None:
    for name in weights:
        if "proj" in name or "norm" in name:
            weights[name] *= 1e30


def missing_weight(weights: dict[str, Any]) -> None:
    del weights["model.layers.1.mlp.up_proj.weight"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (nan_weight, ("model.layers.1.mlp.up_proj.weight is not finite", "fetch it again")),
        (huge_weights, ("is not finite", "check the weights")),
        (missing_weight, ("incomplete", "model.layers.1.mlp.up_proj.weight")),
    ],
)
def test_weights_that_cannot_be_used_are_named(
    change: Callable[[dict[str, Any]], None],
    words: tuple[str, ...],
    broken: Path,
    files: tuple[str, ...],
    tmp_path: Path,
) -> None:
    edit_weights(broken, change)
    message = refused("audit", broken, *files, *QUICK, "--out", tmp_path / "out")
    assert all(word in message for word in words), message


def cut_weights(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def no_tokenizer(folder: Path) -> None:
    for file in folder.glob("token*"):
        file.unlink()


def no_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


def bad_config(folder: Path) -> None:
    (folder / "config.json").write_text("{ half")


def unknown_kind(folder: Path) -> None:
    edit_json(folder / "config.json", lambda config: config.update(model_type="nonesuch"))


def small_vocabulary(folder: Path) -> None:
    edit_json(folder / "config.json", lambda config: config.update(vocab_size=200))
    edit_weights(folder, lambda weights: weights.update({k: v[:200] for k, v in weights.items() if len(v) == 320}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut_weights, "is the folder complete?"),
        (no_weights, "no weights"),
        (no_tokenizer, "cannot load a tokenizer"),
        (no_template, "--chat-template FILE"),
        (bad_config, "not a valid JSON file"),
        (unknown_kind, "nonesuch"),
        (small_vocabulary, "belongs to another model"),
    ],
)
def test_a_folder_that_is_half_a_model_is_refused(
    damage: Callable[[Path], None], words: str, broken: Path, files: tuple[str, ...], tmp_path: Path
) -> None:
    damage(broken)
    assert words in refused("audit", broken, *files, *QUICK, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- prompts --------------------------------------------------------------------------------------------------------


def harmless(files: tuple[str, ...]) -> list[str]:
    return Path(files[3]).read_text().splitlines()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda lines, _: [*lines, lines[3]], ("line 41", "was already given", "line 4")),
        (lambda lines, other: [*lines, other], ("line 41", "is harmless, but it is harmful at", "remove it")),
        (lambda lines, _: [*lines, "word " * 10_000], ("longer than the model's context of 512",)),
        (lambda lines, _: lines[:5], ("5 harmless prompts", "add 15 more")),
        (lambda lines, _: lines[:21], ("harmless prompts to test on", "add prompts")),
        (lambda _lines, _: [], ("changed.txt is empty", "at least 20 of each class")),
    ],
)
def test_prompts_that_cannot_be_used_are_named(
    change: Callable[[list[str], str], list[str]],
    words: tuple[str, ...],
    llama: Path,
    files: tuple[str, ...],
    tmp_path: Path,
) -> None:
    other = json.loads(Path(files[1]).read_text().splitlines()[0])["prompt"]
    file = tmp_path / "changed.txt"
    file.write_text("\n".join(change(harmless(files), other)))
    message = refused("audit", llama, *files[:2], "--harmless", file, *QUICK, "--out", tmp_path / "out")
    assert all(word in message for word in words), message
    assert not (tmp_path / "out").exists()


def test_an_empty_prompt_is_named_by_its_line(llama: Path, files: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / "c.jsonl"
    file.write_text(Path(files[1]).read_text() + '{"prompt": " "}\n')
    message = refused("audit", llama, "--harmful", file, *files[2:], "--out", tmp_path / "out")
    assert "c.jsonl, line 41: the prompt is empty" in message


@pytest.mark.parametrize(
    "name", ["missing.jsonl", "~nobody-of-this-name/a.txt", "x" * 5000, "nul\0.txt", ".", "owner/none"]
)
def test_a_prompt_file_that_does_not_exist_is_named(
    name: str, llama: Path, files: tuple[str, ...], tmp_path: Path
) -> None:
    message = refused("audit", llama, "--harmful", name, *files[2:], "--out", tmp_path / "out")
    assert name[:20] in message.replace("\\x00", "\0")
    assert len(message) < 600


def test_one_file_without_the_other_is_refused(llama: Path, files: tuple[str, ...], tmp_path: Path) -> None:
    for half in (files[:2], files[2:]):
        assert "give both --harmful and --harmless" in refused("audit", llama, *half, "--out", tmp_path / "out")


def test_an_answer_that_does_not_fit_the_context_is_refused(
    llama: Path, files: tuple[str, ...], tmp_path: Path
) -> None:
    message = refused("audit", llama, *files, "--max-new-tokens", "500", "--quiet", "--out", tmp_path / "out")
    assert "does not fit the model's context of 512" in message
    assert "--max-new-tokens" in message


# --- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("--n-train", "abc"), ("--n-train", "3"), ("--max-kl", "nan"), ("--max-kl", "-1"), ("--seed", "-1"),
        ("--seed", "9" * 30), ("--max-new-tokens", "0"), ("--n-random", "1.5"), ("--nonsense",),
    ],
)  # fmt: skip
def test_a_bad_option_is_a_usage_error(
    arguments: tuple[str, ...], llama: Path, files: tuple[str, ...], tmp_path: Path
) -> None:
    done = refusalkit("audit", llama, *files, "--out", tmp_path / "out", *arguments)
    assert done.code == 2
    assert arguments[0] in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "arguments", [(), ("nonsense",), ("audit",), ("audit", "x"), ("organism",), ("organism", "train")]
)
def test_an_incomplete_command_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    done = refusalkit(*arguments)
    assert done.code == 2
    assert "Usage" in done.out + done.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--max-kl", "inf"), "max_kl is inf"),
        (("--device", "banana"), "cannot put the model on the device 'banana'"),
        (("--dtype", "banana"), "'banana' is no floating-point type"),
        (("--dtype", "int8"), "'int8' is no floating-point type"),
        (("--device", "cpu", "--device-map", "auto"), "give one of them"),
        (("--chat-template", "none.jinja"), "no chat template at none.jinja"),
    ],
)
def test_an_option_that_cannot_be_met_is_named(
    arguments: tuple[str, ...], words: str, llama: Path, files: tuple[str, ...], tmp_path: Path
) -> None:
    assert words in refused("audit", llama, *files, *QUICK, *arguments, "--out", tmp_path / "out")


def test_a_template_that_is_no_text_is_refused(llama: Path, files: tuple[str, ...], tmp_path: Path) -> None:
    binary = tmp_path / "binary.jinja"
    binary.write_bytes(b"\xff\x00\xfe")
    message = refused("audit", llama, *files, *QUICK, "--chat-template", binary, "--out", tmp_path / "out")
    assert "no UTF-8 text" in message


@pytest.mark.parametrize("where", ["file/out", "/proc/no-such-folder", "/dev/null/out"])
def test_a_folder_that_cannot_be_written_is_named(
    where: str, llama: Path, files: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    message = refused("audit", llama, *files, *QUICK, "--out", tmp_path / where)
    assert f"cannot write to {tmp_path / where}" in message
    assert "--out" in message


def test_a_file_in_the_place_of_the_folder_is_a_usage_error(
    llama: Path, files: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    assert refusalkit("audit", llama, *files, "--out", tmp_path / "file").code == 2
    assert (tmp_path / "file").read_text() == "mine"


# --- vectors --------------------------------------------------------------------------------------------------------


def test_a_vector_of_another_width_is_refused(tmp_path: Path) -> None:
    import torch

    model = interp.load(tiny_model(), tiny_tokenizer())
    file = SteeringVector({1: torch.ones(64)}).save(tmp_path / "v.safetensors")
    with pytest.raises(interp.RefusalkitError, match=r"64.*48|48.*64"):
        model.generate(["Hello"], max_new_tokens=2, edits=SteeringVector.load(file))


# --- tracebacks and help --------------------------------------------------------------------------------------------


def test_debug_gives_the_traceback(llama: Path, files: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        refusalkit("audit", "./nowhere", *files, "--out", tmp_path / "out", "--debug")
    with pytest.raises(PromptError):
        refusalkit("--debug", "audit", llama, *files[:2], "--out", tmp_path / "out")


def process(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = "from refusalkit.cli import main; main()"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_real_process_ends_with_one_line_and_with_debug_a_traceback(tmp_path: Path) -> None:
    arguments = ("audit", "./nowhere", "--out", str(tmp_path / "out"))
    plain = process(*arguments)
    assert (plain.returncode, plain.stdout) == (1, "")
    assert plain.stderr == "refusalkit: there is no model folder at ./nowhere: check the path\n"
    debug = process(*arguments, "--debug")
    assert debug.returncode == 1
    assert "Traceback (most recent call last)" in debug.stderr


LIGHT = """
import sys
from refusalkit.cli import main
try:
    main()
finally:
    assert not {"torch", "transformers", "sklearn", "pandas", "plotly", "datasets"} & set(sys.modules)
"""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("./nope",), "no model folder at ./nope"),
        (("organism:nope",), "no organism variant 'nope'"),
        (("organism", "--harmful", "nofile.txt", "--harmless", "nofile.txt"), "nofile.txt: there is no such file"),
        (("organism", "--harmful", "{empty}", "--harmless", "{empty}"), "at least 20 of each class"),
        (("organism", "--chat-template", "nope.jinja"), "no chat template at nope.jinja"),
        (("organism", "--out", "/dev/null/out"), "cannot write to /dev/null/out"),
        (("organism", "--out", "{locked}"), "another audit is writing to"),
    ],
)
def test_what_can_be_known_at_once_is_said_at_once(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    """Torch and transformers take seconds to import: nothing of the kind is needed to see that a path is wrong."""
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "locked" / ".work").mkdir(parents=True)
    places = {"empty": tmp_path / "empty.txt", "locked": tmp_path / "locked"}
    given = [a.format(**places) for a in (*arguments, *(() if "--out" in arguments else ("--out", "{locked}/out")))]

    with FileLock(tmp_path / "locked" / ".work" / "lock"):
        command = [sys.executable, "-c", LIGHT, "audit", *given]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1 and words in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not (tmp_path / "locked" / "out").exists()


HELP = """
import sys
from refusalkit.cli import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
assert not {"torch", "transformers", "sklearn", "pandas", "plotly", "numpy"} & set(sys.modules)
assert len(sys.modules) < 700, len(sys.modules)
"""


@pytest.mark.parametrize(
    "command", [("audit",), ("organism",), ("organism", "train"), ("organism", "card"), ("accept",), ("guard", "serve")]
)
def test_help_of_every_command_loads_little_and_nothing_heavy(command: tuple[str, ...]) -> None:
    arguments = [sys.executable, "-c", HELP, *command, "--help"]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True, timeout=120)
    assert "--help" in done.stdout


def test_a_model_without_files_of_prompts_takes_the_shipped_headlines(llama: Path, tmp_path: Path) -> None:
    done = refusalkit("audit", llama, *QUICK, "--out", tmp_path / "out", "--n-test", "8")
    assert done.code == 0, done.err
    audit = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert audit["provenance"]["prompts"]["name"] == "headlines"
