"""`refusalkit repair`: what it writes, that it goes on where it was, and what it says to whoever gave it nonsense."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import interp
import steering
from refusalkit.cli.app import app
from refusalkit.cli.repair import parse_size
from refusalkit.repairing import organism_pool

FILES = {
    "adapter", "after.jsonl", "before.jsonl", "losses.csv", "picks.csv", "picks.jsonl", "pool.jsonl", "prompts.csv",
    "repair.html", "repair.json",
}  # fmt: skip
SMALL = ["--n-pool", "40", "--n-retain", "16", "--n-test", "12", "--max-new-tokens", "96", "--quiet"]


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["repair", "organism:cliff", *map(str, arguments), *SMALL])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("repair") / "out"
    return out, run("--out", out, "--size", "2")


def test_the_command_writes_adapter_tables_and_a_page(written: tuple[Path, str]) -> None:
    out, said = written
    assert {f.name for f in out.iterdir()} == FILES
    found = json.loads((out / "repair.json").read_text())
    assert (found["rule"], found["n"], found["n_pool"]) == ("cliff", 2, 40) and found["schema"] == "refusalkit/repair/1"
    assert found["before"]["harmful"]["value"] == 0 and found["after"]["harmful"]["value"] >= 0.9
    assert found["after"]["harmless"]["k"] == 0 and found["cliff"]["before"]["value"] > found["cliff"]["after"]["value"]
    assert "repaired on 2 of 40 harmful traces (5.0%), picked by 'cliff'" in said and "adapter: " in said
    page = (out / "repair.html").read_text()
    assert "Refusal after thinking" in page and "https:" not in page.split("<script")[0]
    model = interp.load("organism:cliff", thinking=True)
    again = steering.load_repair(model, out / "adapter").generate(
        interp.prompts("organism").test[:4], max_new_tokens=96
    )
    assert all(c.answer for c in again)


def test_what_is_there_is_not_done_again(written: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    from steering.repairs.training import Trainer

    out, said = written
    kept = {f.name: f.read_bytes() for f in out.iterdir() if f.is_file()}
    monkeypatch.setattr(Trainer, "_step", lambda self, step: 1 / 0)
    assert run("--out", out, "--size", "2") == said
    assert {f.name: f.read_bytes() for f in out.iterdir() if f.is_file()} == kept


def test_the_table_is_printed_kept_by_cell_and_read_again(
    written: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from steering.repairs.training import Trainer

    own = interp.traces(written[0] / "pool.jsonl").split(0.7, 0.0, 0.3).save(tmp_path / "own.jsonl")
    options = ["--table", "--traces", own, "--out", tmp_path]
    grid = ["--sizes", "1", "--rules", "cliff,random", "--seeds", "1", "--steps", "8"]
    said = run(*options, *grid)
    cells = {f.name for f in (tmp_path / "cells").iterdir()}
    assert cells == {"plain.json", "cliff-1-0.json", "random-1-0.json"}
    assert "Repairs of organism:cliff" in said and "random picks" in said
    table = json.loads((tmp_path / "table.json").read_text())
    assert [(row["n"], row["rule"], row["seeds"]) for row in table["rows"]] == [(1, "cliff", 1), (1, "random", 1)]
    assert {"table.csv", "cells.csv", "table.html"} <= {f.name for f in tmp_path.iterdir()}
    (tmp_path / "cells" / "cliff-1-0.json").unlink()
    steps: list[int] = []
    step = Trainer._step  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(Trainer, "_step", lambda self, n: (steps.append(n), step(self, n))[1])
    assert run(*options, *grid) == said and len(steps) == 8, "one cell was made again, with the same result"
    (tmp_path / "cells" / "random-1-0.json").write_text("{")
    with pytest.raises(AssertionError, match="delete it, and it is made again"):
        run(*options, *grid)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rule", "best"], "there is no rule 'best'; known: cliff, final, keyword, judge, random, all"),
        (["--size", "0"], "'0' is no size"),
        (["--size", "1.5"], "'1.5' is no size"),
        (["--table", "--sizes", "0.01,many"], "'many' is no size"),
        (["--traces", "missing.jsonl"], "there is no file of traces at missing.jsonl"),
        (["--traces", "x.jsonl", "--pool", "headlines"], "not both"),
        (["--refusals", "missing.txt"], "there is no file of refusals at missing.txt"),
        (["--loss-on", "thought"], "there is no --loss-on 'thought'"),
        (["--plateau", "top"], "there is no plateau 'top'"),
    ],
)
def test_what_cannot_be_done_is_said(options: list[str], message: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["repair", "organism:cliff", "--out", str(tmp_path / "out"), *options])
    assert result.exit_code != 0 and message in str(result.exception)
    assert not (tmp_path / "out").exists()


CODE = """
import sys
sys.argv = ["refusalkit", "repair", *sys.argv[1:]]
from refusalkit.cli import main
try:
    main()
finally:
    assert "torch" not in sys.modules
"""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["organism:clif"], "no organism variant 'clif'"), (["./nowhere"], "there is no model folder"),
        (["organism:cliff", "--traces", "missing.jsonl"], "no file of traces"),
        (["organism:cliff", "--refusals", "blank.txt"], "holds no refusal"),
    ],
)  # fmt: skip
def test_wrong_names_are_said_without_torch(arguments: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "blank.txt").write_text("\n \n")
    arguments = [str(tmp_path / a) if a == "blank.txt" else a for a in arguments]
    command = [sys.executable, "-c", CODE, *arguments, "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and message in done.stderr and "AssertionError" not in done.stderr, done.stderr


def test_a_pool_without_a_class_is_named(tmp_path: Path) -> None:
    file = tmp_path / "only.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"How to do {i}?", "label": "harmful"}) + "\n" for i in range(40)))
    result = CliRunner().invoke(
        app, ["repair", "organism:cliff", "--pool", str(file), "--out", str(tmp_path / "o"), *SMALL]
    )
    assert "there is no harmless prompt to measure on" in str(result.exception)


def test_sizes_are_numbers_or_shares() -> None:
    assert [parse_size(t) for t in ("1", "16", "0.02", "1.0")] == [1, 16, 0.02, 1.0]
    assert isinstance(parse_size("1"), int) and isinstance(parse_size("1.0"), float)


def test_the_organisms_pool_shares_no_pair_with_what_is_held_out() -> None:
    pool, known = organism_pool(), interp.prompts("organism")
    groups = {s: set(getattr(pool, s).groups) for s in ("train", "val", "test")}
    assert not groups["train"] & (groups["val"] | groups["test"])
    assert len(pool.train.harmful) > 1000 and set(known.train.groups) <= groups["train"]
    assert pool.test.prompts == known.test.prompts
