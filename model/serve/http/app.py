"""The routes of the server."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from model.serve.api.asking import parsed
from model.serve.api.chat import ChatBody
from model.serve.api.completions import CompletionBody
from model.serve.api.errors import Refusal
from model.serve.api.facts import facts
from model.serve.api.llama_cpp import LlamaCppBody
from model.serve.api.reply import as_json
from model.serve.api.sagemaker import InvocationBody
from model.serve.api.service import Service
from model.serve.api.tgi import GenerateBody, StreamBody
from model.serve.api.together import InferenceBody
from model.serve.api.tokens import DetokenizeBody, TokenizeBody
from model.serve.api.trace import TraceBody
from model.serve.http.access import KeyCheck, OriginCheck
from model.serve.http.answer import Desk, closed, refused
from model.serve.http.metrics import Metrics
from model.serve.http.openapi import document
from model.study import serve_page
from model.versions import DISTRIBUTION, installed
from samplers import DEFINITION

TEXTS: dict[str, type[BaseModel]] = {
    "/v1/completions": CompletionBody,
    "/v1/chat/completions": ChatBody,
    "/inference": InferenceBody,
    "/invocations": InvocationBody,
    "/generate": GenerateBody,
    "/generate_stream": StreamBody,
    "/completion": LlamaCppBody,
    "/v1/alea/trace": TraceBody,
}
TOKENS: dict[str, type[TokenizeBody] | type[DetokenizeBody]] = {
    "/tokenize": TokenizeBody,
    "/detokenize": DetokenizeBody,
}
PAGE = "/"
OPEN = ("/health", "/ping", PAGE)  # without a key; the page asks for it
Endpoint = Callable[[Request], Awaitable[Response]]


def application(desk: Desk, metrics: Metrics, keys: Sequence[str], origins: Sequence[str]) -> Starlette:
    """keys: that may ask, () for anybody. origins: of web pages that may ask."""
    middleware = [Middleware(OriginCheck, origins=origins)]
    middleware += [Middleware(KeyCheck, keys=keys, open_paths=OPEN)] if keys else []
    if origins:
        seen = ["x-alea-seed", "x-request-id"]
        cors: dict[str, Any] = {"allow_methods": ["*"], "allow_headers": ["*"], "expose_headers": seen}
        middleware.insert(0, Middleware(CORSMiddleware, allow_origins=list(origins), **cors))
    routes = [
        *(Route(path, asking(desk, kind), methods=["POST"]) for path, kind in TEXTS.items()),
        *(Route(path, counting(desk, kind), methods=["POST"]) for path, kind in TOKENS.items()),
        *(Route(path, endpoint, methods=["GET"]) for path, endpoint in looking(desk, metrics).items()),
        Route(PAGE, showing(serve_page.render()), methods=["GET"]),
    ]
    handlers: dict[Any, Any] = {Refusal: on_refusal, HTTPException: on_http_error, Exception: on_error}
    return Starlette(routes=routes, middleware=middleware, exception_handlers=handlers)


def asking(desk: Desk, kind: type[BaseModel]) -> Endpoint:
    async def ask(http: Request) -> Response:
        return await desk.ask(http, kind)

    return ask


def counting(desk: Desk, kind: type[TokenizeBody] | type[DetokenizeBody]) -> Endpoint:
    async def count(http: Request) -> Response:
        raw = await desk.body(http)
        return JSONResponse(await desk.away(raw, lambda: parsed(kind, raw).answer(desk.service)))

    return count


def showing(page: serve_page.ServedPage) -> Endpoint:
    headers = {
        "content-security-policy": page.policy,
        "referrer-policy": "same-origin",
        "x-content-type-options": "nosniff",
        "cache-control": "no-cache",
    }

    async def show(_: Request) -> Response:
        return HTMLResponse(page.html, headers=headers)

    return show


def looking(desk: Desk, metrics: Metrics) -> dict[str, Endpoint]:
    """What can be looked at."""
    service = desk.service

    async def health(_: Request) -> Response:
        if desk.is_draining:
            raise closed()
        if not desk.engine.is_alive:
            raise Refusal(500, "the engine has ended", code="internal_error")
        return JSONResponse({"status": "ok"})

    async def models(_: Request) -> Response:
        return JSONResponse({"object": "list", "data": [described(service, name) for name in service.names]})

    async def model(http: Request) -> Response:
        name = http.path_params["name"]
        service.check_model(name)
        return JSONResponse(described(service, name))

    async def version(_: Request) -> Response:
        return JSONResponse({"version": installed(DISTRIBUTION) or "", "definition": DEFINITION})

    async def numbers(_: Request) -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def openapi(_: Request) -> Response:
        return JSONResponse(document({**TEXTS, **TOKENS}, looking_paths))

    @functools.cache
    def written_facts() -> bytes:
        return as_json(facts(service)).encode()

    async def model_facts(_: Request) -> Response:
        return Response(await asyncio.to_thread(written_facts), media_type="application/json")

    found: dict[str, Endpoint] = {
        "/health": health,
        "/ping": health,
        "/v1/models": models,
        "/v1/models/{name:path}": model,
        "/v1/alea/model": model_facts,
        "/version": version,
        "/metrics": numbers,
        "/openapi.json": openapi,
    }
    looking_paths = list(found)
    return found


def described(service: Service, name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": service.created, "owned_by": "alea"}


async def on_refusal(_: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refusal)
    return refused(refusal)


async def on_http_error(http: Request, error: Exception) -> Response:
    """Of the routes: no such path, or another method."""
    assert isinstance(error, HTTPException)
    text = {404: f"no such path: {http.url.path[:100]}", 405: f"{http.url.path} does not take {http.method}"}
    message = text.get(error.status_code, error.detail)
    return refused(Refusal(error.status_code, message), error.headers)


async def on_error(_: Request, error: Exception) -> Response:
    return refused(Refusal(500, f"internal error: {type(error).__name__}", code="internal_error"))
