"""The commands. Each imports what it needs when it runs, so that `--help` answers at once."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from typer.models import CommandInfo

from refusalkit.cli import (
    activations,
    bake,
    cliff,
    evaluate,
    export,
    guard,
    heads,
    plan,
    probe,
    repair,
    serve,
    steer,
    vector,
)
from refusalkit.cli import options as opt
from refusalkit.cli.quiet import hush

app = typer.Typer(
    help="How a language model recognises harm, decides to refuse, and loses that decision.",
    epilog="Add --debug to any command for a traceback.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
organism = typer.Typer(help="The project's own model organism.", no_args_is_help=True)
app.add_typer(organism, name="organism")
guards = typer.Typer(help="Guards that read what a model itself holds of a prompt.", no_args_is_help=True)
app.add_typer(guards, name="guard")
guards.command("fit")(guard.fit)
guards.command("score")(guard.score)
guards.command("eval")(guard.evaluate)
guards.command("serve")(serve.serve)
vectors = typer.Typer(help="Steering vectors: make, look at, calibrate, combine.", no_args_is_help=True)
app.add_typer(vectors, name="vector")
vectors.command("train")(vector.train)
vectors.command("info")(vector.info)
vectors.command("calibrate")(vector.calibrate)
vectors.command("combine")(vector.combine)
app.command()(activations.capture)
app.command()(activations.store)
app.command()(probe.probe)
app.command("eval")(evaluate.evaluate)
app.command()(cliff.cliff)
app.command()(heads.heads)
app.command()(bake.bake)
app.command()(export.export)
app.command()(repair.repair)
app.command()(plan.plan)
app.command()(steer.steer)


@app.command()
@opt.loading
def audit(
    model: opt.ModelName,
    out: Annotated[Path, typer.Option(help="Folder for the report.", file_okay=False)],
    harmful: Annotated[str | None, typer.Option(help="Harmful prompts: a file, advbench, a Hub dataset ...")] = None,
    harmless: Annotated[str | None, typer.Option(help="Harmless prompts, likewise.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Start over instead of resuming.")] = False,
    n_train: Annotated[int, typer.Option(help="Most training prompts per class.", min=8)] = 128,
    n_val: Annotated[int, typer.Option(help="Most validation prompts per class.", min=4)] = 32,
    n_test: Annotated[int, typer.Option(help="Most held-out prompts per class.", min=8)] = 100,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer in tokens.", min=1)] = 64,
    max_thought_tokens: Annotated[
        int, typer.Option(help="Longest thought and answer of a model that thinks; 0 leaves its thinking out.", min=0)
    ] = 1024,
    n_random: Annotated[int, typer.Option(help="Random directions as control.", min=8)] = 8,
    skip: Annotated[
        str | None, typer.Option(help="Sections to leave out, with commas: knows, guard, thinking, plans.")
    ] = None,
    export: Annotated[
        bool, typer.Option("--export", help="Write the vector in every format too, and a copy of the model with it.")
    ] = False,
    max_kl: Annotated[float, typer.Option(help="Most KL on harmless prompts for a candidate.", min=0)] = 0.1,
    seed: Annotated[int, typer.Option(help="For splits, draws and random directions.", min=0, max=opt.MAX_SEED)] = 0,
    loading: opt.Loading = opt.LOADING,
    quiet: opt.Quiet = False,
) -> None:
    """Audit a model: does it refuse, where does refusal live, and what happens without it?"""
    hush(quiet)
    from refusalkit.audit.pipeline import audit as run
    from refusalkit.audit.settings import Settings

    settings = Settings(
        n_train=n_train, n_val=n_val, n_test=n_test, n_random=n_random, max_new_tokens=max_new_tokens,
        max_thought_tokens=max_thought_tokens, max_kl=max_kl, seed=seed,
    )  # fmt: skip
    result = run(
        model, out, harmful=harmful, harmless=harmless, settings=settings, load_options=loading.options(),
        skip=[] if skip is None else activations.parse_names(skip), export=export,
        force=force, progress=not quiet,
    )  # fmt: skip
    typer.echo(result["headline"])
    for finding in result["findings"]:
        typer.echo(f"  [{finding['kind']}] {finding['claim']}")
    for row in (result["sections"].get("exports") or {}).get("rows", ()):
        typer.echo(f"for {row['client']}: {out / row['file'] if row['file'] else 'not written'}"
                   + (f" ({row['reason']})" if row["reason"] else ", proved"))  # fmt: skip
    typer.echo(f"report: {out / 'report.html'}")


@organism.command("train")
def organism_train(
    out: Annotated[Path, typer.Option(help="Folder; a finished stage found there is not done again.", file_okay=False)],
    seed: Annotated[int, typer.Option(help="Seed.", min=0, max=opt.MAX_SEED)] = 0,
    arch: Annotated[str, typer.Option(help="llama or qwen3.")] = "llama",
    variant: Annotated[list[str] | None, typer.Option(help="Only these variants (repeatable).")] = None,
    scale: Annotated[float, typer.Option(help="Share of the training steps, for trying out.", min=1e-4, max=100)] = 1.0,
    quiet: opt.Quiet = False,
) -> None:
    """Train the whole family from nothing (about half an hour on one core)."""
    hush(quiet)
    from interp.errors import RefusalkitError
    from interp.organism import VARIANTS
    from interp.organism.train import train
    from interp.organism.train.model import ARCHITECTURES

    if arch not in ARCHITECTURES:
        raise RefusalkitError(f"there is no organism architecture {arch!r}; known: {', '.join(ARCHITECTURES)}")
    try:
        folder = train(
            out, seed=seed, arch=arch, variants=tuple(variant) if variant else VARIANTS, scale=scale, progress=not quiet
        )
    except ValueError as error:
        raise RefusalkitError(str(error)) from error
    typer.echo(f"trained: {folder}")


@organism.command("card")
def organism_card(
    variant: Annotated[list[str] | None, typer.Option(help="Only these variants (repeatable).")] = None,
    n: Annotated[int, typer.Option(help="Prompts per cell.", min=20)] = 200,
    out: Annotated[Path, typer.Option(help="Where to write the figures.")] = Path("truth.json"),
    folder: Annotated[Path | None, typer.Option(help="A family trained here, in place of the shipped one.")] = None,
    quiet: opt.Quiet = False,
) -> None:
    """Measure the organism: planted truth and behaviour with intervals, written to truth.json."""
    hush(quiet)
    from refusalkit.card import card

    if not card(tuple(variant) if variant else None, n, out, folder, progress=not quiet):
        raise typer.Exit(1)


@app.command()
def accept(
    quiet: opt.Quiet = False,
) -> None:
    """Print the acceptance figures of every issue as one table; exit with 1 when one fails."""
    hush(quiet)
    from refusalkit.accept import accept as run

    if not run(progress=not quiet):
        raise typer.Exit(1)


@app.callback()
def _whole() -> None:
    """Keeps the names of commands, also where only one is left."""


def only(asked: Sequence[str]) -> typer.Typer:
    """The app with the command or group that is asked for alone, if there is one: typer works through all it is given.

    Args:
        asked: The first argument, or nothing.
    """
    commands = [c for c in app.registered_commands if [_name(c)] == list(asked)]
    groups = [g for g in app.registered_groups if [g.name] == list(asked)]
    if not commands and not groups:
        return app
    alone = copy.copy(app)
    alone.registered_commands, alone.registered_groups = commands, groups
    return alone


def _name(command: CommandInfo) -> str:
    return command.name or (command.callback.__name__ if command.callback else "")
