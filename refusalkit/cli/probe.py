"""`refusalkit probe`: what can be read where, from a store or from a model and prompts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interp.errors import RefusalkitError, StoreError
from refusalkit.cli import options as opt
from refusalkit.cli.activations import parse_layers, parse_names, parse_positions
from refusalkit.cli.labelled import Harmful, Harmless, Prompts, labelled
from refusalkit.cli.quiet import hush

if TYPE_CHECKING:
    from interp.activations.labelled import Labelled
    from interp.model.model import Model
    from probes.sweeps import Sweep

_DEFAULT_POSITIONS = "t_inst,t_post_inst"


@opt.loading
def probe(
    out: Annotated[Path, typer.Option(help="Folder for table, probe and figure.", file_okay=False)],
    model: Annotated[
        str | None, typer.Argument(help="A Hub id, a folder, or organism[:VARIANT].", metavar="[MODEL]")
    ] = None,
    store: Annotated[Path | None, typer.Option(help="Activations that were captured before.")] = None,
    prompts: Prompts = None,
    harmful: Harmful = None,
    harmless: Harmless = None,
    sites: Annotated[str | None, typer.Option(help="Sites, with commas; resid_post, or all of the store.")] = None,
    layers: Annotated[str | None, typer.Option(help="0-based layers: 3,5-8; all by default.")] = None,
    positions: Annotated[
        str | None, typer.Option(help="Positions, with commas; t_inst,t_post_inst, or all of the store.")
    ] = None,
    probe: Annotated[
        str, typer.Option(help="logistic, ridge, mean_difference, whitened_mean_difference, nearest_centroid, mlp.")
    ] = "logistic",
    positive: Annotated[str | None, typer.Option(help="Label of the class to read; harmful by default.")] = None,
    cv: Annotated[int | None, typer.Option(help="Folds to choose by; the prompts' val split, or 5.", min=2)] = None,
    alpha: Annotated[float, typer.Option(help="Probability of a find where there is none.")] = 0.01,
    seed: Annotated[int, typer.Option(help="For split, permutations and bootstrap.", min=0, max=opt.MAX_SEED)] = 0,
    loading: opt.Loading = opt.LOADING,
    quiet: opt.Quiet = False,
) -> None:
    """Sweep a probe over layers and positions, with its controls; write table, best probe and figure."""
    chosen, names = parse_layers(layers), None if positions is None else parse_positions(positions)
    where = None if sites is None else parse_names(sites)
    if store is not None and (prompts or harmful or harmless):
        raise RefusalkitError("--store brings its own prompts: leave --prompts, --harmful and --harmless out")
    if model is None and store is None:
        raise RefusalkitError("give a MODEL and prompts, or --store with activations that were captured before")
    hush(quiet)
    import interp
    import probes

    found = labelled(prompts, harmful, harmless) if store is None else None
    loaded = None if model is None else loading.load(model)
    if store is not None:
        acts: Labelled = interp.open_store(store)
        if loaded is not None:
            _same_model(acts, loaded)
    else:
        assert loaded is not None and found is not None
        acts = interp.capture(
            loaded, found, where or "resid_post", names or parse_positions(_DEFAULT_POSITIONS), chosen,
            progress=not quiet,
        )  # fmt: skip
    result = probes.sweep(
        acts, probe=probe, positive=positive, sites=where, layers=chosen, positions=names, cv=cv, alpha=alpha,
        seed=seed, model=loaded, progress=not quiet,
    )  # fmt: skip
    _write(result, out)
    typer.echo(result.verdict)
    _show(result)
    typer.echo(f"written: {out / 'sweep.html'}, sweep.csv, sweep.json, probe.safetensors")


def _same_model(acts: Labelled, model: Model) -> None:
    """The control on token embeddings has to come from the model that the activations come from."""
    mine, theirs = model.provenance()["model"], acts.provenance.get("model")
    if mine != theirs:
        raise StoreError(
            f"the store was captured from another model, {theirs} and not {mine}: name that one, or leave MODEL out"
        )


def _write(result: Sweep, out: Path) -> None:
    from interp.provenance import write_json, write_text

    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "sweep.json", result.describe())
    write_text(out / "sweep.csv", result.to_frame().to_csv(index=False))
    best = result.best
    result.probe.save(
        out / "probe.safetensors", site=best["site"], layer=int(best["layer"]), position=best["position"],
        provenance=result.provenance,
    )  # fmt: skip
    write_text(out / "sweep.html", _page(result))


def _page(result: Sweep) -> str:
    """The figures as a page that opens offline; text is escaped, as labels are the user's."""
    from html import escape

    figures = {"lines": result.plot(), "map": result.plot_map()}
    parts = [
        figure.to_html(full_html=False, include_plotlyjs=i == 0, div_id=name, config={"displaylogo": False})
        for i, (name, figure) in enumerate(figures.items())
    ]
    controls = result.controls_frame().to_html(index=False, float_format="%.3f", na_rep="–", border=0)
    body = f"<h1>Sweep</h1><p>{escape(result.verdict)}</p>{parts[0]}{parts[1]}<h2>Controls of the best place</h2>"
    style = (
        "body{font:15px system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem}td{padding:.2rem .6rem}"
    )
    head = f"<meta charset='utf-8'><title>refusalkit sweep</title><style>{style}</style>"
    return f"<!doctype html><html lang='en'><head>{head}</head><body>{body}{controls}</body></html>\n"


def _show(result: Sweep) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(header_style="bold")
    for name in ("site", "layer", "position", "validation", "test AUROC", "95 %", "shuffled, largest"):
        table.add_column(name, justify="left" if name in ("site", "position") else "right")
    for row in result.to_frame().to_dict("records"):
        table.add_row(
            row["site"], str(row["layer"]), row["position"], f"{row['cv']:.3f}", f"{row['auroc']:.3f}",
            f"{row['low']:.3f}-{row['high']:.3f}", f"{row['shuffled_high']:.3f}",
        )  # fmt: skip
    controls = Table(title="controls of the best place", title_justify="left", header_style="bold")
    for name in ("control", "AUROC", "95 %", "probe minus control", "95 %"):
        controls.add_column(name, justify="left" if name == "control" else "right")
    for c in result.controls:
        controls.add_row(
            c.name, f"{c.auroc:.3f}", f"{c.low:.3f}-{c.high:.3f}", f"{c.difference:+.3f}",
            f"{c.difference_low:+.3f} to {c.difference_high:+.3f}",
        )  # fmt: skip
    console = Console(highlight=False, markup=False, width=None if Console().is_terminal else 120)
    console.print(table)
    console.print(controls)
