"""Putting a trained family into the package: whole folders, or only the tensors that differ from the parent."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import safetensors.torch

from interp.organism.store import DELTA, VARIANTS, WEIGHTS

_MODEL = "model.safetensors"
_AS_DELTA = ("cliff", "attacked")
_EXTRAS = ("truth.json", "truth.safetensors")


def pack(family: Path, weights: Path = WEIGHTS) -> None:
    """Copy every variant found in a trained family's folder to the shipped weights."""
    for variant in VARIANTS:
        source, target = family / variant, weights / variant
        if not (source / _MODEL).exists():
            continue
        shutil.rmtree(target, ignore_errors=True)
        if variant not in _AS_DELTA:
            shutil.copytree(source, target)
            _drop_intermediate(target)
            continue
        target.mkdir(parents=True)
        _drop_intermediate(source)
        truth = json.loads((source / "truth.json").read_text())
        parent = safetensors.torch.load_file(family / truth["parent"] / _MODEL)
        own = safetensors.torch.load_file(source / _MODEL)
        changed = {name: value for name, value in own.items() if not value.equal(parent[name])}
        safetensors.torch.save_file(changed, target / DELTA)
        for name in _EXTRAS:
            if (source / name).exists():
                shutil.copyfile(source / name, target / name)
    shutil.copyfile(family / "manifest.json", weights / "manifest.json")


def _drop_intermediate(folder: Path) -> None:
    """A shipped variant names a shipped parent: the first half of chat training is not shipped."""
    file = folder / "truth.json"
    truth = json.loads(file.read_text())
    if truth["parent"] not in (None, *VARIANTS):
        truth["parent"] = "base"
        file.write_text(json.dumps(truth, indent=2) + "\n")
