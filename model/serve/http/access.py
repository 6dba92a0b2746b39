"""Who may ask: which web pages, and who has a key."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from model.serve.api.errors import Refusal
from model.serve.http.answer import refused

LOCAL = ("localhost", "127.0.0.1", "::1")


class OriginCheck:
    """Refuses web pages of other origins: a browser sends their requests even where it hides the answers."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        self.app, self.origins = app, origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name: value.decode("latin-1") for name, value in scope.get("headers", ())}
        origin = headers.get(b"origin")
        if origin is None or "*" in self.origins or origin in self.origins or is_own(scope, origin, headers):
            await self.app(scope, receive, send)
        else:
            refusal = Refusal(403, "this web page may not ask: alea serve --allowed-origins names those that may")
            await refused(refusal)(scope, receive, send)


def is_own(scope: Scope, origin: str, headers: Mapping[bytes, str]) -> bool:
    """Whether a web page comes from this server: then its origin is the address that it asks.

    That alone proves nothing. An attacker's page can come from a name of his that points to this machine a moment
    later (DNS rebinding): its origin is the address that it asks, too. So the address must be one that no foreign
    name can be: an IP address that the server listens on, or a name for this machine.
    """
    host = headers.get(b"host", "")
    if origin != f"{scope['scheme']}://{host}":
        return False
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    here = scope.get("server") or ("",)  # where this connection has arrived
    return name in (*LOCAL, here[0])


class KeyCheck:
    """Every request must bring one of the keys, as `Authorization: Bearer KEY`, but those of open paths."""

    def __init__(self, app: ASGIApp, keys: Sequence[str], open_paths: Sequence[str]) -> None:
        self.app, self.keys, self.open_paths = app, [key.encode() for key in keys], open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in self.open_paths:
            given = dict(scope["headers"]).get(b"authorization", b"")
            kind, _, key = given.partition(b" ")
            matches = [hmac.compare_digest(key.strip(), known) for known in self.keys]  # all of them, in constant time
            if kind.lower() != b"bearer" or not any(matches):
                await refused(Refusal(401, "the API key is missing or wrong", code="invalid_api_key"))(
                    scope, receive, send
                )
                return
            scope["key"] = str(matches.index(True))
        await self.app(scope, receive, send)
