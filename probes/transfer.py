"""Transfer: what a probe that was fitted in one place reads in another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interp.activations.labelled import Labelled
from interp.bootstrap import group_draws, percentiles
from interp.errors import ProbeError, PromptError
from probes.learners import STRENGTHS, Learner, decision_values, learner
from probes.resampling import auroc_draws, aurocs
from probes.splits import grouped_folds, grouped_split
from probes.sweep_cells import binary_labels, places, random_projections

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Domain:
    """Activations of one place with their labels: a dataset, a position, a layer or a model to train or test on.

    Attributes:
        x: `[row, d]`.
        y: One flag per row.
        groups: One per row.
        part: For each row `"train"` or `"test"`; empty where it is still to be shared out.
        what: Where they come from, in words.
    """

    x: Floats
    y: Flags
    groups: NDArray[Any]
    part: NDArray[Any] = field(default_factory=lambda: np.empty(0, dtype=np.str_))
    what: str = ""


def domain(
    acts: Labelled,
    layer: int,
    position: str | int,
    site: str | None = None,
    labels: ArrayLike | None = None,
    positive: str | None = None,
) -> Domain:
    """One place of activations or a store. Where the prompts are split, their test part is what is tested on.

    Args:
        acts: Activations or a store.
        layer: 0-based.
        position: Position name.
        site: May be left out where one was captured.
        labels: One per row; the prompts' labels by default.
        positive: As for `probes.sweep`.

    Raises:
        PromptError, SiteError, PositionError: For labels or places that are not there.
    """
    _, (layer,), (position,) = places(acts, site, layer, position)
    y, _, _ = binary_labels(acts.labels if labels is None else np.asarray(labels), len(acts), positive)
    own = np.array([p.split or "" for p in acts.prompts])
    part = np.where(own == "test", "test", "train") if {"train", "test"} <= set(own.tolist()) else np.empty(0, str)
    name = acts.provenance.get("model", {}).get("name", "") if isinstance(acts.provenance.get("model"), dict) else ""
    what = f"{acts.prompts.name} {site or acts.sites[0]}[{layer}] at {position}" + (f" of {name}" if name else "")
    return Domain(acts.sel(site, layer, position).double().numpy(), y, np.asarray(acts.groups), part, what)


@dataclass(frozen=True)
class Transfer:
    """AUROC of probes trained in each domain (rows) and tested in each (columns), on groups trained on nowhere.

    Attributes:
        table: pandas, one row per pair: `train`, `test`, `auroc`, `low`, `high` (95 %, bootstrap over groups),
            `native` (the probe trained in the tested domain, on the same test rows), `difference`, `difference_low`,
            `difference_high` (to the native, paired over prompts), `random`, `random_high` (random directions, turned
            the way the training labels say, in the tested domain: mean and largest), `n_train`, `n_test`.
        names: The domains in order.
        method: Name of the probe.
    """

    table: Any
    names: tuple[str, ...]
    method: str

    def matrix(self) -> Any:
        """AUROC, trained in rows and tested in columns (pandas)."""
        return self.table.pivot(index="train", columns="test", values="auroc").loc[
            list(dict.fromkeys(self.table["train"])), list(dict.fromkeys(self.table["test"]))
        ]

    def to_frame(self) -> Any:
        """One row per pair (pandas)."""
        return self.table

    def plot(self) -> Any:
        """The matrix (plotly), with the native probe's figure in each cell's text."""
        from probes.figures.matrices import transfer_map

        return transfer_map(self)


def transfer_matrix(
    train: Mapping[str, Domain],
    test: Mapping[str, Domain] | None = None,
    *,
    probe: Any = "logistic",
    C: Sequence[float] = STRENGTHS,  # noqa: N803  (scikit-learn's name)
    cv: int = 5,
    test_share: float = 0.3,
    n_random: int = 20,
    n_draws: int = 500,
    seed: int = 0,
) -> Transfer:
    """Train in each domain, test in each, beside the probe that was trained where it is tested.

    Groups that are tested on in any domain are trained on in none, so that the same prompt at another layer, position
    or model does not help.

    Args:
        train: Named domains to train in.
        test: Named domains to test in; the same by default.
        probe: As for `probes.sweep`.
        C: Strengths to choose from by grouped folds of the training rows.
        cv: Folds.
        test_share: Share of the groups to test on, for domains whose prompts are not split.
        n_random: Random directions, as control.
        n_draws: Bootstrap draws.
        seed: For split, folds, random directions and bootstrap.

    Raises:
        ProbeError: When widths differ: the domains are of models whose activations cannot be held against each other.
        PromptError: When a class is missing or has too few groups.
    """
    import pandas as pd

    tested = dict(train) if test is None else dict(test)
    everything = {**train, **tested}
    if not train or not tested:
        raise PromptError("transfer needs at least one domain to train in and one to test in")
    if clash := [name for name in train if everything[name] is not train[name]]:
        raise PromptError(f"{clash[0]!r} names one domain to train in and another to test in: give them names apart")
    if n_random < 1:
        raise PromptError(f"n_random={n_random}: a result without its control is none")
    _one_width(everything)
    parts = _parts(everything, test_share, seed)
    held = {str(g) for name, d in everything.items() for g in d.groups[parts[name] == "test"]}
    fits = learner(probe, C, seed)
    rows: list[dict[str, Any]] = []
    fitted: dict[str, tuple[Any, int]] = {}

    def fitted_in(name: str, source: Domain) -> tuple[Any, int]:
        if name not in fitted:
            keep = np.array([str(g) not in held for g in source.groups])
            fitted[name] = _fit(fits, name, source, keep, cv, seed), int(keep.sum())
        return fitted[name]

    for name, target in tested.items():
        at = parts[name] == "test"
        y, x = target.y[at], target.x[at]
        weights = group_draws(target.groups[at], n_draws, seed)
        native = decision_values(fitted_in(name, target)[0], x)
        native_draws = auroc_draws(native, y, weights)
        control = aurocs(random_projections(target.x[~at], target.y[~at], x, n_random, seed), y)
        for source_name, source in train.items():
            probe_, n = fitted_in(source_name, source)
            scores = decision_values(probe_, x)
            draws = auroc_draws(scores, y, weights)
            low, high = percentiles(draws)
            difference_low, difference_high = percentiles(draws - native_draws)
            auroc, own = float(aurocs(scores[None], y)[0]), float(aurocs(native[None], y)[0])
            rows.append(
                {"train": source_name, "test": name, "auroc": auroc, "low": low, "high": high, "native": own,
                 "difference": auroc - own, "difference_low": difference_low, "difference_high": difference_high,
                 "random": float(control.mean()), "random_high": float(control.max()), "n_train": n,
                 "n_test": int(at.sum())}
            )  # fmt: skip
    return Transfer(pd.DataFrame(rows), tuple(everything), fits.name)


def _one_width(domains: Mapping[str, Domain]) -> None:
    widths = {name: d.x.shape[1] for name, d in domains.items()}
    if len(set(widths.values())) > 1:
        listed = ", ".join(f"{name} {width}" for name, width in widths.items())
        raise ProbeError(
            f"a probe of one width reads nothing in another ({listed}): compare models of one width, or each within "
            "itself"
        )


def _parts(domains: Mapping[str, Domain], share: float, seed: int) -> dict[str, NDArray[Any]]:
    """Train and test of every domain: its own, or shared out over the union of the groups, so that all agree."""
    open_ = {name: d for name, d in domains.items() if not len(d.part)}
    found = {name: d.part for name, d in domains.items() if len(d.part)}
    if open_:
        y = _classes(np.concatenate([d.y for d in open_.values()]))
        groups = np.concatenate([d.groups.astype(str) for d in open_.values()])
        shared = grouped_split(y, groups, 1 - share, 0, share, seed)
        for (name, _), part in zip(
            open_.items(), np.split(shared, np.cumsum([len(d.y) for d in open_.values()])[:-1]), strict=True
        ):
            found[name] = part
    for name, d in domains.items():
        at = found[name] == "test"
        if d.y[at].all() or not d.y[at].any():
            raise PromptError(f"{name!r} has no test prompts of one class: add prompts")
    return found


def _classes(y: Flags) -> NDArray[np.str_]:
    """Names for messages; what the labels were called may differ from domain to domain."""
    return np.where(y, "positive", "negative")


def _fit(fits: Learner, name: str, source: Domain, keep: Flags, cv: int, seed: int) -> Any:
    x, y = source.x[keep], source.y[keep]
    if not len(y) or y.all() or not y.any():
        raise PromptError(f"{name!r} has no training prompts of one class, outside the groups that are tested on")
    strength = fits.grid[0]
    if len(fits.grid) > 1:
        folds = grouped_folds(_classes(y), source.groups[keep], cv, seed)
        per_fold = [aurocs(fits.scores(x[a], y[a][None], fits.grid, x[b])[0], y[b]) for a, b in folds]
        strength = fits.grid[int(np.argmax(np.round(np.mean(per_fold, axis=0), 9)))]
    return fits.estimator(strength).fit(x, y)
