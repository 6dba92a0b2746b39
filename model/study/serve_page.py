"""The page of `alea serve`: a form, the text as it streams in, and each step as on the page of `alea trace --html`.

It asks the server that sent it for traces, and shares all that shows a step with the page of a trace.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import NamedTuple

from model.study.page import filled, part, step_parts

SCRIPTS = ("link", "form", "ask", "text", "answer", "serve")


class ServedPage(NamedTuple):
    """policy: the Content-Security-Policy of its header."""

    html: str
    policy: str


def render() -> ServedPage:
    html = filled("serve.html", {**step_parts(*SCRIPTS), "serve.css": part("serve.css")})
    sources = {
        "default-src": "'none'",
        "script-src": hashes("script", html),
        "style-src": hashes("style", html),
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return ServedPage(html, "; ".join(f"{name} {value}" for name, value in sources.items()))


def hashes(tag: str, html: str) -> str:
    """Of the inline elements of this name, the only ones that a browser may use."""
    texts = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts]
    return " ".join(f"'sha256-{digest}'" for digest in digests)
