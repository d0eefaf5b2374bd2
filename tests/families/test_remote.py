"""nnsight's remote traces, by the dry run that serialises them and hides our modules from what reads them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import interp
from interp.errors import EditError, ModelError, SiteError
from interp.model.ops import Op
from tests.helpers.backends import BOUND, behind, errors
from tests.helpers.slow import PROMPTS, loaded
from tests.helpers.tiny import FAMILIES, tiny_tokenizer


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "gpt_neox", "mixtral"])
def test_reads_and_edits_equal_plain_hooks(family: str) -> None:
    found = {**errors(family, "nnsight", remote="local"), **errors(family, "nnsight", "eager", remote="local")}
    assert {name: error for name, error in found.items() if not error <= BOUND} == {}


def test_what_is_sent_holds_nothing_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    from nnsight.schema.request import RequestModel

    sent: list[bytes] = []
    serialize = RequestModel.serialize

    def spy(*args: Any, **kwargs: Any) -> bytes:
        sent.append(serialize(*args, **kwargs))
        return sent[-1]

    monkeypatch.setattr(RequestModel, "serialize", spy)
    model = behind("llama", "nnsight", remote="local")
    sent.clear()
    edit = interp.edits.ablate(torch.ones(48))
    acts = interp.capture(model, PROMPTS[:1], "resid_post", ["last"], [2], edits=[edit])
    assert acts.data["resid_post"].shape == (1, 1, 1, 48)
    (payload,) = sent
    for name in (b"Session", b"Recorder", b"interp.model", b"LlamaForCausalLM"):
        assert name not in payload.replace(b"interp/model", b"")
    assert len(payload) < 200_000


def test_what_cannot_be_said_remotely_is_refused() -> None:
    model = behind("mixtral", "nnsight", remote="local")

    class Deciding:
        def ops(self, arch: Any) -> list[Op]:
            return [Op("resid_post", 1, lambda x, _: x if bool(x.sum() > 0) else -x, ("all",), "both", self)]

    with pytest.raises(EditError, match="decides by the values"):
        model.logits(PROMPTS, [Deciding()])
    with pytest.raises(SiteError, match="cannot mask or force experts"):
        model.logits(PROMPTS, [interp.edits.route([(1, 1)], "force")])
    with pytest.raises(ModelError, match="generation needs a key-value cache"):
        model.generate(PROMPTS, max_new_tokens=2)


def test_an_edit_of_ones_own_made_of_torch_operations_works() -> None:
    class Turn:
        def ops(self, arch: Any) -> list[Op]:
            def change(x: Any, _: Any) -> Any:
                out = x.clone()
                out[..., :5] = torch.tanh(x[..., :5]) + torch.arange(5.0).to(x)
                return torch.cat([out[..., 24:], out[..., :24]], -1)

            return [Op("mlp_out", 1, change, ("all",), "both", self)]

    ours, peer = (m.logits(PROMPTS, [Turn()]) for m in (loaded(), behind("llama", "nnsight", remote="local")))
    torch.testing.assert_close(peer, ours, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen3"])
def test_a_model_whose_weights_are_on_the_server_alone_is_read_edited_and_scored(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is played by the dry run, over a module tree that gets its weights behind our back."""
    from nnsight import TransformersModel
    from nnsight.intervention.backends.local import LocalSimulationBackend

    ours = loaded(family)
    asked: list[Any] = []

    def server(self: Any, remote: Any, *_: Any) -> Any:
        asked.append(remote)
        if any(weight.is_meta for weight in self._module.parameters()):
            for name, module in self._module.named_modules():
                real = ours.hf.get_submodule(name)
                for key, value in real._parameters.items():
                    module._parameters[key] = value
                for key, value in real._buffers.items():
                    module._buffers[key] = value
        return LocalSimulationBackend(self)

    monkeypatch.setattr(TransformersModel, "_remote_backend", server)
    with torch.device("meta"):
        empty = FAMILIES[family]().eval()
    empty.config._name_or_path = empty.name_or_path = "somebody/model"
    model = interp.load(empty, tiny_tokenizer(), backend="nnsight", remote=True)
    assert all(weight.is_meta for weight in empty.parameters())
    edits = [interp.edits.ablate(torch.ones(48)), interp.edits.add(torch.ones(48), site="z", layer=1, positions="last")]
    edits = edits[:1] if model.width("z") != 48 else edits
    sites = ["resid_pre", "z", "mlp_out"]
    a, b = (interp.capture(m, PROMPTS, sites, edits=edits) for m in (model, ours))
    for site in sites:
        torch.testing.assert_close(a.data[site], b.data[site], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model.logits(PROMPTS, edits), ours.logits(PROMPTS, edits), rtol=1e-5, atol=1e-5)
    assert set(asked) == {True}


def test_a_model_without_weights_needs_a_server() -> None:
    with torch.device("meta"):
        empty = FAMILIES["llama"]().eval()
    with pytest.raises(ModelError, match="no weights"):
        interp.load(empty, tiny_tokenizer())
    with pytest.raises(ModelError, match="by their Hub id"):
        interp.load("organism", backend="nnsight", remote=True)
    with torch.device("meta"):
        mixture = FAMILIES["mixtral"]().eval()
    mixture.config._name_or_path = mixture.name_or_path = "somebody/model"
    with pytest.raises(ModelError, match="without its weights"):
        interp.load(mixture, tiny_tokenizer(), backend="nnsight", remote=True)


def test_what_goes_wrong_at_the_server_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    from nnsight import TransformersModel

    def down(*_: Any, **__: Any) -> Any:
        raise ConnectionError("no route to NDIF")

    model = interp.load(loaded().hf, tiny_tokenizer(), backend="nnsight", remote="local")
    monkeypatch.setattr(TransformersModel, "_remote_backend", down)
    model.backend.remote = True  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match="the remote trace failed: ConnectionError: no route to NDIF"):
        model.logits(PROMPTS)
