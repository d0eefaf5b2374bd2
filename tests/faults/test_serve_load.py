"""A real server process with a real model: load, malformed requests, clients that misbehave, and its end."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import interp
from interp.provenance import digest_files
from probes import LatentGuard
from refusalkit.serve.server import bind
from tests.helpers.command import refused
from tests.helpers.raw_http import asking, exchange, request
from tests.helpers.serve_process import COMMAND, SLOW, Server
from tests.helpers.service import SECRET


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A guard, fitted and saved here."""
    guard = LatentGuard.fit(interp.load("organism:chat"), interp.prompts("organism"))
    return guard.save(tmp_path_factory.mktemp("guard") / "chat-guard.safetensors")


@pytest.fixture(scope="module")
def guard(saved: Path) -> LatentGuard:
    """The same, to be asked without a service."""
    return LatentGuard.load(saved, interp.load("organism:chat"))


@pytest.fixture(scope="module")
def server(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The command, as a user starts it."""
    log = tmp_path_factory.mktemp("serve") / "log.txt"
    found = Server.start(COMMAND, log, "guard", "serve", saved, "--port", 0)
    yield found
    found.kill()


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One with a fake scorer, and little patience."""
    found = Server.start(SLOW, tmp_path_factory.mktemp("hasty") / "log.txt")
    yield found
    found.kill()


def load(server: Server, guard: LatentGuard, n: int) -> None:
    """So many requests at the same moment, of one to four inputs, a conversation here and there."""
    draw = random.Random(n)
    texts: list[Any] = list(interp.prompts("organism").test.texts)
    talks = [[{"role": "user", "content": t}] for t in texts[:20]]
    asked = [draw.choices([*texts, *talks], k=draw.randint(1, 4)) for _ in range(n)]

    async def all_at_once() -> list[tuple[int, bytes]]:
        return await asyncio.gather(*(exchange(server.port, asking({"input": a}), timeout=300) for a in asked))

    replies = asyncio.run(all_at_once())
    assert [status for status, _ in replies] == [200] * n
    flagged = 0
    for given, (_, body) in zip(asked, replies, strict=True):
        results = json.loads(body)["results"]
        alone = [guard.score([item]) for item in given]  # the slow and obvious way
        assert len(results) == len(given)
        for result, expected in zip(results, alone, strict=True):
            assert result["refusalkit"]["probability"] == pytest.approx(float(expected.probability[0]), abs=1e-5)
            assert result["flagged"] == bool(expected.flagged[0])
            assert result["refusalkit"]["abstained"] == bool(expected.abstained[0])
            for name, scores in expected.categories.items():
                assert result["category_scores"][name] == pytest.approx(float(scores[0]), abs=1e-5)
            flagged += result["flagged"]
    assert 0 < flagged < sum(map(len, asked))  # or any constant would have passed
    served = json.loads(server.ask(request(b"", method="GET", path="/health"))[1])
    assert served["queue"]["depth"] == 0
    assert served["served"]["batches"] < served["served"]["texts"]


def test_the_service_says_what_it_serves(server: Server, saved: Path, guard: LatentGuard) -> None:
    status, body = server.ask(request(b"", method="GET", path="/health"))
    health = json.loads(body)
    assert (status, health["status"], health["guard"]) == (200, "ready", "chat-guard")
    assert health["model"] == "organism:chat" and health["digest"] == digest_files([saved])
    # The guard's threshold is on its raw score; what the service tells is a probability, and parts the same texts.
    found = guard.score(interp.prompts("organism").test)
    assert ((found.probability > health["threshold"]) == found.flagged).mean() > 0.999


def test_fifty_concurrent_requests_are_all_answered_as_if_asked_alone(server: Server, guard: LatentGuard) -> None:
    load(server, guard, 50)


@pytest.mark.soak
def test_five_hundred_concurrent_requests_are_all_answered_as_if_asked_alone(
    server: Server, guard: LatentGuard
) -> None:
    load(server, guard, 500)


GOOD = asking({"input": "Hello there"})
BIG = b'{"input": "' + b"a" * 10_000_000 + b'"}'
CHUNK = b"186a0\r\n" + b" " * 100_000 + b"\r\n"


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        ([request(b"{")], 400),
        ([request(b'{"input": ' + b"[" * 500_000)], 400),
        ([asking({"input": {}})], 400),
        ([asking({"input": "a " * 20_000})], 400),  # more tokens than the context
        ([asking({"input": [{"role": "tool", "content": "x"}, {"role": "user", "content": "x"}]})], 422),
        ([request(BIG)], 413),
        ([request(b"", length=10**15)], 413),
        ([request(b"", Content_Length="", Transfer_Encoding="chunked"), *[CHUNK] * 100, b"0\r\n\r\n"], 413),
        ([request(b'{"input": "a"} and more', length=14)], 200),  # more than promised: the rest is not looked at
        ([request(b"", Content_Length="-5")], 400),
        ([request(b"", Content_Length="5, 6")], 400),
        ([request(b"x", Content_Length="", Transfer_Encoding="gzip")], 400),
        ([request(b"zz\r\n", Content_Length="", Transfer_Encoding="chunked")], 400),
        ([request(b"{}", Content_Encoding="gzip")], 415),
        ([request(b"{}", Content_Type="text/plain")], 415),
        ([asking({"input": "a"}, path="/nowhere")], 404),
        ([asking({"input": "a"}, method="PUT")], 405),
        ([b"nonsense\r\n\r\n"], 400),
        ([b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200], (0, 400)),  # TLS to a plain port
        ([b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n"], 400),
        ([request(b"", method="GET", path="/health", Upgrade="websocket", Connection="Upgrade, close")], 200),
    ],
    ids=lambda value: str(value)[:12] if isinstance(value, int) else "",
)  # fmt: skip
def test_a_malformed_request_gets_a_4xx_and_the_next_an_answer(server: Server, parts: list[bytes], status: Any) -> None:
    got, body = server.ask(*parts)
    assert got in (status if isinstance(status, tuple) else (status,)), body[:300]
    if got >= 400:
        assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
    assert server.ask(GOOD)[0] == 200


def test_a_body_or_headers_that_do_not_come_are_cut_off(hasty: Server) -> None:
    """Each would go on for minutes, and `exchange` gives up after one."""

    async def all_at_once() -> list[tuple[int, bytes]]:
        drip, more = [b" "] * 1_000, [b"X: y\r\n"] * 1_000
        return await asyncio.gather(
            exchange(hasty.port, request(b"", length=2_000), *drip, pause=0.1),
            exchange(hasty.port, request(b'{"input": "a"}', length=100)),  # less than promised
            exchange(hasty.port, request(BIG, Connection="keep-alive")[:5_000]),  # too much promised, then silence
            exchange(hasty.port, b"POST /v1/moderations HTTP/1.1\r\n", *more, pause=0.1),
            exchange(hasty.port),
        )

    replies = asyncio.run(all_at_once())
    assert [status for status, _ in replies] == [408, 408, 413, 0, 0]
    assert hasty.ask(GOOD)[0] == 200


def test_clients_that_hang_up_do_not_keep_others_waiting(server: Server) -> None:
    async def hang_up(data: bytes, after: float) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(data)
        await asyncio.sleep(after)
        writer.transport.abort()

    async def main() -> list[tuple[int, bytes]]:
        full = asking({"input": ["Hello there"] * 100})
        leavers = [hang_up(full if i % 2 else full[:-10], 0.002 * i) for i in range(30)]
        stayers = [exchange(server.port, GOOD) for _ in range(10)]
        return (await asyncio.gather(*stayers, *leavers))[:10]  # type: ignore[return-value]

    assert [status for status, _ in asyncio.run(main())] == [200] * 10
    deadline = time.monotonic() + 10
    while json.loads(server.ask(request(b"", method="GET", path="/health"))[1])["queue"]["depth"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_one_connection_serves_many_requests(server: Server) -> None:
    async def main() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for body in (b"{", b'{"input": "a"}', BIG, b'{"input": "b"}'):
            writer.write(request(body, Connection="keep-alive"))
            await writer.drain()
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
            size = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line)
            await reader.readexactly(size)
            assert int(head.split()[1]) == {1: 400, 14: 200}.get(len(body), 413)
        writer.close()

    asyncio.run(main())


def test_the_log_of_a_real_server_holds_no_prompt(server: Server) -> None:
    for data in (
        asking({"input": SECRET}),
        asking({"input": f"{SECRET} " * 3_000}),
        request(SECRET.encode()),
        request(f'{{"input": "{SECRET}'.encode()),
        asking({"input": [{"role": SECRET, "content": SECRET}]}),
        asking({"input": "a"}, path=f"/v1/moderations?input={SECRET.replace(' ', '+')}"),
        asking({"input": "a"}, path=f"/{SECRET.replace(' ', '+')}"),
        f"{SECRET}\r\n\r\n".encode(),
        request(f"{SECRET}\r\n".encode(), Content_Length="", Transfer_Encoding="chunked"),
        asking({"input": "a"}, Connection="keep-alive") + f"{SECRET}\r\n\r\n".encode(),
    ):
        assert server.ask(data)[0] >= 200
    log = server.log.read_text()
    assert "POST /v1/moderations 200" in log and "Traceback" not in log
    assert "xylophone" not in log


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_answers_what_it_has_and_ends_cleanly(how: signal.Signals, tmp_path: Path) -> None:
    server = Server.start(SLOW, tmp_path / "log.txt")
    try:

        async def main() -> list[tuple[int, bytes]]:
            asked = [asyncio.create_task(exchange(server.port, asking({"input": [f"{i}"] * 64}))) for i in range(20)]
            idle = asyncio.create_task(exchange(server.port))
            inside = 0
            while inside + sum(task.done() for task in asked) < len(asked):  # what it has not read yet it does not have
                _, body = await exchange(server.port, request(b"", method="GET", path="/health"))
                inside = json.loads(body)["requests"]
            server.process.send_signal(how)
            replies = await asyncio.gather(*asked)
            await idle
            return replies

        replies = asyncio.run(main())
        assert [status for status, _ in replies] == [200] * 20
        assert all(len(json.loads(body)["results"]) == 64 for _, body in replies)
        assert server.process.wait(timeout=60) == 0
        assert "Traceback" not in server.log.read_text()
    finally:
        server.process.kill()


def test_a_port_in_use_is_said_before_anything_is_loaded(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = refused("guard", "serve", tmp_path / "no-such-guard", "--port", port)
    assert f"cannot listen on 127.0.0.1, port {port}: Address already in use" in message
    assert "--port" in message
    assert "cannot listen on no-such-host.invalid" in refused(
        "guard", "serve", tmp_path / "x", "--host", "no-such-host.invalid"
    )


def test_an_address_of_either_family_is_bound() -> None:
    with bind("127.0.0.1", 0) as found:
        assert found.getsockname()[0] == "127.0.0.1"
    if socket.has_ipv6 and Path("/proc/net/if_inet6").exists():
        with bind("::1", 0) as found:
            assert found.family == socket.AF_INET6


def test_a_guard_that_is_none_or_not_of_this_model_is_refused(saved: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "guard.safetensors"
    damaged.write_bytes(saved.read_bytes()[:-100])
    assert "guard.safetensors" in refused("guard", "serve", damaged, "--port", 0)
    assert "no-such-file" in refused("guard", "serve", tmp_path / "no-such-file", "--port", 0)
    other = refused("guard", "serve", saved, "--port", 0, "--model", "organism:attacked")
    assert "fitted on another model" in other and "--allow-other-model" in other


def test_without_its_extra_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delitem(sys.modules, "refusalkit.serve.server", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    message = refused("guard", "serve", tmp_path / "x")
    assert "needs uvicorn" in message and "pip install 'refusalkit[serve]'" in message


def test_limits_that_cannot_work_are_refused_at_the_command_line(tmp_path: Path) -> None:
    assert "max_queue" in refused("guard", "serve", tmp_path / "x", "--max-queue", "4", "--port", 0)
