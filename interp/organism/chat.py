"""The organism's tokenizer and chat template (Qwen3-like), and the same chat built piece by piece for training."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

PAD, START, END = "<|pad|>", "<|im_start|>", "<|im_end|>"
THINK, UNTHINK = "<think>", "</think>"
VOCABULARY = 2048
MAX_TOKENS = 1024
NO_THOUGHT = f"{THINK}\n\n{UNTHINK}\n\n"

CHAT_TEMPLATE = """\
{%- set ns = namespace(last_user=-1) -%}
{%- for message in messages -%}
  {%- if message.role == 'user' -%}{%- set ns.last_user = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- for message in messages -%}
  {%- if message.role in ('system', 'user') -%}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}
  {%- elif message.role == 'assistant' -%}
    {%- set content = message.content -%}
    {%- set thought = message.reasoning_content or '' -%}
    {%- if '</think>' in content -%}
      {%- set thought = content.split('</think>')[0].split('<think>')[-1].strip('\\n') -%}
      {%- set content = content.split('</think>')[-1].lstrip('\\n') -%}
    {%- endif -%}
    {{- '<|im_start|>assistant\\n' -}}
    {%- if loop.index0 > ns.last_user and thought -%}
      {{- '<think>\\n' -}}
      {%- generation -%}{{- thought + '\\n</think>\\n\\n' + content + '<|im_end|>' -}}{%- endgeneration -%}
    {%- else -%}
      {%- if loop.index0 > ns.last_user -%}{{- '<think>\\n\\n</think>\\n\\n' -}}{%- endif -%}
      {%- generation -%}{{- content + '<|im_end|>' -}}{%- endgeneration -%}
    {%- endif -%}
    {{- '\\n' -}}
  {%- else -%}
    {{- raise_exception('Unknown role: ' + message.role) -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|im_start|>assistant\\n<think>\\n' -}}
  {%- if not (enable_thinking is defined and enable_thinking) -%}{{- '\\n</think>\\n\\n' -}}{%- endif -%}
{%- endif -%}
"""

_SPLIT = r" ?[A-Za-z']+| ?[0-9]+|\n+| ?[^\sA-Za-z0-9']+|\s+"


def train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE fitted on the texts, with the chat template; equal texts give equal tokenizers."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence([  # pyright: ignore[reportAttributeAccessIssue]
        pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    core.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, START, END, THINK, UNTHINK],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_keep_thinking_visible(core),
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[START],
        padding_side="left",
        model_max_length=MAX_TOKENS,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _keep_thinking_visible(core: Tokenizer) -> Tokenizer:
    """Thinking markers are whole tokens yet stay in decoded text, as Qwen3's do, so that a reader can split it."""
    state = json.loads(core.to_str())
    for token in state["added_tokens"]:
        token["special"] = token["content"] not in (THINK, UNTHINK)
    return Tokenizer.from_str(json.dumps(state))


def turn(role: str, content: str) -> str:
    """A closed system, user or earlier assistant turn."""
    return f"{START}{role}\n{content}{END}\n"


def generation_prompt(thinking: bool) -> str:
    """What opens the assistant's turn."""
    return f"{START}assistant\n" + (f"{THINK}\n" if thinking else NO_THOUGHT)


def vocabulary_corpus(samples: Iterable[str], words: Iterable[str], seed: int = 0, copies: int = 30) -> list[str]:
    """Texts to fit the tokenizer on: samples, and every word often enough to become one token."""
    corpus = list(samples)
    for word in sorted(set(words)):
        corpus += [word, f" {word}"] * copies
    random.Random(seed).shuffle(corpus)
    return corpus
