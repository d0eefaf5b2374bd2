"""Rollouts: a model thinks and answers, prompt by prompt, onto disk as it goes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from interp.errors import ModelError, PromptError
from interp.model.generate import Completion
from interp.model.generate_onto import Kind, generate_onto
from interp.model.model import Model
from interp.model.ops import Edit
from interp.provenance import digest_json
from interp.text.encoded import Trace, as_prompt
from interp.text.prompts import Prompt, PromptSet
from interp.text.thinking import ThoughtStatus
from interp.tracing.traces import ROLLOUTS, Traces

_KIND = Kind(ROLLOUTS, "rollouts", "thinking")


def rollouts(
    model: Model,
    prompts: PromptSet | Sequence[Prompt | str],
    *,
    out: str | os.PathLike[str] | None = None,
    max_new_tokens: int = 2048,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    edits: Sequence[Edit] = (),
    batch_size: int = 64,
    token_budget: int = 16384,
    progress: bool = False,
) -> Traces:
    """Let a model think and answer.

    Args:
        model: A model in thinking mode: `interp.load(name, thinking=True)`, or one that always thinks.
        prompts: A prompt set, or prompts.
        out: A JSON-lines file, filled batch by batch. If that is cut short, the same call goes on from there, with the
            same result. A file of another model, template, prompt set or setting is refused.
        max_new_tokens: Longest thought and answer together. What is cut off in its thought has status `unfinished`.
        temperature: 0 is greedy. The paper samples at 0.7 (arXiv 2510.06036).
        top_p: As in `generate`.
        seed: For sampling. The draws depend on the batch too, so a file that is sampled keeps its batch sizes.
        edits: Changes to the forward passes.
        batch_size: Most rows in a batch; also how often the file grows.
        token_budget: Most padded tokens in a batch, thoughts included.
        progress: Show a progress bar.

    Raises:
        ModelError: For a model without thinking, or one with its thinking switched off.
        PromptError: When the file is of something else.
    """
    check_thinks(model)
    several = [as_prompt(p) for p in ([prompts] if isinstance(prompts, str) else prompts)]
    if not several:
        raise PromptError("no prompts were given")
    if edits and out is not None:
        raise PromptError("rollouts under edits are not kept on disk, where they could be taken for the model's own")
    settings: dict[str, Any] = {"max_new_tokens": max_new_tokens, "temperature": temperature}
    if temperature:
        settings |= {"top_p": top_p, "seed": seed, "batch_size": batch_size, "token_budget": token_budget}
    name = prompts.name if isinstance(prompts, PromptSet) else "prompts"
    made_from = {**model.provenance(), "rollouts": settings}
    rows = generate_onto(
        model, model.encode(several), _KIND, out, partial(_row, model), digest_json([asdict(p) for p in several]),
        made_from, max_new_tokens=max_new_tokens, batch_size=batch_size, token_budget=token_budget, seed=seed,
        progress=progress, temperature=temperature, top_p=top_p, edits=edits,
    )  # fmt: skip
    found = tuple(Trace(p, row["thinking"], row["answer"]) for p, row in zip(several, rows, strict=True))
    status: tuple[ThoughtStatus, ...] = tuple(row["status"] for row in rows)
    return Traces(found, status, name, made_from)


def check_thinks(model: Model) -> None:
    """Raise `ModelError` for a model without thinking, or with its thinking switched off."""
    if model.chat.markers is None:
        raise ModelError(
            f"{model.name} does not think: neither its template nor its vocabulary has markers such as <think>; "
            "use a reasoning model, or give its template with chat_template="
        )
    if model.chat.switch is not None and not model.chat.thinks:
        raise ModelError(
            f"{model.name} can think, but its thinking is off: load it with thinking=True, or use "
            "model.with_format(thinking=True)"
        )


def _row(model: Model, index: int, written: Completion) -> dict[str, Any]:
    status = model.chat.status(written.text)
    return {
        "index": index, **{k: v for k, v in asdict(written.prompt).items() if k != "text" and v is not None},
        "prompt": written.prompt.text, "thinking": written.thinking, "answer": written.answer, "status": status,
        "tokens": len(written.ids), "finished": written.finished,
    }  # fmt: skip
