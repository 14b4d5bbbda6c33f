"""How we say no and where we send people: each of our errors in the form that the one who asked can use.

Knows requests and errors; decides nothing about who may pass.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import quote

from starlette._exception_handler import wrap_app_handling_exceptions
from starlette._utils import is_async_callable
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketState

from logto_asgi.errors import (
    CrossSiteRequest,
    HTTPError,
    InsufficientScope,
    InvalidRequest,
    InvalidToken,
    LogtoError,
    PermissionDenied,
    SetupError,
    SignInRequired,
    StepUpRequired,
    StoreUnavailable,
    TokenRequired,
)
from logto_asgi.oidc.transport import header_value
from logto_asgi.origins import header
from logto_asgi.pages import Action, page_headers, render_page
from logto_asgi.presented import brings_token
from logto_asgi.return_to import current_location, own_address, path_of_own_url
from logto_asgi.user import visit_of

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig

__all__ = ["answer", "answer_in_place", "install", "is_prefetch", "page", "redirect", "refuse"]

logger = logging.getLogger("logto_asgi")

Asker = Literal["htmx", "program", "navigation"]

_NO_STORE = {"Cache-Control": "private, no-store"}


def install(scope: MutableMapping[str, Any]) -> None:
    """Add our answer to the app's exception handlers, unless it has one for `LogtoError` or `HTTPError`.

    A handler of the app for a status or for one class of ours goes first anyway: Starlette looks these up first.
    """
    handlers = scope.get("starlette.exception_handlers")
    if handlers is not None and HTTPError not in handlers[0] and LogtoError not in handlers[0]:
        handlers[0][HTTPError] = answer


async def answer(connection: HTTPConnection, error: Exception) -> Response | None:
    """Answer one of our errors: Starlette's exception handler for `HTTPError`."""
    if not isinstance(error, HTTPError):
        raise error
    if error.status >= 500:
        _log(connection.scope, error)
    if isinstance(connection, WebSocket):
        return await _answer_websocket(connection, error)
    connection = cast("Request", connection)
    handler = _own_handler(connection)
    if handler is not None and _asker(connection.scope) == "program" and getattr(error, "redirect", None) is not True:
        return await _handled(handler, connection, error)
    return refuse(connection.scope, error)


async def answer_in_place(error: HTTPError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer as the app around would, by its own handlers if it has some, without raising up to it.

    Between here and there may be the error page of an app that is mounted, which would make a 500 of it.
    """
    connection = Request(scope, receive, send) if scope["type"] == "http" else WebSocket(scope, receive, send)
    if "starlette.exception_handlers" in scope:

        async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
            raise error

        await wrap_app_handling_exceptions(refuse, connection)(scope, receive, send)
        return
    response = await answer(connection, error)
    if response is not None:
        await response(scope, receive, send)


def _log(scope: Mapping[str, Any], error: HTTPError) -> None:
    level = logging.ERROR if isinstance(error, SetupError) else logging.WARNING
    visit = visit_of(scope)
    if visit is not None and brings_token(scope):
        kind = error.message if isinstance(error, SetupError) else error.code
        level = level if visit.runtime.bearer.is_news(kind) else logging.DEBUG
    logger.log(level, "%s: %s", error.code, error.message)


async def _handled(handler: Any, connection: Request, error: HTTPError) -> Response | None:
    if is_async_callable(handler):
        result: Response | None = await handler(connection, error)
        return result
    return await run_in_threadpool(handler, connection, error)


def _own_handler(connection: HTTPConnection) -> Any:
    """Return the app's own handler for every `HTTPException`, if any: programs get the form that it gives errors."""
    by_class, _ = connection.scope.get("starlette.exception_handlers", ({}, {}))
    handler = by_class.get(HTTPException)
    module = getattr(handler, "__module__", "") or ""
    return None if module.partition(".")[0] in ("", "starlette", "fastapi") else handler


async def _answer_websocket(websocket: WebSocket, error: HTTPError) -> Response | None:
    """Deny the handshake with a response where the server can (ASGI "Websocket Denial Response"), else close."""
    code = 1008 if error.status < 500 else 1011
    if websocket.application_state is WebSocketState.CONNECTED:
        await websocket.close(code=code, reason=error.code)
        return None
    if "websocket.http.response" in websocket.scope.get("extensions", {}):
        return _as_json(websocket.scope, error)
    await websocket.close(code=code)
    return None


def refuse(scope: Mapping[str, Any], error: HTTPError) -> Response:
    """Return the response to a refused HTTP request.

    1. htmx: 401 with `HX-Redirect`, so that the whole page goes to sign-in.
    2. A program: JSON with the code, and the sign-in address for a 401.
    3. A navigation by GET that lacks a user: to sign-in and back, by 303.
    4. Any other navigation: a page.
    """
    asker = _asker(scope)
    if isinstance(error, SignInRequired):
        forced = error.redirect is True and scope["method"] == "GET"
        if asker == "htmx":
            return _as_json(scope, error, {"HX-Redirect": _sign_in_url(scope, error)})
        if forced or (asker == "navigation" and error.redirect is None and _may_redirect(scope)):
            return redirect(_sign_in_url(scope, error), 303)
    if asker == "navigation":
        return _as_page(scope, error)
    return _as_json(scope, error)


def redirect(url: str, status: Literal[302, 303]) -> Response:
    """Return a redirect to an absolute URL of ours or the issuer's that no cache keeps."""
    return RedirectResponse(header_value(url), status, _NO_STORE)


def page(
    *,
    heading: str,
    paragraphs: tuple[str, ...],
    actions: tuple[Action, ...] = (),
    status: int = 200,
    tone: Literal["neutral", "error", "success"] = "neutral",
    detail: str | None = None,
    headers: Mapping[str, str] | None = None,
    form_action: tuple[str, ...] = (),
) -> Response:
    """Return one of our pages with the headers that it needs."""
    html = render_page(title=heading, heading=heading, paragraphs=paragraphs, actions=actions, tone=tone, detail=detail)
    return HTMLResponse(html, status, {**(headers or {}), **page_headers(form_action)})


def is_prefetch(scope: Mapping[str, Any]) -> bool:
    """Tell whether a browser asks ahead of the visitor (`Sec-Purpose: prefetch`, and older forms)."""
    headers = scope["headers"]
    purposes = (header(headers, name) or "" for name in (b"sec-purpose", b"purpose", b"x-purpose", b"x-moz"))
    return any("prefetch" in purpose.lower() or "prerender" in purpose.lower() for purpose in purposes)


def _asker(scope: Mapping[str, Any]) -> Asker:
    headers = scope["headers"]
    if header(headers, b"hx-request") == "true":
        return "htmx"
    if header(headers, b"x-requested-with") is not None or is_prefetch(scope):
        return "program"
    mode = header(headers, b"sec-fetch-mode")
    if mode is not None:
        return "navigation" if mode == "navigate" else "program"
    return "navigation" if "text/html" in (header(headers, b"accept") or "") else "program"


def _may_redirect(scope: Mapping[str, Any]) -> bool:
    """Only a GET comes back as what it was, and the issuer's pages refuse to stand in a frame."""
    return scope["method"] == "GET" and header(scope["headers"], b"sec-fetch-dest") in (None, "document")


def _config(scope: Mapping[str, Any]) -> LogtoConfig | None:
    visit = visit_of(scope)
    return visit.config if visit is not None else None


def _sign_in_url(scope: Mapping[str, Any], error: SignInRequired) -> str:
    config = cast("LogtoConfig", _config(scope))
    back = _way_back(scope, config)
    query = [f"return_to={quote(back, safe='/')}"] if back else []
    if error.max_age is not None:
        query.append(f"max_age={error.max_age}")
    return config.auth_url("sign-in") + (f"?{'&'.join(query)}" if query else "")


def _way_back(scope: Mapping[str, Any], config: LogtoConfig) -> str | None:
    headers = scope["headers"]
    if header(headers, b"hx-request") == "true":
        return path_of_own_url(header(headers, b"hx-current-url"), config)
    if scope.get("method") == "GET":
        return current_location(scope, config)
    # A form, a script or a WebSocket: back to the page that it is on.
    return path_of_own_url(header(headers, b"referer"), config)


def _as_json(scope: Mapping[str, Any], error: HTTPError, headers: Mapping[str, str] | None = None) -> Response:
    body: dict[str, Any] = {"detail": error.message, "code": error.code}
    if isinstance(error, SignInRequired) and _config(scope) is not None and not brings_token(scope):
        body["sign_in_url"] = _sign_in_url(scope, error)
    if isinstance(error, PermissionDenied) and error.missing:
        body["missing"] = list(error.missing)
    if isinstance(error, InsufficientScope):
        body["scope"] = error.scope
    return JSONResponse(body, error.status, {**(error.headers or {}), **(headers or {}), **_NO_STORE})


def _as_page(scope: Mapping[str, Any], error: HTTPError) -> Response:
    heading, text, actions = _words(scope, error)
    return page(
        heading=heading,
        paragraphs=text,
        actions=actions,
        status=error.status,
        tone="neutral" if isinstance(error, SignInRequired) else "error",
        detail=error.code,
        headers=error.headers,
    )


def _words(scope: Mapping[str, Any], error: HTTPError) -> tuple[str, tuple[str, ...], tuple[Action, ...]]:
    config = _config(scope)
    home = (Action("Home", config.url("/")),) if config else ()
    if isinstance(error, StepUpRequired) and config:
        again = Action("Sign in again", _sign_in_url(scope, error), primary=True)
        return "Please sign in again", ("This needs a sign-in that is more recent than yours.",), (again, *home)
    if isinstance(error, SignInRequired) and config:
        again = Action("Sign in", _sign_in_url(scope, error), primary=True)
        return "Sign in to continue", ("This page is for people who are signed in.",), (again, *home)
    if isinstance(error, CrossSiteRequest):
        return "This came from another site", ("Nothing was changed. Open the page here and try again.",), home
    if isinstance(error, PermissionDenied):
        return "You may not see this", (error.message, "Ask whoever runs this site if you should."), home
    if isinstance(error, TokenRequired | InvalidToken | InvalidRequest):
        return "This address is for programs", (error.message,), home
    if error.status == 503:
        retry = (Action("Try again", _here(scope, config), primary=True),) if config else ()
        return _heading_of_outage(error), (_wait(scope),), (*retry, *home)
    return "Something is not set up right", (error.message,), home


def _heading_of_outage(error: HTTPError) -> str:
    if isinstance(error, StoreUnavailable):
        return "We can't look up your session"
    return "We can't reach the sign-in service"


def _wait(scope: Mapping[str, Any]) -> str:
    visit = visit_of(scope)
    if visit is not None and visit.failure is not None:
        return "Nobody was signed out. Please try again in a moment."
    signed_in = visit is not None and visit.ask() is not None
    return ("You are still signed in. " if signed_in else "") + "Please try again in a moment."


def _here(scope: Mapping[str, Any], config: LogtoConfig) -> str:
    return own_address(scope, config) if scope["method"] == "GET" else config.url("/")
