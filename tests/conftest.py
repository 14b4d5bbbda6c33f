"""A whole site in one process: the development provider, an app with everything in it, and a visitor."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request, WebSocket

from logto_asgi import Event, Logto, LogtoConfig, LogtoMiddleware, LogtoUser, PublicUser, SessionStore, UserInfo
from logto_asgi.fastapi import CurrentUser, SignedIn, access_token, auth_router, require_auth, user_info
from logto_asgi.testing import Clock, DevelopmentProvider, Visitor, development_config, issuer_client

API = "https://shopping.example.com/api"
OTHER_API = "https://store.example.com/api"


@dataclass
class Site:
    """Everything that a test may want to look at."""

    clock: Clock
    provider: DevelopmentProvider
    config: LogtoConfig
    logto: Logto
    app: FastAPI
    visitors: AsyncExitStack = field(repr=False)
    store: SessionStore | None = None

    async def visitor(self, **options: Any) -> Visitor:
        """Return a browser without cookies."""
        return await self.visitors.enter_async_context(Visitor(self.app, self.provider, config=self.config, **options))

    def refreshes(self) -> int:
        """Return how often the provider's token endpoint was asked to refresh."""
        return self.provider.requests.count("token", "refresh_token")


def build_app(logto: Logto) -> FastAPI:
    """Return an app that uses each way to read the user."""
    app = FastAPI()
    app.add_middleware(LogtoMiddleware, logto=logto)
    app.include_router(auth_router(logto.config))

    @app.get("/")
    async def home(request: Request) -> dict[str, Any]:
        user: LogtoUser = request.state.user
        return {"sub": user.claims.sub if user.is_authenticated else None}

    @app.get("/untouched")
    async def untouched() -> str:
        return "ok"

    @app.get("/me")
    async def me(user: SignedIn) -> PublicUser:
        return user.public()

    @app.post("/me")
    async def change(user: SignedIn) -> dict[str, str]:
        return {"sub": user.identity}

    @app.get("/sync")
    def in_a_thread(user: SignedIn) -> dict[str, str]:
        return {"sub": user.identity}

    @app.get("/maybe")
    async def maybe(user: CurrentUser) -> bool:
        return user.is_authenticated

    @app.get("/program")
    async def program(user: Annotated[LogtoUser, Depends(require_auth(redirect=False))]) -> str:
        return user.identity

    @app.get("/always")
    async def always(user: Annotated[LogtoUser, Depends(require_auth(redirect=True))]) -> str:
        return user.identity

    @app.get("/token")
    async def token(value: Annotated[str, Depends(access_token(resource=API))]) -> str:
        return value

    @app.get("/other-token")
    async def other_token(value: Annotated[str, Depends(access_token(resource=OTHER_API))]) -> str:
        return value

    @app.get("/opaque-token")
    async def opaque_token(value: Annotated[str, Depends(access_token())]) -> str:
        return value

    @app.get("/info")
    async def info(value: Annotated[UserInfo, Depends(user_info)]) -> UserInfo:
        return value

    @app.websocket("/ws")
    async def ws(websocket: WebSocket, user: CurrentUser) -> None:
        await websocket.accept()
        await websocket.send_json({"sub": user.identity})
        await websocket.close()

    @app.websocket("/ws-guarded")
    async def ws_guarded(websocket: WebSocket, user: SignedIn) -> None:
        await websocket.accept()
        await websocket.send_json({"sub": user.identity})
        await websocket.close()

    return app


MakeSite = Callable[..., Site]


@pytest.fixture
async def make_site() -> AsyncIterator[MakeSite]:
    """Return a function that builds a site.

    `provider` holds options of the provider, `app` builds the app, `store` keeps the sessions, `on_event` hears of
    them; the rest is configuration.
    """
    async with AsyncExitStack() as visitors:

        def make(
            provider: dict[str, Any] | None = None,
            app: Callable[[Logto], FastAPI] = build_app,
            store: SessionStore | None = None,
            on_event: Callable[[Event], None] | None = None,
            **settings: Any,
        ) -> Site:
            clock = Clock(1_800_000_000.0)
            resources = {API: ["read:items"], OTHER_API: ["read:stock"]}
            development = DevelopmentProvider(clock=clock, **{"resources": resources, **(provider or {})})
            config = development_config(development, **{"resources": [API, OTHER_API], **settings})
            client = issuer_client(development)
            logto = Logto(config, store=store, on_event=on_event, http_client=client, clock=clock)
            return Site(clock, development, config, logto, app(logto), visitors, store)

        yield make


@pytest.fixture
def site(make_site: MakeSite) -> Site:
    """Return a site with the default settings."""
    return make_site()
