"""`refusalkit plan`: what a model already knows of its answer before it writes it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interp.errors import RefusalkitError
from refusalkit.cli import options as opt
from refusalkit.cli.activations import parse_names
from refusalkit.cli.quiet import hush

if TYPE_CHECKING:
    from probes.planning.dosing import PlanCausal
    from probes.planning.planned import Plan

_PROBES = ("linear", "mlp")


@opt.loading
def plan(
    model: opt.ModelName,
    attribute: Annotated[
        str, typer.Option(help="length, steps, list_length, character, letter, correct ..., or FILE.py:function.")
    ],
    prompts: Annotated[
        str, typer.Option(help="A file, a set by name, a Hub dataset, organism:story, organism:list, organism:choice.")
    ],
    out: Annotated[
        Path,
        typer.Option(help="Folder for answers, tables and figures; what is in it is gone on with.", file_okay=False),
    ],
    thinking: Annotated[bool | None, typer.Option(help="Thinking mode, where the template has a switch.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest thought and answer in tokens.", min=1)] = 256,
    segments: Annotated[int, typer.Option(help="Stretches of thought and answer to probe; 0 for none.", min=0)] = 5,
    balance: Annotated[bool, typer.Option("--balance", help="Keep equally many answers of every class.")] = False,
    ask: Annotated[bool, typer.Option(help="Also ask the model to foretell the attribute.")] = True,
    steer: Annotated[bool, typer.Option("--steer", help="Also steer along the probe: does it change answers?")] = False,
    probe: Annotated[str, typer.Option(help="Kinds of probe, with commas: linear, mlp.")] = "linear,mlp",
    seeds: Annotated[str, typer.Option(help="Seeds for splits, probes and draws, with commas.")] = "0,1,2",
    alpha: Annotated[float, typer.Option(help="Level of the verdict.", min=1e-6, max=0.5)] = 0.01,
    batch_size: Annotated[int, typer.Option(help="Most answers written at once.", min=1)] = 64,
    loading: opt.Loading = opt.LOADING,
    quiet: opt.Quiet = False,
) -> None:
    """Measure how early a model's states foretell an attribute of its answer, beside what tells it without them."""
    kinds, numbers = parse_kinds(probe), parse_seeds(seeds)
    hush(quiet)
    from interp.text.sources import prompts as load_prompts
    from probes.planning.attributes import as_attribute
    from probes.planning.enough import check_prompts
    from refusalkit.audit.preflight import check_model, check_out, check_template

    own = as_attribute(attribute)
    check_model(model)
    check_template(loading.chat_template)
    check_out(out)
    several = load_prompts(prompts)
    check_prompts(own, several)
    from probes.planning.planned import plan as run
    from refusalkit.cli.plan_pages import write_plan_page

    loaded = loading.load(model, thinking=thinking)
    found = run(
        loaded, several, own, out=out, max_new_tokens=max_new_tokens, segments=segments, balance=balance, ask=ask,
        seeds=numbers, kinds=kinds, alpha=alpha, batch_size=batch_size, progress=not quiet,
    )  # fmt: skip
    write_plan_page(found, out)
    typer.echo(found.report())
    if steer:
        from probes.planning.dosing import plan_causal

        caused = plan_causal(loaded, found, seed=numbers[0], progress=not quiet)
        typer.echo(caused.sentence)
        _write(caused, found, out)
    typer.echo(f"written: {out / 'plan.html'}, plan.json and tables")


def parse_kinds(text: str) -> list[str]:
    """`"linear, mlp"` as kinds of probe."""
    names = parse_names(text)
    if unknown := [name for name in names if name not in _PROBES]:
        raise RefusalkitError(f"there is no probe {unknown[0]!r}; known: {', '.join(_PROBES)}")
    return names


def parse_seeds(text: str) -> list[int]:
    """`"0, 1,2"` as different whole numbers."""
    names = parse_names(text)
    if any(not re.fullmatch(r"\d{1,9}", name) for name in names) or len(set(map(int, names))) < len(names):
        raise RefusalkitError(f"{text!r} are no seeds; give for instance 0,1,2")
    return [int(name) for name in names]


def _write(caused: PlanCausal, found: Plan, out: Path) -> None:
    from interp.provenance import write_json
    from refusalkit.cli.plan_pages import write_causal_page

    caused.table.to_csv(out / "doses.csv", index=False)
    caused.choice.to_csv(out / "doses-tried.csv", index=False)
    difference, low, high = caused.excess
    write_json(
        out / "causal.json",
        {"schema": "refusalkit/plan-causal/1", "model": caused.model, "attribute": caused.attribute,
         "kind": caused.kind, "holds": caused.holds, "sentence": caused.sentence, "layer": caused.layer,
         "last layer": caused.last, "position": caused.position, "dose": caused.dose, "effect": caused.effect,
         "low": caused.low, "high": caused.high, "random": list(caused.random),
         "excess": {"value": difference, "low": low, "high": high}, "lost": caused.lost, "n": caused.n,
         "provenance": dict(found.provenance)},
    )  # fmt: skip
    write_causal_page(caused, found.provenance, out)
