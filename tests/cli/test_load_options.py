"""How a model is loaded can be said to every command that loads one, in the same words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest
import typer.main

from refusalkit.cli import options as opt
from refusalkit.cli.app import app

WITHOUT = {
    "bake": {"device_map", "system"},  # it reads the model back onto one device, and asks it bare texts
}


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


COMMANDS = dict(commands(typer.main.get_command(app)))
LOADING = {name: c for name, c in COMMANDS.items() if {"device", "dtype"} <= {p.name for p in c.params}}


def test_every_command_with_a_model_loads_it() -> None:
    with_model = {name for name, c in COMMANDS.items() if "model" in {p.name for p in c.params}}
    assert with_model == set(LOADING) and len(LOADING) > 12


@pytest.mark.parametrize("name", LOADING)
def test_a_command_that_loads_a_model_takes_all_of_how(name: str) -> None:
    there = {p.name: p for p in LOADING[name].params}
    assert {f.name for f in fields(opt.Loading)} - set(there) == WITHOUT.get(name, set())
    assert there["trust_remote_code"].default is False


def test_what_is_said_reaches_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    import interp

    class Enough(Exception):
        pass

    asked: dict[str, Any] = {}

    def load(model: str, **options: Any) -> None:
        asked.update(options, model=model)
        raise Enough

    monkeypatch.setattr(interp, "load", load)
    said = ["--device", "cuda:1", "--dtype", "bfloat16", "--device-map", "auto", "--revision", "abc", "--system", "Hm.",
            "--trust-remote-code"]  # fmt: skip
    with pytest.raises(Enough):
        COMMANDS["heads"].main(["organism", "--out", "out", *said], standalone_mode=False)
    assert asked == {
        "model": "organism", "device": "cuda:1", "dtype": "bfloat16", "device_map": "auto", "revision": "abc",
        "chat_template": None, "system": "Hm.", "trust_remote_code": True, "thinking": None,
    }  # fmt: skip
