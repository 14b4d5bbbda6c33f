"""Facts about introspection at the development provider (RFC 7662)."""

from __future__ import annotations

from provider_visitor import SHOP, refused

ISSUER = "http://localhost:3001/oidc"


def introspect(visitor, token, **fields):
    """Ask what a token is, as the visitor's app."""
    return visitor.post("/oidc/token/introspection", token=token, **fields)


def test_discovery_names_it(visit):
    """The address is in the metadata."""
    document = visit().http.get("/oidc/.well-known/openid-configuration").json()
    assert document["introspection_endpoint"] == ISSUER + "/token/introspection"


def test_an_access_token(visit, clock):
    """It tells whose it is, whom it was issued to and what it may; an opaque one has no audience."""
    visitor = visit()
    answer = introspect(visitor, visitor.tokens(scope="openid email")["access_token"])
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json() == {
        "active": True,
        "sub": "alice",
        "client_id": "web",
        "iss": ISSUER,
        "iat": int(clock.now),
        "exp": int(clock.now) + 3600,
        "scope": "email openid",
        "token_type": "Bearer",
    }


def test_a_token_of_another_app(visit):
    """A confidential app may ask about it, a public one only about its own."""
    visitor = visit("heard")
    token = visitor.provider.opaque_access_token("alice", client_id="spa", scopes=["openid"])
    assert introspect(visitor, token).json()["client_id"] == "spa"
    assert introspect(visit("spa", visitor.provider), token).json()["active"] is True
    theirs = visitor.provider.opaque_access_token("alice", client_id="web")
    assert introspect(visit("spa", visitor.provider), theirs).json() == {"active": False}


def test_a_refresh_token_is_active_without_a_type(visit, clock):
    """Only `token_type` tells an access token from it, as at Logto; spent and expired it is inactive."""
    visitor = visit("spa")
    token = visitor.tokens()["refresh_token"]
    facts = introspect(visitor, token).json()
    assert facts["active"] is True
    assert "token_type" not in facts
    assert introspect(visit("heard", visitor.provider), token).json()["active"] is True
    newest = visitor.refresh(token).json()["refresh_token"]
    assert introspect(visitor, token).json() == {"active": False}
    clock.now += 14 * 86400
    assert introspect(visitor, newest).json() == {"active": False}
    other = visit(provider=visitor.provider).tokens()["refresh_token"]
    assert introspect(visitor, other).json() == {"active": False}


def test_tokens_that_are_not_active(visit, clock):
    """Unknown, expired, revoked, of an ended grant and of a suspended user all answer the same."""
    visitor = visit()
    provider = visitor.provider
    opaque = provider.opaque_access_token
    tokens = [opaque("alice"), opaque("bob"), opaque("zoe")]
    assert all(introspect(visitor, token).json()["active"] for token in tokens)
    provider.revoke_token(tokens[0])
    provider.revoke("bob")
    provider.suspend("zoe")
    for token in ["unknown", "a.b.c", provider.personal_access_token("alice"), *tokens]:
        assert introspect(visitor, token).json() == {"active": False}
    late = opaque("alice")
    clock.now += 3599
    assert introspect(visitor, late).json()["active"] is True
    clock.now += 1
    assert introspect(visitor, late).json() == {"active": False}


def test_a_jwt_is_refused(visit):
    """It is unsupported_token_type: whoever has one verifies it, and asks nobody."""
    visitor = visit()
    token = visitor.provider.mint_access_token("alice", resource=SHOP)
    assert refused(introspect(visitor, token), "unsupported_token_type")


def test_requests_that_are_refused(visit):
    """A request needs a token, once, and an app that authenticates."""
    visitor = visit()
    assert refused(introspect(visitor, None), "invalid_request")
    assert refused(introspect(visitor, ["a", "b"]), "invalid_request")
    assert refused(introspect(visitor, "x", headers={}), "invalid_request")
    assert refused(introspect(visitor, "x", headers={}, client_id="web"), "invalid_client", 401)


def test_it_can_fail_and_is_counted(visit):
    """The levers know it by its name."""
    visitor = visit()
    visitor.provider.fail_next("introspection", 503)
    assert introspect(visitor, "x").status_code == 503
    assert introspect(visitor, "x").status_code == 200
    assert visitor.provider.requests.count("introspection") == 2
