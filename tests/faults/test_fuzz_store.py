"""Whatever is done to a store's files, it gives what was captured or a `StoreError`; nothing else ever, and loudly."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import interp
from interp.activations.store.checked import digest_of
from interp.errors import StoreError
from tests.helpers import fuzz
from tests.helpers.fuzz import changed, cut_or_changed, values_like
from tests.helpers.slow import loaded

SHORT = settings(fuzz.SHORT, max_examples=125)
LONG = settings(SHORT, max_examples=7_000, derandomize=False)
PROMPTS = interp.PromptSet.from_texts(["Pick a lock", "Lie"], ["Bake bread", "Sing a song"])
JSON_FILES = ("manifest.json", "seg-0000/segment.json", "seg-0001/segment.json")
VALUES = values_like(2**31, "F32", "BF16", "seg-0001", "/tmp", "../../etc", [{}], [-1], ["x"])


@dataclass(repr=False)
class Sound:
    """A sound store, with what is in it, to be damaged file by file and mended again."""

    path: Path
    files: dict[str, bytes]
    truth: dict[int, torch.Tensor]
    labels: list[Any]

    @contextlib.contextmanager
    def damaged(self, name: str, data: bytes | None) -> Iterator[None]:
        file = self.path / name
        if data is None:
            file.unlink()
        else:
            file.write_bytes(data)
        try:
            yield
        finally:
            file.write_bytes(self.files[name])

    def check(self) -> bool:
        """Whether the store could be read in full; what was read must then be the truth."""
        try:
            store = interp.open_store(self.path)
            found = {layer: store.sel(layer=layer) for layer in store.layers}
        except StoreError as error:
            assert str(error)
            with pytest.raises(StoreError):
                interp.open_store(self.path).verify()
            return False
        assert list(found) == list(self.truth)
        assert all(torch.equal(found[layer], self.truth[layer]) for layer in found)
        assert store.labels.tolist() == self.labels and list(store.prompts) == list(self.prompts)
        assert store.positions == self.positions
        return True

    prompts: tuple[interp.Prompt, ...] = ()
    positions: tuple[str, ...] = ()


@pytest.fixture(scope="module", params=["t_inst", "inst"])
def sound(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sound:
    path = tmp_path_factory.mktemp("sound") / "store"
    options: dict[str, Any] = {"positions": request.param, "layers": [0, 2], "out": path}
    interp.capture(loaded(), PROMPTS[:2], **options)
    store = interp.capture(loaded(), PROMPTS[2:], append=True, **options)
    files = {str(f.relative_to(path)): f.read_bytes() for f in path.rglob("*") if f.is_file() and f.name != ".lock"}
    truth = {layer: store.sel(layer=layer) for layer in store.layers}
    return Sound(path, files, truth, store.labels.tolist(), tuple(store.prompts), store.positions)


def any_bytes(sound: Sound, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(sound.files)))
    bad = data.draw(cut_or_changed(sound.files[name]))
    with sound.damaged(name, bad):
        read = sound.check()
        assert not read or equal(name, bad, sound.files[name]), f"{name}: nobody noticed"


def equal(name: str, bad: bytes, good: bytes) -> bool:
    return bad == good or (name.endswith(".json") and json.loads(bad) == json.loads(good))


def any_json(sound: Sound, data: st.DataObject, signed: bool) -> None:
    name = data.draw(st.sampled_from(JSON_FILES))
    value = json.loads(sound.files[name])
    bad = changed(data.draw, value, VALUES, add=False)
    if signed and isinstance(bad, dict):  # somebody who knows how the digest is made
        bad.pop("digest", None)
        with contextlib.suppress(ValueError):
            bad["digest"] = digest_of(bad)
    text = json.dumps(bad).encode("utf-8", "surrogatepass")
    with sound.damaged(name, text):
        if signed and name == "manifest.json" and shorter(value, bad):
            with contextlib.suppress(StoreError):  # a store of fewer segments is a store
                interp.open_store(sound.path).load()
            return
        read = sound.check()
        assert not read or json.loads(text) == value, f"{name}: nobody noticed"


def shorter(value: Any, bad: Any) -> bool:
    """Whether segments were left out or put in another order."""
    segments, known = bad.get("segments") if isinstance(bad, dict) else None, value["segments"]
    return isinstance(segments, list) and segments != known and all(s in known for s in segments)


def any_header(sound: Sound, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(n for n in sound.files if n.endswith(".safetensors"))))
    raw = sound.files[name]
    n = int.from_bytes(raw[:8], "little")
    header = changed(data.draw, json.loads(raw[8 : 8 + n]), VALUES, add=False)
    text = json.dumps(header, separators=(",", ":")).encode("utf-8", "surrogatepass")
    padded = text.ljust(n) if data.draw(st.booleans()) else text
    length = data.draw(st.sampled_from([len(padded), len(padded), n, 0, 2**40, 2**63, 2**64 - 1]))
    bad = length.to_bytes(8, "little") + padded + raw[8 + n :]
    with sound.damaged(name, bad):
        assert not sound.check() or bad == raw, f"{name}: nobody noticed"


@SHORT
@given(data=st.data())
def test_damaged_bytes_are_noticed(sound: Sound, data: st.DataObject) -> None:
    any_bytes(sound, data)


@SHORT
@given(data=st.data(), signed=st.booleans())
def test_edited_json_is_noticed(sound: Sound, data: st.DataObject, signed: bool) -> None:
    any_json(sound, data, signed)


@SHORT
@given(data=st.data())
def test_edited_headers_are_noticed(sound: Sound, data: st.DataObject) -> None:
    any_header(sound, data)


@pytest.mark.soak
@LONG
@given(data=st.data())
def test_very_many_damaged_bytes_are_noticed(sound: Sound, data: st.DataObject) -> None:
    any_bytes(sound, data)


@pytest.mark.soak
@LONG
@given(data=st.data(), signed=st.booleans())
def test_very_much_edited_json_is_noticed(sound: Sound, data: st.DataObject, signed: bool) -> None:
    any_json(sound, data, signed)


@pytest.mark.soak
@LONG
@given(data=st.data())
def test_very_many_edited_headers_are_noticed(sound: Sound, data: st.DataObject) -> None:
    any_header(sound, data)


def test_every_missing_file_is_named(sound: Sound) -> None:
    for name in sound.files:
        with sound.damaged(name, None), pytest.raises(StoreError, match=Path(name).name.replace(".", r"\.")):
            interp.open_store(sound.path).load()


def test_every_single_flipped_bit_of_the_values_is_noticed(sound: Sound) -> None:
    for name in (n for n in sound.files if n.startswith("seg-0001") and n.endswith(".safetensors")):
        raw = sound.files[name]
        for at in range(4096, len(raw), 97):
            bad = bytearray(raw)
            bad[at] ^= 1 << at % 8
            with sound.damaged(name, bytes(bad)), pytest.raises(StoreError, match=r"\.safetensors.* is damaged"):
                interp.open_store(sound.path).load()


def test_a_folder_outside_the_store_is_named(sound: Sound) -> None:
    for bad in ("../other", "/etc", "seg-0000/../../x", "seg-0000\n", ".", ""):
        value = json.loads(sound.files["manifest.json"])
        value["segments"][0]["folder"] = bad
        del value["digest"]
        value["digest"] = digest_of(value)
        with (
            sound.damaged("manifest.json", json.dumps(value).encode()),
            pytest.raises(StoreError, match="none of this store's"),
        ):
            interp.open_store(sound.path)


def test_segments_of_another_store_are_not_taken(sound: Sound, tmp_path: Path) -> None:
    for other in ("model", "prompts"):
        folder = tmp_path / other
        prompts = PROMPTS if other == "prompts" else PROMPTS[:2]
        positions = sound.positions[0].removesuffix("[*]")
        model = loaded("qwen3") if other == "model" else loaded()
        interp.capture(model, prompts, positions=positions, layers=[0, 2], out=folder)
        shutil.rmtree(folder / "seg-0000")
        shutil.copytree(sound.path / "seg-0000", folder / "seg-0000")
        with pytest.raises(StoreError, match="not the segment that the manifest lists"):
            interp.open_store(folder)


def test_deep_or_huge_json_is_refused(sound: Sound) -> None:
    for text in (b"[" * 200_000, b'{"format":' * 50_000, b"1" * 10_000, b'{"format": NaN}', b"\xff\xfe", b"", b"null"):
        with sound.damaged("manifest.json", text), pytest.raises(StoreError, match=r"manifest\.json"):
            interp.open_store(sound.path)


def test_another_version_is_named(sound: Sound) -> None:
    value = {"format": "refusalkit/activations/9"}
    with (
        sound.damaged("manifest.json", json.dumps(value).encode()),
        pytest.raises(StoreError, match=r"refusalkit/activations/9.*refusalkit/activations/1"),
    ):
        interp.open_store(sound.path)


def test_a_sound_store_is_sound(sound: Sound) -> None:
    assert sound.check() and os.listdir(sound.path)
    interp.open_store(sound.path).verify()
