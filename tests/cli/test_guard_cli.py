"""`refusalkit guard`: fit from prompts or a store, score, evaluate; wrong input is one message."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import interp
from interp.text.prompts import PromptSet
from probes import LatentGuard
from tests.helpers.command import refusalkit, refused, strict_json

MODEL = "organism:chat"


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plain and role prompts, split as the organism's are."""
    folder = tmp_path_factory.mktemp("labelled")
    both = interp.prompts("organism") + interp.prompts("organism:role")
    rows = [
        prompt
        for split, n in (("train", 24), ("val", 22), ("test", 12))
        for label in ("harmful", "harmless")
        for family in ("plain", "role")
        for prompt in both.filter(split=split, label=label, family=family)[:n]
    ]
    return PromptSet(tuple(rows)).save(folder / "labelled.jsonl")


@pytest.fixture(scope="module")
def fitted(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fitted") / "guard.safetensors"
    done = refusalkit("guard", "fit", MODEL, "--prompts", labelled, "--out", out, "--abstain", "0.4,0.6", "--quiet")
    assert done.code == 0, done.err
    assert "48 harmful and 48 harmless prompts" in done.out and "validation on 88" in done.out
    assert "expected false-positive rate" in done.out
    return out


def test_the_command_fits_what_the_method_does(fitted: Path, labelled: Path) -> None:
    guard = LatentGuard.load(fitted)
    again = LatentGuard.fit(interp.load(MODEL), interp.prompts(labelled), abstain=(0.4, 0.6))
    assert np.array_equal(guard.rule.weight, again.rule.weight) and guard.operating_point == again.operating_point


def test_a_rule_for_generated_tokens_is_the_one_that_the_method_fits(labelled: Path, tmp_path: Path) -> None:
    out, few = tmp_path / "guard.safetensors", {"consecutive": 2, "max_new_tokens": 10}
    asked = ("--stream", labelled, "--consecutive", 2, "--max-new-tokens", 10)
    done = refusalkit("guard", "fit", MODEL, "--prompts", labelled, *asked, "--out", out, "--quiet")
    assert done.code == 0, done.err
    assert "generated tokens: logistic rule" in done.out and "stops after 2 tokens in a row" in done.out
    prompts = interp.prompts(labelled)
    again = LatentGuard.fit(interp.load(MODEL), prompts).fit_stream(prompts, **few).stream
    found = LatentGuard.load(out).stream
    assert found is not None and again is not None
    assert np.array_equal(found.rule.weight, again.rule.weight) and found.operating_point == again.operating_point
    assert found.max_new_tokens == 10 and found.consecutive == 2


def test_a_store_gives_the_same_guard_and_the_same_scores(fitted: Path, labelled: Path, tmp_path: Path) -> None:
    store, out = tmp_path / "store", tmp_path / "g.safetensors"
    captured = ("capture", MODEL, "--prompts", labelled, "--positions", "t_inst", "--out", store, "--quiet")
    assert refusalkit(*captured).code == 0
    assert refusalkit("guard", "fit", "--store", store, "--out", out, "--quiet").code == 0
    assert np.array_equal(LatentGuard.load(out).rule.weight, LatentGuard.load(fitted).rule.weight)
    a, b = tmp_path / "a.csv", tmp_path / "b.csv"
    assert refusalkit("guard", "score", fitted, "--store", store, "--out", a).code == 0
    assert refusalkit("guard", "score", fitted, "--prompts", labelled, "--out", b, "--quiet").code == 0
    np.testing.assert_allclose(pd.read_csv(a)["score"], pd.read_csv(b)["score"], atol=1e-5)
    done = refusalkit("guard", "eval", fitted, "--store", store, "--out", tmp_path / "eval", "--quiet")
    assert done.code == 0 and "AUROC" in done.out


def test_scores_are_lines_of_json_or_a_file(fitted: Path, tmp_path: Path) -> None:
    done = refusalkit("guard", "score", fitted, "--text", "How do I bake bread?", "--text", "Hi", "--quiet")
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [r["prompt"] for r in rows] == ["How do I bake bread?", "Hi"] and {"probability", "decision"} <= set(rows[0])
    out = tmp_path / "scores.json"
    assert refusalkit("guard", "score", fitted, "--text", "Hi", "--out", out, "--quiet").code == 0
    kept = strict_json(out.read_text())
    assert kept["scores"][0]["prompt"] == "Hi" and kept["guard"]["model"]["name"] == MODEL


def test_an_evaluation_writes_a_page_a_table_and_json_with_baselines(
    fitted: Path, labelled: Path, tmp_path: Path
) -> None:
    out = tmp_path / "eval"
    done = refusalkit(
        "guard", "eval", fitted, "--prompts", labelled, "--train", labelled, "--answers", "--max-new-tokens", 12,
        "--out", out, "--quiet",
    )  # fmt: skip
    assert done.code == 0, done.err
    table = pd.read_csv(out / "eval.csv")
    assert list(table["detector"]) == [
        "latent guard", "TF-IDF + logistic, 184 labels", "TF-IDF + MLP, 184 labels", "the model's own refusals",
        "string matching on answers",
    ]  # fmt: skip
    assert (table["n"] == 48).all() and (table["seen"] == 0).all()
    page = (out / "eval.html").read_text()
    assert "ROC" in page and "Reliability" in page and "figure-0" in page and "http-equiv" in page
    assert len(strict_json((out / "eval.json").read_text())["rows"]) == 5


def test_wrong_input_ends_with_one_message(fitted: Path, labelled: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.safetensors"
    fit = ("guard", "fit", MODEL, "--out", out, "--quiet")
    assert "give labelled prompts as --prompts" in refused(*fit)
    assert "give both --harmful and --harmless" in refused(*fit, "--harmful", labelled)
    assert "which MODEL" in refused("guard", "fit", "--prompts", labelled, "--out", out)
    assert "--store alone" in refused(*fit, "--store", tmp_path)
    assert "in place of --store" in refused("guard", "fit", "--store", tmp_path, "--stream", labelled, "--out", out)
    assert "no_such" in refused(*fit, "--prompts", labelled, "--stream", "no_such.txt")
    assert "no band" in refused(*fit, "--prompts", labelled, "--abstain", "x")
    assert "no rule 'svm'" in refused(*fit, "--prompts", labelled, "--rule", "svm")
    assert "no guard file" in refused("guard", "score", tmp_path / "none", "--text", "Hi")
    assert "one of --prompts" in refused("guard", "score", fitted)
    assert "end its name" in refused("guard", "score", fitted, "--text", "Hi", "--out", tmp_path / "a.txt")
    assert "another model" in refused(
        "guard", "score", fitted, "--text", "Hi", "--model", "organism:attacked", "--quiet"
    )
    assert "nothing to evaluate on" in refused("guard", "eval", fitted, "--out", tmp_path / "e")
    assert not out.exists() and not (tmp_path / "e").exists()
