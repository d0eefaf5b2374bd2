"""`refusalkit export`: a steering vector for another program, and the proof that it does there what it does here."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.errors import FormatError, RefusalkitError
from refusalkit.cli import options as opt
from refusalkit.cli.quiet import hush

if TYPE_CHECKING:
    from steering import SteeringVector

_VECTORS = ("safetensors", "gguf", "repeng", "svec", "easysteer", "refusal_direction")
_WEIGHTS = ("hf", "lora")
_ALL = ", ".join((*_VECTORS, *_WEIGHTS))
_SUFFIXES = {".safetensors": "safetensors", ".gguf": "gguf", ".svec": "svec"}


@opt.loading
def export(
    vector: Annotated[Path, typer.Argument(help="A steering vector, of any format that is read.", metavar="VECTOR")],
    out: Annotated[Path, typer.Option(help="The file, or the folder, to write.")],
    format: Annotated[str | None, typer.Option(help=f"{_ALL}; else by what --out ends in.")] = None,
    source: Annotated[str | None, typer.Option("--from", help="Format of VECTOR; by default found out.")] = None,
    model: Annotated[
        str | None, typer.Option(help="The model it is for: a Hub id, a folder, organism[:VARIANT].")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read the file back as its program does, and compare.")
    ] = False,
    strength: Annotated[float, typer.Option(help="Times the vector's own coefficient.")] = 1.0,
    everywhere: Annotated[
        bool, typer.Option("--everywhere", help="Let it act on every token, whatever tokens it was made for.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    loading: opt.Loading = opt.LOADING,
    quiet: opt.Quiet = False,
) -> None:
    """Write a vector for llama.cpp, repeng, vLLM (EasySteer), IBM's activation-steering or Hugging Face."""
    chosen = _check(vector, out, format, source, model, strength, force)
    hush(quiet)
    import steering

    given = steering.import_vector(vector, source) * strength
    if everywhere:
        given = _everywhere(given)
    name = model or (_made_with(given) if verify or chosen in _WEIGHTS else None)
    loaded: Any = None
    if name is not None:
        loaded = loading.load(name)
    if chosen in _WEIGHTS:
        (steering.bake if chosen == "hf" else steering.lora)(loaded, given).save(out)
        notes: tuple[str, ...] = ()
    else:
        notes = steering.export(given, out, chosen, model=loaded).notes
    typer.echo(f"written as {chosen}: {out}")
    for note in notes:
        typer.echo(f"note: {note}")
    if not verify:
        return
    proof = steering.verify(given, chosen, out, loaded)
    control = "" if proof.control is None else f"; read on the other side of each block, by {proof.control:.2g}"
    typer.echo(
        f"read by {proof.reader}\nlogits differ from the vector here by at most {proof.difference:.2g} (the vector "
        f"moves them by {proof.effect:.2g}{control}); {proof.same_texts} of {len(proof.rows)} texts are the same"
    )
    if not proof.ok:
        raise RefusalkitError(f"{out} was written, but is not proved: {proof.reason}")
    typer.echo("proved: read by its program's rules, it does what the vector does here")


def _check(
    vector: Path, out: Path, format: str | None, source: str | None, model: str | None, strength: float, force: bool
) -> str:
    """The format that is meant; what is wrong with names and numbers is said before torch is there."""
    from interp.model.names import model_folder, organism_variant

    if not vector.exists():
        raise FormatError(f"there is no vector at {vector}")
    chosen = format or _SUFFIXES.get(out.suffix.lower())
    if chosen is None:
        raise FormatError(f"{out} does not say which format is wanted: give --format, one of: {_ALL}")
    if chosen not in (*_VECTORS, *_WEIGHTS):
        raise FormatError(f"there is no format {chosen!r}; known: {_ALL}")
    if source is not None and source not in _VECTORS:
        raise FormatError(f"vectors are not read from {source!r}; known: {', '.join(_VECTORS)}")
    if model is not None and organism_variant(model) is None:
        model_folder(model)
    if not math.isfinite(strength) or strength == 0:
        raise RefusalkitError(f"--strength is {strength}; it must be a number other than 0")
    if not out.resolve().parent.is_dir():
        raise FormatError(f"cannot write {out}: there is no folder {out.parent}")
    if out.exists() and out.resolve() == vector.resolve():
        raise FormatError(f"--out is the vector itself: {out}; give another name")
    if chosen in _WEIGHTS:
        from steering.weights.folder import check_free

        check_free(out)
    elif out.exists() and not force and not (out.is_dir() and not any(out.iterdir())):
        raise FormatError(f"{out} is there already: give another name, or --force")
    return chosen


def _everywhere(vector: SteeringVector) -> SteeringVector:
    from dataclasses import replace

    return replace(vector, positions=("all",), phase="both")


def _made_with(vector: SteeringVector) -> str:
    """The model that the vector's provenance names."""
    about = vector.provenance.get("model")
    name = about.get("name") if isinstance(about, dict) else None
    if not isinstance(name, str) or not name:
        raise FormatError("the vector does not say which model it was made with: give --model")
    return name
