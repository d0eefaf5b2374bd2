"""Prompts are loaded from anywhere, checked, kept in groups, and split without leaks."""

import json
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from interp.errors import PromptError
from interp.text.prompts import MAX_CHARACTERS, Prompt, PromptSet
from interp.text.sources import load_pair, prompts


@pytest.fixture
def write(tmp_path: Path):
    def _write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return _write


def paired(n: int) -> PromptSet:
    made = [Prompt(f"{label} {i}", label, group=f"g{i}") for i in range(n) for label in ("harmful", "harmless")]
    return PromptSet(tuple(made), "paired")


# --- one prompt ---


def test_an_id_is_stable_and_depends_on_text_system_prompt_and_label():
    assert Prompt("How do I bake?").id == Prompt("How do I bake?", category="food").id == "544be12b59fd"
    ids = {Prompt("a").id, Prompt("b").id, Prompt("a", "harmful").id, Prompt("a", system="s").id}
    assert len(ids) == 4


def test_texts_that_differ_in_case_and_spacing_only_share_a_group():
    assert Prompt("How do I  bake? ").group == Prompt("how do i bake?").group != Prompt("How do I fry?").group
    assert Prompt("a", group="mine").group == "mine"


@pytest.mark.parametrize("text", ["", "  \n\t", "\u200b\ufeff"])
def test_a_prompt_without_a_visible_character_is_refused(text: str):
    with pytest.raises(PromptError, match="empty"):
        Prompt(text)


def test_an_overlong_prompt_is_refused():
    assert Prompt("a" * MAX_CHARACTERS)
    with pytest.raises(PromptError, match="1,000,001 characters"):
        Prompt("a" * (MAX_CHARACTERS + 1))


def test_a_prompt_that_no_file_could_hold_is_refused():
    with pytest.raises(PromptError, match="surrogate"):
        Prompt("a\ud800")
    with pytest.raises(PromptError, match="the category holds"):
        Prompt("a", category="\ud800")


def test_an_unknown_split_is_refused():
    with pytest.raises(PromptError, match="train, val, test"):
        Prompt("a", split="dev")


# --- sets ---


def test_a_set_is_a_sequence_whose_slices_are_sets():
    found = PromptSet.from_texts(harmful=["a", "b"], harmless=["c"], name="few")
    assert len(found) == 3 and found[0].text == "a" and [p.text for p in found] == ["a", "b", "c"]
    assert isinstance(found[1:], PromptSet) and found[1:].texts == ["b", "c"] and found[1:].name == "few"
    assert found.labels == ["harmful", "harmful", "harmless"]
    assert found.harmful.texts == ["a", "b"] and found.harmless.texts == ["c"]
    assert found.filter(label="harmful", text=("b", "c")).texts == ["b"]
    assert repr(found) == "PromptSet('few', 3 prompts: 2 harmful, 1 harmless)"
    with pytest.raises(PromptError, match="no field 'topic'"):
        found.filter(topic="x")


def test_the_digest_follows_the_contents_and_their_order_but_not_the_name():
    one = PromptSet.from_texts(harmful=["a", "b"], name="one")
    assert one.digest == PromptSet.from_texts(harmful=["a", "b"], name="two").digest
    assert one.digest != PromptSet.from_texts(harmful=["b", "a"]).digest
    assert one.digest != PromptSet.from_texts(harmless=["a", "b"]).digest
    assert len(one.digest) == 64


def test_a_sample_is_drawn_by_its_seed_and_left_in_order():
    found = paired(20)
    drawn = found.sample(10, seed=1)
    assert drawn == found.sample(10, seed=1) != found.sample(10, seed=2)
    assert len(set(drawn.texts)) == 10
    places = [found.texts.index(t) for t in drawn.texts]
    assert places == sorted(places)
    with pytest.raises(PromptError, match="cannot draw 41 of the 40"):
        found.sample(41, seed=0)


def test_a_split_keeps_groups_whole_and_shares_out_each_label():
    parts = paired(50).split(0.5, 0.2, 0.3, seed=3)
    assert [len(p) for p in (parts.train, parts.val, parts.test)] == [50, 20, 30]
    groups = [set(p.groups) for p in (parts.train, parts.val, parts.test)]
    assert not groups[0] & groups[1] and not groups[1] & groups[2] and not groups[0] & groups[2]
    assert all(len(p.harmful) == len(p.harmless) for p in (parts.train, parts.val, parts.test))


def test_a_split_is_the_same_for_the_same_seed_whatever_the_order():
    found = paired(30)
    backwards = PromptSet(found.prompts[::-1])
    by_text = {p.text: p.split for p in found.split(seed=7)}
    assert by_text == {p.text: p.split for p in backwards.split(seed=7)}
    assert by_text != {p.text: p.split for p in found.split(seed=8)}


def test_a_split_is_proportional_with_groups_of_any_size_and_labels_in_any_ratio():
    made = [Prompt(f"harmful {i}", "harmful", group=f"h{i // 3}") for i in range(90)]
    made += [Prompt(f"harmless {i}", "harmless", group=f"s{i // 7}") for i in range(700)]
    parts = PromptSet(tuple(made)).split(0.5, 0.2, 0.3)
    for label, n, largest in (("harmful", 90, 3), ("harmless", 700, 7)):
        for part, share in ((parts.train, 0.5), (parts.val, 0.2), (parts.test, 0.3)):
            assert abs(part.labels.count(label) - share * n) <= largest


def test_a_split_that_would_leave_a_class_out_is_refused():
    with pytest.raises(PromptError, match="no harmful prompt is left for val"):
        paired(2).split()
    assert len(paired(2).split(0.5, 0, 0.5).val) == 0
    with pytest.raises(PromptError, match="sum to 1"):
        paired(9).split(0.5, 0.5, 0.5)
    with pytest.raises(PromptError, match=">= 0"):
        paired(9).split(1.5, -0.5, 0)


def test_asking_for_a_split_or_class_that_was_never_made_is_an_error_not_an_empty_set():
    with pytest.raises(PromptError, match=r"not split yet: call \.split"):
        _ = paired(4).train
    with pytest.raises(PromptError, match="no labels harmful and harmless"):
        _ = PromptSet((Prompt("a"),)).harmful
    assert len(paired(4).filter(label="harmful").harmless) == 0


def test_a_class_with_too_few_prompts_is_named():
    found = PromptSet.from_texts(harmful=["a", "b"], harmless=["c"])
    assert found.require(1) is found
    with pytest.raises(PromptError, match="1 harmless prompts, and at least 2 are needed: add 1 more"):
        found.require(2)


def test_sets_add_up_unless_a_prompt_is_in_both():
    one, two = PromptSet.from_texts(harmful=["a"], name="one"), PromptSet.from_texts(harmless=["b"], name="two")
    assert (one + two).texts == ["a", "b"] and (one + two).name == "one+two"
    with pytest.raises(PromptError, match=r"one\[0\].*already given at one\[0\]"):
        one + one


def test_texts_given_twice_or_as_one_string_are_refused():
    with pytest.raises(PromptError, match=r"harmful\[1\].*already given at harmful\[0\]"):
        PromptSet.from_texts(harmful=["a", "a"])
    with pytest.raises(PromptError, match=r"harmless\[0\].*is harmless, but it is harmful at harmful\[0\]"):
        PromptSet.from_texts(harmful=["a"], harmless=["a"])
    with pytest.raises(PromptError, match=r"harmful\[1\].*empty"):
        PromptSet.from_texts(harmful=["a", " "])
    with pytest.raises(PromptError, match="list of strings"):
        PromptSet.from_texts(harmful="abc")


def test_a_set_becomes_a_frame_even_when_empty():
    frame = paired(2).to_frame()
    assert list(frame.columns) == ["id", "text", "label", "group", "category", "family", "split", "system"]
    assert len(frame) == 4 and len(PromptSet(()).to_frame().columns) == 8


def test_a_saved_set_comes_back_with_the_same_digest(tmp_path: Path):
    tricky = Prompt("a\nb\u2028c \u201cd\u201d", "harmful", "g", "cat", "role", "val", "Be brief.")
    plain = Prompt("\N{GRINNING FACE}", "harmless", split="train")
    found = PromptSet((tricky, plain), "saved")
    path = found.save(tmp_path / "saved.jsonl")
    assert prompts(path) == found and prompts(path).digest == found.digest
    assert [p.name for p in tmp_path.iterdir()] == ["saved.jsonl"]


def test_a_set_that_cannot_be_written_is_an_error_that_leaves_nothing(tmp_path: Path):
    with pytest.raises(PromptError, match="choose a folder"):
        paired(2).save(tmp_path / "missing" / "a.jsonl")
    (tmp_path / "folder").mkdir()
    with pytest.raises(PromptError, match="choose a folder"):
        paired(2).save(tmp_path / "folder")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


# --- files ---


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "One?\n\n  Two, three? \n"),
        ("a.txt", b"\xef\xbb\xbfOne?\r\nTwo, three?\r\n"),
        ("a.TXT", "One?\rTwo, three?"),
        ("a.csv", 'id,Prompt\n1,One?\n\n2,"Two, three?"\n'),
        ("a.csv", b'\xef\xbb\xbfprompt\r\nOne?\r\n"Two, three?"\r\n'),
        ("a.tsv", "id\tgoal\n1\tOne?\n2\tTwo, three?\n"),
        ("a.jsonl", '{"prompt": "One?"}\n\n{"instruction": "Two, three?", "id": 7}\n'),
        ("a.json", '[{"text": "One?"}, "Two, three?"]'),
    ],
)
def test_prompts_are_read_from_every_kind_of_file(write, name: str, content: str | bytes):
    found = prompts(write(name, content))
    assert found.texts == ["One?", "Two, three?"]
    assert found.name == "a" and found.labels == [None, None]


def test_the_fields_of_a_record_are_kept_and_prompt_comes_before_the_other_names(write):
    row = {"goal": "no", "prompt": "One?", "label": "harmful", "group": "g", "category": "c", "split": "val"}
    found = prompts(write("a.jsonl", json.dumps(row | {"family": "role", "system": "Be brief.", "extra": 1})))
    assert found[0] == Prompt("One?", "harmful", "g", "c", "role", "val", "Be brief.")


def test_line_breaks_inside_a_prompt_survive(write):
    assert prompts(write("a.jsonl", '{"prompt": "One\\nand\\u2028two"}\n')).texts == ["One\nand\u2028two"]
    assert prompts(write("a.csv", 'prompt\n"One\nand two"\n')).texts == ["One\nand two"]


def test_a_label_can_be_given_with_the_source(write):
    path = write("a.csv", "prompt,label\nOne?,unsafe\n")
    assert prompts(path).labels == ["unsafe"]
    assert prompts(path, label="harmful", name="mine").labels == ["harmful"]
    assert prompts(prompts(path), label="harmful").name == "a"


BAD_FILES = [
    ("a.txt", "", "a.txt is empty"),
    ("a.txt", " \n\n", "a.txt is empty"),
    ("a.jsonl", "\n", "a.jsonl is empty"),
    ("a.json", "", "a.json is empty"),
    ("a.json", "[]", "a.json is empty"),
    ("a.csv", "prompt\n", "a.csv is empty"),
    ("a.csv", "", "a.csv is empty"),
    ("a.txt", b"One?\nT\xe9?\n", r"a.txt, line 2: byte 0xe9 is not UTF-8: save"),
    ("a.txt", b"One?\n\x00\x01", "a.txt, line 2: the file is binary"),
    ("a.txt", "One?".encode("utf-16"), "UTF-16: save it as UTF-8"),
    ("a.jsonl", '{"prompt": "One?"}\n{"prompt": \n', r"a.jsonl, line 2: column 12: this is not JSON .*: correct"),
    ("a.jsonl", "One?\n", "a.jsonl, line 1: .*not JSON.*give a .txt file"),
    ("a.jsonl", "[1]", "a.jsonl, line 1: expected an object"),
    ("a.jsonl", "[" * 100_000, "a.jsonl, line 1: this JSON cannot be read"),
    ("a.jsonl", '{"prompt": ' + "1" * 5000 + "}", "a.jsonl, line 1: this JSON cannot be read"),
    ("a.json", '[{"prompt": "One?"},\n{"prompt" 1}]', "a.json: line 2, column 11: this is not JSON"),
    ("a.json", '{"prompt": "One?"}', "a.json: the file holds no list"),
    (
        "a.jsonl",
        '{"prompt": "One?"}\n{"question": "Two?"}',
        "a.jsonl, line 2: no field prompt or .*only question: name",
    ),
    ("a.jsonl", "{}", "a.jsonl, line 1: no field prompt or .*only nothing"),
    ("a.csv", "id,question\n1,One?\n", "a.csv, line 2: no field prompt or .*only id, question"),
    ("a.csv", "prompt,id\nOne?,1\nTwo, three?,2\n", "a.csv, line 3: the row has 3 cells and the header has 2: quote"),
    ("a.csv", 'prompt\n"One\n\n"\nTwo?,3\n', "a.csv, line 5: the row has 2 cells"),
    ("a.csv", 'prompt\nOne?\n"Two', "a.csv, line 3: this is not CSV"),
    ("a.csv", "prompt,id\nOne?,1\n ,2\n", "a.csv, line 3: the prompt is empty"),
    ("a.csv", "prompt,id\nOne?,1\n,2\n", "a.csv, line 3: the prompt is empty"),
    ("a.jsonl", '{"prompt": "One?"}\n{"prompt": ""}', "a.jsonl, line 2: the prompt is empty"),
    ("a.jsonl", '{"prompt": null}', "a.jsonl, line 1: the prompt is empty"),
    ("a.jsonl", '{"prompt": 3}', "a.jsonl, line 1: the prompt is 3: it must be a string"),
    ("a.jsonl", '{"prompt": "One?", "label": 1}', "a.jsonl, line 1: the label is 1: it must be a string"),
    ("a.jsonl", '{"prompt": "One?", "split": "dev"}', "a.jsonl, line 1: the split is 'dev'"),
    ("a.jsonl", '{"prompt": "a\\ud800"}', "a.jsonl, line 1: .*surrogate"),
    ("a.txt", "One?\n" + "a" * (MAX_CHARACTERS + 1), "a.txt, line 2: the text has 1,000,001 characters"),
    ("a.txt", "One?\nTwo?\n One? ", "a.txt, line 3: the prompt 'One.' was already given at .*a.txt, line 1: remove"),
    (
        "a.csv",
        "prompt,label\nOne?,harmful\nOne?,harmless\n",
        "a.csv, line 3: .*is harmless, but it is harmful at .*line 2",
    ),
    ("a.csv", "prompt,split\nOne?,train\nTwo?,\n", "a.csv, line 3: the prompt has no split, but others have"),
    ("a.pdf", "One?", "a.pdf: prompts are read from .txt, .csv"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD_FILES, ids=[m for *_, m in BAD_FILES])
def test_a_bad_file_is_an_error_that_names_the_file_the_line_and_the_remedy(write, name, content, message):
    with pytest.raises(PromptError, match=message):
        prompts(write(name, content))


def test_one_text_under_two_system_prompts_is_no_repeat(write):
    rows = '{"prompt": "One?"}\n{"prompt": "One?", "system": "Be brief."}\n'
    assert len(prompts(write("a.jsonl", rows))) == 2


def test_what_is_no_file_is_an_error(tmp_path: Path):
    with pytest.raises(PromptError, match="no such file"):
        prompts(tmp_path / "missing.txt")
    with pytest.raises(PromptError, match="is a folder: name one file"):
        prompts(tmp_path)
    with pytest.raises(PromptError, match=r"'nonsense' is no file and no source.*'headlines', 'organism'"):
        prompts("nonsense")
    with pytest.raises(PromptError, match=r"from_texts"):
        prompts(["One?"])  # pyright: ignore[reportArgumentType]


def test_an_unreadable_file_is_an_error(write, monkeypatch: pytest.MonkeyPatch):
    def denied(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    path = write("a.txt", "One?")
    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(PromptError, match=r"a.txt: cannot be read \(Permission denied\): check its permissions"):
        prompts(path)


# --- pairs ---


def test_two_sources_make_one_labelled_set(write):
    found = load_pair(write("bad.txt", "One?\nTwo?"), write("good.jsonl", '{"prompt": "Three?"}'))
    assert found.harmful.texts == ["One?", "Two?"] and found.harmless.texts == ["Three?"]
    assert found.name == "bad / good"


def test_a_prompt_in_both_sources_is_an_error_that_names_both_lines(write):
    with pytest.raises(PromptError, match=r"good.txt, line 1: .*is harmless, but it is harmful at .*bad.txt, line 2"):
        load_pair(write("bad.txt", "One?\nTwo?"), write("good.txt", "Two?"))


def test_swapped_sources_are_noticed(write):
    path = write("a.csv", "prompt,label\nOne?,harmless\n")
    with pytest.raises(PromptError, match=r"a.csv, line 2: .*labelled harmless but was given as harmful.*swapped"):
        load_pair(path, write("b.txt", "Two?"))


# --- the Hub ---


def fake_hub(monkeypatch: pytest.MonkeyPatch, load):
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load))


def test_a_dataset_of_the_hub_is_read_from_its_train_split(monkeypatch: pytest.MonkeyPatch, caplog):
    rows = [{"Goal": "One?", "label": 1, "split": "x"}, {"Goal": "Two?", "label": 0}, {"Goal": "One?", "label": 1}]
    fake_hub(monkeypatch, lambda name: {"test": [], "train": rows} if name == "owner/set" else None)
    found = prompts("owner/set", label="harmful")
    assert found.texts == ["One?", "Two?"] and found.name == "owner/set" and set(found.labels) == {"harmful"}
    assert "1 repeated prompts of 3 were left out" in caplog.text


def test_a_column_of_a_dataset_can_be_named(monkeypatch: pytest.MonkeyPatch):
    fake_hub(monkeypatch, lambda name: {"only": [{"prompt": "no", "Query": "One?"}]})
    assert prompts("owner/set:Query").texts == ["One?"]
    with pytest.raises(PromptError, match="owner/set, row 0: no field answer, only prompt, query"):
        prompts("owner/set:answer")


def test_a_dataset_out_of_reach_is_one_clear_error(monkeypatch: pytest.MonkeyPatch):
    def offline(name: str):
        raise ConnectionError("Couldn't reach 'owner/set' on the Hub\n(offline)")

    fake_hub(monkeypatch, offline)
    with pytest.raises(
        PromptError, match=r"'owner/set' is no file here.*Couldn't reach.*check the name and the network"
    ):
        prompts("owner/set")
    fake_hub(monkeypatch, lambda name: {"train": []})
    with pytest.raises(PromptError, match="'owner/set' is empty"):
        prompts("owner/set")


# --- the organism ---


def test_the_organism_gives_balanced_prompts_in_disjoint_groups():
    found = prompts("organism")
    sizes = {s: (len(p.harmful), len(p.harmless)) for s, p in _parts(found).items()}
    assert sizes == {"train": (256, 256), "val": (64, 64), "test": (200, 200)}
    assert found.digest == prompts("organism").digest
    _assert_disjoint(found)


def test_the_organism_gives_wrapped_prompts_that_join_the_plain_ones_without_leaks():
    wrapped = prompts("organism:role,suffix")
    assert Counter(p.family for p in wrapped) == {"role": 1040, "suffix": 1040}
    _assert_disjoint(prompts("organism") + wrapped)
    with pytest.raises(PromptError, match="no wrapper 'rolle'"):
        prompts("organism:rolle")
    with pytest.raises(PromptError, match="its own labels"):
        prompts("organism", label="harmful")


# --- the shipped set ---


def test_the_shipped_set_is_large_split_and_matched():
    found = prompts("headlines").require(200)
    sizes = {s: (len(p.harmful), len(p.harmless)) for s, p in _parts(found).items()}
    assert sizes == {"train": (120, 120), "val": (36, 36), "test": (84, 84)}
    _assert_disjoint(found)
    pairs: defaultdict[str, list[Prompt]] = defaultdict(list)
    for p in found:
        pairs[p.group].append(p)
    assert all([p.label for p in pair] == ["harmful", "harmless"] for pair in pairs.values())
    assert all(a.category == b.category for a, b in pairs.values())
    assert all(a.text.split()[0] == b.text.split()[0] for a, b in pairs.values())
    assert len({" ".join(t.casefold().split()) for t in found.texts}) == 480


def test_the_shipped_set_covers_many_topics_in_every_split_and_opens_in_many_ways():
    found = prompts("headlines")
    for part in _parts(found).values():
        assert len({p.category for p in part}) == 15
    openings = Counter(p.text.split()[0] for p in found.harmful)
    assert len(openings) >= 30 and max(openings.values()) <= 15


def test_the_shipped_set_is_headlines_only():
    assert all(len(t.split()) <= 15 and len(t) <= 100 for t in prompts("headlines").texts)


def test_length_says_nothing_about_the_class_in_the_shipped_set():
    found = prompts("headlines")
    words = {label: [len(t.split()) for t in found.filter(label=label).texts] for label in ("harmful", "harmless")}
    assert abs(np.mean(words["harmful"]) - np.mean(words["harmless"])) <= 0.5

    def features(part: PromptSet) -> np.ndarray:
        return np.array([[len(t.split()), len(t), max(map(len, t.split()))] for t in part.texts])

    model = LogisticRegression(max_iter=5000).fit(features(found.train), found.train.labels)
    score = model.predict_proba(features(found.test))[:, 0]
    assert roc_auc_score([label == "harmful" for label in found.test.labels], score) <= 0.6


def test_openings_and_small_words_say_nothing_about_the_class_in_the_shipped_set():
    found = prompts("headlines")
    counts = Counter(w for t in found.texts for w in t.lower().split())
    common = [w for w, n in counts.items() if n >= 12]
    words = CountVectorizer(vocabulary=common, token_pattern=r"\S+")
    model = LogisticRegression().fit(words.transform(found.train.texts), found.train.labels)
    score = model.predict_proba(words.transform(found.test.texts))[:, 0]
    assert roc_auc_score([label == "harmful" for label in found.test.labels], score) <= 0.6


# --- the module ---


def test_reading_prompts_needs_neither_torch_nor_transformers():
    code = (
        "import sys, interp.text.sources as s, interp.text.judge; s.prompts('headlines'); "
        "print([m for m in ('torch', 'transformers', 'datasets', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def _parts(found: PromptSet) -> dict[str, PromptSet]:
    return {"train": found.train, "val": found.val, "test": found.test}


def _assert_disjoint(found: PromptSet) -> None:
    where: defaultdict[str, set[str | None]] = defaultdict(set)
    for p in found:
        where[p.group].add(p.split)
    assert all(len(splits) == 1 for splits in where.values())
