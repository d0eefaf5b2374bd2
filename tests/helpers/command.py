"""Running the command line inside the test process, and looking at what it leaves."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import interp
from refusalkit.audit.settings import Settings
from refusalkit.cli import main
from tests.helpers.tiny import tiny_model, tiny_tokenizer

SMALL = ("--n-train", "32", "--n-val", "8", "--n-test", "12", "--max-new-tokens", "12")
# Whatever candidate is best passes: for tests of what happens after one is found.
LOOSE = Settings(
    n_train=12, n_val=4, n_test=8, n_random=1, max_new_tokens=6, min_induce=-1e9, max_kl=1e9, max_depth=1.0
)


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


def refusalkit(*arguments: object) -> Done:
    """The command with these arguments; an exception that it does not turn into a message comes through."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with _argv(["refusalkit", *map(str, arguments)]), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return Done(code, out.getvalue(), err.getvalue())


def refused(*arguments: object) -> str:
    """The one message that a command ends with."""
    done = refusalkit(*arguments)
    assert done.code == 1, (done.code, done.out, done.err)
    assert done.err.startswith("refusalkit: "), done.err
    assert done.err.strip().count("\n") == 0, done.err
    return done.err


def save_model(folder: Path, family: str = "llama") -> Path:
    """A folder with a tiny random model and its tokenizer."""
    tiny_model(family).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def prompt_files(folder: Path, n: int = 40) -> tuple[str, ...]:
    """The arguments that give the command two files of prompts."""
    prompts = interp.prompts("organism")
    harmful, harmless = folder / "a.jsonl", folder / "b.txt"
    harmful.write_text("".join(json.dumps({"prompt": p.text}) + "\n" for p in prompts.harmful[:n]))
    harmless.write_text("".join(p.text + "\n" for p in prompts.harmless[:n]))
    return "--harmful", str(harmful), "--harmless", str(harmless)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def results(folder: Path) -> dict[str, bytes]:
    """What an audit hands over; how long it took, which no second run repeats, is left out."""
    found = {name: data for name, data in tree(folder).items() if not name.startswith(".work")}
    assert b"plotly" in found.pop("report.html")
    audit = json.loads(found["audit.json"])
    del audit["provenance"]["seconds"]
    return {**found, "audit.json": json.dumps(audit, indent=1, ensure_ascii=False).encode()}


def strict_json(text: str) -> Any:
    """Parses JSON that holds no NaN or Infinity, which only Python reads."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


@contextlib.contextmanager
def _argv(arguments: list[str]) -> Iterator[None]:
    before, sys.argv = sys.argv, arguments
    try:
        yield
    finally:
        sys.argv = before
