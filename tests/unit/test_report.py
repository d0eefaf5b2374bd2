"""The report: one file, nothing loaded, nothing taken for markup, whatever was found."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import math
import re
from functools import cache
from html.parser import HTMLParser
from typing import Any

import pytest

from refusalkit.audit.findings import KINDS
from refusalkit.audit.numbers import interval, number, seconds
from refusalkit.audit.panels import SECTIONS, Section
from refusalkit.audit.report import render_report
from refusalkit.html import clip, emphasise, flat
from tests.helpers.audits import CASES, found, no_refusal

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'</textarea>&amp; {{ 7*7 }}"


@pytest.fixture(autouse=True)
def small_plotly(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the five megabytes of plotly, which take a second to parse, where they are not the point."""
    if "real_plotly" not in request.fixturenames:
        monkeypatch.setattr("plotly.offline.get_plotlyjs", lambda: "window.Plotly = {};")


@pytest.fixture
def real_plotly() -> None:
    """Asks for the real plotly."""


class _Page(HTMLParser):
    """Tags with their attributes, the text that is read, and the scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.scripts, self._inside = "", [], ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside = tag
            if tag == "script":
                self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        self._inside = "" if tag == self._inside else self._inside

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            attrs, text = self.scripts[-1]
            self.scripts[-1] = (attrs, text + data)
        elif not self._inside:
            self.text += data

    def block(self, name: str) -> Any:
        return json.loads(next(text for attrs, text in self.scripts if attrs.get("id") == name))

    def attributes(self, name: str) -> list[str]:
        return [value or "" for _, attrs in self.tags for key, value in attrs.items() if key == name]


def _page(audit: dict[str, Any], sections: tuple[Section, ...] = SECTIONS) -> _Page:
    return _Page(render_report(audit, sections))


@cache
def _html(case: str) -> str:
    """The page of an audit that is as it was made, drawn once."""
    return render_report(CASES[case]())


@cache
def _shown(case: str) -> _Page:
    """The same, read; only looked at."""
    return _Page(_html(case))


def _words(page: _Page) -> str:
    return " ".join(page.text.split())


@pytest.mark.parametrize("case", CASES)
def test_the_headline_and_the_findings_come_first(case: str) -> None:
    audit = CASES[case]()
    text = _words(_shown(case))
    places = [text.index(audit["headline"], len(audit["model"]))]
    for finding in audit["findings"]:
        places += [text.index(finding["claim"]), text.index(finding["evidence"])]
    assert places == sorted(places)
    assert places[-1] < text.index("Harm changes the refusal rate") < text.rindex("What this does not show")
    assert all(line in text for line in audit["limits"])


@pytest.mark.parametrize("case", CASES)
def test_the_page_loads_nothing_from_anywhere(case: str) -> None:
    page = _shown(case)
    assert not page.attributes("src")
    assert all(link.startswith("#") for link in page.attributes("href"))
    assert not {"link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.tags}
    html = _html(case)
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_the_content_policy_lets_exactly_the_two_scripts_of_the_page_run(real_plotly: None) -> None:
    page = _page(found())
    policy = next(a["content"] for t, a in page.tags if t == "meta" and a.get("http-equiv"))
    assert policy is not None
    assert "default-src 'none'" in policy
    runnable = [text for attrs, text in page.scripts if attrs.get("type") != "application/json"]
    digests = [base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in runnable]
    assert re.findall(r"'sha256-([^']+)'", policy) == digests
    assert len(digests) == 2
    assert "unsafe-inline" not in policy[policy.index("script-src") :]
    assert "plotly.js" in runnable[0]
    assert len(runnable[0]) > 1_000_000


@pytest.mark.parametrize("case", CASES)
def test_every_figure_has_its_place_and_every_place_its_figure(case: str) -> None:
    page = _shown(case)
    places = [a["id"] for _, a in page.tags if "plot" in (a.get("class") or "").split()]
    assert places == list(page.block("figures"))


@pytest.mark.parametrize(
    ("case", "figures"),
    [
        ("found", ["causal-bars", "direction-maps", "separation-lines"]),
        ("no refusal", ["separation-lines", "harm-bars"]),
        ("null random", ["causal-bars", "direction-maps", "separation-lines", "harm-bars"]),
        ("none passes", ["direction-maps", "separation-lines"]),
    ],
)
def test_the_pictures_are_those_that_the_outcome_has(case: str, figures: list[str]) -> None:
    assert list(_shown(case).block("figures")) == figures


def test_text_from_strangers_stays_text_everywhere() -> None:
    def hostile(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {k: hostile(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [hostile(v, key) for v in value]
        fixed = ("intervention", "on", "kind", "rule", "contrast", "position", "schema", "classes", "plain_verdict")
        return HOSTILE if isinstance(value, str) and key not in fixed else value

    clean, page = _shown("found"), _page(hostile(found()))
    assert [t for t, _ in page.tags].count("script") == [t for t, _ in clean.tags].count("script")
    assert "img" not in {t for t, _ in page.tags}
    assert not page.attributes("onerror")
    assert "<script>alert(1)</script>" in page.text
    assert "{{ 7*7 }}" in page.text
    assert page.block("audit")["headline"] == HOSTILE


def test_hostile_names_of_positions_and_classes_stay_text_too() -> None:
    audit = found()
    for row in [*audit["sections"]["direction"]["table"], audit["sections"]["direction"]["chosen"]]:
        row["position"] += HOSTILE
    for row in audit["sections"]["separation"]["table"]:
        row["position"] += HOSTILE
    for effect in audit["sections"]["causal"]["effects"]:
        effect["on"] += HOSTILE
    page = _page(audit)
    assert "img" not in {t for t, _ in page.tags}
    drawn = json.dumps(page.block("figures"))
    assert "<img" not in drawn
    assert "&lt;img" in drawn


@pytest.mark.parametrize("case", CASES)
def test_the_audit_lies_in_the_page_unchanged(case: str) -> None:
    audit = CASES[case]()
    assert _shown(case).block("audit") == audit


def test_each_kind_of_finding_has_a_badge_of_its_own_words_sign_and_shape() -> None:
    audit = found() | {"findings": [{"kind": kind, "claim": f"{kind}.", "evidence": "So."} for kind in KINDS]}
    html = render_report(audit)
    badges = re.findall(r'<span class="badge ([^"]*)"><span class="sign" aria-hidden="true">(.)</span>([^<]*)<', html)
    assert [words for _, _, words in badges] == list(KINDS)
    assert len({sign for _, sign, _ in badges}) == len({name for name, _, _ in badges}) == len(KINDS)
    style = html[html.index("<style>") : html.index("</style>")]
    assert all(f".badge.{name} {{" in style for name, _, _ in badges)


def test_rates_are_fractions_and_never_percentages() -> None:
    for case in CASES:
        page = _shown(case)
        texts = [_words(page), *page.attributes("title"), json.dumps(page.block("figures"), ensure_ascii=False)]
        # The confidence of an interval is the one percentage there is.
        assert not re.search(r"(?<!95 )(?<!95\u00a0)%(?!\{)", " ".join(texts).replace("95 %", "95"))


def test_what_is_null_or_not_a_number_is_a_dash() -> None:
    audit = found()
    audit["sections"]["direction"]["table"][7]["bypass"] = math.nan
    audit["sections"]["causal"]["effects"][2] |= {"random_mean": None, "random_shift": None}
    audit["sections"]["separation"] |= {"text": {"value": None, "low": None, "high": None}, "length": None}
    audit["sections"]["behaviour"]["rows"][0]["refused"] = {"k": 0, "n": 0, "value": None, "low": 0.0, "high": 1.0}
    page = _page(audit)
    assert "nan" not in page.text.lower().split()
    assert "None" not in page.text.split()
    assert page.block("audit")["sections"]["direction"]["table"][7]["bypass"] is None


def test_the_full_candidate_table_is_there_with_what_each_fails() -> None:
    audit = found()
    text = _words(_shown("found"))
    table = audit["sections"]["direction"]["table"]
    assert f"All {len(table)} candidates ({sum(r['passed'] for r in table)} pass)" in text
    assert text.count(" chosen") >= 1
    assert "no finite score" in text


def test_that_none_passes_is_said_with_the_reason() -> None:
    text = _words(_shown("none passes"))
    assert "No direction: none of 30 candidates passes" in text
    assert "Not run: there is no direction to test." in text


def test_without_refusal_the_report_says_why_there_are_no_maps() -> None:
    text = _words(_shown("no refusal"))
    assert "Not looked for: without refusals" in text
    assert "readable, not causal" in text


def test_refusal_that_harm_does_not_explain_shows_its_own_direction_and_that_of_harm() -> None:
    text = _words(_shown("null random"))
    assert "AUROC 0.51 [0.43, 0.58]" in text
    assert "the mean of the answered prompts" in text
    assert "Is harm, as it is read, acted on?" in text


def test_answers_stand_side_by_side_with_the_phrase_marked() -> None:
    html = _html("found")
    assert "<mark>I cannot help</mark> with that request." in html
    assert html.count('class="sides"') == 12


def test_a_section_whose_data_is_missing_is_left_out() -> None:
    audit = found()
    del audit["sections"]["separation"], audit["sections"]["causal"]
    page = _page(audit)
    anchors = page.attributes("id")
    assert "separation" not in anchors
    assert "causal" not in anchors


def test_a_null_section_without_a_line_for_it_is_left_out() -> None:
    assert "harm" not in _shown("found").attributes("id")


def test_a_new_section_is_a_template_and_a_line(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from jinja2 import ChoiceLoader, DictLoader, FileSystemLoader

    from refusalkit import html

    own = DictLoader({"mine.html.jinja": "<p>{{ data.claim }}</p>{{ heights }}"})
    environment = html.environment()
    monkeypatch.setattr(environment, "loader", ChoiceLoader([own, FileSystemLoader(html.DRESS)]))
    audit = found() | {"sections": found()["sections"] | {"mine": {"claim": "It <guards>."}}}
    page = _page(audit, (*SECTIONS, Section("mine", "Mine", "mine.html.jinja")))
    assert "It <guards>." in page.text
    assert "#mine" in page.attributes("href")


def test_a_page_without_pictures_needs_no_script() -> None:
    audit = no_refusal()
    audit["sections"] = {"behaviour": audit["sections"]["behaviour"]}
    page = _page(audit)
    assert {a.get("type") for a, _ in page.scripts} == {"application/json"}


def test_the_same_audit_gives_the_same_page_and_is_left_alone() -> None:
    audit = found()
    before = copy.deepcopy(audit)
    assert render_report(audit) == render_report(audit)
    assert audit == before


def test_numbers_are_written_for_readers() -> None:
    assert [number(v) for v in (0.0, 1.234, -2.5, 0.00001, 12, None, math.nan, 3e7)] == [
        "0.00", "1.23", "−2.50", "1.0e−05", "12", "–", "–", "3.0e+07"
    ]  # fmt: skip
    assert interval({"value": -0.021, "low": -0.1, "high": None}) == "−0.02 [−0.10, –]"
    assert [seconds(v) for v in (None, 3.21, 130)] == ["–", "3.2 s", "2.2 min"]
    assert flat({"a": {"b": 1, "c": [1, 2]}, "d": None}) == [("a · b", 1), ("a · c", "1, 2"), ("d", "–")]


def test_long_texts_are_clipped_at_a_word_and_can_be_opened() -> None:
    text = "word " * 200
    html = clip(text)
    assert "<details" in html
    assert re.sub(r"<details.*?</summary>|</details>", "", html) == text
    assert clip("short") == "short"
    assert "(empty)" in clip("  ")


def test_a_phrase_is_marked_once_and_only_where_it_stands() -> None:
    assert emphasise("I CAN'T <b>", "i can't") == "<mark>I CAN&#39;T</mark> &lt;b&gt;"
    assert emphasise("Sure.", "I can't") == "Sure."
    assert emphasise("Sure.", None) == "Sure."
