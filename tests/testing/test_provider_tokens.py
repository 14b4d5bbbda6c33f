"""Facts about the token endpoint of the development provider."""

from __future__ import annotations

import base64
from urllib.parse import urlencode

import pytest
from provider_visitor import CALLBACK, ORGANIZATIONS, OTHER, SECRETS, SHOP, VERIFIER, basic, decode, refused

from logto_asgi.testing import DemoUser, Organization

ISSUER = "http://localhost:3001/oidc"


def test_the_answer_to_a_code(visit, clock):
    """Token type, lifetime, scopes, a refresh token, and an ID token as Logto's."""
    tokens = visit().tokens(scope="openid offline_access profile")
    assert tokens["token_type"] == "Bearer"
    assert tokens["expires_in"] == 3600
    assert tokens["scope"] == "offline_access openid profile"
    assert tokens["access_token"].count(".") == 0
    assert set(decode(tokens["id_token"], 0)) == {"alg", "kid"}
    assert decode(tokens["id_token"]) == {
        "sub": "alice",
        "name": "Alice Martin",
        "picture": None,
        "username": "alice",
        "created_at": int(clock.now * 1000),
        "updated_at": int(clock.now * 1000),
        "nonce": "the-nonce",
        "iss": ISSUER,
        "aud": "web",
        "iat": int(clock.now),
        "exp": int(clock.now) + 3600,
    }


def test_scopes_bring_claims(visit):
    """E-mail, roles and organizations are in the ID token when their scopes were asked for."""
    scope = "openid email phone roles urn:logto:scope:organizations urn:logto:scope:organization_roles custom_data"
    claims = decode(visit().tokens(scope=scope)["id_token"])
    assert (claims["email"], claims["email_verified"]) == ("alice@example.com", True)
    assert claims["phone_number"] is None
    assert claims["roles"] == ["admin"]
    assert claims["organizations"] == ["harbour"]
    assert claims["organization_roles"] == ["harbour:admin"]
    assert not {"custom_data", "organization_data", "name"} & claims.keys()


def test_no_id_token_without_openid(visit):
    """Without the scope there is no ID token."""
    assert "id_token" not in visit().tokens(scope="profile")


def test_sid_only_for_an_app_with_back_channel_logout(visit):
    """It stays the same over refreshes, and is another one for another session."""
    visitor = visit("heard")
    tokens = visitor.tokens()
    sid = decode(tokens["id_token"])["sid"]
    assert decode(visitor.refresh(tokens["refresh_token"]).json()["id_token"])["sid"] == sid
    assert decode(visitor.tokens()["id_token"])["sid"] == sid
    visitor.http.cookies.clear()
    assert decode(visitor.tokens()["id_token"])["sid"] != sid
    assert "sid" not in decode(visit().tokens()["id_token"])


# Client authentication


@pytest.mark.parametrize("method", ["basic", "post"])
def test_a_confidential_app_authenticates_by_header_or_form(visit, method):
    """Either way works, with characters that have to be encoded."""
    visitor = visit()
    secret = SECRETS["web"]
    code = {"grant_type": "authorization_code", "code": visitor.code(), "redirect_uri": CALLBACK}
    form = {"client_id": "web", "client_secret": secret} if method == "post" else {}
    headers = basic("web", secret) if method == "basic" else {}
    assert visitor.token(headers, code_verifier=VERIFIER, **code, **form).status_code == 200


def test_a_public_app_sends_its_id_alone(visit):
    """The method `none` works for it."""
    assert visit("spa").tokens()["access_token"]


GOOD = ("web", SECRETS["web"])


@pytest.mark.parametrize(
    ("headers", "form", "error", "status"),
    [
        (basic("web", "wrong"), {}, "invalid_client", 401),
        ({}, {"client_id": "web", "client_secret": "wrong"}, "invalid_client", 401),
        ({}, {"client_id": "web"}, "invalid_client", 401),
        (basic("spa", "anything"), {}, "invalid_client", 401),
        ({}, {"client_id": "spa", "client_secret": "anything"}, "invalid_client", 401),
        (basic("nobody", "x"), {}, "invalid_client", 400),
        ({}, {"client_id": "nobody"}, "invalid_client", 400),
        ({}, {}, "invalid_request", 400),
        (basic("late", "late-secret"), {}, "invalid_request", 400),
        (basic(*GOOD), {"client_id": "web", "client_secret": GOOD[1]}, "invalid_request", 400),
        (basic(*GOOD), {"client_id": "spa"}, "invalid_request", 400),
        ({"Authorization": "Basic !"}, {}, "invalid_request", 400),
        ({"Authorization": "Basic " + base64.b64encode(b"web").decode()}, {}, "invalid_request", 400),
        ({"Authorization": basic(*GOOD)["Authorization"].replace("Basic", "Bearer")}, {}, "invalid_request", 400),
    ],
)
@pytest.mark.parametrize("path", ["/oidc/token", "/oidc/token/revocation"])
def test_a_client_that_is_refused(visit, path, headers, form, error, status):
    """Each wrong way to authenticate has Logto's code and status; 401 comes with a challenge."""
    response = visit().post(path, headers, grant_type="refresh_token", refresh_token="x", token="x", **form)
    assert refused(response, error, status)
    assert ("www-authenticate" in response.headers) == (status == 401)


# Authorization code


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"grant_type": None}, "invalid_request"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"grant_type": "client_credentials"}, "unauthorized_client"),
        ({"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange"}, "unauthorized_client"),
        ({"code": None}, "invalid_request"),
        ({"code": ["a", "b"]}, "invalid_request"),
        ({"redirect_uri": None}, "invalid_request"),
        ({"code": "unknown"}, "invalid_grant"),
        ({"redirect_uri": CALLBACK + "/"}, "invalid_grant"),
        ({"code_verifier": None}, "invalid_grant"),
        ({"code_verifier": "w" * 43}, "invalid_grant"),
        ({"resource": "https://unknown.example.com"}, "invalid_target"),
        ({"resource": SHOP}, "invalid_target"),
    ],
)
def test_a_code_exchange_that_is_refused(visit, changes, error):
    """Each fault has its code."""
    visitor = visit()
    assert refused(visitor.exchange(visitor.code(), **changes), error)


def test_a_code_of_another_app(visit):
    """It is invalid_grant."""
    visitor = visit()
    code = visitor.code()
    visitor.app_id = "heard"
    assert refused(visitor.exchange(code), "invalid_grant")


def test_a_verifier_without_a_challenge(visit):
    """It is refused too, so that PKCE cannot be taken out on the way."""
    visitor = visit()
    code = visitor.code(code_challenge=None, code_challenge_method=None)
    assert refused(visitor.exchange(code), "invalid_grant")


def test_a_code_lives_60_seconds(visit, clock):
    """At 60 seconds it is over."""
    visitor = visit()
    first, second = visitor.code(), visitor.code()
    clock.now += 59
    assert visitor.exchange(first).status_code == 200
    clock.now += 1
    assert refused(visitor.exchange(second), "invalid_grant")


def test_a_wrong_verifier_does_not_burn_the_code(visit):
    """The right one succeeds afterwards."""
    visitor = visit()
    code = visitor.code()
    visitor.exchange(code, code_verifier="w" * 43)
    assert visitor.exchange(code).status_code == 200


def test_a_replayed_code_ends_the_grant(visit):
    """The tokens of the first exchange are revoked (RFC 6749 §4.1.2)."""
    visitor = visit()
    code = visitor.code()
    tokens = visitor.exchange(code).json()
    assert refused(visitor.exchange(code), "invalid_grant")
    assert refused(visitor.refresh(tokens["refresh_token"]), "invalid_grant")
    assert visitor.userinfo(tokens["access_token"]).status_code == 401


# Refresh


@pytest.mark.parametrize(
    ("changes", "error", "status"),
    [
        ({"refresh_token": None}, "invalid_request", 400),
        ({"refresh_token": "unknown"}, "invalid_grant", 400),
        ({"scope": "openid phone"}, "invalid_scope", 400),
        ({"scope": ["openid", "openid"]}, "invalid_request", 400),
        ({"resource": OTHER}, "invalid_target", 400),
        ({"organization_id": "unknown"}, "access_denied", 403),
    ],
)
def test_a_refresh_that_is_refused(visit, changes, error, status):
    """Each fault has its code, and the refresh token goes on working."""
    visitor = visit()
    token = visitor.tokens(resource=SHOP)["refresh_token"]
    fields = {"grant_type": "refresh_token", "refresh_token": token, **changes}
    assert refused(visitor.token(**fields), error, status)
    assert visitor.refresh(token).status_code == 200


def test_a_refresh_token_of_another_app(visit):
    """It is invalid_grant."""
    visitor = visit()
    token = visitor.tokens()["refresh_token"]
    visitor.app_id = "heard"
    assert refused(visitor.refresh(token), "invalid_grant")


def test_a_refresh_token_lives_14_days(visit, clock):
    """Then it is invalid_grant."""
    visitor = visit(rotate="never")
    token = visitor.tokens()["refresh_token"]
    clock.now += 14 * 86400 - 1
    assert visitor.refresh(token).status_code == 200
    clock.now += 1
    assert refused(visitor.refresh(token), "invalid_grant")


@pytest.mark.parametrize(
    ("rotate", "app_id", "age", "rotates"),
    [
        ("logto", "web", 0, False),
        ("logto", "web", 0.69, False),
        ("logto", "web", 0.7, True),
        ("logto", "spa", 0, True),
        ("always", "web", 0, True),
        ("never", "spa", 0.9, False),
    ],
)
def test_rotation(visit, clock, rotate, app_id, age, rotates):
    """Logto rotates for public apps always, for confidential ones past 70 % of the life; both can be forced."""
    visitor = visit(app_id, rotate=rotate)
    token = visitor.tokens()["refresh_token"]
    clock.now += age * 14 * 86400
    answer = visitor.refresh(token).json()
    assert (answer["refresh_token"] != token) == rotates


def test_a_spent_refresh_token_works_for_the_grace_period(visit, clock):
    """Each use within 3 seconds brings another new token, and the grant lives on."""
    visitor = visit("spa")
    spent = visitor.tokens()["refresh_token"]
    first = visitor.refresh(spent).json()["refresh_token"]
    clock.now += 3
    second = visitor.refresh(spent).json()["refresh_token"]
    assert len({spent, first, second}) == 3
    assert visitor.refresh(first).status_code == 200
    assert visitor.refresh(second).status_code == 200


def test_a_spent_refresh_token_ends_the_grant_after_the_grace_period(visit, clock):
    """Reuse is taken for a theft: the newest refresh token and the opaque access token die as well."""
    visitor = visit("spa")
    tokens = visitor.tokens()
    newest = visitor.refresh(tokens["refresh_token"]).json()
    clock.now += 3.1
    assert refused(visitor.refresh(tokens["refresh_token"]), "invalid_grant")
    assert refused(visitor.refresh(newest["refresh_token"]), "invalid_grant")
    assert visitor.userinfo(newest["access_token"]).status_code == 401


def test_without_grace_every_reuse_ends_the_grant(visit, clock):
    """`grace=0` and a moment later."""
    visitor = visit("spa", grace=0)
    spent = visitor.tokens()["refresh_token"]
    visitor.refresh(spent)
    clock.now += 0.001
    assert refused(visitor.refresh(spent), "invalid_grant")


def test_a_refreshed_id_token_keeps_the_nonce(visit, clock):
    """The nonce is the original one, the times are new, and claims are current."""
    visitor = visit()
    token = visitor.tokens()["refresh_token"]
    visitor.provider.set_claims("alice", name="Alice Berg")
    clock.now += 100
    claims = decode(visitor.refresh(token).json()["id_token"])
    assert (claims["nonce"], claims["iat"], claims["name"]) == ("the-nonce", int(clock.now), "Alice Berg")


def test_a_narrower_scope(visit):
    """It drops claims; without openid there is no ID token; the next refresh has everything again."""
    visitor = visit()
    token = visitor.tokens()["refresh_token"]
    narrow = visitor.refresh(token, scope="openid email").json()
    assert "name" not in decode(narrow["id_token"])
    assert narrow["scope"] == "email openid"
    assert "id_token" not in visitor.refresh(token, scope="profile").json()
    assert "name" in decode(visitor.refresh(token).json()["id_token"])


def test_a_suspended_user_cannot_refresh(visit):
    """It is invalid_grant, until the user is let in again."""
    visitor = visit()
    token = visitor.tokens()["refresh_token"]
    visitor.provider.suspend("alice")
    assert refused(visitor.refresh(token), "invalid_grant")
    visitor.provider.suspend("alice", False)
    assert visitor.refresh(token).status_code == 200


# Resources and organizations


def test_a_resource_token_is_a_jwt(visit, clock):
    """Its header and claims are Logto's, at the code exchange and at a refresh."""
    visitor = visit()
    tokens = visitor.tokens(resource=[SHOP, OTHER], exchange={"resource": SHOP})
    assert decode(tokens["access_token"], 0)["typ"] == "at+jwt"
    claims = decode(tokens["access_token"])
    assert claims.pop("jti")
    assert claims == {
        "iss": ISSUER,
        "aud": SHOP,
        "sub": "alice",
        "client_id": "web",
        "iat": int(clock.now),
        "exp": int(clock.now) + 3600,
        "scope": "read:items write:items",
    }
    assert tokens["scope"] == "read:items write:items"
    assert decode(visitor.refresh(tokens["refresh_token"], resource=OTHER).json()["access_token"])["aud"] == OTHER


@pytest.mark.parametrize(
    "fields", [{}, {"resource": [SHOP, OTHER]}, {"organization_id": "harbour"}, {"organization_id": "unknown"}]
)
def test_the_code_exchange_answers_an_opaque_token(visit, fields):
    """Without a resource, with two, and with an organization, which it ignores."""
    tokens = visit().tokens(resource=[SHOP, OTHER], exchange=fields)
    assert tokens["access_token"].count(".") == 0


def test_two_resources_at_a_refresh_answer_an_opaque_token(visit):
    """There is no error."""
    visitor = visit()
    token = visitor.tokens(resource=[SHOP, OTHER])["refresh_token"]
    assert visitor.refresh(token, resource=[SHOP, OTHER]).json()["access_token"].count(".") == 0


def test_scopes_of_a_resource(visit):
    """They are what was asked, what the resource has and what the user may; none of them leaves `scope` out."""
    users = [DemoUser("u", "U", permissions={SHOP: ["write:items"]})]
    visitor = visit(users=users)
    tokens = visitor.tokens("u", resource=[SHOP, OTHER], exchange={"resource": SHOP})
    assert decode(tokens["access_token"])["scope"] == "write:items"
    answer = visitor.refresh(tokens["refresh_token"], resource=OTHER).json()
    assert "scope" not in decode(answer["access_token"])
    assert "scope" not in answer


def test_an_organization_token(visit):
    """Its audience is the organization's URN; its scopes are the roles' and need the resource of organizations."""
    visitor = visit()
    token = visitor.tokens(resource=ORGANIZATIONS)["refresh_token"]
    claims = decode(visitor.refresh(token, organization_id="harbour").json()["access_token"])
    assert (claims["aud"], claims["scope"]) == ("urn:logto:organization:harbour", "read:items write:items")
    token = visitor.tokens()["refresh_token"]
    claims = decode(visitor.refresh(token, organization_id="harbour").json()["access_token"])
    assert claims["aud"] == "urn:logto:organization:harbour"
    assert "scope" not in claims


def test_a_token_for_a_resource_in_an_organization(visit):
    """Its audience is the resource, with the claim organization_id and the scopes of the member's roles."""
    visitor = visit()
    tokens = visitor.tokens("bob", resource=SHOP)
    answer = visitor.refresh(tokens["refresh_token"], resource=SHOP, organization_id="harbour").json()
    claims = decode(answer["access_token"])
    assert (claims["aud"], claims["organization_id"], claims["scope"]) == (SHOP, "harbour", "read:items")


def test_an_organization_needs_its_scope(visit):
    """Without urn:logto:scope:organizations it is insufficient_scope."""
    visitor = visit()
    token = visitor.tokens(scope="openid offline_access")["refresh_token"]
    assert refused(visitor.refresh(token, organization_id="harbour"), "insufficient_scope", 403)


def test_an_organization_needs_a_member(visit):
    """Somebody else is refused with access_denied."""
    visitor = visit(organizations=[Organization("o", "O", members={"bob": ()})])
    token = visitor.tokens("alice")["refresh_token"]
    assert refused(visitor.refresh(token, organization_id="o"), "access_denied", 403)


def test_a_refused_resource_spends_a_rotating_refresh_token(visit, clock):
    """The engine rotates before it looks at the resource: the new token is lost, the spent one has its grace."""
    visitor = visit("spa")
    token = visitor.tokens()["refresh_token"]
    assert refused(visitor.refresh(token, resource=SHOP), "invalid_target")
    clock.now += 3.1
    assert refused(visitor.refresh(token), "invalid_grant")


# Requests that are no proper form


def test_a_body_that_is_no_form(visit):
    """Whatever the body says, another content type than a form's is refused."""
    visitor = visit("spa")
    form = {"grant_type": "refresh_token", "client_id": "spa", "refresh_token": visitor.tokens()["refresh_token"]}
    headers = {"Content-Type": "text/plain"}
    assert refused(visitor.http.post("/oidc/token", content=urlencode(form), headers=headers), "invalid_request")
    assert visitor.http.post("/oidc/token", data=form).status_code == 200


def test_a_body_that_is_too_large(visit):
    """More than 64 KiB is refused."""
    assert refused(visit().token(grant_type="x" * 70_000), "invalid_request", 413)


def test_get_is_not_allowed(visit):
    """The token endpoint is for POST."""
    assert visit().http.get("/oidc/token").status_code == 405
