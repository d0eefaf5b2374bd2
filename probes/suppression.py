"""Refusal suppression heads: found on training prompts, confirmed on others, switched off with controls beside.

"Refusal Falls off a Cliff" (arXiv 2510.06036): some heads push refusal down just before the answer, and without them
the model refuses again. Found here causally (each head off at the deciding token), where the paper ranks by the direct
contribution to a prober (`interp.heads.attribute`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from interp.edits import Renorm, scale_heads
from interp.errors import ModelError, PromptError
from interp.heads import HeadSweep, sweep
from interp.heads.intervals import mean_intervals
from interp.model.model import Model
from interp.model.refusal_metric import RefusalMetric
from interp.stats import Rate
from interp.text.judge import judge
from interp.text.prompts import PromptSet
from probes.answers import Behaviour, Judge, behaviour
from probes.deciding import Deciding, deciding
from probes.refusal import draw
from probes.without_heads import Ablated, Head, ablation_curve

Metric = Callable[[Tensor], Tensor]
ENOUGH = 0.95
"""Share of validation prompts that must open with a refusal for a number of heads to be chosen."""


@dataclass(frozen=True, eq=False)
class SuppressionHeads:
    """Heads that hold refusal down, and what happens without them.

    Attributes:
        ranking: Every head off alone at the deciding token, on training prompts.
        confirmation: The most that are ablated, off alone at all tokens, on validation prompts.
        heads: All heads, the one that holds refusal down most first.
        chosen: How many of them to switch off: the fewest that bring refusal back on validation prompts; 0 for none.
        plain: The model as it is, on held-out prompts: refusals of harmful and of harmless ones.
        curve: The model without the first 1, 2, ... heads.
        metric: What was raised.
        renorm: How the other heads were scaled.
        reason: One sentence.
    """

    ranking: HeadSweep
    confirmation: HeadSweep
    heads: tuple[Head, ...]
    chosen: int
    plain: tuple[Rate, Rate]
    curve: tuple[Ablated, ...]
    metric: Metric
    renorm: Renorm
    reason: str

    def __bool__(self) -> bool:
        return self.chosen > 0

    @property
    def selected(self) -> tuple[Head, ...]:
        """The chosen heads."""
        return self.heads[: self.chosen]

    @property
    def confirmed(self) -> dict[Head, tuple[float, float, float]]:
        """Effect on validation prompts of each head that was tried there: mean and 95 % interval."""
        mean, low, high = mean_intervals(self.confirmation.effects, [p.group for p in self.confirmation.prompts])
        return {
            variant[0]: (float(m), float(a), float(b))
            for variant, m, a, b in zip(self.confirmation.variants, mean, low, high, strict=True) if len(variant) == 1
        }  # fmt: skip

    def edit(self, n: int | None = None) -> Any:
        """The edit that switches off the chosen heads, or the first `n`."""
        return scale_heads(self.heads[: self.chosen if n is None else n], renorm=self.renorm)

    def to_frame(self) -> Any:
        """One row per number of heads switched off (pandas), 0 first."""
        import pandas as pd

        nan = (float("nan"),) * 3
        points = [Ablated((), *self.plain, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (), True), *self.curve]
        rows: list[dict[str, Any]] = []
        for point in points:
            (low, high), (least, most) = point.harmful.interval, point.harmless.interval
            confirmed = self.confirmed.get(point.heads[-1], nan) if point.heads else nan
            rows.append(
                {"n_heads": len(point.heads), "added": str(point.heads[-1]) if point.heads else "",
                 "effect_val": confirmed[0], "effect_low": confirmed[1], "effect_high": confirmed[2],
                 "harmful": point.harmful.value, "low": low, "high": high, "n": point.harmful.n,
                 "harmless": point.harmless.value, "harmless_low": least, "harmless_high": most,
                 "kl": point.kl[0], "kl_low": point.kl[1], "kl_high": point.kl[2],
                 "perplexity": point.perplexity[0], "perplexity_low": point.perplexity[1],
                 "perplexity_high": point.perplexity[2], "random_mean": point.control_mean,
                 "random_most": point.control_most, "draws": point.draws, "distinct_draws": len(point.controls),
                 "layer_matched": point.matched}
            )  # fmt: skip
        return pd.DataFrame(rows)

    def plot(self) -> Any:
        """Refusal against the number of heads, with random heads and the price (plotly)."""
        from probes.figures import suppression_curve

        return suppression_curve(self)


def suppression_heads(
    model: Model,
    prompts: PromptSet,
    *,
    metric: Metric | None = None,
    sizes: Sequence[int] = (1, 2, 3),
    renorm: Renorm = "none",
    n_train: int = 64,
    n_val: int = 64,
    n_test: int = 100,
    n_draws: int = 20,
    n_control: int = 32,
    judge: Judge = judge,
    max_new_tokens: int = 256,
    seed: int = 0,
    progress: bool = False,
) -> SuppressionHeads:
    """Find the heads that hold refusal down, and switch them off.

    Ranked on training prompts by what the metric gains with the head off at the deciding token; confirmed on validation
    prompts, where heads are off at all tokens of the same texts, and where the number of heads is chosen; measured on
    test prompts, where the model thinks and answers afresh without them. In a model that thinks, texts are its own
    thoughts, so nothing is told to it that it would not have said.

    Args:
        model: The model; thinking, if that is where refusal is lost (`model.with_format(thinking=True)`).
        prompts: Labelled harmful / harmless and split into train, val and test.
        metric: Refusal from next-token logits; found from the model's own answers by default, without thinking where it
            does not both refuse and comply with it.
        sizes: Numbers of heads to switch off.
        renorm: `"none"`, `"tensor"` or `"token"`, see `interp.edits.scale_heads`.
        n_train: Most harmful training prompts for the ranking.
        n_val: Most validation prompts.
        n_test: Most held-out prompts per class.
        n_draws: Draws of random heads for each size.
        n_control: Harmful held-out prompts that each draw is tried on.
        judge: Any callable `(prompt, answer) -> Verdict`.
        max_new_tokens: Longest reply, thought included.
        seed: For drawing prompts and heads.
        progress: Show progress bars.

    Raises:
        PromptError: When prompts lack labels or splits, thoughts do not end, or no metric can be found.
    """
    sizes = sorted({int(k) for k in sizes})
    if not sizes or sizes[0] < 1 or sizes[-1] >= model.n_layers * model.n_heads:
        raise PromptError(f"sizes {list(sizes)} are no numbers of this model's {model.n_layers * model.n_heads} heads")
    train, val, test = (
        [PromptSet(tuple(side)) for side in draw((list(part.harmful), list(part.harmless)), n, seed)]
        for part, n in ((prompts.train, n_train), (prompts.val, n_val), (prompts.test, n_test))
    )

    def answer(some: PromptSet, edits: Sequence[Any] = ()) -> Behaviour:
        return behaviour(model, some, judge=judge, max_new_tokens=max_new_tokens, edits=edits)

    fitting = answer(PromptSet((*train[0], *train[1])))
    found = metric or refusal_metric_of(model, fitting, judge=judge, max_new_tokens=max_new_tokens)
    texts = _complied(model, fitting)
    ranking = sweep(model, texts.texts, found, positions=texts.position, progress=progress)
    heads = tuple(ranking.ranked())
    held = deciding(model, answer(val[0]).completions)
    first = list(heads[: sizes[-1]])
    confirmation = sweep(model, held.texts, found, heads=first, groups=[first[:k] for k in sizes], progress=progress)
    chosen, reason = _choose(confirmation, sizes, first)
    plain = [answer(side) for side in test]
    curve = ablation_curve(model, plain, [first[:k] for k in sizes], renorm, answer, n_draws, n_control, seed, progress)
    rates = (plain[0].rate(), plain[1].rate())
    return SuppressionHeads(ranking, confirmation, heads, chosen, rates, curve, found, renorm, reason)


def refusal_metric_of(
    model: Model, judged: Behaviour, *, judge: Judge = judge, max_new_tokens: int = 64
) -> RefusalMetric:
    """The refusal metric from a model's own answers; where it thinks and never refuses then, from those without.

    Raises:
        PromptError: When it does not both refuse and comply either way.
    """
    texts = deciding(model, judged.completions)
    try:
        return RefusalMetric.find(model, texts.texts, judged.refused[list(texts.kept)].tolist())
    except PromptError as error:
        if not model.chat.thinks:
            raise
        try:
            quiet = model.with_format(thinking=False)
        except ModelError:
            raise error from None
    plain = behaviour(quiet, judged.prompts, judge=judge, max_new_tokens=max_new_tokens)
    return RefusalMetric.find(quiet, list(judged.prompts), plain.refused.tolist())


def _complied(model: Model, judged: Behaviour) -> Deciding:
    """Texts of the harmful prompts that are not refused, where something may hold refusal down; all, if all are."""
    harmful = judged.where(label="harmful")
    texts = deciding(model, judged.completions)
    rows = [r for r, i in enumerate(texts.kept) if harmful[i] and not judged.refused[i]]
    rows = rows or [r for r, i in enumerate(texts.kept) if harmful[i]]
    if not rows:
        raise PromptError("no reply to a harmful training prompt came as far as an answer; raise max_new_tokens")
    return texts.take(rows)


def _choose(confirmation: HeadSweep, sizes: Sequence[int], first: Sequence[Head]) -> tuple[int, str]:
    """The fewest heads without which validation prompts open with a refusal (metric above 0)."""
    n = len(confirmation.prompts)
    already = Rate(int((confirmation.plain > 0).sum()), n)
    if already.value >= ENOUGH:
        return 0, f"{already} of validation prompts open with a refusal as it is: nothing holds it down"
    shares: dict[int, Rate] = {}
    for k in sizes:
        place = confirmation.variants.index(tuple(sorted(first[:k])))
        shares[k] = Rate(int((confirmation.values[:, place] > 0).sum()), n)
    enough = [k for k in sizes if shares[k].value >= ENOUGH]
    if enough:
        return enough[0], f"without {enough[0]}, {shares[enough[0]]} of validation prompts open with a refusal"
    best = max(sizes, key=lambda k: (shares[k].value, -k))
    return 0, f"no more than {shares[best]} of validation prompts open with a refusal, without {best}"
