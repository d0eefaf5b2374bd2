"""`refusalkit capture` and `refusalkit store`: activations onto disk, and what is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.errors import RefusalkitError
from refusalkit.cli import options as opt
from refusalkit.cli.quiet import hush

if TYPE_CHECKING:
    from interp.activations.store.reader import Store

_SPAN = re.compile(r"(-?\d+)(?:-(\d+))?")


@opt.loading
def capture(
    model: opt.ModelName,
    out: Annotated[Path, typer.Option(help="Folder of the store; made, resumed, or added to.", file_okay=False)],
    prompts: Annotated[
        str, typer.Option(help="A file, headlines, organism, xstest (docs/prompt-sets), a Hub dataset.")
    ] = "headlines",
    sites: Annotated[str, typer.Option(help="Sites, with commas: resid_post,z ...")] = "resid_post",
    positions: Annotated[
        str, typer.Option(help="Positions, with commas: t_inst,post_inst,-1 ...; or one region: inst, all.")
    ] = "t_inst,t_post_inst",
    layers: Annotated[str | None, typer.Option(help="0-based layers: 3,5-8; all by default.")] = None,
    label: Annotated[str | None, typer.Option(help="Label of every prompt, e.g. harmful.")] = None,
    append: Annotated[bool, typer.Option("--append", help="Add prompts to a store that is there.")] = False,
    engine: Annotated[str, typer.Option(help="local, or ray (refusalkit\\[ray]).")] = "local",
    workers: Annotated[int, typer.Option(help="Ray actors, each with the model.", min=1)] = 1,
    cpus_per_worker: Annotated[float, typer.Option(help="CPUs that a Ray actor takes.", min=0)] = 0.5,
    gpus_per_worker: Annotated[float, typer.Option(help="GPUs that a Ray actor takes.", min=0)] = 0.0,
    token_budget: Annotated[int, typer.Option(help="Padded tokens per batch.", min=1)] = 2048,
    attn_implementation: Annotated[
        str | None, typer.Option(help="eager for the pattern.", rich_help_panel=opt.PANEL)
    ] = None,
    thinking: opt.Thinking = None,
    loading: opt.Loading = opt.LOADING,
    quiet: opt.Quiet = False,
) -> None:
    """Capture activations of a model onto disk; the same command resumes what was cut short."""
    chosen = parse_layers(layers)
    hush(quiet)
    import interp

    found = interp.prompts(prompts, label=label)
    options = loading.options(attn_implementation=attn_implementation, thinking=thinking)
    wanted: dict[str, Any] = {
        "sites": parse_names(sites), "positions": parse_positions(positions), "layers": chosen, "append": append,
        "out": out, "token_budget": token_budget, "progress": not quiet,
    }  # fmt: skip
    if engine == "local":
        store = interp.capture(interp.load(model, **options), found, **wanted)
    elif engine == "ray":
        given = {k: v for k, v in options.items() if v is not None}
        ray = interp.Ray(workers, cpus_per_worker, gpus_per_worker, load=given)
        store = interp.capture(model, found, engine=ray, **wanted)
    else:
        raise RefusalkitError(f"there is no engine {engine!r}; known: local, ray")
    if not quiet:
        typer.echo("captured; the store now holds:")
    _show(interp.open_store(store.path))


def store(
    path: Annotated[Path, typer.Argument(help="Folder of a store.", metavar="STORE")],
    verify: Annotated[bool, typer.Option("--verify", help="Read everything and check every checksum.")] = False,
    export: Annotated[Path | None, typer.Option(help="Write a slice to FILE.npz or FILE.parquet.")] = None,
    site: Annotated[str | None, typer.Option(help="Site to export; may be left out where there is one.")] = None,
    layers: Annotated[str | None, typer.Option(help="Layers to export: 3,5-8; all by default.")] = None,
    positions: Annotated[str | None, typer.Option(help="Positions to export, with commas; all by default.")] = None,
    quiet: opt.Quiet = False,
) -> None:
    """Describe a store; check it, or export a slice of it."""
    if export is not None and export.suffix not in (".npz", ".parquet"):
        raise RefusalkitError(f"cannot tell the format of {export}: end its name in .npz or .parquet")
    chosen = parse_layers(layers)
    import interp

    found = interp.open_store(path)
    _show(found)
    if verify:
        found.verify(progress=not quiet)
        if not found.done.any():
            typer.echo("nothing is captured yet, so there is nothing to check")
        else:
            typer.echo("every checksum holds" + ("" if found.complete else ", of what is captured so far"))
    if export is not None and not found.complete:
        typer.echo(f"exporting the {int(found.done.sum()):,} rows of {len(found):,} that are captured")
        found = found.take(found.done)
    if export is not None:
        write = found.to_npz if export.suffix == ".npz" else found.to_parquet
        names = None if positions is None else parse_positions(positions)
        typer.echo(f"written: {write(export, site, chosen, names)}")


def parse_names(text: str) -> list[str]:
    """`"a, b"` as names."""
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not names:
        raise RefusalkitError("an empty list was given; leave the option out for its default")
    return names


def parse_positions(text: str) -> list[str | int]:
    """Names and whole numbers."""
    return [int(name) if re.fullmatch(r"-?\d+", name) else name for name in parse_names(text)]


def parse_layers(text: str | None) -> list[int] | None:
    """`"3,5-8"` as layers; `None` stays `None`."""
    if text is None:
        return None
    found: list[int] = []
    for part in parse_names(text):
        match = _SPAN.fullmatch(part)
        if match is None or (match[2] and int(match[2]) < int(match[1])):
            raise RefusalkitError(f"{part!r} is no layer and no range of layers; give for instance 3,5-8")
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    return list(dict.fromkeys(found))


def _show(store: Store) -> None:
    from rich.console import Console
    from rich.table import Table

    about = store.describe()
    table = Table(show_header=False, box=None)
    rows = {
        "store": about["path"],
        "model": _model(about["provenance"]),
        "prompts": f"{about['prompts']:,}" + _labels(about["labels"]),
        "captured": "all" if about["complete"] else f"{about['rows_done']:,} of {about['rows']:,} rows",
        "sites": ", ".join(f"{name} [{v['width']}, {v['dtype']}]" for name, v in about["sites"].items()),
        "layers": ", ".join(map(str, about["layers"])),
        "positions": ", ".join(about["positions"]),
        "size": f"{about['bytes'] / 1e6:,.1f} MB in {len(about['segments'])} segment(s)",
    }
    for name, value in rows.items():
        table.add_row(name, value, style=None)
    console = Console(highlight=False)
    console.print(table, soft_wrap=True, markup=False)


def _model(provenance: dict[str, Any]) -> str:
    model = provenance.get("model", {})
    return ", ".join(str(v) for v in (model.get("name"), provenance.get("architecture"), provenance.get("dtype")) if v)


def _labels(labels: dict[str, int]) -> str:
    named = {k: n for k, n in labels.items() if k != "None"}
    return f" ({', '.join(f'{n:,} {k}' for k, n in named.items())})" if named else ""
