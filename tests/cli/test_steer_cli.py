"""`refusalkit steer`: a chat with two histories, answers side by side with their controls, and clear refusals."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

import interp
from interp.errors import FormatError, PromptError, RefusalkitError
from interp.text.prompts import PromptSet
from probes import LatentGuard
from probes.figures.style import NEUTRAL
from refusalkit.steer.acting import Acting
from refusalkit.steer.batch import Compared, compare
from refusalkit.steer.chat import Chat, Turn, command
from refusalkit.steer.screen import tame
from refusalkit.steer.words import cautions
from refusalkit.steer.written import figure, write
from steering import SteeringVector, contrast_vector, steer_when
from steering.conditions import if_guard
from tests.helpers.command import refusalkit, refused, save_model, strict_json, tree

PREFIX = "organism:"


@cache
def model(variant: str = "chat") -> interp.Model:
    return interp.load(PREFIX + variant)


@cache
def asked(n: int = 4) -> PromptSet:
    prompts = interp.prompts("organism").test
    return prompts.harmful.sample(n, 0) + prompts.harmless.sample(n, 0)


@cache
def vector() -> SteeringVector:
    train = interp.prompts("organism").train
    pairs = list(zip(train.harmful[:16], train.harmless[:16], strict=True))
    return contrast_vector(model(), pairs, layers=[4])


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return vector().save(tmp_path_factory.mktemp("vector") / "refusal.safetensors")


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It flags about half of its prompts, right or wrong."""
    prompts = interp.prompts("organism").train
    some = prompts.harmful.sample(24, 0) + prompts.harmless.sample(24, 0)
    fitted = LatentGuard.fit(model("attacked"), some, rule="logistic", layers=(2, 3))
    return fitted.save(tmp_path_factory.mktemp("guard") / "guard.safetensors")


def acting(**how: object) -> Acting:
    return Acting(vector(), "refusal", **how)  # pyright: ignore[reportArgumentType]


# --- the chat ------------------------------------------------------------------------------------------------------


def test_both_sides_answer_as_they_would_alone_and_keep_their_own_history() -> None:
    chat, first = Chat(model(), acting(), max_new_tokens=12), asked().harmless[0].text
    turn = chat.say(first)
    assert turn.plain.answer == model().generate(first, max_new_tokens=12)[0].answer
    assert turn.steered.answer == model().generate(first, max_new_tokens=12, edits=vector())[0].answer
    assert turn.plain.answer != turn.steered.answer
    second = chat.say("Why?")
    for said, now, edits in ((turn.plain, second.plain, ()), (turn.steered, second.steered, vector())):
        messages = [{"role": "user", "content": first}, {"role": "assistant", "content": said.answer},
                    {"role": "user", "content": "Why?"}]  # fmt: skip
        assert now.answer == model().generate([messages], max_new_tokens=12, edits=edits)[0].answer


def test_at_strength_zero_both_sides_say_the_same_turn_after_turn() -> None:
    chat = Chat(model(), acting(), 0.0, max_new_tokens=12)
    for prompt in asked()[:3]:
        turn = chat.say(prompt.text)
        assert turn.plain == turn.steered


def test_an_interrupted_answer_is_shown_and_saved_but_not_remembered(tmp_path: Path) -> None:
    chat, text = Chat(model(), acting(), max_new_tokens=12), asked().harmless[0].text
    whole = chat.say(text)
    chat.reset()
    seen: list[str] = []

    def stop(side: int, answer: str) -> None:
        seen.append(answer)
        if len(seen) == 7:
            raise KeyboardInterrupt

    turn = chat.say(text, stop)
    assert turn.stopped and not turn.plain.finished and whole.plain.answer.startswith(turn.plain.answer)
    assert 0 < len(turn.plain.answer) < len(whole.plain.answer)
    again = chat.say(text)
    assert (again.plain, again.steered) == (whole.plain, whole.steered)  # as at the beginning
    chat.save(tmp_path / "chat.json")
    kept = strict_json((tmp_path / "chat.json").read_text())
    assert [turn["stopped"] for turn in kept["turns"]] == [False, True, False]
    assert kept["acting"]["vector"]["layers"] == [4] and kept["provenance"]["model"]


def test_a_guard_decides_turn_by_turn(guard: Path) -> None:
    judge = LatentGuard.load(guard)
    own = Acting(vector(), "refusal", guard=judge)
    chat = Chat(model("attacked"), own, max_new_tokens=8)
    turns: dict[bool, Turn] = {}
    for prompt in asked():
        chat.reset()
        turn = chat.say(prompt.text)
        assert turn.acted == bool(judge.with_model(model("attacked")).score([prompt]).flagged[0])
        turns[turn.acted] = turn
    assert turns[False].plain == turns[False].steered
    assert turns[True].plain != turns[True].steered and turns[True].score is not None


def test_commands_do_what_they_say_and_a_wrong_one_changes_nothing(file: Path, tmp_path: Path) -> None:
    chat = Chat(model(), acting(), max_new_tokens=4)

    def reload(path: Path) -> Acting:
        return Acting.load(path)

    assert command(chat, "/strength -1.5", reload) == ["strength -1.5"] and chat.strength == -1.5
    assert "refusal.safetensors" in (command(chat, f"/vector {file}", reload) or [""])[0]
    assert command(chat, "/quit", reload) is None and "/save FILE" in (command(chat, "/help", reload) or [""])[0]
    wide = SteeringVector({4: vector().vectors[4][:16]}).save(tmp_path / "w")
    (tmp_path / "there.json").write_text("mine")
    for line, error, words in (
        ("/strength much", RefusalkitError, "'much' is no strength"), ("/strength inf", RefusalkitError, "no strength"),
        (f"/vector {tmp_path / 'none'}", FormatError, "no vector file"), ("/save", RefusalkitError, "say where to"),
        (f"/vector {wide}", RefusalkitError, "does not fit organism:chat"),
        ("/sing", RefusalkitError, "there is no /sing"),
        (f"/save {tmp_path / 'there.json'}", FormatError, "there already"),
        (f"/save {tmp_path / 'no' / 'x'}", FormatError, "cannot write"),
    ):  # fmt: skip
        with pytest.raises(error, match=words):
            command(chat, line, reload)
    assert (tmp_path / "there.json").read_text() == "mine" and chat.strength == -1.5
    with pytest.raises(PromptError, match="empty"):
        chat.say("  ")
    with pytest.raises(PromptError, match="longer than the model's context"):
        chat.say("bread " * 10_000)
    assert not chat.turns
    ablating = Chat(model(), Acting.load(file, ablate=True))
    with pytest.raises(RefusalkitError, match="an ablation has no strength"):
        command(ablating, "/strength 2", reload)


def test_a_chat_over_a_pipe_ends_with_its_input(file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = asked().harmless[0].text
    lines = f"{text}\n\n/nope\n/strength 0\n/reset\n{text}\n/save {tmp_path / 'c.json'}"
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    done = refusalkit("steer", "organism:chat", "--vector", file, "--max-new-tokens", "12")
    assert done.code == 0 and not done.err, done.err
    assert f"> {text}" in done.out and "there is no /nope" in done.out and "2 turns written" in done.out
    assert done.out.count("the same text") == 1  # at strength 0
    assert len(strict_json((tmp_path / "c.json").read_text())["turns"]) == 2


def test_a_wide_terminal_has_two_columns_and_nothing_in_an_answer_is_an_order() -> None:
    from refusalkit.steer.screen import _sides  # pyright: ignore[reportPrivateUsage]

    assert "\x1b" not in tame("\x1b[2Jred\ttext\n").plain
    chat = Chat(model(), acting())
    for width, lines in ((120, 1), (60, 0)):
        console = Console(width=width, file=io.StringIO())
        console.print(_sides(console, chat, (tame("yes [bold]"), tame("no")), None))
        drawn = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
        assert sum("yes [bold]" in line and "no" in line for line in drawn.split("\n")) == lines


# --- over prompts --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def done(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("steered")
    asked().save(folder / "asked.jsonl")
    ran = refusalkit(
        "steer", "organism:chat", "--vector", file, "--prompts", folder / "asked.jsonl", "--strength", "0,1",
        "--out", folder / "out", "--max-new-tokens", "12", "--quiet",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert "Of 4 harmless prompts, the plain model refuses 0.00 [0.00, 0.49]; with refusal.safetensors," in ran.out
    assert "random 1, strength 1" in ran.out and "cut off" in ran.out
    assert "of 8: 0 at strength 0, 8 at strength 1" in ran.out
    return folder / "out"


def test_answers_stand_side_by_side_and_are_those_of_generate(done: Path) -> None:
    rows = [json.loads(line) for line in (done / "steered.jsonl").read_text().splitlines()]
    own = model().generate(asked(), max_new_tokens=12, edits=vector()).answers
    plain = model().generate(asked(), max_new_tokens=12).answers
    random = model().generate(asked(), max_new_tokens=12, edits=vector().random_like(0)).answers
    for row, prompt, *answers in zip(rows, asked(), plain, plain, own, random, strict=True):
        assert row["prompt"] == prompt.text and row["label"] == prompt.label
        assert [(a["arm"], a["strength"]) for a in row["answers"]] == [
            ("plain", 0.0), ("vector", 0.0), ("vector", 1.0), ("random 1", 1.0)
        ]  # fmt: skip
        assert [a["answer"] for a in row["answers"]] == answers


def test_rates_have_intervals_and_the_page_opens_offline(done: Path) -> None:
    table = pd.read_csv(done / "rates.csv")
    row = table[(table["arm"] == "vector") & (table["strength"] == 1) & (table["prompts"] == "harmless")].iloc[0]
    assert row["refused"] == 1.0 and 0 < row["low"] < 1 and row["n"] == 4 and row["changed"] == 4
    about = strict_json((done / "steered.json").read_text())
    assert about["acting"]["vector"]["digest"] and about["flagged"] is None
    page = (done / "steered.html").read_text()
    assert page.count('class="figure"') == 1 and "<script src=" not in page and "Side by side" in page


def test_the_same_command_generates_nothing_twice(done: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tree(done)

    def nothing(*_: object, **__: object) -> None:
        raise AssertionError("it was generated again")

    monkeypatch.setattr(interp.Model, "generate", nothing)
    ask = ("steer", "organism:chat", "--vector", file, "--prompts", done.parent / "asked.jsonl", "--out", done)
    assert refusalkit(*ask, "--strength", "0,1", "--max-new-tokens", "12", "--quiet").code == 0
    assert tree(done) == before
    monkeypatch.undo()
    assert "holds answers of another model, template or settings" in refused(*ask, "--max-new-tokens", "9", "--quiet")
    assert "holds answers of other prompts" in refused(*ask, "--max-new-tokens", "12", "--limit", "2", "--quiet")
    assert tree(done) == before


def test_strengths_that_a_folder_holds_whole_are_shown_with_others(tmp_path: Path) -> None:
    def ask(out: Path, strength: float, n_random: int = 1, own: Acting | None = None) -> Compared:
        return compare(model(), own or acting(), asked(2), [strength], out, max_new_tokens=6, n_random=n_random)

    ask(tmp_path, 1.0)
    both = ask(tmp_path, 0.5, n_random=0)
    assert [(a.kind, a.strength) for a in both.arms] == [
        ("plain", 0.0), ("vector", 0.5), ("vector", 1.0), ("random 1", 1.0)
    ]  # fmt: skip
    apart = ask(tmp_path / "apart", 1.0)
    assert [c.ids for c in both.of(1.0)[0].told.completions] == [c.ids for c in apart.of(1.0)[0].told.completions]
    file = tmp_path / "answers" / "vector-1.0.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))  # cut short: not shown, not generated
    assert ask(tmp_path, 0.5).strengths == [0.5]
    with pytest.raises(PromptError, match="holds answers of another model, template or settings"):
        ask(tmp_path / "apart", 0.25, own=Acting(vector() * 2, "other"))


def test_answers_that_repeat_themselves_are_counted_and_warned_of(tmp_path: Path) -> None:
    found = compare(model(), acting(), asked(), [0.25, 2.0], tmp_path, max_new_tokens=24, n_random=0)
    said = write(found, model(), tmp_path)
    (caution,) = cautions(found)
    assert caution in said and "strength 2" in caution and "0.25" not in caution and "8 of" not in caution
    rows: list[dict[str, Any]] = pd.read_csv(tmp_path / "rates.csv").to_dict("records")  # pyright: ignore[reportAssignmentType]
    assert {row["strength"] for row in rows} == {0.0, 0.25, 2.0}
    for row in rows:
        told = (found.plain if row["strength"] == 0 else found.of(row["strength"])[0]).told
        own = [i for i, p in enumerate(asked()) if p.label == row["prompts"]]
        assert row["partial"] == sum(told.verdicts[i].label == "partial" for i in own)
        assert row["cut_off"] == sum(not told.completions[i].finished for i in own)
        assert row["repeated"] > 0.5 if row["strength"] == 2 else row["repeated"] < 0.1


def test_a_guard_steers_what_it_flags_with_permuted_decisions_beside(guard: Path, tmp_path: Path) -> None:
    own = Acting(vector() * 0.5, "refusal", guard=LatentGuard.load(guard))
    found = compare(model("attacked"), own, asked(), [1.0], tmp_path, max_new_tokens=12)
    apart = steer_when(
        model("attacked"), asked(), vector() * 0.5, if_guard(LatentGuard.load(guard), model("attacked")),
        max_new_tokens=12,
    )  # fmt: skip
    assert found.decisions is not None and apart.decisions is not None
    assert found.decisions.acts.tolist() == apart.decisions.acts.tolist()
    (steered,), (permuted,) = found.of(1.0), found.of(1.0, "decisions permuted")
    assert [c.answer for c in steered.told.completions] == apart.generations.answers
    drawn = found.decisions.permuted(0).acts
    everywhere = model("attacked").generate(asked(), max_new_tokens=12, edits=vector() * 0.5).answers
    plain = [c.answer for c in found.plain.told.completions]
    assert [c.answer for c in permuted.told.completions] == [
        everywhere[i] if acts else plain[i] for i, acts in enumerate(drawn)
    ]
    said = write(found, model("attacked"), tmp_path)
    assert any(f"The guard flags {int(drawn.sum())} of 8 prompts (" in line for line in said)
    assert not any("another model" in line for line in said)
    page = (tmp_path / "steered.html").read_text()
    assert page.count("flagged (") == drawn.sum() and page.count("let be (") == 8 - drawn.sum()
    assert "What this does not show" in page and "<summary>Provenance: model, vector, prompts" in page
    grey = [
        c
        for t in figure(found).data
        if t.type == "bar"
        for c, (name, *_) in zip(t.marker.color, t.customdata, strict=True)
        if name.startswith("decisions permuted")
    ]
    assert grey and set(grey) == {NEUTRAL}


def test_a_guard_of_another_model_is_said_to_be_one(guard: Path, tmp_path: Path) -> None:
    own = Acting(vector(), "refusal", guard=LatentGuard.load(guard), any_model=True)
    found = compare(model(), own, asked(), [0.5], tmp_path, max_new_tokens=8, n_random=0)
    said = [line for line in write(found, model(), tmp_path) if "another model" in line]
    assert len(said) == 1 and "organism:attacked" in said[0]
    assert said[0].replace("&", "&amp;") in (tmp_path / "steered.html").read_text()


def test_an_ablation_is_that_of_the_edit_and_prompts_need_no_labels(file: Path, tmp_path: Path) -> None:
    texts = PromptSet(tuple(interp.Prompt(p.text) for p in asked()[:3]))
    own = Acting.load(file, ablate=True)
    found = compare(model(), own, texts, [1.0], tmp_path, max_new_tokens=8)
    assert own.ablated is not None
    answers = model().generate(texts, max_new_tokens=8, edits=interp.edits.ablate(own.ablated)).answers
    assert [c.answer for c in found.of(1.0)[0].told.completions] == answers
    assert write(found, model(), tmp_path)[0].startswith("Of 3 prompts, the plain model refuses")
    assert {f.name for f in (tmp_path / "answers").iterdir()} == {
        "plain.jsonl", "vector-ablated.jsonl", "random-1-ablated.jsonl"
    }  # fmt: skip


# --- what cannot be ------------------------------------------------------------------------------------------------


def test_what_cannot_be_is_one_message(file: Path, guard: Path, tmp_path: Path) -> None:
    ask, out = ("steer", "organism:chat", "--vector", file), ("--out", tmp_path / "out")
    batch = (*ask, "--prompts", "headlines", "--quiet", *out)
    (tmp_path / "empty.txt").write_text("\n")
    bare = save_model(tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    assert "no strength" in refused(*ask, "--strength", "much")
    assert "twice" in refused(*batch, "--strength", "1,1.0")
    assert "and 2 were given" in refused(*ask, "--strength", "1,2")
    assert "an ablation has no strength" in refused(*ask, "--ablate", "--strength", "2")
    assert "give --ablate" in refused(*ask, "--layer", "2")
    assert "has no layer 2" in refused(*batch, "--ablate", "--layer", "2")
    assert "--out DIR" in refused(*ask, "--prompts", "headlines") and "give --prompts" in refused(*ask, *out)
    assert "it is one of train" in refused(*batch, "--split", "half")
    assert "is empty" in refused(*ask, "--prompts", tmp_path / "empty.txt", *out)
    assert "--allow-other-model" in refused(*batch, "--guard", guard)
    assert "no chat template" in refused("steer", bare, *batch[2:])
    assert not (tmp_path / "out").exists()


def test_a_vector_or_a_prompt_that_does_not_fit_is_said_before_anything_is_generated(tmp_path: Path) -> None:
    for vectors in ({4: vector().vectors[4][:16]}, {40: vector().vectors[4]}):
        with pytest.raises(RefusalkitError, match="refusal does not fit organism:chat"):
            compare(model(), Acting(SteeringVector(vectors), "refusal"), asked(), [1.0], tmp_path / "out")
    long = PromptSet((*asked(), interp.Prompt("bread " * 10_000)))
    with pytest.raises(PromptError, match="longer than the model's context"):
        compare(model(), acting(), long, [1.0], tmp_path / "out")
    with pytest.raises(PromptError, match="and --max-new-tokens 5000 do not fit"):
        compare(model(), acting(), asked(), [1.0], tmp_path / "out", max_new_tokens=5000)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "wrong",
    [("MODEL", "./no"), ("--vector", "no.safetensors"), ("--guard", "no.safetensors"), ("--prompts", "nowhere.txt"),
     ("--chat-template", "no.jinja")],
    ids=lambda wrong: wrong[0],
)  # fmt: skip
def test_what_is_wrong_is_said_before_torch_is_loaded(wrong: tuple[str, str], file: Path, tmp_path: Path) -> None:
    given = {"MODEL": "organism:chat", "--vector": str(file), "--prompts": "organism", "--out": str(tmp_path / "x")}
    given |= dict([wrong])
    arguments = ["steer", given.pop("MODEL"), *(part for pair in given.items() for part in pair)]
    code = (
        "import sys; from refusalkit.cli import main\n"
        "try: main()\nexcept SystemExit as stop: assert stop.code == 1\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, timeout=60, capture_output=True)
    assert not (tmp_path / "x").exists()
