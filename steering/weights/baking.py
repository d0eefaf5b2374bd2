"""`bake`: run-time edits as a model of its own, which plain transformers loads."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from interp.model.identity import memory_digest
from interp.model.model import Model
from interp.provenance import write_json
from steering.weights.agreement import Agreement
from steering.weights.card import CARD, RECORD, about, baked_card
from steering.weights.folder import write_folder
from steering.weights.shell import Shell
from steering.weights.writing import as_edits, write

_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
"""What a model that reads images has beside its tokenizer."""


@dataclass(frozen=True, eq=False)
class Baked:
    """A model with edits in its weights.

    Attributes:
        hf: The Hugging Face model. Tensors that were not changed are the user's own: do not train it.
        tokenizer: The user's.
        edits: The run-time edits that do the same, for `model.generate(edits=...)`.
        agreement: The check against the run-time edits.
        changed: Keys of the state dict that were changed.
        untied: Whether embedding and output head were one tensor and are two: the edit is on the embedding alone.
        record: Everything that is written beside the weights; JSON-able.
    """

    hf: Any
    tokenizer: Any
    edits: tuple[Any, ...]
    agreement: Agreement
    changed: tuple[str, ...]
    untied: bool
    record: Mapping[str, Any] = field(repr=False)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a folder that `AutoModelForCausalLM.from_pretrained` loads: weights, tokenizer, card, record.

        The folder appears whole or not at all.

        Args:
            path: A folder that does not exist yet, or is empty.

        Raises:
            FormatError: When it cannot be written, or something is there.
        """

        def fill(folder: Path) -> None:
            self.hf.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
            for file in _processors(self.hf):
                if not (folder / file.name).exists():
                    shutil.copyfile(file, folder / file.name)
            (folder / CARD).write_text(baked_card(self.record), encoding="utf-8")
            write_json(folder / RECORD, dict(self.record))

        return write_folder(path, fill)


def bake(model: Model, edit: Any, *, nearest: bool = False, inplace: bool = False) -> Baked:
    """Write edits into the weights (weight orthogonalisation, Arditi et al. 2024, section 2.4 and appendix E).

    Ablation: every matrix, embedding and bias that writes to the stream loses its component along the direction,
    `W - r r'W`. Addition: a bias of the last weights before the place, or all rows of the embedding. What comes out is
    compared with the run-time edits on the logits of two short prompts, and believed only when they are equal.

    The changed tensors (of a dense model about two fifths of the weights, of a mixture about a third) are made one by
    one beside the model's own; the others are shared. `model` is left bit for bit as it is, unless `inplace`.

    Args:
        model: From `interp.load`, with plain hooks and unquantised weights on one device.
        edit: A `Direction` or a vector `[d]`, which is ablated at every writer; several of them (a list, or `[n, d]`),
            of which the whole subspace is; or edits as for `model.generate`: `interp.edits.ablate`,
            `interp.edits.add`, a `SteeringVector`, a list.
        nearest: Where a norm stands between the writers and the stream (Gemma 2 and 3, OLMo-2), so that no weights
            equal the edit: take those that write nothing along the direction. How far their logits are off is in
            `agreement.error`.
        inplace: Put the changed tensors into `model.hf` too.

    Raises:
        EditError: For edits that no weights can do (single tokens, references, other sites) or that have no effect.
        DirectionError: For a vector of another width, zero or not finite.
        SiteError: For a layer out of range.
        ModelError: For quantised, offloaded or adapted weights; where the architecture has no place for the edit; when
            the result is not equal to the run-time edits (fp32: `1e-4` of the logits' standard deviation).
    """
    edits = as_edits(edit)
    shell, changes, agreed = write(model, edits, nearest)
    record = {
        **about("refusalkit/baked-model/1", model, edit, edits, changes, agreed),
        "changed": sorted(shell.changed), "untied": shell.untied, "new_biases": shell.grown,
    }  # fmt: skip
    if inplace:
        _commit(model, shell)
    for weight in shell.hf.parameters():
        weight.requires_grad_(False)
    return Baked(
        shell.hf, model.tokenizer, tuple(edits), agreed, tuple(sorted(shell.changed)), shell.untied, record
    )  # fmt: skip


def _processors(hf: Any) -> list[Path]:
    """What a local folder that the model came from has for its images."""
    source = Path(str(getattr(hf, "name_or_path", "") or ""))
    return [source / name for name in _PROCESSORS if hf.name_or_path and (source / name).is_file()]


def _commit(model: Model, shell: Shell) -> None:
    """Give the user's model the changed tensors: the same parameters with other data, where there are any."""
    hf = model.hf
    head = next(hf.get_output_embeddings().parameters())
    for path in shell.changed:
        module, _, name = path.rpartition(".")
        owner, new = hf.get_submodule(module), shell.hf.get_parameter(path).data
        old = owner._parameters.get(name)
        if old is None or (old is head and shell.untied):
            owner.register_parameter(name, nn.Parameter(new, requires_grad=bool(old is not None and old.requires_grad)))
        else:
            old.data = new
    for own, changed in _configs(hf, shell.hf):
        for flag in ("tie_word_embeddings", *shell.grown):
            if getattr(changed, flag, None) != getattr(own, flag, None):
                setattr(own, flag, getattr(changed, flag))
    if hasattr(hf, "all_tied_weights_keys"):
        hf.all_tied_weights_keys = dict(shell.hf.all_tied_weights_keys)
    model.identity = {**model.identity, "digest": memory_digest(hf), "baked": True}


def _configs(first: Any, second: Any) -> list[tuple[Any, Any]]:
    """The configurations of two models, whole and of their language model, in pairs."""
    return [(first.config, second.config), (first.config.get_text_config(), second.config.get_text_config())]
