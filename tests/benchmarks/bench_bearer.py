"""What a caller's access token costs: seen before, never seen, and in memory. The issuer answers in this process.

A token that nobody has seen is compared with joserfc's bare `jwt.decode` of the very same token, in turns.
"""

from __future__ import annotations

import gc
import json
import secrets
import time
import tracemalloc
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from itertools import repeat
from statistics import median
from typing import Any

import httpx
from bench_apps import API, Variant
from bench_rounds import Rounds, measure
from fastapi import Depends, FastAPI, Request
from fastapi.responses import PlainTextResponse
from joserfc import jwt
from joserfc.jwa import JWS_ALGORITHMS
from joserfc.jwk import ECKey, RSAKey
from starlette.types import Scope

from logto_asgi import Logto, LogtoConfig, LogtoMiddleware
from logto_asgi.claims import AccessTokenClaims
from logto_asgi.fastapi import bearer_token, require_auth

__all__ = ["CALLER", "Unseen", "bearer_rounds", "bytes_per_token", "unseen_tokens"]

CALLER = "no-op Depends, caller"
"""The row that a known token is compared with: the same request, and nobody looks at its token."""
ENDPOINT = "https://tenant.logto.app"
ISSUER = f"{ENDPOINT}/oidc"
NAME = "Ada Lovelace"
KEYS: dict[str, Any] = {
    "ES384": ECKey.generate_key("P-384", {"kid": secrets.token_urlsafe(32), "alg": "ES384", "use": "sig"}),
    "RS256": RSAKey.generate_key(2048, {"kid": secrets.token_urlsafe(32), "use": "sig"}),
}


# -- A token seen before -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Caller(Variant):
    token: str

    def scopes(self, count: int) -> list[Scope]:
        header = (b"authorization", b"Bearer " + self.token.encode())
        scopes = super().scopes(count)
        for scope in scopes:
            scope["headers"] = [each for each in scope["headers"] if each[0] != b"cookie"] + [header]
        return scopes


async def bearer_rounds(*, rounds: int, requests: int) -> Rounds:
    """Measure a guard that knows the token, against a dependency that does nothing, for the same request."""
    token = _access_token("ES384", 900)
    variants = {
        CALLER: _no_op_app(),
        "bearer_token": _app(Depends(bearer_token(resource=API))),
        "bearer_token, scopes": _app(Depends(bearer_token(resource=API, scopes=["read:items"]))),
        "require_auth, by bearer": _app(Depends(require_auth(resource=API, accept=("session", "bearer")))),
    }
    callers: dict[str, Variant] = {name: _Caller(app, repeat(""), token) for name, app in variants.items()}
    return await measure(callers, rounds=rounds, requests=requests)


def _no_op_app() -> FastAPI:
    app = FastAPI()

    async def nothing() -> None:
        return None

    @app.get("/", response_model=None)
    async def hello(request: Request, nothing: None = Depends(nothing)) -> PlainTextResponse:
        return PlainTextResponse(NAME)

    return app


def _app(guard: Any) -> FastAPI:
    app = FastAPI()
    app.add_middleware(LogtoMiddleware, logto=_logto())

    @app.get("/", response_model=None)
    async def hello(request: Request, caller: Any = guard) -> PlainTextResponse:
        return PlainTextResponse(NAME)

    return app


# -- A token never seen ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unseen:
    """Microseconds for one token: with everything that is checked, and for joserfc's signature and JSON alone."""

    alg: str
    ours: float
    bare: float
    over: float
    """The median of the differences, round by round."""


async def unseen_tokens(*, rounds: int, tokens: int) -> list[Unseen]:
    """Verify tokens that nobody has seen, in each of `rounds` so many, in turns with joserfc's bare verification."""
    return [await _unseen(alg, rounds, tokens) for alg in KEYS]


async def _unseen(alg: str, rounds: int, count: int) -> Unseen:
    logto, key = _logto(), type(KEYS[alg]).import_key(KEYS[alg].as_dict(private=False))
    await logto.bearer.verify(_access_token(alg))
    ours, bare = [], []
    for number in range(-1, rounds):
        tokens = [_access_token(alg) for _ in range(count)]
        gc.collect()
        start = time.process_time()
        for token in tokens:
            jwt.decode(token, key, algorithms=[alg])
        between = time.process_time()
        for token in tokens:
            await logto.bearer.verify(token)
        end = time.process_time()
        if number >= 0:
            bare.append((between - start) / count * 1e6)
            ours.append((end - between) / count * 1e6)
    over = median(mine - other for mine, other in zip(ours, bare, strict=True))
    return Unseen(alg, median(ours), median(bare), over)


# -- Memory ------------------------------------------------------------------------------------------------------------


async def bytes_per_token(count: int = 1_000) -> tuple[float, float]:
    """Return the bytes that a remembered token takes, and those that the memory's bound counts for it."""
    logto = _logto()
    await logto.bearer.verify(_access_token("ES384"))
    tokens = [_access_token("ES384") for _ in range(count)]
    memory = logto.bearer._memory
    counted = memory.cost
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for token in tokens:
        _use(await logto.bearer.verify(token))
    gc.collect()
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return taken / count, (memory.cost - counted) / count


def _use(claims: AccessTokenClaims) -> None:
    """Read what guards read; it is kept beside the claims."""
    _ = claims.scopes, claims.audiences, claims.organization


# -- The issuer --------------------------------------------------------------------------------------------------------


def _logto() -> Logto:
    config = LogtoConfig.without_sign_in(endpoint=ENDPOINT, api_resource=API)
    return Logto(config, http_client=httpx.AsyncClient(transport=httpx.MockTransport(_answer)))


def _answer(request: httpx.Request) -> httpx.Response:
    if request.url.path.endswith("/jwks"):
        return httpx.Response(200, json={"keys": [key.as_dict(private=False) for key in KEYS.values()]})
    endpoints = {f"{name}_endpoint": f"{ISSUER}/{name}" for name in ("authorization", "token")}
    algorithms = {"id_token_signing_alg_values_supported": list(KEYS)}
    return httpx.Response(200, json={"issuer": ISSUER, "jwks_uri": f"{ISSUER}/jwks", **endpoints, **algorithms})


def _access_token(alg: str, length: int = 0) -> str:
    """Return an access token as Logto makes them, of about `length` characters at least."""
    now, key = int(time.time()), KEYS[alg]
    model = next(model for model in JWS_ALGORITHMS if model.name == alg)
    claims = {
        "jti": secrets.token_urlsafe(16),
        "sub": secrets.token_hex(6),
        "iat": now,
        "exp": now + 3600,
        "scope": "read:items write:items",
        "client_id": "k2v5mq0d8w1r7tz3xc9bn",
        "iss": ISSUER,
        "aud": API,
    }
    padding = {"note": "x" * ((length - 560) * 3 // 4)} if length > 560 else {}
    parts = ({"alg": alg, "typ": "at+jwt", "kid": key.kid}, claims | padding)
    signing_input = ".".join(_encoded(json.dumps(part, separators=(",", ":")).encode()) for part in parts)
    return f"{signing_input}.{_encoded(model.sign(signing_input.encode(), key))}"


def _encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")
