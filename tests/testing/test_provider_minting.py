"""Facts about the tokens that the development provider makes for tests, without a sign-in."""

from __future__ import annotations

import pytest
from provider_visitor import SHOP, decode

from logto_asgi.testing import DevelopmentProvider

ISSUER = "http://localhost:3001/oidc"


def test_an_access_token_for_a_resource(visit, clock):
    """It is one that a sign-in would have given: the first client's, with the scopes that were named."""
    provider = visit().provider
    token = provider.mint_access_token("anybody", resource=SHOP, scopes=["write:items", "read:items"])
    assert decode(token, 0)["typ"] == "at+jwt"
    claims = decode(token)
    assert claims.pop("jti")
    assert claims == {
        "iss": ISSUER,
        "aud": SHOP,
        "sub": "anybody",
        "client_id": "web",
        "iat": int(clock.now),
        "exp": int(clock.now) + 3600,
        "scope": "read:items write:items",
    }
    assert "scope" not in decode(provider.mint_access_token("anybody", resource=SHOP))


def test_an_access_token_for_an_organization(visit):
    """Alone its audience is the URN; with a resource it is the resource, and a claim names the organization."""
    mint = visit().provider.mint_access_token
    assert decode(mint("alice", organization_id="harbour"))["aud"] == "urn:logto:organization:harbour"
    both = decode(mint("alice", organization_id="harbour", resource=SHOP))
    assert (both["aud"], both["organization_id"]) == (SHOP, "harbour")


def test_an_access_token_is_for_something(visit):
    """Without resource, organization and `aud` it is a ValueError; `aud=None` says that it is meant."""
    mint = visit().provider.mint_access_token
    with pytest.raises(ValueError, match="resource or an organization"):
        mint("alice")
    assert "aud" not in decode(mint("alice", aud=None))
    assert decode(mint("alice", aud=[SHOP, ISSUER]))["aud"] == [SHOP, ISSUER]


def test_claims_and_header_can_be_anything(visit):
    """What is given replaces what would be there, and None takes it away; so do no `sub` and an empty client."""
    mint = visit().provider.mint_access_token
    token = mint(None, resource=SHOP, client_id="", header={"typ": "JWT"}, exp=None, plan="gold", scope="a b")
    claims = decode(token)
    assert decode(token, 0)["typ"] == "JWT"
    assert not {"sub", "client_id", "exp"} & claims.keys()
    assert (claims["plan"], claims["scope"]) == ("gold", "a b")


def test_a_token_of_a_machine(visit):
    """Its subject is its client."""
    claims = decode(visit().provider.mint_access_token("robot", client_id="robot", resource=SHOP))
    assert (claims["sub"], claims["client_id"]) == ("robot", "robot")


def test_opaque_tokens(visit):
    """They are good for userinfo when they have openid, and end with `revoke_token`."""
    visitor = visit()
    token = visitor.provider.opaque_access_token("alice", scopes=["openid", "email"])
    assert visitor.userinfo(token).json() == {"sub": "alice", "email": "alice@example.com", "email_verified": True}
    assert visitor.userinfo(visitor.provider.opaque_access_token("alice")).status_code == 403
    visitor.provider.revoke_token(token)
    assert visitor.userinfo(token).status_code == 401


def test_revoking_a_refresh_token_ends_its_grant(visit):
    """The opaque access token of the same sign-in dies with it."""
    visitor = visit()
    tokens = visitor.tokens()
    visitor.provider.revoke_token(tokens["refresh_token"])
    assert visitor.refresh(tokens["refresh_token"]).json()["error"] == "invalid_grant"
    assert visitor.userinfo(tokens["access_token"]).status_code == 401


def test_what_cannot_be_revoked():
    """A JWT and an unknown string are a KeyError that does not repeat them."""
    provider = DevelopmentProvider()
    for token in (provider.mint_access_token("alice", resource=SHOP), "unknown"):
        with pytest.raises(KeyError) as caught:
            provider.revoke_token(token)
        assert token not in str(caught.value)
