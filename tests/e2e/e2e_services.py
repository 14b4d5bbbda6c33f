"""Two services that the end-to-end tests of APIs stand on: a shop with sign-in, and a stock that takes tokens only.

They are what readers of the documentation would write; the rest puts them on sockets, with a provider that knows them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import httpx
from e2e_app import COOKIE_SECRET, Clock
from e2e_provider import APP_ID, APP_SECRET, PARTS, STOCK, TOKEN_EXCHANGE, Provider, client, machine
from e2e_site import Site
from fastapi import Depends, FastAPI, WebSocket
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import HTMLResponse

from logto_asgi import AccessTokenClaims, Logto, LogtoConfig, LogtoMiddleware, LogtoUser
from logto_asgi.fastapi import SignedIn, auth_router, bearer_token, require_auth
from logto_asgi.httpx import LogtoUserAuth

ROBOT = "the-robot"
ANYBODY = "an-app-whose-tokens-the-tests-hold"
ELSEWHERE = "http://127.0.0.1:9"
LIVES = 24 * 3600
"""Seconds: tokens outlive the keys that a service keeps."""


@dataclass
class Services:
    """Both services, their provider, and the clock of each."""

    shop: str
    stock: str
    provider: Provider
    shop_clock: Clock
    stock_clock: Clock
    stock_logto: Logto


def build_stock(logto: Logto, *, pages: str, own_url: str) -> FastAPI:
    """Build the API. Pages of one origin may call it too."""
    app = FastAPI()
    app.add_middleware(LogtoMiddleware, logto=logto)
    app.add_middleware(CORSMiddleware, allow_origins=[pages], allow_headers=["Authorization"])

    @app.get("/items")
    async def items(token: Annotated[AccessTokenClaims, Depends(bearer_token(scopes=["read:stock"]))]) -> list[str]:
        return [token.sub, token.client_id]

    @app.get("/count")
    async def count(
        token: Annotated[AccessTokenClaims, Depends(bearer_token(scopes=["read:stock"], machines="only"))],
    ) -> str:
        return token.sub

    @app.get("/told")
    async def told(
        token: Annotated[AccessTokenClaims, Depends(bearer_token(opaque=True, clients=[ANYBODY]))],
    ) -> str:
        return token.sub

    @app.get("/with-parts")
    async def with_parts(user: Annotated[LogtoUser, Depends(require_auth(accept="bearer"))]) -> Any:
        async with httpx.AsyncClient(base_url=own_url, trust_env=False) as http:
            answer = await http.get("/parts", auth=LogtoUserAuth(user, PARTS, origins=[own_url]))
        return answer.raise_for_status().json()

    @app.get("/parts")
    async def parts(
        token: Annotated[AccessTokenClaims, Depends(bearer_token(resource=PARTS, scopes=["read:parts"]))],
    ) -> list[str]:
        return [token.sub, token.client_id]

    @app.websocket("/live")
    async def live(
        websocket: WebSocket, token: Annotated[AccessTokenClaims, Depends(bearer_token(scopes=["read:stock"]))]
    ) -> None:
        await websocket.accept()
        await websocket.send_text(token.sub)
        await websocket.close()

    return app


def build_shop(logto: Logto, stock: str) -> FastAPI:
    """Build the site, which asks the stock in its users' names."""
    app = FastAPI()
    app.add_middleware(LogtoMiddleware, logto=logto)
    app.include_router(auth_router(logto.config))

    @app.get("/", response_class=HTMLResponse)
    async def home() -> str:
        return '<!doctype html><title>Shop</title><link rel="icon" href="data:,"><h1>Shop</h1>'

    @app.get("/items")
    async def items(user: SignedIn) -> Any:
        async with httpx.AsyncClient(base_url=stock, trust_env=False) as http:
            answer = await http.get("/items", auth=LogtoUserAuth(user, STOCK, origins=[stock]))
        return answer.raise_for_status().json()

    @app.get("/api/me")
    @app.post("/api/me")
    async def me(user: Annotated[LogtoUser, Depends(require_auth(accept=("session", "bearer")))]) -> list[str]:
        return [user.identity, "session" if user.bearer is None else "bearer"]

    @app.get("/payout", response_class=HTMLResponse)
    async def payout(user: Annotated[LogtoUser, Depends(require_auth(max_age=300))]) -> str:
        return f"<!doctype html><title>Payout</title><h1>Payout of {user.identity}</h1>"

    return app


@dataclass
class Opener:
    """Puts the services together: addresses first, then the provider that must know them, then the apps."""

    reserve: Callable[..., Site]
    start_provider: Callable[..., Provider]
    serve: Callable[..., str]

    def open(self, **settings: Any) -> Services:
        """Serve both. `settings` go to the provider."""
        shop, stock = self.reserve(), self.reserve()
        provider = self.start_provider(clients=_apps(shop.url), **{"ACCESS_TOKEN_TTL": LIVES, **settings})
        clocks = Clock(), Clock()
        logto = Logto(_stock_config(provider, stock.url), clock=clocks[1])
        self.serve(build_stock(logto, pages=shop.url, own_url=stock.url), site=stock)
        self.serve(build_shop(Logto(_shop_config(provider, shop.url), clock=clocks[0]), stock.url), site=shop)
        return Services(shop.url, stock.url, provider, *clocks, logto)


def _apps(shop: str) -> list[dict[str, Any]]:
    return [
        client(shop),
        client(ELSEWHERE, client_id=ANYBODY),
        machine(ROBOT, {STOCK: "read:stock"}),
        machine("the-stock", {}, grant_types=[TOKEN_EXCHANGE]),
    ]


def _shop_config(provider: Provider, url: str) -> LogtoConfig:
    return LogtoConfig(
        endpoint=provider.endpoint,
        app_id=APP_ID,
        app_secret=APP_SECRET,
        base_url=url,
        cookie_secret=COOKIE_SECRET,
        api_resource="https://shop.example.com/api",
        resources=[STOCK],
        scopes=["read:stock"],
        browser_token_resources=[STOCK],
    )


def _stock_config(provider: Provider, url: str) -> LogtoConfig:
    return LogtoConfig.without_sign_in(
        endpoint=provider.endpoint,
        base_url=url,
        api_resource=STOCK,
        app_id="the-stock",
        app_secret=APP_SECRET,
        scopes=["read:parts"],
    )
