"""Pure ASGI middleware that guards what it is around: a mount, static files, a route. Decides nothing itself."""

from __future__ import annotations

from typing import Unpack

from starlette._exception_handler import wrap_app_handling_exceptions
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from logto_asgi.errors import HTTPError
from logto_asgi.guards import decide, enter
from logto_asgi.requirements import GuardOptions, requirement_of
from logto_asgi.responses import answer

__all__ = ["RequireAuthMiddleware"]


class RequireAuthMiddleware:
    """Let only signed-in visitors through to an app: a mount, static files, a whole router.

    The options are those of `GuardOptions`, as in FastAPI's `require_auth`. A path parameter in `organization` needs
    a route's own middleware: around an app no path is matched yet. Put it inside of `LogtoMiddleware`.
    """

    def __init__(self, app: ASGIApp, **options: Unpack[GuardOptions]) -> None:
        self.app = app
        self._need = requirement_of(**options)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection (ASGI 3), or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        try:
            user, visit, token = enter(scope, self._need)
            await decide(user, visit, token, self._need, scope)
        except HTTPError as error:
            await _answer_here(error, scope, receive, send)
            return
        await self.app(scope, receive, send)


async def _answer_here(error: HTTPError, scope: Scope, receive: Receive, send: Send) -> None:
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
