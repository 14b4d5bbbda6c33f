"""A browser and an app in one, for tests of the development provider: it speaks HTTP and knows no library of ours."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx2
from starlette.testclient import TestClient

from logto_asgi.testing import Client, DevelopmentProvider

SHOP = "https://shopping.example.com/api"
OTHER = "https://other.example.com/api"
ORGANIZATIONS = "urn:logto:resource:organizations"
CALLBACK = "http://localhost:8000/logto/sign-in-callback"
HOME = "http://localhost:8000/"
VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
EVERYTHING = "openid offline_access profile email roles urn:logto:scope:organizations read:items write:items"

CLIENTS = (
    Client("web", "s&cret:ü", [CALLBACK], [HOME], name="Shop"),
    Client("spa", None, [CALLBACK], [HOME]),
    Client("guest", "guest-secret", [CALLBACK, CALLBACK + "?x=1"], [HOME], third_party=True),
    Client("heard", "heard-secret", [CALLBACK], backchannel_logout_uri="http://localhost:8000/back"),
    Client("late", "late-secret", [CALLBACK], secret_expires_at=1),
    Client(
        "robot",
        "robot-secret",
        machine=True,
        permissions={SHOP: ["read:items", "write:items", "no:such-scope"]},
        organizations={"harbour": ["read:items", "manage:members"]},
    ),
    Client("agent", "agent-secret", [CALLBACK], third_party=True, token_exchange=True),
    Client("trader", "trader-secret", [CALLBACK], [HOME], token_exchange=True),
)
SECRETS = {client.app_id: client.app_secret for client in CLIENTS}


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def decode(token: str, part: int = 1) -> dict[str, Any]:
    """Return the header (0) or the claims (1) of a JWT, unverified."""
    encoded = token.split(".")[part]
    return json.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))


def basic(app_id: str, secret: str) -> dict[str, str]:
    """Return the header of `client_secret_basic`, both parts form-urlencoded first (RFC 6749 §2.3.1)."""
    pair = urlencode({"": app_id})[1:] + ":" + urlencode({"": secret})[1:]
    return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


class Visitor:
    """One browser's cookies and one app."""

    def __init__(self, provider: DevelopmentProvider, app_id: str = "web") -> None:
        self.provider = provider
        self.app_id = app_id
        self.http = TestClient(
            provider, base_url=provider.endpoint, client=("127.0.0.1", 50000), follow_redirects=False
        )

    def query(self, **changes: Any) -> list[tuple[str, str]]:
        """Return the parameters of a request that succeeds, with changes; None leaves one out, a list repeats it."""
        values = {
            "client_id": self.app_id,
            "redirect_uri": CALLBACK,
            "response_type": "code",
            "scope": EVERYTHING,
            "state": "the-state",
            "nonce": "the-nonce",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
            "prompt": "consent",
            **changes,
        }
        many = {name: value if isinstance(value, list) else [value] for name, value in values.items()}
        return [(name, value) for name, row in many.items() for value in row if value is not None]

    def authorize(self, **changes: Any) -> httpx2.Response:
        """Ask for a code and follow redirects inside the provider."""
        return self.walk(self.http.get("/oidc/auth?" + urlencode(self.query(**changes))))

    def walk(self, response: httpx2.Response) -> httpx2.Response:
        """Follow redirects as long as they stay at the provider."""
        while response.is_redirect and response.headers["location"].startswith(self.provider.endpoint):
            response = self.http.get(response.headers["location"])
        return response

    def click(self, page: httpx2.Response, **fields: str) -> httpx2.Response:
        """Send the form of a page with these fields."""
        target = re.search(r'<form method="post" action="([^"]+)"', page.text)
        assert target is not None, page.text
        return self.walk(self.http.post(target[1], data=fields))

    def code(self, sub: str = "alice", **changes: Any) -> str:
        """Sign in and return the code."""
        return back(self.authorize(login_hint=sub, **changes))["code"]

    def token(self, headers: dict[str, str] | None = None, **fields: Any) -> httpx2.Response:
        """Call the token endpoint as the app, or with these headers instead of its own authentication."""
        return self.post("/oidc/token", headers, **fields)

    def post(self, path: str, headers: dict[str, str] | None = None, **fields: Any) -> httpx2.Response:
        """Send a form as the app."""
        secret = SECRETS[self.app_id]
        if headers is None:
            headers = basic(self.app_id, secret) if secret else {}
            fields = fields if secret else {"client_id": self.app_id, **fields}
        return self.http.post(path, data={k: v for k, v in fields.items() if v is not None}, headers=headers)

    def exchange(self, code: str, /, **fields: Any) -> httpx2.Response:
        """Exchange a code."""
        base = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK, "code_verifier": VERIFIER}
        return self.token(**{**base, **fields})

    def tokens(self, sub: str = "alice", exchange: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
        """Sign in and return the answer of the token endpoint."""
        return self.exchange(self.code(sub, **changes), **(exchange or {})).raise_for_status().json()

    def refresh(self, refresh_token: str, /, **fields: Any) -> httpx2.Response:
        """Exchange a refresh token."""
        return self.token(grant_type="refresh_token", refresh_token=refresh_token, **fields)

    def userinfo(self, access_token: str) -> httpx2.Response:
        """Ask for the claims of an access token."""
        return self.http.get("/oidc/me", headers={"Authorization": f"Bearer {access_token}"})


def back(response: httpx2.Response) -> dict[str, str]:
    """Return the parameters that the app got with the redirect."""
    assert response.status_code == 303, response.text
    assert response.headers["location"].startswith(CALLBACK)
    parts = urlsplit(response.headers["location"])
    return dict(parse_qsl(parts.query or parts.fragment))


def refused(response: httpx2.Response, error: str, status: int = 400) -> bool:
    """Assert a refusal in Logto's form."""
    body = response.json()
    assert (response.status_code, body["error"], body["code"]) == (status, error, f"oidc.{error}")
    assert body["message"] == body["error_description"]
    assert response.headers["cache-control"] == "no-store"
    return True
