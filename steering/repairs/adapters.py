"""LoRA adapters (peft) on a private copy of a model's modules, which shares its weights and writes to none of them."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import interp
from interp.errors import FormatError, ModelError
from interp.model.backends.private import path_of, private_copy
from interp.model.model import Model
from interp.provenance import digest_files, write_json

FORMAT = "refusalkit/repair/1"
ABOUT = "repair.json"
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


def lora_targets(model: Model) -> list[str]:
    """Names of the linear maps in attention and MLP of every block, by the architecture map; routers are left out.

    Raises:
        ModelError: When there are none (experts that are fused into one tensor are no linear maps).
    """
    from transformers.pytorch_utils import Conv1D

    prefix = path_of(model.hf, model.arch.blocks)
    found: list[str] = []
    for layer, (block, layout) in enumerate(zip(model.arch.blocks, model.arch.layouts, strict=True)):
        for name, module in block.named_modules():
            inside = any(name == part or name.startswith(f"{part}.") for part in (layout.attention, layout.mlp))
            if inside and name != layout.router and isinstance(module, nn.Linear | Conv1D):
                found.append(f"{prefix}.{layer}.{name}")
    if not found:
        raise ModelError(f"{type(model.hf).__name__} has no linear maps in its blocks that an adapter could go on")
    return found


def adapted(model: Model, rank: int, alpha: int, targets: list[str], seed: int) -> Any:
    """A `PeftModel` with a new adapter, over a copy of the model that shares its weights.

    Raises:
        ModelError: When peft is missing, or the model is none that can be copied this way.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ModelError(
            f"repairing needs peft, which is not installed ({error}): pip install refusalkit[repair]"
        ) from error
    if model.backend.name != "hooks":
        raise ModelError(f"an adapter goes on a model with backend='hooks', not {model.backend.name!r}")
    if model.standing:
        raise ModelError("the model is being edited: leave the `with model.edited(...)` block first")
    if len(set((getattr(model.hf, "hf_device_map", None) or {"": 0}).values())) > 1:
        raise ModelError("a model spread over several devices cannot be repaired here; load it onto one")
    if hasattr(model.hf, "peft_config"):
        raise ModelError("the model has adapters already: merge them first (merge_and_unload), and load it anew")
    copied = private_copy(model.hf, share_weights=True)
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=0.0, bias="none", target_modules=targets, task_type="CAUSAL_LM",
    )  # fmt: skip
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # between peft and transformers
        warnings.filterwarnings("ignore", "fan_in_fan_out")  # which peft sets as a Conv1D of GPT-2 needs it
        torch.manual_seed(seed)
        return get_peft_model(copied, config).eval()


def adapter_state(peft_model: Any) -> dict[str, Tensor]:
    """The adapter's weights by peft's names, on the CPU."""
    from peft import get_peft_model_state_dict

    state: dict[str, Tensor] = get_peft_model_state_dict(peft_model, save_embedding_layers=False)
    return {name: value.detach().cpu().contiguous() for name, value in sorted(state.items())}


def set_adapter(peft_model: Any, state: Mapping[str, Tensor], source: str) -> None:
    """Give an adapter the weights of `adapter_state`.

    Raises:
        FormatError: When names or shapes are not the adapter's own.
    """
    from peft import set_peft_model_state_dict

    own = {name: value.shape for name, value in adapter_state(peft_model).items()}
    if {name: value.shape for name, value in state.items()} != own:
        raise FormatError(f"{source} does not hold the adapter of this model: its tensors have other names or shapes")
    set_peft_model_state_dict(peft_model, dict(state))


def as_model(model: Model, peft_model: Any) -> Model:
    """The adapted model as a `Model` of its own, behind the same chat format."""
    chat = model.chat
    hf = peft_model.get_base_model()
    found = interp.load(
        hf, model.tokenizer, chat_template=chat.template, system=chat.system, thinking=chat.thinking, date=chat.date
    )
    found.name = f"{model.name} + adapter"
    found.identity = {**found.identity, "name": found.name, "base": model.identity}
    return found


def save_adapter(peft_model: Any, base: str, folder: Path, about: Mapping[str, Any]) -> None:
    """Write the adapter in peft's format, `base` as its base model's name, and `repair.json` beside it, last."""
    from safetensors.torch import save

    config: dict[str, Any] = peft_model.peft_config["default"].to_dict()
    config |= {"base_model_name_or_path": base, "inference_mode": True}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ABOUT).unlink(missing_ok=True)
    partial = folder / f"{WEIGHTS}.{os.getpid()}.partial"
    partial.write_bytes(save(adapter_state(peft_model), metadata={"format": "pt"}))
    os.replace(partial, folder / WEIGHTS)
    write_json(folder / CONFIG, {k: sorted(v) if isinstance(v, set) else v for k, v in sorted(config.items())})
    write_json(folder / ABOUT, {**about, "format": FORMAT, "adapter": digest_files([folder / WEIGHTS])})


def read_about(folder: Path) -> dict[str, Any]:
    """What `repair.json` says, once the adapter is known to be the one it speaks of.

    Raises:
        FormatError: When something is missing or damaged, or the adapter is another.
    """
    try:
        about: Any = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FormatError(f"{folder} is no folder of a finished repair: it has no {ABOUT}") from None
    except ValueError as error:
        raise FormatError(f"{folder / ABOUT} is damaged: {error}") from error
    lora: Any = about.get("lora") if isinstance(about, dict) else None
    if not isinstance(lora, dict) or about.get("format") != FORMAT or not isinstance(about.get("base"), dict):
        raise FormatError(f"{folder / ABOUT} is damaged: it does not say what was repaired, or is of another version")
    if not (folder / WEIGHTS).is_file() or digest_files([folder / WEIGHTS]) != about.get("adapter"):
        raise FormatError(f"{folder / WEIGHTS} is missing, or not the adapter that {ABOUT} speaks of: copy both anew")
    return about


def load_repair(model: Model, folder: str | os.PathLike[str]) -> Model:
    """The repaired model, from an adapter on disk; the model itself is not changed.

    The folder is peft's: `peft.PeftModel.from_pretrained(hf_model, folder)` loads it, too.

    Args:
        model: The model that was repaired.
        folder: The folder that `repair` wrote.

    Raises:
        FormatError: When the folder is damaged or of something else.
        ModelError: When another model was repaired.
    """
    from safetensors.torch import load_file

    source = Path(folder)
    about = read_about(source)
    if about["base"] != model.identity:
        raise ModelError(
            f"{source} repairs {about['base'].get('name', 'another model')!r}, not these weights of {model.name!r}"
        )
    lora: dict[str, Any] = about["lora"]
    try:
        rank, alpha, targets = int(lora["rank"]), int(lora["alpha"]), [str(t) for t in lora["targets"]]
        state = load_file(source / WEIGHTS)
    except Exception as error:  # whatever a stranger's bytes make safetensors raise
        raise FormatError(f"the adapter in {source} cannot be read: {error}") from error
    if not set(targets) <= set(lora_targets(model)):
        raise FormatError(f"{source / ABOUT} names linear maps that this model does not have")
    peft_model = adapted(model, rank, alpha, targets, seed=0)
    set_adapter(peft_model, state, str(source / WEIGHTS))
    return as_model(model, peft_model)
