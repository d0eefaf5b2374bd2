"""The nnsight backend: every forward is one trace of a `TransformersModel` over a private copy of the model.

nnsight leaves a wrapper on the `forward` of every module it has seen, so it is given a copy of the modules. The copy
shares the user's weights: nnsight writes to none. A trace has to ask for values in the order in which they are
computed; that order is the one in which plain hooks met them when the model was loaded.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from torch import Tensor

from interp.errors import ModelError, SiteError
from interp.model.architecture import Architecture
from interp.model.attention_tap import attend_with
from interp.model.backends.private import backbone_of, forbid, missing, path_of, private_copy
from interp.model.block_visit import BlockVisit, Visit
from interp.model.session import StopForward

Stage = Callable[[BlockVisit], None]
_INSIDE = {
    "q": "attend", "k": "attend", "v": "attend", "pattern": "attend", "expert_indices": "experts",
    "expert_weights": "experts", "routing": "experts", "resid_mid": "attn_out",
}  # fmt: skip
"""Sites that are met at another's place."""


class NNsightBackend:
    """Runs traces on a copy of the model that shares its weights.

    Attributes:
        lm: nnsight's `TransformersModel`, for its own tools.
        arch: The architecture with the copy's backbone.
    """

    name = "nnsight"
    packages = ("nnsight",)
    read_only = frozenset[tuple[int, str]]()

    def __init__(self, hf: Any, tokenizer: Any, arch: Architecture) -> None:
        self.lm: Any = wrap(private_copy(hf, share_weights=True), tokenizer)
        self._user = hf
        self._backbone = follow(self.lm, path_of(hf, arch.backbone))
        self._blocks = [follow(self.lm, f"{path_of(hf, arch.blocks)}.{layer}") for layer in range(arch.n_layers)]
        self.arch = replace(arch, backbone=backbone_of(self.lm._module, hf, arch))
        self._attached: list[tuple[frozenset[tuple[int, str]], Visit]] = []

    def attach(self, arch: Architecture, wanted: Collection[tuple[int, str]], visit: Visit) -> ExitStack:
        """Have the traces from now on show the wanted (layer, site)."""
        known = {*arch.features, *((layer, "routing") for layer in arch.candidates("expert_weights"))}
        if unknown := sorted(set(wanted) - known):
            raise SiteError(f"the nnsight backend does not show {unknown[0][1]} at layer {unknown[0][0]}")
        entry = (frozenset(wanted), visit)
        with ExitStack() as stack:
            forbid(stack, self._user, self.name)
            self._attached.append(entry)
            stack.callback(self._attached.remove, entry)
            return stack.pop_all()

    def forward(self, arch: Architecture, inputs: Mapping[str, Any]) -> Tensor:
        """One trace of the backbone."""
        stages = self._stages(arch)
        found: list[Tensor] = []
        stopped: list[StopForward] = []
        with self._backbone.trace(**inputs) as tracer:
            for stage, shown in stages:
                try:
                    stage(shown)
                except StopForward as stop:
                    stopped.append(stop)
                    tracer.stop()
            found.append(self._backbone.output.last_hidden_state)
        if stopped:
            raise stopped[0]
        return found[0]

    def _visit(self, layer: int, site: str, x: Tensor) -> Tensor:
        for wanted, visit in self._attached:
            if (layer, site) in wanted:
                x = visit(layer, site, x)
        return x

    def _stages(self, arch: Architecture) -> list[tuple[Stage, BlockVisit]]:
        """What to do in the next trace, in the order of the forward."""
        wanted = frozenset[tuple[int, str]]().union(*(sites for sites, _ in self._attached))
        found: list[tuple[Stage, BlockVisit]] = []
        for layer in sorted({layer for layer, _ in wanted}):
            shown = BlockVisit(layer, {site for at, site in wanted if at == layer}, self._visit)
            places = {_INSIDE.get(site, site) for site in shown.sites}
            if places & {"attn_out", "router_logits", "experts"}:
                places.add("resid_pre")
            order = list(dict.fromkeys(_INSIDE.get(site, site) for at, site in arch.features if at == layer))
            stages = _stages_of_block(self._blocks[layer], arch, layer)
            found += [(stages[place], shown) for place in order if place in places]
        return found


def wrap(hf: Any, tokenizer: Any) -> Any:
    """nnsight's model over a model and a copy of its tokenizer (nnsight sets its padding)."""
    try:
        from nnsight import TransformersModel
    except ImportError as error:
        raise missing("nnsight", error) from error
    try:
        return TransformersModel(hf, tokenizer=copy.deepcopy(tokenizer), task="text-generation")
    except Exception as error:  # whatever its pipeline raises
        raise ModelError(f"nnsight cannot wrap {type(hf).__name__}: {error}; use backend='hooks'") from error


def follow(envoy: Any, path: str) -> Any:
    """nnsight's envoy of the module at a path."""
    for part in path.split(".") if path else ():
        envoy = envoy[int(part)] if part.isdigit() else getattr(envoy, part)
    return envoy


def operation(envoy: Any, name: str) -> Any:
    """The last operation of a module's forward whose label begins with a name (`attention_interface_1`).

    nnsight labels operations by the source text of the forward; the binding of a name comes before its calls.
    """
    labels = [label for label in envoy.source.names if label.rpartition("_")[0] == name]
    if not labels:
        raise SiteError(f"{envoy.path} calls no {name} in its forward, so nnsight cannot show what enters and leaves it")
    return getattr(envoy.source, labels[-1])


def _stages_of_block(block: Any, arch: Architecture, layer: int) -> dict[str, Stage]:
    """How to show each place of a block inside a trace."""
    layout = arch.layouts[layer]

    def envoy(role: str) -> Any:
        return follow(block, getattr(layout, role))

    def before(at: Callable[[], Any], see: Callable[[BlockVisit, Tensor], Tensor]) -> Stage:
        def stage(shown: BlockVisit) -> None:
            place = at()
            old = place.input
            new = see(shown, old)
            if new is not old:
                place.input = new

        return stage

    def after(at: Callable[[], Any], see: Callable[[BlockVisit, Tensor], Tensor]) -> Stage:
        def stage(shown: BlockVisit) -> None:
            place = at()
            output = place.output
            old = output[0] if isinstance(output, tuple) else output
            new = see(shown, old)
            if new is not old:
                place.output = (new, *output[1:]) if isinstance(output, tuple) else new

        return stage

    def attend(shown: BlockVisit) -> None:
        call = operation(envoy("attention"), "attention_interface")
        args, kwargs = call.inputs
        module, old, rest = args[0], args[1:4], args[4:]
        new = tuple(shown.heads(site, x) for site, x in zip(("q", "k", "v"), old, strict=True))
        if any(a is not b for a, b in zip(new, old, strict=True)):
            call.inputs = ((module, *new, *rest), kwargs)
        if "pattern" in shown.sites:
            output, weights = call.output
            changed = attend_with(shown, output, weights, new[2])
            if changed[1] is not weights:
                call.output = changed

    def experts(shown: BlockVisit) -> None:
        place = envoy("experts")
        args, kwargs = place.inputs
        values = [*args, *kwargs.values()]
        indices, weights = shown.experts(values[1], values[2])
        if indices is not values[1] or weights is not values[2]:
            values[1:3] = indices, weights
            place.inputs = (tuple(values[: len(args)]), dict(zip(kwargs, values[len(args) :], strict=True)))

    return {
        "resid_pre": before(lambda: block, BlockVisit.enter),
        "attend": attend,
        "z": before(lambda: envoy("o_proj"), lambda shown, x: shown.see("z", x)),
        "attn_out": after(lambda: envoy("attn_out"), BlockVisit.attention),
        "router_logits": after(
            lambda: operation(envoy("router"), "F_linear"), lambda shown, x: shown.tokens("router_logits", x)
        ),
        "experts": experts,
        "mlp_post": before(lambda: envoy("down"), lambda shown, x: shown.see("mlp_post", x)),
        "mlp_out": after(lambda: envoy("mlp_out"), lambda shown, x: shown.see("mlp_out", x)),
        "resid_post": after(lambda: block, lambda shown, x: shown.see("resid_post", x)),
    }
