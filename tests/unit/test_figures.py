"""The figures: what is in the data is in the picture, its control too, and nothing is read as markup."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import Any

import pandas as pd
import pytest

from interp.stats import Rate
from probes.causal import Effect
from probes.figures import candidate_maps, effect_bars, separation_lines
from probes.figures.style import fraction, plain
from probes.readout import Separation
from probes.selection import select_direction
from tests.helpers.audits import LAYERS, POSITIONS, found


def _selection(max_kl: float = 0.1, n_layers: int = LAYERS) -> Any:
    table = pd.DataFrame(found()["sections"]["direction"]["table"])
    return select_direction(table[["position", "layer", "bypass", "induce", "kl"]], n_layers, max_kl=max_kl)


def _effects(*rows: tuple[str, str, int, int]) -> list[Effect]:
    random = (Rate(90, 100), Rate(95, 100), Rate(97, 100))
    return [Effect(i, on, Rate(k, n), () if i == "none" else random) for i, on, k, n in rows]


def _separation(**changes: Any) -> Separation:
    data = found()["sections"]["separation"]
    fields = {"table": pd.DataFrame(data["table"]), "text": (0.53, 0.46, 0.6), "length": 0.51}
    return Separation(**(fields | {"n_train": 240, "n_test": 168} | changes))


def _traces(figure: Any, kind: str) -> list[Any]:
    return [t for t in figure.data if t.type == kind]


def _rings(figure: Any) -> list[Any]:
    return [t for t in _traces(figure, "scatter") if t.marker.symbol == "circle-open"]


def test_the_maps_show_bypass_induce_and_kl_of_every_candidate() -> None:
    heat = _traces(candidate_maps(_selection()), "heatmap")
    assert len(heat) == 3
    for trace in heat:
        assert len(trace.z) == len(POSITIONS)
        assert all(len(line) == LAYERS for line in trace.z)


def test_the_scores_share_a_scale_centred_at_zero() -> None:
    axis = candidate_maps(_selection()).layout.coloraxis
    assert axis.cmin == -axis.cmax < 0


def test_the_chosen_candidate_wears_a_ring_in_every_map() -> None:
    selection = _selection()
    rings = _rings(candidate_maps(selection))
    assert len(rings) == 6  # a dark ring on a light one, in three maps
    assert {(r.x[0], r.y[0]) for r in rings} == {
        (selection.chosen["layer"], POSITIONS.index(selection.chosen["position"]))
    }


def test_without_a_choice_there_is_no_ring_and_every_cell_of_the_first_map_is_crossed() -> None:
    figure = candidate_maps(_selection(max_kl=-1))
    crosses = [t for t in _traces(figure, "scatter") if t.marker.symbol == "x-thin" and t.xaxis == "x"]
    assert not _rings(figure)
    assert all(len(c.x) == len(POSITIONS) * LAYERS for c in crosses)


def test_crosses_mark_the_cells_that_fail_the_condition_of_their_map() -> None:
    selection = _selection()
    figure = candidate_maps(selection)
    for axis, condition in (("x", "passed"), ("x2", "ok_induce"), ("x3", "ok_kl")):
        crosses = next(t for t in _traces(figure, "scatter") if t.marker.symbol == "x-thin" and t.xaxis == axis)
        fails = selection.table[~selection.table[condition]]
        assert list(crosses.x) == fails["layer"].tolist()


def test_the_depth_limit_is_drawn_between_the_layers_that_it_parts() -> None:
    lines = candidate_maps(_selection()).layout.shapes
    assert [line.x0 for line in lines] == [4.5] * 3  # layer < 0.8 * 6: layers up to 4


def test_cells_without_a_finite_score_are_empty_and_the_figure_is_plain_json() -> None:
    figure = candidate_maps(_selection())
    assert figure.data[0].z[0][0] is None
    json.loads(figure.to_json(), parse_constant=pytest.fail)


def test_the_maps_of_a_choice_by_the_mean_show_the_columns_of_the_mean() -> None:
    table = pd.DataFrame(found()["sections"]["direction"]["table"])
    names = ["position", "layer", "bypass", "bypass_mean", "induce", "kl", "kl_mean"]
    selection = select_direction(table[names], LAYERS, bypass="bypass_mean", kl="kl_mean")
    figure = candidate_maps(selection)
    assert figure.data[0].z[4][3] == pytest.approx(table["bypass_mean"].max(), abs=30)
    row = table[(table.position == POSITIONS[4]) & (table.layer == 3)].iloc[0]
    heat = _traces(figure, "heatmap")
    assert heat[0].z[4][3] == pytest.approx(row["bypass_mean"])
    assert heat[2].z[4][3] == pytest.approx(math.log10(row["kl_mean"]))


def test_token_texts_stand_beside_position_names_and_are_no_markup() -> None:
    figure = candidate_maps(_selection(), {POSITIONS[0]: "<b>x</b>", POSITIONS[4]: "\n"})
    labels = figure.layout.yaxis.ticktext
    assert labels[0] == "post_inst[-5]  &lt;b&gt;x&lt;/b&gt;"
    assert labels[4] == "post_inst[-1]  ↵"


def test_many_layers_put_the_maps_below_each_other() -> None:
    table = pd.DataFrame(
        [{"position": "post_inst[-1]", "layer": i, "bypass": -i, "induce": 1, "kl": 0.01} for i in range(40)]
    )
    figure = candidate_maps(select_direction(table, 40))
    assert figure.layout.xaxis.domain == figure.layout.xaxis3.domain == (0, 1)
    assert candidate_maps(_selection()).layout.xaxis3.domain[0] > 0.5


def test_bars_carry_wilson_intervals_and_a_dot_for_each_random_direction() -> None:
    effects = _effects(("none", "harmful", 98, 100), ("ablate to zero", "harmful", 3, 100))
    figure = effect_bars(effects)
    bars = _traces(figure, "bar")[0]
    low, high = effects[1].rate.interval
    assert bars.x[1] == 0.03
    assert bars.error_x.array[1] == pytest.approx(high - 0.03)
    assert bars.error_x.arrayminus[1] == pytest.approx(0.03 - low)
    dots = next(t for t in _traces(figure, "scatter") if t.xaxis == "x" and t.mode == "markers" and len(t.x) == 3)
    assert sorted(dots.x) == [0.9, 0.95, 0.97]


def test_the_dots_of_the_random_directions_lie_on_the_bar_of_their_edit_and_in_the_legend() -> None:
    figure = effect_bars(_effects(("none", "harmful", 98, 100), ("ablate to zero", "harmful", 60, 100)))
    bars = _traces(figure, "bar")[0]
    (dots,) = [t for t in _traces(figure, "scatter") if t.xaxis == "x" and t.mode == "markers" and len(t.x) == 3]
    assert all(abs(y - 1) < bars.width / 2 for y in dots.y)  # inside the bar of row 1
    assert sum(dots.y) / 3 == pytest.approx(1)
    assert len(set(dots.y)) == 3  # equal rates do not hide each other
    assert list(figure.data).index(dots) > list(figure.data).index(bars)  # drawn over it
    (entry,) = [t for t in figure.data if t.name == "control: one random direction each"]
    assert entry.marker.to_plotly_json() == dots.marker.to_plotly_json()


def test_each_row_says_its_rate_and_that_of_the_random_directions() -> None:
    figure = effect_bars(_effects(("none", "harmful", 98, 100), ("ablate to zero", "harmful", 3, 100)))
    texts = [a.text for a in figure.layout.annotations]
    assert "<b>0.98</b>" in texts
    (edited,) = [t for t in texts if t.startswith("<b>0.03</b>")]
    assert "random 0.94" in edited


def test_the_unedited_model_is_a_bar_of_its_own_and_a_line_across_the_others() -> None:
    figure = effect_bars(_effects(("add", "harmless", 95, 100), ("none", "harmless", 2, 100)))
    assert figure.layout.yaxis.ticktext[0] == "unedited"
    assert [line.x0 for line in figure.layout.shapes] == [0.02]


def test_each_class_has_its_panel_whatever_it_is_called() -> None:
    figure = effect_bars(_effects(("none", "refused", 9, 9), ("none", "<i>answered</i>", 0, 9)))
    titles = [a.text for a in figure.layout.annotations if "prompts" in a.text]
    assert titles == ["Refusals, <b>refused</b> prompts", "Refusals, <b>&lt;i&gt;answered&lt;/i&gt;</b> prompts"]


def test_a_rate_of_nothing_is_left_empty() -> None:
    figure = effect_bars([Effect("none", "harmful", Rate(0, 0), ())])
    assert figure.data[0].x[0] is None
    assert "<b>–</b>" in [a.text for a in figure.layout.annotations]
    json.loads(figure.to_json(), parse_constant=pytest.fail)


def test_separation_shows_each_position_between_its_controls() -> None:
    names = [t.name for t in separation_lines(_separation()).data if t.name]
    assert names == [
        "shuffled labels (mean to largest)", "text alone (0.53)", "length alone (0.51)", "t_inst", "t_post_inst"
    ]  # fmt: skip


def test_separation_without_baselines_is_drawn_without_them() -> None:
    nan = math.nan
    names = [t.name for t in separation_lines(_separation(text=(nan, nan, nan), length=nan)).data if t.name]
    assert names == ["shuffled labels (mean to largest)", "t_inst", "t_post_inst"]


def test_the_axis_reaches_down_to_what_is_below_chance() -> None:
    table = _separation().table.assign(low=0.21)
    assert separation_lines(_separation(table=table)).layout.yaxis.range[0] == pytest.approx(0.2)


@pytest.mark.parametrize(
    "figure",
    [
        lambda: candidate_maps(_selection()),
        lambda: effect_bars(_effects(("none", "harmful", 98, 100), ("add", "harmless", 3, 100))),
        lambda: separation_lines(_separation()),
    ],
)
def test_every_figure_carries_its_looks_for_light_dark_wide_and_narrow_pages(figure: Any) -> None:
    layout = figure().layout
    assert layout.paper_bgcolor == layout.plot_bgcolor == "rgba(0,0,0,0)"
    assert set(layout.meta) == {"light", "dark", "wide", "narrow", "narrow_below"}
    for look in ("light", "dark", "wide", "narrow"):
        figure().update_layout(layout.meta[look])  # each is a valid layout change
    assert layout.height == layout.meta["wide"]["height"] <= 700


def test_whatever_lies_between_0_and_1_has_two_decimals() -> None:
    assert [fraction(v) for v in (0, 0.004, 0.5, 0.996, 1, -0.25, -0.001, math.nan, None)] == [
        "0.00", "0.00", "0.50", "1.00", "1.00", "−0.25", "0.00", "–", "–"
    ]  # fmt: skip
    assert plain("<|im_end|> & more") == "&lt;|im_end|&gt; &amp; more"


def test_importing_the_figures_does_not_import_plotly() -> None:
    code = "import sys, probes.figures; sys.exit('plotly' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
