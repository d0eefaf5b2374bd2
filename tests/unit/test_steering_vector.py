"""`SteeringVector`: what is saved is what is loaded, sums are sums, and a stranger's file is a clear error at worst."""

from __future__ import annotations

import contextlib
import hashlib
import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import Tensor

from interp import Direction, edits
from interp.errors import DirectionError, EditError, FormatError, RefusalkitError
from interp.tensorfile import digest_of
from steering import SteeringVector
from steering.vector import FORMAT, METADATA
from tests.helpers.slow import PROMPTS, lively

WIDTH = 48


def noise(seed: int, width: int = WIDTH) -> Tensor:
    return torch.randn(width, generator=torch.Generator().manual_seed(seed))


def direction(layer: int = 1, seed: int = 0, **changes: Any) -> Direction:
    fields: dict[str, Any] = {"site": "resid_pre", "position": "post_inst[-1]", "name": "refusal"} | changes
    return Direction(noise(seed), layer=layer, provenance={"model": {"id": "tiny"}, "n": 3}, **fields)


def vector(**changes: Any) -> SteeringVector:
    fields: dict[str, Any] = {
        "vectors": {2: noise(2), 0: noise(1)}, "coefficient": 1.5, "provenance": {"a": {"b": [1, None, "ü"]}, "z": 0.5}
    }  # fmt: skip
    return SteeringVector(**(fields | changes))


def same(a: SteeringVector, b: SteeringVector) -> bool:
    fields = ("site", "coefficient", "positions", "phase", "layers")
    return all(getattr(a, f) == getattr(b, f) for f in fields) and all(
        torch.equal(a.vectors[n], b.vectors[n]) for n in a.layers
    )


def total(v: SteeringVector, layer: int) -> Tensor:
    """What is added at a layer."""
    return v.coefficient * v.vectors[layer]


# --- making one ------------------------------------------------------------------------------------------------------


def test_a_direction_gives_the_vector_at_its_own_place() -> None:
    d = direction(layer=2)
    made = SteeringVector.from_direction(d, 0.5)
    assert (made.site, made.layers, made.coefficient, made.positions, made.phase) == (
        "resid_pre", (2,), 0.5, ("all",), "both"
    )  # fmt: skip
    assert torch.equal(made.vectors[2], d.vector)
    assert made.norms == pytest.approx({2: 0.5 * d.norm})
    assert made.provenance["model"] == {"id": "tiny"}
    assert made.provenance["directions"] == [
        {"name": "refusal", "layer": 2, "position": "post_inst[-1]", "norm": d.norm}
    ]


def test_several_directions_give_several_layers_in_order() -> None:
    made = SteeringVector.from_direction([direction(2), direction(0, seed=4)])
    assert made.layers == (0, 2)
    assert torch.equal(made.vectors[0], noise(4))


@pytest.mark.parametrize(
    "directions",
    [[], [direction(1), direction(1, seed=2)], [direction(1), direction(2, site="resid_post")]],
    ids=["none", "one layer twice", "two sites"],
)
def test_directions_that_do_not_go_together_are_an_error(directions: list[Direction]) -> None:
    with pytest.raises(DirectionError, match="one site and different layers"):
        SteeringVector.from_direction(directions)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vectors": {}}, "at least one layer"),
        ({"vectors": {0: noise(1), 1: noise(1, 8)}}, "widths differ"),
        ({"vectors": {0: torch.zeros(2, 3)}}, "not \\[width\\]"),
        ({"vectors": {0: torch.zeros(0)}}, "not \\[width\\]"),
        ({"vectors": {0: torch.tensor([1.0, float("nan")])}}, "NaN or infinite"),
        ({"vectors": {0: torch.tensor([1e300], dtype=torch.float64)}}, "NaN or infinite"),
        ({"vectors": {-1: noise(1)}}, "from 0 up"),
        ({"vectors": {"1": noise(1)}}, "whole numbers"),
        ({"vectors": {1.5: noise(1)}}, "whole numbers"),
        ({"site": "residual"}, "unknown site"),
        ({"coefficient": float("nan")}, "finite number"),
        ({"coefficient": float("inf")}, "finite number"),
        ({"positions": ()}, "at least one position"),
        ({"phase": "thinking"}, "unknown phase"),
    ],
)
def test_what_cannot_steer_is_refused_when_it_is_made(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RefusalkitError, match=message):
        vector(**changes)


def test_a_vector_keeps_its_numbers_when_the_tensor_it_came_from_changes() -> None:
    source = noise(1)
    made, d = vector(vectors={0: source}), Direction(source, "resid_pre", 0, "last")
    source.zero_()
    assert torch.equal(made.vectors[0], noise(1)) and torch.equal(d.vector, noise(1))


def test_one_position_may_be_given_bare(tmp_path: Path) -> None:
    made = vector(positions="t_inst", phase="prompt")
    assert made.positions == ("t_inst",)
    assert same(SteeringVector.load(made.save(tmp_path / "v")), made)
    assert vector(positions=["t_inst", -1]).positions == ("t_inst", -1)


# --- algebra ---------------------------------------------------------------------------------------------------------


def test_multiples_and_signs() -> None:
    v = vector()
    for made, factor in ((v * 2, 3.0), (2 * v, 3.0), (-v, -1.5), (v * 0, 0.0), (v * -0.5, -0.75)):
        assert made.coefficient == factor
        assert torch.equal(made.vectors[0], v.vectors[0])
    assert v.coefficient == 1.5, "the original is left alone"


def test_sums_and_differences_weigh_by_coefficient_and_join_layers() -> None:
    a, b = vector(vectors={0: noise(1), 2: noise(2)}), vector(vectors={1: noise(3), 2: noise(4)}, coefficient=-2.0)
    plus, minus = a + b, a - b
    assert plus.layers == minus.layers == (0, 1, 2)
    torch.testing.assert_close(total(plus, 0), 1.5 * noise(1))
    torch.testing.assert_close(total(plus, 1), -2 * noise(3))
    torch.testing.assert_close(total(plus, 2), 1.5 * noise(2) - 2 * noise(4))
    torch.testing.assert_close(total(minus, 2), 1.5 * noise(2) + 2 * noise(4))
    torch.testing.assert_close(total(a - a, 0), torch.zeros(WIDTH))
    torch.testing.assert_close(total((plus - b) * 2, 2), total(a, 2) * 2)


def test_a_sum_remembers_its_terms_and_their_signs(tmp_path: Path) -> None:
    a, b = vector(provenance={"of": "a"}), vector(provenance={"of": "b"}, vectors={1: noise(1)})
    terms = ((a - b) * 2 + a).provenance["sum_of"]
    assert [(t["coefficient"], t["layers"], t["provenance"]) for t in terms] == [
        (3.0, [0, 2], {"of": "a"}), (-3.0, [1], {"of": "b"}), (1.5, [0, 2], {"of": "a"})
    ]  # fmt: skip
    long = a
    for _ in range(1500):
        long = long + b
    assert len(SteeringVector.load(long.save(tmp_path / "long")).provenance["sum_of"]) == 1501


@pytest.mark.parametrize(
    "other",
    [{"site": "resid_post"}, {"positions": ("t_inst",)}, {"phase": "prompt"}, {"vectors": {0: noise(1, 8)}}],
    ids=["site", "positions", "phase", "width"],
)
def test_vectors_that_act_differently_cannot_be_added(other: dict[str, Any]) -> None:
    with pytest.raises(DirectionError, match="cannot be added|differ"):
        vector() + vector(**other)
    with pytest.raises(DirectionError, match="cannot be added|differ"):
        vector() - vector(**other)


def test_only_vectors_can_be_added() -> None:
    for other in (1, None, noise(1)):
        with pytest.raises(TypeError):
            vector() + other


# --- acting ----------------------------------------------------------------------------------------------------------


def test_generating_with_a_vector_is_generating_with_the_same_edits_by_hand() -> None:
    model, v = lively(), vector(vectors={0: noise(1), 2: noise(2)}, coefficient=3.0)
    by_hand = [
        edits.add(noise(1), 3.0, site="resid_pre", layer=0, phase="both"),
        edits.add(noise(2), 3.0, site="resid_pre", layer=2, phase="both"),
    ]
    plain = [c.ids for c in model.generate(PROMPTS, max_new_tokens=6)]
    steered = [c.ids for c in model.generate(PROMPTS, max_new_tokens=6, edits=v)]
    assert steered == [c.ids for c in model.generate(PROMPTS, max_new_tokens=6, edits=by_hand)]
    assert steered == [c.ids for c in model.generate(PROMPTS, max_new_tokens=6, edits=[v])]
    assert steered != plain
    assert [c.ids for c in model.generate(PROMPTS, max_new_tokens=6, edits=v * 0)] == plain
    torch.testing.assert_close(model.logits(PROMPTS, edits=[v]), model.logits(PROMPTS, edits=by_hand))


def test_positions_and_phase_reach_the_edits() -> None:
    model, v = lively(), vector(positions=("t_inst",), phase="prompt", coefficient=4.0)
    by_hand = [edits.add(noise(s), 4.0, site="resid_pre", layer=n, positions="t_inst") for s, n in ((1, 0), (2, 2))]
    got = model.logits(PROMPTS, edits=[v])
    torch.testing.assert_close(got, model.logits(PROMPTS, edits=by_hand))
    assert not torch.allclose(got, model.logits(PROMPTS, edits=[vector(coefficient=4.0)]))


def test_a_vector_of_the_wrong_width_or_layer_does_not_act_silently() -> None:
    with pytest.raises(DirectionError, match="does not fit"):
        lively().generate(PROMPTS[:1], max_new_tokens=2, edits=vector(vectors={0: noise(1, 8)}))
    with pytest.raises(RefusalkitError, match="out of range"):
        lively().generate(PROMPTS[:1], max_new_tokens=2, edits=vector(vectors={3: noise(1)}))
    with pytest.raises(EditError, match="no edit"):
        lively().generate(PROMPTS[:1], max_new_tokens=2, edits=[noise(1)])


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_file_brings_back_every_field_and_saves_to_the_same_bytes(tmp_path: Path) -> None:
    v = vector(site="resid_post", positions=("t_inst", -1), phase="prompt", coefficient=-0.1)
    path = v.save(tmp_path / "a.safetensors")
    back = SteeringVector.load(path)
    assert same(back, v)
    assert back.provenance == v.provenance
    assert back.save(tmp_path / "b.safetensors").read_bytes() == path.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"], "nothing half-written"


def test_the_same_vector_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    code = (
        "import sys, torch; from steering import SteeringVector; SteeringVector({1: torch.ones(4), 0: torch.zeros(4)}, "
        "provenance={'b': 1, 'a': 2}).save(sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "there")], check=True)
    here = SteeringVector({0: torch.zeros(4), 1: torch.ones(4)}, provenance={"a": 2, "b": 1})
    digests = {hashlib.sha256(here.save(tmp_path / f"here{i}").read_bytes()).hexdigest() for i in range(20)}
    assert digests == {hashlib.sha256((tmp_path / "there").read_bytes()).hexdigest()}


def test_layers_may_share_one_tensor(tmp_path: Path) -> None:
    shared = noise(1)
    v = vector(vectors={0: shared, 1: shared, 2: torch.stack([shared, shared])[1], 10: shared[:]})
    assert same(SteeringVector.load(v.save(tmp_path / "v")), v)


def test_saving_over_a_file_replaces_it_and_what_cannot_be_written_says_why(tmp_path: Path) -> None:
    path = vector().save(tmp_path / "v")
    (vector() * 2).save(path)
    assert SteeringVector.load(path).coefficient == 3.0
    with pytest.raises(FormatError, match="cannot write"):
        vector().save(tmp_path / "no such folder" / "v")
    with pytest.raises(FormatError, match="cannot write"):
        vector().save(tmp_path)
    for provenance in ({"t": noise(1)}, {"n": float("nan")}):
        with pytest.raises(FormatError, match="provenance"):
            vector(provenance=provenance).save(path)
    assert SteeringVector.load(path).coefficient == 3.0, "the old file stays"
    assert [p.name for p in tmp_path.iterdir()] == ["v"]
    assert not list(tmp_path.parent.glob("*.partial"))


ABOUT: dict[str, Any] = {
    "format": FORMAT, "site": "resid_pre", "coefficient": 1.0, "positions": ["all"], "phase": "both", "layers": [1],
    "provenance": {},
}  # fmt: skip


def write(path: Path, about: Any, tensors: dict[str, Tensor] | None = None, key: str = METADATA) -> Path:
    """A file as somebody would make it who knows how the digest is made."""
    tensors = {"layer.1": noise(1)} if tensors is None else tensors
    if isinstance(about, dict) and about.get("format") == FORMAT:
        with contextlib.suppress(FormatError):
            about = about | {"digest": digest_of(METADATA, about, tensors)}
    text = about if isinstance(about, str) else json.dumps(about)
    path.write_bytes(save(tensors, metadata={key: text}))
    return path


def test_the_file_made_by_hand_is_a_good_one(tmp_path: Path) -> None:
    assert SteeringVector.load(write(tmp_path / "v", ABOUT)).layers == (1,)
    half = write(tmp_path / "h", ABOUT, {"layer.1": noise(1).half()})
    assert SteeringVector.load(half).vectors[1].dtype == torch.float32
    old = ABOUT | {"format": "refusalkit/steering-vector/1"}
    assert SteeringVector.load(write(tmp_path / "old", old)).layers == (1,), "files from before there was a digest"
    with pytest.raises(FormatError, match="digest"):
        SteeringVector.load(write(tmp_path / "v", old | {"digest": "0" * 64}))


def test_an_edit_that_leaves_a_good_file_is_noticed_by_the_digest(tmp_path: Path) -> None:
    path = vector(provenance={"who": "me", "by layer": {2: 0.5, 10: 1}}).save(tmp_path / "v")
    whole = path.read_bytes()
    assert SteeringVector.load(path).provenance["by layer"] == {"2": 0.5, "10": 1}
    for old, new in ((b"who", b"why"), (b"1.5", b"2.5"), (b"resid_pre", b"resid_mid"), (whole[-4:], b"abcd")):
        path.write_bytes(whole.replace(old, new))
        with pytest.raises(FormatError, match="digest"):
            SteeringVector.load(path)


def test_what_is_no_vector_file_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    whole = vector().save(tmp_path / "v").read_bytes()
    contents = {
        "empty": b"", "short": b"\x01", "garbage": b"not a safetensors file" * 9, "truncated": whole[:-1],
        "head only": whole[:100], "huge header": struct.pack("<Q", 2**62) + whole[8:], "tail": whole + b"x",
        "pickle": b"\x80\x04\x95cos\nsystem\n", "other": save({"layer.1": noise(1)}),
        "foreign": save({"layer.1": noise(1)}, metadata={"format": "pt"}),
    }  # fmt: skip
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(FormatError, match=name):
            SteeringVector.load(tmp_path / name)
    for missing in ("missing", "."):
        with pytest.raises(FormatError, match="no vector file"):
            SteeringVector.load(tmp_path / missing)


@pytest.mark.parametrize(
    "about",
    [
        "", "nonsense", "null", "[]", "3", '"text"', "[" * 100_000, "{}", '{"format": ' + "9" * 5000 + "}",
        *({k: v for k, v in ABOUT.items() if k != gone} for gone in ABOUT),
        *(ABOUT | change for change in (
            {"format": "refusalkit/steering-vector/3"}, {"format": None}, {"format": []},
            {"site": "nowhere"}, {"site": 3}, {"site": None}, {"site": ["resid_pre"]},
            {"coefficient": "1"}, {"coefficient": None}, {"coefficient": True}, {"coefficient": [1]},
            {"coefficient": 10**400}, {"coefficient": float("nan")}, {"coefficient": float("inf")},
            {"positions": "all"}, {"positions": []}, {"positions": [None]}, {"positions": [1.5]},
            {"positions": [True]}, {"positions": [["all"]]}, {"positions": {"all": 1}},
            {"phase": "thought"}, {"phase": 1}, {"phase": []}, {"phase": None},
            {"layers": []}, {"layers": [0]}, {"layers": [1, 2]}, {"layers": 1}, {"layers": "1"}, {"layers": ["1"]},
            {"layers": [1.0]}, {"layers": [True]}, {"layers": [-1]}, {"layers": [10**30]}, {"layers": {"1": 2}},
            {"provenance": None}, {"provenance": []}, {"provenance": [["a", 1]]}, {"provenance": "x"},
        )),
    ],
    ids=lambda about: str(about)[:60],
)  # fmt: skip
def test_hostile_metadata_is_a_format_or_direction_error(about: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "hostile", about)
    with pytest.raises((FormatError, DirectionError), match="hostile"):
        SteeringVector.load(path)


@pytest.mark.parametrize(
    "tensors",
    [
        {}, {"layer.1": torch.tensor([float("nan")])}, {"layer.1": torch.zeros(2, 2)}, {"layer.1": torch.tensor(1.0)},
        {"layer.1": torch.zeros(0)}, {"layer.1": noise(1), "layer.2": noise(1)}, {"layer.01": noise(1)},
        {"layer.x": noise(1)}, {"vector": noise(1)}, {"layer.1": torch.tensor([1e300], dtype=torch.float64)},
    ],
    ids=str,
)  # fmt: skip
def test_hostile_tensors_are_a_format_or_direction_error(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path = write(tmp_path / "hostile", ABOUT, tensors)
    with pytest.raises((FormatError, DirectionError), match="hostile"):
        SteeringVector.load(path)


def test_layers_of_different_width_in_a_file_are_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "v", ABOUT | {"layers": [1, 2]}, {"layer.1": noise(1), "layer.2": noise(1, 8)})
    with pytest.raises(DirectionError, match="widths differ"):
        SteeringVector.load(path)


@settings(max_examples=120, deadline=None)
@given(
    flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), max_size=4),
    cut=st.one_of(st.none(), st.integers(0, 10_000)),
    start=st.integers(0, 400),
)
def test_damaged_bytes_load_as_a_vector_or_raise_a_format_or_direction_error(
    flips: list[tuple[int, int]], cut: int | None, start: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    data = bytearray(SteeringVector({0: noise(1, 4)}, provenance={"x": 1}).save(folder / "whole").read_bytes())
    for where, change in flips:
        data[(start + where) % len(data)] ^= change
    if cut is not None:
        del data[cut % len(data) :]
    (folder / "damaged").write_bytes(bytes(data))
    try:
        loaded = SteeringVector.load(folder / "damaged")
    except (FormatError, DirectionError):
        return
    assert all(bool(torch.isfinite(v).all()) for v in loaded.vectors.values())
    loaded.edits()
