"""The architecture map: where each site lives in a model's module tree.

The map is data: names under which the children of a decoder block go in the model families there are. A block's layouts
are all the readings that its children allow, the likeliest first; a short forward then decides which of them tells the
truth (`interp.model.check`), so that a family nobody thought of works when it satisfies the same identities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import torch
from torch import nn

from interp.errors import ModelError, SiteError
from interp.model.sites import ATTENTION_SITES, ROUTING_SITES, SITES, check_site

ATTENTION = ("self_attn", "attn", "attention", "self_attention", "linear_attn")
O_PROJ = ("o_proj", "out_proj", "dense", "c_proj", "wo", "proj")
MLP = ("mlp", "feed_forward", "block_sparse_moe", "ffn", "moe")
DOWN = ("down_proj", "c_proj", "dense_4h_to_h", "fc2", "w2", "fc_out")
ROUTER = ("gate", "router")
EXPERTS = ("experts",)
# A norm of one of these names may stand before the MLP or after attention: the check tells which.
POST_ATTENTION = ("post_attention_layernorm", "post_self_attn_layernorm", "post_attention_norm", "post_attn_norm")
POST_MLP = ("post_feedforward_layernorm", "post_mlp_layernorm", "post_feedforward_norm", "post_mlp_norm")


@dataclass(frozen=True)
class Layout:
    """One reading of a decoder block: names of its descendants, `None` for what it lacks.

    Attributes:
        attention: The attention module.
        o_proj: Its output projection; the input of it is `z`.
        attn_out: Module whose output attention adds to the residual (the post-norm where there is one).
        mlp: The MLP or mixture of experts.
        mlp_out: Module whose output the MLP adds to the residual.
        down: The MLP's down projection; the input of it is `mlp_post`.
        router: The router of a mixture of experts.
        experts: The experts, called with indices and weights.
    """

    attention: str
    o_proj: str
    attn_out: str
    mlp: str
    mlp_out: str
    down: str | None
    router: str | None
    experts: str | None

    @property
    def attention_post_norm(self) -> str | None:
        """The norm between the output projection and the residual, if there is one."""
        return None if self.attn_out == self.attention else self.attn_out

    @property
    def mlp_post_norm(self) -> str | None:
        """The norm between the MLP and the residual, if there is one."""
        return None if self.mlp_out == self.mlp else self.mlp_out


@dataclass(frozen=True)
class Feature:
    """What a forward showed of a site at one layer: the width and type of its values."""

    width: int
    dtype: torch.dtype


@dataclass(frozen=True)
class Architecture:
    """The parts of one loaded model that sites and runs need.

    Attributes:
        backbone: The module that maps token ids to the last hidden state, without the output head.
        blocks: The decoder blocks, in order.
        layouts: How each block is laid out.
        parallel: Whether attention and MLP read the same residual, so that there is no `resid_mid`.
        head: The output head (unembedding).
        n_heads: Query heads per layer.
        n_kv_heads: Key and value heads per layer.
        d_model: Width of the residual stream.
        features: Width and type of every site at every layer that has it, as a forward showed them.
    """

    backbone: nn.Module
    blocks: nn.ModuleList
    layouts: tuple[Layout, ...]
    parallel: bool
    head: nn.Module
    n_heads: int
    n_kv_heads: int
    d_model: int
    features: Mapping[tuple[int, str], Feature] = field(default_factory=dict[tuple[int, str], Feature], repr=False)

    @property
    def n_layers(self) -> int:
        """Number of decoder blocks."""
        return len(self.blocks)

    @property
    def d_head(self) -> int:
        """Width of one head's `z`."""
        return self.feature("z").width // self.n_heads

    def candidates(self, site: str) -> tuple[int, ...]:
        """Layers whose modules could serve a site; whether they do is seen in a forward (`layers_with`)."""
        if site == "resid_mid" and self.parallel:
            return ()
        needed = {"mlp_post": "down", "router_logits": "router", "expert_indices": "experts",
                  "expert_weights": "experts"}.get(site)  # fmt: skip
        return tuple(i for i, layout in enumerate(self.layouts) if needed is None or getattr(layout, needed))

    def layers_with(self, site: str) -> tuple[int, ...]:
        """Layers that have a site."""
        return tuple(layer for layer in self.candidates(site) if (layer, site) in self.features)

    def need(self, site: str, layers: Sequence[int]) -> None:
        """Raise `SiteError` when a layer lacks a site; says why and which layers have it."""
        check_site(site)
        there = self.layers_with(site)
        missing = [layer for layer in layers if layer not in there]
        if not missing:
            return
        if there:
            raise SiteError(f"layer {missing[0]} has no {site}; the layers that have it are {_spans(there)}")
        raise SiteError(f"this model has no {site}: {_why_absent(site, self)}")

    def feature(self, site: str, layers: Sequence[int] | None = None) -> Feature:
        """Width and type of a site, the same at all the layers (by default at all that have it).

        Raises:
            SiteError: When a layer lacks the site, or layers differ in width.
        """
        chosen = self.layers_with(site) if layers is None else layers
        self.need(site, chosen or (0,))
        found = {self.features[layer, site] for layer in chosen}
        if len(found) > 1:
            raise SiteError(
                f"{site} is not equally wide in all layers ({', '.join(str(f.width) for f in found)}); take layers of "
                "one width at a time"
            )
        return found.pop()

    def module(self, layer: int, role: str) -> nn.Module:
        """A block's descendant by its role in the `Layout`."""
        return self.blocks[layer].get_submodule(getattr(self.layouts[layer], role))


def find_architecture(hf: Any) -> list[Architecture]:
    """Find a Hugging Face causal LM's parts by inspecting its module tree.

    Returns:
        All the readings that its modules allow, the likeliest first, without `features` yet.

    Raises:
        ModelError: When the blocks have no attention or no MLP under a known name; lists what they have.
    """
    config = hf.config.get_text_config()
    head = hf.get_output_embeddings()
    if head is None:
        raise ModelError(
            f"{type(hf).__name__} has no output head, so it writes no text; load it with AutoModelForCausalLM"
        )
    embedding = hf.get_input_embeddings()
    seen: list[str] = []
    for backbone in hf.modules():
        for blocks in backbone.children():
            if not isinstance(blocks, nn.ModuleList) or len(blocks) != config.num_hidden_layers:
                continue
            seen = seen or [name for name, _ in blocks[0].named_children()]
            readings = [_layouts(block) for block in blocks]
            # The tower that reads tokens, not one that reads images.
            if not all(readings) or not any(module is embedding for module in backbone.modules()):
                continue
            heads = config.num_attention_heads
            common = {
                "head": head, "n_heads": heads, "d_model": config.hidden_size,
                "n_kv_heads": getattr(config, "num_key_value_heads", None) or heads,
            }  # fmt: skip
            variety = max(len(found) for found in readings)
            # All blocks are read alike: the nth reading of each.
            return [
                Architecture(backbone, blocks, tuple(found[min(n, len(found) - 1)] for found in readings), parallel,
                             **common)
                for n in range(variety) for parallel in _parallel(config)
            ]  # fmt: skip
    raise ModelError(
        f"the blocks of {type(hf).__name__} are of no known kind (children: {', '.join(seen) or 'none found'}); "
        f"a block needs attention ({', '.join(ATTENTION)}) with an output projection and an MLP ({', '.join(MLP)})"
    )


def _layouts(block: nn.Module) -> list[Layout]:
    """The readings of one block, those with norms after attention and MLP first."""
    attention, mlp = _child(block, "", ATTENTION), _child(block, "", MLP)
    o_proj = attention and _child(block, attention, O_PROJ)
    if attention is None or mlp is None or o_proj is None:
        return []
    post_attention, post_mlp = _children(block, POST_ATTENTION), _children(block, POST_MLP)
    outs = list(product(post_attention, post_mlp))
    outs += [pair for pair in product((attention, *post_attention), (mlp, *post_mlp)) if pair not in outs]
    down, router, experts = _child(block, mlp, DOWN), _child(block, mlp, ROUTER), _child(block, mlp, EXPERTS)
    if experts is not None and isinstance(block.get_submodule(experts), nn.ModuleList):
        experts = None  # a list of modules is never called as one
    return [Layout(attention, o_proj, attn_out, mlp, mlp_out, down, router, experts) for attn_out, mlp_out in outs]


def _children(block: nn.Module, names: Sequence[str]) -> list[str]:
    return [name for name in names if isinstance(getattr(block, name, None), nn.Module)]


def _child(block: nn.Module, parent: str, names: Sequence[str]) -> str | None:
    module = block.get_submodule(parent)
    for name in names:
        if isinstance(getattr(module, name, None), nn.Module):
            return f"{parent}.{name}" if parent else name
    return None


def _parallel(config: Any) -> tuple[bool, bool]:
    """Whether blocks are parallel, the likelier answer first."""
    likely = any(bool(getattr(config, name, False)) for name in ("use_parallel_residual", "parallel_attn"))
    return (likely, not likely)


def _why_absent(site: str, arch: Architecture) -> str:
    if site == "resid_mid":
        return "its blocks are parallel (attention and MLP read the same residual), so there is nothing between them"
    if site == "pattern" and arch.layers_with("q"):
        return "attention weights exist in eager attention only; load it with attn_implementation='eager'"
    if site in ATTENTION_SITES:
        return "its attention does not go through the attention interface of transformers"
    if site in ROUTING_SITES:
        return "it has no mixture of experts that chooses by a router"
    if site == "mlp_post":
        return "its MLPs have no single down projection (experts are fused)"
    return f"nothing like it fires in its blocks; sites it has: {', '.join(s for s in SITES if arch.layers_with(s))}"


def _spans(layers: Sequence[int]) -> str:
    """`0-3, 5` for 0, 1, 2, 3, 5."""
    spans: list[list[int]] = []
    for layer in layers:
        if spans and layer == spans[-1][1] + 1:
            spans[-1][1] = layer
        else:
            spans.append([layer, layer])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)
