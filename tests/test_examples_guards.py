"""The examples about guards: an API that is called with tokens, and an app whose customers are organizations."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect
from test_examples import EXAMPLES, reach_in_process

from logto_asgi.testing import Client, DevelopmentProvider, Organization, Visitor

API = "https://shopping.example.com/api"
BOOKS = Organization(
    "books",
    "Harbour <Books>",
    members={"alice": ("admin",), "bob": ("member",)},
    roles={"admin": ("read:items", "write:items", "manage:members"), "member": ("read:items",)},
)
TOYS = Organization(
    "toys", "Hill Toys", members={"alice": ("member",)}, roles={"member": ("read:items",), "admin": ("read:items",)}
)


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> DevelopmentProvider:
    """Set the variables of an app, in a folder without a `.env`, and let the provider know that app."""
    base = "http://localhost:8000"
    secret = secrets.token_urlsafe(24)
    values = {
        "LOGTO_ENDPOINT": "http://localhost:3001",
        "LOGTO_APP_ID": "example",
        "LOGTO_APP_SECRET": secret,
        "LOGTO_BASE_URL": base,
        "LOGTO_COOKIE_SECRET": secrets.token_urlsafe(32),
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    client = Client("example", secret, [f"{base}/logto/sign-in-callback"], [f"{base}/"])
    return DevelopmentProvider(clients=[client], organizations=[BOOKS, TOYS])


def load(name: str, provider: DevelopmentProvider) -> Any:
    """Load an example as uvicorn does, with the provider in this process for an issuer; return its app."""
    code = compile((EXAMPLES / f"{name}.py").read_text("utf-8"), f"{name}.py", "exec", dont_inherit=True)
    names: dict[str, Any] = {"__name__": f"example_{name}"}
    exec(code, names)
    reach_in_process(names["app"], provider)
    return names["app"]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


# -- api.py ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def shop(provider: DevelopmentProvider) -> Iterator[TestClient]:
    """The API of examples/api.py."""
    with TestClient(load("api", provider), base_url="http://localhost:8000") as client:
        yield client


@pytest.fixture
def reader(provider: DevelopmentProvider) -> dict[str, str]:
    """The header of a user who may read."""
    return bearer(provider.mint_access_token("alice", resource=API, scopes=["read:items"], client_id="phone"))


@pytest.fixture
def machine(provider: DevelopmentProvider) -> dict[str, str]:
    """The header of a machine that may write."""
    return bearer(provider.mint_access_token("robot", resource=API, scopes=["write:items"], client_id="robot"))


@pytest.mark.parametrize("path", ["/me", "/items", "/reports/stock.csv"])
def test_the_api_says_how_to_come_in(shop: TestClient, path: str) -> None:
    """Without a token the answer is 401 with a challenge that names no error, and where the metadata is."""
    answer = shop.get(path)
    challenge = answer.headers["www-authenticate"]
    assert (answer.status_code, answer.json()["code"]) == (401, "token_required")
    assert challenge.startswith("Bearer ")
    assert "error" not in challenge
    where = challenge.partition('resource_metadata="')[2].partition('"')[0]
    document = shop.get(where).json()
    assert (document["resource"], document["scopes_supported"]) == (API, ["read:items", "write:items"])
    assert shop.get("/health").json() == {"status": "ok"}


def test_the_api_serves_a_user_what_the_scopes_allow(shop: TestClient, reader: dict[str, str]) -> None:
    """Who may read reads, and gets 403 with the missing scope for writing."""
    assert shop.get("/me", headers=reader).json() == {"sub": "alice", "client": "phone", "scopes": ["read:items"]}
    assert shop.get("/items", headers=reader).json() == {"lamp": 3, "chair": 12}
    assert shop.get("/reports/stock.csv", headers=reader).text == "item,count\nlamp,3\nchair,12\n"
    refused = shop.put("/items/lamp", params={"count": 4}, headers=reader)
    assert (refused.status_code, refused.json()["missing"]) == (403, ["write:items"])
    assert 'error="insufficient_scope"' in refused.headers["www-authenticate"]


def test_the_api_lets_a_writer_write(shop: TestClient, provider: DevelopmentProvider) -> None:
    """A synchronous endpoint knows who wrote."""
    token = provider.mint_access_token("alice", resource=API, scopes=["write:items"])
    answer = shop.put("/items/lamp", params={"count": 4}, headers=bearer(token))
    assert answer.json() == {"item": "lamp", "count": 4, "by": "alice"}


def test_the_api_lets_a_machine_in_where_it_says_so(
    shop: TestClient, machine: dict[str, str], reader: dict[str, str]
) -> None:
    """A machine delivers and sees the reports; everywhere else a user is needed, and no user delivers."""
    sent = shop.post("/deliveries", params={"name": "lamp", "count": 2}, headers=machine)
    assert sent.json() == {"item": "lamp", "count": 5, "by": "robot"}
    assert shop.get("/reports/stock.csv", headers=machine).status_code == 200
    assert shop.get("/me", headers=machine).status_code == 403
    assert shop.post("/deliveries", params={"name": "lamp", "count": 2}, headers=reader).status_code == 403


def test_the_api_refuses_tokens_that_are_for_something_else(shop: TestClient, provider: DevelopmentProvider) -> None:
    """An ID token, another API's token and an organization's are `invalid_token`."""
    tokens = [
        provider.mint_id_token("alice"),
        provider.mint_access_token("alice", resource="https://other.example.com", scopes=["read:items"]),
        provider.mint_access_token("alice", resource=API, organization_id="books", scopes=["read:items"]),
    ]
    answers = [shop.get("/items", headers=bearer(token)) for token in tokens]
    assert [(each.status_code, each.json()["code"]) for each in answers] == [(401, "invalid_token")] * 3


def test_the_api_speaks_over_a_websocket(shop: TestClient, reader: dict[str, str]) -> None:
    """A program sends the header, a browser the subprotocols; the server answers the name and not the token."""
    token = reader["Authorization"].removeprefix("Bearer ")
    with shop.websocket_connect("/updates", headers=reader) as socket:
        socket.send_text("lamp")
        assert socket.receive_json() == {"item": "lamp", "count": 3}
    with shop.websocket_connect("/updates", subprotocols=["logto.bearer", token]) as socket:
        assert socket.accepted_subprotocol == "logto.bearer"
        socket.send_text("sofa")
        assert socket.receive_json() == {"item": "sofa", "count": 0}


def test_the_api_refuses_a_websocket_without_a_token(shop: TestClient) -> None:
    """The handshake is denied with 401."""
    with pytest.raises((WebSocketDenialResponse, WebSocketDisconnect)), shop.websocket_connect("/updates"):
        pass


# -- organizations.py --------------------------------------------------------------------------------------------------


@pytest.fixture
def market(provider: DevelopmentProvider) -> Any:
    """The app of examples/organizations.py."""
    return load("organizations", provider)


async def signed_in(market: Any, provider: DevelopmentProvider, sub: str, path: str = "/") -> tuple[Visitor, Any]:
    visitor = Visitor(market, provider, config=config_of(market))
    return visitor, await visitor.sign_in(sub, path=path)


def config_of(app: Any) -> Any:
    (logto,) = (each.kwargs["logto"] for each in app.user_middleware if "logto" in each.kwargs)
    return logto.config


async def test_a_member_switches_between_organizations(market: Any, provider: DevelopmentProvider) -> None:
    """The page lists the user's organizations by name, and the one in the address is the current one."""
    visitor, page = await signed_in(market, provider, "alice")
    assert '<a href="/organizations/books">Harbour &lt;Books&gt;</a>' in page.text
    assert '<a href="/organizations/toys">Hill Toys</a>' in page.text
    page = await visitor.navigate("/organizations/toys")
    assert (page.status_code, "<b>Hill Toys</b>" in page.text, "<b>Harbour" in page.text) == (200, True, False)
    page = await visitor.navigate("/organizations/books")
    assert "<b>Harbour &lt;Books&gt;</b>" in page.text


async def test_a_visitor_signs_in_and_comes_back_to_the_organization(
    market: Any, provider: DevelopmentProvider
) -> None:
    """The guard of an organization sends an anonymous browser to sign-in first."""
    _, page = await signed_in(market, provider, "bob", path="/organizations/books")
    assert (page.url.path, page.status_code) == ("/organizations/books", 200)


async def test_nobody_sees_the_organization_of_others(market: Any, provider: DevelopmentProvider) -> None:
    """Pages and API refuse who is no member, and an organization that does not exist."""
    visitor, _ = await signed_in(market, provider, "bob")
    paths = ["/organizations/toys", "/organizations/none", "/api/organizations/toys/items"]
    answers = [await visitor.get(path) for path in paths]
    assert [(each.status_code, each.json()["missing"]) for each in answers] == [(403, ["organization"])] * 3
    visitor, page = await signed_in(market, provider, "zoe")
    assert "You belong to no organization." in page.text


async def test_a_role_counts_in_its_organization_only(market: Any, provider: DevelopmentProvider) -> None:
    """Alice is an administrator of the books and a member of the toys; Bob is no administrator."""
    alice, _ = await signed_in(market, provider, "alice")
    bob, _ = await signed_in(market, provider, "bob")
    assert (await alice.get("/organizations/books/settings")).status_code == 200
    for visitor, path in ((alice, "/organizations/toys/settings"), (bob, "/organizations/books/settings")):
        refused = await visitor.get(path)
        assert (refused.status_code, refused.json()["missing"]) == (403, ["admin"])


async def test_permissions_decide_for_a_session(market: Any, provider: DevelopmentProvider) -> None:
    """Scopes come from a token for that organization, which the session fetches and keeps."""
    alice, _ = await signed_in(market, provider, "alice")
    bob, _ = await signed_in(market, provider, "bob")
    invitation = {"email": "zoe@example.com"}
    assert (await alice.get("/api/organizations/toys/items")).json() == []
    sent = await alice.post("/api/organizations/books/invitations", params=invitation)
    assert sent.json() == {"invited": "zoe@example.com", "to": "books", "by": "alice"}
    refused = await bob.post("/api/organizations/books/invitations", params=invitation)
    assert (refused.status_code, refused.json()["missing"]) == (403, ["manage:members"])
    foreign = await alice.post(
        "/api/organizations/books/invitations", params=invitation, headers={"Origin": "https://evil.example"}
    )
    assert (foreign.status_code, foreign.json()["code"]) == (403, "cross_site_request")


async def test_permissions_decide_for_a_bearer_token(market: Any, provider: DevelopmentProvider) -> None:
    """The same endpoints take a token for that organization, of the right kind, and no other."""
    organization = {"organization_id": "books"}
    manager = provider.mint_access_token("alice", **organization, scopes=["manage:members"])
    reader = provider.mint_access_token("bob", resource=API, **organization, scopes=["read:items"])
    plain = provider.mint_access_token("bob", resource=API, scopes=["read:items"])
    transport = httpx.ASGITransport(market)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as phone:
        paths = ["/api/organizations/books/items", "/api/organizations/toys/items"]
        answers = [await phone.get(path, headers=bearer(reader)) for path in paths]
        assert [each.status_code for each in answers] == [200, 401]
        assert (await phone.get(paths[0], headers=bearer(plain))).status_code == 401
        assert (await phone.get(paths[0], headers=bearer(manager))).status_code == 401
        invite, invitation = "/api/organizations/books/invitations", {"email": "zoe@example.com"}
        assert (await phone.post(invite, params=invitation, headers=bearer(manager))).json()["by"] == "alice"
        assert (await phone.post(invite, params=invitation, headers=bearer(reader))).status_code == 401
        page = await phone.get("/organizations/books", headers=bearer(manager))
        assert (page.status_code, page.json()["code"]) == (401, "sign_in_required")


# -- htmx.py -----------------------------------------------------------------------------------------------------------

HTMX = {"HX-Request": "true", "HX-Current-URL": "http://localhost:8000/"}
SIGN_IN = "http://localhost:8000/logto/sign-in?return_to=/"


async def test_htmx_takes_a_visitor_to_sign_in(provider: DevelopmentProvider) -> None:
    """A fragment that needs somebody sends the whole page to sign-in, and back to the page that it is on."""
    app = load("htmx", provider)
    visitor, page = await signed_in(app, provider, "bob")
    assert "Notes of Bob Okafor" in page.text
    added = await visitor.post("/notes", data={"text": "<b>"}, headers=HTMX)
    assert added.text.startswith("<li>&lt;b&gt; <button")
    await visitor.sign_out()
    refused = await visitor.post("/notes", data={"text": "more"}, headers=HTMX)
    assert (refused.status_code, refused.headers["hx-redirect"]) == (401, SIGN_IN)


async def test_htmx_asks_for_a_fresh_sign_in_before_deleting(provider: DevelopmentProvider) -> None:
    """The refusal of a step-up leads to a sign-in with `max_age`, after which deleting works."""
    app = load("htmx", provider)
    visitor, _ = await signed_in(app, provider, "bob")
    await visitor.post("/notes", data={"text": "milk"}, headers=HTMX)
    refused = await visitor.delete("/notes/1", headers=HTMX)
    assert (refused.status_code, refused.headers["hx-redirect"]) == (401, f"{SIGN_IN}&max_age=300")
    page = await visitor.choose(await visitor.navigate(refused.headers["hx-redirect"]), "bob")
    assert "milk" in page.text
    assert (await visitor.delete("/notes/1", headers=HTMX)).text == ""
    assert "milk" not in (await visitor.get("/")).text


async def test_htmx_shows_that_a_user_may_not(provider: DevelopmentProvider) -> None:
    """The app's own words for a missing role are a fragment with status 403."""
    app = load("htmx", provider)
    bob, _ = await signed_in(app, provider, "bob")
    alice, _ = await signed_in(app, provider, "alice")
    refused = await bob.get("/statistics", headers=HTMX)
    assert (refused.status_code, refused.text) == (403, "Not for you: A role is missing: admin.")
    assert (await alice.get("/statistics", headers=HTMX)).text == "0 notes of 0 people"
