"""Requests and answers, shaped as OpenAI's moderations endpoint has them.

An answer has OpenAI's fields, with the guard's categories in place of theirs, and an object `refusalkit` per result for
what they have no word for. Parsing is written out rather than left to a validator, because a validator's messages quote
what they were given, and a prompt must not get into a log that way.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NoReturn

from refusalkit.serve.errors import ApiError
from refusalkit.serve.limits import Limits
from refusalkit.serve.scorer import CATEGORY_THRESHOLD, HARMFUL, Input, Message, Scorer, Verdict

REQUEST_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["input"],
    "additionalProperties": False,
    "properties": {
        "model": {
            "type": ["string", "null"],
            "description": "A name the guard answers to; may be left out.",
        },
        "input": {
            "description": "A text; several texts or conversations, each judged for itself; the text parts of one "
            "input; or the messages of one conversation.",
            "oneOf": [
                {"type": "string"},
                {"type": "array", "minItems": 1, "items": {"oneOf": [{"type": "string"}, {"type": "array"}]}},
                {"type": "array", "minItems": 1, "items": {"type": "object"}},
            ],
        },
    },
}
"""The request's JSON Schema, for `/openapi.json`."""

PART_SEPARATOR = "\n\n"
_ROLES = ("system", "developer", "user", "assistant", "tool")


def parse(body: bytes, limits: Limits, names: Sequence[str]) -> list[Input]:
    """The inputs of a request.

    Args:
        body: JSON.
        limits: How many inputs and how long ones are taken.
        names: What `model` may be: the guard's name first, then others that it is to answer to.

    Raises:
        ApiError: 400 for what is malformed, empty, too much or no text, 404 for another model.
    """
    try:
        request: Any = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise ApiError(400, "the body is no valid JSON in UTF-8", "invalid_json") from None
    if not isinstance(request, dict):
        raise ApiError(400, f"the body is {_kind(request)}; it must be a JSON object", "invalid_type")
    if "input" not in request:
        raise ApiError(400, "the field 'input' is missing: give it a text or a list of texts", "missing_field", "input")
    if set(request) - {"input", "model"}:
        raise ApiError(400, "the body has fields other than 'input' and 'model'; leave them out", "unknown_field")
    model = request.get("model")
    if model is not None and not isinstance(model, str):
        raise ApiError(400, f"'model' is {_kind(model)}; it must be a string", "invalid_type", "model")
    if model is not None and model not in names:
        text = f"there is no such model here; ask for {names[0]!r}, or leave 'model' out"
        raise ApiError(404, text, "model_not_found", "model")
    inputs = _inputs(request["input"], limits)
    for where, item in inputs:
        _check_text(item, where, limits)
    return [item for _, item in inputs]


def answer(request_id: str, scorer: Scorer, found: Sequence[Verdict]) -> dict[str, Any]:
    """The response's JSON."""
    return {"id": request_id, "model": scorer.name, "results": [_result(scorer, verdict) for verdict in found]}


def _result(scorer: Scorer, verdict: Verdict) -> dict[str, Any]:
    """One text's result; nothing is true of a text that is not flagged."""
    scores = {HARMFUL: verdict.probability, **verdict.categories}
    true = {name: verdict.flagged and score >= CATEGORY_THRESHOLD for name, score in verdict.categories.items()}
    return {
        "flagged": verdict.flagged,
        "categories": {HARMFUL: verdict.flagged, **true},
        "category_scores": scores,
        "category_applied_input_types": {category: ["text"] for category in scores},
        "refusalkit": {
            "probability": verdict.probability, "threshold": scorer.threshold, "abstained": verdict.abstained
        },
    }  # fmt: skip


def _inputs(given: Any, limits: Limits) -> list[tuple[str, Input]]:
    """Inputs, each with the name of its place in the request."""
    if isinstance(given, str):
        return [("input", given)]
    if not isinstance(given, list):
        raise _wrong_type(given, "input", "a string or a list")
    if not given:
        raise ApiError(400, "'input' is an empty list: give it at least one text", "empty_input", "input")
    if isinstance(given[0], dict):  # one input: its parts, or its messages
        is_conversation = "role" in given[0]
        return [("input", _messages(given, "input") if is_conversation else _joined(given, "input"))]
    if len(given) > limits.max_inputs:
        text = f"{len(given):,} inputs are more than {limits.max_inputs:,}; send them in several requests"
        raise ApiError(400, text, "too_many_inputs", "input")
    return [(f"input[{i}]", _item(item, f"input[{i}]")) for i, item in enumerate(given)]


def _item(given: Any, where: str) -> Input:
    if isinstance(given, str):
        return given
    if isinstance(given, list):
        return _messages(given, where)
    raise _wrong_type(given, where, "a string or a list of messages")


def _messages(given: list[Any], where: str) -> list[Message]:
    """A conversation; roles that a model's template lacks are its scorer's to refuse."""
    found: list[Message] = []
    for i, message in enumerate(given):
        place = f"{where}[{i}]"
        if not isinstance(message, dict):
            raise _wrong_type(message, place, "a message with 'role' and 'content'")
        if message.get("role") not in _ROLES:
            raise ApiError(400, f"{place}.role must be one of {', '.join(_ROLES)}", "invalid_role", place)
        if set(message) - {"role", "content"}:
            raise ApiError(400, f"{place} has fields other than 'role' and 'content'", "unknown_field", place)
        content = message.get("content")
        if isinstance(content, list):
            content = _joined(content, f"{place}.content")
        if not isinstance(content, str):
            raise _wrong_type(content, f"{place}.content", "a string or a list of text parts")
        found.append({"role": message["role"], "content": content})
    users = [m["content"].strip() for m in found if m["role"] == "user"]
    if not users or not all(users):
        text = f"{where} needs at least one message of the user, and text in each of them"
        raise ApiError(400, text, "empty_input", where)
    return found


def _joined(given: list[Any], where: str) -> str:
    """The text of a list of content parts."""
    texts: list[str] = []
    for i, part in enumerate(given):
        place = f"{where}[{i}]"
        if not isinstance(part, dict):
            raise _wrong_type(part, place, "a text part, {'type': 'text', 'text': ...}")
        if part.get("type") != "text":
            raise ApiError(400, f"{place} is no text part: this guard reads text only", "unsupported_input", place)
        if not isinstance(part.get("text"), str):
            raise _wrong_type(part.get("text"), f"{place}.text", "a string")
        texts.append(part["text"])
    return PART_SEPARATOR.join(texts)


def _check_text(item: Input, where: str, limits: Limits) -> None:
    texts = [item] if isinstance(item, str) else [message["content"] for message in item]
    size = sum(map(len, texts))
    if size > limits.max_chars:
        text = f"{where} has {size:,} characters, more than {limits.max_chars:,}; shorten it"
        raise ApiError(400, text, "text_too_long", where)
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        text = f"{where} holds half a surrogate pair, which is no character"
        raise ApiError(400, text, "invalid_text", where) from None
    if isinstance(item, str) and not any(c.isprintable() and not c.isspace() for c in item):
        raise ApiError(400, f"{where} is empty: give it some text, or leave it out", "empty_input", where)


def _wrong_type(given: Any, where: str, wanted: str) -> ApiError:
    return ApiError(400, f"{where} is {_kind(given)}; it must be {wanted}", "invalid_type", where)


def _kind(value: Any) -> str:
    """What JSON calls a value."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _no_constant(_: str) -> NoReturn:
    """NaN and Infinity are Python's, not JSON's."""
    raise ValueError
