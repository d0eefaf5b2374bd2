"""nnsight's remote traces: forwards on NDIF, or `"local"`, which goes the same way without leaving this machine.

The reads and edits of a forward are written down as a program of torch operations (`interp.model.backends.recorder`)
before anything is sent. The trace then holds nothing but that program and an interpreter for it, in plain Python and
torch. Positions are gathered over there, so that what is read travels, not whole layers.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from interp.errors import EditError, ModelError, RefusalkitError, SiteError
from interp.model.architecture import Architecture
from interp.model.backends.nnsight import NNsightBackend, follow, operation
from interp.model.backends.private import path_of
from interp.model.backends.recorder import Recorder
from interp.model.block_visit import Visit
from interp.model.check import on_meta
from interp.model.session import StopForward


class RemoteBackend(NNsightBackend):
    """Runs every forward as a remote trace.

    Attributes:
        remote: `True` for NDIF, `"local"` for the dry run, or the address of a server.
        blocks_path: Where the decoder blocks are in the model.
    """

    def __init__(self, hf: Any, tokenizer: Any, arch: Architecture, remote: bool | str) -> None:
        if remote != "local" and not getattr(hf, "name_or_path", ""):
            raise ModelError("NDIF knows models by their Hub id; load the model by it, or use remote='local'")
        super().__init__(hf, tokenizer, arch)
        self.remote = remote
        if on_meta(hf):
            self.arch = replace(self.arch, head=_RemoteHead(self, path_of(hf, arch.head)))
        self._path = path_of(hf, arch.backbone)
        self.blocks_path = path_of(hf, arch.blocks)

    def attach(self, arch: Architecture, wanted: Collection[tuple[int, str]], visit: Visit) -> ExitStack:
        """Have the traces from now on show the wanted (layer, site)."""
        if any(site == "choice" for _, site in wanted):
            raise SiteError("a remote trace cannot mask or force experts; load the model without remote=")
        return super().attach(arch, wanted, visit)

    def forward(self, arch: Architecture, inputs: Mapping[str, Any]) -> Tensor:
        """One remote trace."""
        if inputs.get("past_key_values") is not None:
            raise ModelError(
                "generation needs a key-value cache, which does not outlive a remote trace: run prompts (model.run, "
                "model.logits, capture), or load the model without remote="
            )
        recorder, whole = self._record(arch, inputs["input_ids"].shape)
        with _reported(self.remote):
            saved = self._run(recorder.program, dict(inputs), whole)
        for buffer, value in zip(recorder.reads, saved, strict=False):
            buffer.copy_(value)
        if not whole:
            raise StopForward
        return saved[-1].to(inputs["input_ids"].device)

    def _record(self, arch: Architecture, shape: torch.Size) -> tuple[Recorder, bool]:
        """The program of the next forward, and whether it runs to the end."""
        recorder = Recorder()
        places = self.stages(arch, lambda *at: _Written(recorder, self, arch, shape, *at))
        with recorder:
            for stage, shown in places:
                try:
                    stage(shown)
                except StopForward:
                    return recorder, False
        return recorder, True

    def _run(self, program: list[Any], inputs: dict[str, Any], whole: bool) -> list[Tensor]:
        """Interpret a program inside a trace. What stands in the `with` block is sent as text, with what it names."""
        import nnsight
        from torch.utils import _pytree as tree

        lm, backbone = self.lm, [int(p) if p.isdigit() else p for p in self._path.split(".") if p]
        with lm.trace(**inputs, remote=self.remote) as tracer:
            saved = nnsight.save([])
            values, read = {}, {}
            for step in program:
                if step[0] == "read":
                    at, inside, arguments, wanted = step[1:]
                    place = lm
                    for part in at:
                        place = place[part] if isinstance(part, int) else getattr(place, part)
                    if inside is not None:
                        place = getattr(place.source, inside)
                    if arguments:
                        args, kwargs = place.inputs
                        read[at, inside, arguments] = [place, [*args, *kwargs.values()], args, kwargs]
                    else:
                        found = place.output
                        several = list(found) if isinstance(found, tuple) else [found]
                        read[at, inside, arguments] = [place, several, found, None]
                    for i, name in wanted:
                        values[name] = read[at, inside, arguments][1][i]
                elif step[0] == "op":
                    function: Any = torch.ops.aten
                    for part in step[1].split("."):
                        function = getattr(function, part)
                    flat, spec = tree.tree_flatten((step[2], step[3]))
                    home = [values[x].device for x in flat if isinstance(x, str) and x in values][0]
                    flat = [values.get(x, home) if isinstance(x, str) and x[:1] == "%" else x for x in flat]
                    flat = [x.to(home) if isinstance(x, torch.Tensor) else x for x in flat]
                    args, kwargs = tree.tree_unflatten(flat, spec)
                    result = function(*args, **kwargs)
                    for name, value in zip(
                        step[4], result if isinstance(result, tuple | list) else [result], strict=True
                    ):
                        values[name] = value
                elif step[0] == "write":
                    at, inside, arguments, changes = step[1:]
                    place, several, first, second = read[at, inside, arguments]
                    for i, name in changes:
                        new = values[name] if isinstance(name, str) else name
                        several[i] = new.to(several[i].device)
                    if arguments:
                        place.inputs = (
                            tuple(several[: len(first)]),
                            dict(zip(second, several[len(first) :], strict=True)),
                        )
                    else:
                        place.output = tuple(several) if isinstance(first, tuple) else several[0]
                else:
                    saved.append(values[step[1]].detach().cpu())
            if whole:
                place = lm
                for part in backbone:
                    place = place[part] if isinstance(part, int) else getattr(place, part)
                saved.append(place.output.last_hidden_state.detach().cpu())
            tracer.stop()
        return saved


@contextmanager
def _reported(remote: bool | str) -> Generator[None]:
    """What goes wrong on the way or over there (no key, no such model, no network) as an error of ours."""
    try:
        yield
    except Exception as error:  # whatever the service and its queue raise
        if remote == "local" or isinstance(error, RefusalkitError):
            raise
        raise ModelError(f"the remote trace failed: {type(error).__name__}: {error}") from error


class _RemoteHead(nn.Module):
    """The output head of a model whose weights are not here: one more remote trace."""

    def __init__(self, backend: RemoteBackend, path: str) -> None:
        super().__init__()
        self._backend, self._path = backend, path

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits of final hidden states `[row, d_model]`."""
        with _reported(self._backend.remote):
            return self._run(hidden)

    def _run(self, hidden: Tensor) -> Tensor:
        lm, path = self._backend.lm, self._path
        with lm.trace(input_ids=torch.zeros(1, 1, dtype=torch.long), remote=self._backend.remote) as tracer:
            head = lm
            for part in path.split("."):
                head = getattr(head, part)
            logits = head(hidden.to(head.weight.device, head.weight.dtype)).detach().cpu().save()
            tracer.stop()
        return logits


class _Written:
    """A `Place` that writes down what is read and written there."""

    def __init__(
        self, recorder: Recorder, backend: RemoteBackend, arch: Architecture, shape: torch.Size, layer: int, path: str,
        inputs: bool, inside: str | None,
    ) -> None:  # fmt: skip
        self._recorder, self._arch, self._layer, self._shape = recorder, arch, layer, shape
        full = f"{backend.blocks_path}.{layer}" + (f".{path}" if path else "")
        label = operation(follow(backend.lm, full), inside) if inside else None
        self._key = (tuple(int(p) if p.isdigit() else p for p in full.split(".")), label, inputs)
        self._sites = _sites(arch, layer, path, inputs, inside)

    def read(self, *at: int) -> list[Tensor]:
        """Stand-ins."""
        found = [self._recorder.track(*self._like(i)) for i in at]
        names = [(i, self._recorder.name(x)) for i, x in zip(at, found, strict=True)]
        self._recorder.program.append(("read", *self._key, names))
        return found

    def write(self, new: Mapping[int, Tensor]) -> None:
        """Write down what is put there."""
        for i, x in new.items():
            shape, dtype = self._like(i)
            if tuple(x.shape) != shape or x.dtype != dtype:
                raise EditError(f"an edit returned {x.dtype} {tuple(x.shape)} where {dtype} {shape} was")
        self._recorder.program.append(("write", *self._key, [(i, self._recorder.name(x)) for i, x in new.items()]))

    def _like(self, i: int) -> tuple[tuple[int, ...], torch.dtype]:
        """Shape and type of a value."""
        batch, tokens = self._shape
        site = self._sites[i]
        if (self._layer, site) not in self._arch.features:
            raise SiteError(f"layer {self._layer} has no {site}")
        feature = self._arch.features[self._layer, site]
        heads = self._arch.n_kv_heads if site in ("k", "v") else self._arch.n_heads
        if site in ("q", "k", "v"):
            return (batch, heads, tokens, feature.width // heads), feature.dtype
        if site == "pattern":
            return (batch, heads, tokens, tokens), feature.dtype
        if site == "z" and len(self._sites) > 1:  # as attention returns it, heads apart
            return (batch, tokens, heads, feature.width // heads), feature.dtype
        if site in ("router_logits", "expert_indices", "expert_weights"):
            return (batch * tokens, feature.width), feature.dtype
        return (batch, tokens, feature.width), feature.dtype


def _sites(arch: Architecture, layer: int, path: str, inputs: bool, inside: str | None) -> dict[int, str]:
    """Which site's values a place holds, by index."""
    layout = arch.layouts[layer]
    if inside == "attention_interface":
        return {1: "q", 2: "k", 3: "v"} if inputs else {0: "z", 1: "pattern"}
    if inside is not None:  # the router's linear map, its sigmoid, or its top-k
        return {0: "router_logits", 1: "expert_indices"}
    if inputs and path == layout.experts:
        return {1: "expert_indices", 2: "expert_weights"}
    if inputs:
        return {0: {"": "resid_pre", layout.o_proj: "z"}.get(path, "mlp_post")}
    return {0: {"": "resid_post", layout.attn_out: "attn_out"}.get(path, "mlp_out")}
