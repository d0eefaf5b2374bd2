"""docs/families.md tells of the families and sites that are tested."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def script() -> Any:
    spec = importlib.util.spec_from_file_location("family_matrix", ROOT / "scripts" / "family_matrix.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_has_every_family_and_site_that_there_is(script: Any) -> None:
    """Figures aside, which the other tests bound; `make families` writes the page anew."""
    assert script.hide(script.PAGE.read_text()) == script.hide(script.page(measured=False)), "run: make families"


def test_figures_are_hidden_and_nothing_else(script: Any) -> None:
    page = "text 3e-7 of 8\n| llama | LlamaForCausalLM | 3e-07 | 0e+00 | 1e-6 | 5e-07 | 1.01 | 2e-06 | not measured |\n"
    hidden = "text 3e-7 of 8\n| llama | LlamaForCausalLM | # | # | # | # | # | 2e-06 | not measured |\n"
    assert script.hide(page) == hidden
    row = "| deepseek_v3 | 0e+00 | - | 1.2% / 0.99% | 3e-08 (layer 1, 2) | 1 | 2 | 3 | 4 | 5 | 6 |\n"
    assert script.hide(row) == "| deepseek_v3 | # | - | #% / #% | # (layer 1, 2) | # | # | # | # | # | # |\n"
    row = "| olmo2 | nearest: 2e-01 | no | 3e-07 | 1e-06 | no | no | no | no |\n"
    assert script.hide(row) == "| olmo2 | nearest: # | no | # | # | no | no | no | no |\n"


def test_what_a_backend_gives_is_told_in_its_column(script: Any) -> None:
    assert script.backend_cell(None) == "not measured"
    found = {"error": 2.2e-6, "lacks": ["q", "pattern"], "note": "sdpa only"}
    assert script.backend_cell(found) == "2e-06; without `q`, `pattern`; sdpa only"
