"""The site that `python -m logto_asgi demo` serves: a home page, a guarded profile, a page that reads an access token.

It uses what every app uses and nothing private; how its pages look is in `demo_pages`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from logto_asgi.middleware import LogtoMiddleware
from logto_asgi.models import ReservedResource
from logto_asgi.require_auth import RequireAuthMiddleware
from logto_asgi.routes import auth_routes
from logto_asgi.runtime import Logto
from logto_asgi.testing import demo_pages
from logto_asgi.testing.demo_pages import Frame, TokenFacts
from logto_asgi.user import LogtoUser

__all__ = ["demo_site"]


def demo_site(logto: Logto) -> Starlette:
    """Return the demo as a Starlette app. It shows a token for the first of the configuration's `resources`."""
    pages = _Pages(logto)
    signed_in = [Middleware(RequireAuthMiddleware)]
    return Starlette(
        routes=[
            Route("/", pages.home, name="home"),
            Route("/profile", pages.profile, middleware=signed_in),
            Route("/token", pages.token, middleware=signed_in),
            Route("/token/refresh", pages.refresh, methods=["POST"], middleware=signed_in),
            *auth_routes(logto.config),
        ],
        middleware=[Middleware(LogtoMiddleware, logto=logto)],
    )


class _Pages:
    def __init__(self, logto: Logto) -> None:
        self._config = logto.config
        own = (each for each in logto.config.resources if each != ReservedResource.ORGANIZATION)
        self._resource = next(own, None)

    async def home(self, request: Request) -> Response:
        """Greet everybody."""
        return _page(demo_pages.home(self._frame(request, "/")))

    async def profile(self, request: Request) -> Response:
        """Show the claims, which `model_dump` gives without those that only bind the ID token to its sign-in."""
        user: LogtoUser = request.state.user
        claims = user.claims.model_dump(mode="json")
        return _page(demo_pages.profile(self._frame(request, "/profile"), claims, user.scopes))

    async def token(self, request: Request) -> Response:
        """Read an access token and say when it ends, what it allows, and whether it is still the one from before."""
        user: LogtoUser = request.state.user
        facts = _facts(await user.get_access_token(self._resource), self._config.refresh_margin)
        before = request.query_params.get("before")
        return _page(demo_pages.token(self._frame(request, "/token"), self._resource, facts, before))

    async def refresh(self, request: Request) -> Response:
        """Refresh at once, although there is no need yet, as an app does after a user's role has changed."""
        user: LogtoUser = request.state.user
        before = _fingerprint(await user.get_access_token(self._resource))
        await user.get_access_token(self._resource, force_refresh=True)
        return RedirectResponse(self._config.url(f"/token?before={before}"), 303)

    def _frame(self, request: Request, path: str) -> Frame:
        user: LogtoUser = request.state.user
        return Frame(url=self._config.url, auth_url=self._config.auth_url, path=path, name=user.display_name)


def _page(html: str) -> HTMLResponse:
    return HTMLResponse(html, headers=demo_pages.HEADERS)


def _facts(token: str, refresh_margin: int) -> TokenFacts:
    """Read what a JWT says of itself, unverified: good for showing it, never for letting somebody in."""
    parts = token.split(".")
    claims: dict[str, Any] = {}
    if len(parts) == 3:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    issued_at, expires_at = claims.get("iat"), claims.get("exp")
    renewed_at = None
    if issued_at is not None and expires_at is not None:
        renewed_at = expires_at - min(refresh_margin, (expires_at - issued_at) // 2)
    return TokenFacts(
        fingerprint=_fingerprint(token),
        now=int(time.time()),
        issued_at=issued_at,
        expires_at=expires_at,
        renewed_at=renewed_at,
        scopes=tuple(str(claims.get("scope", "")).split()),
    )


def _fingerprint(token: str) -> str:
    """Return what tells two tokens apart and gives neither away."""
    return hashlib.sha256(token.encode()).hexdigest()[:12]
