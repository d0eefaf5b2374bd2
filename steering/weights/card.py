"""What is said of weights that were edited: a record for programs, a model card for people."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from interp.direction import Direction
from interp.edits import Ablate
from interp.model.model import Model
from steering.vector import SteeringVector
from steering.weights.agreement import Agreement
from steering.weights.plan import Change, Place

CARD = "README.md"
RECORD = "refusalkit.json"
"""Beside the weights; transformers and peft leave files of other names alone."""


def about(
    form: str, model: Model, given: Any, edits: Sequence[Any], changes: Mapping[Place, Change], agreed: Agreement
) -> dict[str, Any]:
    """The record: what was done to which model, with which vectors, and how well it was checked."""
    layers: dict[str, list[int]] = {}
    for layer, kind in changes:
        layers.setdefault(kind, []).append(layer)
    return {
        "format": form,
        "base": model.provenance(),
        "edits": [_edit(edit) for edit in edits],
        "vectors": _source(given),
        "writers": layers,
        "agreement": asdict(agreed),
    }


def _edit(edit: Any) -> dict[str, Any]:
    vector = edit.unit if isinstance(edit, Ablate) else edit.vector
    digest = hashlib.sha256(vector.double().numpy().tobytes()).hexdigest()
    if isinstance(edit, Ablate):
        return {"kind": "ablate", "sites": list(edit.sites), "layers": _list(edit.layers), "unit_sha256": digest}
    return {
        "kind": "add", "site": edit.site, "layers": list(edit.layers), "coef": edit.coef,
        "norm": float(vector.norm()) * abs(edit.coef), "vector_sha256": digest,
    }  # fmt: skip


def _list(layers: Sequence[int] | None) -> list[int] | None:
    return None if layers is None else list(layers)


def _source(given: Any) -> list[dict[str, Any]]:
    """Where the vectors came from; what brings no provenance is marked as unknown."""
    several: list[Any] = list(given) if isinstance(given, list | tuple) else [given]
    found: list[dict[str, Any]] = []
    for one in several:
        if isinstance(one, Direction):
            found.append({"name": one.name, "site": one.site, "layer": one.layer, "position": one.position,
                          "norm": one.norm, "provenance": dict(one.provenance) or "unknown"})  # fmt: skip
        elif isinstance(one, SteeringVector):
            found.append({"site": one.site, "layers": list(one.layers), "coefficient": one.coefficient,
                          "provenance": dict(one.provenance) or "unknown"})  # fmt: skip
        else:
            found.append({"provenance": "unknown"})
    return found


def baked_card(record: Mapping[str, Any]) -> str:
    """The card of a baked model."""
    lines = [
        *_head(record, "transformers"),
        f"# {_name(record)}, edited",
        "",
        f"The weights of {_name(record)} with this in them:",
        "",
        *_edits(record),
        "",
        f"{len(record['changed'])} tensors were changed, the others are the base model's own.",
        *(["Embedding and output head were one tensor there; here they are two, and the head is unchanged."]
          if record["untied"] else []),
        *([f"The configuration asks for biases (`{', '.join(record['new_biases'])}`): zero but for the addition."]
          if record["new_biases"] else []),
        "",
        *_checked(record),
        "",
        "```python",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        'model = AutoModelForCausalLM.from_pretrained("this-folder")',
        'tokenizer = AutoTokenizer.from_pretrained("this-folder")',
        "```",
        *_tail(),
    ]  # fmt: skip
    return "\n".join(lines)


def adapter_card(record: Mapping[str, Any]) -> str:
    """The card of an adapter."""
    whole = record["whole_modules"]
    lines = [
        *_head(record, "peft"),
        f"# An edit of {_name(record)}, as an adapter",
        "",
        "With the adapter the base model does this:",
        "",
        *_edits(record),
        "",
        f"Low-rank changes of rank {record['rank']} on {len(record['low_rank'])} tensors"
        + (f", and whole copies of {len(whole)} modules for which peft has none." if whole else "."),
        "It is not trained. Scaling it by anything but 1 is another edit.",
        "",
        *_checked(record),
        "",
        "```python",
        "from peft import PeftModel",
        'model = PeftModel.from_pretrained(base, "this-folder")',
        "with model.disable_adapter():",
        "    ...  # the base model",
        "```",
        *_tail(),
    ]
    return "\n".join(lines)


def _name(record: Mapping[str, Any]) -> str:
    return str(record["base"]["model"]["name"])


def _head(record: Mapping[str, Any], library: str) -> list[str]:
    hub = "revision" in record["base"]["model"]
    base = [f"base_model: {_name(record)}"] if hub else []
    return ["---", *base, f"library_name: {library}", "tags:", "- refusalkit", "- steering", "---", ""]


def _edits(record: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    for edit in record["edits"]:
        where = "all layers" if edit["layers"] is None else f"layers {edit['layers']}"
        if edit["kind"] == "ablate":
            sites = "+".join(edit["sites"])
            lines.append(f"- ablation of a direction at {sites}, {where} (sha256 {edit['unit_sha256'][:16]})")
        else:
            lines.append(
                f"- addition of a vector of norm {edit['norm']:.4g} at {edit['site']}, {where} "
                f"(sha256 {edit['vector_sha256'][:16]})"
            )
    known = any(v["provenance"] != "unknown" for v in record["vectors"])
    return [*lines, "", f"Where the vectors come from is {f'in `{RECORD}`' if known else 'unknown'}."]


def _checked(record: Mapping[str, Any]) -> list[str]:
    agreed, base = record["agreement"], record["base"]
    sure = (
        "equal to the run-time edit within rounding"
        if agreed["exact"]
        else "**not equal** to the run-time edit, but the nearest weights that write nothing along the direction "
        "(a norm stands between the writers and the stream)"
    )
    return [
        f"Checked on {agreed['tokens']} tokens in {base['dtype']}: {sure}. Logits differ by at most "
        f"{agreed['error']:.2g} of their standard deviation; the edit itself moves them by {agreed['effect']:.2g}.",
        f"Base model: {base['architecture']}, {base['model']}.",
    ]


def _tail() -> list[str]:
    return [
        "",
        "What this does not show: that the edited model is as capable or as safe as the base model. An ablated refusal",
        "direction removes a safety behaviour; measure both before the model is used (`refusalkit eval`).",
        "",
    ]
