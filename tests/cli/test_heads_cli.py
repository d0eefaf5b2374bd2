"""`refusalkit heads` writes what the function finds; what cannot be is one message."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.helpers.command import refusalkit, refused, strict_json

SMALL = ("--n-train", "8", "--n-val", "8", "--n-test", "8", "--n-draws", "20", "--n-control", "4", "--sizes", "2",
         "--max-new-tokens", "90", "--quiet")  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("heads") / "cliff"
    found = refusalkit("heads", "organism:cliff", "--out", out, *SMALL)
    assert found.code == 0, found.err
    return out, found.out


def test_the_planted_heads_are_named(done: tuple[Path, str]) -> None:
    out, said = done
    result = strict_json((out / "heads.json").read_text())
    assert {tuple(head) for head in result["selected"]} <= {(3, 1), (4, 2), (5, 0)}
    assert f"switch off {[tuple(h) for h in result['selected']]}" in said
    assert result["provenance"]["chat"]["thinking"] is True
    assert sum(c["times"] for c in result["controls"]) == 20


def test_tables_and_figures_are_left(done: tuple[Path, str]) -> None:
    out, _ = done
    assert len(pd.read_csv(out / "ranking.csv")) == 24
    assert pd.read_csv(out / "curve.csv")["n_heads"].tolist() == [0, 2]
    page = (out / "heads.html").read_text()
    assert page.count('class="figure"') == 2 and "<script src=" not in page
    assert sorted(p.name for p in out.iterdir()) == ["curve.csv", "heads.html", "heads.json", "ranking.csv"]


def test_what_cannot_be_is_one_message(tmp_path: Path) -> None:
    ask = ("heads", "organism:cliff", "--out", tmp_path / "x", "--quiet")
    assert "for instance 1,2,3" in refused(*ask, "--sizes", "1,x")
    assert "known: none, tensor, token" in refused(*ask, "--renorm", "all")
    assert "give both" in refused(*ask, "--harmful", "a.txt")
    assert "24 heads" in refused(*ask, "--sizes", "24")
