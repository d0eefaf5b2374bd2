from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.helpers.forks import Forks


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Programs that are to be killed, without the seconds of their imports."""
    found = Forks()
    yield found
    found.close()
