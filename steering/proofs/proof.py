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

from interp.errors import EditError, FormatError, ModelError, PromptError
from interp.model.model import Model, Prompts
from interp.model.ops import flatten_edits
from interp.text.encoded import Encoded
from steering.proofs.readings import READERS, Reading, Stage, hooked, read_as
from steering.vector import SteeringVector
from steering.weights.agreement import TOLERANCE

if TYPE_CHECKING:
    from pandas import DataFrame

WEIGHTS = {
    "hf": "transformers' from_pretrained, without hooks",
    "lora": "peft's PeftModel.from_pretrained, without hooks",
}  # fmt: skip
"""Kinds that are weights rather than vectors, and by what they are read."""
_SUFFIXES = {
    "safetensors": ".safetensors", "gguf": ".gguf", "repeng": ".gguf", "easysteer": ".gguf", "svec": ".svec",
}  # fmt: skip
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
        difference: Largest difference of logits, after the prompt and at the end of the answer written here: the
            file's reading against the vector here.
        effect: Largest difference that the vector makes here, on the same tokens.
        control: Largest difference when the file is read on the other side of each block; `None` for weights.
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

    def plot(self) -> Any:
        """Differences, effects and control, prompt by prompt, on a logarithmic axis (plotly)."""
        from probes.figures.proofs import proof_strip

        return proof_strip({self.format: self})


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
    hook. The vector here writes an answer to each prompt, greedily; the other side has to find every token of it the
    likeliest, and to give the same logits after the prompt and at the answer's end. The control is the same file read
    on the other side of each block.

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
    if max_new_tokens < 1:
        raise PromptError(f"max_new_tokens is {max_new_tokens}; it must be at least 1")
    encoded = model.encode(prompts)
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(path) if path is not None else Path(scratch) / f"exported{_SUFFIXES.get(format, '')}"
        if not target.exists():
            _export(vector, format, target, model)
        if format in WEIGHTS:
            from steering.proofs.weights import load_weights

            loaded = load_weights(format, target, model)
            here = _Here(model, vector, encoded, max_new_tokens)
            return here.compare(here.follow(loaded), None, format, target)
        readings = read_as(format, target, model)
    here = _Here(model, vector, encoded, max_new_tokens)
    with hooked(model, readings) as stage:
        there = here.follow(model.hf, stage, readings)
    with hooked(model, [replace(reading, enters=not reading.enters) for reading in readings]) as stage:
        wrong = here.follow(model.hf, stage, readings)
    return here.compare(there, wrong, format, target)


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


@dataclass(frozen=True)
class _Followed:
    """What a model makes of the prompts and of the answers written here.

    Attributes:
        logits: After the prompt, and before the answer's last token, fp32 `[prompt, 2, vocabulary]`.
        same: Whether its likeliest token is the answer's at every step, so that it would write the same.
    """

    logits: Tensor
    same: list[bool]


class _Here:
    """What the vector does here, prompt by prompt, so that both sides compute in the same shapes."""

    def __init__(self, model: Model, vector: Any, encoded: Sequence[Encoded], max_new_tokens: int) -> None:
        edits = flatten_edits(vector) if isinstance(vector, SteeringVector) else _edits_of(vector)
        written = [model.generate([one], edits=edits, max_new_tokens=max_new_tokens)[0] for one in encoded]
        self.encoded, self.answers = encoded, [list(one.ids) for one in written]
        whole = [replace(one, ids=(*one.ids, *w.ids[:-1])) for one, w in zip(encoded, written, strict=True)]
        # A budget of one token: each prompt is a batch of its own, of the same shape on both sides.
        self.logits, self.plain = (
            torch.stack(model.logits([*encoded, *whole], edits=some, token_budget=1).chunk(2), 1)
            for some in (edits, ())
        )
        self.dtype = model.dtype

    @torch.inference_mode()
    def follow(self, hf: Any, stage: Stage | None = None, readings: Sequence[Reading] = ()) -> _Followed:
        """Let a Hugging Face model go along the answers, on its cache and one prompt at a time."""
        found: list[Tensor] = []
        same: list[bool] = []
        device = hf.get_input_embeddings().weight.device
        for one, answer in zip(self.encoded, self.answers, strict=True):
            if stage is not None:
                stage.columns = {r.positions: _columns(one, r.positions) for r in readings}
                stage.answering = False
            out = hf(input_ids=torch.tensor([one.ids], device=device), use_cache=True)
            steps = [out.logits[0, -1].float().cpu()]
            for token in answer[:-1]:
                if stage is not None:
                    stage.answering = True
                step = torch.tensor([[token]], device=device)
                out = hf(input_ids=step, past_key_values=out.past_key_values, use_cache=True)
                steps.append(out.logits[0, -1].float().cpu())
            found.append(torch.stack([steps[0], steps[-1]]))
            same.append([int(logits.argmax()) for logits in steps] == answer)
        return _Followed(torch.stack(found), same)

    def compare(self, there: _Followed, wrong: _Followed | None, format: str, path: Path) -> Proof:
        """The verdict over another side."""
        reader = READERS[format][1] if format in READERS else WEIGHTS[format]
        differences, effects = self._largest(there.logits), self._largest(self.plain)
        controls = [None] * len(effects) if wrong is None else self._largest(wrong.logits)
        rows = tuple(
            ProofRow(one.prompt.text, difference, effect, control, same, len(answer))
            for one, difference, effect, control, same, answer in zip(
                self.encoded, differences, effects, controls, there.same, self.answers, strict=True
            )
        )
        effect, difference = max(effects), max(differences)
        control = None if wrong is None else max(self._largest(wrong.logits))
        tolerance = min(TOLERANCE.get(self.dtype, 0.1) * float(self.logits.std()), effect / 4)
        proof = Proof(format, path, reader, difference, effect, control, tolerance, sum(there.same), rows, "")
        return replace(proof, reason=_reason(proof, self.dtype))

    def _largest(self, other: Tensor) -> list[float]:
        """Largest difference from the logits here, per prompt; a logit that is not finite differs by infinity."""
        return (other - self.logits).abs().nan_to_num(nan=float("inf")).amax((-2, -1)).tolist()


def _edits_of(edit: Any) -> list[Any]:
    from steering.weights.writing import as_edits

    return as_edits(edit)


def _columns(encoded: Encoded, positions: tuple[Any, ...]) -> list[int] | None:
    """Where a prompt has the tokens that a file of ours names; `None` for all."""
    if "all" in positions:
        return None
    return sorted({column for name in positions for column in encoded.columns(name)})


def _reason(proof: Proof, dtype: torch.dtype) -> str:
    """Why a proof fails."""
    n = len(proof.rows)
    if not proof.effect > 0:
        return "the vector moves no logit of these prompts, so that nothing can be compared"
    if not proof.difference <= proof.tolerance:
        slipped = proof.control is not None and proof.control <= proof.tolerance
        return (
            f"the file does something else: logits differ by {proof.difference:.2g}, where {proof.tolerance:.2g} would "
            f"be rounding and the vector itself moves them by {proof.effect:.2g}"
        ) + ("; on the other side of each block it would be right: its layers are off by one" if slipped else "")
    # In half precision the rounding of another order of sums may tip a close choice between two tokens.
    if dtype.itemsize >= 4 and proof.same_texts < n:
        return f"the texts of {n - proof.same_texts} of {n} prompts differ"
    if proof.control is not None and not proof.control > proof.tolerance:
        return "the same file read on the other side of each block does as well, so that these prompts show nothing"
    return ""
