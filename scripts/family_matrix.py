"""Write docs/families.md: what was checked for every model family, and how large the errors were.

`python scripts/family_matrix.py` runs the checks of `tests/helpers/family_checks.py`, which the tests bound, on tiny
models built from configs, and says where the page is. The columns of the backends come from
`tests/families/backend_matrix.json`, which their own test writes:
`{"nnsight": {"llama": {"error": 2e-7, "lacks": ["pattern"], "note": ""}}}`.
"""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
PAGE = ROOT / "docs" / "families.md"
BACKENDS = ROOT / "tests" / "families" / "backend_matrix.json"
BACKEND_NAMES = ("transformer_lens", "nnsight")
HIDDEN = "#"

TOP = """# Model families

Sites are found by looking at a model's modules, and believed only after a short forward agrees: every site fires, and
`resid_mid = resid_pre + attn_out`, `resid_post = resid_mid + mlp_out`, `attn_out = post-norm(o_proj(z))`,
`resid_post[l] = resid_pre[l + 1]`. A model that breaks one of these is refused by its name; one that nobody knew and
that satisfies them works. The families below are tested with tiny models built from their configs, 3 layers, their
norm gains, biases, attention sinks and routers randomised, sliding windows of 8 tokens shorter than every prompt.

This page is written by `make families`; the tests hold every figure to a bound, and the page to their list. Errors are
the largest difference over the largest value of the reference, at the site where it is worst. They are those of one
machine (CPU): on another one the last digit may differ.

"""


def names() -> list[str]:
    """The families' names."""
    from tests.helpers.tiny import FAMILIES

    return list(FAMILIES)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def checks(family: str, measured: bool) -> list[str]:
    """One row of the table of checks."""
    from tests.helpers import family_checks as run
    from tests.helpers.slow import loaded

    model = loaded(family, attention="eager")
    backends = json.loads(BACKENDS.read_text()) if BACKENDS.is_file() else {}
    row = [family, type(model.hf).__name__]
    if measured:
        edited = [run.edits_against_hand(family, phase) for phase in run.PHASES]
        noise = [ours / own for ours, own in run.bfloat16_noise(family).values() if own]
        both = (None, "eager")
        row += [
            *(
                f"{max(max(check(family, attention).values()) for attention in both):.0e}"
                for check in (run.against_reference, run.batch_against_single, run.generation_against_replay)
            ),
            f"{max(error for error, _ in edited):.0e}",
            f"{max(noise):.2f}",
        ]
    else:
        row += [HIDDEN] * 5
    return row + [backend_cell(backends.get(name, {}).get(family)) for name in BACKEND_NAMES]


def backend_cell(found: dict[str, Any] | None) -> str:
    """What is known of a family behind a backend."""
    if found is None:
        return "not measured"
    parts = [f"{found['error']:.0e}"] if found.get("error") is not None else []
    parts += [f"without {', '.join(f'`{site}`' for site in found['lacks'])}"] if found.get("lacks") else []
    parts += [str(found["note"])] if found.get("note") else []
    return "; ".join(parts) or "works"


def sites(family: str, measured: bool, half: bool) -> list[str]:
    """One row of a table of sites: errors in fp32, or of ours and the model's own bf16 forward."""
    import interp
    from tests.helpers import family_checks as run
    from tests.helpers.slow import loaded

    model = loaded(family, attention="eager")
    full = run.against_reference(family, "eager") if measured and not half else {}
    noise = run.bfloat16_noise(family, "eager") if measured and half else {}
    row = [family]
    for site in interp.SITES:
        layers = model.arch.layers_with(site)
        if not layers or (half and site == "expert_indices"):
            row.append("-")
            continue
        if half:
            pair = [f"{100 * error:.2g}" for error in noise[site]] if measured else [HIDDEN, HIDDEN]
            text = " / ".join(f"{error}%" for error in pair)
        else:
            text = f"{full[site]:.0e}" if measured else HIDDEN
        row.append(text if len(layers) == model.n_layers else f"{text} (layer {', '.join(map(str, layers))})")
    return row


def weights(family: str, measured: bool) -> list[str]:
    """One row of the table of edits that became weights: errors in standard deviations of the logits."""
    import torch

    import steering
    from interp.edits import ablate, add
    from interp.errors import ModelError
    from tests.helpers.slow import loaded

    model = loaded(family)
    vector = torch.randn(model.d_model, generator=torch.Generator().manual_seed(1))

    def cell(make: Any, edit: Any) -> str:
        try:
            found, refused = make(model, edit).agreement, ""
        except ModelError:
            try:
                found, refused = make(model, edit, nearest=True).agreement, "nearest: "
            except ModelError:
                return "no"
        if not found.effect > 0.1:
            raise RuntimeError(f"{family}: {edit!r} moves the logits by {found.effect:.2g} sd, so equal says little")
        return refused + (f"{found.error:.0e}" if measured else HIDDEN)

    edits = [ablate(vector)] + [
        add(vector, 0.5, site=site, layer=layer)
        for site, layer in (("resid_pre", 0), ("attn_out", 1), ("resid_post", 1))
    ]
    return [family, *(cell(make, edit) for edit in edits for make in (steering.bake, steering.lora))]


def page(measured: bool = True) -> str:
    """The page; without `measured`, every figure is hidden and nothing is run but loading."""
    import interp

    families = names()
    parts = [
        TOP,
        "## Checks\n\n",
        table(
            ["family", "class", "all sites, by hand", "batch = single", "left padding, cache = neither",
             "edits in generation = by hand", "bf16 error over the model's own", *BACKEND_NAMES],
            [checks(family, measured) for family in families],
        ),
        "\n`by hand` is a slow reference that knows each family's module names and its rotary function by heart "
        "(`tests/helpers/slow.py`). Edits are made at ten sites at once, for prompt tokens, generated tokens and both; "
        "keys and values are those of the cache. Every family also passes `model.verify()`: an edit at each site "
        "changes the logits. A backend's figure is its largest difference from the default one.\n\n"
        "## Sites in fp32\n\nErrors against the reference under eager attention (`-`: the family has no such site; "
        "without eager attention none has a `pattern`). In dense families a batch then gives the same bits as each "
        "prompt alone, hence the zeros.\n\n",
        table(["family", *(f"`{site}`" for site in interp.SITES)], [sites(f, measured, False) for f in families]),
        "\n## Sites in bf16\n\nDistance from the same weights in fp32, relative to its norm: ours / that of the "
        "model's own bf16 forward. Experts are judged by the weight each got, since rounding may exchange two "
        "of nearly equal scores.\n\n",
        table(["family", *(f"`{site}`" for site in interp.SITES)], [sites(f, measured, True) for f in families]),
        "\n## Edits as weights\n\nLargest difference, in standard deviations of the logits, between a run-time edit "
        "and the same edit in weights, baked (`bake`) or as an adapter (`lora`), after every token of two prompts. "
        "`no`: the family has no weights that do it, and [an error says why](how-to/bake.md#by-family); *nearest*: how "
        "far off the nearest are that it has. The tests hold the others to 1e-4; every edit moves the logits by more "
        "than 0.1.\n\n",
        table(
            ["family", *(f"{edit}, `{how}`" for edit in ("ablation", "addition before the first block",
                                                         "addition to `attn_out`", "addition to `resid_post`")
                         for how in ("bake", "lora"))],
            [weights(f, measured) for f in families],
        ),
    ]  # fmt: skip
    return "".join(parts)


def hide(text: str) -> str:
    """A page with its own figures hidden (those of the backends, from a file, stay)."""
    found: list[str] = []
    for line in text.splitlines():
        cells = line.split(" | ")
        if line.startswith("| ") and len(cells) > 7 and "`" not in cells[1] and "---" not in line:
            keep = len(BACKEND_NAMES) if cells[1][:1].isupper() else 0  # a class: the table of checks
            last = len(cells) - keep
            cells[1:last] = [re.sub(r"\d+(\.\d+)?(e[+-]?\d+)?(?=$|%| \(| \|)", HIDDEN, cell) for cell in cells[1:last]]
        found.append(" | ".join(cells))
    return "\n".join(found) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
    print(PAGE.relative_to(ROOT))
