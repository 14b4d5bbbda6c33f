"""A whole sign-in through the development provider: CPU time of the app and its OpenID Connect client.

The app's two requests (`/logto/sign-in` and the call-back) are called directly. The call-back's token request reaches
the provider in the same process; what is spent inside of the provider is subtracted. Discovery and keys were fetched
before, as in an app that runs. Sockets and TLS do not take part.
"""

from __future__ import annotations

import logging
import time
from statistics import median
from urllib.parse import parse_qsl, urlsplit

import httpx
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from logto_asgi import Logto, LogtoConfig, LogtoMiddleware
from logto_asgi.fastapi import auth_router
from logto_asgi.testing import DevelopmentProvider
from logto_asgi.testing.visitor import NAVIGATION, development_config

__all__ = ["sign_in_milliseconds"]


class _Excluded:
    """An app that notes how much CPU time was spent in it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.spent = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = time.process_time()
        try:
            await self._app(scope, receive, send)
        finally:
            self.spent += time.process_time() - start


async def sign_in_milliseconds(count: int) -> float:
    """Return the median of `count` sign-ins, each of a browser without cookies."""
    logging.getLogger("logto_asgi.testing").setLevel(logging.ERROR)  # The provider warns that it is no real one.
    provider = DevelopmentProvider()
    config = development_config(provider)
    excluded = _Excluded(provider)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(excluded)) as client:
        app = FastAPI()
        app.add_middleware(LogtoMiddleware, logto=Logto(config, http_client=client))
        app.include_router(auth_router(config))
        for _ in range(3):
            await _sign_in(app, config, excluded)
        return median([await _sign_in(app, config, excluded) for _ in range(count)])


async def _sign_in(app: ASGIApp, config: LogtoConfig, provider: _Excluded) -> float:
    start = config.auth_url("sign-in")
    first, location, cookies = await _timed(app, start, "", provider)
    callback = await _through_the_provider(location, provider)
    second, location, cookies = await _timed(app, callback, cookies[0], provider)
    if location != config.url("/") or not any(_holds_session(cookie) for cookie in cookies):
        raise RuntimeError(f"the sign-in ended at {location} with {len(cookies)} cookies")
    return first + second


def _holds_session(cookie: str) -> bool:
    return cookie.partition("=")[2].startswith("c1.")


async def _timed(app: ASGIApp, url: str, cookie: str, provider: _Excluded) -> tuple[float, str, list[str]]:
    """Call the app. Return milliseconds without the provider's, where it redirects to, and the cookies that it sets."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope = _scope(url, cookie)
    before = provider.spent
    start = time.process_time()
    await app(scope, _receive, send)
    taken = time.process_time() - start - (provider.spent - before)
    headers = [(name.lower(), value.decode("latin-1")) for name, value in sent[0]["headers"]]
    locations = [value for name, value in headers if name == b"location"]
    if not locations:
        raise RuntimeError(f"no redirect from {url}: {sent}")
    return taken * 1e3, locations[0], [v.partition(";")[0] for n, v in headers if n == b"set-cookie"]


async def _through_the_provider(url: str, provider: ASGIApp) -> str:
    """Choose a user on the provider's page, as a browser would. Return the address of the call-back."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(provider), headers=NAVIGATION) as browser:
        page = await browser.get(url, follow_redirects=True)
        answer = await browser.post(page.url, data={"sub": "alice"})
        while "code" not in dict(parse_qsl(urlsplit(answer.headers["location"]).query)):
            answer = await browser.get(answer.headers["location"])
        return answer.headers["location"]


def _scope(url: str, cookie: str) -> Scope:
    parts = urlsplit(url)
    headers = [(b"host", parts.netloc.encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in NAVIGATION.items()]
    if cookie:
        headers.append((b"cookie", cookie.encode()))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": (parts.hostname, parts.port),
        "client": ("127.0.0.1", 50000),
        "scheme": parts.scheme,
        "method": "GET",
        "root_path": "",
        "path": parts.path,
        "raw_path": parts.path.encode(),
        "query_string": parts.query.encode(),
        "headers": headers,
        "state": {},
    }


async def _receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}
