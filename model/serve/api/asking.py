"""From the body of a request to what the engine generates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar, cast

from pydantic import BaseModel, ValidationError

from model.serve.api.errors import of_validation, of_value
from model.serve.api.reply import Reply
from model.serve.api.service import Service
from model.serve.engine.request import Request

B = TypeVar("B", bound=BaseModel)


class Asking(Protocol):
    """A body that asks for texts."""

    stream: bool | None

    def request(self, service: Service, key: str) -> Request: ...

    def reply(self, service: Service, request: Request) -> Reply: ...


def parsed(kind: type[B], raw: bytes | Mapping[str, Any]) -> B:
    """A body from its JSON, as bytes or as an object. Raises: Refusal."""
    try:
        return kind.model_validate_json(raw) if isinstance(raw, bytes) else kind.model_validate(raw)
    except ValidationError as error:
        raise of_validation(error) from None


def asked(
    service: Service, kind: type[BaseModel], raw: bytes | Mapping[str, Any], key: str = ""
) -> tuple[Asking, Request]:
    """A body, and the request that it makes. Raises: Refusal."""
    asking = cast(Asking, parsed(kind, raw))
    try:
        return asking, asking.request(service, key)
    except (ValueError, TypeError) as error:
        raise of_value(error) from None
