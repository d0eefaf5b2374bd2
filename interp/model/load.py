"""Loading: from the Hub, a folder, a model already in memory, or the project's own organism."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from interp.errors import ModelError
from interp.model.architecture import find_architecture
from interp.model.backends import make_backend
from interp.model.check import check_logits, check_weights, on_meta, settle
from interp.model.hooks import BackendName, HooksBackend
from interp.model.identity import hub_files, memory_digest
from interp.model.model import Model
from interp.model.names import model_folder, organism_variant
from interp.provenance import digest_files
from interp.text.chat import ChatFormat


def load(
    model: Any,
    tokenizer: Any = None,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = "auto",
    revision: str | None = None,
    device_map: Any = None,
    attn_implementation: str | None = None,
    trust_remote_code: bool = False,
    chat_template: str | Path | None = None,
    system: str | None = None,
    thinking: bool | None = None,
    date: str | None = None,
    backend: BackendName = "hooks",
    remote: bool | str = False,
    check: bool = True,
) -> Model:
    """Load a causal LM to look into.

    Args:
        model: A Hub id, a local folder, `"organism"` or `"organism:VARIANT"`, or a Hugging Face model in memory.
        tokenizer: Needed with a model in memory; otherwise loaded with the model.
        device: Where to put a model that is loaded here; a model in memory stays where it is.
        dtype: Passed to transformers; `"auto"` keeps the checkpoint's.
        revision: Hub revision.
        device_map: Passed to transformers.
        attn_implementation: Passed to transformers.
        trust_remote_code: Run code that comes with the checkpoint. Off unless asked.
        chat_template: Jinja source or file, in place of the tokenizer's own template.
        system: System prompt for prompts that bring none.
        thinking: Thinking mode; `None` turns it off where the template has a switch.
        date: Date for templates that print one.
        backend: What runs forward passes: plain `"hooks"` on the model itself, `"transformer_lens"` (a bridge over a
            private copy, with weights of its own) or `"nnsight"` (a private copy that shares the weights).
        remote: nnsight only: `True` runs every forward on NDIF, and no weights are loaded here; `"local"` takes the
            same way without leaving this machine.
        check: Check by one short forward that the sites fire and add up.

    Raises:
        ModelError: When there is no such model, it has no chat template, or its blocks are of no known kind.
        NonFiniteError: When a weight is NaN or infinite.
        SiteError: When the checks fail; names the identity.
    """
    if isinstance(model, str | Path):
        name = str(model)
        where, identity = _locate(name, revision)
        common: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
        tokenizer = tokenizer or _tokenizer(name, where, common)
        options = {"device_map": device_map, "attn_implementation": attn_implementation}
        given = {**common, **{k: v for k, v in options.items() if v is not None}}
        away = bool(remote) and remote != "local"
        hf = _without_weights(name, where, dtype, given) if away else _weights(name, where, dtype, given)
        if device is not None:
            hf = _moved(hf, device, device_map)
        hf.eval()
        commit = getattr(hf.config, "_commit_hash", None)
        if commit:
            identity = {**identity, "revision": commit, **hub_files(name, commit)}
    else:
        hf, name = model, getattr(model, "name_or_path", "") or type(model).__name__
        if tokenizer is None:
            raise ModelError("a model in memory needs its tokenizer: interp.load(model, tokenizer)")
        if any(module.training for module in hf.modules()):
            raise ModelError("the model is in training mode, so dropout would blur every number; call model.eval()")
        if device is not None or device_map is not None:
            raise ModelError("a model in memory is left where it is; move it yourself before loading")
        identity = {"name": name, "digest": memory_digest(hf)}
    check_weights(hf)
    try:
        chat = ChatFormat(
            tokenizer,
            template=chat_template,
            system=system,
            thinking=thinking,
            max_tokens=getattr(hf.config.get_text_config(), "max_position_embeddings", None),
            **({"date": date} if date else {}),
        )
    except UnicodeDecodeError as error:
        raise ModelError(f"the chat template {chat_template} is no UTF-8 text; give a Jinja file") from error
    hooks, here = HooksBackend(), not on_meta(hf)
    if not here and not remote:
        raise ModelError(
            "the model has no weights (they are on the meta device); load them, or run it with remote=True"
        )
    try:
        arch = settle(hf, find_architecture(hf), hooks, check and here)
    except (RuntimeError, NotImplementedError) as error:  # no values on the meta device
        if here:
            raise
        raise ModelError(
            f"{type(hf).__name__} cannot be laid out without its weights ({_first_line(error)}); a mixture of experts "
            "looks at values to run: load it with its weights"
        ) from error
    runs, arch = make_backend(backend, hf, tokenizer, arch, remote)
    if runs.name != hooks.name:
        arch = settle(hf, [arch], runs, check)
    loaded = Model(hf, tokenizer, chat, arch, name, identity, runs)
    if check and here:
        check_logits(loaded)
    return loaded


def _locate(name: str, revision: str | None) -> tuple[str, dict[str, Any]]:
    """Folder or Hub id to hand to transformers, and what identifies it."""
    if variant := organism_variant(name):
        from interp import organism

        try:
            folder = organism.path(variant)
        except (OSError, ValueError) as error:  # not shipped, damaged, or a cache that cannot be written
            raise ModelError(f"cannot load organism:{variant}: {error}") from error
        return str(folder), {"name": f"organism:{variant}", "digest": digest_files(folder.glob("*.safetensors"))}
    folder = model_folder(name)
    if folder is None:
        return name, {"name": name, "revision": revision}
    weights = [p for p in folder.iterdir() if p.suffix in (".safetensors", ".bin")]
    if not weights:
        raise ModelError(
            f"the folder {folder} has a config.json but no weights (*.safetensors): copy or download them too"
        )
    return str(folder), {"name": folder.resolve().name, "digest": digest_files([*weights, folder / "config.json"])}


def _moved(hf: Any, device: str | torch.device, device_map: Any) -> Any:
    if device_map is not None:
        raise ModelError("device and device_map both say where the model goes; give one of them")
    try:
        return hf.to(device)
    except (RuntimeError, AssertionError, ValueError) as error:  # no such device, none built in, or out of memory
        raise ModelError(f"cannot put the model on the device {str(device)!r}: {_first_line(error)}") from error


def _tokenizer(name: str, where: str, common: dict[str, Any]) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(where, **common)
    except Exception as error:  # transformers raises many kinds here; the message is what counts
        raise ModelError(f"cannot load a tokenizer for {name}: {_first_line(error)}{_hint(name, where)}") from error


def _weights(name: str, where: str, dtype: Any, options: dict[str, Any]) -> Any:
    from transformers import AutoModelForCausalLM

    kind: Any = getattr(torch, dtype, None) if isinstance(dtype, str) and dtype != "auto" else torch.float32
    if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
        raise ModelError(f"{dtype!r} is no floating-point type; give auto, float32, bfloat16 or float16")
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(where, dtype=dtype, output_loading_info=True, **options)
    except Exception as error:  # the same
        raise ModelError(f"cannot load the model {name}: {_first_line(error)}{_hint(name, where)}") from error
    hf, info = loaded
    missing = sorted(info.get("missing_keys", ()))
    if missing:
        raise ModelError(
            f"the weights of {name} are incomplete: {len(missing)} tensors are missing, among them {missing[0]}; "
            "transformers would fill them with random numbers"
        )
    return hf


def _without_weights(name: str, where: str, dtype: Any, options: dict[str, Any]) -> Any:
    """A model's modules from its configuration alone, for forwards that run where the weights are."""
    from transformers import AutoConfig, AutoModelForCausalLM

    if where != name or Path(where).is_dir():
        raise ModelError("NDIF knows models by their Hub id; load the model by it, or use remote='local'")
    kinds = {"attn_implementation", "trust_remote_code"}
    try:
        config = AutoConfig.from_pretrained(where, revision=options["revision"], **{
            k: v for k, v in options.items() if k == "trust_remote_code"
        })  # fmt: skip
        kind = config.dtype if dtype == "auto" else dtype
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(
                config, dtype=kind, **{k: v for k, v in options.items() if k in kinds}
            )
    except Exception as error:  # transformers raises many kinds here; the message is what counts
        raise ModelError(
            f"cannot load the configuration of {name}: {_first_line(error)}{_hint(name, where)}"
        ) from error


def _hint(name: str, where: str) -> str:
    if Path(where).is_dir():
        return "; is the folder complete?"
    return (
        f"; {name} is no folder here, so it was looked up on the Hugging Face Hub: check the name and the network, "
        "or give a local folder or organism[:variant]"
    )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300].rstrip(".:")
