"""Refusal and compliance on several prompt sets, of the plain model and of one with an edit or behind a guard.

Beside whatever is evaluated stand the plain model on the same prompts and random controls: directions of the same norm
for an edit, a guard that flags as many prompts by chance for a guard.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from interp.edits.control import random_like
from interp.errors import PromptError
from interp.model.model import Model
from interp.model.ops import Edit, flatten_edits
from interp.text.encoded import Trace
from interp.text.judge import judge
from interp.text.prompts import HARMFUL, HARMLESS, Prompt, PromptSet
from probes.answers import Behaviour, Judge, behaviour
from probes.evaluation_result import Arm, Evaluation, Flags, Kind
from probes.price import Price, price

Guard = Callable[[PromptSet], ArrayLike]
PRICE_PROMPTS = 100
PRICE_SET = "headlines"


def evaluate(
    model: Model,
    sets: PromptSet | Sequence[PromptSet],
    *,
    edits: Sequence[Edit] | Edit = (),
    guard: Guard | None = None,
    judge: Judge = judge,
    max_new_tokens: int = 64,
    n_random: int = 3,
    controls: Sequence[Sequence[Edit]] | None = None,
    price_prompts: PromptSet | Sequence[Trace] | None = None,
    baseline: Sequence[Behaviour] | None = None,
    seed: int = 0,
    done: Callable[[str, PromptSet, Behaviour], None] | None = None,
    progress: bool = False,
) -> Evaluation:
    """Evaluate a model, with an edit or behind a guard if one is given, on prompt sets.

    Args:
        model: The model.
        sets: One or several sets; labels "harmful" and "harmless" are told apart, prompts without one are a group of
            their own.
        edits: Changes to the forward passes, a steering vector for instance.
        guard: Given a set, tells for each prompt whether to refuse it: `lambda s: guard.score(s.texts).flagged`.
        judge: Any callable `(prompt, answer) -> Verdict`.
        max_new_tokens: Longest answer.
        n_random: Random controls: `interp.edits.random_like` of the edits, or a guard that flags as many
            prompts of all sets by chance.
        controls: Edits to use as controls in place of random ones.
        price_prompts: Harmless prompts to measure an edit's price on, or traces whose answers are scored. By default
            the harmless prompts of the sets, else the test split of the shipped headlines; of more than 100, 100 are
            drawn by the seed.
        baseline: Judged answers of the plain model to each set, when already there.
        seed: For random controls, draws and bootstrap.
        done: Called with the arm's name, the set and the judged answers as soon as they are there.
        progress: Show progress bars.

    Raises:
        PromptError: For no sets, an empty one, two of one name, edits and a guard at once, or a baseline of other
            prompts.
        EditError: When an edit touches nothing, does not fit the model or has no random counterpart.
    """
    several = _checked([sets] if isinstance(sets, PromptSet) else list(sets))
    flat = flatten_edits(edits)
    if flat and guard is not None:
        raise PromptError("edits and a guard were given: evaluate one at a time, so that what each does is seen")
    if n_random < 0:
        raise PromptError(f"n_random is {n_random}; it must be 0 or more")
    drawn = _controls(model, flat, controls, n_random, seed)
    for edit in [e for one in (flat, *drawn) for e in one]:
        edit.ops(model.arch)  # says at once what does not fit

    def run(name: str, kind: Kind, changed: Sequence[Edit]) -> Arm:
        answers: list[Behaviour] = []
        for prompts in several:
            judged = behaviour(
                model, prompts, judge=judge, max_new_tokens=max_new_tokens, edits=changed, progress=progress
            )
            answers.append(judged)
            if done is not None:
                done(name, prompts, judged)
        return Arm(name, kind, tuple(answers))

    arms = [run("plain", "plain", ())] if baseline is None else [Arm("plain", "plain", _same(baseline, several))]
    prices: list[Price] = []
    named = ""
    if flat:
        arms.append(run("edited", "edited", flat))
        arms += [run(f"random {i}", "random", one) for i, one in enumerate(drawn, 1)]
        asked, named = _price_prompts(several, price_prompts, seed)
        there = {p.id: c for one in arms[0].answers for p, c in zip(one.prompts, one.completions, strict=True)}
        prices = price(
            model, asked, {"edited": flat, **{f"random {i}": one for i, one in enumerate(drawn, 1)}},
            max_new_tokens=max_new_tokens, written=there, seed=seed, progress=progress,
        )  # fmt: skip
    elif guard is not None:
        arms += _guarded(arms[0], several, guard, n_random, seed)
    provenance = {
        **model.provenance(),
        "sets": [{"name": s.name, "digest": s.digest[:16], "n": len(s)} for s in several],
        "edits": [repr(edit) for edit in flat], "guarded": guard is not None, "judge": _named(judge),
        "max_new_tokens": max_new_tokens, "n_random": len(arms) - 2 if len(arms) > 1 else 0, "seed": seed,
        "price_prompts": named,
    }  # fmt: skip
    return Evaluation(tuple(several), tuple(arms), tuple(prices), named, provenance)


def _checked(sets: list[PromptSet]) -> list[PromptSet]:
    if not sets:
        raise PromptError("no prompt sets were given")
    for prompts in sets:
        if not len(prompts):
            raise PromptError(f"the prompt set {prompts.name!r} is empty: leave it out, or load it again")
    names = [s.name for s in sets]
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise PromptError(f"two prompt sets are called {twice[0]!r}: load one with another name=")
    return sets


def _controls(
    model: Model, flat: Sequence[Edit], controls: Sequence[Sequence[Edit]] | None, n_random: int, seed: int
) -> list[list[Edit]]:
    if not flat:
        return []
    if controls is not None:
        return [flatten_edits(one) for one in controls]
    return [random_like(flat, model.arch, seed * 1000 + i) for i in range(n_random)]


def _same(baseline: Sequence[Behaviour], sets: Sequence[PromptSet]) -> tuple[Behaviour, ...]:
    if [b.prompts.digest for b in baseline] != [s.digest for s in sets]:
        raise PromptError("the baseline is of other prompts than the sets: give one result per set, in their order")
    return tuple(baseline)


def _price_prompts(
    sets: Sequence[PromptSet], given: PromptSet | Sequence[Trace] | None, seed: int
) -> tuple[list[Prompt] | list[Trace], str]:
    if given is not None and not isinstance(given, PromptSet):
        return list(given), f"{len(given)} given answers"
    if given is None:
        harmless = {p.id: p for s in sets for p in s if p.label == HARMLESS}
        if harmless:
            given = PromptSet(tuple(harmless.values()), "harmless prompts of the sets")
        else:
            from interp.text.sources import prompts

            given = PromptSet(prompts(PRICE_SET).test.harmless.prompts, f"harmless prompts of {PRICE_SET}, test split")
    if any(p.label == HARMFUL for p in given):
        raise PromptError(f"{given.name!r} has harmful prompts: the price is measured on harmless ones")
    chosen = given.sample(min(PRICE_PROMPTS, len(given)), seed)
    return list(chosen), f"{len(chosen)} {given.name}"


def _guarded(plain: Arm, sets: Sequence[PromptSet], guard: Guard, n_random: int, seed: int) -> list[Arm]:
    flags: list[Flags] = []
    for prompts in sets:
        found = np.asarray(guard(prompts))
        if found.shape != (len(prompts),):
            raise PromptError(
                f"the guard gave {found.size} verdicts for the {len(prompts)} prompts of {prompts.name!r}"
            )
        flags.append(found.astype(bool))
    ends = np.cumsum([len(f) for f in flags])[:-1]
    arms = [Arm("guarded", "guarded", plain.answers, tuple(flags))]
    for i in range(n_random):
        chance = np.random.default_rng([seed, i]).permutation(np.concatenate(flags))
        arms.append(Arm(f"random {i + 1}", "random", plain.answers, tuple(np.split(chance, ends))))
    return arms


def _named(judge: Any) -> str:
    kind = judge if hasattr(judge, "__qualname__") else type(judge)
    return f"{kind.__module__}.{kind.__qualname__}"
