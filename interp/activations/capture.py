"""Capture: run prompts once and keep the wanted sites at the wanted positions."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from interp.activations.activations import Activations
from interp.activations.columns import resolve_columns
from interp.model.batching import TOKEN_BUDGET
from interp.model.model import Model, Prompts, place
from interp.model.session import Edit
from interp.model.sites import check_site
from interp.progress import progress_bar
from interp.provenance import digest_json
from interp.text.prompts import PromptSet


def capture(
    model: Model,
    prompts: Prompts,
    sites: str | Sequence[str] = "resid_post",
    positions: str | int | Sequence[str | int] = ("t_inst", "t_post_inst"),
    layers: int | Sequence[int] | None = None,
    *,
    edits: Sequence[Edit] = (),
    turn: int = -1,
    token_budget: int = TOKEN_BUDGET,
    progress: bool = False,
) -> Activations:
    """Capture activations.

    Prompts run through the backbone alone, batched by length under a token budget; each hook copies the wanted rows
    into a buffer, and the forward ends after the last site that is needed.

    Args:
        model: The model.
        prompts: One or several; a `PromptSet` brings labels and groups along.
        sites: One or several of `interp.SITES`.
        positions: Names (`interp.POSITION_NAMES`) or integers; `"post_inst"` is every template token after the
            instruction, one column each.
        layers: 0-based; all by default.
        edits: Changes to the forward pass; reads see the values after them.
        turn: Which user turn is the instruction; the last by default.
        token_budget: Padded tokens per batch.
        progress: Show a progress bar.

    Returns:
        `Activations`, `[example, layer, position, feature]` per site, in the model's dtype, on the CPU, in the order
        of the prompts.

    Raises:
        SiteError, PositionError, PromptError: For what is not there.
        NonFiniteError: For a NaN or infinite activation.
    """
    names = [sites] if isinstance(sites, str) else list(dict.fromkeys(sites))
    for site in names:
        check_site(site)
    chosen = model.layers_for(names, layers)
    encoded = model.encode(prompts, turn)
    labels, columns = resolve_columns(encoded, positions)
    data = {
        site: torch.empty(
            len(encoded),
            len(chosen),
            len(labels),
            model.width(site, encoded, chosen),
            dtype=model.site_dtype(site, chosen),
        )
        for site in names
    }
    with progress_bar("capturing", len(encoded), progress) as advance:
        reads = [((site, chosen), columns) for site in names]
        for step in model.steps(encoded, reads, edits, stop=True, token_budget=token_budget, done=advance):
            for site in names:
                place(data[site], step.rows, step.grid(site), model.n_heads if site == "pattern" else 1)
    kept = prompts if isinstance(prompts, PromptSet) else PromptSet(tuple(e.prompt for e in encoded), "prompts")
    provenance = {
        **model.provenance(),
        "prompts": {"name": kept.name, "digest": digest_json([e.text for e in encoded]), "n": len(encoded)},
        "edited": bool(edits),
    }
    return Activations(data, chosen, labels, kept, model.n_heads, provenance, model.arch.n_kv_heads)
