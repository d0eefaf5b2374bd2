"""What every family must satisfy, as errors that should be small; the tests bound them, the family table shows them.

Errors are relative: the largest difference over the largest value of the reference, for the site where it is worst.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

import interp
from tests.helpers.recorder import Recorder
from tests.helpers.slow import PROMPTS, at, loaded, slow_read, slow_sites
from tests.helpers.tiny import tiny_model, tiny_tokenizer

POSITIONS: list[str | int] = [0, "t_inst", "post_inst", "inst[0]"]
EDITED_SITES = ("resid_pre", "q", "k", "v", "z", "attn_out", "resid_mid", "mlp_post", "mlp_out", "resid_post")
PHASES = {"prompt": ("t_inst", "prompt"), "generation": ("all", "generation"), "both": ("all", "both")}
Errors = dict[str, float]


def sites_of(model: interp.Model) -> tuple[str, ...]:
    return tuple(site for site in interp.SITES if model.arch.layers_with(site))


def relative(ours: Tensor, theirs: Tensor) -> float:
    if ours.shape != theirs.shape or not len(ours):
        raise AssertionError(f"shapes {tuple(ours.shape)} and {tuple(theirs.shape)}")
    return float((ours.double() - theirs.double()).abs().max()) / (float(theirs.double().abs().max()) or 1.0)


def worst(pairs: Iterable[tuple[str, float]]) -> Errors:
    found: Errors = {}
    for site, error in pairs:
        found[site] = max(found.get(site, 0.0), error)
    return found


def captured(model: interp.Model, prompts: Any = PROMPTS) -> Mapping[tuple[str, int], list[Tensor]]:
    """Every site at every layer, for each prompt `[position, feature]`; `pattern` cut to the prompt's own keys."""
    found: dict[tuple[str, int], list[Tensor]] = {}
    encoded = model.encode(prompts)
    there = {site: model.arch.layers_with(site) for site in sites_of(model)}
    together = {
        layers: interp.capture(model, encoded, [s for s in there if there[s] == layers], POSITIONS)
        for layers in set(there.values())
    }
    for site, layers in there.items():
        for layer in layers:
            rows = list(together[layers].sel(site, layer))
            if site == "pattern":
                apart = (x.unflatten(-1, (model.n_heads, -1)) for x in rows)
                rows = [x[..., : len(e)].flatten(1) for x, e in zip(apart, encoded, strict=True)]
            found[site, layer] = rows
    return found


@cache
def told(family: str, attention: str | None = None) -> list[dict[tuple[str, int], Tensor]]:
    """The slow reference's sites, prompt by prompt, `[token, feature]`."""
    model = loaded(family, attention=attention)
    return [slow_sites(model.hf, family, e.ids) for e in model.encode(PROMPTS)]


def columns_of(model: interp.Model, prompt: Any) -> list[int]:
    return [c for encoded in model.encode(prompt) for name in POSITIONS for c in encoded.columns(name)]


def against_reference(family: str, attention: str | None = None) -> Errors:
    """A batched capture against the slow reference; both must have the same sites at the same layers."""
    model = loaded(family, attention=attention)
    ours, theirs = captured(model), told(family, attention)
    assert set(ours) == set(theirs[0]), set(ours) ^ set(theirs[0])
    columns = [columns_of(model, prompt) for prompt in PROMPTS]
    return worst(
        (site, relative(x, slow[site, layer][at]))
        for (site, layer), rows in ours.items() for x, slow, at in zip(rows, theirs, columns, strict=True)
    )  # fmt: skip


def batch_against_single(family: str, attention: str | None = None) -> Errors:
    """A capture of a batch against captures of its prompts alone."""
    model = loaded(family, attention=attention)
    together, alone = captured(model), [captured(model, prompt) for prompt in PROMPTS]
    return worst(
        (key[0], relative(x, single[key][0]))
        for key, rows in together.items() for x, single in zip(rows, alone, strict=True)
    )  # fmt: skip


def generation_against_replay(family: str, attention: str | None = None) -> Errors:
    """Left padding and a cache against neither.

    What every site shows while a batch of prompts is answered is compared with one forward over each prompt and its
    answer.
    """
    model = loaded(family, attention=attention)
    sites = sites_of(model)
    live = Recorder(sites)
    written = model.generate(PROMPTS, max_new_tokens=4, edits=[live])
    found: list[tuple[str, float]] = []
    for row, (encoded, completion) in enumerate(zip(model.encode(PROMPTS), written, strict=True)):
        still = Recorder(sites)
        model.logits([replace(encoded, ids=(*encoded.ids, *completion.ids[:-1]))], edits=[still])
        for site in sites:
            for layer in model.arch.layers_with(site):
                x, y = live.of(site, layer, row), still.of(site, layer, 0)
                if site == "pattern":
                    y = y[..., : x.shape[-1]]
                elif site in ("k", "v"):  # a sliding cache keeps the latest
                    y = y[-len(x) :]
                found.append((site, relative(x, y)))
    return worst(found)


def edits_against_hand(family: str, phase: str, sites: Sequence[str] = EDITED_SITES) -> tuple[float, float]:
    """Edited generation (left padding, cache) against the same edits by hand: plain hooks, one forward, neither.

    Returns:
        The error of the stream at the end of the last block, and how far the edits moved it.
    """
    model = loaded(family, attention="eager")
    position, when = PHASES[phase]
    edits: list[Any] = []
    changes: dict[tuple[str, int], Any] = {}
    for number, site in enumerate(EDITED_SITES):
        layers = model.arch.layers_with(site)
        if site not in sites or not layers:
            continue
        layer, options = layers[len(layers) // 2], {"positions": position, "phase": when}
        v = 0.3 * torch.randn(model.width(site, (), (layer,)), generator=torch.Generator().manual_seed(number))
        if site == "k":  # to add the same to every key moves no attention
            edits.append(interp.edits.ablate(v, 2.0, sites=site, layers=layer, **options))
            changes[site, layer] = partial(_fixed, unit=v / v.norm(), to=2.0)
        else:
            edits.append(interp.edits.add(v, site=site, layer=layer, **options))
            changes[site, layer] = partial(_added, v=v)
    seen = Recorder(("resid_post",))
    written = model.generate(PROMPTS, max_new_tokens=3, edits=[*edits, seen])
    error = moved = 0.0
    for row, (encoded, completion) in enumerate(zip(model.encode(PROMPTS), written, strict=True)):
        ids = (*encoded.ids, *completion.ids[:-1])
        columns = {
            "prompt": list(encoded.columns("t_inst")), "generation": list(range(len(encoded), len(ids))),
            "both": list(range(len(ids))),
        }[phase]  # fmt: skip
        hand = {key: at(columns, change) for key, change in changes.items()}
        want = slow_read(model.hf, family, ids, hand)["resid_post"][-1]
        error = max(error, relative(seen.of("resid_post", model.n_layers - 1, row), want))
        moved = max(moved, relative(want, slow_read(model.hf, family, ids)["resid_post"][-1]))
    return error, moved


def _added(x: Tensor, v: Tensor) -> Tensor:
    return x + v.to(x)


def _fixed(x: Tensor, unit: Tensor, to: float) -> Tensor:
    unit = unit.to(x)
    return x - (x @ unit - to)[..., None] * unit


def bfloat16_noise(family: str, attention: str | None = None) -> dict[str, tuple[float, float]]:
    """Errors of a bf16 capture, and of the model's own bf16 forward, against the same weights in fp32, per site."""
    truth = tiny_model(family, attention=attention)
    half = tiny_model(family, attention=attention)
    for full, low in zip(truth.parameters(), half.parameters(), strict=True):
        low.data = low.data.bfloat16()
        full.data = low.data.float()  # buffers (RoPE frequencies) stay in fp32, as in a checkpoint that is loaded
    model = interp.load(half, tiny_tokenizer())
    ours = captured(model)
    columns = [columns_of(model, prompt) for prompt in PROMPTS]
    encoded = model.encode(PROMPTS)
    exact = [slow_sites(truth, family, e.ids) for e in encoded]
    own = [slow_sites(half, family, e.ids) for e in encoded]
    n_experts = model.arch.feature("router_logits").width if model.arch.layers_with("router_logits") else 0
    found: dict[str, tuple[float, float]] = {}
    for site in sites_of(model):
        if site == "expert_indices":
            continue  # judged with their weights
        apart = [0.0, 0.0, 0.0]
        for layer in model.arch.layers_with(site):
            for row, cols in enumerate(columns):
                values = [ours[site, layer][row], own[row][site, layer][cols], exact[row][site, layer][cols]]
                if site == "expert_weights":
                    key = ("expert_indices", layer)
                    chosen = [ours[key][row], own[row][key][cols], exact[row][key][cols]]
                    values = [
                        torch.zeros(len(w), n_experts).scatter_(1, i, w.float())
                        for w, i in zip(values, chosen, strict=True)
                    ]
                a, b, t = (x.double() for x in values)
                for place, x in enumerate((a - t, b - t, t)):
                    apart[place] += float(x.square().sum())
        found[site] = (apart[0] / apart[2]) ** 0.5, (apart[1] / apart[2]) ** 0.5
    return found
