from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.command import prompt_files, save_model


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny random Llama."""
    return save_model(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """`--harmful FILE --harmless FILE`."""
    return prompt_files(tmp_path_factory.mktemp("prompts"))
