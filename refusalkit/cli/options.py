"""Options that several commands have: which model, how it is loaded, seed and silence."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from interp.model.model import Model

MAX_SEED = 2**31 - 1
PANEL = "How the model is loaded"

ModelName = Annotated[str, typer.Argument(help="A Hub id, a folder, or organism[:VARIANT].", metavar="MODEL")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps ...", rich_help_panel=PANEL)]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 ...", rich_help_panel=PANEL)]
DeviceMap = Annotated[str | None, typer.Option(help="Passed to transformers, e.g. auto.", rich_help_panel=PANEL)]
Revision = Annotated[str | None, typer.Option(help="Hub revision.", rich_help_panel=PANEL)]
ChatTemplate = Annotated[
    Path | None, typer.Option(help="Jinja file in place of the model's template.", rich_help_panel=PANEL)
]
System = Annotated[str | None, typer.Option(help="System prompt.", rich_help_panel=PANEL)]
Thinking = Annotated[
    bool | None, typer.Option(help="Thinking mode, where the template has one.", rich_help_panel=PANEL)
]
Trust = Annotated[bool, typer.Option("--trust-remote-code", help="Run the checkpoint's code.", rich_help_panel=PANEL)]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]


@dataclass(frozen=True)
class Loading:
    """How a model is loaded; in a command that is `loading`, each field is an option."""

    device: Device = None
    dtype: Dtype = "auto"
    device_map: DeviceMap = None
    revision: Revision = None
    chat_template: ChatTemplate = None
    system: System = None
    trust_remote_code: Trust = False

    def options(self, **more: Any) -> dict[str, Any]:
        """Arguments of `interp.load`."""
        return {**asdict(self), **more}

    def load(self, model: str, **more: Any) -> Model:
        """The model, loaded; `more` is what the command asks beside, or in place of, these."""
        import interp

        return interp.load(model, **self.options(**more))


LOADING = Loading()


def loading(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `Loading` in place of its parameter `loading`.

    An option that the command has itself is its own, and not handed over.
    """
    signature = inspect.signature(command, eval_str=True)
    known = inspect.signature(Loading, eval_str=True).parameters
    taken = [name for name in known if name not in signature.parameters]
    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        parameters += [known[name] for name in taken] if parameter.name == "loading" else [parameter]

    @wraps(command)
    def run(**given: Any) -> None:
        how = Loading(**{name: given.pop(name) for name in taken})
        command(loading=how, **given)

    run.__dict__["__signature__"] = signature.replace(parameters=parameters)
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run
