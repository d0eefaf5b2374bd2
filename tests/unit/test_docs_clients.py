"""The pages "use a vector in ..." can be copied: their Python runs as it stands, with the organism for the model."""

from __future__ import annotations

import re
import runpy
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

import interp
import steering
from steering import SteeringVector

PAGES = Path(__file__).parents[2] / "docs" / "clients"
NOT_RUN = {"activation-steering": 0, "llama-cpp": 1, "vllm": 0}
"""Of these pages, how many blocks run here: llama.cpp belongs to `make interop`, the others are not installed."""
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


def blocks(page: str) -> list[str]:
    return BLOCK.findall((PAGES / f"{page}.md").read_text(encoding="utf-8"))[: NOT_RUN.get(page)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the organism as others load it, and what the pages say was exported."""
    folder, model = tmp_path_factory.mktemp("clients"), interp.load("organism:chat")
    model.hf.save_pretrained(folder / "organism")
    model.tokenizer.save_pretrained(folder / "organism")
    noise = torch.randn(128, generator=torch.Generator().manual_seed(0))
    vector = SteeringVector({3: noise}, "resid_pre", provenance={"position": "t_post_inst"})
    vector.export(folder / "refusal.safetensors")
    vector.export(folder / "refusal.gguf", "repeng", model=model)
    vector.export(folder / "runs" / "llama-3-8b", "refusal_direction", model=model)
    steering.bake(model, vector).save(folder / "steered")
    steering.lora(model, vector).save(folder / "adapter")
    return folder


@pytest.mark.parametrize("page", sorted(p.stem for p in PAGES.glob("*.md") if blocks(p.stem)))
@pytest.mark.filterwarnings("ignore")
def test_the_python_of_a_page_runs_as_it_stands(
    page: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if page == "repeng" and find_spec("repeng") is None:
        pytest.skip("repeng is not installed")
    source = "\n".join(blocks(page))
    source = re.sub(r'"(Qwen/Qwen3-4B|meta-llama/Meta-Llama-3-8B-Instruct)"', '"organism"', source)
    script = tmp_path / "page.py"  # a file: nnsight reads the source of what it traces
    script.write_text(source, encoding="utf-8")
    monkeypatch.chdir(files)
    monkeypatch.setattr(np, "float_", np.float64, raising=False)  # repeng's page sets it, and it is to be taken back
    monkeypatch.setitem(steering.verify.__kwdefaults__, "prompts", ("Name three colours.",))  # eight take seconds
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        left = runpy.run_path(str(script))
    if page == "prove":
        assert left["proof"].ok
    if page == "refusal-direction":
        assert left["vector"].provenance["position"] == -1


@pytest.mark.parametrize("page", sorted(NOT_RUN))
def test_what_is_not_run_here_can_be_read_at_least(page: str) -> None:
    for source in BLOCK.findall((PAGES / f"{page}.md").read_text(encoding="utf-8")):
        compile(source, page, "exec")
