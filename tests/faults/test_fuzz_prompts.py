"""Whatever bytes a prompt file holds, it becomes a set of prompts or a `PromptError`; nothing else comes out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import interp
from interp.errors import PromptError
from interp.text.files import READERS

FIELDS = st.sampled_from(["prompt", "text", "goal", "label", "split", "group", "system", "family", "Prompt ", "x"])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
RECORDS = (
    st.dictionaries(FIELDS, LEAVES | st.lists(LEAVES, max_size=2), max_size=4) | LEAVES | st.lists(LEAVES, max_size=2)
)
JSON_LINES = st.lists(RECORDS, max_size=5).map(lambda rows: "\n".join(json.dumps(row) for row in rows))
JSON_LISTS = st.lists(RECORDS, max_size=5).map(json.dumps)
CELLS = st.text(alphabet=st.sampled_from('ab ,"\n\r\t\u2028prompt'), max_size=8)
TABLES = st.lists(st.lists(CELLS, max_size=3).map(",".join), max_size=5).map(
    lambda rows: "prompt,label\n" + "\n".join(rows)
)
TEXTS = st.text(max_size=80) | JSON_LINES | JSON_LISTS | TABLES
BYTES = st.binary(max_size=80) | TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass"))
DEEP = st.integers(1, 100_000).map(lambda n: b'{"prompt": ' + b"[" * n)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A file that was sound, with some bytes cut out, put in or changed."""
    data = bytearray(draw(BYTES | DEEP))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(data)


def check(data: bytes, suffix: str, folder: Path) -> None:
    file = folder / f"prompts{suffix}"
    file.write_bytes(data)
    for options in ({}, {"label": "harmful"}):
        try:
            found: Any = interp.prompts(file, **options)
        except PromptError as error:
            assert str(error)
        else:
            assert isinstance(found, interp.PromptSet)
            assert len(found)
            assert len(set(found.texts)) <= len(found)


SHORT = settings(
    max_examples=200, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@SHORT
@given(data=damaged(), suffix=st.sampled_from(sorted(READERS)))
def test_any_file_is_prompts_or_a_prompt_error(data: bytes, suffix: str, tmp_path_factory: Any) -> None:
    check(data, suffix, tmp_path_factory.getbasetemp())


@pytest.mark.soak
@settings(SHORT, max_examples=20_000, derandomize=False)
@given(data=damaged(), suffix=st.sampled_from(sorted(READERS)))
def test_any_of_very_many_files_is_prompts_or_a_prompt_error(data: bytes, suffix: str, tmp_path_factory: Any) -> None:
    check(data, suffix, tmp_path_factory.getbasetemp())


@settings(SHORT)
@given(name=st.text(max_size=300) | st.text("~/.:\0a", max_size=10))
def test_any_name_is_a_source_or_a_prompt_error(name: str) -> None:
    """Names that look like a dataset of the Hub are left out: they would be looked up."""
    from interp.text.sources import HUB_NAME

    if HUB_NAME.fullmatch(name):
        return
    try:
        interp.prompts(name)
    except PromptError as error:
        assert str(error)
