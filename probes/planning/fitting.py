"""`fit_plan`: probes of what an answer will be, beside what tells it without looking inside, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

from interp.errors import ProbeError
from interp.progress import progress_bar
from interp.text.checks import shorten
from probes.planning.claims import ALPHA, MARGIN
from probes.planning.examples import PlanExamples
from probes.planning.fitted import PlanFit
from probes.planning.learning import KINDS, WIDTHS
from probes.planning.rounds import Round, cells_of, deciding_kind, one_round
from probes.planning.scoring import NAMES, check_metric

SEEDS = (0, 1, 2)
DRAWS = 500


def fit_plan(
    examples: PlanExamples,
    *,
    seeds: Sequence[int] = SEEDS,
    kinds: Sequence[str] = KINDS,
    widths: Sequence[int] = WIDTHS,
    metric: str | None = None,
    alpha: float = ALPHA,
    margin: float = MARGIN,
    draws: int = DRAWS,
    progress: bool = False,
) -> PlanFit:
    """Fit probes to every layer and segment, choose on validation rows, and compare on test rows.

    After Dong et al. 2025 ("Emergent Response Planning in LLMs"), with paired intervals and the baselines that say
    what is foretold by less than a plan.

    Args:
        examples: Labels, states and what baselines need.
        seeds: Each splits the groups 60/20/20 anew.
        kinds: `"linear"`, `"mlp"` or both. Claims rest on linear probes, where they are among them.
        widths: Widths of the network to choose from.
        metric: The score that decides: Somers' D for numbers, accuracy for classes by default.
        alpha: Level of the verdict's claims, one-sided.
        margin: The smallest difference that counts.
        draws: Bootstrap draws of test groups.
        progress: Show a bar.

    Raises:
        ProbeError: For settings that are none, a class in too few groups, or states that are not finite.
    """
    metric = check_metric(metric, examples.kind)
    check_settings(seeds, kinds, widths, alpha)
    if margin < 0 or draws < 100:
        raise ProbeError(f"margin={margin}, draws={draws}: margin >= 0, draws >= 100")
    kinds = tuple(k for k in KINDS if k in kinds)
    assert kinds[0] == deciding_kind(kinds)
    rounds: list[Round] = []
    total = len(seeds) * len(cells_of(examples, kinds))
    with progress_bar(f"planning probes ({NAMES[metric]})", total, progress) as advance:
        for seed in seeds:
            known = rounds[0] if rounds and examples.parts is not None else None
            found = one_round(
                examples, seed, kinds=kinds, widths=widths, metric=metric, draws=draws, known=known, advance=advance
            )
            rounds.append(found)
    return PlanFit(examples, tuple(rounds), metric, alpha, margin, kinds)


def check_settings(seeds: Sequence[int], kinds: Sequence[str], widths: Sequence[int], alpha: float) -> None:
    """Whether these can be fitted with; known before a model has written anything.

    Raises:
        ProbeError: For what is no sequence, seeds that repeat, unknown kinds, widths below 1, or a level that is none.
    """
    for name, given, usual in (("seeds", seeds, SEEDS), ("kinds", kinds, KINDS), ("widths", widths, WIDTHS)):
        if isinstance(given, str) or not isinstance(given, Sequence):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ProbeError(f"{name}={shorten(repr(given))}: give a list, such as {list(usual)}")
    if not seeds or len(set(seeds)) < len(seeds) or not all(isinstance(s, Integral) and s >= 0 for s in seeds):
        raise ProbeError(f"seeds {tuple(seeds)}: give one or more whole numbers from 0, each once")
    if not kinds or set(kinds) - set(KINDS):
        raise ProbeError(f"kinds {tuple(kinds)}: choose of {', '.join(KINDS)}")
    if not widths or min(widths) < 1:
        raise ProbeError(f"widths {tuple(widths)}: give one or more, each 1 or more")
    if not 0 < alpha < 0.5:
        raise ProbeError(f"alpha={alpha}: 0 < alpha < 0.5")
