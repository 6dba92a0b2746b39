"""The description of the server for programs: OpenAPI 3.1, from the types of the bodies."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from model.versions import DISTRIBUTION, installed

TEMPLATE = "#/components/schemas/{model}"
ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
ANSWERS = ("application/json", "text/event-stream", "application/jsonlines")
LOOKS = ("application/json", "text/plain")
REFUSALS = {
    "400": "a field is wrong, unknown or not served",
    "401": "the key is missing or wrong",
    "403": "a web page that may not ask",
    "404": "another model, or no such path",
    "405": "another method",
    "408": "too slow",
    "413": "the body is too long",
    "429": "the queue is full",
    "500": "the server failed",
    "503": "the server is shutting down",
}


def document(bodies: Mapping[str, type[BaseModel]], looked_at: Sequence[str]) -> dict[str, Any]:
    """bodies: of each path that takes a POST; looked_at: paths that take a GET."""
    kinds = list(dict.fromkeys(bodies.values()))
    references, schemas = models_json_schema([(kind, "validation") for kind in kinds], ref_template=TEMPLATE)
    paths: dict[str, Any] = {}
    for path, kind in bodies.items():
        body = {"required": True, "content": {"application/json": {"schema": references[kind, "validation"]}}}
        paths[path] = {
            "post": {"operationId": path.strip("/").replace("/", "_"), "requestBody": body, **responses(*ANSWERS)}
        }
    for path in looked_at:
        names = re.findall(r"\{(\w+)(?::\w+)?\}", path)
        parameters = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
        plain = re.sub(r":\w+\}", "}", path)
        operation = re.sub(r"\W+", "_", plain).strip("_")
        paths[plain] = {"get": {"operationId": operation, "parameters": parameters, **responses(*LOOKS)}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "alea serve", "version": installed(DISTRIBUTION) or "0"},
        "paths": paths,
        "components": {"schemas": {**schemas.get("$defs", {}), "Error": ERROR}},
    }


def responses(*kinds: str) -> dict[str, Any]:
    """kinds: of the answer's content."""
    good = {"description": "the answer", "content": {kind: {"schema": {}} for kind in kinds}}
    error = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
    refusals = {status: {"description": text, **error} for status, text in REFUSALS.items()}
    return {"responses": {"200": good, **refusals}}
