"""Generation: batched decoding on the key-value cache, with edits, greedy unless asked otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from interp.errors import NonFiniteError, PromptError
from interp.model.batch import Batch
from interp.model.batching import pad, plan
from interp.model.observe import Observer, Watch
from interp.model.ops import Edit, flatten_edits
from interp.model.session import Session
from interp.progress import progress_bar
from interp.text.encoded import Encoded
from interp.text.prompts import Prompt

if TYPE_CHECKING:
    from interp.model.model import Model, Prompts


@dataclass(frozen=True)
class Completion:
    """What the model wrote after one prompt.

    Attributes:
        prompt: The prompt.
        text: Everything written, special tokens left out except the thinking markers.
        thinking: The thought, `None` where the model did not think.
        answer: The text after the thought.
        ids: The tokens written, the end token included.
        finished: Whether it ended by itself, rather than at `max_new_tokens` or by an observer.
        stopped: Why an observer stopped it; `None` where none did.
    """

    prompt: Prompt
    text: str
    thinking: str | None
    answer: str
    ids: tuple[int, ...]
    finished: bool
    stopped: str | None = None


class Generations(Sequence[Completion]):
    """Completions in the order of the prompts."""

    def __init__(self, completions: Sequence[Completion]) -> None:
        self._all = tuple(completions)

    def __getitem__(self, index: Any) -> Any:
        return Generations(self._all[index]) if isinstance(index, slice) else self._all[index]

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Completion]:
        return iter(self._all)

    def __repr__(self) -> str:
        shown = "\n".join(f"  {c.prompt.text!r} -> {c.answer!r}" for c in self._all[:10])
        more = f"\n  ... {len(self) - 10} more" if len(self) > 10 else ""
        return f"Generations of {len(self)} prompts:\n{shown}{more}"

    @property
    def answers(self) -> list[str]:
        """The answers, thinking left out."""
        return [c.answer for c in self._all]

    def to_frame(self) -> Any:
        """One row per prompt (pandas)."""
        import pandas as pd

        return pd.DataFrame(
            [
                {"prompt": c.prompt.text, "label": c.prompt.label, "thinking": c.thinking, "answer": c.answer,
                 "tokens": len(c.ids), "finished": c.finished, "stopped": c.stopped}
                for c in self._all
            ]
        )  # fmt: skip


@torch.inference_mode()
def generate(
    model: Model,
    prompts: Prompts,
    *,
    max_new_tokens: int = 128,
    edits: Sequence[Edit] | Edit = (),
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    batch_size: int = 64,
    token_budget: int = 16384,
    observer: Observer | None = None,
    each: Callable[[int, int], None] | None = None,
    progress: bool = False,
) -> Generations:
    """Let a model answer prompts.

    Rows are batched by length with left padding, mask and position ids given; a row that has ended leaves the batch.
    Sampling draws one uniform number per prompt and step from the seed, so the result does not depend on batching.

    Args:
        model: The model.
        prompts: One or several, as for `Model.encode`.
        max_new_tokens: Longest answer.
        edits: Changes to the forward passes, prompt and generated tokens according to each edit's phase.
        temperature: 0 is greedy.
        top_p: Keep the smallest set of tokens with this much probability (temperature above 0 only).
        seed: For sampling.
        batch_size: Most rows in a batch.
        token_budget: Most padded tokens, prompt and answer, in a batch.
        observer: Is shown activations of the newest tokens, after the edits, and may stop rows; see
            `interp.model.observe`. A row it stops keeps what was written until then.
        each: Called with a prompt's index and the token it was just given, token by token: for showing text as it is
            written.
        progress: Show a progress bar.

    Raises:
        NonFiniteError: When logits, or activations that are observed, become NaN or infinite.
        EditError: When an edit met no token.
    """
    if max_new_tokens < 1:
        raise PromptError(f"max_new_tokens is {max_new_tokens}; it must be at least 1")
    if temperature < 0 or not 0 < top_p <= 1:
        raise PromptError(f"temperature {temperature} must be >= 0 and top_p {top_p} within (0, 1]")
    encoded = model.encode(prompts)
    longest, room = max(len(e) for e in encoded), model.chat.max_tokens
    if room is not None and longest + max_new_tokens > room:
        raise PromptError(
            f"a prompt of {longest} tokens and max_new_tokens={max_new_tokens} do not fit the model's context of "
            f"{room} tokens"
        )
    source = torch.Generator().manual_seed(seed)
    # Step by step, so that a longer answer begins as a shorter one does.
    draws = torch.rand(max_new_tokens, len(encoded), generator=source).T if temperature else None
    written: list[list[int]] = [[] for _ in encoded]
    stopped: dict[int, str] = {}
    several = flatten_edits(edits)
    watch = None if observer is None else Watch(model, observer, several)
    session = watch.session if watch else Session(model.arch, several, model.current_batch, model.backend)
    ends = torch.tensor(model.chat.end_ids, device=model.device)
    batches = plan([len(e) + max_new_tokens for e in encoded], token_budget, batch_size)
    with session, progress_bar("generating", len(encoded), progress) as advance:
        for rows in batches:
            stopped |= _decode(
                model, watch, each, encoded, rows, written, max_new_tokens, ends, draws, temperature, top_p
            )
            advance(len(rows))
    session.check_touched()
    return Generations(
        [completion_of(model, e, ids, stopped.get(i)) for i, (e, ids) in enumerate(zip(encoded, written, strict=True))]
    )


def _decode(
    model: Model,
    watch: Watch | None,
    each: Callable[[int, int], None] | None,
    encoded: Sequence[Encoded],
    rows: list[int],
    written: list[list[int]],
    max_new_tokens: int,
    ends: Tensor,
    draws: Tensor | None,
    temperature: float,
    top_p: float,
) -> dict[int, str]:
    """Decode one batch, appending to `written`; the rows that an observer stopped, and why."""
    from transformers.cache_utils import DynamicCache

    items = [encoded[i] for i in rows]
    ids, mask, pads = pad(items, model.pad_id, left=True, device=model.device)
    cache = DynamicCache(config=model.hf.config.get_text_config())
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    batch = Batch(items, list(rows), pads, model.device, written=written)
    stopped: dict[int, str] = {}
    with model._running(batch):  # pyright: ignore[reportPrivateUsage]
        for step in range(max_new_tokens):
            inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, "past_key_values": cache}
            seen = None if watch is None else watch.prepare(batch, step)
            hidden = model.backend.forward(model.arch, {**inputs, "use_cache": True})
            logits = model.unembed(hidden[:, -1])
            if not bool(torch.isfinite(logits).all()):
                raise NonFiniteError(f"the logits became NaN or infinite after {step} generated tokens")
            new = _choose(logits, None if draws is None else draws[batch.rows, step], temperature, top_p)
            stops = watch.show(batch, step, seen) if watch is not None and seen is not None else {}
            stopped |= stops
            for row, token in zip(batch.rows, new.tolist(), strict=True):
                if row not in stops:
                    written[row].append(token)
                    if each is not None:
                        each(row, token)
            alive = ~torch.isin(new, ends)
            if stops:
                alive &= torch.tensor([row not in stops for row in batch.rows], device=alive.device)
            if not bool(alive.any()):
                batch.wordless = step == 0
                return stopped
            if step + 1 == max_new_tokens:
                return stopped
            batch.past += ids.shape[1]
            positions = positions[:, -1:] + 1
            if not bool(alive.all()):
                keep = alive.nonzero()[:, 0]
                cache.batch_select_indices(keep)
                new, mask, positions = new[keep], mask[keep], positions[keep]
                kept = keep.tolist()
                batch.rows = [batch.rows[i] for i in kept]
                batch.encoded = [batch.encoded[i] for i in kept]
                batch.pads = [batch.pads[i] for i in kept]
            ids = new[:, None]
            mask = torch.cat([mask, mask.new_ones(len(ids), 1)], 1)
    return stopped


def _choose(logits: Tensor, draw: Tensor | None, temperature: float, top_p: float) -> Tensor:
    if draw is None:
        return logits.argmax(-1)
    p, order = torch.softmax(logits.double() / temperature, -1).sort(-1, descending=True)
    total = p.cumsum(-1)
    p = p.masked_fill(total - p >= top_p, 0.0)
    total = p.cumsum(-1)
    place = (total < draw.to(total)[:, None] * total[:, -1:]).sum(-1, keepdim=True).clamp(max=p.shape[-1] - 1)
    return order.gather(-1, place)[:, 0]


def completion_of(model: Model, encoded: Encoded, ids: Sequence[int], stopped: str | None = None) -> Completion:
    """What tokens that were written after a prompt say, be they all or only the first of them."""
    finished = bool(ids) and ids[-1] in model.chat.end_ids
    body = ids[:-1] if finished else ids
    # By id and not by text: an answer may well spell a special token's name.
    hidden = set(model.tokenizer.all_special_ids) - set(model.chat.marker_ids)
    text = model.tokenizer.decode([i for i in body if i not in hidden], clean_up_tokenization_spaces=False)
    thinking, answer = model.chat.split(text)
    return Completion(encoded.prompt, text, thinking, answer, tuple(ids), finished, stopped)
