"""A clock, configurations, sessions and a small cookie jar for the tests of sessions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Coroutine
from dataclasses import replace
from types import MappingProxyType
from typing import Any, TypeVar

import pytest

from logto_asgi.claims import IdTokenClaims
from logto_asgi.config import LogtoConfig
from logto_asgi.models import AccessToken, PendingSignIn, Session
from logto_asgi.session.in_cookie.backend import CookieBackend, Loaded

START = 1_700_000_000
T = TypeVar("T")
SECRET = "qPz2mW7tKx9dLr4vHs8bYn3cJf6gTu1a"
OTHER_SECRET = "Zk5rQe8wNi2xVo7cBm4jDy9pSh3fLt6u"


class Clock:
    """Seconds since 1970 that only a test moves."""

    def __init__(self) -> None:
        self.now = float(START)

    def __call__(self) -> float:
        return self.now


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """Run what waits for nothing, as all that a cookie backend does; so tests need no event loop for it."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits for something")


class Browser:
    """A cookie jar for one host: stores what `Set-Cookie` says, deletes at Max-Age 0, refuses what is too long."""

    def __init__(self, **cookies: str) -> None:
        self.cookies: dict[str, str] = dict(cookies)

    def receive(self, lines: list[str]) -> None:
        for line in lines:
            assert len(line) < 4096
            pair, *attributes = line.split("; ")
            name, _, value = pair.partition("=")
            if "Max-Age=0" in attributes:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value

    @property
    def header(self) -> str:
        return "; ".join(f"{name}={value}" for name, value in self.cookies.items())

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        return [(b"host", b"app.example.com"), (b"cookie", self.header.encode("latin-1"))]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make_config() -> Callable[..., LogtoConfig]:
    def make(**arguments: Any) -> LogtoConfig:
        given: dict[str, Any] = {
            "endpoint": "https://tenant.logto.app",
            "app_id": "app_1",
            "app_secret": "hT5rWq8zLm2nXc7v",
            "base_url": "https://app.example.com",
            "cookie_secret": SECRET,
        }
        return LogtoConfig(**{**given, **arguments})

    return make


@pytest.fixture
def config(make_config: Callable[..., LogtoConfig]) -> LogtoConfig:
    return make_config()


@pytest.fixture
def backend(config: LogtoConfig, clock: Clock) -> CookieBackend:
    return CookieBackend(config, clock=clock)


@pytest.fixture
def make_session() -> Callable[..., Session]:
    numbers = itertools.count(1)

    def make(*, padding: int = 0, tokens: int = 0, token_size: int = 900, **fields: Any) -> Session:
        number = next(numbers)
        claims: dict[str, Any] = {
            "iss": "https://tenant.logto.app/oidc",
            "aud": "app_1",
            "sub": f"user_{number}",
            "exp": START + 3600,
            "iat": START,
            "name": "Ada Ĺovelace",
        }
        if padding:
            claims["padding"] = "p" * padding
        given = [
            AccessToken(
                value=f"{index}" * token_size, expires_at=START + 3600, resource=f"https://{index}.api", used_at=index
            )
            for index in range(tokens)
        ]
        session = Session(
            id=f"session_{number}".ljust(43, "_"),
            version=1,
            created_at=START,
            sealed_at=START,
            claims=IdTokenClaims.parse(claims),
            scopes=("openid", "profile"),
            refresh_token=f"refresh_{number}_1",
            access_tokens=MappingProxyType({token.key: token for token in given}),
        )
        return replace(session, **fields)

    return make


@pytest.fixture
def sign_in() -> Callable[..., Loaded]:
    """Write a session to a browser as the response of a sign-in does."""

    def write(backend: CookieBackend, browser: Browser, session: Session) -> Loaded:
        loaded = backend.load(browser.headers)
        at_once(backend.start(session))
        loaded.session = session
        browser.receive(backend.headers_to_send(loaded, may_roll=True))
        return loaded

    return write


@pytest.fixture
def browser() -> Browser:
    return Browser()


@pytest.fixture
def make_browser() -> type[Browser]:
    return Browser


@pytest.fixture
def make_pending(config: LogtoConfig) -> Callable[..., PendingSignIn]:
    def make(state: str = "state", **fields: Any) -> PendingSignIn:
        pending = PendingSignIn(
            state=state,
            nonce="nonce",
            code_verifier="verifier",
            redirect_uri=config.redirect_uri,
            return_to="/cart",
            created_at=START,
        )
        return replace(pending, **fields)

    return make
