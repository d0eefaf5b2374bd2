"""The verdict: planned, committed to, in the words, decided later, not readable; or: cannot tell.

Let P be the probe at the last prompt token whose layer and kind were chosen on validation rows, scored once on test
rows. It is compared with each baseline on the same rows; every comparison is a paired difference with a one-sided
interval at 1 - alpha (`probes.planning.joining`).

1. P is *readable* when it beats each baseline that reads nothing: majority or mean, and shuffled labels.
2. It is **planned** when it also beats each baseline that reads the words of the prompt, and the first token. To beat
   the best of several baselines, it must beat them all, each at alpha: an intersection-union test, which has level
   alpha without a correction (Berger 1982), and needs no guess which of them is the best. Choosing the best of many
   layers is paid for by choosing on other rows than those that test.
3. Readable and not planned, the baselines that P was not shown to beat explain it, if they themselves beat those that
   read nothing. If the words of the prompt do: **in the words of the prompt**. If the first token alone does:
   **committed to by its first token**. Where first token and embedding layer both do, and neither bag of words nor
   prompt length does, it is the first token too: words that tell nothing one by one were put together by the probe.
   That one tells as much is claimed only where less than `margin` can be left: the upper end of the 95 % interval of P
   over it lies below. Otherwise, or if neither is shown to read it: **cannot tell**.
4. Not readable at the prompt, a segment of what is written may be: it must beat every baseline of the prompt, and P.
   Segments are many, so that the p-values (of each, the largest over what it must beat) are corrected (Holm 1979).
   The first that passes says which: **decided while thinking**, or **decided late**. Where the words or the length
   of what was written by then were not shown to tell less, the sentence says so: the claim stands, but the states may
   hold no more than what stands there.
5. Otherwise **not readable** is claimed only where less than `margin` can be left: the upper end of the 95 % interval
   of P over the baselines that read nothing lies below it. Else **cannot tell**, and more prompts are needed.

A difference smaller than `margin` counts as none in 1 and 2, however narrow its interval: a trace is no plan. What the
model says when asked stands beside all this and decides nothing: that it knows what it will do, and can say so, would
not make it less planned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from probes.planning.baselines import CHANCE, EMBEDDING, FIRST, SO_FAR, TEXT
from probes.planning.examples import PROMPT, THOUGHT, Segment
from probes.planning.joining import Joint, holm
from probes.planning.scoring import NAMES, RANGES

PLANNED = "planned"
FIRST_TOKEN = "committed to by its first token"  # noqa: S105
IN_WORDS = "in the words of the prompt"
WHILE_THINKING = "decided while thinking"
LATE = "decided late"
NOT_READABLE = "not readable"
CANNOT_TELL = "cannot tell"
CLAIMS = (PLANNED, FIRST_TOKEN, IN_WORDS, WHILE_THINKING, LATE, NOT_READABLE, CANNOT_TELL)
MEANINGS = {
    PLANNED: "before a word is written, the states tell it better than the words of the prompt and the first token do",
    FIRST_TOKEN: "the states tell it, and the first token alone tells as much: the answer has begun, and no plan "
    "beyond that token is shown",
    IN_WORDS: "the states tell it, and the words of the prompt alone tell as much",
    WHILE_THINKING: "the states at the prompt do not tell it, those in the thought do",
    LATE: "the states at the prompt do not tell it, those in the answer do",
    NOT_READABLE: "a linear probe reads less than the margin above what can be said without looking at anything",
    CANNOT_TELL: "the intervals leave more than one of the other verdicts open: more prompts may settle it",
}  # fmt: skip
"""What each claim means, in words."""
MARGIN = 0.1
ALPHA = 0.01


@dataclass(frozen=True)
class Verdict:
    """A claim and what it rests on.

    Attributes:
        claim: One of `CLAIMS`.
        sentence: The claim in words, with its figures.
        evidence: The figures: score at the prompt, the best baseline, differences with their bounds, the segment.
    """

    claim: str
    sentence: str
    evidence: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.claim}: {self.sentence}"


@dataclass(frozen=True, eq=False)
class Comparisons:
    """What a verdict is made from.

    Attributes:
        metric: The score that decides.
        probe: For each position, the chosen probe's score.
        baselines: Score of each baseline at the prompt.
        over: For each position, the probe's score minus each baseline's.
        over_prompt: For each segment, its probe's score minus that of the probe at the prompt.
        baseline_over_chance: For each baseline that reads something, its score minus that of each that reads nothing.
        segments: In order.
    """

    metric: str
    probe: Mapping[str, Joint]
    baselines: Mapping[str, Joint]
    over: Mapping[str, Mapping[str, Joint]]
    over_prompt: Mapping[str, Joint]
    baseline_over_chance: Mapping[str, Mapping[str, Joint]]
    segments: tuple[Segment, ...]

    def deciding(self, *kinds: Sequence[str]) -> list[str]:
        """The baselines of these kinds that there are."""
        return [name for kind in kinds for name in kind if name in self.over[PROMPT]]


def decide(c: Comparisons, alpha: float = ALPHA, margin: float = MARGIN) -> Verdict:
    """The verdict, by the rule of this module.

    Args:
        c: Scores and differences.
        alpha: One-sided level of each claim.
        margin: The smallest difference that counts.
    """
    over, chance = c.over[PROMPT], c.deciding(CHANCE)
    rivals = c.deciding(CHANCE, TEXT, (FIRST,))

    def beats(name: str) -> bool:
        return over[name].bound(alpha) > 0 and over[name].value >= margin

    unbeaten = [name for name in rivals if not beats(name)]
    readable = not set(unbeaten) & set(chance)
    explain = [
        name
        for name in unbeaten
        if name not in CHANCE and all(d.bound(alpha) > 0 for d in c.baseline_over_chance[name].values())
    ]
    late = first_late(c, alpha, margin)
    best = max(rivals, key=lambda name: c.baselines[name].value)
    evidence = _evidence(c, rivals, best, alpha, margin)
    evidence |= {"unbeaten": unbeaten, "explained by": explain, "late": late}
    score = f"{NAMES[c.metric]} {_shown(c.probe[PROMPT], c.metric)} at the last prompt token"
    gap = f"{_gap(over[best])} over {best}"
    if readable and not unbeaten:
        return Verdict(PLANNED, f"{score}, {gap}, the best baseline", evidence)
    if readable and explain:
        words = [n for n in explain if n in TEXT]
        as_much = {n for n in explain if over[n].interval()[1] < margin}
        if FIRST in as_much and set(words) <= {EMBEDDING}:
            return Verdict(FIRST_TOKEN, f"{score}, but the first token tells as much: {_against(c, FIRST)}", evidence)
        if told := as_much & set(words):
            name = max(sorted(told), key=lambda n: c.baselines[n].value)
            return Verdict(IN_WORDS, f"{score}, but the {name} tells as much: {_against(c, name)}", evidence)
    if readable:
        open_ = " and ".join(f"{name} ({_gap(over[name])})" for name in unbeaten)
        return Verdict(CANNOT_TELL, f"{score}: readable, but not shown to beat {open_}; add prompts", evidence)
    high = max(over[name].interval()[1] for name in chance)
    above = max(over[name].value for name in chance)
    trace = f"{score}, {above:+.2f} over the baselines that read nothing (at most {high:+.2f})"
    if late is not None:
        segment = next(s for s in c.segments if s.name == late)
        told = [name for name in SO_FAR if name in c.over[late] and c.over[late][name].bound(alpha) <= 0]
        there = f"{_shown(c.probe[late], c.metric)} at {late}" + (
            f", where the {' and the '.join(told)} may tell as much" if told else ""
        )
        evidence |= {"late score": c.probe[late].value, "told by then": told}
        return Verdict(WHILE_THINKING if segment.region == THOUGHT else LATE, f"{trace}, and {there}", evidence)
    if high < margin:
        return Verdict(NOT_READABLE, trace, evidence)
    return Verdict(CANNOT_TELL, f"{trace}: too wide to say; add prompts", evidence)


def first_late(c: Comparisons, alpha: float, margin: float) -> str | None:
    """The first segment that beats every baseline of the prompt, and the probe at the prompt; Holm-corrected."""
    return first_of(c, alpha, margin, prompt_too=True)


def first_of(c: Comparisons, alpha: float, margin: float, *, prompt_too: bool) -> str | None:
    """The first segment whose probe beats every baseline (and the probe at the prompt); None where none does."""
    rivals = c.deciding(CHANCE, TEXT, (FIRST,))
    must = [[c.over[s.name][name] for name in rivals] for s in c.segments]
    if prompt_too:
        must = [[*found, c.over_prompt[s.name]] for found, s in zip(must, c.segments, strict=True)]
    passed = holm([max(d.p for d in found) for found in must], alpha)
    for segment, found, ok in zip(c.segments, must, passed, strict=True):
        if ok and min(d.value for d in found) >= margin:
            return segment.name
    return None


def _evidence(c: Comparisons, rivals: Sequence[str], best: str, alpha: float, margin: float) -> dict[str, Any]:
    over, chance = c.over[PROMPT], c.deciding(CHANCE)
    hardest = min(rivals, key=lambda name: over[name].bound(alpha))
    return {
        "metric": c.metric, "alpha": alpha, "margin": margin,
        "probe": c.probe[PROMPT].value, "probe interval": c.probe[PROMPT].interval(within=RANGES[c.metric]),
        "best baseline": best, "best baseline score": c.baselines[best].value,
        "difference": over[best].value, "difference interval": over[best].interval(),
        "hardest baseline": hardest, "hardest bound": over[hardest].bound(alpha),
        "over chance": min(over[name].value for name in chance),
        "over chance at most": max(over[name].interval()[1] for name in chance),
    }  # fmt: skip


def _shown(joint: Joint, metric: str) -> str:
    low, high = joint.interval(within=RANGES[metric])
    return f"{joint.value:.2f} [{low:.2f}, {high:.2f}]"


def _against(c: Comparisons, name: str) -> str:
    return f"{c.baselines[name].value:.2f}, a difference of {_gap(c.over[PROMPT][name])}"


def _gap(difference: Joint) -> str:
    low, high = difference.interval()
    return f"{difference.value:+.2f} [{low:+.2f}, {high:+.2f}]"
