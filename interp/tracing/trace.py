"""`interp.trace`: a score of every token of a trace, computed as the activations pass.

No activation outlives its layer: the hook scores it and keeps one number per token. Long traces go through in chunks on
the key-value cache, so that neither all layers nor all logits of a trace are ever held (arXiv 2510.06036, section 3,
follows a probe's score along the thought in the same way).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp.errors import PromptError, SiteError
from interp.model.batch import Batch
from interp.model.batching import TOKEN_BUDGET, pad, plan
from interp.model.model import Model
from interp.model.ops import Edit, flatten_edits
from interp.model.session import Session, StopForward
from interp.progress import progress_bar
from interp.text.encoded import Encoded, Trace
from interp.tracing.rollouts import check_thinks
from interp.tracing.scorers import Scorer, Space, checked, make_scorer, through_space
from interp.tracing.scores import TraceScores
from interp.tracing.traces import Traces

CHUNK = 2048
"""Tokens of a long trace that run at once."""
_ROWS = 4096
"""Tokens scored at once."""


def trace(
    model: Model,
    traces: Traces | Sequence[Trace] | Trace,
    score: Any,
    layers: int | Sequence[int] | None = None,
    *,
    space: Space | None = None,
    site: str = "resid_post",
    positive: Any = None,
    edits: Sequence[Edit] | Edit = (),
    chunk: int = CHUNK,
    token_budget: int = TOKEN_BUDGET,
    progress: bool = False,
) -> TraceScores:
    """Score every token of traces: prompt, thought, the tokens that end it, and answer.

    Args:
        model: The model, in thinking mode.
        traces: From `interp.rollouts` or `interp.traces`; every thought must be whole.
        score: A `Direction`, a fitted probe, a `LatentGuard`, a `RefusalMetric`, or a function from activations
            `[token, width]` to scores `[token]`; see `interp.tracing.scorers`.
        layers: 0-based; by default the score's own, or all for a function. A `RefusalMetric` with layers is read
            through the logit lens.
        space: What the score is given: `"site"` (the site as it is, before the final norm), `"normed"` (through the
            final norm), `"lens"` (logits through final norm and unembedding), `"logits"` (the model's own). By default
            what the score calls for.
        site: Site of probes that do not know their own, and of functions.
        positive: For a probe, the class that is scored; the last of its classes by default.
        edits: Changes to the forward pass. Traces then run in one piece.
        chunk: Longest stretch of a trace that runs at once; a longer trace runs on the key-value cache.
        token_budget: Padded tokens per batch of short traces.
        progress: Show a progress bar.

    Raises:
        ModelError: For a model without thinking, or a probe of another model.
        PromptError: For a trace whose thought is missing, empty or unfinished.
        SiteError: For a layer or a space that is not there.
        NonFiniteError: For scores that are NaN or infinite.
    """
    check_thinks(model)
    if chunk < 1:
        raise PromptError(f"chunk={chunk} tokens cannot run; give at least 1")
    several = Traces.of([traces] if isinstance(traces, Trace) else traces).require_whole()
    scorer = make_scorer(model, score, layers, space, site, positive)
    encoded = model.encode(list(several))
    offsets = np.concatenate([[0], np.cumsum([len(e) for e in encoded])]).astype(np.int64)
    flat = flatten_edits(edits)
    kept = _Kept(scorer, int(offsets[-1]), through_space(model, scorer.space))
    session = _ScoreSession(model, flat, kept)
    whole = bool(flat or model.standing)
    with torch.inference_mode(), progress_bar("tracing", len(encoded), progress) as advance:
        short = [i for i, e in enumerate(encoded) if whole or len(e) <= chunk]
        for batch in plan([len(encoded[i]) for i in short], token_budget):
            rows = [short[i] for i in batch]
            _run_batch(model, session, kept, [encoded[i] for i in rows], rows, [int(offsets[i]) for i in rows])
            advance(len(rows))
        for i in sorted(set(range(len(encoded))) - set(short)):
            _run_long(model, session, kept, encoded[i], i, int(offsets[i]), chunk)
            advance(1)
    session.check_touched()
    return TraceScores(
        scores=kept.values, layers=(scorer.layers[-1],) if scorer.summed else scorer.layers, offsets=offsets,
        spans=tuple(dict(e.spans) for e in encoded), tokens=tuple(tuple(_texts(model, e)) for e in encoded),
        traces=several, name=scorer.name, unit=scorer.unit, site=scorer.site, space=scorer.space,
        provenance={**model.provenance(), "score": scorer.name, "space": scorer.space, "site": scorer.site},
    )  # fmt: skip


class _Kept:
    """One number per layer and token, and where the tokens that are passing belong."""

    def __init__(self, scorer: Scorer, n_tokens: int, enter: Callable[[Tensor], Tensor]) -> None:
        self.scorer, self._enter = scorer, enter
        self.values: NDArray[np.float64] = np.zeros((1 if scorer.summed else len(scorer.layers), n_tokens))
        self.rows: Tensor = torch.empty(0)
        self.columns: Tensor = torch.empty(0)
        self.places: NDArray[np.int64] = np.empty(0, dtype=np.int64)

    def passing(self, lengths: Sequence[int], starts: Sequence[int]) -> None:
        """Row by row: how many tokens are passing, and where their scores go."""
        self.rows = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
        self.columns = torch.cat([torch.arange(n) for n in lengths])
        self.places = np.concatenate([np.arange(s, s + n) for s, n in zip(starts, lengths, strict=True)])

    def take(self, layer: int, x: Tensor, enter: Callable[[Tensor], Tensor]) -> None:
        """Score `x` `[batch, token, width]`, a few thousand tokens at a time."""
        at = 0 if self.scorer.summed else self.scorer.layers.index(layer)
        for first in range(0, len(self.places), _ROWS):
            part = slice(first, first + _ROWS)
            picked = x[self.rows[part].to(x.device), self.columns[part].to(x.device)]
            found = checked(self.scorer.apply(layer, enter(picked)), len(picked), self.scorer, layer).numpy()
            if self.scorer.summed:
                self.values[at, self.places[part]] += found
            else:
                self.values[at, self.places[part]] = found

    def enter(self, layer: int, x: Tensor) -> None:
        """Score a site's values."""
        self.take(layer, x, self._enter)


class _ScoreSession(Session):
    """A session whose hooks score what passes, and end the forward after the last layer that is scored."""

    def __init__(self, model: Model, edits: Sequence[Edit], kept: _Kept) -> None:
        super().__init__(model.arch, edits, model.current_batch, model.backend)
        scorer = kept.scorer
        self._kept = kept
        at_end = scorer.space == "logits"
        self._scored = set[tuple[int, str]]() if at_end else {(layer, scorer.site) for layer in scorer.layers}
        for layer, site in self._scored:
            self._arch.need(site, (layer,))
        self.left: set[tuple[int, str]] = set()

    def _wanted(self) -> set[tuple[int, str]]:
        return super()._wanted() | self._scored

    def starts(self) -> None:
        """A forward begins, and every scored layer is still to come."""
        self.left = set(self._scored)

    def _visit(self, layer: int, site: str, x: Tensor) -> Tensor:
        x = super()._visit(layer, site, x)
        if (layer, site) in self._scored:
            self._kept.enter(layer, x)
            self.left.discard((layer, site))
            if not self.left:
                raise StopForward
        return x


def _run_batch(
    model: Model, session: _ScoreSession, kept: _Kept, items: list[Encoded], rows: list[int], starts: list[int]
) -> None:
    """Right padding and no mask, as in `Model.steps`: what stands after a trace cannot reach it."""
    ids, _, pads = pad(items, model.pad_id, left=False, device=model.device)
    kept.passing([len(e) for e in items], starts)
    positions = torch.arange(ids.shape[1], device=ids.device)[None].expand_as(ids)
    with session, model._running(Batch(items, rows, pads, model.device)):  # pyright: ignore[reportPrivateUsage]
        _forward(model, session, kept, {"input_ids": ids, "position_ids": positions, "use_cache": False})


def _run_long(
    model: Model, session: _ScoreSession, kept: _Kept, item: Encoded, row: int, start: int, chunk: int
) -> None:
    """One trace, chunk by chunk on the key-value cache."""
    from transformers.cache_utils import DynamicCache

    cache = DynamicCache(config=model.hf.config.get_text_config())
    with session, model._running(Batch([item], [row], [0], model.device)):  # pyright: ignore[reportPrivateUsage]
        for first in range(0, len(item), chunk):
            ids = torch.tensor([item.ids[first : first + chunk]], device=model.device)
            positions = torch.arange(first, first + ids.shape[1], device=model.device)[None]
            kept.passing([ids.shape[1]], [start + first])
            inputs = {"input_ids": ids, "position_ids": positions, "past_key_values": cache, "use_cache": True}
            _forward(model, session, kept, inputs)


def _forward(model: Model, session: _ScoreSession, kept: _Kept, inputs: dict[str, Any]) -> None:
    session.starts()
    try:
        hidden = model.backend.forward(model.arch, inputs)
    except StopForward:
        return
    if session.left:
        layer, site = min(session.left)
        raise SiteError(f"{site} at layer {layer} did not fire in this forward; run model.verify()")
    if kept.scorer.space == "logits":
        kept.take(kept.scorer.layers[-1], hidden, model.unembed)


def _texts(model: Model, encoded: Encoded) -> list[str]:
    """What every token shows in the text; a character of several tokens stands at its first."""
    found: list[str] = []
    shown = 0
    for (a, b), token in zip(encoded.offsets, encoded.ids, strict=True):
        if b > shown:
            found.append(encoded.text[max(a, shown) : b])
            shown = b
        else:
            found.append("" if b > a else str(model.tokenizer.decode([token])))
    return found
