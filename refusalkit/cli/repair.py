"""`refusalkit repair`: give a model back the refusals it loses after thinking, on few examples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.errors import RefusalkitError
from refusalkit.cli import options as opt
from refusalkit.cli.activations import parse_names
from refusalkit.cli.quiet import hush

if TYPE_CHECKING:
    from refusalkit.repairing import Material

RULES = ("cliff", "final", "keyword", "judge", "random", "all")


@opt.loading
def repair(
    model: opt.ModelName,
    out: Annotated[Path, typer.Option(help="Folder for the adapter, tables and rollouts.", file_okay=False)],
    pool: Annotated[
        str | None, typer.Option(help="Prompts to roll out and measure on: a file, a Hub dataset, headlines, organism.")
    ] = None,
    traces: Annotated[
        Path | None, typer.Option(help="The model's own traces instead: jsonl of prompt, thinking, answer, label.")
    ] = None,
    rule: Annotated[str, typer.Option(help="How examples are picked: " + ", ".join(RULES) + ".")] = "cliff",
    size: Annotated[str, typer.Option(help="How many: a number, or a share of the pool (0.02).")] = "0.02",
    table: Annotated[bool, typer.Option("--table", help="Print the table of sizes, rules and seeds instead.")] = False,
    sizes: Annotated[str, typer.Option(help="Of the table, with commas.")] = "0.005,0.01,0.02",
    rules: Annotated[str, typer.Option(help="Of the table, with commas.")] = ",".join(RULES),
    seeds: Annotated[int, typer.Option(help="Seeds of the table, counted from --seed.", min=1)] = 3,
    refusals: Annotated[
        Path | None, typer.Option(help="Refusals to train on, one per line; the model's own by default.")
    ] = None,
    n_pool: Annotated[int, typer.Option(help="Most harmful prompts to roll out.", min=1)] = 1000,
    n_retain: Annotated[int, typer.Option(help="Harmless prompts, rolled out and kept as they are.", min=8)] = 200,
    n_test: Annotated[int, typer.Option(help="Most held-out prompts per class.", min=8)] = 200,
    max_new_tokens: Annotated[int, typer.Option(help="Longest thought and answer in tokens.", min=1)] = 2048,
    temperature: Annotated[
        float, typer.Option(help="Of the pool's rollouts; 0 is greedy, the paper samples at 0.7.", min=0)
    ] = 0.0,
    plateau: Annotated[str, typer.Option(help="mean, max or quantile of the last part of the thought.")] = "mean",
    window: Annotated[float, typer.Option(help="That part, as a share of the thought.", min=0.01, max=1)] = 0.25,
    steps: Annotated[int, typer.Option(help="Updates.", min=1)] = 40,
    batch_size: Annotated[int, typer.Option(help="Examples per update; as many kept ones come with them.", min=1)] = 4,
    lr: Annotated[float, typer.Option(help="Learning rate.", min=0)] = 1e-3,
    rank: Annotated[int, typer.Option(help="Rank of the adapter.", min=1)] = 8,
    loss_on: Annotated[str, typer.Option(help="response (thought, template, refusal), or answer alone.")] = "response",
    seed: Annotated[int, typer.Option(help="For splits, picks and training.", min=0, max=opt.MAX_SEED)] = 0,
    loading: opt.Loading = opt.LOADING,
    quiet: opt.Quiet = False,
) -> None:
    """Repair a model on a few of its own thoughts, and measure it before and after on held-out prompts."""
    from interp.model.names import model_folder, organism_variant

    if traces is not None and pool is not None:
        raise RefusalkitError("give --traces or --pool, not both: traces bring their own prompts")
    if traces is not None and not traces.is_file():
        raise RefusalkitError(f"there is no file of traces at {traces}")
    texts = None if refusals is None else read_refusals(refusals)
    chosen = [_one_of(r, RULES, "rule") for r in (parse_names(rules) if table else [rule])]
    numbers = [parse_size(s) for s in (parse_names(sizes) if table else [size])]
    _one_of(plateau, ("mean", "max", "quantile"), "plateau")
    recipe: dict[str, Any] = {
        "steps": steps, "batch_size": batch_size, "lr": lr, "rank": rank,
        "loss_on": _one_of(loss_on, ("response", "answer"), "--loss-on"),
    }  # fmt: skip
    if organism_variant(model) is None:
        model_folder(model)
    hush(quiet)
    import interp
    from refusalkit.repairing import gather, organism_pool

    loaded = loading.load(model)
    if loaded.chat.switch is not None:
        loaded = loaded.with_format(thinking=True)
    out.mkdir(parents=True, exist_ok=True)
    source = pool or ("organism" if model.split(":")[0] == "organism" else "headlines")
    prompts = None if traces else organism_pool() if source == "organism" else interp.prompts(source)
    material = gather(
        loaded, out, prompts=prompts, traces=None if traces is None else interp.traces(traces, loaded),
        n_pool=n_pool, n_retain=n_retain, n_test=n_test, max_new_tokens=max_new_tokens, temperature=temperature,
        plateau=plateau, window=window, seed=seed, progress=not quiet,
    )  # fmt: skip
    if table:
        _table(loaded, material, out, chosen, numbers, range(seed, seed + seeds), texts, recipe, not quiet)
    else:
        _once(loaded, material, out, chosen[0], numbers[0], seed, texts, recipe, not quiet)


def parse_size(text: str) -> float:
    """`"16"` as a number of examples, `"0.02"` as a share of the pool."""
    try:
        value = int(text) if text.strip().isdigit() else float(text)
    except ValueError:
        value = 0
    if not (value >= 1 if isinstance(value, int) else 0 < value <= 1):
        raise RefusalkitError(f"{text!r} is no size: give a number of examples, 16 say, or a share of the pool, 0.02")
    return value


def read_refusals(path: Path) -> list[str]:
    """One refusal per line; blank lines are passed over."""
    if not path.is_file():
        raise RefusalkitError(f"there is no file of refusals at {path}")
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise RefusalkitError(f"{path} is no UTF-8 text: give one refusal per line") from error
    found = [line for line in lines if line]
    if not found:
        raise RefusalkitError(f"{path} holds no refusal: give one per line")
    return found


def _one_of(value: str, known: tuple[str, ...], what: str) -> str:
    if value not in known:
        raise RefusalkitError(f"there is no {what} {value!r}; known: {', '.join(known)}")
    return value


def _once(
    loaded: Any, material: Material, out: Path, rule: Any, size: float, seed: int, refusals: list[str] | None,
    recipe: dict[str, Any], progress: bool,
) -> None:  # fmt: skip
    from refusalkit.repairing import write_repair
    from steering import repair as fine_tune
    from steering import repair_effect

    picks = material.scored.pick(rule, size, seed)
    found = fine_tune(
        loaded, picks.traces, out=out / "adapter", retain=material.retain, refusals=refusals, seed=seed,
        progress=progress, **recipe,
    )  # fmt: skip
    effect = repair_effect(
        loaded, found.model, material.held_out, scored=material.scored, out=out,
        max_new_tokens=material.max_new_tokens, progress=progress,
    )  # fmt: skip
    for line in write_repair(found, picks, effect, material, out):
        typer.echo(line)
    typer.echo(f"adapter: {out / 'adapter'}; report: {out / 'repair.html'}")


def _table(
    loaded: Any, material: Material, out: Path, rules: list[Any], sizes: list[float], seeds: range,
    refusals: list[str] | None, recipe: dict[str, Any], progress: bool,
) -> None:  # fmt: skip
    from refusalkit.repairing import print_rows, table_of, table_rows, write_table

    found = table_of(
        loaded, material, out, rules=rules, sizes=sizes, seeds=list(seeds), refusals=refusals, progress=progress,
        **recipe,
    )  # fmt: skip
    said = write_table(found, loaded.name, out)
    n = sum(rate.n for rate in found.plain.values())
    print_rows(f"Repairs of {loaded.name}: refused after thinking, {n} held-out prompts", table_rows(found))
    for line in said:
        typer.echo(line)
    typer.echo(f"tables: {out}")
