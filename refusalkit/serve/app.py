"""The application: what is served at which path."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from interp.provenance import versions
from refusalkit.serve.batching import Batcher, Outcome
from refusalkit.serve.edge import LOGGER, Edge, report
from refusalkit.serve.errors import ApiError, internal
from refusalkit.serve.limits import Disconnected, Gate, Limits, read_body, too_large
from refusalkit.serve.schema import REQUEST_SCHEMA, answer, parse
from refusalkit.serve.scorer import Scorer, Verdict, check_scorer


def create_app(
    scorer: Scorer,
    limits: Limits | None = None,
    *,
    model: str | None = None,
    digest: str | None = None,
    model_names: Sequence[str] = (),
    log_prompts: bool = False,
) -> FastAPI:
    """An ASGI application that serves a guard.

    Args:
        scorer: The guard.
        limits: How much is taken.
        model: The language model behind the guard, told at `/health`.
        digest: The guard's digest, told at `/health`.
        model_names: Names beside the guard's own that a request may give as `model`, for clients that send one of
            their own; the answer always gives the guard's.
        log_prompts: Write texts, and messages of errors, which may quote them, to the log.

    Returns:
        A FastAPI application; its lifespan starts the thread that runs the model, and on shutdown lets it finish.

    Raises:
        RefusalkitError: When the guard gives no sound verdict on a plain question.
    """
    check_scorer(scorer)
    limits = limits or Limits()
    batcher = Batcher(
        scorer, limits.max_batch, limits.max_wait_ms / 1000, limits.max_queue, lambda e: report(e, log_prompts)
    )
    gate, started = Gate(limits.max_requests), int(time.time())
    names = tuple(dict.fromkeys([scorer.name, *model_names]))

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        batcher.start()
        try:
            yield
        finally:
            await asyncio.to_thread(batcher.close, limits.answer_timeout)

    app = FastAPI(
        title="refusalkit guard", version=versions()["refusalkit"], lifespan=lifespan, docs_url=None, redoc_url=None,
        redirect_slashes=False,
    )  # fmt: skip
    app.add_middleware(Edge, limits=limits, log_prompts=log_prompts)
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(HTTPException, _http_error)

    body = {"required": True, "content": {"application/json": {"schema": REQUEST_SCHEMA}}}

    @app.post("/v1/moderations", openapi_extra={"requestBody": body})
    async def moderations(request: Request) -> Response:
        """Judge texts."""
        with gate:
            batcher.check_room()
            _check_headers(request, limits)
            texts = parse(await read_body(request.receive, limits), limits, names)
            if log_prompts:
                for text in texts:
                    LOGGER.info("%s input %r", request.state.request_id, text)
            found = await _unless_gone(request, batcher.submit(texts), limits)
        good = _all_good(found, many=len(texts) > 1)
        request.state.note = f", {len(good)} inputs, {sum(v.flagged for v in good)} flagged"
        return JSONResponse(answer(request.state.request_id, scorer, good))

    @app.head("/health", include_in_schema=False)
    @app.get("/health")
    async def health() -> Response:
        """Whether requests are taken, and how busy it is."""
        state = {
            "status": "ready" if batcher.ready else "stopping",
            "guard": scorer.name,
            "digest": digest,
            "model": model,
            "threshold": scorer.threshold,
            "queue": {"depth": batcher.depth, "max": limits.max_queue, "busy_seconds": round(batcher.busy_seconds, 3)},
            "served": {"texts": batcher.scored, "batches": batcher.batches},
            "requests": gate.inside,
        }
        return JSONResponse(state, 200 if batcher.ready else 503)

    @app.get("/v1/models")
    async def models() -> Response:
        """The one there is, under every name that it answers to."""
        data = [{"id": name, "object": "model", "created": started, "owned_by": "refusalkit"} for name in names]
        return JSONResponse({"object": "list", "data": data})

    return app


def _check_headers(request: Request, limits: Limits) -> None:
    """What can be refused before a body is read."""
    kind, _, parameters = request.headers.get("content-type", "").partition(";")
    charset = parameters.strip().lower().removeprefix("charset=").strip('"')
    if kind.strip().lower() != "application/json" or charset not in ("", "utf-8"):
        raise ApiError(415, "send JSON in UTF-8, with 'Content-Type: application/json'", "unsupported_media_type")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise ApiError(415, "send the body as it is, without Content-Encoding", "unsupported_media_type")
    size = request.headers.get("content-length", "0")
    if size.isdecimal() and int(size) > limits.max_body:
        raise too_large(limits)


async def _unless_gone(request: Request, work: Any, limits: Limits) -> Sequence[Outcome]:
    """The outcome of work, which is dropped when the client goes away or the time is up."""
    answering, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({answering, leaving}, timeout=limits.answer_timeout, return_when=asyncio.FIRST_COMPLETED)
        if answering.done():
            return answering.result()
        if leaving.done():
            raise Disconnected
        raise ApiError(503, f"no verdict within {limits.answer_timeout:g} seconds; try again later", "timeout")
    finally:
        for task in (answering, leaving):
            task.cancel()
        await asyncio.wait({answering, leaving})


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _all_good(found: Sequence[Outcome], many: bool) -> list[Verdict]:
    """The verdicts, where every text has one.

    Raises:
        ApiError: For the first that has none.
    """
    good: list[Verdict] = []
    for i, outcome in enumerate(found):
        where = f"input[{i}]" if many else "input"
        if isinstance(outcome, Verdict):
            good.append(outcome)
        elif outcome == "too_long":
            raise ApiError(400, f"{where} has more tokens than the model reads", "context_length_exceeded", where)
        elif outcome == "unusable":
            text = (
                f"{where} does not fit the model's chat format: most take an optional system message, then messages of "
                "the user and the assistant in turn"
            )
            raise ApiError(422, text, "unprocessable_input", where)
        else:
            raise internal()
    return good


async def _api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body(), error.status, error.headers)


async def _http_error(_: Request, error: Exception) -> Response:
    """FastAPI's own: a path that does not exist, a method that a path does not have."""
    assert isinstance(error, HTTPException)
    codes = {404: ("there is nothing at this path; POST to /v1/moderations", "not_found"),
             405: ("this path does not take this method", "method_not_allowed")}  # fmt: skip
    text, code = codes.get(error.status_code, (str(error.detail), "http_error"))
    return JSONResponse(ApiError(error.status_code, text, code).body(), error.status_code, dict(error.headers or {}))
