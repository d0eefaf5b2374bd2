"""`refusalkit heads`: the heads that hold refusal down, and what happens without them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.errors import RefusalkitError
from refusalkit.cli import options as opt
from refusalkit.cli.activations import parse_names
from refusalkit.cli.quiet import hush

if TYPE_CHECKING:
    from probes.suppression import SuppressionHeads

_RENORMS = ("none", "tensor", "token")
_LEAST = 20


@opt.loading
def heads(
    model: opt.ModelName,
    out: Annotated[Path, typer.Option(help="Folder for tables and figures.", file_okay=False)],
    harmful: Annotated[str | None, typer.Option(help="Harmful prompts: txt, csv, jsonl, or a Hub dataset.")] = None,
    harmless: Annotated[str | None, typer.Option(help="Harmless prompts, likewise.")] = None,
    thinking: Annotated[
        bool | None, typer.Option(help="Thinking mode; on by default where the template has a switch.")
    ] = None,
    sizes: Annotated[str, typer.Option(help="Numbers of heads to switch off, with commas.")] = "1,2,3",
    renorm: Annotated[str, typer.Option(help="What keeps its norm: none, tensor or token.")] = "none",
    n_train: Annotated[int, typer.Option(help="Most harmful training prompts.", min=8)] = 64,
    n_val: Annotated[int, typer.Option(help="Most validation prompts.", min=4)] = 64,
    n_test: Annotated[int, typer.Option(help="Most held-out prompts per class.", min=8)] = 100,
    n_draws: Annotated[int, typer.Option(help="Draws of random heads per size.", min=20)] = 20,
    n_control: Annotated[int, typer.Option(help="Harmful prompts per draw.", min=4)] = 32,
    max_new_tokens: Annotated[int, typer.Option(help="Longest reply, thought included.", min=1)] = 256,
    seed: Annotated[int, typer.Option(help="For splits and draws.", min=0, max=opt.MAX_SEED)] = 0,
    dtype: Annotated[
        str,
        typer.Option(
            help="float32 unless you mean otherwise: bfloat16 hides small effects.", rich_help_panel=opt.PANEL
        ),
    ] = "float32",
    loading: opt.Loading = opt.LOADING,
    quiet: opt.Quiet = False,
) -> None:
    """Find the attention heads that hold refusal down, and switch them off."""
    chosen = parse_sizes(sizes)
    if renorm not in _RENORMS:
        raise RefusalkitError(f"there is no renorm {renorm!r}; known: {', '.join(_RENORMS)}")
    if (harmful is None) != (harmless is None):
        raise RefusalkitError("give both --harmful and --harmless, or neither")
    hush(quiet)
    import interp
    import probes
    from interp.text.sources import load_pair

    if harmful is not None and harmless is not None:
        prompts = load_pair(harmful, harmless)
    else:
        prompts = interp.prompts("organism" if model.split(":")[0] == "organism" else "headlines")
    if any(p.split is None for p in prompts):
        prompts = prompts.require(_LEAST).split(seed=seed)
    loaded = loading.load(model, dtype=dtype, thinking=thinking)
    if thinking is None and loaded.chat.switch is not None:
        loaded = loaded.with_format(thinking=True)
    found = probes.suppression_heads(
        loaded, prompts, sizes=chosen, renorm=renorm, n_train=n_train, n_val=n_val, n_test=n_test,  # pyright: ignore
        n_draws=n_draws, n_control=n_control, max_new_tokens=max_new_tokens, seed=seed, progress=not quiet,
    )  # fmt: skip
    write(found, out)
    for line in told(found):
        typer.echo(line)
    typer.echo(f"tables and figures: {out}")


def parse_sizes(text: str) -> list[int]:
    """`"1, 2,3"` as whole numbers above 0."""
    names = parse_names(text)
    if any(not re.fullmatch(r"[1-9]\d*", name) for name in names):
        raise RefusalkitError(f"{text!r} are no numbers of heads; give for instance 1,2,3")
    return [int(name) for name in names]


def told(found: SuppressionHeads) -> list[str]:
    """The result in sentences."""
    plain = f"refused as it is: {found.plain[0]} harmful, {found.plain[1]} harmless"
    lines = [plain, f"swept {len(found.ranking.variants)} heads by {found.ranking.path} ({found.ranking.note})"]
    for layer, head in found.heads[: max(len(p.heads) for p in found.curve)]:
        mean, low, high = found.confirmed[layer, head]
        lines.append(f"  layer {layer}, head {head}: off, the metric gains {mean:.2f} [{low:.2f}, {high:.2f}]")
    for point in found.curve:
        kept = "the same layers" if point.matched else "any layers"
        lines.append(
            f"  {len(point.heads)} off: {point.harmful} harmful, {point.harmless} harmless; {point.draws} draws of "
            f"others in {kept}: mean {point.control_mean:.3f}, most {point.control_most:.3f}; KL {point.kl[0]:.2g}, "
            f"perplexity x {point.perplexity[0]:.3f}"
        )
    verdict = f"switch off {list(found.selected)}" if found else "no head is chosen"
    return [*lines, f"{verdict}: {found.reason}"]


def write(found: SuppressionHeads, out: Path) -> None:
    """Tables as csv, the result as JSON, figures as one page that needs no network."""
    from interp.provenance import write_json
    from probes.figures import head_map
    from refusalkit.page import Panel, write_page

    out.mkdir(parents=True, exist_ok=True)
    found.ranking.to_frame().to_csv(out / "ranking.csv", index=False)
    found.to_frame().to_csv(out / "curve.csv", index=False)
    result: dict[str, Any] = {
        "selected": [list(head) for head in found.selected], "reason": found.reason, "renorm": found.renorm,
        "ranked": [list(head) for head in found.heads], "path": found.ranking.path, "note": found.ranking.note,
        "noise": found.ranking.noise, "positions": list(found.ranking.positions),
        "provenance": dict(found.ranking.provenance),
        "controls": [
            {"n_heads": len(p.heads), "heads": [list(h) for h in c.heads], "times": c.times, "k": c.rate.k,
             "n": c.rate.n}
            for p in found.curve for c in p.controls
        ],
    }  # fmt: skip
    write_json(out / "heads.json", result)
    panels = [
        Panel("Refusal without them", f"{_CURVE} The number of heads was chosen on validation prompts.", found.plot()),
        Panel("Every head off, alone", _MAP, head_map(found.ranking, marked=found.selected)),
    ]
    write_page(out / "heads.html", "refusalkit heads", _title(found), told(found), panels)


_CURVE = "Held-out prompts with 95 % Wilson intervals. Controls: harmless prompts; as many other heads (the dots)."
_MAP = "At the deciding token, training prompts. A cross marks a head whose 95 % interval holds 0; a ring is chosen."


def _title(found: SuppressionHeads) -> str:
    name = found.ranking.provenance.get("model", {}).get("name", "the model")
    return f"Heads that hold refusal down in {name}"
