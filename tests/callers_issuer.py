"""An issuer at the network's edge for tests of callers' tokens: its keys turn, its documents vanish, it hangs."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from functools import cache
from typing import Any
from urllib.parse import parse_qs

import httpx
from joserfc.jwk import ECKey

from logto_asgi import Event, Logto, LogtoConfig
from tests.oidc.oidc_signing import ABSENT, ENDPOINT, ISSUER, NOW, discovery_document, sign

API = "https://shopping.example.com/api"
CLIENT = "spa-app"
APP_ID = "shop-api"
SECRET = "s3cret-of-the-api-for-introspection"
DISCOVERY, JWKS, INTROSPECTION = (
    "/oidc/.well-known/openid-configuration",
    "/oidc/jwks",
    "/oidc/token/introspection",
)


@cache
def private_key(name: str) -> Any:
    """Return the key of this name, always the same one. What follows a colon is no part of its published id."""
    return ECKey.generate_key("P-256", {"kid": name.partition(":")[0], "alg": "ES256", "use": "sig"})


class CallersIssuer:
    """Counts the calls, and answers what a test sets. Its clock is everyone's."""

    def __init__(self, **settings: Any) -> None:
        self.now = float(NOW)
        self.calls: Counter[str] = Counter()
        self.asked: list[httpx.Request] = []
        self.waiting: Counter[str] = Counter()
        self.gates: dict[str, asyncio.Event] = {}
        self.answers: dict[str, tuple[int, Any]] = {
            DISCOVERY: (200, discovery_document(introspection_endpoint=ISSUER + "/token/introspection")),
        }
        self.tokens: dict[str, dict[str, Any]] = {}
        self.events: list[Event] = []
        self.publish("first")
        known_app = {"app_id": APP_ID, "app_secret": SECRET, "api_resource": API}
        given = {name: value for name, value in (known_app | settings).items() if value is not ABSENT}
        self.config = LogtoConfig.without_sign_in(endpoint=ENDPOINT, **given)
        client = httpx.AsyncClient(transport=httpx.MockTransport(self._answer))
        self.logto = Logto(self.config, http_client=client, clock=lambda: self.now, on_event=self.events.append)
        self.bearer = self.logto.bearer

    def publish(self, *names: str) -> None:
        """Put these keys into the key set, and no others."""
        self.answers[JWKS] = (200, {"keys": [private_key(name).as_dict(private=False) for name in names]})

    def go_down(self, *paths: str, status: int = 503, body: Any = b"") -> None:
        """Answer so to calls of these paths."""
        self.answers.update(dict.fromkeys(paths or (DISCOVERY, JWKS, INTROSPECTION), (status, body)))

    def hang(self, path: str) -> asyncio.Event:
        """Answer calls of this path only once the returned event is set."""
        return self.gates.setdefault(path, asyncio.Event())

    def token(self, key: str = "first", /, **changes: Any) -> str:
        """Return an access token that is right but for the changes."""
        return sign(private_key(key), self.claims(**changes), alg="ES256", header={"typ": "at+jwt"})

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Return the claims of a good access token, with changes."""
        now = int(self.now)
        good = {"iss": ISSUER, "sub": "user-1", "aud": API, "exp": now + 3600, "iat": now, "client_id": CLIENT}
        return {name: value for name, value in (good | changes).items() if value is not ABSENT}

    def opaque(self, token: str = "opaque-token", **changes: Any) -> str:
        """Make an opaque token known, active but for the changes."""
        told = self.claims(aud=ABSENT, scope="openid profile", token_type="Bearer", active=True)
        self.tokens[token] = {name: value for name, value in (told | changes).items() if value is not ABSENT}
        return token

    def refused(self) -> list[Any]:
        """Return the reasons of the refusals so far."""
        return [event.facts["reason"] for event in self.events if event.name == "bearer.refused"]

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.calls[path] += 1
        self.asked.append(request)
        if path in self.gates:
            self.waiting[path] += 1
            await self.gates[path].wait()
            self.waiting[path] -= 1
        status, body = self.answers[path] if path in self.answers else self._introspect(request)
        return httpx.Response(status, content=body if isinstance(body, bytes) else json.dumps(body).encode())

    def _introspect(self, request: httpx.Request) -> tuple[int, Any]:
        (token,) = parse_qs(request.content.decode())["token"]
        return 200, self.tokens.get(token, {"active": False})
