"""`refusalkit vector`: make steering vectors, look at them, find their strength, and put them together."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interp.errors import FormatError, RefusalkitError
from refusalkit.cli import options as opt
from refusalkit.cli.activations import parse_layers
from refusalkit.cli.labelled import Harmful, Harmless, Prompts, labelled
from refusalkit.cli.quiet import hush

if TYPE_CHECKING:
    from interp.model.batch import Phase
    from steering import SteeringVector

VectorFile = Annotated[Path, typer.Argument(help="A steering vector, of any format that is read.", metavar="VECTOR")]
Seed = Annotated[int, typer.Option(help="Seed.", min=0, max=opt.MAX_SEED)]
METHODS = ("mean", "pca", "trained")
PHASES: tuple[Phase, ...] = ("both", "prompt", "generation")


@opt.loading
def train(
    model: opt.ModelName,
    out: Annotated[Path, typer.Option(help="The vector's file.", dir_okay=False)],
    prompts: Prompts = None,
    harmful: Harmful = None,
    harmless: Harmless = None,
    method: Annotated[str, typer.Option(help="mean or pca of harmful minus harmless, or trained.")] = "mean",
    layers: Annotated[str | None, typer.Option(help="0-based layers: 3,5-8; all by default, one for trained.")] = None,
    position: Annotated[str, typer.Option(help="The token read by mean and pca.")] = "t_post_inst",
    phase: Annotated[
        str, typer.Option(help="When it acts: both (every token), prompt or generation; of trained, both.")
    ] = "both",
    answer: Annotated[str | None, typer.Option(help="trained: the answer that --on prompts shall get.")] = None,
    on: Annotated[str, typer.Option(help="trained: harmful or harmless; the others keep theirs.")] = "harmless",
    max_kl: Annotated[float, typer.Option(help="trained: what the leash holds, nats per token.", min=1e-6)] = 0.1,
    steps: Annotated[int, typer.Option(help="trained: steps.", min=1)] = 100,
    seed: Seed = 0,
    loading: opt.Loading = opt.LOADING,
    quiet: opt.Quiet = False,
) -> None:
    """Make a steering vector from labelled prompts (their training part), and save it."""
    if method not in METHODS:
        raise RefusalkitError(f"there is no method {method!r}; known: {', '.join(METHODS)}")
    chosen = parse_layers(layers)
    if method == "trained" and (answer is None or chosen is None or len(chosen) != 1):
        raise RefusalkitError("a trained vector needs the wanted --answer, and one layer: --layers 4")
    if phase not in PHASES:
        raise RefusalkitError(f"--phase is {phase!r}; it is one of {', '.join(PHASES)}")
    if method == "trained" and phase != "both":
        raise RefusalkitError("a trained vector acts at every token, as it was trained to: leave out --phase")
    if on not in ("harmful", "harmless"):
        raise RefusalkitError(f"--on is {on!r}; it is harmful or harmless")
    _room(out)
    hush(quiet)
    import interp
    import steering

    found = labelled(prompts, harmful, harmless)
    subject = loading.load(model)
    if method == "trained":
        assert chosen is not None and answer is not None
        used = [p for p in found if p.split != "test"]
        wanted = [interp.Trace(p, answer=answer) for p in used if p.label == on]
        kept = [p for p in used if p.label != on]
        result = steering.train_vector(
            subject, wanted, kept, layer=chosen[0], max_kl=max_kl, steps=steps, folder=_work(out), seed=seed,
            progress=not quiet,
        )  # fmt: skip
        result.vector.save(out)
        shutil.rmtree(_work(out))
        for row in result.to_frame().to_dict("records"):
            typer.echo(
                f"{row['arm']}: first token {row['first token']:.2f}, loss {row['nll']:.3f} nats per token, KL on the "
                f"others {row['kl']:.3f} [{row['kl_low']:.3f}, {row['kl_high']:.3f}] (held out, n={row['wanted']})"
            )
    else:
        part = found.train if any(p.split for p in found) else found
        n = min(len(part.harmful), len(part.harmless))
        pairs = list(zip(part.harmful.sample(n, seed), part.harmless.sample(n, seed), strict=True))
        made = steering.contrast_vector(
            subject, pairs, method="pca" if method == "pca" else "mean", layers=chosen, position=_position(position),
            seed=seed, progress=not quiet,
        )  # fmt: skip
        made = replace(made, phase=PHASES[PHASES.index(phase)])
        made.save(out)
        for layer, about in made.provenance["layers"].items():
            typer.echo(
                f"layer {layer}: norm {made.norms[int(layer)]:.3g}, {about['agree']:.0%} of {n} pairs agree, cosine of "
                f"halves {about['halves']:.2f}"
            )
    typer.echo(f"written: {out}")


def info(vector: VectorFile) -> None:
    """Say what a vector's file holds: layers, norms, where it acts, and where it came from."""
    import json

    found = _load(vector)
    typer.echo(repr(found))
    typer.echo(f"acts at {found.site}, {'+'.join(map(str, found.positions))}, in the phase: {found.phase}")
    for layer, norm in found.norms.items():
        typer.echo(f"  layer {layer}: norm {norm:.4g}")
    typer.echo(
        json.dumps(dict(found.provenance), indent=1, ensure_ascii=False) if found.provenance else "of unknown make"
    )


@opt.loading
def calibrate(
    model: opt.ModelName,
    vector: VectorFile,
    out: Annotated[
        Path,
        typer.Option(help="Folder for vector, table and figure; what is measured is kept there.", file_okay=False),
    ],
    prompts: Prompts = None,
    harmful: Harmful = None,
    harmless: Harmless = None,
    target_kl: Annotated[float | None, typer.Option(help="Most KL on harmless prompts, nats per token.")] = None,
    refusal_rate: Annotated[float | None, typer.Option(help="Share of --on prompts to be refused.")] = None,
    on: Annotated[str, typer.Option(help="harmful or harmless.")] = "harmless",
    n_random: Annotated[int, typer.Option(help="Random vectors of the same norms.", min=0)] = 1,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer in tokens.", min=1)] = 32,
    seed: Seed = 0,
    loading: opt.Loading = opt.LOADING,
    quiet: opt.Quiet = False,
) -> None:
    """Find the strength at which a vector meets a target, on the validation part of the prompts."""
    if (target_kl is None) == (refusal_rate is None):
        raise RefusalkitError("give one target: --target-kl or --refusal-rate")
    _there(vector)
    hush(quiet)
    import steering

    given = _load(vector)
    found = labelled(prompts, harmful, harmless)
    subject = loading.load(model)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        result = steering.calibrate(
            subject, given, prompts=found, target_kl=target_kl, refusal_rate=refusal_rate, on=on, n_random=n_random,
            max_new_tokens=max_new_tokens, folder=out, seed=seed, progress=not quiet,
        )  # fmt: skip
    from refusalkit.steer.strength import write

    for line in write(result, subject, out):
        typer.echo(line)
    for warning in said:
        if "residual stream" in str(warning.message):
            typer.echo(f"note: {warning.message}")
    typer.echo(f"written: {out / 'calibration.html'}, calibration.csv, calibration.json" + (
        ", vector.safetensors" if result.strength is not None else ""
    ))  # fmt: skip
    if result.strength is None:
        raise typer.Exit(1)


def combine(
    vectors: Annotated[list[Path], typer.Argument(help="Steering vectors of one model, site and positions.")],
    out: Annotated[Path, typer.Option(help="The sum's file.", dir_okay=False)],
    weights: Annotated[str | None, typer.Option(help="What each is multiplied by: 1,-0.5; 1 by default.")] = None,
    without: Annotated[list[Path] | None, typer.Option(help="Project these out of the sum (repeatable).")] = None,
) -> None:
    """Add vectors, each with its weight, and project others out of the sum."""
    factors = _weights(weights, len(vectors))
    for path in (*vectors, *(without or ())):
        _there(path)
    _room(out)
    total, *others = [_load(path) * factor for path, factor in zip(vectors, factors, strict=True)]
    for other in others:
        total = total + other
    if without:
        total = total.without(*map(_load, without))
    total.save(out)
    typer.echo(repr(total))
    typer.echo(f"written: {out}")


def _load(path: Path) -> SteeringVector:
    _there(path)
    from steering import import_vector

    return import_vector(path)


def _there(path: Path) -> None:
    """Said before anything heavy is imported."""
    if not path.exists():
        raise FormatError(f"there is no vector file at {path}")


def _room(path: Path) -> None:
    if not path.resolve().parent.is_dir():
        raise FormatError(f"cannot write {path}: there is no folder {path.parent}")


def _work(out: Path) -> Path:
    """Where a training is kept until its vector is written."""
    return out.with_name(f"{out.name}.unfinished")


def _weights(text: str | None, n: int) -> list[float]:
    if text is None:
        return [1.0] * n
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        raise RefusalkitError(f"--weights is {text!r}; it is numbers with commas, as 1,-0.5") from None
    if len(found) != n:
        raise RefusalkitError(f"{len(found)} weights were given for {n} vectors")
    return found


def _position(text: str) -> str | int:
    return int(text) if text.lstrip("-").isdigit() else text
