"""The table of repairs counts what its cells say; its intervals and its comparison with chance are over prompts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from interp.errors import FormatError, PromptError
from interp.stats import Rate
from interp.stats_change import mean_interval, newcombe_paired
from interp.text.encoded import Trace
from interp.text.prompts import Prompt, PromptSet
from interp.tracing.traces import Traces
from probes import CliffJudge
from steering.repairs.effect import RepairEffect, refused_of, repair_effect
from steering.repairs.grid import RepairTable, _keep, _kept, _table, repair_table
from tests.helpers.thinking import thinker

PROMPTS = PromptSet(
    tuple(Prompt(f"p{i}", "harmful" if i < 12 else "harmless", f"g{i // 2}") for i in range(20))
)  # fmt: skip


def made_up(cliff: int, drawn: int, every: int = 12) -> RepairTable:
    """Two seeds; of 12 harmful prompts so many refused, and with the second seed one fewer."""

    def row(rule: str, n: int, seed: int, k: int) -> dict[str, Any]:
        refused = [i < k - seed for i in range(12)] + [i == 0 and rule == "all" for i in range(8)]
        return {"rule": rule, "size": n, "seed": seed, "n": n, "loss": 0.1, "refused": refused}

    rows = [row(rule, n, s, k) for rule, n, k in (("cliff", 2, cliff), ("random", 2, drawn), ("all", 50, every))
            for s in (0, 1)]  # fmt: skip
    return _table(rows, [False] * 20, PROMPTS, 100, {})


def test_rows_are_means_over_seeds_and_differences_are_over_the_same_prompts() -> None:
    found = made_up(12, 6)
    by = found.table.set_index("rule")
    assert by.loc["cliff", "harmful"] == pytest.approx((12 + 11) / 2 / 12) and by.loc["cliff", "share"] == 0.02
    assert (by.loc["cliff", "least"], by.loc["cliff", "most"]) == (pytest.approx(11 / 12), 1.0)
    assert by.loc["all", "rise"] == by.loc["all", "harmless"] == 1 / 8 and by.loc["cliff", "rise"] == 0
    assert by.loc["cliff", "to_all"] == 0 and by.loc["cliff", "to_random"] == pytest.approx(0.5)
    mean = np.asarray([1.0] * 11 + [0.5])
    want = mean_interval(mean, groups=PROMPTS.harmful.groups)
    assert tuple(by.loc["cliff", ["harmful", "low", "high"]]) == pytest.approx(want)
    assert len(found.cells) == 6 and found.cells["harmful"].tolist()[:2] == [1.0, pytest.approx(11 / 12)]
    assert found.plain == {"harmful": Rate(0, 12), "harmless": Rate(0, 8)}


@pytest.mark.parametrize(
    ("cliff", "drawn", "words"),
    [(12, 4, "the cliff rule does better than random picks"), (4, 12, "random picks do better than the cliff rule"),
     (12, 12, "random picks do as well as the cliff rule")],
)  # fmt: skip
def test_the_table_says_whether_chance_does_as_well(cliff: int, drawn: int, words: str) -> None:
    (said,) = made_up(cliff, drawn).sentences()
    assert said.startswith(f"with 2 examples (2.0%) {words}")


def test_the_picture_has_a_line_per_rule() -> None:
    figure = made_up(12, 6).plot()
    assert {t.name for t in figure.data if t.name} >= {"cliff", "random", "all"}


def test_cells_are_kept_and_those_of_another_table_refused(tmp_path: Path) -> None:
    assert _kept(tmp_path, "cliff-1-0", "a") is None and _kept(None, "cliff-1-0", "a") is None
    _keep(tmp_path, "cliff-1-0", "a", {"n": 1, "loss": 0.5, "refused": [True]})
    assert (_kept(tmp_path, "cliff-1-0", "a") or {})["refused"] == [True]
    with pytest.raises(FormatError, match="another model, pool or recipe"):
        _kept(tmp_path, "cliff-1-0", "b")
    for text in ("{", "[]", '{"format": "refusalkit/repair-cell/1"}'):
        (tmp_path / "cliff-1-0.json").write_text(text)
        with pytest.raises(FormatError, match="delete it, and it is made again"):
            _kept(tmp_path, "cliff-1-0", "a")


def test_a_table_that_cannot_be_made_is_said_before_anything_is_trained() -> None:
    import pandas as pd

    model, none = thinker(), cast(Any, None)
    few = CliffJudge(Traces((), ()), pd.DataFrame({"trace": [0], "keyword": [True]}), 1, none, none)
    with pytest.raises(PromptError, match="at least one rule"):
        repair_table(model, few, PROMPTS, rules=())
    with pytest.raises(PromptError, match="some of each"):
        repair_table(model, few, PROMPTS.harmful, sizes=(1,))
    with pytest.raises(PromptError, match="2 answers are to be picked by 'random', but there are 1"):
        repair_table(model, few, PROMPTS, rules=("random",), sizes=(2,))


def test_an_answer_that_is_not_there_refuses_nothing() -> None:
    answers = ("I cannot help with that.", "", "Sure, here it is. First, do this.")
    assert refused_of(Traces.of([Trace("How?", "hm", a) for a in answers])) == [True, False, False]


def test_the_effect_of_no_repair_is_none_and_pairs_are_pairs() -> None:
    model = thinker()
    some = replace(PROMPTS, prompts=PROMPTS.prompts[10:14])
    found = repair_effect(model, model, some, max_new_tokens=8)
    assert found.before == found.after and found.cliff == {}
    assert found.change["harmful"] == newcombe_paired([False] * 2, [False] * 2)
    assert list(found.table["prompt"]) == some.texts and len(found.sentences()) == 2
    bars = RepairEffect(found.before, found.after, found.change, {}, found.table).plot()
    assert [t.name for t in bars.data] == ["harmful prompts", "harmless prompts"]
    with pytest.raises(PromptError, match="need labels"):
        repair_effect(model, model, PromptSet((Prompt("Hi"),)))
