"""Checks by behaviour: the architecture map is believed only after a short forward agrees with it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from interp.errors import ModelError, NonFiniteError, SiteError
from interp.model.architecture import Architecture, Feature
from interp.model.batch import Cells
from interp.model.hooks import Backend
from interp.model.ops import Op
from interp.model.sites import ATTENTION_SITES, ROUTING_SITES, SITES
from interp.text.encoded import Encoded

if TYPE_CHECKING:
    from interp.model.model import Model

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
_MAY_BE_ABSENT = (*ATTENTION_SITES, *ROUTING_SITES, "mlp_post")
"""Sites that a forward may fail to show; the others every block has."""
_IDS = (11, 23, 5, 42, 17)
"""Five ordinary tokens; content does not matter here."""

Shown = Mapping[tuple[int, str], Tensor]


def check_weights(hf: Any) -> None:
    """Raise `NonFiniteError` naming the first weight that is NaN or infinite."""
    for name, weight in hf.named_parameters():
        if weight.is_floating_point() and weight.device.type != "meta" and weight.dtype.itemsize > 1:
            low, high = torch.aminmax(weight.detach())
            if not bool(torch.isfinite(low) & torch.isfinite(high)):
                raise NonFiniteError(f"weight {name} is not finite; the checkpoint is damaged, fetch it again")


@torch.inference_mode()
def settle(hf: Any, readings: list[Architecture], backend: Backend, check: bool = True) -> Architecture:
    """The first reading of the module tree that a short forward agrees with, its features filled in.

    Raises:
        SiteError: When none does; says for the likeliest reading which site or identity fails, and where.
    """
    failure: SiteError | None = None
    for arch in readings:
        try:
            seen, sequential = _look(hf, arch, backend)
            features = {k: Feature(x.shape[-1], x.dtype, k not in backend.read_only) for k, x in seen.items()}
            found = replace(arch, features=features, shown_by=backend.name)
            if check:
                _check_identities(type(hf).__name__, found, seen)
            if sequential:
                _check_kind(hf, found, sequential, seen, backend)
            return found
        except SiteError as error:
            failure = failure or error
    assert failure is not None
    raise failure


def check_causal(model: Model) -> None:
    """An edit at each site changes the logits; raises `SiteError` naming the site that is not live."""
    probe = _probe(model.hf)
    plain = model.logits([probe])
    for site in SITES:
        for layer in model.arch.layers_with(site):
            if not model.arch.features[layer, site].editable:
                continue
            if torch.equal(model.logits([probe], edits=[_Nudge(site, layer)]), plain):
                raise SiteError(f"changing {site} at layer {layer} does not change the logits: the site is not live")


def check_logits(model: Model) -> None:
    """Our logits (backbone, head on one row) are the model's own; raises `ModelError` when they are not."""
    probe = _probe(model.hf)
    with torch.inference_mode():
        own = model.hf(input_ids=torch.tensor([probe.ids], device=model.device)).logits[0, -1].float().cpu()
    error = float((model.logits([probe])[0] - own).abs().max()) / (float(own.abs().max()) or 1.0)
    if error > _TOLERANCE.get(model.dtype, 5e-2):
        raise ModelError(
            f"{type(model.hf).__name__} treats its logits in a way this version does not know (relative error "
            f"{error:.2g} against its own forward)"
        )


def logit_finish(hf: Any) -> Callable[[Tensor], Tensor]:
    """What a model does to its head's output: soft capping (Gemma 2) or scaling (Granite, Cohere)."""
    config = hf.config.get_text_config()
    cap = getattr(config, "final_logit_softcapping", None)
    times, over = getattr(config, "logit_scale", None), getattr(config, "logits_scaling", None)

    def finish(logits: Tensor) -> Tensor:
        if times:
            logits = logits * times
        if over:
            logits = logits / over
        return torch.tanh(logits / cap) * cap if cap else logits

    return finish


def on_meta(module: Any) -> bool:
    """Whether a model has no weights here: they are where its forwards run."""
    return any(weight.is_meta for weight in module.parameters())


def attention_of(arch: Architecture) -> str | None:
    """The attention implementation that an architecture's backbone runs."""
    return getattr(getattr(arch.backbone, "config", None), "_attn_implementation", None)


def _look(hf: Any, arch: Architecture, backend: Backend) -> tuple[dict[tuple[int, str], Tensor], list[bool]]:
    """Every site in one short forward, `[token, feature]` each, and which blocks read the middle of the stream.

    The latter is empty where these blocks have not run, but a backend's copy of them, or have no weights.
    """
    wanted = {(layer, site) for site in SITES for layer in arch.candidates(site)}
    if attention_of(arch) != "eager":
        wanted -= {(layer, "pattern") for layer in range(arch.n_layers)}
    seen: dict[tuple[int, str], Tensor] = {}

    def visit(layer: int, site: str, x: Tensor) -> Tensor:
        # A copy into a buffer: what a remote backend fills later.
        seen[layer, site] = torch.empty(x.shape[1:], dtype=x.dtype, device=x.device)
        seen[layer, site].copy_(x[0])
        return x

    with backend.attach(arch, wanted, visit), _inputs_of_children(arch) as taken:
        backend.forward(arch, _inputs(hf, backend))
    ran = any(taken) and not on_meta(hf)
    sequential = [_reads_middle(seen, layer, taken[layer]) for layer in range(arch.n_layers)] if ran else []
    for layer, site in sorted(wanted - set(seen)):
        if site not in _MAY_BE_ABSENT:
            raise SiteError(f"{type(hf).__name__}: {site} at layer {layer} did not fire in a forward pass")
    return seen, sequential


def _inputs_of_children(arch: Architecture) -> Any:
    """What the children of every block take in, while the context is open."""
    taken: list[list[Tensor]] = [[] for _ in arch.blocks]
    stack = ExitStack()

    def note(into: list[Tensor]) -> Callable[..., None]:
        def hook(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            into.extend(v[0].clone() for v in (*args[:1], kwargs.get("hidden_states")) if isinstance(v, Tensor))

        return hook

    for block, into in zip(arch.blocks, taken, strict=True):
        for child in block.children():
            stack.callback(child.register_forward_pre_hook(note(into), with_kwargs=True).remove)
    return _Holding(stack, taken)


@dataclass
class _Holding:
    stack: ExitStack
    value: list[list[Tensor]]

    def __enter__(self) -> list[list[Tensor]]:
        return self.value

    def __exit__(self, *_: object) -> None:
        self.stack.close()


def _reads_middle(seen: Shown, layer: int, taken: Collection[Tensor]) -> bool:
    """Whether some child of a block takes in the residual after attention has been added."""
    pre, added = seen.get((layer, "resid_pre")), seen.get((layer, "attn_out"))
    if pre is None or added is None:
        return False
    middle = (pre + added).double()
    tolerance = _TOLERANCE.get(pre.dtype, 5e-2)
    return any(x.shape == middle.shape and _error(x, middle) <= tolerance for x in taken)


def _check_identities(name: str, arch: Architecture, seen: Shown) -> None:
    """`resid_post = resid_pre + attn_out + mlp_out`, layer to layer, and `z` leads to `attn_out`."""
    for (layer, site), x in sorted(seen.items()):
        if not bool(torch.isfinite(x).all()):
            raise NonFiniteError(
                f"{site} at layer {layer} is not finite in a forward over five tokens; check the weights, or load the "
                "model with a wider dtype (dtype='float32')"
            )
    for layer in range(arch.n_layers):
        pre, attn, mlp, post = (seen[layer, s].double() for s in ("resid_pre", "attn_out", "mlp_out", "resid_post"))
        checks: list[tuple[str, Tensor, Tensor]] = []
        if not on_meta(arch.blocks):
            projected = arch.module(layer, "o_proj")(seen[layer, "z"])
            if arch.layouts[layer].attention_post_norm:
                projected = arch.module(layer, "attn_out")(projected)
            checks.append(("attn_out = post-norm(o_proj(z))", seen[layer, "attn_out"], projected))
        if arch.parallel:
            checks.append(("resid_post = resid_pre + attn_out + mlp_out", post, pre + attn + mlp))
        else:
            middle = seen[layer, "resid_mid"].double()
            checks.append(("resid_mid = resid_pre + attn_out", middle, pre + attn))
            checks.append(("resid_post = resid_mid + mlp_out", post, middle + mlp))
        if layer + 1 < arch.n_layers:
            checks.append(("resid_post[l] = resid_pre[l + 1]", post, seen[layer + 1, "resid_pre"].to(post.device)))
        for identity, left, right in checks:
            error = _error(left, right.double())
            if not error <= _TOLERANCE.get(seen[layer, "resid_pre"].dtype, 5e-2):
                raise SiteError(
                    f"{name} does not satisfy {identity} at layer {layer} (relative error {error:.2g}); "
                    "its blocks work otherwise than this version's architecture map says"
                )


def _check_kind(hf: Any, arch: Architecture, sequential: Sequence[bool], seen: Shown, backend: Backend) -> None:
    """The MLP of a sequential block reads `resid_mid`, that of a parallel one hears nothing of attention."""
    name = type(hf).__name__
    if not arch.parallel and not all(sequential):
        raise SiteError(
            f"{name} does not satisfy resid_mid = resid_pre + attn_out at layer {sequential.index(False)}: nothing in "
            "that block reads this sum; its blocks work otherwise than this version's architecture map says"
        )
    if arch.parallel and (all(sequential) or _mlp_hears_attention(hf, arch, seen[0, "mlp_out"], backend)):
        raise SiteError(f"{name}: its blocks are not parallel: their MLPs read what attention has written")


def _mlp_hears_attention(hf: Any, arch: Architecture, usual: Tensor, backend: Backend) -> bool:
    """Whether the first block's MLP gives something else when attention does."""
    heard: list[Tensor] = []

    def visit(_layer: int, site: str, x: Tensor) -> Tensor:
        if site == "attn_out":
            return x * 2 + 1
        heard.append(x[0])
        return x

    with backend.attach(arch, {(0, "attn_out"), (0, "mlp_out")}, visit):
        backend.forward(arch, _inputs(hf, backend))
    return _error(heard[0], usual.double()) > _TOLERANCE.get(usual.dtype, 5e-2)


def _error(left: Tensor, right: Tensor) -> float:
    return float((left.double() - right).abs().max()) / (float(right.abs().max()) or 1.0)


def _inputs(hf: Any, backend: Backend) -> dict[str, Any]:
    device = hf.get_input_embeddings().weight.device
    if device.type != "meta":
        ids = torch.tensor([_probe(hf).ids], device=device)
    elif backend.name == "hooks":
        # Without a cache, transformers looks for packed texts, by values that are not there.
        return {"input_ids": torch.tensor([_probe(hf).ids], device=device), "use_cache": True}
    else:
        ids = torch.tensor([_probe(hf).ids])
    return {"input_ids": ids, "position_ids": torch.arange(ids.shape[1], device=ids.device)[None], "use_cache": False}


def _probe(hf: Any) -> Encoded:
    size = hf.get_input_embeddings().weight.shape[0]
    return Encoded("", tuple(i % size for i in _IDS), ((0, 0),) * 5, {"prompt": (0, 5)}, "probe", 5)


@dataclass(frozen=True)
class _Nudge:
    """Random noise of the site's own size; at whole numbers (expert indices), the next one."""

    site: str
    layer: int

    def ops(self, arch: Architecture) -> list[Op]:
        width = arch.feature("router_logits").width if self.site == "expert_indices" else 0

        def change(x: Tensor, cells: Cells | None) -> Tensor:
            del cells
            if width:
                return (x + 1) % width
            noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
            return x + (noise.to(x) * x.float().std().clamp(min=1e-3).to(x))

        return [Op(self.site, self.layer, change, ("all",), "both", self)]
