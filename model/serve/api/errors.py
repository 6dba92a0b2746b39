"""Refusals, in the shape that OpenAI's clients read."""

from __future__ import annotations

import re
from typing import Any

from pydantic import ValidationError

from model.untrusted import shown

TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
BEGINNING = re.compile(r"^\w+ should ")  # of pydantic's messages


class Refusal(Exception):
    """A request that gets no answer, with its HTTP status and the parameter that is wrong, if it is one.

    >>> Refusal(400, "top_p must be in [0, 1], got 2", "top_p").body["error"]["param"]
    'top_p'
    """

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    @property
    def body(self) -> dict[str, Any]:
        kind = TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


def of_validation(error: ValidationError) -> Refusal:
    """The first field that is wrong, with all that it could have been."""
    found = error.errors(include_url=False, include_context=False)
    first, param = found[0], path(found[0]["loc"])
    name = param or "the body"
    if first["type"] == "missing":
        text = f"{name} is missing"
    elif first["type"] == "extra_forbidden":
        outer, key = path(first["loc"][:-1]), shown(str(first["loc"][-1]))[1:-1]
        param = f"{outer}.{key}" if outer else key
        text = f"{param} is no field of this request, got {shown(first['input'])}"
    elif first["type"] == "json_invalid":
        text = f"{name} must be JSON: {first['msg'].partition(': ')[2]}"
    elif first["type"] == "value_error":
        text = f"{first['msg'].removeprefix('Value error, ')}, got {name} = {shown(first['input'])}"
    else:
        wanted = dict.fromkeys(BEGINNING.sub("", one["msg"]) for one in found if path(one["loc"]) == param)
        text = f"{name} must {' or '.join(wanted)}, got {shown(first['input'])}"
    return Refusal(400, text, param or None)


def of_value(error: ValueError | TypeError) -> Refusal:
    """From a message of ours, which begins with the parameter's name."""
    return Refusal(400, str(error), str(error).split()[0].rstrip(":") if str(error) else None)


def path(location: tuple[int | str, ...]) -> str:
    """Where in the body, without the names of the types that pydantic tried there.

    >>> path(("messages", 0, "content"))
    'messages[0].content'
    """
    text = ""
    for step in location:
        if isinstance(step, int):
            text += f"[{step}]"
        elif step.replace("_", "").isalnum() and step == step.lower() and step not in NAMES_OF_TYPES:
            text += f".{step}" if text else step
    return text


NAMES_OF_TYPES = {"str", "int", "float", "bool", "list", "dict", "none", "nullable", "function-after"}
