"""Separation: what was planted is read at its place, noise is not, and the text's own share is shown."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

import interp
import probes.readout
from interp.activations.activations import Activations
from interp.errors import PromptError
from interp.stats import auroc
from interp.text.prompts import Prompt, PromptSet
from probes import Separation, separation
from tests.helpers.slow import loaded

SIZES = {"train": 60, "val": 30, "test": 60}
WORDS = ["sea", "bread", "lock", "house", "river", "stone", "cloud", "lamp"]
WIDTH, LAYERS = 12, 3


def prompt_set(seed: int = 0, cue: str = "", per_group: int = 1) -> PromptSet:
    """Random words under random labels; `cue` is a word that harmful prompts alone have."""
    rng = np.random.default_rng(seed)
    made: list[Prompt] = []
    for split, n in SIZES.items():
        for i in range(n):
            label = ("harmful", "harmless")[i % 2]
            text = " ".join([*rng.choice(WORDS, 4), f"{split}{i}"])
            text = f"{text} {cue}" if cue and label == "harmful" else text
            made.append(Prompt(text, label, group=f"{split}{i // (2 * per_group)}", split=split))
    return PromptSet(tuple(made), "made")


def fake(monkeypatch: pytest.MonkeyPatch, seed: int, planted: dict[tuple[int, str], float], per_group: int = 1) -> None:
    """Activations that are noise, with the label planted at some places."""

    def capture(_model: Any, prompts: PromptSet, site: str, positions: tuple[str, ...], **_: Any) -> Activations:
        rng = np.random.default_rng([seed, len(prompts), ord(str(prompts[0].split)[1])])
        x = rng.normal(size=(len(prompts), LAYERS, len(positions), WIDTH))
        if per_group > 1:  # one draw per group and label: its prompts are near copies
            keys = [f"{p.group}{p.label}" for p in prompts]
            first = [keys.index(k) for k in keys]
            x = x[first] + 1e-3 * x
        sign = np.array([1.0 if p.label == "harmful" else -1.0 for p in prompts])
        for (layer, position), strength in planted.items():
            x[:, layer, positions.index(position), 3] += strength * sign
        return Activations({site: torch.tensor(x).float()}, tuple(range(LAYERS)), tuple(positions), prompts, 1)

    monkeypatch.setattr(probes.readout, "capture", capture)


def read(prompts: PromptSet, **options: Any) -> Separation:
    return separation(None, prompts, **options)  # pyright: ignore[reportArgumentType]


def test_what_is_planted_is_read_at_its_place_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, 0, {(1, "t_post_inst"): 2.0})
    got = read(prompt_set())
    assert (got.best["layer"], got.best["position"]) == (1, "t_post_inst")
    assert got.readable
    assert got.best["auroc"] > 0.97 and got.best["low"] > 0.9
    assert got.best["low"] <= got.best["auroc"] <= got.best["high"]
    others = got.table.drop(index=got.table["val"].idxmax())
    assert (others["auroc"] < 0.8).all()
    assert len(got.table) == LAYERS * 2 and (got.n_train, got.n_test) == (60, 60)
    assert got.to_frame() is got.table


def test_each_figure_is_the_projection_on_the_difference_in_means(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, 5, {(2, "t_inst"): 0.7})
    prompts = prompt_set()
    got = read(prompts)
    parts = {
        s: probes.readout.capture(None, getattr(prompts, s), "resid_post", ("t_inst", "t_post_inst"))  # pyright: ignore
        for s in ("train", "val", "test")
    }
    for row in got.table.to_dict("records"):
        place = ("resid_post", row["layer"], row["position"])
        x = {s: a.sel(*place).double().numpy() for s, a in parts.items()}
        y = {s: a.labels == "harmful" for s, a in parts.items()}
        r = x["train"][y["train"]].mean(0) - x["train"][~y["train"]].mean(0)
        assert row["auroc"] == pytest.approx(auroc(x["test"] @ r, y["test"]))
        assert row["val"] == pytest.approx(auroc(x["val"] @ r, y["val"]))


def test_the_best_place_is_chosen_on_validation_and_not_on_test_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, 3, {})
    got = read(prompt_set())
    row = got.table.loc[got.table["val"].idxmax()]
    assert got.best["auroc"] == row["auroc"]
    assert got.best["auroc"] < got.table["auroc"].max(), "this seed would tell the two apart"


@pytest.mark.parametrize("n", [12, pytest.param(60, marks=pytest.mark.soak)])
def test_noise_is_not_readable_and_shuffled_labels_are_at_chance(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    readable, shuffled, test = 0, [], []
    for seed in range(n):
        fake(monkeypatch, seed, {})
        got = read(prompt_set(seed), positions=("t_inst",), seed=seed)
        readable += got.readable
        shuffled += list(got.table["shuffled"])
        test += list(got.table["auroc"])
    assert readable <= max(1, n // 20)
    assert np.mean(shuffled) == pytest.approx(0.5, abs=0.02)
    assert np.mean(test) == pytest.approx(0.5, abs=0.04)


def test_shuffled_labels_are_at_chance_even_where_harm_is_strong(monkeypatch: pytest.MonkeyPatch) -> None:
    means: list[float] = []
    for seed in range(10):
        fake(monkeypatch, seed, {(n, "t_inst"): 5.0 for n in range(LAYERS)})
        got = read(prompt_set(seed), positions=("t_inst",), seed=seed)
        assert got.readable and got.best["auroc"] == 1.0
        means += list(got.table["shuffled"])
        assert (got.table["shuffled_high"] >= got.table["shuffled"]).all()
        assert (got.table["shuffled_high"] < 0.85).all()
    assert np.mean(means) == pytest.approx(0.5, abs=0.03)


def test_intervals_draw_whole_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, 1, {(n, "t_inst"): 0.5 for n in range(LAYERS)}, per_group=6)
    grouped = read(prompt_set(per_group=6), positions=("t_inst",))
    apart = PromptSet(
        tuple(Prompt(p.text, p.label, group=f"{i}", split=p.split) for i, p in enumerate(prompt_set(per_group=6)))
    )
    monkeypatch.setattr(probes.readout, "capture", _regrouped(probes.readout.capture, prompt_set(per_group=6)))
    single = read(apart, positions=("t_inst",))
    np.testing.assert_allclose(grouped.table["auroc"], single.table["auroc"])
    width = (grouped.table["high"] - grouped.table["low"]) / (single.table["high"] - single.table["low"])
    assert width.mean() > 1.5, "near copies of a prompt carry no news"


def _regrouped(capture: Any, as_if: PromptSet) -> Any:
    def same(model: Any, prompts: PromptSet, *args: Any, **options: Any) -> Activations:
        old = capture(model, as_if.filter(split=prompts[0].split), *args, **options)
        return Activations(old.data, old.layers, old.positions, prompts, old.n_heads)

    return same


def test_the_text_baseline_finds_a_word_that_gives_the_class_away(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, 0, {})
    with_cue, without = read(prompt_set(cue="please")), read(prompt_set())
    assert with_cue.text[0] > 0.8 and with_cue.text[1] > 0.65
    assert without.text[1] < 0.5 < without.text[2]
    assert with_cue.text[1] <= with_cue.text[0] <= with_cue.text[2]


def test_the_length_baseline_finds_longer_prompts_whichever_class_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, 0, {})
    long = prompt_set(cue="x" * 60)
    assert read(long).length == 1.0
    swapped = {"harmful": "harmless", "harmless": "harmful"}
    turned = PromptSet(tuple(Prompt(p.text, swapped[str(p.label)], p.group, split=p.split) for p in long))
    assert read(turned).length == 1.0
    assert read(prompt_set()).length < 0.7


def test_the_same_seed_gives_the_same_table(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, 2, {(1, "t_inst"): 0.4})
    first, again, other = (read(prompt_set(), seed=seed) for seed in (4, 4, 5))
    assert first.table.equals(again.table) and first.text == again.text
    assert not first.table["shuffled"].equals(other.table["shuffled"])
    assert first.table["auroc"].equals(other.table["auroc"])


@pytest.mark.parametrize("split", SIZES)
def test_a_split_that_lacks_a_class_is_an_error_that_names_it(split: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, 0, {})
    kept = PromptSet(tuple(p for p in prompt_set() if p.split != split or p.label == "harmful"), "half")
    with pytest.raises(PromptError, match=f"'half' needs .* to {split} on"):
        read(kept)
    with pytest.raises(PromptError, match="to train on"):
        read(prompt_set(), positive="toxic")


def test_a_random_model_under_random_labels_reads_nothing() -> None:
    rng = np.random.default_rng(0)
    readable = 0
    for seed in range(6):
        labels = {s: rng.permutation(n) % 2 for s, n in SIZES.items()}
        counts = dict.fromkeys(SIZES, 0)
        made: list[Prompt] = []
        for p in prompt_set(seed):
            label = ("harmful", "harmless")[labels[str(p.split)][counts[str(p.split)]]]
            counts[str(p.split)] += 1
            made.append(Prompt(p.text, label, split=p.split))
        readable += separation(loaded(), PromptSet(tuple(made)), positions=("t_post_inst",), seed=seed).readable
    assert readable <= 1


@cache
def organism() -> interp.Model:
    return interp.load("organism")


def test_the_organism_reads_harm_that_its_words_do_not_give_away() -> None:
    model = organism()
    prompts = interp.prompts("organism")
    small = [
        p
        for split, n in {"train": 64, "val": 32, "test": 64}.items()
        for label in ("harmful", "harmless")
        for p in prompts.filter(split=split, label=label).sample(n, 0)
    ]
    got = separation(model, PromptSet(tuple(small), "organism"))
    assert got.readable and got.best["auroc"] > 0.9
    assert got.text[0] < 0.7 and got.length < 0.65
    assert got.best["low"] > got.text[0]
