"""`refusalkit steer`: a vector tried out, in a chat or over prompts, with the plain model beside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interp.errors import FormatError, PromptError, RefusalkitError
from refusalkit.cli import options as opt
from refusalkit.cli.quiet import hush

if TYPE_CHECKING:
    from interp.text.prompts import PromptSet


@opt.loading
def steer(
    model: opt.ModelName,
    vector: Annotated[Path, typer.Option(help="A steering vector, of any format that is read.")],
    strength: Annotated[
        str | None,
        typer.Option(help="Times the vector's own coefficient, 1 by default; with --prompts several: 0.5,1,2."),
    ] = None,
    ablate: Annotated[bool, typer.Option("--ablate", help="Ablate its direction, in place of adding it.")] = False,
    layer: Annotated[int | None, typer.Option(help="Of a vector of several layers: whose direction to ablate.")] = None,
    guard: Annotated[Path | None, typer.Option(help="A latent guard: act on prompts that it flags only.")] = None,
    allow_other_model: Annotated[
        bool, typer.Option("--allow-other-model", help="Take a guard that was fitted on another model.")
    ] = False,
    prompts: Annotated[
        str | None, typer.Option(help="In place of a chat: a file, a set by name, a Hub dataset, headlines, organism.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="With --prompts: folder; what is in it is gone on with.", file_okay=False),
    ] = None,
    split: Annotated[str, typer.Option(help="Which part of prompts that are split: train, val, test, all.")] = "test",
    limit: Annotated[int | None, typer.Option(help="Most prompts of a label, drawn.", min=1)] = None,
    n_random: Annotated[int, typer.Option(help="Random vectors of the same norm.", min=0)] = 1,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer in tokens.", min=1)] = 128,
    seed: Annotated[int, typer.Option(help="For draws and random vectors.", min=0, max=opt.MAX_SEED)] = 0,
    thinking: opt.Thinking = None,
    loading: opt.Loading = opt.LOADING,
    quiet: opt.Quiet = False,
) -> None:
    """Chat with a model plain and steered side by side; with --prompts, answer them all and count refusals."""
    strengths = parse_strengths(strength)
    _check(model, vector, guard, loading.chat_template, ablate, layer, strength, strengths, prompts, out)
    several = None if prompts is None else _part(prompts, split, limit, seed)
    hush(quiet)
    from refusalkit.steer.acting import Acting

    def acting(file: Path) -> Acting:
        return Acting.load(file, ablate=ablate, layer=layer, guard=guard, any_model=allow_other_model)

    given = acting(vector)
    loaded = loading.load(model, thinking=thinking)
    if several is None:
        from refusalkit.steer.chat import Chat
        from refusalkit.steer.screen import talk

        talk(Chat(loaded, given, strengths[0], max_new_tokens), acting)
        return
    from refusalkit.steer.batch import compare
    from refusalkit.steer.words import aligned, rates
    from refusalkit.steer.written import write

    assert out is not None
    found = compare(
        loaded, given, several, strengths, out, max_new_tokens=max_new_tokens, n_random=n_random, seed=seed,
        progress=not quiet,
    )  # fmt: skip
    for sentence in write(found, loaded, out):
        typer.echo(sentence)
    for line in aligned(rates(found)):
        typer.echo(line)
    typer.echo(f"written: {out / 'steered.html'}, steered.jsonl, steered.json, rates.csv")


def parse_strengths(text: str | None) -> list[float]:
    """`"0.5, 1,-2"` as different numbers."""
    from refusalkit.steer.numbers import number

    found = [1.0] if text is None else [number(part.strip()) for part in text.split(",")]
    if len(set(found)) < len(found):
        raise RefusalkitError(f"--strength {text} names a strength twice")
    return found


def _check(
    model: str, vector: Path, guard: Path | None, template: Path | None, ablate: bool, layer: int | None,
    strength: str | None, strengths: list[float], prompts: str | None, out: Path | None,
) -> None:  # fmt: skip
    """What is wrong with names and numbers is said before torch is there."""
    from refusalkit.audit.preflight import check_model, check_out, check_template

    check_model(model)
    check_template(template)
    if not vector.exists():
        raise FormatError(f"there is no vector file at {vector}")
    if guard is not None and not guard.is_file():
        raise FormatError(f"there is no guard file at {guard}")
    if ablate and strength is not None:
        raise RefusalkitError("an ablation has no strength: leave out --strength, or --ablate")
    if layer is not None and not ablate:
        raise RefusalkitError("--layer says whose direction is ablated: give --ablate, or leave it out")
    if prompts is None and out is not None:
        raise RefusalkitError("--out is for answers to prompts: give --prompts; in a chat, /save FILE writes it")
    if prompts is not None and out is None:
        raise RefusalkitError("say where answers to --prompts go: --out DIR")
    if prompts is None and len(strengths) > 1:
        raise RefusalkitError(
            f"a chat has one strength at a time, and {len(strengths)} were given; /strength S sets it"
        )
    if out is not None:
        check_out(out)


def _part(source: str, split: str, limit: int | None, seed: int) -> PromptSet:
    """The prompts that are asked; of a set that is not split, all."""
    from interp.text.prompts import SPLITS, PromptSet
    from interp.text.sources import prompts as load

    found = load(source)
    if split not in (*SPLITS, "all"):
        raise PromptError(f"--split is {split!r}; it is one of {', '.join(SPLITS)}, all")
    if split != "all" and any(p.split for p in found):
        there = sorted({p.split for p in found if p.split})
        if split not in there:
            raise PromptError(f"{found.name!r} has no split {split!r}; it has {', '.join(there)}")
        found = found.filter(split=split)
    if limit is None:
        return found
    drawn = {p.id for label in set(found.labels) for own in [found.filter(label=label)]
             for p in own.sample(min(limit, len(own)), seed)}  # fmt: skip
    return PromptSet(tuple(p for p in found if p.id in drawn), found.name)
