"""`refusalkit audit` from end to end: what it writes, how it resumes, what it refuses to mix."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import interp
from interp.model.model import Model
from probes import LatentGuard
from steering import SteeringVector
from tests.helpers.command import SMALL, refusalkit, refused, results, save_model, strict_json, tree

QUICK = ("--max-new-tokens", "4", "--quiet")
KEYS = {"schema", "refusalkit", "model", "headline", "findings", "sections", "limits", "provenance"}
SECTIONS = {"behaviour", "direction", "causal", "separation", "harm", "knows", "guard", "thinking", "heads", "plans"}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many prompts each call of `Model.generate` was given."""
    calls: list[int] = []
    plain = Model.generate

    def counting(self: Model, prompts: Any, **options: Any) -> Any:
        calls.append(len(prompts))
        return plain(self, prompts, **options)

    monkeypatch.setattr(Model, "generate", counting)
    return calls


@pytest.fixture(scope="module")
def done(llama: Path, files: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished audit of the tiny Llama; tests copy it."""
    out = tmp_path_factory.mktemp("audits") / "llama"
    assert refusalkit("audit", llama, *files, *QUICK, "--out", out).code == 0
    return out


@pytest.fixture
def copy(done: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(done, tmp_path / "audit"))


@pytest.fixture(scope="module")
def organism(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small audit of the shipped organism; only looked at."""
    out = tmp_path_factory.mktemp("audits") / "organism"
    assert refusalkit("audit", "organism:chat", *SMALL, "--quiet", "--out", out).code == 0
    return out


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2"])
def test_a_random_model_of_any_architecture_ends_with_no_refusal_found(
    family: str, files: tuple[str, ...], tmp_path: Path
) -> None:
    model, out = save_model(tmp_path / family, family), tmp_path / "out"
    ended = refusalkit("audit", model, *files, *QUICK, "--out", out)
    assert ended.code == 0
    assert ended.err == ""
    assert f"No refusal behaviour found in {family}" in ended.out
    assert str(out / "report.html") in ended.out
    assert {f.name for f in out.iterdir()} - {"guard"} == {"report.html", "audit.json", ".work"}  # and no vector
    audit = strict_json((out / "audit.json").read_text(encoding="utf-8"))
    assert set(audit) == KEYS
    assert set(audit["sections"]) == SECTIONS
    assert audit["sections"]["direction"] is audit["sections"]["causal"] is None
    assert audit["provenance"]["model"]["name"] == family
    assert "No refusal behaviour found" in (out / "report.html").read_text(encoding="utf-8")


def test_the_organism_gives_a_vector_that_loads(organism: Path) -> None:
    audit = strict_json((organism / "audit.json").read_text(encoding="utf-8"))
    assert audit["sections"]["direction"]["found"], audit["headline"]
    vector = SteeringVector.load(organism / audit["sections"]["direction"]["vector"])
    (layer,) = vector.layers
    assert layer == audit["sections"]["causal"]["layer"] == audit["sections"]["direction"]["chosen"]["layer"]
    assert float(vector.vectors[layer].norm()) == pytest.approx(audit["sections"]["causal"]["direction_norm"], rel=1e-4)
    again = SteeringVector.load(vector.save(organism / ".work" / "again.safetensors"))
    assert torch.equal(again.vectors[layer], vector.vectors[layer])
    assert vector.provenance["model"]["name"] == "organism:chat"


def test_the_organism_gives_a_guard_that_loads_and_catches_what_the_model_answers(organism: Path) -> None:
    audit = strict_json((organism / "audit.json").read_text(encoding="utf-8"))
    section = audit["sections"]["guard"]
    assert section["found"], section["reason"]
    guard = LatentGuard.load(organism / section["file"], interp.load("organism:chat"))
    assert guard.threshold == section["operating_point"]["threshold"]
    role = next(f for f in section["forms"] if f["family"] == "role")
    assert role["complied"]["value"] > 0.9 and role["accepted"]["value"] > 0.9 > role["text_accepted"]["value"]
    points = [p for p in section["points"] if p["family"] == "role"]
    assert guard.score([p["prompt"] for p in points]).score == pytest.approx([p["score"] for p in points], abs=1e-4)


def test_the_organism_keeps_its_decision_along_its_thinking(organism: Path) -> None:
    audit = strict_json((organism / "audit.json").read_text(encoding="utf-8"))
    section = audit["sections"]["thinking"]
    assert section["followed"] and not section["found"] and audit["sections"]["heads"] is None
    assert section["scores"]["harmful"]["k"] == 0 and section["scores"]["plateaus"]["low"] > 0.6
    assert "Along the thinking" in (organism / "report.html").read_text(encoding="utf-8")


def test_the_organism_commits_itself_with_its_first_token_and_too_few_answers_are_said(organism: Path) -> None:
    audit = strict_json((organism / "audit.json").read_text(encoding="utf-8"))
    rows = {row["key"]: row for row in audit["sections"]["plans"]["attributes"]}
    assert set(rows) == {"refusal", "length", "length of answers", "refusal after thinking", "list", "choice"}
    assert rows["refusal"]["claim"] == "committed to by its first token" and rows["refusal"]["n"] == 104
    assert rows["length"]["apart"] == {"cut off": 52} and "all 52 labels are 6.0" in rows["length"]["reason"]
    assert "read off none of the 52 answers (52 cut off)" in rows["length of answers"]["reason"]
    assert rows["list"]["difference"]["value"] == 0  # its opener says it
    assert not rows["choice"]["measured"] and "too few" in rows["choice"]["reason"]  # four classes of 52 answers
    assert any("no more than in its first token" in f["claim"] for f in audit["findings"])
    assert "What it plans" in (organism / "report.html").read_text(encoding="utf-8")


def test_sections_can_be_skipped_and_filled_in_later(
    copy: Path, llama: Path, files: tuple[str, ...], counted: list[int]
) -> None:
    whole = results(copy)
    skipped = ("--skip", "guard, plans,thinking")
    assert refusalkit("audit", llama, *files, *QUICK, *skipped, "--out", copy).code == 0
    audit = strict_json((copy / "audit.json").read_text(encoding="utf-8"))
    assert [audit["sections"][name] for name in ("guard", "plans", "thinking")] == [None] * 3
    assert audit["provenance"]["skipped"] == ["guard", "plans", "thinking"]
    assert refusalkit("audit", llama, *files, *QUICK, "--out", copy).code == 0
    assert results(copy) == whole and counted == []
    unknown = refused("audit", llama, *files, *QUICK, "--skip", "causal", "--out", copy)
    assert "no section 'causal' to skip; known: knows, guard, thinking, plans" in unknown


@pytest.mark.soak
def test_the_audit_finds_the_planted_cliff_and_its_heads(tmp_path: Path) -> None:
    assert refusalkit("audit", "organism:cliff", "--quiet", "--out", tmp_path / "out").code == 0
    audit = strict_json((tmp_path / "out" / "audit.json").read_text(encoding="utf-8"))
    planted = {tuple(head) for head in interp.organism.truth("cliff")["heads"]}
    heads = audit["sections"]["heads"]
    assert audit["sections"]["thinking"]["found"] and audit["headline"].endswith("at the end of its thinking.")
    assert {(t["layer"], t["head"]) for t in heads["top"]} <= planted and heads["chosen"]
    assert [f["kind"] for f in audit["findings"][-2:]] == ["found", "found"]
    assert any("readable, and not acted on" in f["claim"] for f in audit["findings"])


def test_a_guard_file_that_was_changed_is_made_again(organism: Path, tmp_path: Path, counted: list[int]) -> None:
    out = Path(shutil.copytree(organism, tmp_path / "audit"))
    before = (out / "guard" / "harm.safetensors").read_bytes()
    (out / "guard" / "harm.safetensors").write_bytes(before[:-8])
    assert refusalkit("audit", "organism:chat", *SMALL, "--quiet", "--out", out).code == 0
    assert (out / "guard" / "harm.safetensors").read_bytes() == before
    assert counted == []


def test_the_organism_is_found_to_refuse_harm(organism: Path) -> None:
    audit = strict_json((organism / "audit.json").read_text(encoding="utf-8"))
    assert audit["findings"][0]["claim"] == "The model refuses harmful prompts and answers harmless ones."
    assert any("organism" in limit for limit in audit["limits"])


def test_a_plain_folder_and_files_of_ones_own_are_audited_like_the_organism(tmp_path: Path) -> None:
    """Issue 2, done when 3: nothing about the model or the prompts says that they are the project's."""
    model, prompts = tmp_path / "mine", interp.prompts("organism")
    shutil.copytree(interp.organism.path("chat"), model, ignore=shutil.ignore_patterns("truth.*"))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"prompt": p.text}) + "\n" for p in prompts.harmful[:120]))
    with (tmp_path / "b.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("prompt", "note"), *((p.text, "x, y") for p in prompts.harmless[:120])])
    files = ("--harmful", tmp_path / "a.jsonl", "--harmless", tmp_path / "b.csv")
    some = (*SMALL, "--skip", "thinking,plans")
    done = refusalkit("audit", model, *files, *some, "--quiet", "--out", tmp_path / "out")
    assert done.code == 0 and done.out.startswith("Refusal in mine is carried by one direction"), done
    audit = strict_json((tmp_path / "out" / "audit.json").read_text(encoding="utf-8"))
    assert audit["provenance"]["prompts"]["name"] == "a / b"
    assert not any("organism" in limit for limit in audit["limits"])


def test_the_same_command_resumes_without_generating_anything(
    organism: Path, tmp_path: Path, counted: list[int]
) -> None:
    out = Path(shutil.copytree(organism, tmp_path / "audit"))
    before, times = tree(out), {f: f.stat().st_mtime_ns for f in (out / ".work").iterdir()}
    assert refusalkit("audit", "organism:chat", *SMALL, "--quiet", "--out", out).code == 0
    assert counted == []
    assert {f: f.stat().st_mtime_ns for f in (out / ".work").iterdir()} == times
    assert tree(out) == before  # timings and all


def test_what_is_kept_from_an_earlier_run_is_said(organism: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(organism, tmp_path / "audit"))
    (out / ".work" / "causal.json").unlink()
    done = refusalkit("audit", "organism:chat", *SMALL, "--out", out)
    assert "loading organism:chat\n" in done.err
    assert (
        "kept from an earlier run: answers (104 of 104), forms (96 of 96), direction, knows, separation, guard, "
        "thinking, plans\n" in done.err
    )


def test_another_spelling_of_the_same_model_resumes_too(
    copy: Path, llama: Path, files: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, counted: list[int]
) -> None:
    monkeypatch.chdir(llama.parent)
    before = results(copy)
    assert refusalkit("audit", "llama", *files, *QUICK, "--out", copy).code == 0
    assert counted == []
    assert set(results(copy)) == set(before)


def test_force_starts_over_and_leaves_nothing_of_the_old_audit(
    copy: Path, llama: Path, files: tuple[str, ...], counted: list[int]
) -> None:
    (copy / "vectors").mkdir()
    (copy / "vectors" / "refusal.safetensors").write_bytes(b"of an earlier audit")
    (copy / "notes.txt").write_text("mine")
    assert refusalkit("audit", llama, *files, *QUICK, "--out", copy, "--force").code == 0
    assert counted[0] == 80  # everything is answered again
    assert not (copy / "vectors" / "refusal.safetensors").exists()
    assert (copy / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--max-new-tokens", "5"), r"settings \(max_new_tokens: 4 there, 5 here\)"),
        (("--seed", "1"), r"prompts \(\w{16} there, \w{16} here\), settings \(seed: 0 there, 1 here\)"),
        (("--system", "Be kind."), r"chat format \(system: none there, Be kind. here\)"),
        (("--dtype", "bfloat16"), r"model \(dtype: float32 there, bfloat16 here\)"),
    ],
)
def test_other_arguments_on_the_same_folder_are_refused(
    arguments: tuple[str, ...], named: str, copy: Path, llama: Path, files: tuple[str, ...]
) -> None:
    before = tree(copy)
    message = refused("audit", llama, *files, *QUICK, *arguments, "--out", copy)
    assert re.search(f"holds an audit with other {named};", message), message
    assert "--force" in message
    assert tree(copy) == before


def test_another_model_on_the_same_folder_is_refused(copy: Path, files: tuple[str, ...], tmp_path: Path) -> None:
    before = tree(copy)
    message = refused("audit", save_model(tmp_path / "llama", "mistral"), *files, *QUICK, "--out", copy)
    assert "holds an audit with other model" in message
    assert tree(copy) == before


def test_results_of_another_version_or_device_are_not_mixed(
    copy: Path, llama: Path, files: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, plain = tree(copy), Model.provenance
    newer = {"torch": "99.0", "transformers": "99.1"}
    monkeypatch.setattr(Model, "provenance", lambda self: (p := plain(self)) | {"versions": p["versions"] | newer})
    monkeypatch.setattr("refusalkit.audit.stages.device_of", lambda _model: "cuda (Some GPU)")
    message = refused("audit", llama, *files, *QUICK, "--out", copy)
    assert "device (cpu there, cuda (Some GPU) here), versions (torch: " in message
    assert " there, 99.0 here; transformers: " in message and "--force" in message
    assert tree(copy) == before
    assert refusalkit("audit", llama, *files, *QUICK, "--out", copy, "--force").code == 0
    audit = strict_json((copy / "audit.json").read_text(encoding="utf-8"))
    assert audit["provenance"]["device"] == "cuda (Some GPU)"


def test_verdicts_of_another_judge_are_not_mixed(
    copy: Path, llama: Path, files: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(copy)
    monkeypatch.setattr("refusalkit.audit.pipeline.judge_digest", lambda _judge: "of a later version")
    message = refused("audit", llama, *files, *QUICK, "--out", copy)
    assert re.search(r"judge \(source: \w{16} there, of a later version here\)", message), message
    assert tree(copy) == before


def test_every_stage_says_how_long_it_took(organism: Path) -> None:
    seconds = strict_json((organism / "audit.json").read_text(encoding="utf-8"))["provenance"]["seconds"]
    stages = ["answers", "forms", "direction", "causal", "knows", "separation", "guard", "thinking", "plans"]
    assert list(seconds) == stages
    assert all(spent > 0 for spent in seconds.values())


def test_the_time_of_answers_kept_from_an_earlier_run_still_counts(
    copy: Path, llama: Path, files: tuple[str, ...], counted: list[int]
) -> None:
    rows = [json.loads(line) for line in (copy / ".work" / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row["seconds"] = 2.5
    (copy / ".work" / "answers.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    done = refusalkit("audit", llama, *files, *QUICK, "--out", copy)
    assert done.code == 0 and counted == []
    audit = strict_json((copy / "audit.json").read_text(encoding="utf-8"))
    assert audit["provenance"]["seconds"]["answers"] == 2.5 * len(rows)


def test_an_answer_may_hold_line_separators(
    copy: Path, llama: Path, files: tuple[str, ...], counted: list[int]
) -> None:
    """JSON leaves U+2028 and U+0085 as they are, and `str.splitlines` splits at them."""
    answers = copy / ".work" / "answers.jsonl"
    first, rest = answers.read_text(encoding="utf-8").split("\n", 1)
    answers.write_text(first.replace('"text": "', '"text": "a\u2028b\u0085c') + "\n" + rest, encoding="utf-8")
    assert refusalkit("audit", llama, *files, *QUICK, "--out", copy).code == 0
    assert counted == []


def test_a_finished_audit_writes_every_format_when_asked_and_computes_nothing_else_again(
    organism: Path, tmp_path: Path, counted: list[int]
) -> None:
    out = Path(shutil.copytree(organism, tmp_path / "audit"))
    before = json.loads((out / "audit.json").read_text())["sections"]
    ended = refusalkit("audit", "organism:chat", *SMALL, "--quiet", "--export", "--out", out)
    assert ended.code == 0, ended.err
    sections = json.loads((out / "audit.json").read_text())["sections"]
    assert {name: sections[name] for name in before} == before
    assert {"llama-cpp.gguf", "model", "adapter"} <= {file.name for file in (out / "exports").iterdir()}
    assert all(row["file"] and not row["reason"] for row in sections["exports"]["rows"])
    assert "For other programs" in (out / "report.html").read_text() and ", proved" in ended.out
    asked = len(counted)
    assert refusalkit("audit", "organism:chat", *SMALL, "--quiet", "--export", "--out", out).code == 0
    assert len(counted) == asked


def test_where_nothing_is_found_there_is_nothing_to_export(copy: Path, llama: Path, files: tuple[str, ...]) -> None:
    assert refusalkit("audit", llama, *files, *QUICK, "--export", "--out", copy).code == 0
    assert json.loads((copy / "audit.json").read_text())["sections"]["exports"] is None
    assert "there is no direction to export" in (copy / "report.html").read_text()
    assert not (copy / "exports").exists()
