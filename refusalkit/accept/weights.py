"""Issue 7, B and D: a baked model and an adapter say what run-time edits say, loaded by plain transformers and peft."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

import interp
import steering
from interp.direction import Direction
from interp.edits import ablate, add
from interp.model.model import Model
from interp.text.prompts import PromptSet
from refusalkit.accept.rows import Rows, claim_row, rate_row, value_row

LAYER = 3
"""Input of the block half way up, where the audit too finds refusal; nothing here depends on its being the best."""
N = 100
"""Held-out prompts per class."""
MAX_NEW_TOKENS = 24
VARIANT = "weights organism:chat"


def weights(progress: bool) -> Rows:
    """An ablation and an addition, baked and as adapters, on 200 held-out prompts; what they change as control."""
    del progress
    model, prompts = interp.load("organism:chat"), interp.prompts("organism")
    direction = _direction(model, prompts)
    some = [*prompts.test.harmful[:N], *prompts.test.harmless[:N]]
    plain = _texts(model, some)
    kinds: dict[str, Any] = {
        "ablation": ablate(direction), "addition": add(direction, 1.0, site="resid_pre", layer=LAYER),
    }  # fmt: skip
    for name, edit in kinds.items():
        wanted = _texts(model, some, edit)
        yield _same(f"unedited texts that equal those under the {name}", plain, wanted, "<=", 0.6)
        with TemporaryDirectory() as folder:
            baked = steering.bake(model, edit)
            again = interp.load(str(baked.save(Path(folder) / "baked")))
            yield value_row(VARIANT, f"{name} baked: largest difference of logits, in sd", baked.agreement.error,
                            "<=", 1e-4, baked.agreement.tokens)  # fmt: skip
            yield _same(f"{name} baked: texts equal to those under the edit", _texts(again, some), wanted, ">=", 1.0)
            if find_spec("peft") is None:
                yield claim_row(VARIANT, f"{name} as adapter: not measured, peft is not installed", False)
                continue
            made = steering.lora(model, edit)
            wrapped = _adapted(made.save(Path(folder) / "adapter"))
            yield value_row(VARIANT, f"{name} as adapter: largest difference of logits, in sd", made.agreement.error,
                            "<=", 1e-4, made.agreement.tokens)  # fmt: skip
            adapted = interp.load(wrapped.get_base_model(), model.tokenizer)
            yield _same(f"{name} as adapter: texts equal to those under the edit", _texts(adapted, some), wanted,
                        ">=", 1.0)  # fmt: skip
            with wrapped.disable_adapter():
                yield _same(f"{name} adapter off: texts equal to the unedited", _texts(adapted, some), plain,
                            ">=", 1.0)  # fmt: skip


def _direction(model: Model, prompts: PromptSet) -> Direction:
    """Difference of the classes' means on training prompts."""
    means = [
        interp.capture(model, part[:N], "resid_pre", ["t_post_inst"], [LAYER]).sel("resid_pre", LAYER).mean(0)
        for part in (prompts.train.harmful, prompts.train.harmless)
    ]
    return Direction(torch.as_tensor(means[0] - means[1]).reshape(-1), "resid_pre", LAYER, "t_post_inst", "refusal")


def _adapted(folder: Path) -> Any:
    """The organism, loaded anew, behind an adapter that plain peft loads."""
    return import_module("peft").PeftModel.from_pretrained(interp.load("organism:chat").hf, str(folder)).eval()


def _texts(model: Model, prompts: Any, edit: Any = None) -> list[str]:
    edits = [] if edit is None else [edit]
    return [c.text for c in model.generate(prompts, max_new_tokens=MAX_NEW_TOKENS, edits=edits)]


def _same(figure: str, ours: list[str], theirs: list[str], sense: str, floor: float) -> dict[str, Any]:
    k = sum(a == b for a, b in zip(ours, theirs, strict=True))
    return rate_row(VARIANT, figure, {"k": k, "n": len(ours), "value": k / len(ours)}, sense, floor)
