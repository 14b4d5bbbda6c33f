"""The bearer token that a request brings: in its header, or in the subprotocols of a WebSocket. Verifies nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from logto_asgi.errors import InvalidRequest

__all__ = ["BEARER_SUBPROTOCOL", "brings_token", "check_single", "is_bearer", "offers_bearer", "presented_token"]

BEARER_SUBPROTOCOL = "logto.bearer"
"""What a browser's WebSocket offers before its token: `new WebSocket(url, ["logto.bearer", token])`."""

_IN_QUERY = re.compile(rb"(?:^|&)access_token(?:=|&|$)")
"""Read as bytes: a query can be long, and no text at all."""

RawHeaders = Iterable[tuple[bytes, bytes]]


def is_bearer(authorization: bytes) -> bool:
    """Tell whether the value of an `Authorization` header is of the scheme `Bearer` (RFC 9110 §11.1), token or not."""
    if authorization.startswith(b"Bearer "):  # what all clients write
        return True
    return [scheme.lower() for scheme in authorization.split(None, 1)[:1]] == [b"bearer"]


def offers_bearer(headers: RawHeaders) -> bool:
    """Tell whether a WebSocket's handshake offers the subprotocol that carries a token."""
    return _after_subprotocol(headers) is not None


def brings_token(scope: Mapping[str, Any]) -> bool:
    """Tell whether a request brings a bearer token, good or not: it decides alone then, whatever cookie there is."""
    for name, value in scope["headers"]:
        if name == b"authorization" and is_bearer(value):
            return True
    return scope["type"] == "websocket" and offers_bearer(scope["headers"])


def presented_token(scope: Mapping[str, Any]) -> str | None:
    """Return the one bearer token of a request (RFC 6750 §2.1), its form not looked at; None where none came.

    Raise `InvalidRequest` for two, and for one in the query string, where logs and histories keep it (§2.3).
    """
    token = None
    for name, value in scope["headers"]:
        if name == b"authorization" and is_bearer(value):
            if token is not None:
                raise _two()
            token = value.decode("latin-1").strip()[6:].strip()
    if scope["type"] == "websocket":
        offered = _after_subprotocol(scope["headers"])
        if offered is not None:
            if token is not None:
                raise _two()
            token = offered
    query = scope.get("query_string", b"")
    if b"access_token" in query and _IN_QUERY.search(query):
        raise InvalidRequest("A token never belongs into the query string. Send it in the Authorization header.")
    return token


def check_single(token: str) -> None:
    """Refuse two tokens in one header, which a proxy or a client may have joined (RFC 9110 §5.3)."""
    if "," in token:
        raise _two()


def _after_subprotocol(headers: RawHeaders) -> str | None:
    """Return what follows `logto.bearer` among the subprotocols: the token, or nothing."""
    offered = b",".join(value for name, value in headers if name == b"sec-websocket-protocol").decode("latin-1")
    names = [name.strip() for name in offered.split(",")] if offered else []
    if BEARER_SUBPROTOCOL not in names:
        return None
    others = [name for name in names if name != BEARER_SUBPROTOCOL]
    place = names.index(BEARER_SUBPROTOCOL)
    return names[place + 1] if place + 1 < len(names) and others else ""


def _two() -> InvalidRequest:
    return InvalidRequest("Two tokens came with this request. Send one, in the Authorization header.")
