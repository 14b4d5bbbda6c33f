"""For an app's own tests: a configuration and a browser's manners, with the development provider in the same process.

No socket is opened: requests to the provider's address go to the provider, all others to the app.
"""

from __future__ import annotations

import secrets
from typing import Any, Unpack

import httpx
from starlette.types import ASGIApp

from logto_asgi.config import ConfigArguments, LogtoConfig
from logto_asgi.testing.clients import Client
from logto_asgi.testing.provider import DevelopmentProvider

__all__ = ["Visitor", "development_config", "issuer_client"]

NAVIGATION = {
    "Accept": "text/html,application/xhtml+xml",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Site": "none",
    "Sec-Fetch-User": "?1",
}
"""What a browser sends with an address that was typed."""


def development_config(provider: DevelopmentProvider, **settings: Unpack[ConfigArguments]) -> LogtoConfig:
    """Return a configuration that fits the provider, and register the app there.

    Everything has a default for tests: `app_id="app"`, `base_url="http://localhost:8000"`, a secret of its own.
    """
    chosen: ConfigArguments = {
        "endpoint": provider.endpoint,
        "app_id": "app",
        "app_secret": secrets.token_urlsafe(24),
        "base_url": "http://localhost:8000",
        "cookie_secret": secrets.token_urlsafe(32),
    }
    chosen.update(settings)
    config = LogtoConfig(**chosen)
    provider.add_client(
        Client(
            app_id=config.app_id,
            app_secret=config.app_secret.get_secret_value() if config.app_secret else None,
            redirect_uris=[config.redirect_uri],
            post_logout_redirect_uris=[config.url(config.post_sign_out_path)],
        )
    )
    return config


def issuer_client(provider: DevelopmentProvider) -> httpx.AsyncClient:
    """Return an HTTP client that reaches the provider without a network: `Logto(config, http_client=…)`."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(provider))


def check_user(provider: DevelopmentProvider, sub: str) -> None:
    """Raise `ValueError`, which names the users, for one that the provider does not have."""
    known = [user.sub for user in provider.users]
    if sub not in known:
        raise ValueError(f"The development provider has no user {sub!r}. It has: {', '.join(known)}.")


class Visitor(httpx.AsyncClient):
    """A browser in a test: keeps cookies, follows redirects between the app and the provider.

    `get`, `post` and so on speak as a program does; `navigate` as an address bar.
    """

    def __init__(self, app: ASGIApp, provider: DevelopmentProvider, *, config: LogtoConfig, **options: Any) -> None:
        self._provider = provider
        self._config = config
        super().__init__(
            transport=httpx.ASGITransport(app, root_path=options.pop("root_path", "")),
            mounts={f"all://{httpx.URL(provider.issuer).netloc.decode()}": httpx.ASGITransport(provider)},
            base_url=config.base_url,
            **options,
        )

    async def navigate(self, path: str, **options: Any) -> httpx.Response:
        """Open a path or address as a browser does, and follow where it leads."""
        headers = {**NAVIGATION, **options.pop("headers", {})}
        return await self.get(path, headers=headers, **{"follow_redirects": True, **options})

    async def sign_in(self, sub: str = "alice", *, return_to: str = "/", path: str | None = None) -> httpx.Response:
        """Sign in as a demo user and return the page that the visitor ends on. `path`: where to start instead."""
        start = path or str(httpx.URL(self._config.auth_url("sign-in"), params={"return_to": return_to}))
        return await self.choose(await self.navigate(start), sub)

    async def choose(self, page: httpx.Response, sub: str = "alice") -> httpx.Response:
        """Click on a demo user, if `page` is the provider's sign-in page; return the page that follows."""
        if not str(page.url).startswith(f"{self._provider.issuer}/interaction/"):
            return page
        check_user(self._provider, sub)
        return await self.post(page.url, data={"sub": sub}, headers=NAVIGATION, follow_redirects=True)

    async def sign_out(self) -> httpx.Response:
        """Click on a link to sign-out and return the page that the visitor ends on."""
        return await self.navigate(self._config.auth_url("sign-out"), headers={"Sec-Fetch-Site": "same-origin"})
