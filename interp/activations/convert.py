"""Activations that were made elsewhere: a TransformerLens cache, values saved by nnsight, Hugging Face hidden states.

Each is turned into `Activations` with named positions, after the same prompts have been tokenised here; shapes and
padding must agree with those tokens. What is stored under a layer's number elsewhere is put under our site and layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from interp.activations.activations import Activations
from interp.activations.columns import resolve_columns
from interp.errors import NonFiniteError, PositionError, PromptError, SiteError
from interp.model.model import Model, Prompts
from interp.model.sites import check_layers, check_site
from interp.provenance import digest_json
from interp.text.encoded import Encoded
from interp.text.prompts import PromptSet

_LENS = {
    "resid_pre": "hook_resid_pre", "z": "attn.hook_z", "attn_out": "hook_attn_out", "resid_mid": "hook_resid_mid",
    "mlp_post": "mlp.hook_post", "mlp_out": "hook_mlp_out", "resid_post": "hook_resid_post",
}  # fmt: skip
_BRIDGE = {"resid_pre": "hook_in", "resid_post": "hook_out", "attn_out": "attn.hook_out", "mlp_out": "mlp.hook_out"}
"""What a `TransformerBridge` calls the same point beside the name above, where no post-norm comes after."""

Positions = str | int | Sequence[str | int]
Found = dict[str, dict[int, Tensor]]


def from_transformer_lens(
    cache: Any,
    model: Model,
    prompts: Prompts,
    sites: str | Sequence[str] | None = None,
    positions: Positions = ("t_inst", "t_post_inst"),
    layers: int | Sequence[int] | None = None,
    *,
    attention_mask: Tensor | None = None,
) -> Activations:
    """Turn a TransformerLens `ActivationCache` into `Activations`.

    Args:
        cache: The cache, or a mapping from hook names to tensors `[batch, token, ...]`.
        model: The same model, whose chat format names the positions.
        prompts: The prompts that were run, in the order of the batch. Run the bridge on the tokens of
            `model.encode(prompts)`: from a string it makes tokens of its own, with another BOS in front.
        sites: By default every site that the cache has.
        positions: Single tokens or fixed regions, as for `interp.capture`.
        layers: By default those in the cache.
        attention_mask: `[batch, token]`, 1 for tokens and 0 for padding; needed when the prompts differ in length.

    Raises:
        SiteError: When the cache lacks a site or layer, or a width is not this model's.
        PositionError: When the tokens do not match the prompts.
    """
    named: Mapping[str, Tensor] = getattr(cache, "cache_dict", cache)
    found: Found = {}
    for site in _names(sites) or _LENS:
        if site not in _LENS:
            raise SiteError(f"{site} is not taken from a TransformerLens cache; it has {', '.join(_LENS)}")
        points = [_LENS[site]]
        layout = model.arch.layouts[0]
        if not (layout.attention_post_norm or layout.mlp_post_norm) or site.startswith("resid"):
            points += [_BRIDGE[site]] if site in _BRIDGE else []
        for layer in range(model.n_layers):
            values = [named[f"blocks.{layer}.{p}"] for p in points if f"blocks.{layer}.{p}" in named]
            if values and (layer, site) in model.arch.features:
                x = values[0] if getattr(cache, "has_batch_dim", True) else values[0][None]
                found.setdefault(site, {})[layer] = rearrange(x, "b t h d -> b t (h d)") if x.ndim == 4 else x
    return _activations(
        model, prompts, _chosen(model, found, sites, layers), positions, attention_mask, "transformer_lens"
    )


def from_nnsight(
    values: Any,
    model: Model,
    prompts: Prompts,
    site: str | None = None,
    positions: Positions = ("t_inst", "t_post_inst"),
    layers: int | Sequence[int] | None = None,
    *,
    attention_mask: Tensor | None = None,
) -> Activations:
    """Turn what an nnsight trace has saved into `Activations`.

    Args:
        values: Saved tensors `[batch, token, width]` by layer, or what `tracer.cache()` returned, of which the outputs
            of blocks (`resid_post`), attention (`attn_out`) and MLPs (`mlp_out`) are taken.
        model: The same model, whose chat format names the positions.
        prompts: The prompts that were run, in the order of the batch.
        site: What was saved; with a cache, all of the three by default.
        positions: Single tokens or fixed regions, as for `interp.capture`.
        layers: By default those that were saved.
        attention_mask: `[batch, token]`, 1 for tokens and 0 for padding (nnsight pads on the left); needed when the
            prompts differ in length.

    Raises:
        SiteError: When a site or layer was not saved, or a width is not this model's.
        PositionError: When the tokens do not match the prompts.
    """
    if isinstance(values, Mapping):
        if site is None:
            raise SiteError("say what was saved: from_nnsight(values, model, prompts, site='resid_post')")
        found: Found = {check_site(site): {layer: _first(x) for layer, x in values.items()}}
    else:
        found = _from_nnsight_cache(values, model)
    return _activations(model, prompts, _chosen(model, found, site, layers), positions, attention_mask, "nnsight")


def from_hidden_states(
    hidden_states: Sequence[Tensor],
    model: Model,
    prompts: Prompts,
    positions: Positions = ("t_inst", "t_post_inst"),
    layers: int | Sequence[int] | None = None,
    *,
    attention_mask: Tensor | None = None,
) -> Activations:
    """Turn the `hidden_states` of a Hugging Face output into `Activations` of `resid_pre`.

    `hidden_states[l]` is `resid_pre` of layer l, for every l below the number of layers. One more comes last: it is
    after the final norm, a different thing, and is left out; what leaves the last block can't be had from it.

    Args:
        hidden_states: `output.hidden_states`, number of layers + 1 tensors `[batch, token, d_model]`.
        model: The same model, whose chat format names the positions.
        prompts: The prompts that were run, in the order of the batch.
        positions: Single tokens or fixed regions, as for `interp.capture`.
        layers: All by default.
        attention_mask: The one that the model was given; needed when the prompts differ in length.

    Raises:
        SiteError: For another number of layers, or another width.
        PositionError: When the tokens do not match the prompts.
    """
    several: Sequence[Any] = hidden_states
    if len(several) != model.n_layers + 1 or not all(isinstance(x, Tensor) for x in several):
        raise SiteError(
            f"{len(hidden_states)} hidden states were given, but this model's forward makes {model.n_layers + 1} "
            "tensors: give output.hidden_states of one forward (generate makes one such tuple per token)"
        )
    found: Found = {"resid_pre": dict(enumerate(hidden_states[:-1]))}
    return _activations(model, prompts, _chosen(model, found, None, layers), positions, attention_mask, "hidden_states")


def _from_nnsight_cache(cache: Any, model: Model) -> Found:
    """Outputs of blocks, attention and MLPs, told by their module's path."""
    paths = {id(module): name for name, module in model.hf.named_modules()}
    wanted: dict[str, tuple[str, int]] = {}
    for layer, block in enumerate(model.arch.blocks):
        layout, path = model.arch.layouts[layer], paths[id(block)]
        wanted[path] = ("resid_post", layer)
        wanted[f"{path}.{layout.attn_out}"] = ("attn_out", layer)
        wanted[f"{path}.{layout.mlp_out}"] = ("mlp_out", layer)
    found: Found = {}
    for key in cache.keys():  # noqa: SIM118  (no Mapping: iterating it would index it by number)
        path = key.removeprefix("model.")
        if path in wanted:
            site, layer = wanted[path]
            found.setdefault(site, {})[layer] = _first(cache[key].output)
    return found


def _first(x: Any) -> Tensor:
    """The tensor of a module's output, which attention and some MLPs give in a tuple."""
    x = x[0] if isinstance(x, tuple) else x
    if not isinstance(x, Tensor):
        raise SiteError(f"a saved value is {type(x).__name__}, not one tensor; save those of one forward")
    return x


def _names(sites: str | Sequence[str] | None) -> list[str]:
    return [] if sites is None else [check_site(s) for s in ([sites] if isinstance(sites, str) else sites)]


def _chosen(model: Model, found: Found, sites: str | Sequence[str] | None, layers: int | Sequence[int] | None) -> Found:
    """Sites and layers wanted of those found, the same layers for every site."""
    names = _names(sites) or list(found)
    for site in names:
        if not found.get(site):
            raise SiteError(f"no {site} was found; there is {', '.join(found) or 'nothing that this model has'}")
    given = None if layers is None else check_layers(layers, model.n_layers)
    wanted = {site: given or tuple(sorted(found[site])) for site in names}
    for site, chosen in wanted.items():
        if gone := [layer for layer in chosen if layer not in found[site]]:
            raise SiteError(f"{site} was not saved at layer {gone[0]}; saved: {sorted(found[site])}")
    if len(set(wanted.values())) > 1:
        raise SiteError(f"the sites were saved at different layers ({wanted}); say which sites and layers you want")
    return {site: {layer: found[site][layer] for layer in chosen} for site, chosen in wanted.items()}


def _activations(
    model: Model, prompts: Prompts, found: Found, positions: Positions, mask: Tensor | None, source: str
) -> Activations:
    if not found:
        raise SiteError("no site of this model was found in what was given")
    encoded = model.encode(prompts)
    names, columns = resolve_columns(encoded, positions)
    layers = tuple(next(iter(found.values())))
    shift: list[int] | None = None
    data: dict[str, Tensor] = {}
    for site, values in found.items():
        model.arch.need(site, layers)
        gathered: list[Tensor] = []
        for layer in layers:
            x, width = values[layer], model.arch.features[layer, site].width
            if x.ndim != 3 or len(x) != len(encoded) or x.shape[-1] != width:
                raise SiteError(
                    f"{site} at layer {layer} has shape {list(x.shape)}, but [{len(encoded)}, tokens, {width}] is "
                    "needed for these prompts and this model"
                )
            shift = shift or _padding(encoded, x.shape[1], mask)
            if x.shape[1] != (found[next(iter(found))][layers[0]]).shape[1]:
                raise SiteError(f"{site} at layer {layer} has {x.shape[1]} tokens, unlike the others")
            picked = [x[b, [c + pad for c in row]] for b, (row, pad) in enumerate(zip(columns, shift, strict=True))]
            gathered.append(torch.stack(picked).detach().cpu())
        data[site] = torch.stack(gathered, 1)
        if not bool(torch.isfinite(data[site]).all()):
            raise NonFiniteError(f"the {site} that was given holds NaN or infinite values at the wanted positions")
    kept = prompts if isinstance(prompts, PromptSet) else PromptSet(tuple(e.prompt for e in encoded), "prompts")
    provenance = {
        **model.provenance(),
        "backend": f"converted from {source}",
        "prompts": {"name": kept.name, "digest": digest_json([e.text for e in encoded]), "n": len(encoded)},
        "edited": "unknown",
    }
    return Activations(data, layers, names, kept, model.n_heads, provenance)


def _padding(encoded: Sequence[Encoded], width: int, mask: Tensor | None) -> list[int]:
    """Columns of padding before each prompt."""
    if mask is None:
        for row, item in enumerate(encoded):
            if len(item) != width:
                raise PositionError(
                    f"the values have {width} tokens, but prompt {row} is {len(item)} tokens long: give the "
                    "attention_mask if it was padded; if not, it was tokenised otherwise (a second BOS?)"
                )
        return [0] * len(encoded)
    if tuple(mask.shape) != (len(encoded), width):
        raise PromptError(f"the attention mask has shape {list(mask.shape)}, not [{len(encoded)}, {width}]")
    pads: list[int] = []
    for row, (item, line) in enumerate(zip(encoded, mask.cpu().bool(), strict=True)):
        columns = line.nonzero()[:, 0].tolist()
        if len(columns) != len(item) or columns != list(range(columns[0], columns[0] + len(item))):
            raise PositionError(
                f"the attention mask gives prompt {row} {len(columns)} tokens, but it is {len(item)} tokens long: it "
                "was tokenised otherwise (a second BOS?)"
            )
        pads.append(columns[0])
    return pads
