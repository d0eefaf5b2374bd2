"""`fit_plan`: probes of what an answer will be, beside what tells it without looking inside, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence

from interp.errors import ProbeError
from interp.progress import progress_bar
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
    if not seeds or len(set(seeds)) < len(seeds):
        raise ProbeError(f"seeds {tuple(seeds)}: give one or more, each once")
    if not kinds or set(kinds) - set(KINDS):
        raise ProbeError(f"kinds {tuple(kinds)}: choose of {', '.join(KINDS)}")
    if not widths or min(widths) < 1:
        raise ProbeError(f"widths {tuple(widths)}: give one or more, each 1 or more")
    if not 0 < alpha < 0.5 or margin < 0 or draws < 100:
        raise ProbeError(f"alpha={alpha}, margin={margin}, draws={draws}: 0 < alpha < 0.5, margin >= 0, draws >= 100")
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
