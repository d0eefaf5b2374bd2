"""Options that several commands have: which model, how it is loaded, seed and silence."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

MAX_SEED = 2**31 - 1

ModelName = Annotated[str, typer.Argument(help="A Hub id, a folder, or organism[:VARIANT].", metavar="MODEL")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps ...")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 ...")]
DeviceMap = Annotated[str | None, typer.Option(help="Passed to transformers, e.g. auto.")]
Revision = Annotated[str | None, typer.Option(help="Hub revision.")]
ChatTemplate = Annotated[Path | None, typer.Option(help="Jinja file in place of the model's template.")]
System = Annotated[str | None, typer.Option(help="System prompt.")]
Thinking = Annotated[bool | None, typer.Option(help="Thinking mode, where the template has one.")]
Trust = Annotated[bool, typer.Option("--trust-remote-code", help="Run the checkpoint's code.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]
