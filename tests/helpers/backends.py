"""A backend against plain hooks, at every site and with every kind of edit; run by tests and by `make families`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

import interp
from tests.helpers.slow import PROMPTS, loaded
from tests.helpers.tiny import tiny_tokenizer

BACKENDS = ("transformer_lens", "nnsight")
BOUND = 1e-5
POSITIONS = [0, "t_inst", "last"]


@cache
def behind(family: str, backend: str, attention: str | None = None, **options: Any) -> interp.Model:
    """The family's tiny model behind a backend; shared, since nothing may change it."""
    return interp.load(loaded(family, attention=attention).hf, tiny_tokenizer(), backend=backend, **options)


def lacking(family: str, backend: str) -> dict[str, str]:
    """Sites that plain hooks show and the backend does not ("read"), or only shows ("edit")."""
    ours, peer = (m.arch for m in (loaded(family, attention="eager"), behind(family, backend, "eager")))
    found: dict[str, str] = {}
    for site in interp.SITES:
        if set(ours.layers_with(site)) - set(peer.layers_with(site)):
            found[site] = "read"
        elif not all(peer.features[layer, site].editable for layer in peer.layers_with(site)):
            found[site] = "edit"
    return found


def errors(family: str, backend: str, attention: str | None = None, **options: Any) -> dict[str, float]:
    """Largest differences from plain hooks: reads over the site's largest value, logits over their scale.

    Under eager attention, at the pattern alone, which there is under no other.
    """
    ours, peer = loaded(family, attention=attention), behind(family, backend, attention, **options)
    found = {"logits": _relative(peer.logits(PROMPTS), ours.logits(PROMPTS))}
    for sites, layers in _groups(ours, peer, ["pattern"] if attention else interp.SITES):
        a, b = (interp.capture(m, PROMPTS, sites, POSITIONS, layers) for m in (peer, ours))
        found |= {f"{site} read": _relative(a.data[site], b.data[site]) for site in sites}
        for site in sites:
            if peer.arch.features[layers[0], site].editable:
                values = _other(ours, site, b.sel(site, layer=layers[0]))
                edit = interp.edits.patch(values, site=site, layer=layers[0], positions=POSITIONS)
                found[f"{site} patched"] = _changed(peer, ours, edit)
    if attention:
        return found
    r = torch.randn(ours.d_model, generator=torch.Generator().manual_seed(1))
    for name, edit in {
        "ablated at every writer": interp.edits.ablate(r),
        "ablated in the stream": interp.edits.ablate(r, to=1.0),
        "steered": interp.edits.add(r, 3.0, site="resid_post", layer=1),
        "set": interp.edits.set_to(r, site="resid_pre", layer=1, positions="t_inst"),
        "heads scaled": interp.edits.scale_heads([(0, 1), (2, 3)], 0.5),
    }.items():
        found[name] = _changed(peer, ours, edit)
    return found


def _other(model: interp.Model, site: str, values: Tensor) -> Tensor:
    """Other values that may stand at a site: those of another prompt, another expert, another head."""
    if site == "pattern":
        return rearrange(rearrange(values, "n p (h k) -> n p h k", h=model.n_heads).flip(2), "n p h k -> n p (h k)")
    if site == "expert_indices":
        return (values + 1) % model.arch.feature("router_logits").width
    return values.flip(0)


def _groups(ours: interp.Model, peer: interp.Model, sites: Sequence[str]) -> list[tuple[list[str], tuple[int, ...]]]:
    """Sites that are at the same layers of both."""
    groups: dict[tuple[int, ...], list[str]] = {}
    for site in sites:
        if layers := tuple(n for n in peer.arch.layers_with(site) if n in ours.arch.layers_with(site)):
            groups.setdefault(layers, []).append(site)
    return [(sites, layers) for layers, sites in groups.items()]


def _changed(peer: interp.Model, ours: interp.Model, edit: Any) -> float:
    """The difference of edited logits; infinite for an edit that moved nothing."""
    a, b, plain = peer.logits(PROMPTS, [edit]), ours.logits(PROMPTS, [edit]), ours.logits(PROMPTS)
    return _relative(a, b) if _relative(plain, b) > 10 * BOUND else float("inf")


def _relative(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).abs().max() / b.double().abs().max().clamp(min=1e-12))


def row(family: str, backend: str) -> dict[str, Any]:
    """A cell of `tests/families/backend_matrix.json`."""
    lacks = lacking(family, backend)
    measured = {**errors(family, backend), **errors(family, backend, "eager")}
    shown = [site for site in interp.SITES if behind(family, backend, "eager").arch.layers_with(site)]
    notes = [f"`{site}` read only" for site, what in lacks.items() if what == "edit"]
    return {
        "error": float(f"{max(measured.values()):.0e}"),
        "sites": shown,
        "lacks": [site for site, what in lacks.items() if what == "read"],
        "note": "; ".join(notes),
    }


def matrix(families: Sequence[str]) -> dict[str, dict[str, Any]]:
    """All cells, by backend and family."""
    return {backend: {family: row(family, backend) for family in families} for backend in BACKENDS}
