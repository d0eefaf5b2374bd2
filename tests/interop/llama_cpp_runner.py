"""Runs a model and a control vector in llama.cpp: a process of its own, which has nothing of ours.

Reads a job from standard input and writes what it found to standard output, both JSON; llama.cpp's own words go to
standard error.
"""

from __future__ import annotations

import ctypes
import json
import sys
from typing import Any

import llama_cpp as llama
import numpy as np


def read_control_vector(reader: str, path: str) -> tuple[int, np.ndarray]:
    """Width and values of a file, as llama.cpp reads it; -1 where it refuses."""
    library = ctypes.CDLL(reader)
    library.read_control_vector.restype = ctypes.c_longlong
    width, out = ctypes.c_int(0), np.zeros(1 << 22, dtype=np.float32)
    arguments = [ctypes.c_char_p(path.encode()), ctypes.c_float(1.0), ctypes.byref(width)]
    size = library.read_control_vector(
        *arguments, out.ctypes.data_as(ctypes.POINTER(ctypes.c_float)), ctypes.c_longlong(len(out))
    )
    return width.value, out[: max(size, 0)]


class Runner:
    """A model in llama.cpp: fp32 throughout, or with `by_default` its own settings (an fp16 cache, flash attention)."""

    def __init__(self, path: str, by_default: bool) -> None:
        self.model = llama.llama_model_load_from_file(path.encode(), llama.llama_model_default_params())
        if not self.model:
            sys.exit(f"llama.cpp does not load {path}")
        params = llama.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_threads, params.n_threads_batch = 512, 512, 1, 1
        if not by_default:
            params.type_k = params.type_v = llama.GGML_TYPE_F32
            params.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.context = llama.llama_init_from_model(self.model, params)
        self.vocab = llama.llama_model_get_vocab(self.model)
        self.n_vocab = llama.llama_vocab_n_tokens(self.vocab)

    def steer(self, width: int, data: np.ndarray) -> None:
        """What `--control-vector` does with what it has read."""
        values = data.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        layers = llama.llama_model_n_layer(self.model)
        if llama.llama_set_adapter_cvec(self.context, values, len(data), width, 1, layers):
            sys.exit("llama.cpp does not take the control vector")

    def logits(self, tokens: list[int]) -> np.ndarray:
        """Logits after the last of some tokens more."""
        given = (llama.llama_token * len(tokens))(*tokens)
        if llama.llama_decode(self.context, llama.llama_batch_get_one(given, len(tokens))):
            sys.exit("llama_decode failed")
        found = llama.llama_get_logits_ith(self.context, -1)
        return np.ctypeslib.as_array(found, (self.n_vocab,)).copy()

    def write(self, prompt: list[int], limit: int, ends: list[int]) -> tuple[np.ndarray, list[int]]:
        """Logits after a prompt, and what is written greedily."""
        llama.llama_memory_clear(llama.llama_get_memory(self.context), True)
        first = last = self.logits(prompt)
        written: list[int] = []
        while len(written) < limit:
            written.append(int(last.argmax()))
            if written[-1] in ends:
                break
            last = self.logits(written[-1:])
        return first, written

    def text(self, tokens: list[int]) -> str:
        """Tokens as text, by the vocabulary of the GGUF file."""
        room = ctypes.create_string_buffer(1 << 16)
        given = (llama.llama_token * len(tokens))(*tokens)
        size = llama.llama_detokenize(self.vocab, given, len(tokens), room, len(room), False, False)
        return room.raw[:size].decode()


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Do what a job says."""
    width, data = read_control_vector(job["reader"], job["vector"]) if job["vector"] else (0, None)
    found: dict[str, Any] = {"width": width}
    if data is not None:
        found["rows"] = len(data) // width if width > 0 else 0
    if not job["model"] or width < 0:
        return {**found, "data": [] if data is None else data.tolist()}
    runner = Runner(job["model"], job["by_default"])
    if data is not None:
        runner.steer(width, data)
    done = [runner.write(ids, job["max_new_tokens"], job["ends"]) for ids in job["prompts"]]
    found["logits"] = [logits.tolist() for logits, _ in done]
    found["written"] = [ids for _, ids in done]
    found["texts"] = [runner.text([i for i in ids if i not in job["ends"]]) for _, ids in done]
    return found


if __name__ == "__main__":
    json.dump(run(json.load(sys.stdin)), sys.stdout)
