"""The provider of the end-to-end tests gives tokens for APIs as Logto does: machines, exchange, introspection, CORS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from e2e_provider import PARTS, SHOP, STOCK, TOKEN_EXCHANGE, Provider, client, machine, single_page_app
from e2e_visitor import Visitor, decode

APP = "http://127.0.0.1:9"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"


@pytest.fixture
def visit(oidc_provider: Callable[..., Provider]) -> Iterator[Callable[..., Visitor]]:
    """Start a provider with an app of each kind, and speak to it as the one that is named."""
    grants = ["authorization_code", "refresh_token", TOKEN_EXCHANGE]
    apps = [
        client(APP),
        client(APP, client_id="trader", grant_types=grants),
        machine("robot", {SHOP: "read:items"}),
        single_page_app(APP),
    ]
    provider = oidc_provider(clients=apps)
    visitors: list[Visitor] = []

    def speak(app_id: str = "the-app", **options: Any) -> Visitor:
        visitors.append(Visitor(provider, app_id=app_id, **options))
        return visitors[-1]

    yield speak
    for visitor in visitors:
        visitor.close()


def credentials(visitor: Visitor, **form: Any) -> httpx.Response:
    return visitor.token(grant_type="client_credentials", **form)


def test_client_credentials(visit):
    """A machine gets a JWT by its own name, for what its roles give; without a resource it is invalid_target."""
    robot = visit("robot")

    answer = credentials(robot, resource=SHOP, scope="read:items write:items").json()
    claims = decode(answer["access_token"])

    assert decode(answer["access_token"], 0)["typ"] == "at+jwt"
    assert (claims["sub"], claims["client_id"], claims["aud"]) == ("robot", "robot", SHOP)
    assert (claims["scope"], answer["scope"], "id_token" in answer) == ("read:items", "read:items", False)
    assert "scope" not in decode(credentials(robot, resource=SHOP).json()["access_token"])
    assert "scope" not in decode(credentials(robot, resource=STOCK, scope="read:stock").json()["access_token"])
    assert credentials(robot).json()["error"] == "invalid_target"
    assert credentials(robot, resource="https://unknown.example.com").json()["error"] == "invalid_target"


@pytest.mark.parametrize("grant_type", ["client_credentials", TOKEN_EXCHANGE])
def test_a_grant_that_an_app_has_not(visit, grant_type):
    """The engine calls it invalid_request, where RFC 6749 §5.2 has unauthorized_client."""
    answer = visit().token(grant_type=grant_type, resource=SHOP)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


def test_introspection(visit):
    """An opaque token is told without an audience, a JWT is refused; a refresh token is active without a type."""
    visitor = visit()
    tokens = visitor.tokens()

    def ask(token: str) -> httpx.Response:
        return visitor.app.post("token/introspection", data={"token": token})

    told = ask(tokens["access_token"]).json()
    assert (told["active"], told["sub"], told["client_id"], told["token_type"]) == (True, "alice", "the-app", "Bearer")
    assert "aud" not in told
    refresh_token = ask(tokens["refresh_token"]).json()
    assert (refresh_token["active"], "token_type" in refresh_token) == (True, False)
    assert ask("unknown").json() == {"active": False}
    jwt = credentials(visit("robot"), resource=SHOP).json()["access_token"]
    assert ask(jwt).json()["error"] == "unsupported_token_type"


def test_auth_time_stays_through_refreshes(visit):
    """Asked for by max_age it is in each refreshed ID token, the same; a sign-in without max_age never has it."""
    visitor = visit()
    plain = visitor.tokens()
    assert "auth_time" not in decode(plain["id_token"])

    timed = visitor.tokens(max_age="3600")
    signed_in_at = decode(timed["id_token"])["auth_time"]
    refreshed = visitor.refresh(timed["refresh_token"]).json()

    assert decode(refreshed["id_token"])["auth_time"] == signed_in_at
    assert "auth_time" not in decode(visitor.refresh(plain["refresh_token"]).json()["id_token"])


def test_an_exchange(visit):
    """An API's token becomes one for another API, of the same user; an ID token and another type are refused."""
    trader = visit("trader")
    code = trader.sign_in("bob", resource=SHOP, scope="openid read:items")["code"]
    tokens = trader.exchange(code, resource=SHOP)

    def exchange(token: str, kind: str = ACCESS_TOKEN) -> httpx.Response:
        form = {"subject_token": token, "subject_token_type": kind, "resource": PARTS, "scope": "read:parts other"}
        return trader.token(grant_type=TOKEN_EXCHANGE, **form)

    answer = exchange(tokens["access_token"]).json()
    claims = decode(answer["access_token"])
    assert set(answer) == {"access_token", "expires_in", "scope", "token_type"}
    assert (claims["sub"], claims["client_id"], claims["aud"], claims["scope"]) == (
        "bob",
        "trader",
        PARTS,
        "read:parts",
    )
    assert exchange(tokens["id_token"]).json()["error"] == "invalid_grant"
    assert exchange(tokens["access_token"], "urn:other").json()["error"] == "invalid_grant"


def test_pages_of_public_apps(visit):
    """Their origin may read the token endpoint's answers; another origin, and a confidential app's, may not."""
    page = visit("the-page", app_secret=None)

    def ask(app: Visitor, origin: str) -> httpx.Response:
        return app.app.post("token", data={"client_id": app.app_id, "grant_type": "x"}, headers={"Origin": origin})

    assert ask(page, APP).headers["access-control-allow-origin"] == APP
    for refused in (ask(page, "https://evil.example"), ask(visit(), APP)):
        assert "access-control-allow-origin" not in refused.headers
