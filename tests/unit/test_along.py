"""The section "Along the thinking": its sentences by rule, what a reader sees, what it makes of all kinds of models."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

import interp
from interp.errors import PromptError
from refusalkit.audit import suppresses
from refusalkit.audit.findings import KINDS, conclude
from refusalkit.audit.panels import heads_figures, thinking_figures
from refusalkit.audit.prompts import audit_prompts
from refusalkit.audit.report import render_report
from refusalkit.audit.settings import Settings
from refusalkit.audit.thinking import thinking_findings
from refusalkit.audit.thinks import THOUGHTS, thinking_model, thinking_section
from tests.helpers import audits
from tests.helpers.tiny import tiny_model, tiny_tokenizer

CASES: list[tuple[dict[str, Any], str, str]] = [
    ({}, "found", "a refusal cliff"),
    ({"falls": 0}, "not found", "holds to the end"),
    ({"falls": 6}, "cannot tell", "whether there is a refusal cliff"),
    ({"shuffled": 0.95}, "caution", "in a shuffled control it falls as much"),
    ({"plateaus": (0.45, 0.58)}, "not found", "no decision to refuse"),
    ({"plateaus": (0.5, 0.8)}, "cannot tell", "whether a decision to refuse stands"),
]
HEADS: list[tuple[dict[str, int], str, str]] = [
    ({}, "found", "2 of 12 attention heads hold refusal down (0.0, 0.1): without them the model refuses again."),
    ({"others": 8}, "caution", "without as many others it does too"),
    ({"harmless": 12}, "caution", "harmless prompts are refused too"),
    ({"harmful": 2}, "cannot tell", "do not show"),
    ({"chosen": 0}, "not found", "No attention heads"),
]


@pytest.mark.parametrize(("figures", "kind", "words"), CASES)
def test_each_pattern_of_figures_has_its_finding(figures: dict[str, Any], kind: str, words: str) -> None:
    (found,) = thinking_findings(audits.thinking(**figures), None)
    assert found["kind"] == kind and words in found["claim"] and kind in KINDS
    assert all(control in found["evidence"] for control in ("harmless", "shuffled labels", "change places"))


@pytest.mark.parametrize(("figures", "kind", "words"), HEADS)
def test_heads_are_claimed_beside_as_many_others_and_their_price(
    figures: dict[str, int], kind: str, words: str
) -> None:
    found = thinking_findings(audits.thinking(), audits.heads(**figures))[1]
    assert found["kind"] == kind and words in found["claim"]
    assert "20 draws of as many others" in found["evidence"] and "KL" in found["evidence"]


def test_heads_are_no_finding_where_no_cliff_is() -> None:
    assert len(thinking_findings(audits.thinking(0), audits.heads())) == 1


@pytest.mark.parametrize(
    ("section", "kinds"),
    [(None, []), ({"followed": False, "thinks": False, "reason": "no"}, []),
     ({"followed": False, "thinks": True, "reason": "3 harmful traces"}, ["cannot tell"]),
     ({**audits.thinking(0), "scores": None, "reason": "nothing to follow"}, ["not found"])],
)  # fmt: skip
def test_what_was_not_followed_claims_nothing_more(section: Any, kinds: list[str]) -> None:
    assert [f["kind"] for f in thinking_findings(section, None)] == kinds


def test_the_headline_says_that_refusal_is_lost_and_not_where_it_is_kept() -> None:
    made = copy.deepcopy(audits.found()["sections"])
    made["behaviour"]["effect_of_harm"] = {"value": 0.98, "low": 0.95, "high": 1.0}
    lost = conclude("mine", {**made, "thinking": audits.thinking(), "heads": audits.heads()})
    assert lost[0].endswith(", and lost at the end of its thinking.")
    assert "lost" not in conclude("mine", {**made, "thinking": audits.thinking(0)})[0]


def test_the_sections_reach_the_report_and_strangers_text_stays_text() -> None:
    audit = copy.deepcopy(audits.found())
    audit["sections"] |= {"thinking": audits.thinking(), "heads": audits.heads()}
    page = render_report(audit)
    assert "<script>harmful 1</script>" not in page and "<script>0</script>" not in page and "<b></span>" not in page
    assert all(f'id="{name}"' in page for name in ("thinking-curve", "thinking-map", "heads-map", "heads-curve"))
    assert page.count("<span class='k s") == 5 and "shuffled labels" in page


def test_the_pictures_have_their_controls() -> None:
    drawn = thinking_figures(audits.thinking())
    assert {t.name for t in drawn["curve"].data if t.fill is None} == {
        "harmful prompts", "harmless prompts", "shuffled labels"
    }  # fmt: skip
    assert [t.z is not None for t in drawn["map"].data] == [True, True]
    curve = heads_figures(audits.heads(others=3))["curve"]
    (dots,) = [t for t in curve.data if t.name == "harmful, other heads drawn"]
    assert len(dots.y) == 20 and set(dots.y) == {3 / 8}
    assert thinking_figures({"followed": False}) == {} and heads_figures({"ranked": False}) == {}


def test_a_model_that_does_not_think_is_told_so_in_a_line() -> None:
    model = interp.load(tiny_model("llama"), tokenizer=tiny_tokenizer())
    assert thinking_model(model, Settings())[0] is None
    audit = copy.deepcopy(audits.found())
    audit["sections"]["thinking"] = thinking_section(model, interp.prompts("organism"), Settings(), Path("nowhere"))
    assert "Not followed: this model" in render_report(audit)
    organism = interp.load("organism:chat")
    assert thinking_model(organism, Settings(max_thought_tokens=0)) == (
        None, "it was left out (--max-thought-tokens 0)",
    )  # fmt: skip
    assert thinking_model(organism, Settings())[0] is not None


@pytest.fixture(scope="module")
def asked() -> Any:
    return audit_prompts("organism", None, None, Settings(n_train=12, n_val=4, n_test=12, seed=3))


@pytest.mark.parametrize(("variant", "found", "kind"), [("cliff", True, "found"), ("null-never", False, "not found")])
def test_the_planted_cliff_is_found_and_a_model_that_refuses_nothing_has_none(
    variant: str, found: bool, kind: str, asked: Any, tmp_path: Path
) -> None:
    model = interp.load(f"organism:{variant}")
    section = thinking_section(model, asked, Settings(seed=3), tmp_path)
    assert section["followed"] and section["found"] is found
    assert thinking_findings(section, None)[0]["kind"] == kind
    held = {p.text for p in asked.test}
    assert section["scores"] is None or {t["prompt"] for t in section["scores"]["traces"]} <= held


def test_thoughts_are_kept_and_a_damaged_file_is_thought_anew(
    asked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, thought = interp.load("organism:null-never"), list[int]()
    plain = interp.Model.generate

    def counted(self: Any, prompts: Any, **options: Any) -> Any:
        thought.append(len(prompts) if self.chat.thinks else 0)
        return plain(self, prompts, **options)

    monkeypatch.setattr(interp.Model, "generate", counted)
    once = thinking_section(model, asked, Settings(seed=3), tmp_path)
    assert sum(thought) == 56
    assert thinking_section(model, asked, Settings(seed=3), tmp_path) == once and sum(thought) == 56
    lines = (tmp_path / THOUGHTS).read_text().splitlines(keepends=True)
    (tmp_path / THOUGHTS).write_text("".join([lines[0], lines[1][:-9] + "\n", *lines[2:]]))
    assert thinking_section(model, asked, Settings(seed=3), tmp_path) == once and sum(thought) == 112


def test_traces_too_few_or_cut_are_a_reason_and_no_error(asked: Any, tmp_path: Path) -> None:
    section = thinking_section(interp.load("organism:cliff"), asked, Settings(max_thought_tokens=4), tmp_path)
    assert not section["followed"] and section["thinks"] and "cut off" in section["reason"]
    assert section["thoughts"] == {"unfinished": 56}


def test_heads_that_cannot_be_ranked_are_a_reason(asked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any, **__: Any) -> Any:
        raise PromptError("no metric can be found")

    monkeypatch.setattr(suppresses, "suppression_heads", none)
    made = suppresses.heads_section(interp.load("organism:cliff"), asked, Settings(), 96)
    assert made == {"ranked": False, "reason": "no metric can be found"}
    audit = copy.deepcopy(audits.found())
    audit["sections"]["heads"] = made
    assert "Not looked for: no metric can be found" in render_report(audit)
