"""Facts about client credentials at the development provider: tokens of machines by their own name."""

from __future__ import annotations

import pytest
from provider_visitor import CALLBACK, OTHER, SHOP, basic, decode, refused

from logto_asgi.testing import Client

ISSUER = "http://localhost:3001/oidc"


def ask(visitor, **fields):
    """Ask for a token as the visitor's app."""
    return visitor.token(grant_type="client_credentials", **fields)


def test_a_token_for_a_resource(visit, clock):
    """It is a JWT whose subject is the app; no ID token and no refresh token come with it."""
    answer = ask(visit("robot"), resource=SHOP, scope="read:items").json()
    token = answer.pop("access_token")
    assert answer == {"expires_in": 3600, "scope": "read:items", "token_type": "Bearer"}
    assert decode(token, 0)["typ"] == "at+jwt"
    claims = decode(token)
    assert claims.pop("jti")
    assert claims == {
        "iss": ISSUER,
        "aud": SHOP,
        "sub": "robot",
        "client_id": "robot",
        "iat": int(clock.now),
        "exp": int(clock.now) + 3600,
        "scope": "read:items",
    }


def test_without_a_scope_there_is_none(visit):
    """The token lacks the claim and the answer the member."""
    answer = ask(visit("robot"), resource=SHOP).json()
    assert "scope" not in answer
    assert "scope" not in decode(answer["access_token"])


def test_scopes_are_what_roles_and_the_resource_have(visit):
    """What the app may not, or the resource does not know, is left out without an error."""
    scope = "read:items write:items no:such-scope manage:members openid"
    assert ask(visit("robot"), resource=SHOP, scope=scope).json()["scope"] == "read:items write:items"
    assert "scope" not in ask(visit("robot"), resource=OTHER, scope=scope).json()


def test_a_token_for_an_organization(visit):
    """Its audience is the organization's URN, its scopes are those of the app's roles there."""
    answer = ask(visit("robot"), organization_id="harbour", scope="manage:members write:items").json()
    claims = decode(answer["access_token"])
    assert (claims["aud"], claims["scope"]) == ("urn:logto:organization:harbour", "manage:members")
    assert "organization_id" not in claims


def test_a_token_for_a_resource_in_an_organization(visit):
    """Its audience is the resource, and its scopes are those that the organization gives and the resource has."""
    scope = "read:items write:items manage:members"
    answer = ask(visit("robot"), organization_id="harbour", resource=SHOP, scope=scope).json()
    claims = decode(answer["access_token"])
    assert (claims["aud"], claims["organization_id"], claims["scope"]) == (SHOP, "harbour", "read:items")


@pytest.mark.parametrize(
    ("fields", "error", "status"),
    [
        ({}, "invalid_target", 400),
        ({"resource": "https://unknown.example.com"}, "invalid_target", 400),
        ({"resource": [SHOP, OTHER]}, "invalid_target", 400),
        ({"organization_id": "unknown"}, "access_denied", 403),
        ({"organization_id": "unknown", "resource": SHOP}, "access_denied", 403),
        ({"organization_id": ["harbour", "harbour"]}, "invalid_request", 400),
    ],
)
def test_a_request_that_is_refused(visit, fields, error, status):
    """Each fault has its code."""
    assert refused(ask(visit("robot"), **fields), error, status)


@pytest.mark.parametrize("app_id", ["web", "spa", "guest", "trader"])
def test_an_app_that_is_no_machine(visit, app_id):
    """It is unauthorized_client, confidential or public."""
    assert refused(ask(visit(app_id), resource=SHOP), "unauthorized_client")


def test_a_machine_authenticates(visit):
    """A wrong secret is 401, and its id alone is not enough."""
    visitor = visit("robot")
    assert refused(ask(visitor, headers=basic("robot", "wrong"), resource=SHOP), "invalid_client", 401)
    assert refused(ask(visitor, headers={}, client_id="robot", resource=SHOP), "invalid_client", 401)


@pytest.mark.parametrize("grant_type", ["authorization_code", "refresh_token"])
def test_a_machine_has_no_other_grant(visit, grant_type):
    """It signs nobody in."""
    assert refused(visit("robot").token(grant_type=grant_type), "unauthorized_client")
    assert visit("robot").authorize(redirect_uri=CALLBACK).status_code == 400


def test_a_machine_needs_a_secret():
    """A client that could not authenticate is refused where it is made."""
    with pytest.raises(ValueError, match="app_secret"):
        Client("robot", machine=True)


def test_machines_are_counted(visit):
    """The log tells the grant."""
    visitor = visit("robot")
    ask(visitor, resource=SHOP)
    assert visitor.provider.requests.count("token", "client_credentials") == 1
