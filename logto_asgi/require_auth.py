"""Pure ASGI middleware that guards what it is around: a mount, static files, a route. Decides nothing itself."""

from __future__ import annotations

from typing import Unpack

from starlette.types import ASGIApp, Receive, Scope, Send

from logto_asgi.errors import HTTPError
from logto_asgi.guards import decide, enter
from logto_asgi.requirements import GuardOptions, requirement_of
from logto_asgi.responses import answer_in_place

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
            await answer_in_place(error, scope, receive, send)
            return
        await self.app(scope, receive, send)
