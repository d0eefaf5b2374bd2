"""`refusalkit guard fit`, `score` and `eval`: a latent guard from prompts or a store, and what it is worth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.errors import RefusalkitError
from refusalkit.cli import options as opt
from refusalkit.cli.activations import parse_layers, parse_names, parse_positions
from refusalkit.cli.guard_report import describe, figure, write_evaluation
from refusalkit.cli.labelled import Harmful, Harmless, Prompts, labelled
from refusalkit.cli.quiet import hush

if TYPE_CHECKING:
    from interp.model.model import Model
    from probes import LatentGuard

GuardFile = Annotated[Path, typer.Argument(help="A guard, as `refusalkit guard fit` writes it.", metavar="GUARD")]
StoreFolder = Annotated[Path | None, typer.Option(help="A store of `refusalkit capture`, in place of prompts.")]
Other = Annotated[
    bool, typer.Option("--allow-other-model", help="Score with a model that the guard was not fitted on.")
]


@opt.loading
def fit(
    out: Annotated[Path, typer.Option(help="File for the guard (.safetensors).", dir_okay=False)],
    model: Annotated[
        str | None, typer.Argument(help="A Hub id, a folder, or organism[:VARIANT].", metavar="MODEL")
    ] = None,
    prompts: Prompts = None,
    harmful: Harmful = None,
    harmless: Harmless = None,
    store: StoreFolder = None,
    rule: Annotated[str, typer.Option(help="centroid (the paper's) or logistic.")] = "centroid",
    layers: Annotated[str | None, typer.Option(help="0-based layers: 3,5-8; chosen by default.")] = None,
    positions: Annotated[str, typer.Option(help="Single tokens, with commas.")] = "t_inst",
    site: Annotated[str, typer.Option(help="Site to read.")] = "resid_post",
    target_fpr: Annotated[float, typer.Option(help="Share of harmless prompts that may be flagged.")] = 0.05,
    calibration: Annotated[str, typer.Option(help="platt or isotonic.")] = "platt",
    abstain: Annotated[str | None, typer.Option(help="Probabilities to decide nothing between: 0.3,0.7.")] = None,
    stream: Annotated[
        str | None,
        typer.Option(help="Labelled prompts that are answered: fit a rule for generated tokens on the answers."),
    ] = None,
    consecutive: Annotated[
        int, typer.Option(help="With --stream: tokens in a row above the threshold that stop an answer.", min=1)
    ] = 3,
    max_new_tokens: Annotated[int, typer.Option(help="With --stream: longest answer.", min=1)] = 64,
    seed: Annotated[int, typer.Option(help="For the folds.", min=0, max=opt.MAX_SEED)] = 0,
    loading: opt.Loading = opt.LOADING,
    quiet: opt.Quiet = False,
) -> None:
    """Fit a guard on labelled prompts, or on a store that was captured before; 20 prompts a side are enough."""
    band, chosen = _band(abstain), parse_layers(layers)
    where = parse_positions(positions)
    hush(quiet)
    import interp
    from probes import LatentGuard

    options: dict[str, Any] = {
        "rule": rule, "layers": chosen, "positions": where, "site": site, "target_fpr": target_fpr,
        "calibration": calibration, "abstain": band, "seed": seed,
    }  # fmt: skip
    if store is not None:
        if model or prompts or harmful or harmless:
            raise RefusalkitError("a store holds the prompts and their model: give --store alone, or MODEL and prompts")
        if stream is not None:
            raise RefusalkitError("--stream lets the model answer: give MODEL and prompts in place of --store")
        guard = LatentGuard.from_activations(interp.open_store(store), **options)
    else:
        if model is None:
            raise RefusalkitError("say which MODEL is to be guarded, or give --store")
        given = labelled(prompts, harmful, harmless)
        answered = None if stream is None else interp.prompts(stream)
        loaded = loading.load(model)
        guard = LatentGuard.fit(loaded, given, **options, progress=not quiet)
        if answered is not None:
            guard = guard.fit_stream(
                answered, consecutive=consecutive, max_new_tokens=max_new_tokens, target_fpr=target_fpr, seed=seed
            )
    guard.save(out)
    for line in describe(guard):
        typer.echo(line)
    typer.echo(f"guard: {out}")


@opt.loading
def score(
    guard: GuardFile,
    prompts: Annotated[str | None, typer.Option(help="Prompts: a file, a Hub dataset, organism.")] = None,
    text: Annotated[list[str] | None, typer.Option(help="One prompt (repeatable).")] = None,
    store: StoreFolder = None,
    model: Annotated[
        str | None, typer.Option(help="The model, when it is not found under the guard's own name.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="FILE.csv or FILE.json; by default, JSON lines are printed.")] = None,
    allow_other_model: Other = False,
    loading: opt.Loading = opt.LOADING,
    quiet: opt.Quiet = False,
) -> None:
    """Score prompts, or a store, with a guard."""
    if sum(source is not None for source in (prompts, text or None, store)) != 1:
        raise RefusalkitError("give one of --prompts, --text and --store")
    if out is not None and out.suffix not in (".csv", ".json"):
        raise RefusalkitError(f"cannot tell the format of {out}: end its name in .csv or .json")
    hush(quiet)
    import interp
    from probes import LatentGuard

    found = LatentGuard.load(guard)
    if store is not None:
        scores = found.score_activations(interp.open_store(store))
    else:
        asked = text if text else interp.prompts(str(prompts))
        loaded = _own_model(found, model, loading)
        scores = found.with_model(loaded, allow_other_model=allow_other_model).score(asked)
    table = scores.to_frame()
    if out is None:
        for row in table.to_dict("records"):
            typer.echo(json.dumps(row, ensure_ascii=False))
        return
    if out.suffix == ".csv":
        table.to_csv(out, index=False)
    else:
        from interp.provenance import write_json

        write_json(
            out, {"guard": dict(found.provenance), "threshold": found.threshold, "scores": table.to_dict("records")}
        )
    typer.echo(f"{int(scores.flagged.sum())} of {len(scores)} flagged, {int(scores.abstained.sum())} abstained: {out}")


@opt.loading
def evaluate(
    guard: GuardFile,
    out: Annotated[Path, typer.Option(help="Folder for eval.html, eval.json and eval.csv.", file_okay=False)],
    prompts: Annotated[
        list[str] | None, typer.Option(help="Labelled prompts (repeatable); of split ones, the test prompts are used.")
    ] = None,
    harmful: Harmful = None,
    harmless: Harmless = None,
    store: StoreFolder = None,
    train: Annotated[
        str | None, typer.Option(help="The labelled prompts that the guard was fitted on: text baselines get the same.")
    ] = None,
    answers: Annotated[bool, typer.Option("--answers", help="Compare with the model's own refusals.")] = False,
    classifier: Annotated[
        list[str] | None, typer.Option(help="A sequence-classification guard of the Hub or a folder (repeatable).")
    ] = None,
    generative: Annotated[
        list[str] | None, typer.Option(help="A generative guard of the Hub or a folder (repeatable).")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The model, when it is not found under the guard's own name.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer, with --answers.", min=1)] = 64,
    seed: Annotated[int, typer.Option(help="For the bootstrap.", min=0, max=opt.MAX_SEED)] = 0,
    allow_other_model: Other = False,
    loading: opt.Loading = opt.LOADING,
    quiet: opt.Quiet = False,
) -> None:
    """Measure a guard on labelled prompts beside its baselines, with intervals, ROC and reliability."""
    hush(quiet)
    import interp
    from probes import ClassifierGuard, GenerativeGuard, LatentGuard, TextBaseline, own_refusals

    found = LatentGuard.load(guard)
    sets: dict[str, Any] = {}
    if store is not None:
        opened = interp.open_store(store)
        sets[opened.prompts.name] = opened
    for source in prompts or ():
        part = interp.prompts(source)
        sets[part.name] = part.test if any(p.split for p in part) else part
    if harmful or harmless:
        both = labelled(None, harmful, harmless)
        sets[both.name] = both
    if not sets:
        raise RefusalkitError("nothing to evaluate on: give --prompts, or --harmful and --harmless, or --store")
    others: list[Any] = []
    if train is not None:
        fitted = interp.prompts(train)
        used = fitted.filter(split=("train", "val")) if any(p.split for p in fitted) else fitted
        others += [TextBaseline.fit(used, kind, seed=seed) for kind in ("logistic", "mlp")]
    others += [ClassifierGuard.load(name) for name in classifier or ()]
    others += [GenerativeGuard.load(name) for name in generative or ()]
    if answers or any(not isinstance(part, interp.Store) for part in sets.values()):
        loaded = _own_model(found, model, loading)
        found = found.with_model(loaded, allow_other_model=allow_other_model)
        others += own_refusals(loaded, max_new_tokens) if answers else ()
    report = found.evaluate(sets, others, seed=seed)
    write_evaluation(found, report, out)
    for name in report.scored:
        row = report.row(name)
        typer.echo(
            f"{name}: AUROC {figure(row, 'auroc')}, flags {figure(row, 'flagged_harmful')} of harmful and "
            f"{figure(row, 'flagged_harmless')} of harmless prompts"
        )
    typer.echo(f"report: {out / 'eval.html'}")


def _band(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        low, high = (float(part) for part in parse_names(text))
    except ValueError:
        raise RefusalkitError(f"{text!r} is no band: give two probabilities, 0.3,0.7 say") from None
    return low, high


def _own_model(guard: LatentGuard, name: str | None, loading: opt.Loading) -> Model:
    """The model that was named, or the guard's own by the name it was fitted under."""
    own = (guard.provenance.get("model") or {}).get("name")
    if not (name or own):
        raise RefusalkitError("the guard does not say which model it is of: name it with --model")
    return loading.load(str(name or own))
