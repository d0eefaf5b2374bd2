"""The attributes that come with the project: structure, content and behaviour of an answer.

After arXiv 2502.06258 (structure: length, steps; content: character, letter; behaviour: correctness, consistency) with
list length, language, refusal and sentiment beside. All are read off English text by rules; a user whose answers look
otherwise writes a function of a few lines (`probes.attribute`).
"""

from __future__ import annotations

import re
from collections import Counter

from interp.text.judge import judge
from probes.planning.attributes import REGISTRY, Answer, Attribute, Found, attribute

_BULLET = re.compile(r"^[ \t]*(?:[-*•]|(?:step[ \t]*)?\d+[.):])[ \t]+\S", re.M | re.I)
_STEP = re.compile(r"^[ \t]*(?:\**step[ \t]*\d+|\d+[.)][ \t])", re.M | re.I)
_SENTENCE = re.compile(r"[^.!?\n]*[A-Za-z0-9][^.!?\n]*(?:[.!?]+(?=\s|$)|\n|$)")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_LETTER = (
    re.compile(r"\b(?:answer|choice|option|pick|choose)\b(?:\s+(?:is|would be))?\s*:?\s*\**\(?([A-J])\b(?!['’])", re.I),
    re.compile(r"^\W*([A-J])(?=\W*$|[).:,])", re.M),
    re.compile(r"\(([A-J])\)"),
)
_ITEM_WORDS = 6


@attribute(
    "regression",
    question="How many words will your answer to the request below have? Reply with one number and nothing else.",
)
def length(answer: Answer) -> Found:
    """Response length in tokens."""
    return Found(answer.n_tokens, len(answer.text))


@attribute(
    "regression",
    question="How many steps will your answer to the request below take? Reply with one number and nothing else.",
)
def steps(answer: Answer) -> int | None:
    """Reasoning steps: numbered ones, else lines, else sentences."""
    numbered = _STEP.findall(answer.text)
    if numbered:
        return len(numbered)
    lines = [line for line in answer.text.splitlines() if line.strip()]
    return len(lines) if len(lines) > 1 else len(_SENTENCE.findall(answer.text)) or None


@attribute(
    "regression",
    question=(
        "How many items will the list in your answer to the request below have? Reply with one number and nothing else."
    ),
)
def list_length(answer: Answer) -> int | None:
    """Items of a list: lines with bullets or numbers, else words between commas."""
    bullets = _BULLET.findall(answer.text)
    if bullets:
        return len(bullets)
    head, colon, items = answer.text.partition(":")
    inline = items if colon and "," not in head else answer.text
    inline = re.split(r"[.!?\n](?:\s|$)", inline.strip(), maxsplit=1)[0]
    several = [item.strip() for item in re.split(r",|\band\b|;", inline) if item.strip()]
    if not several or not (colon or len(several) > 1) or any(len(item.split()) > _ITEM_WORDS for item in several):
        return None
    return len(several)


@attribute(
    "classes",
    whole=False,
    question="Which of these will your answer to the request below choose: {classes}? Reply with one word.",
)
def character(answer: Answer) -> Found:
    """Character or entity chosen: of those the prompt offers, the one that the answer names last."""
    offered = answer.options or _entities(answer.prompt.text)
    named = {o: [m.start() for m in re.finditer(rf"\b{re.escape(o)}\b", answer.text, re.I)] for o in offered}
    named = {o: places for o, places in named.items() if places}
    if len(offered) < 2 or not named:
        return Found(None)
    chosen = max(named, key=lambda o: named[o][-1])
    return Found(chosen, named[chosen][0])


@attribute(
    "classes",
    whole=False,
    question="Which option will you pick in the question below: {classes}? Reply with its letter only.",
)
def letter(answer: Answer) -> Found:
    """Multiple-choice letter, A to J."""
    for pattern in _LETTER:
        if match := pattern.search(answer.text):
            return Found(match[1].upper(), match.start(1))
    return Found(None)


@attribute(
    "classes",
    needs="expected",
    question="Will your answer to the question below be right or wrong? Reply with one word: right or wrong.",
)
def correct(answer: Answer) -> Found:
    """Answer correctness: right or wrong, by the expected answer of the prompt."""
    wanted = answer.expected.strip()
    if re.fullmatch(r"[A-J]", wanted, re.I):
        found = letter.find(answer)
        return Found(None if found.label is None else _right(found.label == wanted.upper()), found.at)
    if _NUMBER.fullmatch(wanted):
        numbers = list(_NUMBER.finditer(answer.text))
        if not numbers:
            return Found(None)
        last = numbers[-1]
        return Found(_right(float(last[0].replace(",", "")) == float(wanted.replace(",", ""))), last.start())
    match = re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", answer.text, re.I)
    return Found(_right(match is not None), match.start() if match else len(answer.text))


@attribute(
    "classes",
    whole=False,
    needs="expected",
    question="Will your verdict on the claim below be consistent or inconsistent with the facts? Reply with one word.",
)
def factual(answer: Answer) -> Found:
    """Factual consistency: does the answer's yes or no (true or false) agree with the expected one?"""
    said = re.search(r"\b(yes|no|true|false|correct|incorrect)\b", answer.text, re.I)
    truth = _TRUTH.get(answer.expected.strip().casefold())
    if said is None or truth is None:
        return Found(None)
    agrees = _TRUTH[said[1].casefold()] == truth
    return Found("consistent" if agrees else "inconsistent", said.start())


@attribute(
    "classes",
    whole=False,
    question="In which language will you answer the request below: {classes}? Reply with one word.",
)
def language(answer: Answer) -> str | None:
    """Language: by its script, or by its commonest short words."""
    letters = [c for c in answer.text if c.isalpha()]
    scripts = Counter(name for c in letters for name, (low, high) in _SCRIPTS.items() if low <= ord(c) <= high)
    if scripts.get("japanese"):  # kana among Chinese characters
        return "japanese"
    if scripts and scripts.most_common(1)[0][1] * 2 > len(letters):
        return scripts.most_common(1)[0][0]
    words = Counter(re.findall(r"[^\W\d_]+", answer.text.casefold()))
    scores = {name: sum(words[w] for w in common) for name, common in _COMMON.items()}
    best = max(scores, key=lambda name: scores[name])
    return best if scores[best] and list(scores.values()).count(scores[best]) == 1 else None


@attribute(
    "classes",
    whole=False,
    question="Will you refuse the request below, or comply? Reply with one word: refused or complied.",
)
def refusal(answer: Answer) -> Found:
    """Refusal, by the project's judge; given away by the first word, whichever it is."""
    verdict = judge(answer.prompt.text, answer.text)
    return Found("refused" if verdict.refused else "complied" if verdict.complied else None, 0)


@attribute(
    "classes",
    whole=False,
    question="Will your answer to the request below be positive or negative? Reply with one word: {classes}.",
)
def sentiment(answer: Answer) -> Found:
    """Sentiment word: is the first one of the answer positive or negative?"""
    match = _SENTIMENT.search(answer.text)
    if match is None:
        return Found(None)
    return Found("positive" if match[1].casefold() in _POSITIVE else "negative", match.start())


def _right(is_right: bool) -> str:
    return "right" if is_right else "wrong"


def _entities(text: str) -> tuple[str, ...]:
    """What a prompt seems to offer: words after "the", and names in the middle of a sentence."""
    found = re.findall(r"\b[Tt]he ([a-z]+)|(?<=[a-z,] )([A-Z][a-z]+)", text)
    return tuple(dict.fromkeys(after or name for after, name in found))


_TRUTH = {
    "yes": True, "true": True, "correct": True, "supports": True, "no": False, "false": False, "incorrect": False,
    "refutes": False,
}  # fmt: skip
_SCRIPTS = {
    "japanese": (0x3040, 0x30FF), "chinese": (0x4E00, 0x9FFF), "korean": (0xAC00, 0xD7AF), "russian": (0x400, 0x4FF),
    "arabic": (0x600, 0x6FF), "hindi": (0x900, 0x97F), "greek": (0x370, 0x3FF), "hebrew": (0x590, 0x5FF),
    "thai": (0xE00, 0xE7F),
}  # fmt: skip
_COMMON = {
    name: frozenset(words.split())
    for name, words in {
        "english": "the and is of to you that it for with this are not have can",
        "german": "der die das und ist nicht ein eine zu mit sie auf für ich es",
        "french": "le la les et est des une pas pour que vous dans avec ce il",
        "spanish": "el los las y es una no para que con por su como está lo",
        "italian": "il gli e è una non per che con di sono della nel come questo",
        "portuguese": "o os as e é uma não para que com por do da em você",
        "dutch": "de het en is een niet van voor dat met je zijn op te ik",
    }.items()
}
_POSITIVE = frozenset(
    "good great happy glad love lovely wonderful excellent nice best enjoy delight delightful pleased beautiful fun "
    "fantastic amazing joy kind brilliant perfect safe".split()
)
_NEGATIVE = frozenset(
    "bad sad angry terrible awful horrible hate worst poor ugly unhappy sorry unfortunately boring disappointing "
    "disappointed fear afraid dangerous harmful wrong cruel broken".split()
)
_SENTIMENT = re.compile(rf"\b({'|'.join(sorted(_POSITIVE | _NEGATIVE))})\b", re.I)

SHIPPED: dict[str, Attribute] = dict(REGISTRY)
"""By name."""
