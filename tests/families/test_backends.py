"""Behind TransformerLens and nnsight: the same reads, the same edits, the same numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import interp
from interp.errors import EditError, ModelError, SiteError
from tests.families.backend_exceptions import EXCEPTIONS
from tests.helpers.backends import BACKENDS, BOUND, behind, errors, lacking
from tests.helpers.slow import PROMPTS, fingerprint, loaded
from tests.helpers.tiny import FAMILIES, tiny_model, tiny_tokenizer

MATRIX = json.loads((Path(__file__).parent / "backend_matrix.json").read_text())
CELLS = [(family, backend) for family in FAMILIES for backend in BACKENDS]


@pytest.mark.parametrize(("family", "backend"), CELLS)
def test_reads_ablation_steering_and_patching_equal_plain_hooks_at_every_site(family: str, backend: str) -> None:
    found = {**errors(family, backend), **errors(family, backend, "eager")}
    assert {name: error for name, error in found.items() if not error <= BOUND} == {}
    assert MATRIX[backend][family]["error"] <= BOUND


@pytest.mark.parametrize(("family", "backend"), CELLS)
def test_what_a_backend_lacks_is_in_the_table_of_exceptions(family: str, backend: str) -> None:
    told = {
        site: row.kind
        for row in EXCEPTIONS
        if row.backend == backend and family in row.families and row.kind != "worked around"
        for site in row.sites
    }
    assert lacking(family, backend) == told
    assert MATRIX[backend][family]["lacks"] == [site for site in interp.SITES if told.get(site) == "read"]


@pytest.mark.parametrize(
    ("row", "family"),
    [(row, family) for row in EXCEPTIONS for family in row.families],
    ids=lambda x: x if isinstance(x, str) else x.shows.__name__,
)
def test_every_exception_still_shows(row: Any, family: str) -> None:
    assert row.shows(family)


@pytest.mark.parametrize(("family", "backend"), CELLS)
def test_edited_generation_on_the_cache_equals_plain_hooks(family: str, backend: str) -> None:
    ours, peer = loaded(family), behind(family, backend)
    r = torch.randn(ours.d_model, generator=torch.Generator().manual_seed(1))
    for edit in (interp.edits.ablate(r), interp.edits.add(r, 2.0, site="resid_pre", layer=1, phase="generation")):
        ours_ids, peer_ids = (
            [c.ids for c in m.generate(PROMPTS, max_new_tokens=4, edits=[edit])] for m in (ours, peer)
        )
        assert ours_ids == peer_ids


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
def test_the_users_model_is_as_it_was_also_after_an_exception(family: str, backend: str) -> None:
    hf = tiny_model(family)
    before = fingerprint(hf), hf.config.to_dict(), sorted(hf.state_dict())
    model = interp.load(hf, tiny_tokenizer(), backend=backend)
    model.verify()
    plain = model.logits(PROMPTS)

    class Broken:
        def ops(self, arch: Any) -> list[Any]:
            from interp.model.ops import Op

            def change(x: Any, cells: Any) -> Any:
                raise ZeroDivisionError("in an edit")

            return [Op("attn_out", 1, change, ("all",), "both", self)]

    with pytest.raises(ZeroDivisionError, match="in an edit"):
        model.logits(PROMPTS, [Broken()])
    with pytest.raises(RuntimeError, match="in the block"), model.edited(interp.edits.ablate(torch.ones(48))):
        raise RuntimeError("in the block")
    assert torch.equal(model.logits(PROMPTS), plain)
    assert (fingerprint(hf), hf.config.to_dict(), sorted(hf.state_dict())) == before


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_of_a_kind_on_one_model_do_not_disturb_each_other(backend: str) -> None:
    hf = tiny_model()
    first, second = (interp.load(hf, tiny_tokenizer(), backend=backend) for _ in range(2))
    edit = interp.edits.add(torch.ones(48), 3.0, site="z", layer=1)
    own = loaded().logits(PROMPTS, [edit])
    for model in (first, second, first):
        assert float((model.logits(PROMPTS, [edit]) - own).abs().max()) < 1e-4
    with first.edited(edit):
        assert float((second.logits(PROMPTS) - loaded().logits(PROMPTS)).abs().max()) < 1e-4


@pytest.mark.parametrize("backend", BACKENDS)
def test_contexts_nest_and_reads_see_edits(backend: str) -> None:
    ours, peer = loaded(), behind("llama", backend)
    a, b = (interp.edits.add(torch.ones(48), c, site="resid_mid", layer=n) for c, n in ((2.0, 0), (-1.0, 1)))
    found = []
    for model in (ours, peer):
        with model.edited(a), model.edited(b):
            found.append(interp.capture(model, PROMPTS, ["resid_mid", "attn_out"]))
    for site in ("resid_mid", "attn_out"):
        torch.testing.assert_close(found[1].data[site], found[0].data[site], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_running_the_users_model_inside_an_edit_is_refused_since_the_edit_does_not_reach_it(backend: str) -> None:
    model = behind("llama", backend)
    with (
        pytest.raises(EditError, match="do not reach model.hf"),
        model.edited(interp.edits.ablate(torch.ones(48))),
        torch.no_grad(),
    ):
        model.hf(torch.tensor([[5, 6, 7]]))


def test_a_missing_site_is_refused_by_name() -> None:
    model = behind("phi3", "transformer_lens")
    with pytest.raises(SiteError, match="transformer_lens does not show it here"):
        interp.capture(model, PROMPTS, "q")
    with pytest.raises(EditError, match="a change there does nothing"):
        behind("mixtral", "transformer_lens").logits(
            PROMPTS, [interp.edits.add(torch.ones(6), site="router_logits", layer=1)]
        )


@pytest.mark.parametrize("family", ["mixtral", "deepseek_v3"])
@pytest.mark.parametrize("mode", ["drop_renorm", "mask_pre_topk", "force"])
def test_nnsight_routes_experts_as_plain_hooks_do(family: str, mode: Any) -> None:
    ours, peer = loaded(family), behind(family, "nnsight")
    edit = interp.edits.route([(1, 1), (2, 2)], mode)
    assert torch.equal(peer.logits(PROMPTS, [edit]), ours.logits(PROMPTS, [edit]))


def test_transformer_lens_installs_nothing_behind_our_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own boot runs pip when a multimodal model's processor wants torchvision."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "check_call", refuse)
    assert interp.load(tiny_model("gemma3_multimodal"), tiny_tokenizer(), backend="transformer_lens").n_layers == 3


def test_provenance_names_backend_and_version() -> None:
    told = behind("llama", "transformer_lens").provenance()
    assert told["backend"] == "transformer_lens"
    assert told["versions"]["transformer-lens"][0].isdigit()
    assert told["attention"] == "eager"


def test_bad_choices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="unknown backend 'jax'"):
        interp.load(tiny_model(), tiny_tokenizer(), backend="jax")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="needs backend='nnsight'"):
        interp.load(tiny_model(), tiny_tokenizer(), remote=True)
    with pytest.raises(ModelError, match="by their Hub id"):
        interp.load(tiny_model(), tiny_tokenizer(), backend="nnsight", remote=True)
    monkeypatch.setitem(sys.modules, "nnsight", None)
    with pytest.raises(ModelError, match=r"pip install refusalkit\[backends\]"):
        interp.load(tiny_model(), tiny_tokenizer(), backend="nnsight")
