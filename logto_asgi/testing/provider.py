"""DevelopmentProvider: a small OpenID provider that speaks Logto's dialect, in memory, for demos and tests.

It puts the endpoints together as one ASGI app; what tests do to it is in `levers`. It is not for production: anybody
can sign in as anyone, so it answers this machine only.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from logto_asgi.testing import loopback
from logto_asgi.testing.accounts import EndSessionEndpoint, RevocationEndpoint, UserinfoEndpoint
from logto_asgi.testing.authorization import AuthorizationEndpoint
from logto_asgi.testing.clients import GRANT_TYPES, Client
from logto_asgi.testing.controls import Faults, RequestLog
from logto_asgi.testing.core import Core, Lifetimes, Rotation
from logto_asgi.testing.cors import CORS_ENDPOINTS, CrossOrigin
from logto_asgi.testing.documents import DiscoveryDocument, KeySetDocument
from logto_asgi.testing.interaction import InteractionEndpoint
from logto_asgi.testing.introspection import IntrospectionEndpoint
from logto_asgi.testing.levers import Levers
from logto_asgi.testing.parameters import Parameters, read_parameters
from logto_asgi.testing.refusals import Refusal
from logto_asgi.testing.tokens import TokenEndpoint
from logto_asgi.testing.users import DEMO_ORGANIZATIONS, DEMO_RESOURCES, DEMO_USERS, DemoUser, Directory, Organization

__all__ = ["DevelopmentProvider"]

_log = logging.getLogger("logto_asgi.testing")
_Handler = Callable[[Request, Parameters], Response]
_Endpoint = Callable[[Request], Awaitable[Response]]


class DevelopmentProvider(Levers):
    """An ASGI app that behaves like a Logto tenant. Its state is lost when it goes.

    Ages are in seconds. `rotate` says when a refresh gives a new refresh token: `"logto"` (public apps always,
    confidential ones past 70 % of its life), `"always"` or `"never"`; a spent one works for `grace` more.
    With `login_hint_signs_in` a `login_hint` that is the e-mail address, user name or `sub` of a user signs in
    without a page; switch it off to see the page that Logto would show.
    """

    def __init__(
        self,
        *,
        clients: Iterable[Client] = (),
        users: Iterable[DemoUser] = DEMO_USERS,
        resources: Mapping[str, Collection[str]] = DEMO_RESOURCES,
        organizations: Iterable[Organization] = DEMO_ORGANIZATIONS,
        issuer: str = "http://localhost:3001/oidc",
        clock: Callable[[], float] = time.time,
        access_token_ttl: int = 3600,
        id_token_ttl: int = 3600,
        refresh_token_ttl: int = 14 * 86400,
        session_ttl: int = 14 * 86400,
        rotate: Rotation = "logto",
        grace: float = 3,
        login_hint_signs_in: bool = True,
    ) -> None:
        _check_issuer(issuer)
        self._core = Core(
            issuer=issuer,
            clients={client.app_id: client for client in clients},
            directory=Directory(users, organizations, clock()),
            resources={resource: frozenset(scopes) for resource, scopes in resources.items()},
            lifetimes=Lifetimes(access_token_ttl, id_token_ttl, refresh_token_ttl, session_ttl, grace=grace),
            rotate=rotate,
            clock=clock,
            login_hint_signs_in=login_hint_signs_in,
        )
        self.requests = RequestLog()
        self._faults = Faults()
        # Test clients may each bring an event loop and thread of their own.
        self._lock = threading.Lock()
        self._warned = False
        self._app = Starlette(routes=self._routes())

    def __repr__(self) -> str:
        return f"DevelopmentProvider(issuer={self.issuer!r})"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request of this machine; refuse every other one."""
        self._warn_once()
        why = None if scope["type"] == "lifespan" else loopback.why_refused(scope)
        if why is not None:
            await loopback.refuse(scope, receive, send, why)
            return
        await self._app(scope, receive, send)

    def _routes(self) -> list[Route]:
        authorization = AuthorizationEndpoint(self._core)
        table: list[tuple[str, str, _Handler, tuple[str, ...]]] = [
            ("discovery", "/.well-known/openid-configuration", DiscoveryDocument(self._core), ("GET",)),
            ("jwks", "/jwks", KeySetDocument(self._core), ("GET",)),
            ("authorization", "/auth", authorization, ("GET", "POST")),
            ("interaction", "/interaction/{id}", InteractionEndpoint(self._core, authorization), ("GET", "POST")),
            ("token", "/token", TokenEndpoint(self._core), ("POST",)),
            ("userinfo", "/me", UserinfoEndpoint(self._core), ("GET", "POST")),
            ("revocation", "/token/revocation", RevocationEndpoint(self._core), ("POST",)),
            ("introspection", "/token/introspection", IntrospectionEndpoint(self._core), ("POST",)),
            ("end_session", "/session/end", EndSessionEndpoint(self._core), ("GET", "POST")),
        ]
        prefix = self._core.path.rstrip("/")
        return [
            Route(prefix + path, self._shared(name, self._serve(name, handler)), methods=[*methods, *_preflight(name)])
            for name, path, handler, methods in table
        ]

    def _shared(self, name: str, endpoint: _Endpoint) -> _Endpoint:
        """Add CORS to the endpoints that pages of public apps call."""
        if name not in CORS_ENDPOINTS:
            return endpoint
        cross_origin = CrossOrigin(self._core)

        async def shared(request: Request) -> Response:
            if request.method == "OPTIONS":
                return cross_origin.preflight(request)
            response = await endpoint(request)
            cross_origin.allow(request, response)
            return response

        return shared

    def _serve(self, name: str, handler: _Handler) -> _Endpoint:
        async def endpoint(request: Request) -> Response:
            try:
                params = await read_parameters(request)
                grant_type = params.get("grant_type") if name == "token" else None
                self.requests.add(name, grant_type if grant_type in GRANT_TYPES else None)
                await asyncio.sleep(self._faults.wait(name, after=False))
                response = self._faults.take(name) or self._work(handler, request, params)
            except Refusal as refusal:
                response = refusal.response()
            await asyncio.sleep(self._faults.wait(name, after=True))
            return response

        return endpoint

    def _work(self, handler: _Handler, request: Request, params: Parameters) -> Response:
        with self._lock:
            return handler(request, params)

    def _warn_once(self) -> None:
        if not self._warned:
            self._warned = True
            _log.warning(
                "The development provider at %s is running. It is not for production: "
                "anybody who can reach it signs in as anyone, without a password.",
                self.issuer,
            )


def _preflight(name: str) -> tuple[str, ...]:
    return ("OPTIONS",) if name in CORS_ENDPOINTS else ()


def _check_issuer(issuer: str) -> None:
    parts = urlsplit(issuer)
    if parts.scheme not in ("http", "https") or not loopback.is_loopback(parts.hostname or ""):
        raise ValueError(
            "the development provider runs on this machine only: its issuer is like http://localhost:3001/oidc"
        )
    if parts.query or parts.fragment or issuer.endswith("/"):
        raise ValueError("an issuer has no query, no fragment and no slash at its end")
