"""The apps that are compared, and the sessions that their browsers hold. Measures nothing.

All of them serve `GET /` with the same few bytes, so what differs between two of them is the layer under test.
"""

from __future__ import annotations

import json
import secrets
import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import repeat
from types import MappingProxyType
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.responses import PlainTextResponse
from itsdangerous import TimestampSigner
from starlette.middleware.sessions import SessionMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from logto_asgi import Logto, LogtoConfig, LogtoMiddleware
from logto_asgi.claims import IdTokenClaims
from logto_asgi.fastapi import SignedIn, access_token, auth_router
from logto_asgi.models import AccessToken, Session
from logto_asgi.session.serialization import dump_access_token, dump_session

__all__ = ["API", "SECRET", "Variant", "app_of", "bare_app", "fake_token", "new_session", "sizes", "variants"]

API = "https://shopping.example.com/api"
SECRET = secrets.token_urlsafe(40)
NAME = "Ada Lovelace"
OTHER_COOKIES = "theme=dark; _ga=GA1.2.1234567890.1700000000"
HEADERS = [
    (b"host", b"shop.example.com"),
    (b"connection", b"keep-alive"),
    (b"sec-ch-ua", b'"Chromium";v="140", "Not=A?Brand";v="24"'),
    (b"sec-ch-ua-mobile", b"?0"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0"),
    (b"accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    (b"sec-fetch-site", b"none"),
    (b"sec-fetch-mode", b"navigate"),
    (b"sec-fetch-user", b"?1"),
    (b"sec-fetch-dest", b"document"),
    (b"accept-encoding", b"gzip, deflate, br, zstd"),
    (b"accept-language", b"en-GB,en;q=0.9"),
]


@dataclass(frozen=True)
class Variant:
    """An app, and the `Cookie` header of each request to it."""

    app: ASGIApp
    cookies: Iterator[str]

    def scopes(self, count: int) -> list[Scope]:
        """Return fresh scopes as uvicorn makes them."""
        return [_scope(next(self.cookies)) for _ in range(count)]


def variants(browsers: int) -> dict[str, Variant]:
    """Return all variants by name. A variant of new browsers has cookies for `browsers` requests."""
    config = LogtoConfig(
        endpoint="https://tenant.logto.app",
        app_id="k2v5mq0d8w1r7tz3xc9bn",
        app_secret=secrets.token_urlsafe(24),
        base_url="https://shop.example.com",
        cookie_secret=SECRET,
        resources=[API],
    )
    logto = Logto(config)
    known = repeat(_our_cookie(logto, new_session(config)))
    nobody = repeat("")
    fresh = (_our_cookie(logto, new_session(config)) for _ in range(browsers))
    return {
        "bare": Variant(bare_app(), nobody),
        "no-op Depends": Variant(_app(_hello_after_nothing), nobody),
        "no-op middleware": Variant(_app(_is_nobody, _NoOpMiddleware), nobody),
        "SessionMiddleware": Variant(_session_app(), repeat(_starlettes_cookie(new_session(config)))),
        "anonymous": Variant(_our_app(logto, _is_anybody), nobody),
        "signed in": Variant(_our_app(logto, _name), known),
        "signed in, router first": Variant(_our_app(logto, _name, router_first=True), known),
        "require_auth": Variant(_our_app(logto, _name_of_guarded), known),
        "access_token": Variant(_our_app(logto, _with_token), known),
        "SessionMiddleware, new browser": Variant(
            _session_app(), iter([_starlettes_cookie(new_session(config)) for _ in range(browsers)])
        ),
        "signed in, new browser": Variant(_our_app(Logto(config), _name), iter(list(fresh))),
    }


def sizes() -> dict[str, int]:
    """Return how many characters the two session cookies' values have."""
    config = LogtoConfig(
        endpoint="https://tenant.logto.app",
        app_id="k2v5mq0d8w1r7tz3xc9bn",
        base_url="https://shop.example.com",
        cookie_secret=SECRET,
        resources=[API],
    )
    session = new_session(config)
    pairs = {"ours": _our_cookie(Logto(config), session), "SessionMiddleware": _starlettes_cookie(session)}
    return {name: len(pair.partition("=")[2]) for name, pair in pairs.items()}


# -- Endpoints: each returns the same bytes ----------------------------------------------------------------------------


async def _hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse(NAME)


async def _nothing() -> None:
    return None


async def _hello_after_nothing(request: Request, nothing: None = Depends(_nothing)) -> PlainTextResponse:
    return PlainTextResponse(NAME)


async def _name_in_session(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.session["c"]["name"])


async def _is_nobody(request: Request) -> PlainTextResponse:
    return PlainTextResponse("Somebody" if request.state.user else NAME)


async def _is_anybody(request: Request) -> PlainTextResponse:
    return PlainTextResponse("Somebody" if request.state.user.is_authenticated else NAME)


async def _name(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.state.user.claims.name)


async def _name_of_guarded(request: Request, user: SignedIn) -> PlainTextResponse:
    return PlainTextResponse(user.claims.name or "")


async def _with_token(request: Request, token: str = Depends(access_token(resource=API))) -> PlainTextResponse:
    return PlainTextResponse(NAME)


# -- Apps --------------------------------------------------------------------------------------------------------------


class _NoOpMiddleware:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["state"]["user"] = None
        await self.app(scope, receive, send)


def _app(endpoint: Callable[..., Any], middleware: Any = None, **options: Any) -> FastAPI:
    app = FastAPI()
    if middleware is not None:
        app.add_middleware(middleware, **options)
    app.get("/", response_model=None)(endpoint)
    return app


def bare_app() -> FastAPI:
    """Return the app that all others are compared with."""
    return _app(_hello)


def app_of(logto: Logto) -> FastAPI:
    """Return an app that greets a signed-in user."""
    return _our_app(logto, _name)


def _session_app() -> FastAPI:
    return _app(_name_in_session, SessionMiddleware, secret_key=SECRET, https_only=True)


def _our_app(logto: Logto, endpoint: Callable[..., Any], *, router_first: bool = False) -> FastAPI:
    """Return an app with the library. `router_first`: its four routes are tried before the endpoint's, as any are."""
    app = FastAPI()
    app.add_middleware(LogtoMiddleware, logto=logto)
    if router_first:
        app.include_router(auth_router(logto.config))
    app.get("/", response_model=None)(endpoint)
    if not router_first:
        app.include_router(auth_router(logto.config))
    return app


# -- Sessions ----------------------------------------------------------------------------------------------------------


def new_session(config: LogtoConfig) -> Session:
    """Return a session as a sign-in and one call for a resource token leave it."""
    now = int(time.time())
    claims = {
        "sub": secrets.token_hex(6),
        "name": NAME,
        "username": "ada",
        "email": "ada.lovelace@example.com",
        "email_verified": True,
        "created_at": now * 1000,
        "updated_at": now * 1000,
        "aud": config.app_id,
        "iss": config.issuer,
        "exp": now + 3600,
        "iat": now,
    }
    token = AccessToken(fake_token(config, now), now + 3600, ("read:items",), API, issued_at=now, used_at=now)
    return Session(
        id=secrets.token_urlsafe(32),
        version=1,
        created_at=now,
        sealed_at=now,
        claims=IdTokenClaims.parse(claims),
        scopes=("openid", "offline_access", "profile", "email"),
        refresh_token=secrets.token_urlsafe(32),
        access_tokens=MappingProxyType({token.key: token}),
    )


def fake_token(config: LogtoConfig, now: int) -> str:
    """Return what looks like an access token of Logto; nobody verifies it here."""
    header = {"alg": "ES384", "typ": "at+jwt", "kid": secrets.token_urlsafe(32)}
    payload = {
        "jti": secrets.token_urlsafe(16),
        "sub": secrets.token_hex(6),
        "iat": now,
        "exp": now + 3600,
        "scope": "read:items",
        "client_id": config.app_id,
        "iss": config.issuer,
        "aud": API,
    }
    texts = [json.dumps(part, separators=(",", ":")) for part in (header, payload)]
    return ".".join(
        [*(urlsafe_b64encode(text.encode()).decode().rstrip("=") for text in texts), secrets.token_urlsafe(96)]
    )


def _our_cookie(logto: Logto, session: Session) -> str:
    loaded = logto.sessions.load([])
    loaded.session = session
    (line,) = logto.sessions.headers_to_send(loaded, may_roll=True)
    return line.partition(";")[0]


def _starlettes_cookie(session: Session) -> str:
    tokens = [dump_access_token(token) for token in session.access_tokens.values()]
    data = b64encode(json.dumps(dump_session(session, tokens)).encode())
    return f"session={TimestampSigner(SECRET).sign(data).decode()}"


def _scope(cookie: str) -> Scope:
    cookies = f"{OTHER_COOKIES}; {cookie}" if cookie else OTHER_COOKIES
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50000),
        "scheme": "https",
        "method": "GET",
        "root_path": "",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "headers": [*HEADERS, (b"cookie", cookies.encode())],
        "state": {},
    }
