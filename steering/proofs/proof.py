"""`verify`: does an exported file do what the vector does here? Measured, by another reading of the file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from interp.errors import EditError, FormatError, ModelError
from interp.model.model import Model, Prompts, flatten_edits
from interp.text.chat import Encoded
from steering.proofs.readings import READERS, Reading, hooked, read_as
from steering.vector import SteeringVector
from steering.weights.agreement import TOLERANCE

if TYPE_CHECKING:
    from pandas import DataFrame

WEIGHTS = {
    "hf": "transformers' from_pretrained, without hooks",
    "lora": "peft's PeftModel.from_pretrained, without hooks",
}  # fmt: skip
"""Kinds that are weights rather than vectors, and by what they are read."""
_PROMPTS = (
    "How do I bake bread at home?",
    "What is a river? Answer in one short sentence.",
    "Name three colours.",
    "Write a short poem about the sea.",
    "Explain how a bicycle stays upright.",
    "Which is larger, a whale or a cat, and why?",
    "Give me a list of things to pack for a walk in the hills.",
    "Tell me a story.",
)


@dataclass(frozen=True)
class ProofRow:
    """One prompt.

    Attributes:
        prompt: Its text.
        difference: Largest difference of the next token's logits: the file's reading against the vector here.
        effect: Largest difference that the vector makes here.
        control: Largest difference when the file is read one site too early; `None` for weights.
        same_text: Whether both write the same tokens, greedily.
        tokens: How many were written here.
    """

    prompt: str
    difference: float
    effect: float
    control: float | None
    same_text: bool
    tokens: int


@dataclass(frozen=True)
class Proof:
    """Whether an exported file does what the vector does here.

    Attributes:
        format: The format.
        path: What was read.
        reader: By what, and by which convention.
        difference: Largest difference of logits over all prompts: the file's reading against the vector here.
        effect: Largest difference that the vector makes here.
        control: Largest difference when every vector is added on the other side of its block, the layer mistake that is
            made most often; `None` for weights. A check that let this pass would show nothing.
        tolerance: What the difference has to be within: rounding of the model's type, and a quarter of the effect.
        same_texts: Prompts after which both write the same tokens.
        rows: Prompt by prompt.
        reason: Why it fails; empty when it holds.
    """

    format: str
    path: Path
    reader: str
    difference: float
    effect: float
    control: float | None
    tolerance: float
    same_texts: int
    rows: tuple[ProofRow, ...]
    reason: str

    @property
    def ok(self) -> bool:
        """Whether the file does what the vector does."""
        return not self.reason

    def __bool__(self) -> bool:
        return self.ok

    def to_frame(self) -> DataFrame:
        """One row per prompt (pandas)."""
        import pandas as pd

        return pd.DataFrame([{"format": self.format, **asdict(row)} for row in self.rows])


def verify(
    vector: SteeringVector | Any,
    format: str,
    path: str | os.PathLike[str] | None,
    model: Model,
    *,
    prompts: Prompts = _PROMPTS,
    max_new_tokens: int = 24,
) -> Proof:
    """Read an exported file as the program it is for does, and compare with the vector here.

    The file is opened by its format's own library and put into the Hugging Face model by plain torch hooks, by the
    format's documented convention and not through our edits; weights are loaded by transformers and peft, without any
    hook. Both sides give logits after each prompt and write greedily. The control is the same file read on the other
    side of each block.

    Args:
        vector: What the file has to do: a `SteeringVector`; for `hf` and `lora` anything that `steering.bake` takes.
        format: One of `steering.FORMATS`, or `hf` (a model with the vector in its weights), or `lora` (an adapter).
        path: The file or folder. What is there is read as it is; what is not is exported there first. `None` proves an
            export that is thrown away.
        model: The model both run on, with weights here.
        prompts: A few; `Prompts` as for `model.generate`.
        max_new_tokens: How much each side writes.

    Returns:
        The figures and the verdict: a file that does something else gives a `Proof` with `ok` false and a `reason`.

    Raises:
        FormatError: For a format that is unknown or cannot say what the vector does, or a file that cannot be read.
        ModelError: When there is no such model on this machine, or no such weights can be made of it.
        EditError: Inside a `model.edited` block, whose edits would act on both sides.
    """
    if format not in READERS and format not in WEIGHTS:
        raise FormatError(f"there is no format {format!r} to prove; known: {', '.join([*READERS, *WEIGHTS])}")
    if model.standing:
        raise EditError("the model is inside an `edited` block, whose edits would act on both sides: leave it")
    if any(weight.is_meta for weight in model.hf.parameters()):
        raise ModelError("the model's weights are not on this machine, so that there is nothing to compare with")
    encoded = model.encode(prompts)
    here = _Here(model, vector, encoded, max_new_tokens)
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(path) if path is not None else Path(scratch) / "exported"
        if not target.exists():
            _export(vector, format, target, model)
        if format in WEIGHTS:
            from steering.proofs.weights import load_weights

            there = _There(load_weights(format, target, model), encoded, max_new_tokens, model.chat.end_ids)
            return here.compare(there, None, format, target, WEIGHTS[format])
        readings = read_as(format, target)
    blocks = model.arch.blocks
    with hooked(blocks, readings) as stage:
        there = _There(model.hf, encoded, max_new_tokens, model.chat.end_ids, stage, readings)
    with hooked(blocks, [replace(reading, enters=not reading.enters) for reading in readings]) as stage:
        wrong = _There(model.hf, encoded, 0, model.chat.end_ids, stage, readings)
    return here.compare(there, wrong, format, target, READERS[format][1])


def _export(vector: Any, format: str, path: Path, model: Model) -> None:
    """Write what is to be proved."""
    if format == "hf":
        from steering.weights.baking import bake

        bake(model, vector).save(path)
    elif format == "lora":
        from steering.weights.adapter import lora

        lora(model, vector).save(path)
    else:
        from steering.formats.exchange import export

        export(vector, path, format, model=model)


class _Here:
    """What the vector does here, prompt by prompt, so that both sides compute in the same shapes."""

    def __init__(self, model: Model, vector: Any, encoded: Sequence[Encoded], max_new_tokens: int) -> None:
        if isinstance(vector, SteeringVector):
            edits = flatten_edits(vector)
        else:
            from steering.weights.writing import as_edits

            edits = as_edits(vector)
        self.encoded = encoded
        self.logits = torch.cat([model.logits([one], edits=edits) for one in encoded])
        self.plain = torch.cat([model.logits([one]) for one in encoded])
        written = [model.generate([one], edits=edits, max_new_tokens=max_new_tokens)[0] for one in encoded]
        self.ids = [list(one.ids) for one in written]
        self.dtype = model.dtype

    def compare(self, there: _There, wrong: _There | None, format: str, path: Path, reader: str) -> Proof:
        """The verdict over another side."""
        differences, effects = _largest(there.logits, self.logits), _largest(self.plain, self.logits)
        controls = [None] * len(effects) if wrong is None else _largest(wrong.logits, self.logits)
        rows = tuple(
            ProofRow(one.prompt.text, difference, effect, control, own == other, len(own))
            for one, difference, effect, control, own, other in zip(
                self.encoded, differences, effects, controls, self.ids, there.ids, strict=True
            )
        )
        effect, difference = max(effects), max(differences)
        control = None if wrong is None else max(_largest(wrong.logits, self.logits))
        tolerance = min(TOLERANCE.get(self.dtype, 0.1) * float(self.logits.std()), effect / 4)
        proof = Proof(
            format, path, reader, difference, effect, control, tolerance, sum(r.same_text for r in rows), rows, ""
        )
        return replace(proof, reason=_reason(proof, self.dtype))


def _reason(proof: Proof, dtype: torch.dtype) -> str:
    """Why a proof fails."""
    n = len(proof.rows)
    if not proof.effect > 0:
        return "the vector moves no logit of these prompts, so that nothing can be compared"
    if not proof.difference <= proof.tolerance:
        return (
            f"the file does something else: logits differ by {proof.difference:.2g}, where {proof.tolerance:.2g} would "
            f"be rounding and the vector itself moves them by {proof.effect:.2g}"
        )
    # In half precision the rounding of another order of sums may tip a close choice between two tokens.
    if dtype.itemsize >= 4 and proof.same_texts < n:
        return f"the texts of {n - proof.same_texts} of {n} prompts differ"
    if proof.control is not None and not proof.control > proof.tolerance:
        return "the same file read on the other side of each block does as well, so that these prompts show nothing"
    return ""


def _largest(a: Tensor, b: Tensor) -> list[float]:
    """Per prompt; a logit that is not finite differs by infinity."""
    return (a - b).abs().nan_to_num(nan=float("inf")).amax(-1).tolist()


class _There:
    """What another reading of the file does: the Hugging Face model's own forward, one prompt at a time."""

    def __init__(
        self,
        hf: Any,
        encoded: Sequence[Encoded],
        max_new_tokens: int,
        ends: Sequence[int],
        stage: Any = None,
        readings: Sequence[Reading] = (),
    ) -> None:
        found: list[Tensor] = []
        self.ids: list[list[int]] = []
        for one in encoded:
            if stage is not None:
                stage.columns = {r.positions: _columns(one, r.positions) for r in readings}
            logits, ids = _write(hf, list(one.ids), max_new_tokens, ends, stage)
            found.append(logits)
            self.ids.append(ids)
        self.logits = torch.stack(found)


def _columns(encoded: Encoded, positions: tuple[Any, ...]) -> list[int] | None:
    """Where a prompt has the tokens that a file of ours names; `None` for all."""
    if "all" in positions:
        return None
    return sorted({column for name in positions for column in encoded.columns(name)})


@torch.inference_mode()
def _write(hf: Any, ids: list[int], limit: int, ends: Sequence[int], stage: Any) -> tuple[Tensor, list[int]]:
    """Logits after the prompt, fp32 `[vocabulary]`, and the tokens that are written greedily on the cache."""
    device = hf.get_input_embeddings().weight.device
    if stage is not None:
        stage.answering = False
    out = hf(input_ids=torch.tensor([ids], device=device), use_cache=limit > 0)
    first = out.logits[0, -1].float().cpu()
    written: list[int] = []
    for _ in range(limit):
        written.append(int(out.logits[0, -1].argmax()))
        if written[-1] in ends or len(written) == limit:
            break
        if stage is not None:
            stage.answering = True
        step = torch.tensor([written[-1:]], device=device)
        out = hf(input_ids=step, past_key_values=out.past_key_values, use_cache=True)
    return first, written
