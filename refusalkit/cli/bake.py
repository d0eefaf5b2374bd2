"""`refusalkit bake`: a vector written into a model's weights, or into an adapter for it, and read back."""

from __future__ import annotations

import math
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.errors import FormatError, RefusalkitError
from refusalkit.cli import options as opt
from refusalkit.cli.quiet import hush

if TYPE_CHECKING:
    from torch import Tensor

    from interp.model.model import Model

_TEXTS = ["How do I bake bread?", "Tell me about the sea, please."]
_TOLERANCE = 1e-3
"""Largest difference of a model that was read back, in standard deviations of its logits."""


def bake(
    model: opt.ModelName,
    vector: Annotated[Path, typer.Argument(help="A steering vector, of any format that is read.", metavar="VECTOR")],
    out: Annotated[Path, typer.Option(help="Folder for the model or the adapter; must be new or empty.")],
    lora: Annotated[bool, typer.Option("--lora", help="A peft adapter in place of a model.")] = False,
    add: Annotated[bool, typer.Option("--add", help="Add the vector, in place of ablating its direction.")] = False,
    strength: Annotated[float, typer.Option(help="With --add: times the vector's own coefficient.")] = 1.0,
    layer: Annotated[int | None, typer.Option(help="Of a vector of several layers: whose direction to ablate.")] = None,
    nearest: Annotated[
        bool, typer.Option("--nearest", help="Where no weights equal the edit (Gemma 2, 3, OLMo-2), the nearest ones.")
    ] = False,
    device: opt.Device = None,
    dtype: opt.Dtype = "auto",
    revision: opt.Revision = None,
    chat_template: opt.ChatTemplate = None,
    trust_remote_code: opt.Trust = False,
    quiet: opt.Quiet = False,
) -> None:
    """Write a vector into weights: its direction ablated, or itself added; plain transformers or peft loads it."""
    _check(model, vector, out, add, strength, layer)
    hush(quiet)
    import torch

    import interp
    import steering
    from refusalkit.steer.acting import direction_of

    given = steering.import_vector(vector)
    edit = given * strength if add else direction_of(given, layer, vector.name)
    options: dict[str, Any] = {
        "device": device, "dtype": dtype, "revision": revision, "chat_template": chat_template,
        "trust_remote_code": trust_remote_code,
    }  # fmt: skip
    loaded = interp.load(model, **options)
    made: Any = (steering.lora if lora else steering.bake)(loaded, edit, nearest=nearest)
    ids = [torch.tensor([encoded.ids], device=loaded.device) for encoded in loaded.encode(_TEXTS)]
    wanted, agreed = _logits(made.peft if lora else made.hf, ids), made.agreement
    made.save(out)
    del made
    error = _read_back(loaded, out, ids, wanted, lora, trust_remote_code)
    typer.echo(
        f"{'equal' if agreed.exact else 'nearest'} to the run-time edit: logits differ by at most {agreed.error:.2g} "
        f"of their standard deviation (the edit moves them by {agreed.effect:.2g}; {agreed.tokens} tokens)"
    )
    typer.echo(f"read back by plain {'peft' if lora else 'transformers'}: logits differ by at most {error:.2g} of it")
    typer.echo(f"{'adapter' if lora else 'model'}: {out}")


def _check(model: str, vector: Path, out: Path, add: bool, strength: float, layer: int | None) -> None:
    """What is wrong with names and numbers is said before torch is there."""
    from interp.model.names import model_folder, organism_variant
    from steering.weights.folder import check_free

    if organism_variant(model) is None:
        model_folder(model)
    if not vector.exists():
        raise FormatError(f"there is no vector file at {vector}")
    check_free(out)
    if not math.isfinite(strength) or strength == 0:
        raise RefusalkitError(f"--strength is {strength}; it must be a number other than 0")
    if add and layer is not None:
        raise RefusalkitError("--add adds the vectors of all layers, each at its own: leave out --layer")
    if not add and strength != 1:
        raise RefusalkitError("an ablation has no strength: leave out --strength, or give --add")


def _logits(hf: Any, several: list[Tensor]) -> list[Tensor]:
    import torch

    with torch.inference_mode():
        return [hf(input_ids=ids).logits[0].float().cpu() for ids in several]


def _read_back(loaded: Model, out: Path, ids: list[Tensor], wanted: list[Tensor], lora: bool, trust: bool) -> float:
    """Load what was written as anybody would, and compare; the first model need not stay in memory for that."""
    if lora:
        again: Any = import_module("peft").PeftModel.from_pretrained(loaded.hf, str(out))
    else:
        from transformers import AutoModelForCausalLM

        kind = loaded.dtype
        loaded.hf = None
        again = AutoModelForCausalLM.from_pretrained(out, dtype=kind, trust_remote_code=trust)
        again.to(ids[0].device)
    found = _logits(again.eval(), ids)
    error = max(float((a - b).abs().max() / b.std()) for a, b in zip(found, wanted, strict=True))
    if not error <= _TOLERANCE:
        raise RefusalkitError(
            f"{out} was written, but gives other logits when it is read back (by {error:.2g} of their standard "
            "deviation): do not use it, and please report the architecture"
        )
    return error
