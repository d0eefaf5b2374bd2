"""`refusalkit guard serve`: the guard behind an HTTP endpoint."""

from __future__ import annotations

import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

import typer

from interp.errors import RefusalkitError
from refusalkit.cli import options as opt
from refusalkit.cli.quiet import hush


@opt.loading
def serve(
    guard: Annotated[Path, typer.Argument(help="A guard that was fitted and saved.", metavar="GUARD")],
    model: Annotated[
        str | None, typer.Option(help="A Hub id, a folder, or organism[:VARIANT]; the guard's own by default.")
    ] = None,
    model_name: Annotated[
        list[str] | None,
        typer.Option(help="A name that requests may give as model, beside the guard's own (repeatable)."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one and prints it.", min=0, max=65535)] = 8000,
    max_batch: Annotated[int, typer.Option(help="Most texts that the model is given at once.", min=1)] = 32,
    max_wait_ms: Annotated[float, typer.Option(help="How long a text waits for company in its batch.", min=0)] = 5.0,
    max_body: Annotated[int, typer.Option(help="Most bytes of a request.", min=1)] = 1_000_000,
    max_inputs: Annotated[int, typer.Option(help="Most inputs of a request.", min=1)] = 128,
    max_chars: Annotated[int, typer.Option(help="Most characters of an input.", min=1)] = 100_000,
    max_queue: Annotated[int, typer.Option(help="Most texts waiting; beyond them, 503.", min=1)] = 2048,
    max_requests: Annotated[int, typer.Option(help="Most requests at once; beyond them, 503.", min=1)] = 1024,
    read_timeout: Annotated[float, typer.Option(help="Seconds for a request to arrive.", min=0.01)] = 10.0,
    answer_timeout: Annotated[float, typer.Option(help="Seconds to answer it.", min=0.01)] = 60.0,
    log_prompts: Annotated[bool, typer.Option("--log-prompts", help="Write prompts to the log.")] = False,
    allow_other_model: Annotated[
        bool, typer.Option("--allow-other-model", help="Take a model other than the guard's, a fine-tune say.")
    ] = False,
    system: Annotated[
        str | None, typer.Option(help="System prompt; that of the fit by default.", rich_help_panel=opt.PANEL)
    ] = None,
    loading: opt.Loading = opt.LOADING,
    quiet: Annotated[bool, typer.Option("--quiet", help="Log errors only.")] = False,
) -> None:
    """Serve a guard over HTTP, shaped as OpenAI's moderations endpoint. It has no TLS and no authentication."""
    hush(quiet)
    try:
        from refusalkit.serve.server import bind, run
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "starlette", "uvicorn", "h11"):
            raise
        raise RefusalkitError(
            f"serving needs {error.name}, which is not installed: pip install 'refusalkit[serve]'"
        ) from error
    from refusalkit.serve.limits import Limits

    limits = Limits(
        max_batch=max_batch, max_wait_ms=max_wait_ms, max_body=max_body, max_inputs=max_inputs, max_chars=max_chars,
        max_queue=max_queue, max_requests=max_requests, read_timeout=read_timeout, answer_timeout=answer_timeout,
    )  # fmt: skip
    with bind(host, port) as listener:
        from refusalkit.serve.app import create_app
        from refusalkit.serve.guard import open_guard

        served = open_guard(guard, model, loading.options(system=system), allow_other_model)
        app = create_app(
            served, limits, model=served.model, digest=served.digest, model_names=model_name or (),
            log_prompts=log_prompts,
        )  # fmt: skip
        _log(quiet)
        if not ip_address(listener.getsockname()[0]).is_loopback:
            typer.echo("anybody who reaches this address may ask: put a proxy with TLS and a login before it", err=True)
        run(app, listener, limits, lambda url: typer.echo(f"serving {served.name} at {url}"))


def _log(quiet: bool) -> None:
    """One line per request on standard error."""
    import logging

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger().addHandler(handler)
    logging.getLogger("refusalkit.serve").setLevel(logging.ERROR if quiet else logging.INFO)
