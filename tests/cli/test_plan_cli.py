"""`refusalkit plan` writes what the function finds, goes on where it was cut short, and says what cannot be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import interp
from interp import Prompt, PromptSet
from probes.planning.attributes import Answer
from refusalkit.cli import plan_pages
from refusalkit.page import render_page
from tests.helpers.command import refusalkit, refused, strict_json

QUICK = ("--probe", "linear", "--seeds", "0", "--segments", "2", "--max-new-tokens", "40", "--quiet")
OWN = '''
import probes
@probes.attribute("regression")
def commas(answer):
    """Commas of the answer."""
    return answer.text.count(",")
'''


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = interp.prompts("organism:list")
    some = PromptSet((*found.train[:80], *found.val[:30], *found.test[:40]))
    return some.save(tmp_path_factory.mktemp("prompts") / "lists.jsonl")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, lists: Path) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("plan") / "out"
    found = refusalkit("plan", "organism:chat", "--attribute", "list_length", "--prompts", lists, "--out", out, *QUICK)
    assert found.code == 0, found.err
    return out, found.out


def test_the_verdict_is_said_and_written(done: tuple[Path, str]) -> None:
    out, said = done
    result = strict_json((out / "plan.json").read_text())
    assert result["claim"] == "committed to by its first token" and result["claim"] in said
    assert result["n"] == 150 and result["apart"] == {} and "150 of 150 answers have a label" in said
    assert result["provenance"]["model"] and str(out / "plan.html") in said


def test_tables_and_figures_are_left(done: tuple[Path, str]) -> None:
    out, _ = done
    assert {"prompt", "answer 50 %", "answer 100 %"} == set(pd.read_csv(out / "scores.csv")["position"])
    assert len(pd.read_csv(out / "answers.csv")) == 150
    page = (out / "plan.html").read_text()
    assert page.count('class="figure"') == 2 and "<script src=" not in page
    assert "committed to by its first token" in page and "bag of words" in page
    assert "means: the states tell it, and the first token alone tells as much" in page
    assert (
        "What organism:chat knows of its answer beforehand: list length" in page
        and "list_length" not in page.split("<details>")[0].split("</style>")[1]
    )
    result = strict_json((out / "plan.json").read_text())
    assert result["n_test"] == 40 and result["n_groups"] == 150 and result["seeds"] == [0]
    assert f"tested on 40 answers, with seed 0; layer {result['layers'][0]}, chosen on validation rows" in page
    assert "asked (decides nothing)" in page and "What this does not show" in page and "<summary>Provenance" in page
    shown = page.split("A few answers and their labels")[1].split("</table>")[0]
    assert shown.count("<tr>") == 1 + 6 and {f"<td>{n}</td>" in shown for n in (2, 4, 7)} == {True}
    assert not list(out.glob("*.partial"))


def test_an_attribute_from_a_file_shares_the_answers(done: tuple[Path, str], lists: Path, tmp_path: Path) -> None:
    out, _ = done
    (tmp_path / "mine.py").write_text(OWN)
    written = (out / "answers.jsonl").read_bytes()
    name = f"{tmp_path / 'mine.py'}:commas"
    found = refusalkit("plan", "organism:chat", "--attribute", name, "--prompts", lists, "--out", out, *QUICK)
    assert found.code == 0, found.err
    assert (out / "answers.jsonl").read_bytes() == written and "commas" in found.out


def test_steering_is_reported(lists: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from probes.planning import dosing

    plain = dosing.plan_causal

    def small(model: object, plan: object, **options: object) -> object:
        return plain(model, plan, **options, layers=(4,), doses=(4.0,), n_random=2, n_val=8, n_test=16)  # type: ignore

    monkeypatch.setattr(dosing, "plan_causal", small)
    found = refusalkit(
        "plan", "organism:chat", "--attribute", "list_length", "--prompts", lists, "--out", tmp_path / "out", *QUICK,
        "--steer", "--no-ask",
    )  # fmt: skip
    assert found.code == 0, found.err
    result = strict_json((tmp_path / "out" / "causal.json").read_text())
    assert result["sentence"] in found.out and len(result["random"]) == 2
    assert result["model"] == "organism:chat" and result["attribute"] == "list_length" and not result["last layer"]
    page = (tmp_path / "out" / "causal.html").read_text()
    assert "Steering organism:chat along what foretells its list length" in page and "What this does not show" in page
    assert "through its first token alone, perhaps" in page
    assert len(pd.read_csv(tmp_path / "out" / "doses.csv")) == 9


def test_what_cannot_be_is_one_message(lists: Path, tmp_path: Path) -> None:
    ask = ("plan", "organism:chat", "--prompts", lists, "--out", tmp_path / "x", "--quiet")
    assert "give length, steps" in refused(*ask, "--attribute", "wit")
    assert "no such file" in refused(*ask, "--attribute", "nowhere.py:f")
    assert "names no function" in refused(*ask, "--attribute", "nowhere.py")
    assert "there is no probe 'deep'" in refused(*ask, "--attribute", "length", "--probe", "deep")
    assert "give for instance 0,1,2" in refused(*ask, "--attribute", "length", "--seeds", "0,0")
    assert "needs prompts that say options" not in refused(*ask, "--attribute", "letter", "--max-new-tokens", "3")
    assert not (tmp_path / "x" / "plan.json").exists()
    assert "no such file" in refused(
        "plan", "organism:chat", "--attribute", "length", "--prompts", "nowhere.txt", "--out", tmp_path / "y"
    )
    assert not (tmp_path / "y").exists()


def test_answers_on_the_page_are_text_and_nothing_else(tmp_path: Path) -> None:
    nasty = "<script>alert(1)</script>" + "x" * 300
    answers = tuple(Answer(f"{nasty} {i}", Prompt(f"<b>{i}</b>")) for i in range(20))
    labels = np.array(["fox", "<i>crow</i>"] * 10)
    found: Any = SimpleNamespace(answers=answers, examples=SimpleNamespace(labels=labels))
    page = render_page("", "", [], [plan_pages._answers(found)])
    assert nasty[:20] not in page and "&lt;script&gt;" in page and "&lt;i&gt;crow" in page and "x" * 240 not in page


def test_shown_answers_have_labels_as_different_as_can_be() -> None:
    assert plan_pages.spread([5, 1, 1, 3, 9, 7, 8, 2, 4, 6], n=3) == [1, 0, 4]
    assert plan_pages.spread(["a", "b", "a", "b"], n=3) == [0, 2, 1]
    assert plan_pages.spread([1.0, 2.0], n=6) == [0, 1]


@pytest.mark.parametrize(
    "wrong",
    [("--attribute", "wit"), ("--attribute", "nowhere.py:f"), ("--prompts", "nowhere.txt"), ("MODEL", "./no"),
     ("--attribute", "BROKEN.py:f"), ("--attribute", "PLAIN.py:f"), ("--attribute", "PLAIN.py:g"),
     ("--prompts", "FEW.txt")],
)  # fmt: skip
def test_what_is_wrong_is_said_before_torch_is_loaded(wrong: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "BROKEN.py").write_text("def f(answer): ...\nraise SystemExit(0)")
    (tmp_path / "PLAIN.py").write_text("def f(answer): ...")
    (tmp_path / "FEW.txt").write_text("\n".join(f"Say {i}." for i in range(49)))
    wrong = wrong[0], str(tmp_path / wrong[1]) if wrong[1][0].isupper() else wrong[1]
    given = {
        "MODEL": "organism:chat",
        "--attribute": "length",
        "--prompts": "organism:list",
        "--out": str(tmp_path / "x"),
    }
    given |= dict([wrong])
    arguments = ["plan", given.pop("MODEL"), *(part for pair in given.items() for part in pair)]
    code = (
        "import sys; from refusalkit.cli import main\n"
        "try: main()\nexcept SystemExit as stop: assert stop.code == 1\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, timeout=60, capture_output=True)
