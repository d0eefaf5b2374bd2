"""Where the shipped organisms are: whole folders, or deltas that are put together in a cache."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from filelock import FileLock

VARIANTS = ("chat", "planted", "base", "cliff", "attacked", "null-never", "null-random")
WEIGHTS = Path(__file__).parent / "weights"
DELTA = "delta.safetensors"
"""Only the tensors in which a variant differs from its parent."""

_MODEL = "model.safetensors"


def path(variant: str = "chat") -> Path:
    """A folder with the variant that plain `AutoModelForCausalLM` and `AutoTokenizer` load.

    Variants shipped as a delta are put together once, in the cache (`REFUSALKIT_CACHE` or `~/.cache/refusalkit`),
    under their content's digest. Raises ValueError for an unknown variant, FileNotFoundError when it isn't shipped.
    """
    if variant not in VARIANTS:
        raise ValueError(f"unknown organism variant {variant!r}; choose from {', '.join(VARIANTS)}")
    folder = WEIGHTS / variant
    if (folder / _MODEL).exists():
        return folder
    if not (folder / DELTA).exists():
        raise FileNotFoundError(f"the organism {variant!r} is missing from {WEIGHTS}; reinstall refusalkit")
    return _materialised(folder)


def truth(variant: str = "chat", family: Path = WEIGHTS) -> dict[str, Any]:
    """What is known of a variant: `truth.json`, with the arrays of `truth.safetensors` (numpy) under `arrays`.

    `family` is the folder of a family trained here, in place of the shipped one.
    """
    if variant not in VARIANTS:
        raise ValueError(f"unknown organism variant {variant!r}; choose from {', '.join(VARIANTS)}")
    folder = family / variant
    facts: dict[str, Any] = json.loads((folder / "truth.json").read_text())
    if "heads" in facts:
        facts["heads"] = [tuple(head) for head in facts["heads"]]
    arrays = folder / "truth.safetensors"
    if arrays.exists():
        from safetensors.numpy import load_file

        facts["arrays"] = load_file(arrays)
        facts["file"] = str(arrays)
    return facts


def cache_folder() -> Path:
    """Where materialised variants are kept."""
    root = os.environ.get("REFUSALKIT_CACHE")
    return (Path(root) if root else Path.home() / ".cache" / "refusalkit") / "organism"


def _materialised(folder: Path) -> Path:
    parent = path(json.loads((folder / "truth.json").read_text())["parent"])
    sha = hashlib.sha256()
    for part in (parent / _MODEL, folder / DELTA, folder / "truth.json", parent / "tokenizer.json"):
        sha.update(part.read_bytes())
    target = cache_folder() / f"{folder.name}-{sha.hexdigest()[:16]}"
    if _complete(target, parent, folder):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f"{target.name}.lock")):
        if _complete(target, parent, folder):
            return target
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            _assemble(temporary, parent, folder)
            if target.exists():
                shutil.rmtree(target)
            os.replace(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return target


def _complete(target: Path, parent: Path, folder: Path) -> bool:
    """Is everything there, at its size? Folders appear whole, by rename: this sees later damage."""
    names = {part.name for part in (*parent.iterdir(), *folder.iterdir())} - {DELTA}
    if not all((target / name).is_file() for name in names):
        return False
    return (target / _MODEL).stat().st_size == (parent / _MODEL).stat().st_size


def _assemble(target: Path, parent: Path, folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    for part in (*parent.iterdir(), *folder.iterdir()):
        if part.name not in (_MODEL, DELTA) and part.is_file():
            shutil.copyfile(part, target / part.name)
    weights = load_file(parent / _MODEL)
    weights.update(load_file(folder / DELTA))
    save_file(weights, target / _MODEL, metadata={"format": "pt"})
    (target / _MODEL).chmod(0o644)
    target.chmod(0o755)
