"""`train`: the family of organisms in one folder, one stage after the other; a finished stage is never run again."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from interp.organism.grammar import digest
from interp.organism.store import VARIANTS
from interp.organism.train.model import STANDARD, Size, new_model, new_tokenizer
from interp.organism.train.variants import STAGES, Job, Stage

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
_LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "numpy")


def train(
    out: Path,
    seed: int = 0,
    arch: str = "llama",
    variants: Iterable[str] = VARIANTS,
    scale: float = 1.0,
    progress: bool = True,
    size: Size = STANDARD,
) -> Path:
    """Train the wanted variants (and what they start from) into `out/<variant>/`, and return `out`.

    Every folder loads with plain transformers; `truth.json` (and `truth.safetensors`) beside the weights say what was
    planted; `manifest.json` keeps seed, grammar digest, library versions and CPU seconds. One thread is used, so that
    the same seed on the same machine gives the same bytes. An interrupted call goes on at the stage it was in.
    `arch` is `llama` or `qwen3`; `scale` multiplies every stage's steps; `size` sets width and depth.
    Raises ValueError for an unknown variant or architecture, and when `out` holds a family made with other arguments.
    """
    out = Path(out)
    unknown = set(variants) - set(VARIANTS)
    if unknown:
        raise ValueError(f"unknown variant {', '.join(sorted(unknown))}; choose from {', '.join(VARIANTS)}")
    if scale <= 0:
        raise ValueError(f"scale must be positive, got {scale}")
    out.mkdir(parents=True, exist_ok=True)
    identity = {"seed": seed, "arch": arch, "scale": scale, "size": asdict(size), "grammar": digest()}
    manifest = _open_manifest(out, identity)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for stage in _needed(variants):
            if _done(out, manifest, stage.name):
                log.info("%s: already trained", stage.name)
                continue
            started = time.process_time()
            steps = max(2, round(stage.steps * scale))
            with tqdm(total=steps, desc=stage.name, unit="step", disable=not progress) as bar:
                folder = _run(out, stage, seed, arch, size, steps, lambda done, bar=bar: _advance(bar, done))
            manifest["stages"][stage.name] = {
                "steps": steps,
                "cpu_seconds": round(time.process_time() - started, 1),
                "sha256": _sha256(folder / "model.safetensors"),
            }
            _write_json(out / MANIFEST, manifest)
    finally:
        torch.set_num_threads(threads)
    return out


def _advance(bar: Any, done: int) -> None:
    bar.update(done - bar.n)


def _needed(variants: Iterable[str]) -> list[Stage]:
    by_name = {stage.name: stage for stage in STAGES}
    wanted: set[str] = set()
    for name in variants:
        current: str | None = name
        while current is not None:
            wanted.add(current)
            current = by_name[current].parent
    return [stage for stage in STAGES if stage.name in wanted]


def _open_manifest(out: Path, identity: dict[str, Any]) -> dict[str, Any]:
    path = out / MANIFEST
    if not path.exists():
        return {**identity, "versions": {name: version(name) for name in _LIBRARIES}, "stages": {}}
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        different = [key for key, value in identity.items() if manifest[key] != value]
        _ = manifest["stages"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no manifest of an organism family; choose another folder or remove it") from error
    if different:
        told = "; ".join(f"{key}: {manifest[key]!r} there, {identity[key]!r} asked for" for key in different)
        raise ValueError(f"{out} holds a family trained otherwise ({told}); choose another folder")
    return manifest


def _done(out: Path, manifest: dict[str, Any], name: str) -> bool:
    weights = out / name / "model.safetensors"
    entry = manifest["stages"].get(name)
    return bool(entry) and weights.exists() and _sha256(weights) == entry["sha256"]


def _run(out: Path, stage: Stage, seed: int, arch: str, size: Size, steps: int, report: Callable[[int], None]) -> Path:
    if stage.parent is None:
        tokenizer = new_tokenizer()
        model = new_model(arch, size, tokenizer, seed)
    else:
        tokenizer = AutoTokenizer.from_pretrained(out / stage.parent)
        model = AutoModelForCausalLM.from_pretrained(out / stage.parent, dtype=torch.float32)
    facts, arrays = stage.run(Job(model, tokenizer, seed, steps, report))
    truth = {"variant": stage.name, "parent": stage.parent, "seed": seed, **facts}
    temporary = Path(tempfile.mkdtemp(prefix=f".{stage.name}-", dir=out))
    try:
        save(temporary, model, tokenizer, truth, arrays)
        shutil.rmtree(out / stage.name, ignore_errors=True)
        os.replace(temporary, out / stage.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return out / stage.name


def save(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    truth: dict[str, Any],
    arrays: dict[str, Tensor],
) -> None:
    """Weights rounded to bf16, a config that loads them as fp32, the tokenizer, and the truth."""
    model.to(torch.bfloat16)  # pyright: ignore[reportArgumentType]
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["dtype"] = "float32"
    _write_json(folder / "config.json", config)
    tokenizer.save_pretrained(folder)
    _write_json(folder / "truth.json", truth)
    if arrays:
        safetensors.torch.save_file(arrays, folder / "truth.safetensors")
    folder.chmod(0o755)
    for file in folder.iterdir():
        file.chmod(0o644)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write_json(path: Path, value: dict[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value, indent=2) + "\n")
    os.replace(temporary, path)
