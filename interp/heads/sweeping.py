"""The causal sweep: what happens to a metric when heads are changed, each alone and in groups.

Three ways give the same numbers. *One pass*: where nothing but the last token is changed, every variant is one more
query on the keys of the plain pass. *Resume*: the stream that enters each block is cached once, and a variant runs
from its first layer on. *Full passes*: one plain edit and one whole forward per variant, which any model and any
backend can. The faster ways call the model's own blocks; before they are first used on a model, a few variants are run
both ways and compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from interp.direction import Direction
from interp.edits.heads import check_heads
from interp.errors import EditError, NonFiniteError, SiteError
from interp.heads.ablations import Ablation, How, fit_ablation
from interp.heads.norms import final_norm
from interp.heads.plain import plain_pass
from interp.heads.result import HeadSweep
from interp.heads.resume import Variant, last_tokens, resume
from interp.heads.score import LogitMetric, StreamScore, as_score, checked
from interp.model.batching import plan
from interp.model.check import attention_of
from interp.model.model import Model, Prompts
from interp.model.ops import Edit
from interp.progress import progress_bar
from interp.text.encoded import Encoded

Path = Literal["one pass", "resume", "full passes"]
_TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4}
_KNOWN: WeakKeyDictionary[Any, dict[Any, str]] = WeakKeyDictionary()
_NOISE_PROMPTS = 16
_BUDGET_CPU, _BUDGET = 512, 8192
_LOGIT_ROWS = 256


def sweep(
    model: Model,
    prompts: Prompts,
    metric: LogitMetric | StreamScore | Direction,
    *,
    how: How = "zero",
    positions: str | int | Sequence[str | int] = "all",
    heads: Sequence[tuple[int, int]] | None = None,
    groups: Sequence[Sequence[tuple[int, int]]] = (),
    reference: Prompts | None = None,
    seed: int = 0,
    path: Path | None = None,
    token_budget: int | None = None,
    progress: bool = False,
) -> HeadSweep:
    """Change heads, each alone and in groups, and measure what becomes of a metric at the last given token.

    The last given token is the prompt's last, or the last of what a `Trace` gives: the one that decides.

    Args:
        model: The model. Its own dtype is used: load it in fp32 unless you mean otherwise.
        prompts: Prompts or traces.
        metric: A function of next-token logits `[n, vocabulary]` (fp32) to `[n]`, row by row, such as
            `interp.RefusalMetric`; a `StreamScore`; or a `Direction`, for the projection on it at length 1.
        how: `"zero"`; `"mean"`, over the reference prompts' tokens, for each named position its own mean where
            positions are single tokens; `"resample"`, another prompt's values at the like tokens, counted from the end;
            or a number to scale by.
        positions: Tokens at which heads are changed; `"all"`, those of a given thought included, or names.
        heads: Heads (layer, head) to change one at a time; all by default, `[]` for none.
        groups: Sets of heads to change together.
        reference: Prompts for `"mean"` and `"resample"`; the prompts themselves by default.
        seed: For resampling.
        path: `"one pass"`, `"resume"` or `"full passes"`; the fastest that is exact by default.
        token_budget: Padded tokens per forward, under which heads of one layer run together; small on a CPU, where
            what stays in its cache is faster, large elsewhere.
        progress: Show a progress bar.

    Returns:
        A `HeadSweep`; its `path` and `note` say how it was done and why.

    Raises:
        SiteError: For a head out of range, or one behind the place that is scored.
        EditError: For an unknown change or a path that does not fit.
        PositionError: For a position that a prompt lacks.
        NonFiniteError: When the metric is NaN or infinite.
    """
    score = as_score(metric, model)
    last = model.n_layers - 1 if score is None else score.layer
    variants = _variants(model, heads, groups, last)
    encoded = model.encode(prompts)
    names = (positions,) if isinstance(positions, str | int) else tuple(positions)
    layers = tuple(sorted({layer for variant in variants for layer, _ in variant}))
    others = None if reference is None else model.encode(reference)
    budget = token_budget or (_BUDGET_CPU if model.device.type == "cpu" else _BUDGET)
    change = fit_ablation(model, encoded, how, names, layers, others, seed, budget)
    run = _Runner(model, encoded, variants, change, metric, score, last, budget)
    way, note, short = run.choose(path)
    values = torch.empty(len(encoded), len(variants), dtype=torch.float64)
    with progress_bar("sweeping heads", len(variants) * len(encoded), progress) as advance:
        plain = run.fast(values, way, short, advance) if way != "full passes" else run.slow(values, advance)
    if not bool(torch.isfinite(values).all() & torch.isfinite(plain).all()):
        raise NonFiniteError("the metric is not finite for some heads and prompts; check it, or use a wider dtype")
    noise = run.noise(plain)
    about = {**model.provenance(), "how": how, "seed": seed, "metric": repr(metric)[:200]}
    return HeadSweep(
        values, plain, tuple(variants), str(how), names, way, note, noise, tuple(e.prompt for e in encoded),
        model.n_layers, model.n_heads, about,
    )  # fmt: skip


class _Runner:
    """One sweep, the three ways."""

    def __init__(
        self,
        model: Model,
        encoded: list[Encoded],
        variants: list[Variant],
        change: Ablation,
        metric: LogitMetric | StreamScore | Direction,
        score: StreamScore | None,
        last: int,
        token_budget: int,
    ) -> None:
        self.model, self.encoded, self.variants, self.change = model, encoded, variants, change
        self.metric, self.score, self.last, self.budget = metric, score, last, token_budget
        self._norm: Callable[[Tensor], Tensor] | None = None

    def choose(self, path: Path | None) -> tuple[Path, str, bool]:
        """The fastest exact way, why it is not a faster one, and whether shortcuts inside blocks hold."""
        if path is not None and path not in get_args(Path):
            raise EditError(f"unknown path {path!r}; known: {', '.join(get_args(Path))}")
        if path == "one pass" and not self.change.at_the_end:
            raise EditError(
                "one pass is exact where nothing but the last given token is changed; name it (positions='last', or "
                "'think_close[-1]' for a trace without an answer)"
            )
        if path == "full passes":
            return path, "as asked", False
        why = self._unsuited()
        if not why:
            resumed: list[tuple[Path, bool]] = [("resume", True), ("resume", False)]
            at_once: list[tuple[Path, bool]] = [("one pass", False)]
            ways = resumed if path == "resume" or not self.change.at_the_end else at_once
            if path is None and self.change.at_the_end:
                ways = at_once + resumed
            for way, short in ways:
                failure = self._differs(way, short)
                if not failure:
                    return way, why or "exact by the check on this model", short
                why += f"{'; ' if why else ''}{way}{' with shortcuts' if short else ''}: {failure}"
        if path is not None:
            raise EditError(f"the path {path!r} is not exact here: {why}")
        return "full passes", why, False

    def _unsuited(self) -> str:
        """Why blocks cannot be called by hand, if they cannot."""
        if self.model.backend.name != "hooks":
            return f"the backend {self.model.backend.name} runs a model of its own"
        if self.model.standing:
            return "edits are open on the model (model.edited)"
        if self.score is None:
            try:
                self._norm = final_norm(self.model)
            except SiteError as error:
                return str(error)
        return ""

    def _differs(self, way: Path, short: bool) -> str:
        """What differs from a full pass this way, if anything does; tried once per model, as long as it is the same."""
        modules = list(self.model.hf.modules())
        hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules)  # pyright: ignore
        key = (way, short, self.last, attention_of(self.model.arch), self.model.dtype, self.model.device, hooks)
        known = _KNOWN.setdefault(self.model.hf, {})
        if key not in known:
            known[key] = self._try(way, short)
        return known[key]

    def _try(self, way: Path, short: bool) -> str:
        """Run a few variants on the two shortest prompts this way and the slow way."""
        model, depth = self.model, self.last
        rows = sorted(range(len(self.encoded)), key=lambda i: (len(self.encoded[i]), i))
        rows = sorted({rows[0], rows[min(1, len(rows) - 1)]})
        order = sorted(self.variants, key=lambda v: min(layer for layer, _ in v))
        tried = list(dict.fromkeys([order[0], order[len(order) // 2], order[-1]]))
        wide = max(self.variants, key=len)
        tried += [wide] if wide not in tried else []
        try:
            plain = plain_pass(model, self.encoded, rows, depth, keys=way == "one pass")
            if way == "one pass":
                if set(plain.keys) != set(range(depth + 1)):
                    return "its attention does not go through the attention interface of transformers"
                fast = last_tokens(model.arch, plain, tried, self.change, depth)
            else:
                each = [resume(model.arch, plain, [v, v], self.change, depth, short)[:1] for v in tried]
                fast = torch.cat(each)
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            return f"its blocks cannot be called so ({type(error).__name__}: {str(error)[:120]})"
        usual = plain.leaving.double().cpu()
        error = 0.0
        for variant, found in zip(tried, fast, strict=True):
            slow = self._slow_stream(variant, rows).double()
            error = max(error, float((found.double().cpu() - slow).abs().max() / usual.abs().max()))
        bound = _TOLERANCE.get(model.dtype, 5e-2)
        return "" if error <= bound else f"it differs from a full pass (by {error:.1e} of the stream's size)"

    def fast(self, values: Tensor, way: Path, short: bool, advance: Callable[[int], None]) -> Tensor:
        """Fill in all values; returns those of the plain pass."""
        model, usual = self.model, torch.empty(len(self.encoded), dtype=torch.float64)
        begin = [min(layer for layer, _ in variant) for variant in self.variants]
        for rows in plan([len(e) for e in self.encoded], self.budget):
            plain = plain_pass(model, self.encoded, rows, self.last, keys=way == "one pass")
            usual[rows] = self._measure(plain.leaving[None])[0]
            if way == "one pass":
                size = max(1, self.budget // len(rows))
                chunks = [list(range(len(begin)))[i : i + size] for i in range(0, len(begin), size)]
            else:
                size = max(1, self.budget // (len(rows) * plain.width))
                chunks = [
                    own[i : i + size]
                    for layer in sorted(set(begin))
                    for own in [[v for v, at in enumerate(begin) if at == layer]]
                    for i in range(0, len(own), size)
                ]
            for chunk in chunks:
                chosen = [self.variants[v] for v in chunk]
                if way == "one pass":
                    stream = last_tokens(model.arch, plain, chosen, self.change, self.last)
                else:
                    stream = resume(model.arch, plain, chosen, self.change, self.last, short)
                values[torch.tensor(rows)[:, None], torch.tensor(chunk)] = self._measure(stream).T
                advance(len(chunk) * len(rows))
        return usual

    def slow(self, values: Tensor, advance: Callable[[int], None]) -> Tensor:
        """The obvious way: one edit and one whole forward per variant."""
        for place, variant in enumerate(self.variants):
            values[:, place] = self._full([self.change.edit(variant)])
            advance(len(self.encoded))
        return self._full([])

    def noise(self, plain: Tensor) -> float:
        """Largest difference of the plain metric between the sweep and one prompt at a time."""
        rows = list(range(min(_NOISE_PROMPTS, -(-len(self.encoded) // 4))))
        return float((self._full([], rows, alone=True) - plain[rows]).abs().max())

    @torch.inference_mode()
    def _measure(self, stream: Tensor) -> Tensor:
        """The metric of the stream after the last block needed, `[variant, batch, d_model]` to `[variant, batch]`."""
        flat = stream.reshape(-1, stream.shape[-1])
        parts: list[Tensor] = []
        for some in flat.split(_LOGIT_ROWS):
            if self.score is not None:
                parts.append(checked(self.score.function(some.float()), len(some)))
            else:
                assert self._norm is not None and callable(self.metric)
                logits = self.model.unembed(self._norm(some)).float()
                parts.append(checked(self.metric(logits.cpu()), len(some)))
        return torch.cat(parts).view(stream.shape[:2])

    def _full(self, edits: Sequence[Edit], rows: Sequence[int] | None = None, alone: bool = False) -> Tensor:
        """The metric by whole forwards, `[prompt]`."""
        items = self.encoded if rows is None else [self.encoded[i] for i in rows]
        found = torch.empty(len(items), dtype=torch.float64)
        columns = [[len(e) - 1] for e in items]
        reads: list[Any] = [] if self.score is None else [(("resid_post", (self.last,)), columns)]
        batches = [[i] for i in range(len(items))] if alone else None
        for step in self.model.steps(items, reads, edits, bool(reads), self.budget, batches=batches):
            if self.score is None:
                assert step.last is not None and callable(self.metric)
                logits = self.model.unembed(step.last).float().cpu()
                found[step.rows] = checked(self.metric(logits), len(step.rows))
            else:
                stream = step.grid("resid_post")[:, 0, 0].float()
                found[step.rows] = checked(self.score.function(stream), len(step.rows))
        return found

    def _slow_stream(self, variant: Variant, rows: Sequence[int]) -> Tensor:
        items = [self.encoded[i] for i in rows]
        found = torch.empty(len(items), self.model.d_model)
        edit = self.change.for_rows(rows).edit(variant)
        reads = [(("resid_post", (self.last,)), [[len(e) - 1] for e in items])]
        for step in self.model.steps(items, reads, [edit], stop=True):
            found[step.rows] = step.grid("resid_post")[:, 0, 0].float()
        return found


def _variants(
    model: Model,
    heads: Sequence[tuple[int, int]] | None,
    groups: Sequence[Sequence[tuple[int, int]]],
    last: int,
) -> list[Variant]:
    every = [(layer, head) for layer in range(last + 1) for head in range(model.n_heads)]
    alone = every if heads is None else list(heads)
    found: list[Variant] = []
    for given in [*([head] for head in alone), *groups]:
        by_layer = check_heads(given, model.arch)
        own = tuple((layer, head) for layer in sorted(by_layer) for head in sorted(by_layer[layer]))
        if not own:
            raise EditError("an empty group of heads was given")
        if len(set(own)) < len(own):
            raise EditError(f"a group names a head twice: {list(own)}")
        if own[-1][0] > last:
            raise SiteError(
                f"head {own[-1]} stands behind layer {last}, after which the stream is scored: it cannot change that"
            )
        found.append(own)
    if not found:
        raise EditError("there are no heads to change: give heads= or groups=")
    return found
