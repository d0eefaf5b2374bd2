"""`Model`: a Hugging Face causal LM with its tokenizer, chat format and site map, looked into but never changed."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from interp.errors import NonFiniteError, PromptError, SiteError
from interp.model.architecture import Architecture
from interp.model.batch import Batch
from interp.model.batching import TOKEN_BUDGET, pad, plan
from interp.model.hooks import Backend, HooksBackend
from interp.model.ops import Edit, flatten_edits
from interp.model.session import Read, ReadSession, Session, StopForward
from interp.model.sites import check_layers, check_site
from interp.model.steps import Run, Step, cells_at, check_finite
from interp.provenance import versions
from interp.text.chat import ChatFormat
from interp.text.encoded import Encoded, PromptLike, Trace
from interp.text.prompts import Prompt

Prompts = PromptLike | Encoded | Sequence[PromptLike] | Sequence[Encoded]
_FILE = re.compile(r"\S+\.(txt|csv|tsv|jsonl?|parquet)")
ReadRequest = tuple[str, tuple[int, ...]]


class Model:
    """A causal LM with everything that is needed to look inside it.

    Build one with `interp.load`. The Hugging Face model in `hf` belongs to the user: hooks are put on it while
    something runs and are taken off again, also after an exception; nothing else of it is touched.

    Attributes:
        hf: The Hugging Face model.
        tokenizer: Its tokenizer.
        chat: How prompts become tokens (`interp.text.chat.ChatFormat`).
        arch: Where the sites are (`interp.model.architecture.Architecture`).
        name: What it was loaded as.
        identity: Id, revision or content digest, for the provenance.
        standing: Edits of the `edited` blocks that are open, outermost first.
        backend: What runs forward passes and shows the sites (`interp.model.hooks`).
    """

    def __init__(
        self,
        hf: Any,
        tokenizer: Any,
        chat: ChatFormat,
        arch: Architecture,
        name: str,
        identity: dict[str, Any],
        backend: Backend | None = None,
    ) -> None:
        self.hf = hf
        self.tokenizer = tokenizer
        self.chat = chat
        self.arch = arch
        self.name = name
        self.identity = identity
        self.backend = backend or HooksBackend()
        # What is running, innermost last; shared by views of one model behind other chat formats.
        self._live: list[Batch] = []
        self.standing: list[list[Edit]] = []

    def __repr__(self) -> str:
        return (
            f"Model({self.name!r}, {type(self.hf).__name__}, {self.n_layers} layers, d_model {self.d_model}, "
            f"{self.arch.n_heads} heads, {self.dtype}, {self.device})"
        )

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return self.arch.n_layers

    @property
    def n_heads(self) -> int:
        """Query heads per layer."""
        return self.arch.n_heads

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.arch.d_model

    @property
    def device(self) -> torch.device:
        """Where token ids go: the device of the input embedding; the CPU for a model without weights here."""
        device = self.hf.get_input_embeddings().weight.device
        return torch.device("cpu") if device.type == "meta" else device

    @property
    def dtype(self) -> torch.dtype:
        """The model's floating-point type."""
        return self.hf.dtype

    @property
    def pad_id(self) -> int:
        """A token to pad with; masked, so any will do where the tokenizer has none."""
        for token in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0):
            if token is not None:
                return int(token)
        return 0

    def layers_for(self, sites: Sequence[str], layers: int | Sequence[int] | None = None) -> tuple[int, ...]:
        """Layers to read sites at: those given, else all that have them.

        Raises:
            SiteError: When a layer lacks a site, or when sites exist at different layers and none are given.
        """
        if layers is not None:
            chosen = check_layers(layers, self.n_layers)
            for site in sites:
                self.arch.need(site, chosen)
            return chosen
        there = {check_site(site): self.arch.layers_with(site) for site in sites}
        for site, found in there.items():
            if not found:
                self.arch.need(site, (0,))
        if len(set(there.values())) > 1:
            raise SiteError(
                "not every layer has all of these sites: "
                + "; ".join(f"{site} at {list(found)}" for site, found in there.items())
                + "; say which layers you want"
            )
        return next(iter(there.values()))

    def width(self, site: str, encoded: Sequence[Encoded] = (), layers: Sequence[int] | None = None) -> int:
        """Number of features at a site; at `pattern`, heads times the tokens of the longest of the prompts."""
        if site == "pattern":
            self.arch.need(site, layers or (0,))
            return self.n_heads * max((len(e) for e in encoded), default=1)
        return self.arch.feature(site, layers).width

    def site_dtype(self, site: str, layers: Sequence[int] | None = None) -> torch.dtype:
        """The type of a site's values: the model's own, but for some routing."""
        return self.arch.feature(site, layers).dtype

    def encode(self, prompts: Prompts, turn: int = -1) -> list[Encoded]:
        """Render and tokenise prompts, naming their positions; what is encoded already is taken as it is.

        Raises:
            PromptError: For no prompts at all, an empty or over-long one, the name of a file, or what is no prompt.
        """
        if isinstance(prompts, PathLike) or (isinstance(prompts, str) and _FILE.fullmatch(prompts)):
            raise PromptError(f"{str(prompts)!r} is the name of a file: read it with interp.prompts({str(prompts)!r})")
        if isinstance(prompts, str | Prompt | Trace | Encoded):
            several: list[Any] = [prompts]
        else:
            several = list(prompts)
            if several and isinstance(several[0], Mapping):
                several = [several]  # one conversation
        if not several:
            raise PromptError("no prompts were given")
        for number, item in enumerate(several):
            if not isinstance(item, str | Prompt | Trace | Encoded | Sequence):
                raise PromptError(
                    f"prompt {number} is {item!r:.60}, which is none; a prompt is a text, a Prompt, a Trace or a list "
                    "of messages"
                )
        return [p if isinstance(p, Encoded) else self.chat.encode(p, turn) for p in several]

    def format(self, prompt: PromptLike, turn: int = -1) -> Any:
        """A table (pandas) of a rendered prompt's tokens and the names of their positions."""
        import pandas as pd

        return pd.DataFrame(self.chat.table(prompt, turn)).set_index("index")

    @contextlib.contextmanager
    def edited(self, *edits: Edit) -> Generator[Model]:
        """Apply edits to everything that runs inside the `with` block, `hf` itself included.

        Raises:
            EditError: On leaving, when the model ran and an edit met no token.
        """
        flat = flatten_edits(edits)
        with Session(self.arch, flat, self.current_batch, self.backend) as session:
            self.standing.append(flat)
            try:
                yield self
            finally:
                self.standing.remove(flat)
            session.check_touched()

    def steps(
        self,
        encoded: Sequence[Encoded],
        reads: Sequence[tuple[ReadRequest, Sequence[Sequence[int]]]] = (),
        edits: Sequence[Edit] = (),
        stop: bool = False,
        token_budget: int = TOKEN_BUDGET,
        done: Callable[[int], None] | None = None,
        batches: Sequence[Sequence[int]] | None = None,
        finals: Sequence[Sequence[int]] | None = None,
    ) -> Iterator[Step]:
        """Run prompts batch by batch, handing over what was read: the one path every capture takes.

        Args:
            encoded: Prompts.
            reads: Pairs of (site, layers) and, for each prompt, the columns wanted.
            edits: Changes to the forward pass; reads see values after the edits at the same site.
            stop: End each forward after the last site that is read; `last` is then `None`.
            token_budget: Padded tokens per batch.
            done: Called with the number of prompts after each batch.
            batches: What to run, as indices of prompts; all of them, planned by length, when left out.
            finals: For each prompt, the columns whose final hidden state is wanted.

        Raises:
            NonFiniteError: When something read is NaN or infinite; names prompt, site and layer.
            EditError: When an edit met no token in the whole run.
        """
        for (site, layers), _ in reads:
            self.arch.need(site, check_layers(layers, self.n_layers))
        if len({site for (site, _), _ in reads}) < len(reads):
            raise SiteError("a site can be read once per run; join the layers and columns wanted")
        session = ReadSession(
            self.arch, flatten_edits(edits), self.current_batch, self.backend, [request for request, _ in reads], stop
        )
        for rows in map(list, plan([len(e) for e in encoded], token_budget) if batches is None else batches):
            items = [encoded[i] for i in rows]
            ids, _, pads = pad(items, self.pad_id, left=False, device=self.device)
            wanted: dict[str, Tensor] = {}
            plans: list[Read] = []
            for (site, layers), columns in reads:
                at = torch.tensor([(b, column) for b, i in enumerate(rows) for column in columns[i]]).reshape(-1, 2).T
                shape = (len(layers), at.shape[1], self.width(site, encoded, layers))
                wanted[site] = torch.empty(shape, dtype=self.site_dtype(site, layers))
                plans.append(Read(site, layers, at[0], at[1], wanted[site], self.n_heads))
            session.reading(plans)
            # Hooks and inference mode live for the forward only: whoever takes the steps may use the model between.
            with torch.inference_mode(), session, self._running(Batch(items, rows, pads, self.device)):
                hidden = self._forward(ids)
            if session.unseen:
                layer, site = min(session.unseen)
                raise SiteError(f"{site} at layer {layer} did not fire in this forward; run model.verify()")
            check_finite(wanted, plans, items, bool(session.edits))
            if done is not None:
                done(len(rows))
            last = cells_at(hidden, [[len(e) - 1] for e in items])
            asked = None if finals is None else cells_at(hidden, [finals[i] for i in rows])
            del hidden  # as large as the batch, which whoever takes the step need not pay for
            yield Step(rows, wanted, last, asked)
        session.check_touched()

    def logits(
        self,
        prompts: Prompts,
        edits: Sequence[Edit] = (),
        token_budget: int = TOKEN_BUDGET,
    ) -> Tensor:
        """Next-token logits after each prompt (its last given token), fp32 `[prompt, vocabulary]`.

        Raises:
            NonFiniteError: When the logits are NaN or infinite.
        """
        encoded = self.encode(prompts)
        out: Tensor | None = None
        for step in self.steps(encoded, edits=edits, token_budget=token_budget):
            assert step.last is not None
            values = self.unembed(step.last)
            if out is None:
                out = torch.empty(len(encoded), values.shape[-1])
            out[step.rows] = values.float().cpu()
        assert out is not None
        if not bool(torch.isfinite(out).all()):
            row = int((~torch.isfinite(out)).any(1).nonzero()[0])
            raise NonFiniteError(f"the logits of prompt {row} are not finite: {encoded[row].prompt.text[:60]!r}")
        return out

    def run(
        self,
        prompts: Prompts,
        reads: Sequence[str] = (),
        positions: Sequence[str | int] = ("last",),
        layers: Sequence[int] | None = None,
        edits: Sequence[Edit] = (),
    ) -> Run:
        """One forward over prompts: next-token logits, and sites read at positions.

        Args:
            prompts: One or several.
            reads: Sites, e.g. `["resid_post", "z"]`.
            positions: Single-token positions, see `interp.text.positions`.
            layers: Layers of the reads; all by default.
            edits: Changes to the forward pass.

        Returns:
            `logits` `[prompt, vocabulary]` in fp32 and `reads`, per site `[prompt, layer, position, width]`.
        """
        encoded = self.encode(prompts)
        columns = [[c for name in positions for c in e.columns(name)] for e in encoded]
        if len({len(c) for c in columns}) > 1:
            raise SiteError(f"{positions} are not equally many tokens in every prompt; name single tokens")
        chosen = self.layers_for(reads, layers) if reads else ()
        found = {
            site: torch.zeros(len(encoded), len(chosen), len(columns[0]), self.width(site, encoded, chosen),
                              dtype=self.site_dtype(site, chosen))
            for site in reads
        }  # fmt: skip
        logits: Tensor | None = None
        for step in self.steps(encoded, [((site, chosen), columns) for site in reads], edits):
            assert step.last is not None
            values = self.unembed(step.last).float().cpu()
            logits = torch.empty(len(encoded), values.shape[-1]) if logits is None else logits
            logits[step.rows] = values
            for site in reads:
                found[site][step.rows] = step.grid(site)
        assert logits is not None
        return Run(logits, found)

    @torch.no_grad()
    def unembed(self, hidden: Tensor) -> Tensor:
        """Logits of final hidden states `[..., d_model]` (after the final norm), scaled or capped as in the model."""
        # A 2-D contiguous input: with frozen weights a sliced 3-D one makes torch copy the head once per row.
        return self._finish(self.arch.head(hidden.reshape(-1, hidden.shape[-1]).contiguous())).reshape(
            *hidden.shape[:-1], -1
        )

    def generate(self, prompts: Prompts, **options: Any) -> Any:
        """Let the model write; see `interp.model.generate.generate` for the options."""
        from interp.model.generate import generate

        return generate(self, prompts, **options)

    def with_format(self, **changes: Any) -> Model:
        """The same model behind another chat format, e.g. `with_format(thinking=True)` or `(system="...")`."""
        chat = replace(self.chat, **changes)
        other = Model(self.hf, self.tokenizer, chat, self.arch, self.name, self.identity, self.backend)
        other._live, other.standing = self._live, self.standing
        return other

    def verify(self) -> None:
        """Check by behaviour that every site fires, adds up, and is causal; raises `SiteError` naming what fails."""
        from interp.model.check import check_causal, check_logits, settle

        settle(self.hf, [self.arch], self.backend)
        check_logits(self)
        check_causal(self)

    def provenance(self) -> dict[str, Any]:
        """What the model's numbers depend on."""
        from interp.model.check import attention_of

        return {
            "model": self.identity,
            "architecture": type(self.hf).__name__,
            "dtype": str(self.dtype).removeprefix("torch."),
            "backend": self.backend.name,
            "attention": attention_of(self.arch),
            "chat": self.chat.provenance(),
            "versions": versions(*self.backend.packages),
        }

    @contextlib.contextmanager
    def _running(self, batch: Batch) -> Generator[Batch]:
        self._live.append(batch)
        try:
            yield batch
        finally:
            self._live.pop()

    def current_batch(self) -> Batch | None:
        """What is being run just now, if this package runs it."""
        return self._live[-1] if self._live else None

    def _forward(self, ids: Tensor) -> Tensor | None:
        """Right padding and no mask: what stands after a prompt cannot reach it in a causal model."""
        positions = torch.arange(ids.shape[1], device=ids.device)[None].expand_as(ids)
        try:
            inputs = {"input_ids": ids, "position_ids": positions, "use_cache": False}
            return self.backend.forward(self.arch, inputs)
        except StopForward:
            return None

    @cached_property
    def _finish(self) -> Callable[[Tensor], Tensor]:
        from interp.model.check import logit_finish

        return logit_finish(self.hf)
