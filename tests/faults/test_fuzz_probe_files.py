"""Whatever is done to a probe's file, loading gives the probe that was saved or a `FormatError` that names the file."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

import probes
from interp.errors import FormatError, RefusalkitError
from interp.tensorfile import digest_of
from probes.estimators.saved import METADATA
from tests.helpers import fuzz
from tests.helpers.fuzz import changed, cut_or_changed, values_like

SHORT = settings(fuzz.SHORT, max_examples=170)
LONG = settings(SHORT, max_examples=10_000, derandomize=False)
RNG = np.random.default_rng(0)
X, TRUTH = RNG.normal(size=(12, 3)), np.arange(12) % 2 == 0
FITTED: list[Any] = [
    probes.MeanDifference("fitted").fit(X, np.where(TRUTH, "harmful", "harmless")),
    probes.LogisticProbe().fit(X, TRUTH),
    probes.WhitenedMeanDifference().fit(X, TRUTH.astype(int)),
    probes.MLPProbe(width=2, max_iter=5).fit(X, np.arange(12) % 3),
    probes.NearestCentroid().fit(X, np.arange(12) % 3 / 1),
]
VALUES = values_like(10**400, 1, 2, "int8", "str", "RidgeProbe", "resid_post")
Sound = list[tuple[Any, bytes, Path]]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Sound:
    path = tmp_path_factory.mktemp("probes") / "probe.safetensors"
    where: dict[str, Any] = {"site": "resid_post", "layer": 3, "position": "t_inst", "provenance": {"model": {"id": 1}}}
    raws = [probe.save(path, **where).read_bytes() for probe in FITTED]
    return [(attempt(path, raw), raw, path) for raw in raws]


def attempt(path: Path, data: bytes) -> Any:
    """The probe of these bytes, or nothing after an error that names the file."""
    path.write_bytes(data)
    try:
        return probes.load_probe(path)
    except FormatError as error:
        assert path.name in str(error)
        return None


def is_usable(probe: Any) -> None:
    """Whatever could be loaded is finite, and has the shape that it says, and can be saved, fitted and cloned."""
    rows = RNG.normal(size=(4, probe.n_features_in_))
    with np.errstate(all="ignore"):
        found = probe.decision_function(rows)
    assert len(found) == 4 and set(probe.predict(rows)) <= set(probe.classes_)
    assert isinstance(probe.place_, probes.Place) and isinstance(probe.provenance_, dict)


def is_as_saved(found: Any, saved: Any) -> bool:
    same = type(found) is type(saved) and found.get_params() == saved.get_params()
    same = same and (found.place_, found.provenance_) == (saved.place_, saved.provenance_)
    return same and np.array_equal(found.decision_function(X), saved.decision_function(X))


def any_bytes(sound: Sound, data: st.DataObject) -> None:
    saved, raw, path = data.draw(st.sampled_from(sound))
    bad = data.draw(cut_or_changed(raw))
    found = attempt(path, bad)
    assert found is None or is_as_saved(found, saved), "nobody noticed"


def any_about(sound: Sound, data: st.DataObject, signed: bool) -> None:
    saved, raw, path = data.draw(st.sampled_from(sound))
    about, tensors = parts(raw)
    bad = changed(data.draw, about, VALUES, leave="versions")
    found = attempt(path, put_together(bad, tensors, signed))
    if found is not None and signed:
        is_usable(found)
    else:
        assert found is None or is_as_saved(found, saved), "nobody noticed"


def any_tensors(sound: Sound, data: st.DataObject) -> None:
    _, raw, path = data.draw(st.sampled_from(sound))
    about, tensors = parts(raw)
    name = data.draw(st.sampled_from(sorted(tensors)))
    kind = data.draw(st.sampled_from(["value", "dtype", "shape", "gone", "other name", "one more"]))
    if kind == "value" and tensors[name].numel():
        at = data.draw(st.integers(0, tensors[name].numel() - 1))
        tensors[name].reshape(-1)[at] = data.draw(st.floats())
    elif kind == "dtype":
        kinds = [torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.float8_e5m2]
        tensors[name] = tensors[name].to(data.draw(st.sampled_from(kinds)))
    elif kind == "shape":
        shape = data.draw(st.lists(st.integers(0, 4), max_size=3))
        tensors[name] = torch.zeros(shape, dtype=torch.float64)
    elif kind == "gone":
        del tensors[name]
    else:
        new = data.draw(st.text(max_size=5))
        tensors[new] = tensors[name].clone() if kind == "one more" else tensors.pop(name)
    found = attempt(path, put_together(about, tensors, signed=True))
    if found is not None:
        is_usable(found)


def parts(raw: bytes) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    length = int.from_bytes(raw[:8], "little")
    return json.loads(json.loads(raw[8 : 8 + length])["__metadata__"][METADATA]), load(raw)


def put_together(about: Any, tensors: dict[str, torch.Tensor], signed: bool) -> bytes:
    """A file; `signed` by somebody who knows how the digest is made."""
    if signed:
        about.pop("digest", None)
        with contextlib.suppress(RefusalkitError):
            about["digest"] = digest_of(METADATA, about, tensors)
    return save(tensors, metadata={METADATA: json.dumps(about)})


@SHORT
@given(data=st.data())
def test_damaged_bytes_are_noticed(sound: Sound, data: st.DataObject) -> None:
    any_bytes(sound, data)


@SHORT
@given(data=st.data(), signed=st.booleans())
def test_edited_metadata_are_noticed_or_give_a_probe_that_works(
    sound: Sound, data: st.DataObject, signed: bool
) -> None:
    any_about(sound, data, signed)


@SHORT
@given(data=st.data())
def test_hostile_tensors_are_refused_or_give_a_probe_that_works(sound: Sound, data: st.DataObject) -> None:
    any_tensors(sound, data)


@pytest.mark.soak
@LONG
@given(data=st.data(), signed=st.booleans())
def test_very_many_damaged_files_are_noticed(sound: Sound, data: st.DataObject, signed: bool) -> None:
    any_bytes(sound, data)
    any_about(sound, data, signed)
    any_tensors(sound, data)


def test_every_single_flipped_bit_is_noticed(sound: Sound) -> None:
    for _, raw, path in sound:
        for at in range(8, len(raw), 7):
            bad = bytearray(raw)
            bad[at] ^= 1 << at % 8
            found = attempt(path, bytes(bad))
            assert found is None, f"byte {at}"


def test_what_is_no_probe_file_is_an_error_that_names_it_and_says_what_to_do(sound: Sound, tmp_path: Path) -> None:
    saved, whole, _ = sound[0]
    vector = save({"layer.1": torch.zeros(3)}, metadata={"steering-vector": "{}"})
    contents = {
        "empty": b"", "short": b"\x01", "garbage": b"not a safetensors file" * 9, "truncated": whole[:-1],
        "head-only": whole[:100], "huge-header": (2**62).to_bytes(8, "little") + whole[8:], "tail": whole + b"x",
        "pickle": b"\x80\x04\x95cos\nsystem\n", "vector": vector,
    }  # fmt: skip
    for name, data in contents.items():
        assert attempt(tmp_path / name, data) is None
    with pytest.raises(FormatError, match="vector is not a probe of this project"):
        probes.load_probe(tmp_path / "vector")
    for missing in ("missing", "."):
        with pytest.raises(FormatError, match="no probe file"):
            probes.load_probe(tmp_path / missing)
    about, tensors = parts(whole)
    tensors["direction_"][0] = float("nan")
    (tmp_path / "holes").write_bytes(put_together(about, tensors, signed=True))
    with pytest.raises(FormatError, match=r"holes holds no usable probe.*fit it anew.*direction_ holds NaN"):
        probes.load_probe(tmp_path / "holes")
    assert is_as_saved(attempt(tmp_path / "whole", whole), saved)


@pytest.mark.parametrize(
    "text",
    [
        "", "nonsense", "null", "[]", "3", "[" * 100_000, "{}", '{"format": ' + "9" * 5000 + "}",
        '{"format": "refusalkit/probe/2"}', '{"format": NaN}',
    ],
    ids=lambda text: text[:40],
)  # fmt: skip
def test_hostile_json_is_refused(text: str, tmp_path: Path) -> None:
    assert attempt(tmp_path / "hostile", save({"direction_": torch.zeros(3)}, metadata={METADATA: text})) is None
