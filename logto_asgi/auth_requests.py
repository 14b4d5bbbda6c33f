"""What a request to the auth routes says: whether it means it, what it posts, where it wants to go back to.

Reads requests; knows no session, makes no response and decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import ClientDisconnect, Request

from logto_asgi.origins import header, is_same_origin_request
from logto_asgi.responses import is_prefetch
from logto_asgi.return_to import path_of_own_url, safe_return_to

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig

__all__ = [
    "HOST_MARKER",
    "is_on_another_host",
    "may_sign_out",
    "page_of_requires",
    "read_body",
    "read_form",
    "return_to",
    "starts_nothing",
]

HOST_MARKER = "logto_host"
"""Query parameter that says: this browser was sent to the host of `base_url` before."""

_MOST_BODY = 8192
"""Bytes of a posted body that are read."""


def starts_nothing(request: Request) -> bool:
    """Tell whether nobody waits for what the route does: HEAD, or a browser that asks ahead of the visitor."""
    return request.method == "HEAD" or is_prefetch(request.scope)


def is_on_another_host(request: Request, config: LogtoConfig) -> bool:
    """Tell whether the browser came by another name than `base_url`'s: the call-back would lack its cookies."""
    host = (header(request.scope["headers"], b"host") or "").lower()
    own = urlsplit(config.origin)
    default = f"{own.hostname}:{443 if own.scheme == 'https' else 80}"
    return host not in (own.netloc.lower(), default) and HOST_MARKER not in request.query_params


def may_sign_out(request: Request, config: LogtoConfig) -> bool:
    """Tell whether a sign-out is what the visitor wants, without asking.

    A GET needs the browser's word that it is a navigation from this site or the address bar: an image on a page of
    ours is none. A POST is judged as every request by cookie that changes something.
    """
    headers = request.scope["headers"]
    if request.method == "POST":
        return is_same_origin_request(headers, config)
    from_here = header(headers, b"sec-fetch-site") in ("same-origin", "none")
    return from_here and header(headers, b"sec-fetch-dest") in (None, "document")


def return_to(request: Request, form: Mapping[str, str], config: LogtoConfig) -> str:
    """Read `return_to`, or `next`, which names the same; home otherwise."""
    asked = {**request.query_params, **form}
    target = safe_return_to(asked.get("return_to"), config) or safe_return_to(asked.get("next"), config)
    return target or page_of_requires(request, config) or config.base_path + config.post_sign_in_path


def page_of_requires(request: Request, config: LogtoConfig) -> str | None:
    """Return the page whose `@requires` redirected here. It alone sends `next` as an absolute URL."""
    host = header(request.scope["headers"], b"host")
    return path_of_own_url(request.query_params.get("next"), config, host=host)


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a posted form, of several with one name the last; nothing of one that is too large."""
    if request.method != "POST":
        return {}
    return dict(parse_qsl((await read_body(request) or b"").decode("utf-8", "replace")))


async def read_body(request: Request) -> bytes | None:
    """Return a body of at most 8 KiB; None where it is larger, or nobody is there any more for an answer."""
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MOST_BODY:
                return None
    except ClientDisconnect:
        return None  # A traceback in the log would help nobody either.
    return body
