"""The architecture map: where each site lives in a model's module tree.

The map is data. A block is recognised by the names of its children; the first pattern whose `requires` are all there,
and whose `excludes` are not, is taken. Whether the map tells the truth is checked by behaviour (`interp.model.check`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from interp.errors import ModelError


@dataclass(frozen=True)
class BlockPattern:
    """Names of a decoder block's children.

    Attributes:
        name: For messages.
        o_proj: The attention output projection; its input is `z`.
        attn_out: Module whose output is added to the residual by attention (the post-norm where there is one).
        mlp_out: The same for the MLP.
        requires: Children that a block of this kind has.
        excludes: Children that it does not have.
    """

    name: str
    o_proj: str
    attn_out: str
    mlp_out: str
    requires: tuple[str, ...]
    excludes: tuple[str, ...] = ()


BLOCKS = (
    BlockPattern(
        "gemma-like (norms before and after)",
        "self_attn.o_proj", "post_attention_layernorm", "post_feedforward_layernorm",
        ("input_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm", "self_attn.o_proj", "mlp"),
    ),
    BlockPattern(
        "olmo-2-like (norms after only)",
        "self_attn.o_proj", "post_attention_layernorm", "post_feedforward_layernorm",
        ("post_attention_layernorm", "post_feedforward_layernorm", "self_attn.o_proj", "mlp"),
        ("input_layernorm",),
    ),
    BlockPattern(
        "llama-like (norms before)",
        "self_attn.o_proj", "self_attn", "mlp",
        ("input_layernorm", "post_attention_layernorm", "self_attn.o_proj", "mlp"),
        ("pre_feedforward_layernorm",),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Architecture:
    """The parts of one loaded model that sites and runs need.

    Attributes:
        backbone: The module that maps token ids to the last hidden state, without the output head.
        blocks: The decoder blocks, in order.
        pattern: How a block is laid out.
        head: The output head (unembedding).
        n_heads: Query heads per layer.
        d_model: Width of the residual stream.
        d_head: Width of one head's `z`.
    """

    backbone: nn.Module
    blocks: nn.ModuleList
    pattern: BlockPattern
    head: nn.Module
    n_heads: int
    d_model: int
    d_head: int

    @property
    def n_layers(self) -> int:
        """Number of decoder blocks."""
        return len(self.blocks)

    def module(self, layer: int, site: str) -> nn.Module:
        """The module whose hook serves a site (its input for `resid_pre` and `z`, its output otherwise)."""
        block = self.blocks[layer]
        if site in ("resid_pre", "resid_post"):
            return block
        names = {"z": self.pattern.o_proj, "mlp_out": self.pattern.mlp_out}
        return block.get_submodule(names.get(site, self.pattern.attn_out))


def find_architecture(hf: Any) -> Architecture:
    """Find a Hugging Face causal LM's parts by inspecting its module tree.

    Raises:
        ModelError: When no known block is found; the message lists what the blocks look like.
    """
    config = hf.config.get_text_config()
    head = hf.get_output_embeddings()
    if head is None:
        raise ModelError(
            f"{type(hf).__name__} has no output head, so it writes no text; load it with AutoModelForCausalLM"
        )
    lists = [m for m in hf.modules() if isinstance(m, nn.ModuleList) and len(m) == config.num_hidden_layers]
    for blocks in lists:
        for pattern in BLOCKS:
            if all(_matches(block, pattern) for block in blocks):
                return Architecture(
                    backbone=_backbone(hf, blocks),
                    blocks=blocks,
                    pattern=pattern,
                    head=head,
                    n_heads=config.num_attention_heads,
                    d_model=config.hidden_size,
                    d_head=_d_head(config),
                )
    children = [name for name, _ in lists[0][0].named_children()] if lists else []
    raise ModelError(
        f"the blocks of {type(hf).__name__} are of no known kind (children: {', '.join(children) or 'none found'}); "
        "this version knows " + ", ".join(p.name for p in BLOCKS)
    )


def _matches(block: nn.Module, pattern: BlockPattern) -> bool:
    return all(_has(block, name) for name in pattern.requires) and not any(_has(block, n) for n in pattern.excludes)


def _has(block: nn.Module, name: str) -> bool:
    try:
        block.get_submodule(name)
    except AttributeError:
        return False
    return True


def _backbone(hf: nn.Module, blocks: nn.ModuleList) -> nn.Module:
    """The smallest module that holds the blocks and takes token ids: the parent of the list."""
    for module in hf.modules():
        if any(child is blocks for child in module.children()):
            return module
    raise ModelError(f"the blocks of {type(hf).__name__} have no parent module")


def _d_head(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
