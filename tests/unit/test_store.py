"""The store: what memory gives, from disk, layer by layer; and never a mixture."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file

import interp
from interp.activations.job import windowed
from interp.activations.store import files, writer
from interp.activations.store.begin import LOCK
from interp.errors import EditError, NonFiniteError, PositionError, PromptError, SiteError, StoreError
from interp.model.batching import plan
from tests.helpers.slow import loaded
from tests.helpers.tiny import tiny_model, tiny_tokenizer

SET = interp.PromptSet.from_texts(
    harmful=["How do I pick a lock?", "Hi", "Tell me how to lie, please."], harmless=["Bake bread", "x", "The sea " * 9]
)
MORE = interp.PromptSet.from_texts(harmful=["Steal"], harmless=["Sing a longer song", "Dance"])
SMALL: dict[str, Any] = {"token_budget": 60}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "store"


def same(store: interp.Store | interp.Activations, acts: interp.Activations) -> bool:
    loaded = store.load() if isinstance(store, interp.Store) else store
    return (
        loaded.sites == acts.sites
        and all(torch.equal(loaded.data[site], acts.data[site]) for site in acts.sites)
        and all(loaded.data[site].dtype == acts.data[site].dtype for site in acts.sites)
        and list(store.prompts) == list(acts.prompts)
        and (store.layers, store.positions, store.n_heads) == (acts.layers, acts.positions, acts.n_heads)
        and store.offsets.tolist() == acts.offsets.tolist()
        and store.labels.tolist() == acts.labels.tolist()
        and store.groups.tolist() == acts.groups.tolist()
        and len(store) == len(acts)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("positions", ["post_inst", ("t_inst", -1), "inst", "all"])
def test_a_store_gives_what_memory_gives(dtype: torch.dtype, positions: Any, out: Path) -> None:
    model = interp.load(tiny_model().to(dtype), tiny_tokenizer())
    sites = ["resid_post", "z", "resid_mid"]
    memory = interp.capture(model, SET, sites, positions, [2, 0], **SMALL)
    store = interp.capture(model, SET, sites, positions, [2, 0], out=out, **SMALL)
    assert same(store, memory) and same(interp.open_store(out), memory)
    assert store.provenance == memory.provenance
    for site in sites:
        for layer in (0, 2):
            for position in memory.positions:
                got = store.sel(site, layer, position)
                assert torch.equal(got, memory.sel(site, layer, position)) and got.is_contiguous()
        assert torch.equal(
            store.sel(site, position=memory.positions[0]), memory.sel(site, position=memory.positions[0])
        )
        assert torch.equal(store.of(2, site, 0), memory.of(2, site, 0))
    assert torch.equal(store.heads(), memory.heads())
    store.verify()


def test_files_are_plain_safetensors_in_the_order_of_the_prompts(out: Path) -> None:
    memory = interp.capture(loaded(), SET, **SMALL)
    interp.capture(loaded(), SET, out=out, **SMALL)
    for layer in memory.layers:
        found = load_file(out / "seg-0000" / f"resid_post.{layer:02d}.safetensors")
        assert torch.equal(found["resid_post"], memory.sel(layer=layer))
    assert not list(out.rglob("*.partial")) and not (out / "seg-0000" / "journal").exists()


def test_a_layer_is_read_without_the_others_and_rows_without_the_rest(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = interp.capture(loaded(), SET, ["resid_post", "z"], "post_inst", out=out)
    read: dict[str, int] = {}
    plain = os.preadv

    def counting(fd: int, buffers: Any, offset: int) -> int:
        got = plain(fd, buffers, offset)
        name = Path(os.readlink(f"/proc/self/fd/{fd}")).name
        read[name] = read.get(name, 0) + got
        return got

    monkeypatch.setattr(os, "preadv", counting)
    whole = store.sel("z", 1)
    sums = "checksums.safetensors"
    assert read == {"z.01.safetensors": whole.numel() * 4, sums: 8 * len(SET)}
    read.clear()
    store.take([1, 4]).sel("z", 1)
    assert read == {"z.01.safetensors": whole[:2].numel() * 4, sums: 8 * len(SET)}


def test_opening_reads_no_values(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interp.capture(loaded(), SET, out=out)
    monkeypatch.setattr(os, "preadv", None)
    store = interp.open_store(out)
    assert store.describe()["rows"] == len(store) == 6
    assert store.take(store.labels == "harmful").labels.tolist() == ["harmful"] * 3


@pytest.mark.parametrize("positions", ["t_inst", "inst"])
def test_views_take_rows_in_any_order(positions: str, out: Path) -> None:
    model = loaded()
    memory = interp.capture(model, SET, positions=positions)
    store = interp.capture(model, SET, positions=positions, out=out)
    rng = np.random.default_rng(0)
    for _ in range(10):
        rows = rng.integers(-len(store), len(store), 5)
        assert same(store.take(rows), memory.take(rows))
        assert same(store.take(rows).take([3, 0]), memory.take(rows).take([3, 0]))
    mask = memory.labels == "harmless"
    assert same(store.take(mask), memory.take(mask))
    view = store.take(mask)
    assert torch.equal(torch.cat([block for _, block in view.blocks(layer=1, size=1)]), memory.take(mask).sel(layer=1))
    assert torch.equal(torch.cat([block for _, block in store.blocks(layer=1, size=999)]), memory.sel(layer=1))
    assert len(store.take([])) == 0 and store.take([]).sel(layer=0).shape[0] == 0
    with pytest.raises(PromptError, match="there is no row"):
        store.take([len(store)])
    with pytest.raises(PromptError, match="there is no prompt 6"):
        store.of(6)


def test_selecting_what_was_not_captured_names_what_was(out: Path) -> None:
    store = interp.capture(loaded(), SET, ["resid_pre", "z"], layers=[0, 2], out=out)
    for options, error, message in (
        ({}, SiteError, "several sites"),
        ({"site": "mlp_out"}, SiteError, "captured: resid_pre, z"),
        ({"site": "z", "layer": 1}, SiteError, "captured: 0, 2"),
        ({"site": "z", "position": "last"}, PositionError, "captured: t_inst, t_post_inst"),
    ):
        with pytest.raises(error, match=message):
            store.sel(**options)
    with pytest.raises(SiteError, match="several layers"):
        next(store.blocks("z"))


@pytest.mark.parametrize("positions", ["t_inst", "inst"])
def test_prompts_can_be_appended(positions: str, out: Path) -> None:
    model = loaded()
    a, b = (interp.capture(model, prompts, positions=positions) for prompts in (SET, MORE))
    interp.capture(model, SET, positions=positions, out=out)
    store = interp.capture(model, MORE, positions=positions, out=out, append=True)
    assert same(store, interp.join([a, b])) and len(store.describe()["segments"]) == 2
    last = len(store) - 1
    assert torch.equal(store.take([last, 0, 2]).sel(layer=1), interp.join([a, b]).take([last, 0, 2]).sel(layer=1))
    store.verify()
    before = (out / "manifest.json").read_bytes()
    assert same(interp.capture(model, MORE, positions=positions, out=out, append=True), interp.join([a, b]))
    assert same(interp.capture(model, SET, positions=positions, out=out), a)  # a script may be run again
    assert same(store.segment(1), b)
    assert (out / "manifest.json").read_bytes() == before
    with pytest.raises(StoreError, match="say where with out="):
        interp.capture(model, MORE, append=True)


def test_stores_and_activations_can_be_joined(tmp_path: Path) -> None:
    model = loaded()
    memory = [interp.capture(model, prompts) for prompts in (SET, MORE)]
    stores = [interp.capture(model, p, out=tmp_path / n) for p, n in ((SET, "a"), (MORE, "b"))]
    joined = interp.join(stores)
    assert same(joined, interp.join(memory))
    joined.verify()
    assert same(interp.join([stores[1].take([0, 2]), stores[0]]), interp.join([memory[1].take([0, 2]), memory[0]]))
    assert joined.provenance["model"] == stores[0].provenance["model"]
    assert [p["prompts"]["n"] for p in joined.provenance["joined"]] == [6, 3]
    with pytest.raises(StoreError, match=r"read the stores with \.load"):
        interp.join([stores[0], memory[1]])
    for options, message in (
        ({"sites": "z"}, "sites differ"),
        ({"layers": 1}, "layers differ"),
        ({"positions": "last"}, "positions differ"),
    ):
        with pytest.raises(StoreError, match=message):
            interp.join([memory[0], interp.capture(model, MORE, **options)])
    other = interp.load(tiny_model(seed=1), tiny_tokenizer())
    with pytest.raises(StoreError, match="another model"):
        interp.join([memory[0], interp.capture(other, MORE)])
    with pytest.raises(StoreError, match="nothing"):
        interp.join([])


def other_model() -> interp.Model:
    return interp.load(tiny_model(seed=1), tiny_tokenizer())


def narrow_model() -> interp.Model:
    return interp.load(tiny_model().to(torch.bfloat16), tiny_tokenizer())


PUSH = interp.edits.add(torch.ones(48), site="resid_pre", layer=1, positions="t_inst")
RELABELLED = interp.PromptSet.from_texts(harmless=SET.texts)
MIXTURES: dict[str, tuple[Callable[[], interp.Model], Any, dict[str, Any], str]] = {
    "model": (other_model, SET, {}, r"model\.digest: the store has '\w+', asked is"),
    "dtype": (narrow_model, SET, {}, r"dtype: the store has 'float32', asked is 'bfloat16'"),
    "template": (lambda: loaded(template="{% for m in messages %}{{ m.content }}{% endfor %}: "), SET, {},
                 r"chat\.template_digest"),
    "system": (lambda: loaded().with_format(system="Be kind."), SET, {}, r"chat\.system: the store has None"),
    "sites": (loaded, SET, {"sites": ["resid_post", "z"]}, "sites"),
    "layers": (loaded, SET, {"layers": 1}, r"layers: the store has \[0, 1, 2\], asked is \[1\]"),
    "positions": (loaded, SET, {"positions": "t_inst"}, "positions"),
    "edits": (loaded, SET, {"edits": [PUSH]}, "edits"),
    "prompts": (loaded, MORE, {}, "holds other prompts.*append=True"),
    "fewer": (loaded, SET[:3], {}, "they are 3 of its 6"),
    "order": (loaded, SET[::-1], {}, "in another order"),
    "labels": (loaded, RELABELLED, {}, r"with another label \('harmful' there"),
}  # fmt: skip


@pytest.mark.parametrize("what", MIXTURES)
@pytest.mark.parametrize("finished", [True, False])
def test_nothing_is_mixed_and_what_differs_is_named(what: str, finished: bool, out: Path) -> None:
    make, prompts, options, message = MIXTURES[what]
    if finished:
        interp.capture(loaded(), SET, out=out)
    else:
        interrupted(out)
    before = {f: f.read_bytes() for f in sorted(out.rglob("*")) if f.is_file()}
    with pytest.raises(StoreError, match=message):
        interp.capture(make(), prompts, out=out, **options)
    if what not in ("prompts", "fewer", "order", "labels"):
        with pytest.raises(StoreError, match=message):
            interp.capture(make(), prompts, out=out, append=True, **options)
    assert {f: f.read_bytes() for f in sorted(out.rglob("*")) if f.is_file()} == before


def interrupted(
    out: Path, after: int = 2, error: type[BaseException] = KeyboardInterrupt, prompts: Any = SET, **options: Any
) -> None:
    """A capture that ends after some batches."""
    model = loaded()
    count = 0

    def stop(*_args: Any) -> None:
        nonlocal count
        count += 1
        if count > after:
            raise error

    handle = model.arch.backbone.register_forward_pre_hook(stop)
    try:
        with pytest.raises(error):
            interp.capture(model, prompts, out=out, **{**SMALL, **options})
    finally:
        handle.remove()


def test_an_interrupted_capture_keeps_what_was_computed_and_goes_on(out: Path) -> None:
    model, memory = loaded(), interp.capture(loaded(), SET, **SMALL)
    interrupted(out)
    store = interp.open_store(out)
    assert 0 < store.done.sum() < len(SET) and not store.complete and "still to be captured" in repr(store)
    assert list(out.rglob("*.safetensors")) == []
    assert torch.equal(store.take(store.done).sel(), memory.take(store.done).sel())
    store.verify()
    with pytest.raises(StoreError, match=r"prompts wanted are not captured yet.*same interp\.capture call"):
        store.sel(layer=0)
    with pytest.raises(StoreError, match="was not finished: make that call again"):
        interp.capture(model, MORE, out=out, append=True)
    ran: list[int] = []
    handle = model.arch.backbone.register_forward_pre_hook(lambda *_: ran.append(1))
    store = interp.capture(model, SET, out=out)  # the token budget it was begun with counts
    handle.remove()
    assert same(store, memory)
    assert len(ran) == len(plan([len(e) for e in model.encode(SET)], 60)) - 2


def test_a_prompt_that_fails_costs_only_itself(out: Path) -> None:
    interrupted(out, 1, NonFiniteError)
    assert interp.open_store(out).done.any()


def test_a_capture_begun_with_other_versions_is_not_finished_with_these(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("interp.model.model.versions", lambda: {"torch": "1.0", "transformers": "5"})
    interrupted(out)
    monkeypatch.undo()
    with pytest.raises(StoreError, match=r"was begun with torch 1\.0 \(now "):
        interp.capture(loaded(), SET, out=out)


@pytest.mark.parametrize(
    "edits", [[PUSH], [interp.edits.ablate(torch.arange(48.0)), interp.edits.scale_heads([(0, 1)])]]
)
def test_edits_are_part_of_what_is_asked(edits: list[Any], out: Path) -> None:
    model = loaded()
    memory = interp.capture(model, SET, edits=edits, **SMALL)
    interrupted(out, edits=edits)
    with pytest.raises(StoreError, match="edits"):
        interp.capture(model, SET, out=out)
    store = interp.capture(model, SET, edits=edits, out=out)
    assert same(store, memory) and store.provenance["edited"]


def test_an_edit_that_touches_nothing_is_an_error_also_after_a_kill(out: Path) -> None:
    model = loaded()
    late = interp.edits.add(torch.ones(48), site="resid_pre", layer=1, phase="generation")
    for _ in range(3):
        with pytest.raises(EditError, match="touched nothing"):
            interp.capture(model, SET, edits=[late], out=out, **SMALL)


def test_an_edit_that_met_its_tokens_before_the_kill_is_none_afterwards(out: Path) -> None:
    model = loaded()
    mixed = [interp.Trace("x", answer="y"), *SET.texts[1:3], "The sea " * 9]  # given answers are what it acts on
    edits = [interp.edits.add(torch.ones(48), site="resid_pre", layer=1, phase="generation")]
    options: dict[str, Any] = {"edits": edits, "positions": "last"}
    interrupted(out, 1, prompts=mixed, **options)
    done = interp.open_store(out).done
    assert done[0] and not done[2:].any()
    memory = interp.capture(model, mixed, **options, **SMALL)
    assert same(interp.capture(model, mixed, out=out, **options), memory)


def test_an_edited_block_around_a_capture_is_part_of_it(out: Path) -> None:
    interp.capture(loaded(), SET, out=out)
    with loaded().edited(PUSH), pytest.raises(StoreError, match="edits"):
        interp.capture(loaded(), SET, out=out)
    with loaded().edited(PUSH):
        assert interp.capture(loaded(), SET).provenance["edited"] is True
    assert interp.capture(loaded(), SET).provenance["edited"] is False


def test_an_edit_without_a_name_is_refused(out: Path) -> None:
    with pytest.raises(StoreError, match="Opaque.*has no name"):
        interp.capture(loaded(), SET, edits=[Opaque()], out=out)


class Opaque:
    def ops(self, arch: Any) -> Any:
        return PUSH.ops(arch)


def test_two_writers_do_not_share_a_store(out: Path) -> None:
    interp.capture(loaded(), SET, out=out)
    with FileLock(out / LOCK), pytest.raises(StoreError, match="another capture is writing"):
        interp.capture(loaded(), MORE, out=out, append=True)
    interp.capture(loaded(), MORE, out=out, append=True)


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("all my work")
    with pytest.raises(StoreError, match=r"not empty and no store \(thesis\.tex"):
        interp.capture(loaded(), SET, out=tmp_path)
    (tmp_path / "thesis.tex").rename(tmp_path.parent / "thesis.tex")
    (tmp_path / "seg-0000").mkdir()
    (tmp_path / "seg-0000" / "mine.txt").write_text("data")
    with pytest.raises(StoreError, match="holds data that no"):
        interp.capture(loaded(), SET, out=tmp_path)
    assert (tmp_path / "seg-0000" / "mine.txt").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot use"):
        interp.capture(loaded(), SET, out=tmp_path / "file")
    with pytest.raises(StoreError, match="no store"):
        interp.open_store(tmp_path)
    with pytest.raises(StoreError, match="there is no store"):
        interp.open_store(tmp_path / "nowhere")


def test_data_whose_manifest_was_lost_are_not_overwritten(out: Path) -> None:
    interp.capture(loaded(), SET, out=out)
    (out / "manifest.json").unlink()
    with pytest.raises(StoreError, match="put the manifest back"):
        interp.capture(loaded(), SET, out=out)
    assert len(list(out.rglob("*.safetensors"))) == 4


@pytest.mark.parametrize("labels", [None, "groups"])
def test_statistics_are_numpys_on_the_whole(labels: str | None, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = narrow_model()
    store = interp.capture(model, SET, positions="inst", out=out)
    own = store.labels if labels is None else [f"g{i % 3}" for i in range(len(store))]
    whole = store.load().sel().double().numpy()
    monkeypatch.setattr("interp.activations.store.reader._BLOCK", 500)
    found = store.statistics(None if labels is None else own)
    classes = sorted(set(own))
    assert list(found.classes) == classes and found.layers == store.layers and found.positions == store.positions
    for c in classes:
        rows = whole[np.array([label == c for label in own])]
        mean, variance = found.of(c)
        np.testing.assert_allclose(mean.numpy(), rows.mean(0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(variance.numpy(), rows.var(0), rtol=1e-5, atol=1e-6)
    assert sum(found.counts) == len(store) and found.mean.dtype == torch.float32
    with pytest.raises(PromptError, match="rows came with labels"):
        store.statistics(["a"])
    with pytest.raises(PromptError, match="no class 'x'"):
        found.of("x")


def test_unlabelled_prompts_are_a_class_of_their_own(out: Path) -> None:
    store = interp.capture(loaded(), ["a", "bc"], out=out)
    assert store.statistics().classes == (None,)
    np.testing.assert_allclose(store.statistics().mean[0], store.sel().mean(0), rtol=1e-5, atol=1e-6)


def test_a_variance_survives_a_large_mean(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = interp.capture(loaded(), SET, out=out)
    values = 1e6 + torch.arange(6.0)[:, None, None].expand(6, 2, 48)
    monkeypatch.setattr(interp.Store, "blocks", lambda *_: ((np.array([i]), values[[i]]) for i in range(6)))
    assert torch.allclose(store.statistics(np.zeros(6)).variance, torch.full((1,), float(np.var(range(6)))))


def test_slices_go_to_npz_and_parquet(out: Path, tmp_path: Path) -> None:
    import pandas as pd

    model = narrow_model()
    for prompts, positions in ((SET, ("t_inst", "last")), (SET, "inst")):
        folder = out / str(positions[0])
        store = interp.capture(model, prompts, ["resid_post", "z"], positions, out=folder)
        for acts in (store, store.load(), store.take([4, 1])):
            npz = np.load(acts.to_npz(tmp_path / "a.npz", "z", layers=[2, 0]), allow_pickle=False)
            np.testing.assert_array_equal(npz["values"], acts.sel("z")[:, [2, 0]].float().numpy())
            assert npz["labels"].tolist() == acts.labels.tolist() and npz["offsets"].tolist() == acts.offsets.tolist()
            assert npz["layers"].tolist() == [2, 0] and npz["positions"].tolist() == list(acts.positions)
            table = pd.read_parquet(acts.to_parquet(tmp_path / "a.parquet", "z", 1, acts.positions[-1]))
            assert len(table) == len(acts) and set(table["position"]) == {acts.positions[-1]}
            want = acts.sel("z", 1, acts.positions[-1]).float().numpy()
            np.testing.assert_array_equal(np.stack(table["values"]), want)  # type: ignore[arg-type]
            assert table["label"].tolist() == acts.labels.tolist() and table["row"].tolist() == list(range(len(acts)))
            assert table["id"].tolist() == npz["ids"].tolist()
        with pytest.raises(SiteError, match="several sites"):
            store.to_npz(tmp_path / "b.npz")
        assert not (tmp_path / "b.npz").exists()


def test_prompts_come_back_with_everything_that_is_known_of_them(out: Path) -> None:
    odd = interp.Prompt("héé \u2028 𝔘", None, "g", "topic", "role", "val", "Be\nkind")
    prompts = interp.PromptSet((odd, interp.Prompt("plain")), "mine")
    interp.capture(loaded(), prompts, out=out)
    store = interp.open_store(out)
    assert store.prompts == prompts
    manifest = json.loads((out / "seg-0000" / "segment.json").read_text())
    assert manifest["plan"]["ids"] == [p.id for p in prompts]


def test_traces_of_one_prompt_differ_in_a_store_too(out: Path) -> None:
    traces = [interp.Trace("Why?", answer="Because."), interp.Trace("Why?", answer="No idea.")]
    options: dict[str, Any] = {"positions": "answer_start"}
    memory = interp.capture(loaded(), traces, **options)
    assert same(interp.capture(loaded(), traces, out=out, **options), memory)
    with pytest.raises(StoreError, match="in another order"):
        interp.capture(loaded(), traces[::-1], out=out, **options)


def test_a_disk_that_is_too_small_is_said_before_anything_is_run(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interp.activations.store.begin.free_bytes", lambda _path: 1000)
    with pytest.raises(StoreError, match=r"[\d,]+ bytes are needed and 1,000 are free"):
        interp.capture(loaded(), SET, out=out)
    monkeypatch.undo()
    assert same(interp.capture(loaded(), SET, out=out), interp.capture(loaded(), SET))


def test_windows_hold_every_prompt_once_and_consecutive_prompts_stand_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interp.activations.job.WINDOW_PROMPTS", 4)
    monkeypatch.setattr("interp.activations.job.WINDOW_BYTES", 60)
    lengths = [int(n) for n in np.random.default_rng(0).integers(1, 30, 50)]
    batches = windowed(lengths, [10] * 50, 5)
    assert sorted(i for batch in batches for i in batch) == list(range(50))
    seen: set[int] = set()
    ends = 0
    for batch in batches:
        seen |= set(batch)
        ends += seen == set(range(len(seen)))
    assert ends >= 5  # the windows' ends
    monkeypatch.undo()
    assert windowed(lengths, [10] * 50, 64) == plan(lengths, 64)


def test_small_writes_and_large_ones_leave_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for positions in ("post_inst", "inst"):
        trees: list[dict[str, bytes]] = []
        for gather in (1, 3000, 1 << 30):
            monkeypatch.setattr(writer, "GATHER", gather)
            monkeypatch.setattr(writer, "SYNC_BYTES", 2 * gather)
            out = tmp_path / f"{positions}{gather}"
            interp.capture(loaded(), SET, ["z", "mlp_out"], positions, out=out, **SMALL)
            trees.append({f.name: f.read_bytes() for f in (out / "seg-0000").iterdir()})
        assert trees[0] == trees[1] == trees[2]


def test_the_header_is_page_aligned_and_bounded(out: Path) -> None:
    store = interp.capture(loaded(), SET, out=out)
    for file in (out / "seg-0000").glob("*.safetensors"):
        assert (int.from_bytes(file.read_bytes()[:8], "little") + 8) % 4096 == 0
    assert store.describe()["bytes"] == sum(f.stat().st_size for f in (out / "seg-0000").glob("resid*"))
    assert files.runs([0, 1, 2, 5, 7, 8]) == [(0, 3), (5, 6), (7, 9)]
