"""`refusalkit eval`: refusal, over-refusal and the price of an edit, on prompt sets by name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from refusalkit.cli import options as opt
from refusalkit.cli.quiet import hush


@opt.loading
def evaluate(
    model: opt.ModelName,
    prompts: Annotated[
        list[str],
        typer.Option(
            help="A set by name (xstest, advbench, orbench ...: docs/prompt-sets), NAME=FILE for a local copy, a file, "
            "a Hub dataset, headlines or organism; repeatable."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results.", file_okay=False)],
    vector: Annotated[Path | None, typer.Option(help="A steering vector to add.")] = None,
    guard: Annotated[Path | None, typer.Option(help="A latent guard: what it flags is refused.")] = None,
    edit: Annotated[
        str | None,
        typer.Option(help="ablate:FILE, ablate:FILE:mean, add:FILE:1.5, heads:3.1,4.2, or a .json file of these."),
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="Harmless prompts whose mean ablate:FILE:mean ablates to (their train split).")
    ] = None,
    price_prompts: Annotated[
        str | None, typer.Option(help="Harmless prompts for the price; by default those of the sets, else headlines.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="Label of every prompt, e.g. harmful.")] = None,
    split: Annotated[str | None, typer.Option(help="Only this split, of sets that have splits: test.")] = None,
    limit: Annotated[int | None, typer.Option(help="Most prompts of a label of a set, drawn.", min=1)] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer in tokens.", min=1)] = 64,
    n_random: Annotated[int, typer.Option(help="Random controls.", min=0)] = 3,
    seed: Annotated[int, typer.Option(help="For draws, controls and intervals.", min=0, max=opt.MAX_SEED)] = 0,
    save_answers: Annotated[bool, typer.Option("--save-answers", help="Keep every answer in answers.jsonl.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the evaluation that is there.")] = False,
    thinking: opt.Thinking = None,
    loading: opt.Loading = opt.LOADING,
    quiet: opt.Quiet = False,
) -> None:
    """Evaluate a model on prompt sets: as it is, with a vector or an edit, or behind a guard."""
    hush(quiet)
    from refusalkit.evaluation.run import load_sets, run

    sets = load_sets(prompts, label=label, split=split, limit=limit, seed=seed)
    result = run(
        loading.load(model, thinking=thinking), sets, out, vector=vector, guard=guard, edit=edit, reference=reference,
        price_prompts=price_prompts, max_new_tokens=max_new_tokens, n_random=n_random, seed=seed,
        save_answers=save_answers, force=force, progress=not quiet,
    )  # fmt: skip
    for sentence in result["findings"]:
        typer.echo(sentence)
    typer.echo(f"report: {out / 'report.html'}")
