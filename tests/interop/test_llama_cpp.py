"""llama.cpp itself reads our control vectors and does with them what we do. `make interop` builds it."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import interp
from interp.errors import DirectionError, FormatError
from interp.model.model import Model
from scripts.llama_cpp import PYTHON, READER, ready
from steering import SteeringVector
from tests.interop.organism_gguf import write_gguf_model

pytestmark = pytest.mark.skipif(not ready(), reason="llama.cpp is not built here: `make interop` builds it, once")
RUNNER = Path(__file__).with_name("llama_cpp_runner.py")
N_PROMPTS, TOKENS = 24, 32


@cache
def model() -> Model:
    return interp.load("organism:chat")


@cache
def prompts() -> list[str]:
    """Half of them harmful; one run-time vector makes the model refuse, another makes it comply."""
    every = interp.prompts("organism").filter(split="test")
    return [p.text for label in ("harmful", "harmless") for p in every.filter(label=label).sample(N_PROMPTS // 2, 0)]


@pytest.fixture(scope="session")
def organism(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf_model(model(), tmp_path_factory.mktemp("gguf") / "organism.gguf")


def refusal() -> torch.Tensor:
    """The difference in means of harmful and harmless prompts at the end of block 3."""
    train = interp.prompts("organism").filter(split="train")
    means = [
        model().run([p.text for p in train.filter(label=label).sample(64, 0)], ["resid_post"], layers=[3])
        .reads["resid_post"].float().mean((0, 1, 2)) for label in ("harmful", "harmless")
    ]  # fmt: skip
    return means[0] - means[1]


def noise(seed: int) -> torch.Tensor:
    return torch.randn(128, generator=torch.Generator().manual_seed(seed))


def in_llama_cpp(
    organism: Path | None, vector: Path | None, by_default: bool = False, **job: Any
) -> tuple[dict[str, Any], str]:
    """What llama.cpp found, and what it said; a process that has nothing of ours."""
    encoded = model().encode(prompts()) if organism else []
    asked = {
        "reader": str(READER), "model": organism and str(organism), "vector": vector and str(vector),
        "prompts": [list(e.ids) for e in encoded], "ends": list(model().chat.end_ids), "max_new_tokens": TOKENS,
        "by_default": by_default, **job,
    }  # fmt: skip
    done = subprocess.run(
        [str(PYTHON), "-I", str(RUNNER)], input=json.dumps(asked), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout), done.stderr


def largest(a: Any, b: Any) -> float:
    return float((torch.as_tensor(a) - torch.as_tensor(b)).abs().max())


def tell(record_property: Any, found: dict[str, Any], ours: torch.Tensor, written: Any, effect: float | None) -> None:
    """Figures for the end of the run."""
    same = sum(a == list(b.ids) for a, b in zip(found["written"], written, strict=True))
    if effect is not None:
        record_property("effect on logits", f"{effect:.3g}")
    record_property("largest difference of logits", f"{largest(found['logits'], ours):.2g}")
    record_property("same text", f"{same} of {len(written)}, up to {max(len(c.ids) for c in written)} tokens")


def test_the_model_is_the_same_in_llama_cpp(organism: Path, record_property: Any) -> None:
    found, _ = in_llama_cpp(organism, None)
    ours, written = model().logits(prompts()), model().generate(prompts(), max_new_tokens=TOKENS)
    tell(record_property, found, ours, written, None)
    assert largest(found["logits"], ours) < 1e-3
    assert found["written"] == [list(c.ids) for c in written]


VECTORS = {
    "refusal": lambda: SteeringVector({3: refusal()}, "resid_post", 1.0),
    "compliance": lambda: SteeringVector({3: refusal()}, "resid_post", -1.0),
    "block inputs": lambda: SteeringVector({2: noise(0), 5: noise(1)}, "resid_pre", 1.5),
    "first and last": lambda: SteeringVector({1: noise(2), 5: noise(3)}, "resid_post", 0.7),
    "every block but 0": lambda: SteeringVector({layer: noise(layer) for layer in range(1, 6)}, "resid_post", 0.4),
}


@pytest.mark.parametrize("name", VECTORS)
def test_a_control_vector_does_in_llama_cpp_what_it_does_here(
    organism: Path, name: str, tmp_path: Path, record_property: Any
) -> None:
    vector = VECTORS[name]()
    file = vector.export(tmp_path / "vector.gguf", model=model()).path
    found, _ = in_llama_cpp(organism, file)
    assert found["width"] == 128
    plain, ours = model().logits(prompts()), model().logits(prompts(), edits=[vector])
    written = model().generate(prompts(), edits=vector, max_new_tokens=TOKENS)
    tell(record_property, found, ours, written, largest(ours, plain))
    assert largest(ours, plain) > 0.1
    assert largest(found["logits"], ours) < 1e-3
    assert found["written"] == [list(c.ids) for c in written]
    special = set(model().tokenizer.all_special_ids)
    texts = [model().tokenizer.decode([i for i in c.ids if i not in special]) for c in written]
    assert found["texts"] == texts
    assert len(written) >= 20 and max(len(c.ids) for c in written) >= 12


def test_with_llama_cpps_own_settings_the_text_is_the_same(
    organism: Path, tmp_path: Path, record_property: Any
) -> None:
    """An fp16 cache and flash attention, which move logits a little."""
    vector = VECTORS["refusal"]()
    found, _ = in_llama_cpp(organism, vector.export(tmp_path / "vector.gguf", model=model()).path, by_default=True)
    ours, written = (
        model().logits(prompts(), edits=[vector]),
        model().generate(prompts(), edits=vector, max_new_tokens=TOKENS),
    )
    tell(record_property, found, ours, written, None)
    assert largest(found["logits"], ours) < 2e-2
    assert found["written"] == [list(c.ids) for c in written]


def test_a_vector_a_block_late_is_found_out(organism: Path, tmp_path: Path) -> None:
    """The control: the comparison above does fail."""
    vector = VECTORS["first and last"]()
    late = SteeringVector({2: vector.vectors[1], 5: vector.vectors[5]}, "resid_post", vector.coefficient)
    found, _ = in_llama_cpp(organism, late.export(tmp_path / "late.gguf", model=model()).path)
    assert largest(found["logits"], model().logits(prompts(), edits=[vector])) > 0.1


def test_llama_cpp_refuses_what_we_refuse_to_write(tmp_path: Path) -> None:
    first = SteeringVector({0: noise(0), 2: noise(1)}, "resid_post")
    with pytest.raises(FormatError, match="llama.cpp never steers block 0, and refuses the whole file"):
        first.export(tmp_path / "first.gguf", "gguf", model=model())
    written = first.export(tmp_path / "first.gguf", "repeng", model=model()).path  # which has a use for block 0
    found, said = in_llama_cpp(None, written)
    assert found["width"] == -1 and "invalid (zero) direction tensor layer index" in said
    with pytest.raises(FormatError, match="output of none"):
        SteeringVector({0: noise(0)}, "resid_pre").export(tmp_path / "input.gguf", "gguf")


def test_numbers_that_are_not_finite_never_reach_llama_cpp(organism: Path, tmp_path: Path) -> None:
    """It takes them without a word, and every logit is lost."""
    with pytest.raises(DirectionError, match="no finite number in fp32"):
        (SteeringVector({2: noise(0) * 1e30}, "resid_post") * 1e30).export(tmp_path / "huge.gguf", "gguf")
    with pytest.raises(DirectionError, match="NaN"):
        SteeringVector({2: noise(0) / 0.0}, "resid_post")
    file = SteeringVector({2: noise(0)}, "resid_post").export(tmp_path / "vector.gguf", "gguf", model=model()).path
    data = bytearray(file.read_bytes())
    data[-4:] = b"\x00\x00\xc0\x7f"  # the last number becomes NaN
    file.write_bytes(bytes(data))
    found, _ = in_llama_cpp(organism, file, max_new_tokens=1)
    assert not torch.isfinite(torch.tensor(found["logits"])).any()


@pytest.mark.parametrize("format", ["gguf", "easysteer"])
def test_rows_made_by_hand_as_the_documentation_does_are_those_of_llama_cpps_reader(
    format: str, tmp_path: Path
) -> None:
    from gguf import GGUFReader

    file = VECTORS["first and last"]().export(tmp_path / "vector.gguf", format, model=model()).path
    found, _ = in_llama_cpp(None, file)
    tensors = {int(t.name.removeprefix("direction.")): torch.tensor(t.data) for t in GGUFReader(file).tensors}
    rows = torch.zeros(max(tensors), 128)
    for layer, values in tensors.items():
        rows[layer - 1] = values
    assert (found["width"], found["rows"]) == (128, 5)
    assert torch.equal(torch.tensor(found["data"]), rows.flatten())
