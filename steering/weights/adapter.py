"""`lora`: run-time edits as a peft adapter, which can be switched off.

An ablation is low-rank as it is: `W - r r'W = W + B A` with `B = -r` and `A = r'W`. Nothing is trained.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from packaging.version import Version
from torch import Tensor, nn

from interp.errors import ModelError
from interp.model.model import Model
from interp.provenance import write_json
from steering.weights.agreement import Agreement, Judge
from steering.weights.card import CARD, RECORD, about, adapter_card
from steering.weights.folder import write_folder
from steering.weights.plan import Change, Place, plan
from steering.weights.shell import Shell, changed_weight
from steering.weights.writers import Part, writer_parts
from steering.weights.writing import as_edits, changes_for, check_agreed, shift_shares

NAME = "default"
"""What peft calls the only adapter."""
_PEFT = "0.21"


@dataclass(frozen=True, eq=False)
class Adapter:
    """Edits as a peft adapter.

    Attributes:
        peft: A `PeftModel` around modules of its own and the user's weights, with the adapter on.
        edits: The run-time edits that do the same.
        agreement: The check against the run-time edits.
        low_rank: Tensors with a low-rank change.
        whole_modules: Modules that the adapter holds whole, since peft has no low-rank change for them.
        record: Everything that is written beside the adapter; JSON-able.
    """

    peft: Any
    edits: tuple[Any, ...]
    agreement: Agreement
    low_rank: tuple[str, ...]
    whole_modules: tuple[str, ...]
    record: Mapping[str, Any] = field(repr=False)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a folder that `peft.PeftModel.from_pretrained(base, folder)` loads; whole or not at all.

        Raises:
            FormatError: When it cannot be written, or something is there.
        """

        def fill(folder: Path) -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that a bias is no matrix
                # Left to itself, peft adds a copy of every embedding that has a low-rank change.
                self.peft.save_pretrained(folder, save_embedding_layers=False)
            (folder / CARD).write_text(adapter_card(self.record), encoding="utf-8")
            write_json(folder / RECORD, dict(self.record))

        return write_folder(path, fill)


@dataclass
class _Targets:
    """What the adapter changes, by the way that peft has for it."""

    modules: dict[str, tuple[Part, Change]] = field(default_factory=dict[str, tuple[Part, Change]])
    parameters: dict[str, tuple[Part, Change, float]] = field(default_factory=dict[str, tuple[Part, Change, float]])
    biases: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    whole: dict[str, list[tuple[Part, Change, float]]] = field(
        default_factory=dict[str, list[tuple[Part, Change, float]]]
    )

    @property
    def rank(self) -> int:
        ranks = [change.rank for _, change in self.modules.values()]
        return max([*ranks, *(c.rank + bool(share) for _, c, share in self.parameters.values()), 1])


def lora(model: Model, edit: Any, *, nearest: bool = False) -> Adapter:
    """Write edits as a low-rank adapter: rank 1 for each matrix and each direction, exact, and not trained.

    Linear layers, embeddings and fused experts have low-rank changes in peft; biases of linear layers go with them
    (`lora_bias`), so that an addition needs no bias in the base model. peft takes no such bias beside a low-rank change
    of an embedding or of fused experts: the embeddings (GPT-2, GPT-NeoX), or the biased linear layers beside experts
    (gpt-oss), are then held whole. The result is compared with the run-time edits, and without the adapter with the
    model, bit for bit. `model` is left as it is.

    Args:
        model: From `interp.load`, with plain hooks and unquantised weights on one device.
        edit: As for `bake`.
        nearest: As for `bake`.

    Raises:
        EditError: For edits that no weights can do, or that have no effect.
        DirectionError: For a vector of another width, zero or not finite.
        SiteError: For a layer out of range.
        ModelError: As for `bake`; when peft is not installed; for an addition to what a mixture of experts writes.
    """
    try:
        peft: Any = import_module("peft")
    except ImportError as error:
        raise ModelError(f"an adapter needs peft ({error}): pip install refusalkit[export]") from error
    if Version(peft.__version__) < Version(_PEFT):  # which lays fused experts out otherwise
        raise ModelError(f"an adapter needs peft {_PEFT} or later, and {peft.__version__} is installed: upgrade it")
    edits = as_edits(edit)
    changes, normed = changes_for(model, edits)
    shell, judge = Shell(model.hf, model.arch), Judge(model, edits)
    targets = _targets(model, shell, changes)
    wrapped = _wrapped(peft, model, shell, targets)
    agreed = judge(shell, plan(edits, model.arch), exact=not normed)
    check_agreed(model, agreed, bool(normed), nearest)
    with wrapped.disable_adapter():
        if not judge.same_as_plain(wrapped):
            raise ModelError("without the adapter the model does not give its own logits: peft changed something else")
    low_rank, whole = (*targets.modules, *targets.parameters), tuple(targets.whole)
    record = {
        **about("refusalkit/adapter/1", model, edit, edits, changes, agreed),
        "rank": targets.rank, "low_rank": sorted(low_rank), "whole_modules": sorted(whole), "peft": peft.__version__,
    }  # fmt: skip
    return Adapter(wrapped, tuple(edits), agreed, tuple(sorted(low_rank)), tuple(sorted(whole)), record)


def _targets(model: Model, shell: Shell, changes: Mapping[Place, Change]) -> _Targets:
    """Sort every tensor of every writer by what peft can do to it."""
    from transformers.pytorch_utils import Conv1D

    found = _Targets()
    own: list[tuple[Part, Change, float]] = []
    inside: set[str] = set()  # of MLPs
    for place, change in changes.items():
        parts = writer_parts(shell.hf, shell.arch, place)
        shares: Mapping[str, float] = shift_shares(model, place, parts) if change.shifts else {}
        if change.shifts and not shares:
            last = [p for p in parts if p.kind == "linear" and ".experts." not in p.path]
            if not last or (place[1] == "mlp" and any(layout.experts for layout in model.arch.layouts)):
                raise ModelError(
                    f"the MLPs of {type(model.hf).__name__} are mixtures of experts without biases, to which peft can "
                    "add no vector; keep it a run-time edit"
                )
            found.biases[last[-1].module] = change.shift
            found.modules[last[-1].module] = (last[-1], change)
        inside |= {p.path for p in parts if place[1] == "mlp"}
        own += [(p, change, shares.get(p.path, 0.0)) for p in parts if change.rank or p.path in shares]
    biased = bool(found.biases) or any(p.bias and p.kind == "linear" for p, _, _ in own)
    experts = any(p.kind in ("experts", "parameter") for p, _, _ in own)
    whole = {p.module for p, _, _ in own if p.kind == "linear" and p.bias} if experts else set[str]()
    if (biased and not experts) or any(isinstance(m, Conv1D) for m in model.arch.blocks.modules()):
        whole |= {p.module for p, _, _ in own if p.kind == "embedding"}
    if experts and found.biases:
        raise ModelError(
            f"{type(model.hf).__name__}: peft takes no added bias (lora_bias) beside fused experts; give the addition "
            "an adapter of its own, or keep it a run-time edit"
        )
    for part, change, share in own:
        weight = shell.hf.get_parameter(part.path)
        if part.module in whole:
            found.whole.setdefault(part.module, []).append((part, change, share))
        elif part.kind in ("experts", "parameter"):
            found.parameters[part.path] = (part, change, share)
        elif part.bias:
            wide = weight.detach().double()
            found.biases[part.module] = change.linear(wide) + share * change.shift.to(wide)
            found.modules.setdefault(part.module, (part, change))
        # Beside experts, peft takes the name of a dense or shared down projection for theirs (peft issue 3711).
        elif share or (experts and part.path in inside):
            found.parameters[part.path] = (part, change, share)
        else:
            found.modules[part.module] = (part, change)
    return found


@torch.no_grad()
def _wrapped(peft: Any, model: Model, shell: Shell, targets: _Targets) -> Any:
    """The shell with the adapter on."""
    from transformers.pytorch_utils import Conv1D

    weights = {path: shell.hf.get_parameter(path) for path in targets.parameters}
    turned = any(isinstance(shell.hf.get_submodule(path), Conv1D) for path in targets.modules)
    config = peft.LoraConfig(
        r=targets.rank, lora_alpha=targets.rank, task_type="CAUSAL_LM", inference_mode=True,
        target_modules=sorted(targets.modules) or None, target_parameters=sorted(targets.parameters) or None,
        modules_to_save=sorted(targets.whole) or None, lora_bias=bool(targets.biases), fan_in_fan_out=turned,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it cannot be merged, and that tied embeddings stay apart
        try:
            wrapped = peft.get_peft_model(shell.hf, config)
        except (ValueError, TypeError, NotImplementedError) as error:
            raise ModelError(f"peft has no adapter for this edit of {type(model.hf).__name__}: {error}") from error
    wrapped.eval()
    config.base_model_name_or_path = str(model.identity["name"])  # peft puts a path of this machine there
    config.revision = model.identity.get("revision")
    modules = dict(shell.hf.named_modules())
    for path, (part, change) in targets.modules.items():
        _fill_module(modules[path], part, change, targets.biases.get(path))
    for path, (part, change, share) in targets.parameters.items():
        layer = _wrapper(modules[part.module], part.name)
        _fill_parameter(layer, weights[path], part, change, share)
    for path, parts in targets.whole.items():
        copied = modules[path].modules_to_save[NAME]
        for part, change, share in parts:
            own = getattr(copied, part.name)
            own.copy_(changed_weight(own, part, change, share))
    return wrapped


def _wrapper(layer: Any, name: str) -> Any:
    """Of the wrappers that peft nests around a module, that of one parameter."""
    while layer.parameter_name != name:
        layer = layer.base_layer
    return layer


def _fill_module(layer: Any, part: Part, change: Change, bias: Tensor | None) -> None:
    weight = layer.get_base_layer().weight.detach()
    out = change.out
    if part.kind == "embedding":
        _fill(layer.lora_embedding_A[NAME], (weight.double() @ change.into.to(weight.device)).T)
        _fill(layer.lora_embedding_B[NAME], out)
        return
    matrix = weight if isinstance(layer.get_base_layer(), nn.Linear) else weight.T  # Conv1D keeps [in, out]
    _fill(layer.lora_A[NAME].weight, change.into.T.to(weight.device) @ matrix.double())
    _fill(layer.lora_B[NAME].weight, out)
    if bias is not None:
        layer.lora_B[NAME].bias.copy_(bias)
    elif layer.lora_B[NAME].bias is not None:
        layer.lora_B[NAME].bias.zero_()


def _fill_parameter(layer: Any, weight: Tensor, part: Part, change: Change, share: float) -> None:
    """Fused experts `[expert, ., .]`, a matrix `[d, .]`, or a table of vectors `[row, d]`."""
    a, b, rank = layer.lora_A[NAME].weight, layer.lora_B[NAME].weight, layer.r[NAME]
    into = change.into.to(weight.device)
    if part.axis == 0:
        _fill(a, into.T @ weight.double())
        _fill(b, change.out)
        return
    if weight.ndim == 2:
        # B A = rows by width: what each row loses, and what each gains.
        _fill(a, torch.cat([change.out.T, share * change.shift[None] if share else change.out.T[:0]]))
        ones = torch.ones(len(weight), int(bool(share)), dtype=torch.float64, device=weight.device)
        _fill(b, torch.cat([weight.double() @ into, ones], 1))
        return
    experts = len(weight)
    read, write = torch.zeros(experts, rank, a.shape[1]), torch.zeros(b.shape[0], rank, experts)
    for e, matrix in enumerate(weight):
        wide = matrix.detach().double()
        read[e, : change.rank] = (into.T @ (wide if part.axis == 1 else wide.T)).float()
        write[:, : change.rank, e] = change.out.float()
    a.copy_(read.reshape(a.shape))
    b.copy_(write.reshape(b.shape))


def _fill(target: Tensor, values: Tensor) -> None:
    """Write a block into the corner of a tensor that is zero elsewhere: a writer may need less than the full rank."""
    target.zero_()
    target[: values.shape[0], : values.shape[1]].copy_(values)
