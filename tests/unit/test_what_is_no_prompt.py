"""What is no prompt is said to be none, before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import interp
from interp.errors import PromptError
from interp.progress import progress_bar
from tests.helpers.slow import PROMPTS, loaded


@pytest.mark.parametrize("given", ["mine.jsonl", "./some/requests.txt", Path("mine.csv")])
def test_the_name_of_a_file_is_not_captured_as_a_text(given: Any) -> None:
    with pytest.raises(PromptError, match=r"is the name of a file: read it with interp\.prompts"):
        interp.capture(loaded(), given)


def test_a_text_that_ends_in_a_file_name_is_a_text() -> None:
    assert len(interp.capture(loaded(), "What is in notes.txt")) == 1


@pytest.mark.parametrize("given", [["ok", 3], [None], [Path("x")]])
def test_what_is_no_text_is_named_by_its_place(given: Any) -> None:
    with pytest.raises(PromptError, match=rf"prompt {len(given) - 1} is .*, which is none"):
        interp.capture(loaded(), given)


def test_class_means_take_the_labels_of_a_set() -> None:
    some = interp.PromptSet.from_texts(harmful=PROMPTS[:2], harmless=PROMPTS[2:])
    means = interp.class_means(loaded(), some, site="resid_post")
    assert means.classes == ("harmful", "harmless") and means.counts == (2, 2)
    assert "harmful: 2" in repr(means) and len(repr(means)) < 200
    with pytest.raises(PromptError, match="needs labels"):
        interp.class_means(loaded(), PROMPTS)


def test_without_a_terminal_progress_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 10.0, 40.0, 45.0, 80.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    with progress_bar("capturing", 100, True) as advance:
        for _ in range(3):
            advance(20)
        advance(40)
    assert capsys.readouterr().err.splitlines() == ["capturing: 40 of 100, 1.0 minutes left"]
