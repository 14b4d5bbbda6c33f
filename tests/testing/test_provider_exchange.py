"""Facts about token exchange at the development provider (RFC 8693)."""

from __future__ import annotations

import pytest
from provider_visitor import OTHER, SHOP, decode, refused

from logto_asgi.testing import DemoUser

ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
IMPERSONATION = "urn:logto:token-type:impersonation_token"
PERSONAL = "urn:logto:token-type:personal_access_token"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"


def exchange(visitor, token, kind=IMPERSONATION, **fields):
    """Exchange a token as the visitor's app."""
    return visitor.token(grant_type=EXCHANGE, subject_token=token, subject_token_type=kind, **fields)


@pytest.fixture
def trader(visit):
    """An app that may exchange tokens."""
    return visit("trader")


@pytest.fixture
def subjects(trader):
    """A maker of subject tokens by kind."""
    provider = trader.provider
    return {
        ACCESS_TOKEN: lambda sub: provider.mint_access_token(sub, resource=OTHER, client_id="web"),
        "opaque": lambda sub: provider.opaque_access_token(sub, client_id="web"),
        IMPERSONATION: provider.impersonation_token,
        PERSONAL: provider.personal_access_token,
    }


@pytest.mark.parametrize("kind", [ACCESS_TOKEN, "opaque", IMPERSONATION, PERSONAL])
def test_each_kind_of_subject_token(trader, subjects, kind):
    """The answer is an access token of the user for the app that exchanged, and nothing else."""
    kind, token = ACCESS_TOKEN if kind == "opaque" else kind, subjects[kind]("bob")
    answer = exchange(trader, token, kind, resource=SHOP, scope="read:items unknown").json()
    claims = decode(answer.pop("access_token"))
    assert answer == {"expires_in": 3600, "scope": "read:items", "token_type": "Bearer"}
    assert (claims["sub"], claims["client_id"], claims["aud"]) == ("bob", "trader", SHOP)
    assert claims["scope"] == "read:items"
    assert "act" not in claims


def test_an_impersonation_token_works_once(trader):
    """The second exchange is invalid_grant; one that was refused for another reason spent nothing."""
    token = trader.provider.impersonation_token("alice")
    assert refused(exchange(trader, token, resource="https://unknown.example.com"), "invalid_target")
    assert exchange(trader, token, resource=SHOP).status_code == 200
    assert refused(exchange(trader, token, resource=SHOP), "invalid_grant")


def test_an_impersonation_token_lives_600_seconds(trader, clock):
    """At 600 seconds it is over."""
    first, second = (trader.provider.impersonation_token("alice") for _ in range(2))
    clock.now += 599
    assert exchange(trader, first, resource=SHOP).status_code == 200
    clock.now += 1
    assert refused(exchange(trader, second, resource=SHOP), "invalid_grant")


def test_a_personal_access_token_works_until_it_is_revoked(trader, clock):
    """It does not expire, and a test can end it."""
    token = trader.provider.personal_access_token("alice")
    clock.now += 365 * 86400
    assert exchange(trader, token, PERSONAL, resource=SHOP).status_code == 200
    assert exchange(trader, token, PERSONAL, resource=SHOP).status_code == 200
    trader.provider.revoke_token(token)
    assert refused(exchange(trader, token, PERSONAL, resource=SHOP), "invalid_grant")


@pytest.mark.parametrize("made_as", [ACCESS_TOKEN, IMPERSONATION, PERSONAL])
@pytest.mark.parametrize("sent_as", [ACCESS_TOKEN, IMPERSONATION, PERSONAL, "urn:unknown"])
def test_a_subject_token_has_one_kind(trader, subjects, made_as, sent_as):
    """Sent under another type it is invalid_grant."""
    answer = exchange(trader, subjects[made_as]("alice"), sent_as, resource=SHOP)
    assert answer.status_code == 200 if made_as == sent_as else refused(answer, "invalid_grant")


def test_access_tokens_that_are_not_exchanged(trader, clock):
    """An ID token, an expired token, one of another issuer, of a machine and of somebody unknown are refused."""
    mint = trader.provider.mint_access_token
    for token in (
        trader.provider.mint_id_token("alice"),
        mint("alice", resource=SHOP, exp=int(clock.now)),
        mint("alice", resource=SHOP, iss="https://other.example.com/oidc"),
        mint("robot", resource=SHOP, client_id="robot"),
        mint("nobody", resource=SHOP),
        mint("alice", resource=SHOP)[:-8] + "AAAAAAAA",
        "anything",
    ):
        assert refused(exchange(trader, token, ACCESS_TOKEN, resource=SHOP), "invalid_grant")


def test_a_suspended_user(trader, subjects):
    """Nothing of it is exchanged."""
    tokens = {kind: subjects[kind]("alice") for kind in (ACCESS_TOKEN, IMPERSONATION, PERSONAL)}
    trader.provider.suspend("alice")
    for kind, token in tokens.items():
        assert refused(exchange(trader, token, kind, resource=SHOP), "invalid_grant")


def test_without_a_resource_the_token_is_opaque(trader):
    """It is good for userinfo when its scopes have openid, and has no refresh token."""
    token = trader.provider.personal_access_token("alice")
    answer = exchange(trader, token, PERSONAL, scope="openid email read:items").json()
    assert (answer["access_token"].count("."), answer["scope"]) == (0, "email openid")
    assert trader.userinfo(answer["access_token"]).json()["email"] == "alice@example.com"
    assert exchange(trader, token, PERSONAL).json()["scope"] == ""


def test_scopes_are_what_the_user_may(visit):
    """Permissions of the user limit them, and without a scope there is none."""
    trader = visit("trader", users=[DemoUser("u", "U", permissions={SHOP: ["write:items"]})])
    token = trader.provider.personal_access_token("u")
    both = "read:items write:items"
    assert exchange(trader, token, PERSONAL, resource=SHOP, scope=both).json()["scope"] == "write:items"
    assert "scope" not in decode(exchange(trader, token, PERSONAL, resource=SHOP).json()["access_token"])


def test_organizations(trader):
    """A member gets a token for the organization, or for a resource there; somebody else is refused."""
    token, scope = trader.provider.personal_access_token("bob"), "read:items manage:members"
    own = decode(exchange(trader, token, PERSONAL, organization_id="harbour", scope=scope).json()["access_token"])
    assert (own["aud"], own["scope"]) == ("urn:logto:organization:harbour", "read:items")
    fields = {"organization_id": "harbour", "resource": SHOP, "scope": scope}
    both = decode(exchange(trader, token, PERSONAL, **fields).json()["access_token"])
    assert (both["aud"], both["organization_id"], both["scope"]) == (SHOP, "harbour", "read:items")
    token = trader.provider.impersonation_token("zoe")
    assert refused(exchange(trader, token, organization_id="harbour"), "access_denied", 403)
    assert refused(exchange(trader, token, organization_id="unknown"), "access_denied", 403)


def test_an_actor(trader):
    """An opaque token with openid names who acts; the token says so, the opaque one at introspection."""
    provider = trader.provider
    actor = {"actor_token": provider.opaque_access_token("zoe", scopes=["openid"]), "actor_token_type": ACCESS_TOKEN}
    token = provider.personal_access_token("bob")
    claims = decode(exchange(trader, token, PERSONAL, resource=SHOP, **actor).json()["access_token"])
    assert (claims["sub"], claims["act"]) == ("bob", {"sub": "zoe"})
    opaque = exchange(trader, token, PERSONAL, **actor).json()["access_token"]
    assert trader.post("/oidc/token/introspection", token=opaque).json()["act"] == {"sub": "zoe"}


def test_actors_that_are_refused(trader):
    """A JWT, a token without openid, another type and none at all are invalid_grant and spend nothing."""
    provider, token = trader.provider, trader.provider.impersonation_token("bob")
    good = provider.opaque_access_token("zoe", scopes=["openid"])
    for actor, kind in (
        (provider.mint_access_token("zoe", resource=SHOP, scopes=["openid"]), ACCESS_TOKEN),
        (provider.opaque_access_token("zoe"), ACCESS_TOKEN),
        (good, None),
        (good, IMPERSONATION),
    ):
        answer = exchange(trader, token, resource=SHOP, actor_token=actor, actor_token_type=kind)
        assert refused(answer, "invalid_grant")
    assert exchange(trader, token, resource=SHOP).status_code == 200


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"subject_token": None}, "invalid_request"),
        ({"subject_token_type": None}, "invalid_request"),
        ({"subject_token": ["a", "b"]}, "invalid_request"),
        ({"subject_token": "unknown"}, "invalid_grant"),
        ({"resource": [SHOP, OTHER]}, "invalid_target"),
    ],
)
def test_a_request_that_is_refused(trader, fields, error):
    """Each fault has its code."""
    base = {"subject_token": trader.provider.personal_access_token("bob"), "subject_token_type": PERSONAL}
    assert refused(trader.token(**{"grant_type": EXCHANGE, **base, **fields}), error)


@pytest.mark.parametrize("app_id", ["web", "spa", "robot", "agent"])
def test_an_app_that_may_not(visit, app_id):
    """It is unauthorized_client, and so is a third-party app whatever its setting."""
    visitor = visit(app_id)
    assert refused(exchange(visitor, visitor.provider.impersonation_token("bob")), "unauthorized_client")


def test_exchanges_are_counted(trader):
    """The log tells the grant, and keeps no token."""
    token = trader.provider.impersonation_token("alice")
    exchange(trader, token, resource=SHOP)
    assert trader.provider.requests.count("token", EXCHANGE) == 1
    assert token not in repr(list(trader.provider.requests.entries))
