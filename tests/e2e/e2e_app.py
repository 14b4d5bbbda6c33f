"""The app that the browser visits, and the world around it: provider, address, configuration, a clock to turn.

The app is what a reader of the documentation would write; everything else is there to hold it.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from html import escape
from typing import Annotated, Any

import httpx
from e2e_provider import APP_ID, APP_SECRET, SHOP, Provider, client
from e2e_site import ReverseProxy, Site, Tls
from fastapi import Depends, FastAPI, Request, WebSocket
from fastapi.responses import HTMLResponse

from logto_asgi import Logto, LogtoConfig, LogtoMiddleware, LogtoUser
from logto_asgi.claims import UserInfo
from logto_asgi.fastapi import CurrentUser, SignedIn, access_token, auth_router, user_info

COOKIE_SECRET = "b7Jx0mQ2sV9wLr4TzK8yPn5cHd1fGu6aEi3oXqRtMvA"


@dataclass
class Clock:
    """The app's clock, which a test can turn on. The provider keeps the real one."""

    ahead: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@dataclass
class World:
    """Everything that a browser test stands on."""

    url: str
    provider: Provider
    config: LogtoConfig
    clock: Clock
    restart: Callable[[], None]
    """Serve the app anew at its address, as a new process that remembers nothing."""
    saved: list[str] = field(default_factory=list)

    @property
    def cookie_name(self) -> str:
        prefix = "__Host-" if self.config.secure else ""
        return f"{prefix}logto_{hashlib.sha256(APP_ID.encode()).hexdigest()[:12]}"


def build_app(logto: Logto, saved: list[str], http_client: httpx.AsyncClient | None = None) -> FastAPI:
    """Build the app. Its pages show who is there; none shows a token. It closes the HTTP client that is its own."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with http_client or contextlib.nullcontext():
            yield

    app = FastAPI(openapi_url=None, lifespan=lifespan)
    app.add_middleware(LogtoMiddleware, logto=logto)
    app.include_router(auth_router(logto.config))
    link = logto.config.url

    @app.get("/", response_class=HTMLResponse)
    async def home(request: Request) -> str:
        user: LogtoUser = request.state.user
        if user.is_authenticated:
            name = escape(user.claims.name or "")
            return _page(f"Hello, {name}", {"Profile": link("/profile"), "Sign out": link("/logto/sign-out")})
        return _page("Hello, stranger", {"Sign in": link("/logto/sign-in"), "Sign up": link("/logto/sign-up")})

    @app.get("/profile", response_class=HTMLResponse)
    async def profile(user: SignedIn) -> str:
        return _page(f"Profile of {escape(user.claims.name or '')}", {"Home": link("/")})

    @app.get("/token")
    async def token(token: Annotated[str, Depends(access_token(resource=SHOP))]) -> dict[str, str]:
        return {"fingerprint": hashlib.sha256(token.encode()).hexdigest()}

    @app.get("/info")
    async def info(info: Annotated[UserInfo, Depends(user_info)]) -> dict[str, Any]:
        return info.raw()

    @app.post("/save")
    async def save(user: SignedIn) -> dict[str, bool]:
        saved.append(user.claims.sub)
        return {"saved": True}

    @app.websocket("/socket")
    async def socket(websocket: WebSocket, user: CurrentUser) -> None:
        await websocket.accept()
        await websocket.send_text(user.claims.sub if user.is_authenticated else "nobody")
        await websocket.close()

    return app


def served_under(app: FastAPI, path: str) -> Any:
    """Return the app as a server serves it that knows its base path and does not strip it (ASGI: `root_path`)."""

    async def under(scope: Any, receive: Any, send: Any) -> None:
        await app(scope if scope["type"] == "lifespan" else {**scope, "root_path": path}, receive, send)

    return under


def _page(heading: str, links: dict[str, str]) -> str:
    items = "".join(f'<li><a href="{escape(url)}">{escape(label)}</a></li>' for label, url in links.items())
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Shop</title><link rel="icon" href="data:,">'
        f"</head><body><h1>{heading}</h1><ul>{items}</ul></body></html>"
    )


@dataclass
class Builder:
    """Puts a world together: addresses first, then the provider that must know them, then the app."""

    reserve: Callable[..., Site]
    start_provider: Callable[..., Provider]
    close_later: Callable[[Any], Any]

    def build(
        self,
        *,
        tls: Tls | None = None,
        base_path: str = "",
        proxy: str | None = None,
        root_path: str = "",
        metadata: dict[str, Any] | None = None,
        options: dict[str, Any] | None = None,
        **settings: Any,
    ) -> World:
        """Serve the app. A proxy in front may `"strip"` or `"keep"` the base path.

        `root_path` goes to uvicorn, `metadata` to the provider's client, `options` to `LogtoConfig`, `settings` to the
        provider.
        """
        inside = self.reserve(tls=None if proxy else tls)
        outside = self.reserve(tls=tls) if proxy else inside
        url = outside.url + base_path
        provider = self.start_provider(clients=[client(url, **(metadata or {}))], tls=tls, **settings)
        config = LogtoConfig(
            endpoint=provider.endpoint,
            app_id=APP_ID,
            app_secret=APP_SECRET,
            base_url=url,
            cookie_secret=COOKIE_SECRET,
            **{"scopes": ("email", "read:items"), "resources": (SHOP,)} | (options or {}),
        )
        clock, saved = Clock(), list[str]()
        serving: list[Any] = []

        def serve() -> None:
            if serving:
                serving.pop().__exit__(None, None, None)
            http_client = _trusting(tls)
            app = build_app(Logto(config, http_client=http_client, clock=clock), saved, http_client)
            running = inside.serve(served_under(app, base_path) if proxy == "keep" else app, root_path=root_path)
            running.__enter__()
            serving.append(running)

        serve()
        self.close_later(lambda: serving.pop().__exit__(None, None, None))
        if proxy:
            front = outside.serve(ReverseProxy(inside.url, base_path=base_path, strip=proxy == "strip"))
            front.__enter__()
            self.close_later(lambda: front.__exit__(None, None, None))
        return World(url, provider, config, clock, serve, saved)


def _trusting(tls: Tls | None) -> httpx.AsyncClient | None:
    return httpx.AsyncClient(verify=tls.context(), trust_env=False) if tls else None
