"""The provider of the end-to-end tests behaves as Logto does: facts that the tests of the library stand on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from e2e_provider import APP_ID, SHOP, STOCK, Outcomes, Provider, client
from e2e_visitor import REDIRECT_URI, Visitor, decode, form_of

APP = "http://127.0.0.1:9"
Start = Callable[..., Provider]


@pytest.fixture
def visit(oidc_provider: Start) -> Iterator[Callable[..., Visitor]]:
    """Start a provider with settings and visit it."""
    visitors: list[Visitor] = []

    def start(metadata: dict[str, Any] | None = None, secret: bool = True, **settings: Any) -> Visitor:
        provider = oidc_provider(clients=[client(APP, **(metadata or {}))], **settings)
        visitors.append(Visitor(provider) if secret else Visitor(provider, app_secret=None))
        return visitors[-1]

    yield start
    for visitor in visitors:
        visitor.close()


def test_discovery_promises_what_logto_promises(visit):
    """Issuer and endpoints lie under /oidc, ID tokens are ES384 only, and the call-back names its issuer."""
    visitor = visit()
    issuer = visitor.provider.issuer

    document = visitor.app.get(".well-known/openid-configuration").json()

    assert issuer == f"{visitor.provider.endpoint}/oidc"
    assert document["issuer"] == issuer
    assert document["authorization_endpoint"] == f"{issuer}/auth"
    assert document["token_endpoint"] == f"{issuer}/token"
    assert document["userinfo_endpoint"] == f"{issuer}/me"
    assert document["jwks_uri"] == f"{issuer}/jwks"
    assert document["end_session_endpoint"] == f"{issuer}/session/end"
    assert document["revocation_endpoint"] == f"{issuer}/token/revocation"
    assert document["introspection_endpoint"] == f"{issuer}/token/introspection"
    assert document["id_token_signing_alg_values_supported"] == ["ES384"]
    assert document["code_challenge_methods_supported"] == ["S256"]
    assert document["authorization_response_iss_parameter_supported"] is True


def test_the_default_key_is_es384(visit):
    """One EC key on P-384 is published, uncached, and signs the ID token."""
    visitor = visit()

    answer = visitor.app.get("jwks")
    header = decode(visitor.tokens()["id_token"], 0)

    (key,) = answer.json()["keys"]
    assert (key["kty"], key["crv"], key["alg"], "d" in key) == ("EC", "P-384", "ES384", False)
    assert header["alg"] == "ES384"
    assert header["kid"] == key["kid"]
    assert "no-cache" in answer.headers["cache-control"]


def test_an_rsa_key_is_published_without_alg(visit):
    """With SIGNING_KEY=RSA tokens are RS256 and the key in the JWKS does not say so."""
    visitor = visit(SIGNING_KEY="RSA")

    (key,) = visitor.app.get("jwks").json()["keys"]
    tokens = visitor.tokens()

    assert key["kty"] == "RSA"
    assert "alg" not in key
    assert decode(tokens["id_token"], 0)["alg"] == "RS256"


def test_rotated_keys_sign_at_once_and_the_last_one_stays(visit):
    """After a rotation two keys are published, and the new one signs."""
    visitor = visit()
    before = decode(visitor.tokens()["id_token"], 0)["kid"]

    visitor.provider.rotate_keys()

    kids = [key["kid"] for key in visitor.app.get("jwks").json()["keys"]]
    assert len(kids) == 2
    assert before in kids
    assert decode(visitor.tokens()["id_token"], 0)["kid"] == kids[0] != before


def test_a_code_comes_back_with_state_and_issuer(visit):
    """The call-back carries code, state and iss (RFC 9207); the tokens carry nonce and claims."""
    visitor = visit()

    query = visitor.sign_in("alice", scope="openid profile custom_data")
    tokens = visitor.exchange(query["code"])

    claims = decode(tokens["id_token"])
    assert set(query) == {"code", "state", "iss"}
    assert query["state"] == "the-state"
    assert query["iss"] == visitor.provider.issuer == claims["iss"]
    assert (claims["sub"], claims["aud"], claims["nonce"]) == ("alice", APP_ID, "the-nonce")
    assert claims["name"] == "Alice Example"
    assert claims["updated_at"] > 1_000_000_000_000
    assert "custom_data" not in claims
    assert "sid" not in claims


def test_who_is_signed_in_is_not_asked_again(visit):
    """The second authorization of a browser shows no page."""
    visitor = visit()
    visitor.sign_in("alice")

    assert isinstance(visitor.authorize(), str)


def test_a_new_user_registers(visit):
    """first_screen=register shows the register page, and the name given there is in the ID token."""
    visitor = visit()
    page = visitor.authorize(first_screen="register")
    assert isinstance(page, httpx.Response)
    assert "Create account" in page.text

    callback = visitor.submit(page, action="register", name="Nina <New>")

    assert isinstance(callback, str)
    code = str(httpx.URL(callback).params["code"])
    assert decode(visitor.exchange(code)["id_token"])["name"] == "Nina <New>"


def test_names_are_escaped_on_the_sign_in_page(visit):
    """A user's name is text on the page, never markup."""
    page = visit().authorize()

    assert "<b>" not in page.text
    assert "Bob &#60;b&#62;" in page.text


@pytest.mark.parametrize(("prompt", "given"), [("consent", True), ("login consent", True), ("login", False)])
def test_offline_access_needs_prompt_consent(visit, prompt, given):
    """Without consent in the prompt, offline_access is dropped silently: 200 and no refresh token."""
    tokens = visit().tokens(prompt=prompt)

    assert ("refresh_token" in tokens) is given
    assert ("offline_access" in tokens["scope"].split()) is given


def test_pkce_is_checked(visit):
    """A wrong code verifier is invalid_grant."""
    visitor = visit()
    code = visitor.sign_in()["code"]

    answer = visitor.token(
        grant_type="authorization_code", code=code, redirect_uri=REDIRECT_URI, code_verifier="w" * 43
    )

    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")


def test_a_replayed_code_revokes_the_grant(visit):
    """The second exchange of a code is refused, and the first one's refresh token is dead."""
    visitor = visit()
    code = visitor.sign_in()["code"]
    tokens = visitor.exchange(code)

    again = visitor.token(grant_type="authorization_code", code=code, redirect_uri=REDIRECT_URI, code_verifier="v" * 43)

    assert again.json()["error"] == "invalid_grant"
    assert visitor.refresh(tokens["refresh_token"]).json()["error"] == "invalid_grant"


def test_confidential_apps_keep_their_refresh_token_while_it_is_young(visit):
    """Below 70 % of its life the same refresh token comes back, with a fresh ID token of the same nonce."""
    visitor = visit()
    tokens = visitor.tokens()

    refreshed = visitor.refresh(tokens["refresh_token"]).json()

    assert refreshed["refresh_token"] == tokens["refresh_token"]
    assert refreshed["access_token"] != tokens["access_token"]
    assert decode(refreshed["id_token"])["nonce"] == "the-nonce"


def test_public_apps_rotate_every_time(visit):
    """An app without a secret gets a new refresh token with every refresh."""
    visitor = visit({"token_endpoint_auth_method": "none", "client_secret": None}, secret=False)
    tokens = visitor.tokens()

    assert visitor.refresh(tokens["refresh_token"]).json()["refresh_token"] != tokens["refresh_token"]


def test_a_spent_refresh_token_works_within_the_grace(visit):
    """Within REUSE_GRACE a spent token brings another new one, each time."""
    visitor = visit(ROTATE="always", REUSE_GRACE=3600)
    spent = visitor.tokens()["refresh_token"]

    first, second = visitor.refresh(spent).json(), visitor.refresh(spent).json()

    assert len({spent, first["refresh_token"], second["refresh_token"]}) == 3


def test_reuse_after_the_grace_revokes_the_whole_grant(visit):
    """A spent token past the grace is invalid_grant, and takes the newest refresh and access token with it."""
    visitor = visit(ROTATE="always", REUSE_GRACE=0)
    spent = visitor.tokens()["refresh_token"]
    newest = visitor.refresh(spent).json()

    assert visitor.refresh(spent).json()["error"] == "invalid_grant"
    assert visitor.refresh(newest["refresh_token"]).json()["error"] == "invalid_grant"
    assert userinfo(visitor, newest["access_token"]).status_code == 401
    outcomes = visitor.provider.outcomes()
    assert (outcomes.reused, outcomes.revoked, outcomes.errors) == (1, 1, {"invalid_grant": 2})


def test_a_resource_that_was_asked_for_gives_a_jwt(visit):
    """The access token for a resource of the authorization request is an at+jwt for that audience and its scopes."""
    visitor = visit()
    tokens = visitor.tokens(scope="openid offline_access read:items", resource=SHOP)

    access_token = visitor.refresh(tokens["refresh_token"], resource=SHOP).json()["access_token"]

    claims = decode(access_token)
    assert decode(access_token, 0)["typ"] == "at+jwt"
    assert (claims["aud"], claims["client_id"], claims["scope"]) == (SHOP, APP_ID, "read:items")
    assert claims["iss"] == visitor.provider.issuer


def test_a_resource_that_was_not_asked_for_is_refused(visit):
    """At the token endpoint another resource than those of the authorization request is invalid_target."""
    visitor = visit()
    tokens = visitor.tokens(scope="openid offline_access read:items", resource=SHOP)

    assert visitor.refresh(tokens["refresh_token"], resource=STOCK).json()["error"] == "invalid_target"


def test_without_a_resource_the_access_token_is_opaque(visit):
    """The default access token is no JWT and good for userinfo; a resource's JWT is refused there."""
    visitor = visit()
    tokens = visitor.tokens(scope="openid offline_access profile custom_data read:items", resource=SHOP)
    opaque = tokens["access_token"]
    jwt = visitor.refresh(tokens["refresh_token"], resource=SHOP).json()["access_token"]

    assert "." not in opaque
    assert userinfo(visitor, opaque).json()["custom_data"] == {"theme": "dark"}
    assert userinfo(visitor, jwt).status_code == 401


def test_lifetimes_come_from_the_environment(visit):
    """ACCESS_TOKEN_TTL is the access token's expires_in."""
    assert visit(ACCESS_TOKEN_TTL=7).tokens()["expires_in"] == 7


def test_signing_out_ends_the_session_and_comes_back(visit):
    """session/end posts itself, sends the browser to the registered address, and the next sign-in shows a page."""
    visitor = visit()
    refresh_token = visitor.tokens()["refresh_token"]
    page = visitor.http.get("/oidc/session/end", params={"client_id": APP_ID, "post_logout_redirect_uri": APP + "/"})
    action, fields = form_of(page)
    assert "document.forms[0].submit()" in page.text

    back = visitor.walk(visitor.http.post(action, data=fields), until=APP)

    assert back == APP + "/"
    assert isinstance(visitor.authorize(), httpx.Response)
    assert visitor.refresh(refresh_token).status_code == 200, "with offline_access it survives, as in Logto"


def test_an_unregistered_address_after_sign_out_is_refused(visit):
    """session/end sends nobody to an address that the app has not registered."""
    page = visit().http.get(
        "/oidc/session/end", params={"client_id": APP_ID, "post_logout_redirect_uri": "https://evil.example/"}
    )

    assert page.status_code == 400


def test_revoking_the_refresh_token_ends_the_grant(visit):
    """Revocation answers 200, and the opaque access token dies with the refresh token."""
    visitor = visit()
    tokens = visitor.tokens()

    answer = visitor.app.post("token/revocation", data={"token": tokens["refresh_token"]})

    assert (answer.status_code, answer.content) == (200, b"")
    assert userinfo(visitor, tokens["access_token"]).status_code == 401
    assert visitor.refresh(tokens["refresh_token"]).json()["error"] == "invalid_grant"


def test_cancel_in_a_first_party_app_is_access_denied(visit):
    """Who cancels is sent back with error, state and iss."""
    visitor = visit()
    page = visitor.authorize()

    callback = httpx.URL(visitor.submit(page, action="cancel"))

    assert callback.params["error"] == "access_denied"
    assert callback.params["state"] == "the-state"
    assert callback.params["iss"] == visitor.provider.issuer


def test_cancelled_consent_in_a_third_party_app_is_the_bare_callback(visit):
    """A third-party app asks on a page, and cancel there leads to the redirect URI without any parameter."""
    visitor = visit({"third_party": True})
    consent = visitor.submit(visitor.authorize(), sub="alice")
    assert "Allow the-app?" in consent.text

    assert visitor.submit(consent, action="cancel") == REDIRECT_URI


def test_consent_in_a_third_party_app_gives_a_code(visit):
    """Who allows it gets to the app with a code."""
    visitor = visit({"third_party": True})
    consent = visitor.submit(visitor.authorize(), sub="alice")

    assert "code" in httpx.URL(visitor.submit(consent, action="consent")).params


def test_prompt_none_without_a_session_is_login_required(visit):
    """prompt=none never shows a page."""
    callback = visit().authorize(prompt="none", scope="openid")

    assert httpx.URL(callback).params["error"] == "login_required"


def test_a_suspended_user_cannot_refresh(visit):
    """Suspension shows as invalid_grant at the next refresh."""
    visitor = visit()
    tokens = visitor.tokens()

    visitor.provider.suspend("alice")

    assert visitor.refresh(tokens["refresh_token"]).json()["error"] == "invalid_grant"


def test_large_claims(visit):
    """`bea` carries as many bytes of claims in her ID token as BIG_CLAIMS_BYTES says."""
    claims = decode(visit(BIG_CLAIMS_BYTES=5000).tokens("bea")["id_token"])

    assert len(claims["profile"]) == 5000


def test_calls_are_counted_and_can_fail(visit):
    """The controls count by endpoint, fail as often as told, and take the provider away and back."""
    visitor = visit()
    provider = visitor.provider
    tokens = visitor.tokens()
    provider.reset()

    provider.fail("token", status=503, retry_after=7)
    failed, recovered = (visitor.refresh(tokens["refresh_token"]) for _ in range(2))
    counts = provider.counts()
    provider.down()
    with pytest.raises(httpx.TransportError):
        visitor.app.get("jwks")
    provider.up()

    assert (failed.status_code, failed.headers["retry-after"], recovered.status_code) == (503, "7", 200)
    assert counts == {"token": 2, "token:refresh_token": 1}
    assert visitor.app.get("jwks").status_code == 200


ORGANIZATION = {
    "scope": "openid offline_access urn:logto:scope:organizations read:items",
    "resource": ["urn:logto:resource:organizations", SHOP],
}


def test_a_member_gets_an_organization_token(visit):
    """A refresh with organization_id gives a JWT whose audience is the organization, with a fresh ID token."""
    visitor = visit()
    tokens = visitor.tokens("alice", **ORGANIZATION)

    refreshed = visitor.refresh(tokens["refresh_token"], organization_id="org-1").json()

    claims = decode(refreshed["access_token"])
    assert (claims["aud"], claims["sub"]) == ("urn:logto:organization:org-1", "alice")
    assert "organization_id" not in claims
    assert decode(refreshed["id_token"])["organizations"] == ["org-1"]
    assert visitor.provider.outcomes().refreshes == {"|org-1": 1}


def test_an_organization_with_a_resource_is_a_claim(visit):
    """With a resource the audience is the resource, and the organization a claim."""
    visitor = visit()
    tokens = visitor.tokens("alice", **ORGANIZATION)

    refreshed = visitor.refresh(tokens["refresh_token"], organization_id="org-1", resource=SHOP).json()

    claims = decode(refreshed["access_token"])
    assert (claims["aud"], claims["organization_id"], claims["scope"]) == (SHOP, "org-1", "read:items")
    assert visitor.provider.outcomes().refreshes == {f"{SHOP}|org-1": 1}


def test_a_stranger_to_an_organization_is_refused_and_keeps_the_token(visit):
    """Who is no member gets 403 access_denied, and the refresh token is not spent by it."""
    visitor = visit(ROTATE="always", REUSE_GRACE=0)
    tokens = visitor.tokens("bob", **ORGANIZATION)

    refused = visitor.refresh(tokens["refresh_token"], organization_id="org-1")

    assert (refused.status_code, refused.json()["error"]) == (403, "access_denied")
    assert visitor.refresh(tokens["refresh_token"]).status_code == 200


def test_an_organization_needs_its_scope(visit):
    """Without the organizations scope in the refresh token it is 403 insufficient_scope."""
    visitor = visit()
    tokens = visitor.tokens("alice", scope="openid offline_access", resource="urn:logto:resource:organizations")

    refused = visitor.refresh(tokens["refresh_token"], organization_id="org-1")

    assert (refused.status_code, refused.json()["error"]) == (403, "insufficient_scope")


def test_an_organization_at_the_code_exchange_is_ignored(visit):
    """The code exchange answers with the opaque token, as if nothing had been asked."""
    visitor = visit()

    tokens = visitor.exchange(visitor.sign_in("alice", **ORGANIZATION)["code"], organization_id="org-1")

    assert "." not in tokens["access_token"]


def test_two_uses_at_once_are_a_reuse(visit):
    """Of two refreshes with one token that overtake each other one is refused, and counted as a reuse."""
    visitor = visit(ROTATE="always", REUSE_GRACE=0)
    spent = visitor.tokens()["refresh_token"]
    visitor.provider.hold("token", times=2)

    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(visitor.refresh, spent) for _ in range(2)]
        visitor.provider.wait_for_held("token", calls=2)
        visitor.provider.release("token")
        first, second = sorted((answer.result() for answer in answers), key=lambda answer: answer.status_code)

    assert (first.status_code, second.json()["error"]) == (200, "invalid_grant")
    outcomes = visitor.provider.outcomes()
    assert (outcomes.refreshed, outcomes.reused, outcomes.errors) == (1, 1, {"invalid_grant": 1})


def test_a_lost_answer_has_been_processed(visit):
    """Cut after processing, the token is spent; cut before it, it is not."""
    visitor = visit(ROTATE="always", REUSE_GRACE=0)
    token = visitor.tokens()["refresh_token"]

    visitor.provider.cut("token")
    with pytest.raises(httpx.TransportError):
        visitor.refresh(token)
    unprocessed = visitor.refresh(token)
    visitor.provider.cut("token", phase="after")
    with pytest.raises(httpx.TransportError):
        visitor.refresh(unprocessed.json()["refresh_token"])

    assert unprocessed.status_code == 200
    assert visitor.refresh(unprocessed.json()["refresh_token"]).json()["error"] == "invalid_grant"


def test_a_late_answer_is_whole(visit):
    """An answer that is held after processing arrives as it was decided, and is counted before."""
    visitor = visit(ROTATE="always")
    token = visitor.tokens()["refresh_token"]
    visitor.provider.hold("token", phase="after")

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(visitor.refresh, token)
        visitor.provider.wait_for_held("token", phase="after")
        decided = visitor.provider.outcomes()
        visitor.provider.release("token", phase="after")

    assert decided == Outcomes(refreshes={"|": 1}, errors={}, reused=0, revoked=0)
    assert answer.result().json()["refresh_token"] != token


def test_https(oidc_provider, tls):
    """With a certificate the issuer is https, and its endpoints with it."""
    provider = oidc_provider(clients=[client(APP)], tls=tls)

    document = httpx.get(f"{provider.issuer}/.well-known/openid-configuration", verify=tls.context()).json()

    assert provider.issuer.startswith("https://localhost:")
    assert document["token_endpoint"] == f"{provider.issuer}/token"


def userinfo(visitor: Visitor, access_token: str) -> httpx.Response:
    return httpx.get(f"{visitor.provider.issuer}/me", headers={"authorization": f"Bearer {access_token}"})
