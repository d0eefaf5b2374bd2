"""Look inside a language model: capture, positions, edits, generation, judge, and the model organism.

The public names are loaded on first use, so that importing the package is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp import edits, heads, organism
    from interp.activations.activations import Activations
    from interp.activations.capture import capture
    from interp.activations.convert import from_hidden_states, from_nnsight, from_transformer_lens
    from interp.activations.engines.ray import Ray
    from interp.activations.join import join
    from interp.activations.means import class_means
    from interp.activations.store.reader import Store, open_store
    from interp.activations.store.statistics import Statistics
    from interp.direction import Direction
    from interp.errors import RefusalkitError
    from interp.model.generate import Completion, Generations, generate
    from interp.model.load import load
    from interp.model.model import Model
    from interp.model.refusal_metric import RefusalMetric
    from interp.model.sites import SITES
    from interp.text.asked import Asked, asked
    from interp.text.chat import ChatFormat
    from interp.text.encoded import Trace
    from interp.text.judge import Verdict, judge
    from interp.text.positions import POSITION_NAMES
    from interp.text.prompts import Prompt, PromptSet
    from interp.text.sources import prompts
    from interp.text.task import Task
    from interp.text.transforms import transformed
    from interp.tracing.align import Aligned
    from interp.tracing.rollouts import rollouts
    from interp.tracing.scores import TraceScores
    from interp.tracing.trace import trace
    from interp.tracing.traces import Traces, traces

_WHERE = {
    "Activations": "interp.activations.activations",
    "Aligned": "interp.tracing.align",
    "Asked": "interp.text.asked",
    "ChatFormat": "interp.text.chat",
    "Completion": "interp.model.generate",
    "Direction": "interp.direction",
    "Generations": "interp.model.generate",
    "Model": "interp.model.model",
    "POSITION_NAMES": "interp.text.positions",
    "Prompt": "interp.text.prompts",
    "PromptSet": "interp.text.prompts",
    "Ray": "interp.activations.engines.ray",
    "RefusalMetric": "interp.model.refusal_metric",
    "RefusalkitError": "interp.errors",
    "SITES": "interp.model.sites",
    "Statistics": "interp.activations.store.statistics",
    "Store": "interp.activations.store.reader",
    "Task": "interp.text.task",
    "Trace": "interp.text.encoded",
    "TraceScores": "interp.tracing.scores",
    "Traces": "interp.tracing.traces",
    "Verdict": "interp.text.judge",
    "asked": "interp.text.asked",
    "capture": "interp.activations.capture",
    "class_means": "interp.activations.means",
    "edits": "interp.edits",
    "from_hidden_states": "interp.activations.convert",
    "from_nnsight": "interp.activations.convert",
    "from_transformer_lens": "interp.activations.convert",
    "generate": "interp.model.generate",
    "heads": "interp.heads",
    "join": "interp.activations.join",
    "judge": "interp.text.judge",
    "load": "interp.model.load",
    "open_store": "interp.activations.store.reader",
    "organism": "interp.organism",
    "prompts": "interp.text.sources",
    "rollouts": "interp.tracing.rollouts",
    "trace": "interp.tracing.trace",
    "traces": "interp.tracing.traces",
    "transformed": "interp.text.transforms",
}

__all__ = [
    "Activations",
    "Aligned",
    "Asked",
    "ChatFormat",
    "Completion",
    "Direction",
    "Generations",
    "Model",
    "POSITION_NAMES",
    "Prompt",
    "PromptSet",
    "Ray",
    "RefusalMetric",
    "RefusalkitError",
    "SITES",
    "Statistics",
    "Store",
    "Task",
    "Trace",
    "TraceScores",
    "Traces",
    "Verdict",
    "asked",
    "capture",
    "class_means",
    "edits",
    "from_hidden_states",
    "from_nnsight",
    "from_transformer_lens",
    "generate",
    "heads",
    "join",
    "judge",
    "load",
    "open_store",
    "organism",
    "prompts",
    "rollouts",
    "trace",
    "traces",
    "transformed",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'interp' has no attribute {name!r}")
    module = import_module(_WHERE[name])
    value = module if name in ("edits", "heads", "organism") else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
