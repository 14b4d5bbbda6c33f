"""Where a request comes from: this site, another one, or no browser. Pure; reads ASGI headers only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig

__all__ = [
    "SAFE_METHODS",
    "header",
    "is_same_origin_request",
    "is_trusted_handshake",
    "is_trusted_origin",
    "origin_of_url",
]

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""Methods that change nothing (RFC 9110 §9.2.1)."""

RawHeaders = Iterable[tuple[bytes, bytes]]


def header(headers: RawHeaders, name: bytes) -> str | None:
    """Return the first value of a header, or None. `name` is in lower case, as ASGI has them."""
    for key, value in headers:
        if key == name:
            return value.decode("latin-1")
    return None


def origin_of_url(url: str) -> str:
    """Return scheme, host and port of a URL that is known to be good, as a page's policy names them."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def is_trusted_origin(origin: str, config: LogtoConfig) -> bool:
    """Tell whether an `Origin` is the app's own or one of `trusted_origins`."""
    return origin == config.origin or origin in config.trusted_origins


def is_same_origin_request(headers: RawHeaders, config: LogtoConfig) -> bool:
    """Tell whether a request that arrived by cookie may change something.

    1. `Sec-Fetch-Site`: the browser says `same-origin` or `none` (typed, bookmarked).
    2. `Origin` is one of `trusted_origins`.
    3. Without `Sec-Fetch-Site`: `Origin` is ours, or absent, and then no browser sent it.
    """
    site, origin = header(headers, b"sec-fetch-site"), header(headers, b"origin")
    if site in ("same-origin", "none") or origin in config.trusted_origins:
        return True
    return site is None and origin in (None, config.origin)


def is_trusted_handshake(headers: RawHeaders, config: LogtoConfig) -> bool:
    """Tell whether a WebSocket handshake may use the cookie: every browser sends `Origin`, programs send none."""
    origin = header(headers, b"origin")
    return origin is None or is_trusted_origin(origin, config)
