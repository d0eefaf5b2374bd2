"""Selection: each condition decides alone, boundaries and ties are as documented, and no outcome is an exception."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

from interp.errors import DirectionError
from probes import Selection, select_direction

GOOD: dict[str, Any] = {"position": "post_inst[-1]", "layer": 3, "bypass": -2.0, "induce": 1.0, "kl": 0.05}
BETTER = {**GOOD, "position": "post_inst[-2]", "bypass": -9.0}
N_LAYERS = 10


def choose(*rows: dict[str, Any], n_layers: int = N_LAYERS, **options: Any) -> Selection:
    return select_direction(pd.DataFrame(rows), n_layers, **options)


# A row that would win, but for one condition.
FAILS: dict[str, dict[str, Any]] = {
    "finite": {"bypass": -math.inf},
    "induce": {"induce": -1e-9},
    "kl": {"kl": 0.1 + 1e-9},
    "depth": {"layer": 8},
}


@pytest.mark.parametrize("condition", FAILS)
def test_each_condition_alone_keeps_the_best_bypass_from_winning(condition: str) -> None:
    found = choose({**BETTER, **FAILS[condition]}, GOOD)
    assert found.chosen is not None
    assert found.chosen["position"] == GOOD["position"]
    row = found.table.iloc[0]
    failed = [name for name in ("finite", "induce", "kl", "depth") if not row[f"ok_{name}"]]
    assert failed == [condition]
    assert list(found.table["passed"]) == [False, True]


def test_the_lowest_bypass_wins_among_those_that_pass() -> None:
    found = choose(GOOD, BETTER, {**GOOD, "bypass": 4.0})
    assert found.chosen is not None and found.chosen["bypass"] == -9.0
    assert "3 of 3 candidates pass" in found.reason and "-9.00" in found.reason
    assert found and found.to_frame() is found.table


@pytest.mark.parametrize(
    ("row", "passes"),
    [
        ({"induce": 0.0}, True),
        ({"induce": -0.0}, True),
        ({"induce": math.nextafter(0, -1)}, False),
        ({"kl": 0.1}, True),
        ({"kl": math.nextafter(0.1, 1)}, False),
        ({"layer": 8}, False),
        ({"layer": 7}, True),
        ({"layer": 0}, True),
        ({"bypass": 1e300}, True),
    ],
)
def test_boundaries_belong_to_the_documented_side(row: dict[str, Any], passes: bool) -> None:
    assert bool(choose({**GOOD, **row})) is passes


@pytest.mark.parametrize(
    ("n_layers", "max_depth", "last"),
    [(18, 0.8, 14), (32, 0.8, 25), (5, 0.8, 3), (100, 0.55, 54), (10, 0.7, 6), (6, 0.8, 4), (3, 1.0, 2), (40, 0.8, 31)],
)
def test_depth_is_a_share_of_the_layers_without_floating_point_slips(
    n_layers: int, max_depth: float, last: int
) -> None:
    found = choose(*({**GOOD, "layer": n} for n in range(n_layers)), n_layers=n_layers, max_depth=max_depth)
    assert found.table.loc[found.table["ok_depth"], "layer"].max() == last


def test_ties_go_to_the_earlier_layer_then_to_the_earlier_row() -> None:
    found = choose(
        {**GOOD, "layer": 5, "position": "a"},
        {**GOOD, "layer": 2, "position": "b"},
        {**GOOD, "layer": 2, "position": "c"},
    )
    assert found.chosen is not None and found.chosen["position"] == "b"


def test_many_ties_still_go_to_the_first_row() -> None:
    rows = [{**GOOD, "position": f"p{i}"} for i in range(300)]
    found = choose(*rows)
    assert found.chosen is not None and found.chosen["position"] == "p0"


@pytest.mark.parametrize("column", ["bypass", "induce", "kl"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
def test_what_is_not_finite_never_wins_and_never_crashes(column: str, value: float | None) -> None:
    found = choose({**BETTER, column: value}, GOOD)
    assert found.chosen is not None and found.chosen["position"] == GOOD["position"]
    assert not found.table["ok_finite"].iloc[0]
    alone = choose({**BETTER, column: math.nan if value is None else value})
    assert alone.chosen is None and "finite" in alone.reason


def test_a_missing_layer_does_not_pass() -> None:
    assert not choose({**GOOD, "layer": math.nan})


@pytest.mark.parametrize(
    ("changes", "named", "not_named"),
    [
        ({"induce": -1.0}, "induce", "KL"),
        ({"kl": 3.0}, "KL", "induce"),
        ({"layer": 9}, "layer <", "KL"),
        ({"bypass": math.nan}, "finite", "KL"),
    ],
)
def test_none_passes_names_the_condition_that_nothing_meets(
    changes: dict[str, Any], named: str, not_named: str
) -> None:
    found = choose({**GOOD, **changes}, {**BETTER, **changes})
    assert found.chosen is None and not found
    assert "one of 2 candidates passes" in found.reason
    assert named in found.reason and not_named not in found.reason
    assert len(found.table) == 2 and not found.table["passed"].any()


def test_none_passes_names_the_conditions_that_stand_in_the_way_one_by_one() -> None:
    found = choose({**GOOD, "kl": 5.0}, {**GOOD, "induce": -5.0})
    assert found.chosen is None
    assert "without the condition" in found.reason and "KL" in found.reason and "induce" in found.reason
    assert "layer <" not in found.reason


def test_none_passes_says_so_when_no_single_condition_is_to_blame() -> None:
    found = choose(
        {**GOOD, "kl": 5.0, "induce": -5.0}, {**GOOD, "induce": -5.0, "layer": 9}, {**GOOD, "layer": 9, "kl": 5.0}
    )
    assert found.chosen is None and "together" in found.reason


def test_thresholds_are_arguments_and_are_kept() -> None:
    row = {**GOOD, "induce": -1.0, "kl": 0.5, "layer": 9}
    assert not choose(row)
    found = choose(row, min_induce=-2.0, max_kl=0.5, max_depth=1.0)
    assert found
    assert found.thresholds == {"min_induce": -2.0, "max_kl": 0.5, "max_depth": 1.0}


def test_other_columns_can_be_minimised_and_bounded() -> None:
    rows = [{**GOOD, "bypass_mean": 1.0, "kl_mean": 0.0}, {**BETTER, "bypass_mean": -5.0, "kl_mean": 9.0}]
    found = choose(*rows, bypass="bypass_mean", kl="kl_mean")
    assert found.chosen is not None and found.chosen["position"] == GOOD["position"]
    assert found.bypass == "bypass_mean"


def test_the_callers_table_is_left_alone_and_its_index_does_not_matter() -> None:
    table = pd.DataFrame([GOOD, BETTER, {**BETTER, "kl": 1.0}], index=[7, 7, 7])
    before = table.copy()
    found = select_direction(table, N_LAYERS)
    pd.testing.assert_frame_equal(table, before)
    assert found.chosen is not None and found.chosen["position"] == BETTER["position"]
    assert list(found.table.index) == [0, 1, 2]


def test_an_empty_table_and_a_missing_column_are_errors_that_say_so() -> None:
    with pytest.raises(DirectionError, match="empty"):
        select_direction(pd.DataFrame([GOOD]).iloc[:0], N_LAYERS)
    for column in GOOD:
        with pytest.raises(DirectionError, match=f"lacks {column}"):
            select_direction(pd.DataFrame([GOOD]).drop(columns=column), N_LAYERS)
    with pytest.raises(DirectionError, match="lacks kl_mean"):
        select_direction(pd.DataFrame([GOOD]), N_LAYERS, kl="kl_mean")
