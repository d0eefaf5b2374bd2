"""Watching generation: an observer sees the newest tokens' activations, and rows it stops write nothing more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

import interp
from interp.errors import NonFiniteError, PromptError, SiteError
from interp.model.observe import Seen
from interp.text.encoded import Trace
from tests.helpers.slow import PROMPTS, lively


class Notes:
    """Keeps everything it sees, and stops the rows it was told to, at a number of written tokens."""

    def __init__(self, every: int = 1, stop: Mapping[int, int] | None = None, **reads: tuple[int, ...]) -> None:
        self.reads = reads or {"resid_post": (0, 2)}
        self.every = every
        self._stop = stop or {}
        self.seen: dict[int, dict[int, dict[str, Tensor]]] = {}

    def __call__(self, seen: Seen) -> dict[int, str]:
        for place, row in enumerate(seen.rows):
            self.seen.setdefault(row, {})[seen.written] = {k: v[:, place].clone() for k, v in seen.reads.items()}
        return {row: f"enough at {seen.written}" for row in seen.rows if self._stop.get(row) == seen.written}


def written(model: Any, prompts: Any = PROMPTS, **options: Any) -> interp.Generations:
    return model.generate(prompts, **{"max_new_tokens": 9, **options})


def test_it_sees_what_a_capture_of_the_finished_text_holds() -> None:
    model, notes = lively(), Notes(resid_post=(0, 2), resid_mid=(1,))
    done = written(model, observer=notes)
    for row, completion in enumerate(done):
        ids = completion.ids
        encoded = model.encode([PROMPTS[row]])[0]
        every = torch.tensor([[*encoded.ids, *ids]])
        hidden: dict[str, Tensor] = {}
        for site, layers in (("resid_post", (0, 2)), ("resid_mid", (1,))):
            grabbed = interp.capture(model, Trace(PROMPTS[row], None, ""), site, "last", layers)
            hidden[site] = grabbed.sel(site, position="last")[0]
            torch.testing.assert_close(notes.seen[row][0][site], hidden[site], atol=1e-4, rtol=1e-4)
        blocks: list[Tensor] = []
        handle = model.hf.model.layers[2].register_forward_hook(
            lambda _m, _a, out, kept=blocks: kept.append((out[0] if isinstance(out, tuple) else out).clone())
        )
        with torch.no_grad():
            model.hf(every)
        handle.remove()
        for token in range(1, len(ids)):
            there = blocks[0][0, len(encoded.ids) + token - 1]
            torch.testing.assert_close(notes.seen[row][token]["resid_post"][1], there, atol=2e-3, rtol=1e-3)
        assert sorted(notes.seen[row]) == list(range(len(ids)))


def test_looking_changes_no_word_and_does_not_depend_on_the_batch() -> None:
    model, together = lively(), Notes()
    plain = written(model)
    assert [c.ids for c in written(model, observer=together)] == [c.ids for c in plain]
    for row, prompt in enumerate(PROMPTS):
        alone = Notes()
        written(model, prompt, observer=alone)
        assert sorted(alone.seen[0]) == sorted(together.seen[row])
        for token, reads in alone.seen[0].items():
            torch.testing.assert_close(
                reads["resid_post"], together.seen[row][token]["resid_post"], atol=2e-3, rtol=1e-3
            )


def test_it_looks_every_so_many_tokens() -> None:
    notes = Notes(every=4)
    written(lively(), observer=notes)
    assert sorted(notes.seen[0]) == [0, 4, 8]


def test_a_stopped_row_keeps_what_it_had_written_and_the_others_go_on() -> None:
    model = lively()
    plain, done = written(model), written(model, observer=Notes(stop={0: 3, 2: 0}))
    assert done[0].ids == plain[0].ids[:3] and done[0].stopped == "enough at 3" and not done[0].finished
    assert done[2].ids == () and done[2].stopped == "enough at 0" and done[2].text == ""
    for row in (1, 3):
        assert done[row].ids == plain[row].ids and done[row].stopped is None
    assert list(done.to_frame()["stopped"].notna()) == [True, False, True, False]


def test_stopping_every_row_ends_the_batch_and_stopping_works_in_batches_of_one() -> None:
    model, stop = lively(), dict.fromkeys(range(len(PROMPTS)), 2)
    for size in (64, 1):
        done = written(model, observer=Notes(stop=stop), batch_size=size)
        lengths = [len(c.ids) for c in done]
        assert lengths[:3] == [2] * 3 and all(c.stopped for c in done[:3])
        assert lengths[3] == 1 and done[3].finished, "it had ended by itself, with nothing left to stop"


def test_it_sees_the_values_after_the_edits_also_of_open_blocks() -> None:
    model, vector = lively(), torch.full((lively().d_model,), 3.0)
    edit = interp.edits.set_to(vector, site="resid_post", layer=2, phase="both")
    inside, given = Notes(), Notes()
    with model.edited(edit):
        written(model, observer=inside)
    written(model, observer=given, edits=[edit])
    for notes in (inside, given):
        assert torch.equal(notes.seen[1][2]["resid_post"][1], vector)


def test_the_model_is_as_before_also_when_the_observer_fails() -> None:
    model = lively()
    before = written(model)

    class Fails(Notes):
        def __call__(self, seen: Seen) -> dict[int, str]:
            if seen.written == 2:
                raise RuntimeError("no more")
            return {}

    with pytest.raises(RuntimeError, match="no more"):
        written(model, observer=Fails())
    assert [c.ids for c in written(model)] == [c.ids for c in before]
    assert not any(block._forward_hooks or block._forward_pre_hooks for block in model.arch.blocks)


def test_what_cannot_be_watched_is_refused() -> None:
    model = lively()
    with pytest.raises(SiteError, match="out of range"):
        written(model, observer=Notes(resid_post=(7,)))
    with pytest.raises(SiteError, match="pattern"):
        written(model, observer=Notes(pattern=(0,)))
    with pytest.raises(PromptError, match="every 0 tokens"):
        written(model, observer=Notes(every=0))

    class Strays(Notes):
        def __call__(self, seen: Seen) -> dict[int, str]:
            return {99: "nobody"}

    with pytest.raises(PromptError, match="row 99"):
        written(model, observer=Strays())


def test_an_activation_that_is_not_finite_is_named() -> None:
    model = lively()
    huge = interp.edits.add(torch.full((model.d_model,), 3e38), site="resid_post", layer=2, phase="generation")
    with pytest.raises(NonFiniteError, match="after 1 generated"):
        written(model, observer=Notes(), edits=[huge, huge])  # their sum overflows
    early = interp.edits.add(torch.full((model.d_model,), 3e38), site="resid_post", layer=0, phase="generation")
    mended = interp.edits.set_to(torch.zeros(model.d_model), site="resid_post", layer=2, phase="generation")
    with pytest.raises(NonFiniteError, match="resid_post at layer 0 is not finite after 1 generated tokens for"):
        written(model, observer=Notes(), edits=[early, early, mended])  # the logits are fine, what is watched is not
