"""The nnsight backend: every forward is one trace of a `TransformersModel` over a private copy of the model.

nnsight leaves a wrapper on the `forward` of every module it has seen, so it is given a copy of the modules. The copy
shares the user's weights: nnsight writes to none. A trace has to ask for values in the order in which they are
computed; that order is the one in which plain hooks met them when the model was loaded.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from interp.errors import ModelError, SiteError
from interp.model.architecture import Architecture, Layout
from interp.model.attention_tap import attend_with
from interp.model.backends.private import backbone_of, forbid, missing, path_of, private_copy
from interp.model.block_visit import BlockVisit, BlockVisits, Visit
from interp.model.check import on_meta
from interp.model.ops import INTERNAL
from interp.model.session import StopForward

Stage = Callable[[BlockVisit], None]
_INSIDE = {
    "q": "attend", "k": "attend", "v": "attend", "pattern": "attend", "router_logits": "router", "choice": "router",
    "expert_indices": "experts", "expert_weights": "experts", "routing": "experts", "resid_mid": "attn_out",
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
        known = {*arch.features, *((layer, name) for name, at in INTERNAL.items() for layer in arch.candidates(at))}
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
        stages = self.stages(arch, self._live)
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

    def _live(self, layer: int, path: str, inputs: bool, inside: str | None) -> Place:
        envoy = follow(self._blocks[layer], path)
        return LivePlace(getattr(envoy.source, operation(envoy, inside)) if inside else envoy, inputs)

    def stages(
        self, arch: Architecture, place: Callable[[int, str, bool, str | None], Place]
    ) -> list[tuple[Stage, BlockVisit]]:
        """What to do in the next trace, in the order of the forward."""
        wanted = frozenset[tuple[int, str]]().union(*(sites for sites, _ in self._attached))
        found: list[tuple[Stage, BlockVisit]] = []
        for layer in sorted({layer for layer, _ in wanted}):
            shown = BlockVisits(
                [
                    BlockVisit(layer, {site for at, site in sites if at == layer}, visit)
                    for sites, visit in self._attached
                ]
            )
            places = {_INSIDE.get(site, site) for site in shown.sites}
            if places & {"attn_out", "router", "experts", "mlp_out"}:
                places.add("resid_pre")
            order = list(dict.fromkeys(_INSIDE.get(site, site) for at, site in arch.features if at == layer))
            stages = stages_of_block(partial(place, layer), arch.layouts[layer])
            found += [(stages[place], shown) for place in order if place in places]
        return found


def wrap(hf: Any, tokenizer: Any) -> Any:
    """A `TransformersModel` over a model and a copy of its tokenizer (nnsight sets its padding)."""
    try:
        from nnsight import TransformersModel
    except ImportError as error:
        raise missing("nnsight", error) from error
    try:
        where = {"device": "meta"} if on_meta(hf) else {}
        return TransformersModel(hf, tokenizer=copy.deepcopy(tokenizer), task="text-generation", **where)
    except Exception as error:  # whatever its pipeline raises
        raise ModelError(f"nnsight cannot wrap {type(hf).__name__}: {error}; use backend='hooks'") from error


def follow(envoy: Any, path: str) -> Any:
    """The envoy of the module at a path."""
    for part in path.split(".") if path else ():
        envoy = envoy[int(part)] if part.isdigit() else getattr(envoy, part)
    return envoy


def operation(envoy: Any, name: str) -> str:
    """Label of the last operation of a module's forward that begins with a name (`attention_interface_1`).

    nnsight labels operations by the source text of the forward; the binding of a name comes before its calls.
    """
    labels = [label for label in envoy.source.names if label.rpartition("_")[0] == name]
    if not labels:
        raise SiteError(
            f"{envoy.path} calls no {name} in its forward, so nnsight cannot show what enters and leaves it"
        )
    return labels[-1]


class Place(Protocol):
    """Values of a module in a trace: its arguments in order, or its outputs."""

    def read(self, *at: int) -> list[Tensor]:
        """Those with these indices."""
        ...

    def write(self, new: Mapping[int, Tensor]) -> None:
        """Put others in their place."""
        ...


class LivePlace:
    """A `Place` inside a running trace."""

    def __init__(self, envoy: Any, inputs: bool) -> None:
        self._envoy, self._inputs = envoy, inputs
        self._found: Any = None

    def read(self, *at: int) -> list[Tensor]:
        """Wait for the module, and give some of its values, as far as there are."""
        self._found = self._envoy.inputs if self._inputs else self._envoy.output
        values = self._values()
        return [values[i] for i in at if i < len(values)]

    def write(self, new: Mapping[int, Tensor]) -> None:
        """Replace some of the values that were read last."""
        values = self._values()
        for i, x in new.items():
            values[i] = x
        if self._inputs:
            args, kwargs = self._found
            self._envoy.inputs = (tuple(values[: len(args)]), dict(zip(kwargs, values[len(args) :], strict=True)))
        else:
            self._envoy.output = tuple(values) if isinstance(self._found, tuple) else values[0]

    def _values(self) -> list[Any]:
        if self._inputs:
            args, kwargs = self._found
            return [*args, *kwargs.values()]
        return list(self._found) if isinstance(self._found, tuple) else [self._found]


PlaceOf = Callable[[str, bool, str | None], Place]
"""Called with a path inside the block, whether the inputs are meant, and the name of an operation in its forward."""


def stages_of_block(place: PlaceOf, layout: Layout) -> dict[str, Stage]:
    """How to show each place of a block."""

    def simple(
        path: str, inputs: bool, see: Callable[[BlockVisit, Tensor], Tensor], inside: str | None = None
    ) -> Stage:
        def stage(shown: BlockVisit) -> None:
            at = place(path, inputs, inside)
            (old,) = at.read(0)
            new = see(shown, old)
            if new is not old:
                at.write({0: new})

        return stage

    def site(name: str) -> Callable[[BlockVisit, Tensor], Tensor]:
        return lambda shown, x: shown.see(name, x)

    def attend(shown: BlockVisit) -> None:
        call = place(layout.attention, True, "attention_interface")
        query, key, value = call.read(1, 2, 3)  # the first argument is the module
        new = [shown.heads("q", query), shown.heads("k", key), shown.heads("v", value)]
        if new[0] is not query or new[1] is not key or new[2] is not value:
            call.write({1: new[0], 2: new[1], 3: new[2]})
        if "pattern" in shown.sites:
            result = place(layout.attention, False, "attention_interface")
            output, weights = result.read(0, 1)
            changed = attend_with(shown, output, weights, new[2])
            if changed[1] is not weights:
                result.write({0: changed[0], 1: changed[1]})

    def experts(shown: BlockVisit) -> None:
        called = place(str(layout.experts), True, None)
        found = called.read(1, 2)  # the first argument is the hidden states
        if len(found) < 2:
            return  # every expert sees every token, weighted before (Llama 4): nothing is chosen here
        indices, weights = found
        new = shown.experts(indices, weights)
        if new[0] is not indices or new[1] is not weights:
            called.write({1: new[0], 2: new[1]})

    def router(shown: BlockVisit) -> None:
        """Logits and the scores that experts are chosen by, as `interp.model.router_tap` shows them."""
        inside = str(layout.router)
        linear = place(inside, False, "F_linear")
        (old,) = linear.read(0)
        logits = shown.tokens("router_logits", old)
        if logits is not old:
            linear.write({0: logits})
            with suppress(SiteError):  # not every router has one
                sigmoid = place(inside, False, "router_logits_sigmoid")
                # It sends minus infinity to 0, from where a correction bias could bring an expert back.
                (scores,) = sigmoid.read(0)
                sigmoid.write({0: scores.masked_fill(torch.isneginf(logits), float("-inf"))})
        if "choice" in shown.sites:
            asked = place(inside, True, "torch_topk")
            (scores,) = asked.read(0)
            new = shown.tokens("choice", scores)
            if new is not scores:
                asked.write({0: new})
                found = place(inside, False, "torch_topk")
                (indices,) = found.read(1)
                found.write({0: scores.gather(-1, indices)})

    return {
        "resid_pre": simple("", True, lambda shown, x: shown.enter(x)),
        "attend": attend,
        "z": simple(layout.o_proj, True, site("z")),
        "attn_out": simple(layout.attn_out, False, lambda shown, x: shown.attention(x)),
        "router": router,
        "experts": experts,
        "mlp_post": simple(str(layout.down), True, site("mlp_post")),
        "mlp_out": simple(layout.mlp_out, False, lambda shown, x: shown.tokens("mlp_out", x)),
        "resid_post": simple("", False, site("resid_post")),
    }
