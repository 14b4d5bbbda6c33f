"""The examples of a page with its own API and of a sign-in that must be young, with the provider in process."""

from __future__ import annotations

import importlib.util
import re
import secrets
from collections.abc import Callable
from html import unescape
from pathlib import Path

import httpx
import pytest
from starlette.middleware import Middleware

from logto_asgi import Logto, LogtoMiddleware
from logto_asgi.testing import Client, Clock, DevelopmentProvider
from logto_asgi.testing.visitor import NAVIGATION, Visitor, issuer_client

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
API = "https://shopping.example.com/api"
BASE = "http://localhost:8000"
FETCH = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Origin": BASE}
"""What a browser sends with a `fetch` by POST of one of the app's own pages."""


@pytest.fixture
def clock() -> Clock:
    return Clock(1_800_000_000.0)


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clock: Clock) -> DevelopmentProvider:
    """Set the variables of an app, in a folder without a `.env`, and let the provider know that app."""
    secret = secrets.token_urlsafe(24)
    values = {
        "LOGTO_ENDPOINT": "http://localhost:3001",
        "LOGTO_APP_ID": "example",
        "LOGTO_APP_SECRET": secret,
        "LOGTO_BASE_URL": BASE,
        "LOGTO_COOKIE_SECRET": secrets.token_urlsafe(32),
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    client = Client("example", secret, [f"{BASE}/logto/sign-in-callback"], [f"{BASE}/"])
    return DevelopmentProvider(clients=[client], clock=clock)


Load = Callable[[str], Visitor]


@pytest.fixture
def load(provider: DevelopmentProvider, clock: Clock) -> Load:
    """Load an example as uvicorn does, with the provider for an issuer and the test's clock; return a browser."""

    def load(name: str) -> Visitor:
        spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        (place,) = (index for index, each in enumerate(module.app.user_middleware) if each.cls is LogtoMiddleware)
        logto = Logto(module.config, http_client=issuer_client(provider), clock=clock)
        module.app.user_middleware[place] = Middleware(LogtoMiddleware, logto=logto)
        return Visitor(module.app, provider, config=module.config)

    return load


# -- spa_and_api.py ----------------------------------------------------------------------------------------------------


async def token_of(visitor: Visitor) -> str:
    """Ask for a token as the example's page does."""
    response = await visitor.post("/logto/token", data={"resource": API}, headers=FETCH)
    assert response.status_code == 200
    token: str = response.json()["access_token"]
    return token


async def test_spa_and_api_by_session(load: Load) -> None:
    """The page's script works with the session alone: who it is, the basket, and 401 with the way in for a visitor."""
    visitor = load("spa_and_api")
    assert '<script src="/page.js"' in (await visitor.get("/")).text
    assert f'const RESOURCE = "{API}";' in (await visitor.get("/page.js")).text
    assert (await visitor.get("/api/user")).json()["is_authenticated"] is False
    refused = await visitor.post("/api/basket/lamp", headers=FETCH)
    assert (refused.status_code, refused.json()["code"]) == (401, "sign_in_required")
    await visitor.sign_in("alice")
    assert (await visitor.get("/api/user")).json()["claims"]["name"] == "Alice Martin"
    assert (await visitor.post("/api/basket/lamp", headers=FETCH)).json() == {"items": ["lamp"]}
    assert (await visitor.get("/api/basket")).json() == {"items": ["lamp"], "came_by": "session"}
    foreign = {**FETCH, "Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
    assert (await visitor.post("/api/basket/lamp", headers=foreign)).json()["code"] == "cross_site_request"


async def test_spa_and_api_by_token(load: Load, provider: DevelopmentProvider) -> None:
    """A phone calls the same endpoints with a token of its own, and needs the permission as the page does."""
    phone = load("spa_and_api")
    reader = provider.mint_access_token("bob", resource=API, scopes=["read:items"], client_id="phone")
    headers = {"Authorization": f"Bearer {reader}"}
    assert (await phone.get("/api/basket", headers=headers)).json() == {"items": [], "came_by": "token"}
    refused = await phone.post("/api/basket/lamp", headers=headers)
    assert (refused.status_code, refused.json()["missing"]) == (403, ["write:items"])
    challenge = (await phone.get("/partner/stock")).headers["www-authenticate"]
    assert f'resource_metadata="{BASE}/.well-known/oauth-protected-resource"' in challenge


async def test_spa_and_api_with_the_pages_token(load: Load, provider: DevelopmentProvider) -> None:
    """The page gets a token and calls with it what takes tokens only; the session alone does not do there."""
    visitor = load("spa_and_api")
    await visitor.sign_in("alice")
    assert (await visitor.get("/partner/stock")).status_code == 401
    headers = {"Authorization": f"Bearer {await token_of(visitor)}"}
    assert (await visitor.get("/partner/stock", headers=headers)).json() == {"lamp": 3, "chair": 12}
    elsewhere = await visitor.post("/logto/token", data={"resource": API}, headers={**FETCH, "Sec-Fetch-Site": "none"})
    assert elsewhere.status_code == 403
    await visitor.sign_out()
    assert (await visitor.post("/logto/token", data={"resource": API}, headers=FETCH)).status_code == 401


async def test_spa_and_api_says_who_issues_its_tokens(load: Load, provider: DevelopmentProvider) -> None:
    """A client that knows the API finds the issuer by its metadata (RFC 9728)."""
    document = (await load("spa_and_api").get("/.well-known/oauth-protected-resource")).json()
    assert (document["resource"], document["authorization_servers"]) == (API, [provider.issuer])
    assert document["scopes_supported"] == ["read:items", "write:items"]


# -- step_up.py --------------------------------------------------------------------------------------------------------


def link_of(page: httpx.Response) -> str:
    """Return where the first link of a page leads."""
    found = re.search(r'<a [^>]*href="([^"]+)"', page.text)
    assert found
    return unescape(found[1])


async def test_step_up_asks_for_a_newer_sign_in(load: Load, clock: Clock, provider: DevelopmentProvider) -> None:
    """The account's page goes by any session; for the form the visitor meets the issuer's page again."""
    visitor = load("step_up")
    page = await visitor.sign_in("alice", path="/account")
    assert "we pay to: none yet" in page.text
    clock.move(600)
    assert (await visitor.navigate("/account")).status_code == 200
    page = await visitor.navigate("/account/payout")
    assert str(page.url).startswith(f"{provider.issuer}/interaction/")
    page = await visitor.choose(page)
    assert (page.url.path, "<form" in page.text) == ("/account/payout", True)
    own = {**NAVIGATION, "Sec-Fetch-Site": "same-origin", "Referer": f"{BASE}/account/payout"}
    assert "Changed." in (await visitor.post("/account/payout", headers=own)).text
    assert "savings account" in (await visitor.navigate("/account")).text


async def test_step_up_does_not_replay_a_form(load: Load, clock: Clock) -> None:
    """A form that was open for too long is refused by a page with the way to sign in and back to the form."""
    visitor = load("step_up")
    await visitor.sign_in("alice", path="/account/payout")
    clock.move(3600)
    own = {**NAVIGATION, "Sec-Fetch-Site": "same-origin", "Referer": f"{BASE}/account/payout"}
    page = await visitor.post("/account/payout", headers=own)
    assert (page.status_code, "Please sign in again" in page.text) == (401, True)
    assert link_of(page) == f"{BASE}/logto/sign-in?return_to=/account/payout&max_age=300"
    page = await visitor.choose(await visitor.navigate(link_of(page)))
    assert (page.url.path, "<form" in page.text) == ("/account/payout", True)
    assert "none yet" in (await visitor.navigate("/account")).text


async def test_step_up_tells_a_program(load: Load, clock: Clock) -> None:
    """A script gets a code and the address, and asks the visitor itself."""
    visitor = load("step_up")
    await visitor.sign_in("alice", path="/account/payout")
    assert (await visitor.get("/api/sign-in-age")).json() == {"signed_in_at": 1_800_000_000}
    clock.move(3600)
    answer = await visitor.get("/api/sign-in-age")
    assert (answer.status_code, answer.json()["code"]) == (401, "step_up_required")
    assert "max_age=300" in answer.json()["sign_in_url"]
