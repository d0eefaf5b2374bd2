"""`hf_hooks`: a vector in plain transformers, by plain torch hooks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from interp.errors import EditError, PositionError
from interp.model.architecture import find_architecture
from steering.clients.additions import EVERYWHERE, acts_everywhere, additions
from steering.vector import SteeringVector

_LAST = ("last", "t_post_inst")
_WHOLE = ("all", "prompt")


@contextmanager
def hf_hooks(vector: SteeringVector, hf_model: Any) -> Generator[Any]:
    """Steer a plain Hugging Face model: everything that runs inside the `with` block, `generate` included.

    Right under a key-value cache, in batches with padding, and in beam search. The model need not be loaded by this
    package, and is what it was when the block is left, also after an exception.

    Args:
        vector: At `resid_pre` or `resid_post`. Of positions it may name those that need no chat template: all, whole
            numbers, `prompt`, `last`; and any phase. Numbers count tokens of the prompt, padding left out, which is
            read from the attention mask.
        hf_model: A causal language model of transformers.

    Yields:
        The model.

    Raises:
        SiteError: For other sites, or a layer that the model lacks.
        DirectionError: For another width.
        EditError: For positions that have names of the template; where prompt and answer cannot be told apart; on
            leaving, when the model ran and the vector met no token.
    """
    arch = find_architecture(hf_model)[0]
    added = additions(vector, arch.n_layers, arch.d_model)
    chosen = _Chosen(vector, arch.backbone)
    with ExitStack() as stack:
        if not acts_everywhere(vector):
            start = arch.backbone.register_forward_pre_hook(chosen.start, with_kwargs=True)
            stack.callback(start.remove)
        for one in added:
            block, change = arch.blocks[one.layer], chosen.only(one)
            if one.enters:
                handle = block.register_forward_pre_hook(_entering(change), with_kwargs=True)
            else:
                handle = block.register_forward_hook(_leaving(change))
            stack.callback(handle.remove)
        yield hf_model
    if chosen.forwards and not chosen.touched:
        raise EditError(
            f"the vector touched nothing: it acts in the {vector.phase} phase, of which there was none; use generate, "
            f"or {EVERYWHERE}"
        )


class _Chosen:
    """Which tokens of the forward that is running the vector acts on.

    Args:
        vector: Its positions and phase are what is asked for.
        backbone: Its arguments tell what is running.
    """

    def __init__(self, vector: SteeringVector, backbone: Any) -> None:
        named = [p for p in vector.positions if isinstance(p, str) and p not in (*_WHOLE, *_LAST)]
        if named and vector.phase != "generation":
            raise EditError(
                f"plain hooks see tokens but no chat template, so they cannot find {named[0]!r}; use "
                "interp.load(hf_model, tokenizer).generate(prompts, edits=vector), give whole numbers as positions, or "
                f"steer everywhere: {EVERYWHERE}"
            )
        self._positions, self._phase = vector.positions, vector.phase
        self._signature = inspect.signature(backbone.forward)
        self._mask: Tensor | bool = True
        self.forwards = self.touched = 0

    def start(self, _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Find the tokens when a forward begins."""
        given = self._signature.bind_partial(*args, **kwargs).arguments
        given = {**given.get("kwargs", {}), **given}
        ids = given.get("input_ids")
        tokens: Tensor = given["inputs_embeds"] if ids is None else ids
        batch, width = tokens.shape[:2]
        past = given.get("past_key_values")
        cached = int(past.get_seq_length()) if past is not None else 0
        if given.get("use_cache") is False or (cached and width > 1):
            raise EditError(
                f"this vector acts on {'+'.join(map(str, self._positions))} in the phase {self._phase!r}, but without "
                "a cache, or with a part of the prompt in it, prompt and answer cannot be told apart; leave use_cache "
                f"on and give the prompt in one piece, or steer everywhere: {EVERYWHERE}"
            )
        self.forwards += 1
        if cached:
            self._mask = self._phase != "prompt"
        elif self._phase == "generation":
            self._mask = False
        else:
            whole = any(position in _WHOLE for position in self._positions)
            self._mask = True if whole else self._columns(given.get("attention_mask"), batch, width).to(tokens.device)
        self.touched += int(self._mask if isinstance(self._mask, bool) else self._mask.sum())

    def _columns(self, attention: Any, batch: int, width: int) -> Tensor:
        """Where the numbered tokens are `[batch, token]`."""
        seen = torch.ones(batch, width, dtype=torch.bool) if attention is None else attention
        if not isinstance(seen, Tensor) or seen.shape != (batch, width):
            raise EditError(
                "the attention mask does not tell which tokens are padding; give it as [batch, token], or steer "
                f"everywhere: {EVERYWHERE}"
            )
        chosen = torch.zeros(batch, width, dtype=torch.bool)
        for row, real in enumerate(seen.bool().cpu()):
            columns = real.nonzero()[:, 0]
            for position in self._positions:
                place = -1 if isinstance(position, str) else position
                if not -len(columns) <= place < len(columns):
                    raise PositionError(f"position {place} is outside a prompt of {len(columns)} tokens")
                chosen[row, columns[place]] = True
        return chosen

    def only(self, change: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """A change kept to these tokens."""

        def kept(x: Tensor) -> Tensor:
            mask = self._mask
            if isinstance(mask, bool):
                return change(x) if mask else x
            return torch.where(mask.to(x.device)[..., None], change(x), x)

        return kept


def _entering(change: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    """A hook on what enters a block, which may be given by name."""

    def hook(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

    return hook


def _leaving(change: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    """A hook on what leaves a block: a tensor, or the first of several (transformers 4)."""

    def hook(_module: Any, _args: Any, output: Any) -> Any:
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    return hook
