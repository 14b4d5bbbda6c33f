"""A small world for interleavings: an issuer, processes that may die, a store between them, and clocks that jump.

Everything is real but the network: issuer and store may be away, slow, or lose an answer, as a test orders.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import httpx
from interleavings_loop import JumpingLoop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Mount, Route

from logto_asgi import Logto, LogtoConfig, LogtoMiddleware, LogtoUser, MemoryStore
from logto_asgi.errors import StoreUnavailable
from logto_asgi.require_auth import RequireAuthMiddleware
from logto_asgi.routes import auth_routes
from logto_asgi.testing import DevelopmentProvider, development_config

__all__ = ["ABSOLUTE", "API", "BASE", "IDLE", "OTHER_API", "ROLL", "SECRETS", "START", "TTL", "Process", "World"]

API = "https://shopping.example.com/api"
OTHER_API = "https://store.example.com/api"
BASE = "http://localhost:8000"
START = 1_800_000_000
TTL, ROLL, IDLE, ABSOLUTE = 1200, 600, 7200, 28_800
"""Seconds: of an access token, between two touches of a session, and its two lifetimes."""

_A, _B, _C = "qPz2mW7tKx9dLr4vHs8bYn3cJf6gTu1a", "Zk5rQe8wNi2xVo7cBm4jDy9pSh3fLt6u", "hT5rWq8zLm2nXc7vRk3dPy6sGb9fJw4e"
SECRETS = ([_A], [_A, _B], [_B, _A], [_B], [_B, _C], [_C, _B], [_C])
"""What one deploy after the other is configured with: a new secret comes last, then first, then the old one goes."""

_LAGS = (0.0, 0.0, 0.001, 0.01, 0.05, 0.3)
"""Seconds, one of which each step on the network takes."""


@dataclass(eq=False)
class Process:
    """A worker: an app with its own `Logto`."""

    number: int
    stage: int
    logto: Logto
    app: Starlette
    link: _Link | None
    wire: _Wire
    died: asyncio.Future[None]
    """Done when it was killed. What it still does then reaches nobody."""

    @property
    def dead(self) -> bool:
        """Whether it was killed."""
        return self.died.done()


@dataclass(eq=False)
class World:
    """Issuer, store, clock and processes. `refreshed` hears of each refresh request, see `_Wire`."""

    loop: JumpingLoop
    rotate: Any
    stored: bool
    on_refresh: Callable[[Any, Any], None]
    """Called with the refresh token that the issuer is asked with, before it looks, and its process."""
    on_lost: Callable[[Any], None]
    """Called with a refresh token that the issuer replaced in an answer that got lost."""
    issuer_down: bool = False
    store_down: bool = False
    lose_answers: int = 0
    lose_store_answers: int = 0
    troubled_at: float = float("-inf")
    """When the issuer or the store was last away, by the loop's time."""
    lags: random.Random | None = None
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    issued: dict[str, float] = field(default_factory=dict)
    """When an access token came of a refresh, by the loop's time."""

    def __post_init__(self) -> None:
        self.provider = DevelopmentProvider(
            clock=self.now,
            resources={API: ["read:items"], OTHER_API: ["read:stock"]},
            rotate=self.rotate,
            access_token_ttl=TTL,
            refresh_token_ttl=ABSOLUTE * 5 // 4,
            session_ttl=2 * ABSOLUTE,
        )
        self.store = MemoryStore(clock=self.loop.time)
        self.processes: list[Process] = []
        self.generation = 0

    def now(self) -> float:
        """Return the time of every clock, in seconds since 1970."""
        return START + self.loop.time()

    def config(self, secrets: list[str]) -> LogtoConfig:
        """Return the configuration of a process."""
        return development_config(
            self.provider,
            app_secret="hT5rWq8zLm2nXc7vB3kP",
            cookie_secret=secrets,
            resources=[API, OTHER_API],
            idle_lifetime=IDLE,
            absolute_lifetime=ABSOLUTE,
            roll_interval=ROLL,
            http_timeout=3.0,
        )

    def start_process(self, number: int, stage: int) -> Process:
        """Start a process, in the place of another one if there is one of this number."""
        config = self.config(SECRETS[stage])
        wire = _Wire(self)
        link = _Link(self) if self.stored else None
        client = httpx.AsyncClient(transport=wire)
        logto = Logto(config, store=link, http_client=client, clock=self.now)
        if link is not None:
            logto.sessions._store._clock = self.loop.time  # type: ignore[attr-defined] # the breaker's own clock
        process = Process(number, stage, logto, _app(self, logto), link, wire, self.loop.create_future())
        for end in (wire, link):
            if end is not None:
                end.died = process.died
        self.processes[number : number + 1] = [process]
        self.generation += 1
        return process

    async def lag(self) -> None:
        """Take the time that a step on the network takes."""
        await asyncio.sleep(0 if self.lags is None else self.lags.choice(_LAGS))

    def trouble(self) -> None:
        """Note that something is away at this moment."""
        self.troubled_at = self.loop.time()

    @property
    def in_trouble(self) -> bool:
        """Whether something is away now, or will be at the next request."""
        faulty = self.issuer_down or self.store_down or self.lose_answers or self.lose_store_answers
        return bool(faulty) or any(self.provider._faults._failures.values())

    @contextmanager
    def slow_network(self, seed: int) -> Iterator[None]:
        """Let each step on the network take some time by chance; seed 0 is a quick one."""
        self.lags = random.Random(seed) if seed else None
        try:
            yield
        finally:
            self.lags = None

    def grant_of(self, refresh_token: str | None) -> Any:
        """Return what the issuer knows of a refresh token."""
        return self.provider._core.storage.refresh_tokens.get(refresh_token or "")

    def is_spent(self, refresh_token: str | None) -> bool:
        """Tell whether the issuer has replaced a refresh token."""
        token = self.grant_of(refresh_token)
        return token is not None and token.consumed_at is not None


class _End:
    """One end of a process's connections: cut when it dies."""

    died: asyncio.Future[None]

    def __init__(self, world: World) -> None:
        self.world = world

    async def travel(self) -> None:
        await self.world.lag()
        if self.died.done():
            await asyncio.Event().wait()


class _Wire(_End, httpx.AsyncBaseTransport):
    """The way from a process to the issuer."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._issuer = httpx.ASGITransport(world.provider)
        self.under_way: list[Any] = []
        """Refresh tokens of requests that have left and are not answered."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        world, token = self.world, self._token_of(request)
        if token is not None:
            self.under_way.append(token)
        try:
            await self.travel()
            if world.issuer_down:
                world.trouble()
                raise httpx.ConnectError("away")
            if token is not None:
                world.on_refresh(token, self)
            answer = await self._issuer.handle_async_request(request)
            await answer.aread()
            if answer.status_code >= 500:
                world.trouble()
            elif token is not None and answer.status_code == 200:
                world.issued[answer.json()["access_token"]] = world.loop.time()
            await self.travel()
        finally:
            if token is not None and not self.died.done():
                self.under_way.remove(token)
        if world.lose_answers and token is not None:
            await self._lose(token)
        return answer

    async def _lose(self, token: Any) -> None:
        """Break the connection, or let it be silent for longer than anybody waits."""
        world = self.world
        world.lose_answers -= 1
        world.trouble()
        if token.consumed_at is not None:
            world.on_lost(token)
        if world.lags is not None and world.lags.random() < 0.5:
            try:
                await asyncio.sleep(60)
            finally:
                world.trouble()
        raise httpx.ReadError("broken")

    def _token_of(self, request: httpx.Request) -> Any:
        form = parse_qs(request.content.decode()) if request.url.path.endswith("/token") else {}
        return self.world.grant_of(form.get("refresh_token", [None])[0])


class _Link(_End):
    """The way from a process to the store that all share."""

    is_down = False

    async def _call(self, name: str, *args: Any, **fields: Any) -> Any:
        await self.travel()
        world = self.world
        if world.store_down or self.is_down:
            world.trouble()
            raise StoreUnavailable("away")
        answer = await getattr(world.store, name)(*args, **fields)
        await self.travel()
        if world.lose_store_answers:
            world.lose_store_answers -= 1
            world.trouble()
            raise StoreUnavailable("the answer was lost")
        return answer

    async def get(self, *args: Any, **fields: Any) -> Any:
        return await self._call("get", *args, **fields)

    async def set(self, *args: Any, **fields: Any) -> Any:
        return await self._call("set", *args, **fields)

    async def delete(self, *args: Any, **fields: Any) -> Any:
        return await self._call("delete", *args, **fields)

    async def lock(self, *args: Any, **fields: Any) -> Any:
        return await self._call("lock", *args, **fields)

    async def unlock(self, *args: Any, **fields: Any) -> Any:
        return await self._call("unlock", *args, **fields)

    async def find(self, *args: Any, **fields: Any) -> Any:
        return await self._call("find", *args, **fields)

    async def check(self) -> Any:
        return await self._call("check")

    async def aclose(self) -> Any:
        return None


def _app(world: World, logto: Logto) -> Starlette:
    async def public(request: Request) -> PlainTextResponse:
        return PlainTextResponse("ok")

    async def act(request: Request) -> JSONResponse:
        """Read the user, wait where the query says so, do something, and say who it was."""
        user: LogtoUser = request.state.user
        query = request.query_params
        seen = {"sub": user.identity or None}
        if "gate" in query:
            await world.gates[query["gate"]].wait()
        what = query.get("what")
        if what in ("api", "other", "opaque", "forced"):
            resource = {"other": OTHER_API, "opaque": None}.get(what, API)
            seen["token"] = await user.get_access_token(resource, force_refresh=what == "forced")
        elif what == "refresh":
            seen["sub"] = (await user.refresh()).sub
        return JSONResponse(seen)

    routes = [
        Route("/", act),
        Route("/public", public),
        Mount("/guarded", RequireAuthMiddleware(Starlette(routes=[Route("/", act)]), redirect=False)),
        *auth_routes(logto.config),
    ]
    app = Starlette(routes=routes)
    app.add_middleware(LogtoMiddleware, logto=logto)
    return app


def read_token(provider: DevelopmentProvider, value: str) -> dict[str, Any]:
    """Return sub, aud, iat and exp of an access token, opaque or not. Raise `AssertionError` for one of nobody."""
    opaque = provider._core.storage.access_tokens.get(value)
    if opaque is not None:
        return {"sub": opaque.grant.sub, "aud": None, "exp": opaque.expires_at, "iat": opaque.expires_at - TTL}
    claims = provider._core.keys.read(value)
    assert claims is not None, "this token is not the issuer's"
    return json.loads(json.dumps(claims))
