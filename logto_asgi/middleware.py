"""Pure ASGI middleware: a user on every request and WebSocket, and the session written when the headers leave.

It knows no route.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Iterable, MutableMapping, Sequence
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from logto_asgi.credentials import Credentials
from logto_asgi.errors import ConfigurationError, ConfigurationProblem, SetupError
from logto_asgi.guards import same_app, take_bearer
from logto_asgi.presented import BEARER_SUBPROTOCOL, brings_token, offers_bearer
from logto_asgi.requirements import Way, requirement_of
from logto_asgi.responses import answer_in_place, install
from logto_asgi.runtime import Logto
from logto_asgi.starting import starts
from logto_asgi.user import SCOPE_KEY, LogtoUser, visit_of
from logto_asgi.visit import Visit

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig
    from logto_asgi.session.stores import SessionStore

__all__ = ["LogtoMiddleware"]

logger = logging.getLogger("logto_asgi")

_NOT_FOR_SHARED_CACHES = frozenset({b"expires", b"x-accel-expires", b"surrogate-control", b"edge-control"})
"""What lets a cache store a response, besides all that ends in `Cache-Control`: `CDN-Cache-Control` and its kin of one
vendor go before the plain one (RFC 9213 §2.2)."""


_ONE_OF_TWO = ConfigurationProblem(
    "LogtoMiddleware",
    "needs exactly one of config= and logto=, and store= goes with config=.",
    "Write app.add_middleware(LogtoMiddleware, config=config), or Logto(config, store=store) for logto=.",
)
_ALONE = ConfigurationProblem(
    "accept",
    'is "bearer" alone, and this app signs people in.',
    'Write accept=("session", "bearer"), or make the configuration with LogtoConfig.without_sign_in(…).',
)
_TWO_SETTINGS = (
    "Two LogtoMiddleware of one app are inside of each other with different settings, and guards could go by one only. "
    "Give both the same LogtoConfig, or give an API that is mounted one of its own: LogtoConfig.without_sign_in(…)."
)
_NO_RESOURCE = ConfigurationProblem(
    "api_resource",
    "is missing, but the middleware is to accept bearer tokens.",
    "Pass api_resource=… or set LOGTO_API_RESOURCE: the audience that tokens must be for.",
)


class LogtoMiddleware:
    """Put a `LogtoUser` on every HTTP request and WebSocket: `request.state.user`.

    Also Starlette's `request.user` and `request.auth`, where no other middleware has set them. Pass `config=`, with
    `store=` where sessions are to live on the server, or a `Logto` of your own as `logto=`. A cookie is looked at when
    somebody asks for the user; a session in a store is read before the app runs. Never raises: whatever a cookie
    holds, the visitor is anonymous at worst, and a store that is away is raised by asking for the user.
    With `accept=("session", "bearer")` the user can also be the caller with an access token for the configuration's
    `api_resource`: of a user, for no organization. Guards accept tokens of their own accord, and need no `accept` here.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        config: LogtoConfig | None = None,
        store: SessionStore | None = None,
        logto: Logto | None = None,
        accept: Way | Sequence[Way] = ("session",),
    ) -> None:
        if (config is None) == (logto is None) or (logto is not None and store is not None):
            raise ConfigurationError([_ONE_OF_TWO])
        self.app = app
        self.logto = logto if logto is not None else Logto(config, store=store)  # type: ignore[arg-type]
        config = self.logto.config
        self._prefetches = config.fetch_user_info or config.get_access_token or config.get_organization_token
        self._revalidate_every = config.revalidate_every
        need = requirement_of(accept=accept)
        if need.bearer and config.api_resource is None:
            raise ConfigurationError([_NO_RESOURCE])
        if config.signs_in and not need.session:
            raise ConfigurationError([_ALONE])
        self._bearer = need if need.bearer else None
        self._looks_ahead = self._bearer is not None
        self._looks_ahead |= self._prefetches or self.logto.sessions.remote or self._revalidate_every is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection (ASGI 3)."""
        kind = scope["type"]
        if kind == "http" or kind == "websocket":
            outer = visit_of(scope)
            if outer is not None and same_app(outer.config, self.logto.config):
                await self._inside_of(outer, scope, receive, send)
                return
            visit = Visit(self.logto, scope, install)
            user = LogtoUser(visit)
            _place(scope, user, visit)
            try:
                if self._looks_ahead:
                    await self._look_ahead(visit, user)
                if kind == "http":
                    await self.app(scope, receive, _sending_session(visit, send))
                else:
                    await _Conversation(visit, send).run(self.app, scope, receive)
            finally:
                visit.leave()
        elif kind == "lifespan":
            await self._lifespan(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _inside_of(self, outer: Visit, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection that has its user from a middleware of the same app around this one."""
        if not self.logto.config.same_settings(outer.config):
            install(scope)
            await answer_in_place(SetupError(_TWO_SETTINGS), scope, receive, send)
            return
        if self._bearer is not None and outer.bearer is None and brings_token(scope):
            await take_bearer(outer, self._bearer)
        await self.app(scope, receive, send)

    async def _look_ahead(self, visit: Visit, user: LogtoUser) -> None:
        if self._bearer is not None and brings_token(visit.scope):
            await take_bearer(visit, self._bearer)
            return
        await visit.open()
        if self._revalidate_every is not None:
            await visit.revalidate(self._revalidate_every)
        if self._prefetches and visit.failure is None:
            await user.prefetch()

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = scope.get("app")
        if app is not None and hasattr(app, "state"):
            app.state.logto = self.logto
        if not await starts(self.logto, scope, receive, send):
            return

        async def send_then_close(message: Message) -> None:
            if message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
                await self.logto.aclose()
            await send(message)

        await self.app(scope, receive, send_then_close)


def _place(scope: Scope, user: LogtoUser, visit: Visit) -> None:
    scope[SCOPE_KEY] = user
    state = scope.get("state")
    if state is None:
        scope["state"] = {"user": user}
    elif isinstance(state, (dict, MutableMapping)) and isinstance(state.get("user", user), LogtoUser):
        state["user"] = user
    if isinstance(scope.get("user", user), LogtoUser):
        scope["user"] = user
        scope["auth"] = Credentials(user, visit)


def _sending_session(visit: Visit, send: Send) -> Send:
    def send_with_session(message: Message) -> Awaitable[None]:
        # No coroutine of its own: every message of every response passes here.
        if message["type"] == "http.response.start":
            if visit.asked:
                write_session(visit, message)
            else:
                visit.headers_gone = True
            if visit.varies_by_token:
                message["headers"] = _varying_by(b"Authorization", message.get("headers", ()))
        return send(message)

    return send_with_session


def write_session(visit: Visit, message: Message) -> None:
    """Add to a message that starts a response what the browser must be told, if anything.

    A response that read the user varies by cookie. One that carries a cookie of ours is for no shared cache; a write
    that would only roll the session is left to a later response where this one may be cached.
    """
    loaded = visit.loaded
    if loaded is None or not visit.asked:
        return
    headers = list(message.get("headers", ()))
    if loaded.session is not None or loaded.clear:
        may_roll = message.get("status") != 304 and not _publicly_cacheable(headers)
        cookies = visit.runtime.sessions.headers_to_send(loaded, may_roll=may_roll)
        if cookies:
            headers = [pair for pair in headers if not _is_for_caches(pair[0].lower())]
            headers.append((b"cache-control", b"private, no-store"))
            headers.extend((b"set-cookie", cookie.encode("latin-1")) for cookie in cookies)
    message["headers"] = _varying_by(b"Cookie", headers)


def _is_for_caches(name: bytes) -> bool:
    return name.endswith(b"cache-control") or name in _NOT_FOR_SHARED_CACHES


def _varying_by(field: bytes, headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers with a field in `Vary` (RFC 9110 §12.5.5)."""
    headers = list(headers)
    for name, value in headers:
        if name.lower() == b"vary":
            named = [each.strip() for each in value.lower().split(b",")]
            if b"*" in named or field.lower() in named:
                return headers
    headers.append((b"vary", field))
    return headers


def _publicly_cacheable(headers: list[tuple[bytes, bytes]]) -> bool:
    """Tell whether a shared cache may store the response by its own word (RFC 9111 §3)."""
    values = [value for name, value in headers if name.lower() == b"cache-control"]
    if not values:
        return False
    directives = {part.strip().partition(b"=")[0] for part in b",".join(values).lower().split(b",")}
    if directives & {b"private", b"no-store"}:
        return False
    return bool(directives & {b"public", b"s-maxage", b"max-age", b"immutable"})


class _Conversation:
    """One WebSocket: writes the session with the handshake's answer; ends with the session's or the token's life."""

    def __init__(self, visit: Visit, send: Send) -> None:
        self._visit = visit
        self._send = send
        self._accepted = False
        self._closed = False
        self._timer: asyncio.Task[None] | None = None

    async def run(self, app: ASGIApp, scope: Scope, receive: Receive) -> None:
        async def receive_with_end() -> Message:
            self._end_with_session()
            return await receive()

        try:
            await app(scope, receive_with_end, self._send_with_session)
        finally:
            if self._timer is not None:
                self._timer.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await self._timer

    async def _send_with_session(self, message: Message) -> None:
        if self._closed:
            # Starlette takes an OSError for a peer that went away, and raises WebSocketDisconnect.
            raise OSError("the session or token has ended and the WebSocket with it")
        if message["type"] in ("websocket.accept", "websocket.http.response.start"):
            write_session(self._visit, message)
        if message["type"] == "websocket.accept":
            self._choose_subprotocol(message)
        await self._send(message)
        self._accepted = self._accepted or message["type"] == "websocket.accept"
        self._end_with_session()

    def _choose_subprotocol(self, message: Message) -> None:
        """Answer `logto.bearer`: a browser that offered subprotocols goes away unless one of them is chosen."""
        if not message.get("subprotocol") and offers_bearer(self._visit.scope["headers"]):
            message["subprotocol"] = BEARER_SUBPROTOCOL

    def _end_with_session(self) -> None:
        """Set the end once there is a user: an app may ask who it is before it accepts, or at any time after."""
        visit = self._visit
        session = visit.session if visit.asked else None
        if not self._accepted or self._timer is not None:
            return
        if visit.bearer is not None:
            self._close_at(visit.bearer.exp, "token_expired")
        elif session is not None:
            self._close_at(session.created_at + visit.config.absolute_lifetime, "session_ended")

    def _close_at(self, end: float, reason: str) -> None:
        task = self._close_after(end - self._visit.runtime.clock(), reason)
        self._timer = asyncio.get_running_loop().create_task(task, name="logto_asgi websocket end")

    async def _close_after(self, seconds: float, reason: str) -> None:
        await asyncio.sleep(seconds)
        self._closed = True
        logger.info("websocket closed: %s", reason)
        with contextlib.suppress(RuntimeError, OSError):  # The app or the browser may have closed it by now.
            await self._send({"type": "websocket.close", "code": 1008, "reason": reason})
