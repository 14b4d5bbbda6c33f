"""Claims keep what the issuer sent, typed where it is known; Logto's names and URNs."""

from __future__ import annotations

from typing import Any

import pytest

from logto_asgi import AccessTokenClaims, IdTokenClaims, UserInfo, UserScope, organization_id_from_urn, organization_urn
from logto_asgi.models import AccessToken, PendingSignIn, SignInOptions, TokenSet

REQUIRED = {"iss": "https://tenant.logto.app/oidc", "sub": "alice", "aud": "app", "exp": 2, "iat": 1}


@pytest.mark.parametrize(
    ("value", "read"), [(True, True), (False, False), (None, None), ("false", None), ("true", None), (1, None)]
)
def test_a_boolean_is_a_boolean(value: Any, read: bool | None) -> None:
    """The string "false" is true for Python; it is not taken for an answer (security line 30)."""
    claims = IdTokenClaims.parse({**REQUIRED, "email_verified": value, "phone_number_verified": value})
    assert claims.email_verified is read
    assert claims.phone_number_verified is read


def test_unknown_claims_are_kept_and_unsent_ones_are_not_invented() -> None:
    """A tenant's own claims are attributes too; what was never sent does not appear as null."""
    claims = IdTokenClaims.parse({**REQUIRED, "name": None, "tenant": {"id": 7}})
    assert claims.raw() == {**REQUIRED, "name": None, "tenant": {"id": 7}}
    assert claims.model_dump() == {**REQUIRED, "name": None, "tenant": {"id": 7}}
    assert claims.nickname is None


def test_claim_of_another_type_is_dropped_and_the_rest_stays() -> None:
    """One odd optional claim does not lock a user out."""
    claims = IdTokenClaims.parse({**REQUIRED, "name": 5, "roles": "admin", "email": "a@example.com"})
    assert (claims.name, claims.roles, claims.email) == (None, None, "a@example.com")


@pytest.mark.parametrize("missing", sorted(REQUIRED))
def test_required_claims_are_named(missing: str) -> None:
    """Without one of them there are no claims, and the error names it and no value."""
    raw = {name: value for name, value in REQUIRED.items() if name != missing}
    with pytest.raises(ValueError, match=missing):
        IdTokenClaims.parse(raw)


def test_userinfo_has_what_logto_adds() -> None:
    """custom_data, identities and organization_data are typed; nulls are kept."""
    raw = {
        "sub": "alice",
        "custom_data": {"a": 1},
        "organization_data": [{"id": "o", "name": "Harbour", "description": None, "plan": "pro"}],
        "picture": None,
        "updated_at": 1_700_000_000_123,
    }
    info = UserInfo.parse(raw)
    assert info.custom_data == {"a": 1}
    assert info.organization_data is not None
    assert (info.organization_data[0].id, info.organization_data[0].name) == ("o", "Harbour")
    assert info.updated_at == 1_700_000_000_123
    assert info.raw() == info.model_dump(mode="json") == raw


def test_organization_urns() -> None:
    """An organization's audience and back; any other text is refused."""
    assert organization_urn("org1") == "urn:logto:organization:org1"
    assert organization_id_from_urn("urn:logto:organization:org1") == "org1"
    for text in ("org1", "urn:logto:organization:", "urn:logto:resource:organizations"):
        with pytest.raises(ValueError, match="organization URN"):
            organization_id_from_urn(text)


def test_scopes_are_plain_strings() -> None:
    """An enumeration's member may stand wherever a scope does."""
    assert UserScope.ORGANIZATIONS == "urn:logto:scope:organizations"
    assert f"{UserScope.EMAIL}" == "email"


def test_no_repr_shows_a_secret() -> None:
    """Tokens, state, nonce and verifier are left out of every repr."""
    values: list[Any] = [
        TokenSet(access_token="hidden-1", refresh_token="hidden-2", id_token="hidden-3"),
        AccessToken(value="hidden-4", expires_at=1),
        PendingSignIn("hidden-5", "hidden-6", "hidden-7", "https://app.example.com/cb", "/", 1),
        SignInOptions(one_time_token="hidden-8"),
    ]
    assert "hidden" not in repr(values)


# -- Access tokens -----------------------------------------------------------------------------------------------------

TOKEN = {**REQUIRED, "client_id": "spa"}


def test_claims_of_an_access_token_are_typed_and_none_is_lost() -> None:
    """A custom claim with a standard name may have another type than the standard's: `raw` has it as it came."""
    raw = {**TOKEN, "scope": "b a", "tier": "gold", "address": "Harbour Road 1", "roles": [{"name": "admin"}]}
    claims = AccessTokenClaims.parse(raw)
    assert claims.scopes == {"a", "b"}
    assert (claims.address, claims.roles) == (None, None)
    assert claims.raw() == raw
    assert claims.model_dump()["tier"] == "gold"
    assert "Harbour Road" not in AccessTokenClaims.parse({**TOKEN, "name": "Alice"}).raw()


@pytest.mark.parametrize(
    ("changes", "organization", "is_for_one"),
    [
        ({}, None, False),
        ({"organization_id": "o"}, "o", True),
        ({"aud": organization_urn("o")}, "o", True),
        ({"aud": [organization_urn("o"), "https://api.example.com"]}, "o", True),
        ({"aud": [organization_urn("o"), organization_urn("p")]}, None, True),
    ],
)
def test_organization_of_an_access_token(changes: dict[str, Any], organization: str | None, is_for_one: bool) -> None:
    """The claim names it, or the audience; of two there is none."""
    claims = AccessTokenClaims.parse({**TOKEN, **changes})
    assert (claims.organization, claims.is_for_organization) == (organization, is_for_one)


def test_machine_and_actor() -> None:
    """A machine's `sub` is its client; who acts for a user is in `act` (RFC 8693 §4.1)."""
    assert AccessTokenClaims.parse({**TOKEN, "sub": "spa"}).is_machine
    claims = AccessTokenClaims.parse({**TOKEN, "act": {"sub": "support"}})
    assert (claims.is_machine, claims.actor) == (False, "support")
    assert AccessTokenClaims.parse({**TOKEN, "act": {"sub": 7}}).actor is None


def test_scopes_and_audiences_are_not_what_custom_claims_say() -> None:
    """A claim of the same name as a property of ours stays a claim."""
    claims = AccessTokenClaims.parse({**TOKEN, "scopes": ["all"], "is_machine": True, "organization": "o"})
    assert (claims.scopes, claims.is_machine, claims.organization) == (frozenset(), False, None)
    assert claims.raw()["scopes"] == ["all"]
