"""What a file says, by the conventions of the program it is for.

Nothing here goes through our own readers or edits: a file is opened by its format's own library, and what it holds is
hooked into the Hugging Face model where the other program would put it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from interp.errors import FormatError
from interp.model.model import Model


@dataclass(frozen=True)
class Reading:
    """A vector that a file says is added to a block.

    Attributes:
        block: 0-based.
        enters: Whether it is added to what enters the block, rather than to what leaves it.
        value: The vector.
        positions: Tokens of the prompt, as the file names them.
        phase: Prompt, generation or both.
    """

    block: int
    enters: bool
    value: Tensor
    positions: tuple[Any, ...] = ("all",)
    phase: str = "both"


class Stage:
    """What is running while the hooks of readings are on, told by whoever runs it.

    Attributes:
        columns: For each selection of positions, the tokens of the prompt that is run; `None` for all.
        answering: Whether it is a generated token that is run, rather than the prompt.
    """

    def __init__(self) -> None:
        self.columns: dict[tuple[Any, ...], list[int] | None] = {}
        self.answering = False

    def change(self, reading: Reading, x: Tensor) -> Tensor:
        """The stream `[1, token, width]` with the vector added where the file says."""
        moved = x + reading.value.to(x)
        if self.answering:
            return x if reading.phase == "prompt" else moved
        if reading.phase == "generation":
            return x
        columns = self.columns.get(reading.positions)
        if columns is None:
            return moved
        out = x.clone()
        out[:, columns] = moved[:, columns]
        return out


@contextmanager
def hooked(model: Model, readings: Sequence[Reading]) -> Generator[Stage]:
    """Plain torch hooks that do what a file says."""
    stage = Stage()
    with ExitStack() as stack:
        for reading in readings:
            stack.callback(_hook(model.arch.blocks[reading.block], reading, stage).remove)
        yield stage


def _hook(block: nn.Module, reading: Reading, stage: Stage) -> Any:
    def entering(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        if args:
            return (stage.change(reading, args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": stage.change(reading, kwargs["hidden_states"])}

    def leaving(_module: Any, _args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (stage.change(reading, output[0]), *output[1:])
        return stage.change(reading, output)

    if reading.enters:
        return block.register_forward_pre_hook(entering, with_kwargs=True)
    return block.register_forward_hook(leaving)


def _safetensors(path: Path) -> list[Reading]:
    """Ours: `layer.L`, and in the metadata site, coefficient, positions and phase."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["steering-vector"])
        named = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    if about["site"] not in ("resid_pre", "resid_post"):
        raise FormatError(
            f"a vector at {about['site']} is proved nowhere but here: plain hooks are put on what enters and leaves a "
            "block (resid_pre, resid_post)"
        )
    where: dict[str, Any] = {"positions": tuple(about["positions"]), "phase": about["phase"]}
    return [
        Reading(int(name.removeprefix("layer.")), about["site"] == "resid_pre", about["coefficient"] * value, **where)
        for name, value in named.items()
    ]


def _gguf(path: Path) -> list[Reading]:
    """llama.cpp, repeng, EasySteer: `direction.L` is added to what leaves block L, at every token."""
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise FormatError(f"the proof reads GGUF with gguf ({error}): pip install refusalkit[export]") from error
    return [
        Reading(int(tensor.name.removeprefix("direction.")), False, torch.tensor(tensor.data))
        for tensor in GGUFReader(path).tensors
    ]


def _llama_cpp(path: Path) -> list[Reading]:
    """llama.cpp skips a file that names block 0."""
    found = _gguf(path)
    if any(reading.block == 0 for reading in found):
        raise FormatError(f"{path} names block 0 (direction.0), which llama.cpp refuses")
    return found


def _svec(path: Path) -> list[Reading]:
    """IBM's activation-steering wraps a layer and adds to what enters it (`LeashLayer.forward`), at every token."""
    directions = json.loads(path.read_text(encoding="utf-8"))["directions"]
    return [Reading(int(layer), True, torch.tensor(values)) for layer, values in directions.items()]


def _refusal_direction(path: Path) -> list[Reading]:
    """Arditi et al.: `direction.pt` is added to what enters block `layer`, at every token."""
    where = json.loads((path / "direction_metadata.json").read_text(encoding="utf-8"))
    return [Reading(int(where["layer"]), True, torch.load(path / "direction.pt", weights_only=True))]


READERS: Mapping[str, tuple[Callable[[Path], list[Reading]], str]] = {
    "safetensors": (_safetensors, "safetensors; at the site, positions and phase in its metadata"),
    "gguf": (_llama_cpp, "gguf; direction.L added to what leaves block L, as llama.cpp does"),
    "repeng": (_gguf, "gguf; direction.L added to what leaves block L, as repeng does"),
    "easysteer": (_gguf, "gguf; direction.L added to what leaves block L, as EasySteer does"),
    "svec": (_svec, "json; directions L added to what enters block L, as IBM's LeashLayer does"),
    "refusal_direction": (_refusal_direction, "torch (weights only); added to what enters block `layer`"),
}  # fmt: skip
"""For each format its reading, and in words by what and how it is read."""


def read_as(format: str, path: Path, model: Model) -> list[Reading]:
    """What a file of a format says.

    Raises:
        FormatError: When it does not follow the format, or speaks of another model.
    """
    read, _ = READERS[format]
    try:
        found = read(path)
    except FormatError:
        raise
    except Exception as error:  # whatever a library raises for a file that is not its own
        raise FormatError(f"{path} cannot be read as {format}: {error!r:.200}") from error
    if not found:
        raise FormatError(f"{path} holds no vector")
    for one in found:
        if not 0 <= one.block < model.n_layers:
            raise FormatError(f"{path} speaks of block {one.block}, and the model has {model.n_layers}")
        if one.value.shape != (model.d_model,):
            raise FormatError(
                f"{path} adds a vector of shape {list(one.value.shape)} to a stream {model.d_model} wide; was it made "
                "for another model?"
            )
    return found
