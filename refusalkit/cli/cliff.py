"""`refusalkit cliff`: the refusal decision along a model's thoughts, as figures, tables and pages to read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.errors import RefusalkitError
from refusalkit.cli import options as opt
from refusalkit.cli.quiet import hush

if TYPE_CHECKING:
    from interp.stats import Rate
    from interp.tracing.traces import Traces
    from probes.cliff import RefusalCliff

SCHEMA = "refusalkit/cliff/1"


@opt.loading
def cliff(
    model: opt.ModelName,
    out: Annotated[Path, typer.Option(help="Folder for figures, tables and rollouts.", file_okay=False)],
    traces: Annotated[
        Path | None, typer.Option(help="Your own traces: jsonl of prompt, thinking, answer, label.", dir_okay=False)
    ] = None,
    prompts: Annotated[
        str | None, typer.Option(help="Prompts to think about: a file, a Hub dataset, headlines, organism.")
    ] = None,
    n_train: Annotated[int, typer.Option(help="Most training prompts per class.", min=8)] = 100,
    n_test: Annotated[int, typer.Option(help="Most held-out prompts per class.", min=8)] = 100,
    max_new_tokens: Annotated[int, typer.Option(help="Longest thought and answer in tokens.", min=1)] = 2048,
    temperature: Annotated[float, typer.Option(help="0 is greedy; the paper samples at 0.7.", min=0)] = 0.0,
    method: Annotated[str, typer.Option(help="How the prober is fitted: spread, or paper.")] = "spread",
    layer: Annotated[
        int | None, typer.Option(help="Layer of the prober; chosen on training traces by default.")
    ] = None,
    plateau: Annotated[str, typer.Option(help="mean, max or quantile of the last part of the thought.")] = "mean",
    window: Annotated[float, typer.Option(help="That part, as a share of the thought.", min=0.01, max=1)] = 0.25,
    pages: Annotated[int, typer.Option(help="Traces to write as pages, per class.", min=0)] = 3,
    seed: Annotated[int, typer.Option(help="For splits, draws and controls.", min=0, max=opt.MAX_SEED)] = 0,
    loading: opt.Loading = opt.LOADING,
    quiet: opt.Quiet = False,
) -> None:
    """Does the decision to refuse hold along the thought, and fall off at its end?"""
    if traces is not None and prompts is not None:
        raise RefusalkitError("give --traces or --prompts, not both: traces bring their own prompts")
    how: dict[str, Any] = {
        "method": _one_of(method, ("spread", "paper")), "plateau": _one_of(plateau, ("mean", "max", "quantile")),
    }  # fmt: skip
    hush(quiet)
    import interp
    from probes.cliff import refusal_cliff

    loaded = loading.load(model)
    if loaded.chat.switch is not None:
        loaded = loaded.with_format(thinking=True)
    out.mkdir(parents=True, exist_ok=True)
    if traces is not None:
        several = interp.traces(traces, loaded)
    else:
        chosen = _choose(
            prompts or ("organism" if model.split(":")[0] == "organism" else "headlines"), n_train, n_test, seed
        )
        several = interp.rollouts(
            loaded, chosen, out=out / "rollouts.jsonl", max_new_tokens=_room(loaded, chosen, max_new_tokens),
            temperature=temperature, seed=seed, progress=not quiet,
        )  # fmt: skip
    several.save(out / "traces.jsonl")
    found = refusal_cliff(
        loaded, several, layer=layer, **how,
        window=window, seed=seed, progress=not quiet,
    )  # fmt: skip
    _write(loaded, found, several, out, pages)
    typer.echo(f"{'a refusal cliff' if found.found else 'no refusal cliff'}: {found.reason}")
    for name, rate in found.behaviour.items():
        typer.echo(f"  refused, {name}: {rate}")
    for place, n in found.falls_at.items():
        typer.echo(f"  falls at {place}: {n} harmful traces")
    typer.echo(f"written: {out}")


def _one_of(value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise RefusalkitError(f"{value!r} is not known here; known: {', '.join(known)}")
    return value


def _choose(source: str, n_train: int, n_test: int, seed: int) -> Any:
    """A balanced share of the prompts, split; validation prompts are training prompts here."""
    import interp
    from interp.text.prompts import HARMFUL, HARMLESS, PromptSet

    found = interp.prompts(source)
    if not any(p.split for p in found):
        found = found.split(seed=seed)
    kept = []
    for part, n in ((found.train + found.val, n_train), (found.test, n_test)):
        for label in (HARMFUL, HARMLESS):
            own = part.filter(label=label)
            kept += own.sample(min(n, len(own)), seed).prompts
    return PromptSet(tuple(kept), found.name)


def _room(model: Any, prompts: Any, wanted: int) -> int:
    """As many new tokens as fit the context, if fewer than wanted."""
    if model.chat.max_tokens is None:
        return wanted
    return max(1, min(wanted, model.chat.max_tokens - max(len(e) for e in model.encode(prompts))))


def _write(model: Any, found: RefusalCliff, traces: Traces, out: Path, pages: int) -> None:
    """Figures and tables; those of an earlier run that this one has no like of are taken away."""
    from interp.provenance import write_json
    from interp.tracing.trace import trace
    from probes.figures import trace_curve, trace_map, trace_page

    for old in (*out.glob("trace-*.html"), *(out / name for name in _FILES)):
        old.unlink(missing_ok=True)
    write_json(out / "cliff.json", _summary(found, traces))
    if found.scores is None:
        return
    found.table.to_csv(out / "drops.csv", index=False)
    name = f"The decision to refuse along the thinking of {model.name}"
    _page(trace_curve(found.scores, level=found.level), name, _said(found), out / "curve.html")
    if found.transfer is not None:
        found.transfer.to_csv(out / "transfer.csv", index=False)
    if found.prober is not None:
        found.prober.table.to_csv(out / "prober.csv", index=False)
        prober = found.prober
        prober.probe.save(
            out / "prober.safetensors", site="resid_post", layer=prober.layer, position="think_close[-1]",
            provenance={**prober.provenance, "space": prober.space},
        )  # fmt: skip
        everywhere = trace(model, found.scores.traces, prober, range(model.n_layers))
        note = f"The prober of layer {prober.layer}, applied to every layer; harmless prompts are the control."
        _page(trace_map(everywhere), name, [note], out / "map.html")
    for label in dict.fromkeys(found.scores.labels):
        own = [i for i, given in enumerate(found.scores.labels) if given == label]
        for number, i in enumerate(own[:pages]):
            trace_page(found.scores, i, path=out / f"trace-{label}-{number + 1}.html")


_FILES = ("cliff.json", "drops.csv", "curve.html", "transfer.csv", "prober.csv", "prober.safetensors", "map.html")


def _said(found: RefusalCliff) -> list[str]:
    """The result and its controls in sentences."""
    from probes.figures.style import fraction

    shuffled = [f"{kind} {', '.join(fraction(v) for v in values)}" for kind, values in
                (("labels", found.shuffled_labels), ("places", found.shuffled_places)) if values]  # fmt: skip
    lines = [f"{found.reason[:1].upper()}{found.reason[1:]}."]
    if shuffled:
        lines.append(
            f"Harmful minus harmless traces that fall, in the controls: shuffled {'; shuffled '.join(shuffled)}."
        )
    return [
        *lines,
        "Bands are 95 % bootstrap intervals over requests; the dotted line is the level between the classes.",
    ]


def _page(figure: Any, title: str, lead: list[str], path: Path) -> None:
    from refusalkit.page import Panel, write_page

    write_page(path, "refusalkit cliff", title, lead, [Panel("", figure=figure)])


def _summary(found: RefusalCliff, traces: Traces) -> dict[str, Any]:
    from collections import Counter

    def number(value: float) -> float | None:
        return None if value != value else value

    return {
        "schema": SCHEMA, "found": found.found, "reason": found.reason, "level": number(found.level),
        "min_drop": number(found.min_drop), "harmful": _rate(found.harmful), "harmless": _rate(found.harmless),
        "difference": [number(v) for v in found.difference], "falls_at": dict(found.falls_at),
        "shuffled_labels": list(found.shuffled_labels), "shuffled_places": list(found.shuffled_places),
        "behaviour": {k: _rate(r) for k, r in found.behaviour.items()}, "thoughts": dict(Counter(traces.status)),
        "prober": None if found.prober is None else {
            "method": found.prober.method, "layer": found.prober.layer, "space": found.prober.space,
            "kinds": list(found.prober.kinds), "left_out": dict(found.prober.left_out),
        },
        "plateau": dict(found.plateau), "provenance": dict(found.provenance),
    }  # fmt: skip


def _rate(rate: Rate) -> dict[str, Any]:
    low, high = rate.interval
    return {"k": rate.k, "n": rate.n, "value": None if not rate.n else rate.value, "interval": [low, high]}
