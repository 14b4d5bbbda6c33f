"""Facts about userinfo, revocation, sign-out and the documents of the development provider."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet
from provider_visitor import HOME, SHOP, Visitor, decode

from logto_asgi.testing import DevelopmentProvider

ISSUER = "http://localhost:3001/oidc"


def test_discovery_repeats_the_issuer(visit):
    """Issuer and endpoints are made of the configuration, never of the Host header."""
    document = visit().http.get("/oidc/.well-known/openid-configuration", headers={"Host": "127.0.0.1:9"}).json()
    assert document["issuer"] == ISSUER
    assert document["token_endpoint"] == ISSUER + "/token"
    assert document["authorization_response_iss_parameter_supported"] is True
    assert document["id_token_signing_alg_values_supported"] == ["ES384"]


def test_an_issuer_without_a_path_or_with_another_port():
    """The endpoints lie under the issuer, whatever it is."""
    provider = DevelopmentProvider(issuer="http://127.0.0.1:4000")
    document = Visitor(provider).http.get("/.well-known/openid-configuration").json()
    assert document["userinfo_endpoint"] == "http://127.0.0.1:4000/me"
    assert provider.endpoint == provider.issuer


def test_the_keys_verify_the_tokens(visit):
    """One EC key on P-384 without its private part; an ETag saves the second answer."""
    visitor = visit()
    answer = visitor.http.get("/oidc/jwks")
    (key,) = answer.json()["keys"]
    assert (key["kty"], key["crv"], key["alg"], key["use"], "d" in key) == ("EC", "P-384", "ES384", "sig", False)
    assert "no-cache" in answer.headers["cache-control"]
    token = visitor.tokens()["id_token"]
    assert jwt.decode(token, KeySet.import_key_set(answer.json()), algorithms=["ES384"]).claims["sub"] == "alice"
    assert visitor.http.get("/oidc/jwks", headers={"If-None-Match": answer.headers["etag"]}).status_code == 304


def test_userinfo(visit):
    """It has what the ID token has by scope, and more: custom data, identities, organizations."""
    visitor = visit()
    scope = "openid profile email custom_data identities urn:logto:scope:organizations"
    claims = visitor.userinfo(visitor.tokens(scope=scope)["access_token"]).json()
    assert (claims["sub"], claims["email"], claims["custom_data"]) == ("alice", "alice@example.com", {})
    assert claims["identities"] == {}
    assert claims["organization_data"][0]["name"] == "Harbour Books"


def test_userinfo_takes_post(visit):
    """The endpoint answers a POST too (OpenID Connect Core §5.3.1)."""
    visitor = visit()
    headers = {"Authorization": f"Bearer {visitor.tokens()['access_token']}"}
    assert visitor.http.post("/oidc/me", headers=headers).json()["sub"] == "alice"


def _resource_token(visitor):
    return visitor.tokens(resource=SHOP, exchange={"resource": SHOP})["access_token"]


def _suspended(visitor):
    token = visitor.tokens()["access_token"]
    visitor.provider.suspend("alice")
    return token


def _expired(visitor):
    token = visitor.tokens()["access_token"]
    visitor.provider._core.clock.now += 3600
    return token


@pytest.mark.parametrize(
    ("make", "error", "status"),
    [
        (lambda visitor: "unknown", "invalid_token", 401),
        (_resource_token, "invalid_token", 401),
        (_suspended, "invalid_token", 401),
        (_expired, "invalid_token", 401),
        (lambda visitor: visitor.tokens(scope="profile")["access_token"], "insufficient_scope", 403),
    ],
)
def test_userinfo_refuses(visit, make, error, status):
    """Each kind of wrong token has its code and a challenge (RFC 6750 §3)."""
    visitor = visit()
    response = visitor.userinfo(make(visitor))
    assert (response.status_code, response.json()["error"]) == (status, error)
    assert response.headers["www-authenticate"].startswith("Bearer ")


@pytest.mark.parametrize("header", [None, "Basic {}", "Bearer", "{}"])
def test_userinfo_needs_a_bearer_token(visit, header):
    """Without one, or with one under another scheme, it is 401."""
    visitor = visit()
    headers = {"Authorization": header.format(visitor.tokens()["access_token"])} if header else {}
    assert visitor.http.get("/oidc/me", headers=headers).status_code == 401


@pytest.mark.parametrize("kind", ["refresh_token", "access_token"])
def test_revocation_ends_the_grant(visit, kind):
    """Refresh token and access token die together; a second revocation is no error."""
    visitor = visit()
    tokens = visitor.tokens()
    answer = visitor.post("/oidc/token/revocation", token=tokens[kind])
    assert (answer.status_code, answer.content) == (200, b"")
    assert visitor.refresh(tokens["refresh_token"]).json()["error"] == "invalid_grant"
    assert visitor.userinfo(tokens["access_token"]).status_code == 401
    assert visitor.post("/oidc/token/revocation", token=tokens[kind]).status_code == 200


def test_revocation_of_another_apps_token_does_nothing(visit):
    """The answer is 200 and the token goes on working."""
    visitor = visit()
    token = visitor.tokens()["refresh_token"]
    other = visit("heard", visitor.provider)
    assert other.post("/oidc/token/revocation", token=token).status_code == 200
    assert visitor.refresh(token).status_code == 200


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({}, "invalid_request"),
        ({"token": ["a", "b"]}, "invalid_request"),
        ({"token": "eyJhbGciOiJFUzM4NCJ9.e30.c2ln"}, "unsupported_token_type"),
    ],
)
def test_revocation_refuses(visit, fields, error):
    """A token is needed, once, and not a JWT."""
    response = visit().post("/oidc/token/revocation", **fields)
    assert (response.status_code, response.json()["error"]) == (400, error)


def end(visitor, **params):
    """Go to the end of the session."""
    return visitor.http.get("/oidc/session/end?" + urlencode(params, doseq=True))


@pytest.mark.parametrize("by", ["client_id", "id_token_hint"])
def test_sign_out_ends_the_session_for_every_app(visit, clock, by):
    """The browser goes home with state, is asked again, and an expired hint will do."""
    visitor = visit()
    tokens = visitor.tokens()
    clock.now += 7200
    who = {"client_id": "web"} if by == "client_id" else {"id_token_hint": tokens["id_token"]}
    answer = end(visitor, post_logout_redirect_uri=HOME, state="s", **who)
    assert (answer.status_code, answer.headers["location"]) == (303, HOME + "?state=s")
    assert visitor.authorize().status_code == 200


def test_the_session_is_gone_at_the_provider_too(visit):
    """A browser that kept its cookie is asked again as well."""
    visitor = visit()
    visitor.code()
    kept = dict(visitor.http.cookies)
    end(visitor, client_id="web")
    visitor.http.cookies.update(kept)
    assert visitor.authorize().status_code == 200


def test_refresh_tokens_with_offline_access_survive_sign_out(visit):
    """Those with offline_access live on; an access token of a grant without it does not."""
    visitor = visit()
    offline, online = visitor.tokens(), visitor.tokens(prompt=None)
    end(visitor, client_id="web")
    assert visitor.refresh(offline["refresh_token"]).status_code == 200
    assert visitor.userinfo(online["access_token"]).status_code == 401


def test_sign_out_without_an_app_ignores_the_address(visit):
    """Neither a hint nor a client: the provider's own page, and the session has ended."""
    visitor = visit()
    visitor.code()
    page = end(visitor, post_logout_redirect_uri="https://evil.example")
    assert page.status_code == 200
    assert "You are signed out" in page.text
    assert visitor.authorize().status_code == 200


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({"client_id": "web", "post_logout_redirect_uri": HOME + "x"}, "invalid_request"),
        ({"client_id": "web", "post_logout_redirect_uri": "https://evil.example"}, "invalid_request"),
        ({"client_id": "nobody", "post_logout_redirect_uri": HOME}, "invalid_client"),
        ({"client_id": ["web", "spa"]}, "invalid_request"),
        ({"id_token_hint": "a.b.c"}, "invalid_request"),
        ({"id_token_hint": "HINT", "client_id": "spa"}, "invalid_request"),
        ({"id_token_hint": "STRANGE"}, "invalid_client"),
    ],
)
def test_sign_out_refuses(visit, params, error):
    """An address, app or hint that does not fit is a page with 400, and nobody is signed out."""
    visitor = visit()
    visitor.code()
    mint = visitor.provider.mint_id_token
    hints = {"HINT": mint("alice"), "STRANGE": mint("alice", aud="nobody")}
    if "id_token_hint" in params:
        params = {**params, "id_token_hint": hints.get(params["id_token_hint"], params["id_token_hint"])}
    page = end(visitor, **params)
    assert page.status_code == 400
    assert error in page.text
    assert visitor.authorize().status_code == 303


def test_a_hint_of_another_provider_is_refused(visit):
    """Its signature is checked."""
    foreign = visit().provider.mint_id_token("alice")
    assert end(visit(), id_token_hint=foreign).status_code == 400


def test_minted_tokens_have_no_sid(visit):
    """A minted ID token is the first client's, and plain."""
    assert "sid" not in decode(visit().provider.mint_id_token("alice"))
