"""The guard's service: shapes, errors, limits, batches, and what its log says."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interp.errors import RefusalkitError
from refusalkit.serve.app import create_app
from refusalkit.serve.limits import Limits
from refusalkit.serve.scorer import verdicts
from tests.helpers.service import SECRET, Ask, FakeScorer, Reply, ask, probability, serving

TALK = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Go"}]


def one(*args: Any, limits: Limits | None = None, **kwargs: Any) -> Reply:
    """The reply to one request."""

    async def main() -> Reply:
        async with serving(FakeScorer(), limits) as asking:
            return await asking(*args, **kwargs)

    return asyncio.run(main())


def running(limits: Limits | None = None, **options: Any) -> Callable[[Callable[..., Coroutine[Any, Any, None]]], Any]:
    """A test that is a coroutine, with a service around it."""

    def wrap(test: Callable[[Ask, FakeScorer], Coroutine[Any, Any, None]]) -> Callable[[], None]:
        async def main() -> None:
            scorer = FakeScorer()
            async with serving(scorer, limits, **options) as asking:
                try:
                    await asyncio.wait_for(test(asking, scorer), 30)
                finally:
                    scorer.go.set()

        def run() -> None:
            asyncio.run(main())

        run.__name__, run.__doc__ = test.__name__, test.__doc__
        return run

    return wrap


async def depth_of(asking: Ask, n: int) -> None:
    """Wait until so many texts are in the queue."""
    while (await asking(method="GET", path="/health")).json["queue"]["depth"] != n:
        await asyncio.sleep(0.002)


# --- shapes ---------------------------------------------------------------------------------------------------------


def test_an_answer_has_the_shape_of_openais() -> None:
    reply = one({"input": "How do I bake bread?", "model": "fake"})
    p = probability("How do I bake bread?")
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    assert reply.json["id"].startswith("modr-") and reply.headers["x-request-id"] == reply.json["id"]
    assert reply.json["model"] == "fake"
    (result,) = reply.json["results"]
    assert result == {
        "flagged": p >= 0.5,
        "categories": {"harmful": p >= 0.5, "violence": p * 0.6 >= 0.5},
        "category_scores": {"harmful": p, "violence": p * 0.6},
        "category_applied_input_types": {"harmful": ["text"], "violence": ["text"]},
        "refusalkit": {"probability": p, "threshold": 0.5, "abstained": abs(p - 0.5) < 0.05},
    }


@pytest.mark.parametrize(
    ("given_input", "scored"),
    [
        ("a", ["a"]),
        (["a", "b", "a"], ["a", "b", "a"]),
        ([{"type": "text", "text": "a"}], ["a"]),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], ["a\n\nb"]),  # parts of one input
        (TALK, [TALK]),
        ([TALK, "a", TALK[:1]], [TALK, "a", TALK[:1]]),
        ([[{"role": "user", "content": [{"type": "text", "text": "a"}]}]], [[{"role": "user", "content": "a"}]]),
    ],
)  # fmt: skip
def test_texts_parts_and_conversations_are_judged_in_order(given_input: Any, scored: list[Any]) -> None:
    reply = one({"input": given_input})
    assert reply.status == 200
    assert [r["refusalkit"]["probability"] for r in reply.json["results"]] == [probability(t) for t in scored]


def test_health_and_models_describe_the_service() -> None:
    @running(model="organism:chat", digest="abc")
    async def test(asking: Ask, scorer: FakeScorer) -> None:
        await asking({"input": ["a", "b"]})
        health = await asking(method="GET", path="/health")
        assert health.status == 200
        assert health.json["status"] == "ready"
        assert (health.json["guard"], health.json["digest"], health.json["model"]) == ("fake", "abc", "organism:chat")
        assert health.json["queue"] == {"depth": 0, "max": 2048, "busy_seconds": 0.0}
        assert health.json["served"] == {"texts": 2, "batches": 1}
        assert (await asking(method="HEAD", path="/health")).status == 200
        models = await asking(method="GET", path="/v1/models")
        assert [m["id"] for m in models.json["data"]] == ["fake"]
        schema = (await asking(method="GET", path="/openapi.json")).json
        assert "requestBody" in schema["paths"]["/v1/moderations"]["post"]

    test()


def test_a_guard_answers_to_other_names_where_it_is_told_to_and_gives_its_own() -> None:
    @running(model_names=["omni-moderation-latest", "fake"])
    async def test(asking: Ask, scorer: FakeScorer) -> None:
        for name in ("omni-moderation-latest", "fake", None):
            reply = await asking({"input": "a", "model": name})
            assert (reply.status, reply.json["model"]) == (200, "fake")
        other = await asking({"input": "a", "model": "omni-moderation"})
        assert (other.status, other.code) == (404, "model_not_found")
        models = await asking(method="GET", path="/v1/models")
        assert [m["id"] for m in models.json["data"]] == ["fake", "omni-moderation-latest"]

    test()


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_json"),
        (b"{", 400, "invalid_json"),
        (b'{"input": "\xff"}', 400, "invalid_json"),
        ('{"input": "a"}'.encode("utf-16"), 400, "invalid_json"),
        (b'{"input": NaN}', 400, "invalid_json"),
        (b'{"input": 1' + b"0" * 10_000 + b"}", 400, "invalid_json"),
        (b'{"input": ' + b"[" * 200_000, 400, "invalid_json"),
        (b'{"input": "\\ud800"}', 400, "invalid_text"),
        ([], 400, "invalid_type"),
        ("text", 400, "invalid_type"),
        ({}, 400, "missing_field"),
        ({"inputs": "a"}, 400, "missing_field"),
        ({"input": "a", "threshold": 0.1}, 400, "unknown_field"),
        ({"input": None}, 400, "invalid_type"),
        ({"input": 3}, 400, "invalid_type"),
        ({"input": True}, 400, "invalid_type"),
        ({"input": {"type": "text", "text": "a"}}, 400, "invalid_type"),
        ({"input": []}, 400, "empty_input"),
        ({"input": ""}, 400, "empty_input"),
        ({"input": " \n\u200b"}, 400, "empty_input"),
        ({"input": ["a", ""]}, 400, "empty_input"),
        ({"input": ["a", 3]}, 400, "invalid_type"),
        ({"input": [1, 2, 3]}, 400, "invalid_type"),
        ({"input": ["a", {"type": "text", "text": "b"}]}, 400, "invalid_type"),
        ({"input": [[]]}, 400, "empty_input"),
        ({"input": [["a"]]}, 400, "invalid_type"),
        ({"input": [{"type": "text"}]}, 400, "invalid_type"),
        ({"input": [{"type": "text", "text": 3}]}, 400, "invalid_type"),
        ({"input": [{}]}, 400, "unsupported_input"),
        ({"input": [{"type": "image_url", "image_url": {"url": "x"}}]}, 400, "unsupported_input"),
        ({"input": [{"type": "text", "text": "a"}, {"type": "image_url"}]}, 400, "unsupported_input"),
        ({"input": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "unsupported_input"),
        ({"input": [{"role": "user"}]}, 400, "invalid_type"),
        ({"input": [{"role": "robot", "content": "a"}]}, 400, "invalid_role"),
        ({"input": [{"role": {}, "content": "a"}]}, 400, "invalid_role"),
        ({"input": [{"role": "assistant", "content": "a"}]}, 400, "empty_input"),
        ({"input": [*TALK, {"role": "user", "content": " "}]}, 400, "empty_input"),
        ({"input": [{"role": "user", "content": "a", "tool_calls": []}]}, 400, "unknown_field"),
        ({"input": ["a"] * 129}, 400, "too_many_inputs"),
        ({"input": "a" * 100_001}, 400, "text_too_long"),
        ({"input": [[{"role": "user", "content": "a" * 60_000}] * 2]}, 400, "text_too_long"),
        ({"input": "a", "model": "other"}, 404, "model_not_found"),
        ({"input": "a", "model": 3}, 400, "invalid_type"),
        ({"input": "TOO LONG"}, 400, "context_length_exceeded"),
        ({"input": ["a", "UNUSABLE"]}, 422, "unprocessable_input"),
        ({"input": "CRASH"}, 500, "internal_error"),
        ({"input": "NAN"}, 500, "internal_error"),
        ({"input": "a" * 1_000_001}, 413, "body_too_large"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_cannot_be_judged_is_said_in_openais_shape(body: Any, status: int, code: str) -> None:
    reply = one(body)
    assert (reply.status, reply.code) == (status, code)


def test_an_error_names_the_input_that_is_meant() -> None:
    assert one({"input": ["a", 3]}).json["error"]["param"] == "input[1]"
    assert one({"input": ["a", "TOO LONG"]}).json["error"]["param"] == "input[1]"
    assert (
        one({"input": [TALK, [*TALK, {"role": "user", "content": None}]]})
        .json["error"]["param"]
        .startswith("input[1][3]")
    )


@pytest.mark.parametrize(
    ("options", "status", "code"),
    [
        ({"path": "/"}, 404, "not_found"),
        ({"path": "/v1/moderations/"}, 404, "not_found"),
        ({"method": "GET"}, 405, "method_not_allowed"),
        ({"path": "/health"}, 405, "method_not_allowed"),
        ({"headers": {"content-type": "text/plain"}}, 415, "unsupported_media_type"),
        ({"headers": {"content-type": ""}}, 415, "unsupported_media_type"),
        ({"headers": {"content-type": "application/json; charset=latin-1"}}, 415, "unsupported_media_type"),
        ({"headers": {"content-encoding": "gzip"}}, 415, "unsupported_media_type"),
        ({"headers": {"content-length": "10000000"}}, 413, "body_too_large"),
    ],
)
def test_what_is_asked_the_wrong_way_is_refused(options: dict[str, Any], status: int, code: str) -> None:
    reply = one({"input": "a"}, **options)
    assert (reply.status, reply.code) == (status, code)
    if status == 405:
        assert reply.headers["allow"]


def test_a_charset_that_says_utf_8_is_fine() -> None:
    assert one({"input": "a"}, headers={"content-type": "Application/JSON; charset=UTF-8"}).status == 200


# --- limits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("promise", [None, "10", "ten", "-1"])
def test_the_body_is_counted_as_it_comes_whatever_its_headers_promise(promise: str | None) -> None:
    taken = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal taken
        while taken < 100_000_000:
            taken += 100_000
            yield b" " * 100_000

    started = threading.active_count()
    reply = one(chunks=chunks(), headers={"content-length": promise} if promise else {"transfer-encoding": "chunked"})
    assert (reply.status, reply.code) == (413, "body_too_large")
    # What is read beyond the limit is thrown away, and that ends too: then the connection is closed.
    assert taken <= 65_500_000
    assert reply.headers["connection"] == "close"
    assert threading.active_count() == started


def test_a_refused_body_of_ten_megabytes_is_read_to_its_end_so_that_the_answer_is_seen() -> None:
    left = 100

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal left
        while left:
            left -= 1
            yield b" " * 100_000

    reply = one(chunks=chunks(), headers={"transfer-encoding": "chunked"})
    assert (reply.status, left) == (413, 0)
    assert "connection" not in reply.headers


def test_a_client_that_asks_before_it_sends_is_told_no_and_not_to_go_on() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        raise AssertionError("reading is what makes a server say 100 Continue")
        yield b""

    reply = one(chunks=chunks(), headers={"content-length": "10000000", "expect": "100-continue"})
    assert (reply.status, reply.headers["connection"]) == (413, "close")


def test_a_body_that_trickles_in_times_out() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0.02)
            yield b" "

    reply = one(chunks=chunks(), headers={"content-length": "100"}, limits=Limits(read_timeout=0.2))
    assert (reply.status, reply.code) == (408, "request_timeout")
    assert reply.headers["connection"] == "close"


def test_a_full_queue_turns_away_and_takes_again() -> None:
    @running(Limits(max_queue=4, max_inputs=4, max_batch=2))
    async def test(asking: Ask, scorer: FakeScorer) -> None:
        scorer.go.clear()
        held = asyncio.create_task(asking({"input": ["a", "b", "c"]}))
        await depth_of(asking, 3)
        refused = await asking({"input": ["d", "e"]})
        assert (refused.status, refused.code) == (503, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        last = asyncio.create_task(asking({"input": "d"}))
        await depth_of(asking, 4)
        assert (await asking({"input": "e"})).status == 503
        assert (await asking(method="GET", path="/health")).status == 200  # health is not turned away
        scorer.go.set()
        assert [(await held).status, (await last).status] == [200, 200]
        assert (await asking({"input": ["d", "e"]})).status == 200

    test()


def test_requests_beyond_the_most_are_turned_away_before_their_body_is_read() -> None:
    @running(Limits(max_requests=1, read_timeout=5))
    async def test(asking: Ask, scorer: FakeScorer) -> None:
        go = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            await go.wait()
            yield b'{"input": "a"}'

        first = asyncio.create_task(asking(chunks=slow(), headers={"transfer-encoding": "chunked"}))
        await asyncio.sleep(0.01)
        assert (await asking({"input": "b"})).status == 503
        go.set()
        assert (await first).status == 200
        assert (await asking({"input": "b"})).status == 200

    test()


def test_an_answer_that_takes_too_long_is_given_up_and_its_place_is_free() -> None:
    @running(Limits(answer_timeout=0.1, max_batch=1))
    async def test(asking: Ask, scorer: FakeScorer) -> None:
        scorer.go.clear()
        replies = await asyncio.gather(asking({"input": "a"}), asking({"input": "b"}))
        assert [(r.status, r.code) for r in replies] == [(503, "timeout")] * 2
        scorer.go.set()
        assert (await asking({"input": "c"})).status == 200
        assert ["b"] not in scorer.calls  # nobody waited for it any more

    test()


@pytest.mark.parametrize(
    "change", [{"max_batch": 0}, {"max_body": 0}, {"read_timeout": 0}, {"answer_timeout": float("nan")},
               {"max_wait_ms": -1}, {"max_queue": 4, "max_inputs": 5}]
)  # fmt: skip
def test_limits_that_let_nothing_through_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(RefusalkitError, match=next(iter(change))):
        Limits(**change)


# --- batches --------------------------------------------------------------------------------------------------------


def test_concurrent_requests_share_batches_and_each_gets_its_own_answers() -> None:
    @running(Limits(max_batch=16, max_wait_ms=20))
    async def test(asking: Ask, scorer: FakeScorer) -> None:
        asked = [[f"{i} {j}" for j in range(1 + i % 3)] for i in range(60)]
        replies = await asyncio.gather(*(asking({"input": texts}) for texts in asked))
        for texts, reply in zip(asked, replies, strict=True):
            assert [r["refusalkit"]["probability"] for r in reply.json["results"]] == [probability(t) for t in texts]
        sizes = [len(call) for call in scorer.calls]
        assert sum(sizes) == 120 and max(sizes) == 16 and len(sizes) <= 10
        assert len({r.json["id"] for r in replies}) == 60

    test()


def test_a_lone_request_waits_no_longer_than_told() -> None:
    @running(Limits(max_wait_ms=0))
    async def test(asking: Ask, scorer: FakeScorer) -> None:
        await asking({"input": "a"})
        assert scorer.calls == [["a"]]

    test()


@pytest.mark.parametrize(
    ("word", "status"), [("TOO LONG", 400), ("UNUSABLE", 422), ("CRASH", 500), ("EXIT", 500), ("NAN", 500)]
)
def test_a_bad_prompt_fails_its_own_request_and_none_beside_it(word: str, status: int) -> None:
    @running(Limits(max_batch=32, max_wait_ms=20))
    async def test(asking: Ask, scorer: FakeScorer) -> None:
        asked = [f"prompt {i}" for i in range(20)]
        asked[7] = f"prompt {word}"
        replies = await asyncio.gather(*(asking({"input": text}) for text in asked))
        assert len(scorer.calls[0]) == 20  # they did share a batch
        assert [r.status for r in replies] == [200] * 7 + [status] + [200] * 12
        assert (await asking({"input": "after"})).status == 200

    test()


def test_a_batch_that_is_too_big_for_the_memory_is_halved_until_it_fits() -> None:
    class Small(FakeScorer):
        def score(self, texts: Any) -> Any:
            if len(texts) > 3:
                self.calls.append(list(texts))
                raise MemoryError
            return super().score(texts)

    async def main() -> None:
        scorer = Small()
        async with serving(scorer) as asking:
            reply = await asking({"input": [str(i) for i in range(16)]})
            assert [r["category_scores"]["harmful"] for r in reply.json["results"]] == [
                probability(str(i)) for i in range(16)
            ]
            assert [len(call) for call in scorer.calls] == [16, 8, 4, 2, 2, 4, 2, 2, 8, 4, 2, 2, 4, 2, 2]

    asyncio.run(main())


def test_clients_that_go_away_leave_the_queue_and_do_not_wedge_it() -> None:
    @running(Limits(max_batch=2))
    async def test(asking: Ask, scorer: FakeScorer) -> None:
        scorer.go.clear()
        gone = asyncio.Event()
        left = [asyncio.create_task(asking({"input": ["x", "y", f"gone {i}"]}, gone=gone)) for i in range(5)]
        await depth_of(asking, 15)
        stays = asyncio.create_task(asking({"input": "stays"}))
        await depth_of(asking, 16)
        gone.set()
        assert [r.status for r in await asyncio.gather(*left)] == [0] * 5
        await depth_of(asking, 3)  # the two that run, and the one that stays
        scorer.go.set()
        assert (await stays).status == 200
        assert scorer.calls == [["x", "y"], ["stays"]]

    test()


def test_a_client_that_goes_away_while_it_sends_is_forgotten() -> None:
    @running()
    async def test(asking: Ask, scorer: FakeScorer) -> None:
        app = create_app(scorer)
        got: list[Any] = []

        async def receive() -> dict[str, str]:
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            got.append(message)

        headers = [(b"content-type", b"application/json"), (b"content-length", b"10")]
        scope = {"type": "http", "method": "POST", "path": "/v1/moderations", "headers": headers, "query_string": b""}
        async with app.router.lifespan_context(app):
            await app(scope, receive, send)
        assert got == []

    test()


def test_shutdown_finishes_what_is_queued_and_takes_no_more() -> None:
    async def main() -> None:
        scorer = FakeScorer()
        app = create_app(scorer, Limits(max_batch=2))
        async with app.router.lifespan_context(app):
            scorer.go.clear()
            waiting = [asyncio.create_task(ask(app, {"input": str(i)})) for i in range(7)]
            await depth_of(partial(ask, app), 7)
            asyncio.get_running_loop().call_later(0.05, scorer.go.set)
        assert [(await t).status for t in waiting] == [200] * 7
        late = await ask(app, {"input": "late"})
        assert (late.status, late.code) == (503, "overloaded")
        assert (await ask(app, method="GET", path="/health")).status == 503

    asyncio.run(main())


# --- logs -----------------------------------------------------------------------------------------------------------


LEAKS: list[Any] = [
    {"input": SECRET},
    {"input": [SECRET, f"TOO LONG {SECRET}"]},
    {"input": f"UNUSABLE {SECRET}"},
    {"input": f"CRASH {SECRET}"},
    {"input": f"EXIT {SECRET}"},
    {"input": f"NAN {SECRET}"},
    {"input": [{"type": SECRET, "text": SECRET}]},
    {"input": [{"role": SECRET, "content": SECRET}]},
    {"input": [{"role": "user", "content": SECRET, SECRET: SECRET}]},
    {"input": {SECRET: SECRET}},
    {"input": "a", SECRET: 1},
    {"input": "a", "model": SECRET},
    SECRET,
    SECRET.encode(),
    f'{{"input": "{SECRET}'.encode(),
    f'{{"input": "{SECRET}\ud800"}}'.encode("utf-8", "surrogatepass"),
    f'{{"input": "{SECRET}\\ud800"}}'.encode(),
    {"input": SECRET * 5_000},
    {"input": [SECRET] * 500},
]


@pytest.mark.parametrize("log_prompts", [False, True])
def test_no_prompt_gets_into_a_log_or_an_error_unless_asked_for(
    log_prompts: bool, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    replies: list[Reply] = []

    @running(log_prompts=log_prompts)
    async def test(asking: Ask, scorer: FakeScorer) -> None:
        for body in LEAKS:
            replies.append(await asking(body))
        replies.append(await asking(path=f"/{SECRET}"))
        replies.append(await asking(method=SECRET))
        replies.append(await asking({"input": "a"}, query=f"input={SECRET}"))
        replies.append(await asking({"input": "a"}, headers={"content-type": SECRET, "x-request-id": SECRET}))

    test()
    said = "".join(caplog.messages) + "".join(str(r.__dict__) for r in caplog.records) + "".join(capfd.readouterr())
    assert len([m for m in caplog.messages if m.startswith("modr-") and " ms" in m]) == len(replies)
    assert ("xylophone" in said) == log_prompts
    for reply in replies:
        assert b"xylophone" not in reply.body and "xylophone" not in str(reply.headers)


def test_a_crash_is_logged_with_the_place_it_came_from(caplog: pytest.LogCaptureFixture) -> None:
    assert one({"input": "CRASH"}).status == 500
    (line,) = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert "RuntimeError" in line and "score (" in line and "service.py" in line


def test_a_bug_of_ours_is_a_500_in_shape_and_leaves_no_traceback(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError(SECRET)

    monkeypatch.setattr("refusalkit.serve.app.parse", broken)
    reply = one({"input": "a"})
    assert (reply.status, reply.code) == (500, "internal_error")
    assert "ZeroDivisionError" in caplog.text and "xylophone" not in caplog.text


def test_a_log_line_says_what_was_done(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    reply = one({"input": ["a", "b"]})
    flagged = sum(r["flagged"] for r in reply.json["results"])
    (line,) = caplog.messages
    assert line.startswith(f"{reply.json['id']} POST /v1/moderations 200 ")
    assert line.endswith(f" ms, 2 inputs, {flagged} flagged")


# --- scorers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": ""}, "name"), ({"name": "a\nb"}, "name"), ({"threshold": 1.5}, "threshold"),
        ({"threshold": float("nan")}, "threshold"), ({"categories": ("harmful",)}, "categories"),
    ],
)  # fmt: skip
def test_a_scorer_that_cannot_be_served_is_refused_at_once(change: dict[str, Any], words: str) -> None:
    with pytest.raises(RefusalkitError, match=words):
        create_app(FakeScorer(**change))


def test_a_scorer_without_sound_scores_is_refused_at_once() -> None:
    class Broken(FakeScorer):
        def score(self, texts: Any) -> Any:
            return super().score(["NAN" for _ in texts])

    with pytest.raises(RefusalkitError, match="not finite"):
        create_app(Broken())


def test_scores_are_taken_from_arrays_and_tensors() -> None:
    import numpy as np
    import torch

    for make in (np.array, torch.tensor):
        scores = SimpleNamespace(
            probability=make([0.25, float("nan"), 1.0]), flagged=make([False, False, True]),
            abstained=make([True, False, False]), categories={"a": make([0.5, 0.1, float("inf")])},
        )  # fmt: skip
        first, second, third = verdicts(scores, ("a",), 3)
        assert first is not None and (first.probability, first.flagged, first.abstained) == (0.25, False, True)
        assert json.dumps(first.categories) == '{"a": 0.5}'
        assert second is None and third is None
        with pytest.raises(ValueError, match="4 texts"):
            verdicts(scores, ("a",), 4)


def test_a_scorer_that_returns_too_few_scores_fails_that_request_only() -> None:
    class Forgetful(FakeScorer):
        def score(self, texts: Any) -> Any:
            found = super().score(texts)
            found.probability = [p for p, t in zip(found.probability, texts, strict=True) if t != "forgotten"]
            return found

    async def main() -> None:
        async with serving(Forgetful(), Limits(max_wait_ms=20)) as asking:
            replies = await asyncio.gather(*(asking({"input": t}) for t in ("a", "forgotten", "b")))
            assert [r.status for r in replies] == [200, 500, 200]

    asyncio.run(main())


# --- any body -------------------------------------------------------------------------------------------------------

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10)
KEYS = st.sampled_from(["input", "model", "type", "text", "role", "content", "image_url", "x"])
WORDS = st.sampled_from(["text", "user", "assistant", "system", "image_url", "fake"])
VALUES = st.recursive(
    LEAVES | WORDS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=8
)
REQUESTS = st.fixed_dictionaries({"input": VALUES}, optional={"model": VALUES}) | VALUES
BYTES = st.binary(max_size=60) | REQUESTS.map(lambda v: json.dumps(v).encode())


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A body that was sound, with some bytes cut out, put in or changed."""
    data = bytearray(draw(BYTES))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(data)


def check_bodies(examples: int, **options: Any) -> None:
    async def main() -> None:
        async with serving(FakeScorer(), Limits(max_wait_ms=0)) as asking:
            loop = asyncio.get_running_loop()

            @settings(
                max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck), **options
            )
            @given(body=damaged())
            def check(body: bytes) -> None:
                reply = asyncio.run_coroutine_threadsafe(asking(body), loop).result(20)
                assert reply.status < 500, reply
                if reply.status == 200:
                    assert len(reply.json["results"]) >= 1
                else:
                    assert reply.code

            await asyncio.to_thread(check)

    asyncio.run(main())


def test_any_body_is_judged_or_refused_and_never_a_fault_of_the_server() -> None:
    check_bodies(300, derandomize=True)


@pytest.mark.soak
def test_any_of_very_many_bodies_is_judged_or_refused() -> None:
    check_bodies(20_000)
