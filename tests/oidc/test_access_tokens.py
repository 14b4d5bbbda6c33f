"""Every access token that is refused and every one that is accepted, one line each (RFC 9068 §2, §4; RFC 8725)."""

from __future__ import annotations

import hmac
import json
import math
from typing import Any

import pytest
from oidc_signing import ABSENT, ISSUER, NONCE, NOW, b64, discovery_document, sign
from oidc_signing import claims as id_token_claims

from logto_asgi.config import LogtoConfig
from logto_asgi.errors import VerificationError
from logto_asgi.oidc.access_tokens import read_introspected_claims, verify_access_token
from logto_asgi.oidc.keys import KeyNotFound, KeySet, parse_key_set
from logto_asgi.oidc.metadata import ProviderMetadata, parse_metadata

API = "https://shopping.example.com/api"
TYP = {"typ": "at+jwt"}
LOGOUT = {"http://schemas.openid.net/event/backchannel-logout": {}}


def claims(**changes: Any) -> dict[str, Any]:
    """Return the claims of a good access token as Logto makes them, with changes."""
    good = {
        "iss": ISSUER,
        "sub": "user-1",
        "aud": API,
        "exp": NOW + 3600,
        "iat": NOW,
        "client_id": "spa-app",
        "jti": "jti-1",
        "scope": "read:items write:items",
    }
    return {name: value for name, value in (good | changes).items() if value is not ABSENT}


def token(
    keys: dict[str, Any], key: str = "es384", /, *, header: Any = None, alg: str = "ES384", **changes: Any
) -> str:
    """Return a token that is right but for the changes."""
    return sign(keys[key], claims(**changes), alg=alg, header={**TYP, **(header or {})})


def raw_payload(keys: dict[str, Any], payload: str) -> str:
    return sign(keys["es384"], payload.encode(), header=TYP)


def with_header(keys: dict[str, Any], head: bytes) -> str:
    return f"{b64(head)}.{token(keys).split('.', 1)[1]}"


def unsigned(head: dict[str, Any]) -> str:
    return f"{b64(json.dumps({**TYP, **head}).encode())}.{b64(json.dumps(claims()).encode())}"


def forged_with_public_key(keys: dict[str, Any]) -> str:
    """Return a token whose HMAC secret is the issuer's public key, in the form in which it is published."""
    signing_input = unsigned({"alg": "HS256", "kid": "rsa"})
    secret = keys["rsa"].as_pem(private=False)
    return f"{signing_input}.{b64(hmac.digest(secret, signing_input.encode(), 'sha256'))}"


def tampered(keys: dict[str, Any]) -> str:
    head, _, signature = token(keys).split(".")
    return f"{head}.{b64(json.dumps(claims(scope='admin')).encode())}.{signature}"


def id_token(keys: dict[str, Any], **header: Any) -> str:
    return sign(keys["es384"], id_token_claims(), header=header)


def logout_token(keys: dict[str, Any], typ: str, **changes: Any) -> str:
    return token(keys, header={"typ": typ}, events=LOGOUT, **changes)


DEEP = '{"x":' * 5_000 + "1" + "}" * 5_000

# id: (how the token is made, the check that refuses it)
REFUSED: dict[str, tuple[Any, str]] = {
    "empty": (lambda k: "", "format"),
    "opaque": (lambda k: "opaque-access-token", "format"),
    "two-parts": (lambda k: token(k).rpartition(".")[0], "format"),
    "encrypted-five-parts": (lambda k: token(k) + ".a.b", "format"),
    "no-signature-part": (lambda k: token(k).rpartition(".")[0] + ".", "format"),
    "space-in-it": (lambda k: token(k) + " ", "format"),
    "nul-in-it": (lambda k: token(k) + "\0", "format"),
    "non-ascii": (lambda k: token(k) + "é", "format"),
    "half-a-surrogate": (lambda k: token(k).replace(".", ".\ud800", 1), "format"),
    "padding": (lambda k: token(k) + "==", "format"),
    "only-dots": (lambda k: "..", "format"),
    "of-100-kb": (lambda k: "a" * 50_000 + "." + "b" * 50_000 + ".c", "size"),
    "token-over-16-kib": (lambda k: token(k, custom="x" * 16_000), "size"),
    "header-over-2-kib": (lambda k: token(k, header={"x5t": "x" * 2_000}), "size"),
    "signature-too-long": (lambda k: token(k) + "A" * 1_400, "size"),
    "header-not-json": (lambda k: with_header(k, b"{alg}"), "format"),
    "header-a-list": (lambda k: with_header(k, b"[]"), "format"),
    "header-nested-beyond-reason": (lambda k: with_header(k, b"[" * 1_500), "format"),
    "header-with-a-huge-number": (lambda k: with_header(k, b'{"alg":' + b"9" * 1_400 + b"}"), "alg"),
    "header-with-a-member-twice": (lambda k: with_header(k, b'{"typ":"JWT","typ":"at+jwt"}'), "format"),
    "header-in-latin-1": (lambda k: with_header(k, '{"alg":"é"}'.encode("latin-1")), "format"),
    "payload-not-json": (lambda k: raw_payload(k, "hello"), "format"),
    "payload-a-list": (lambda k: raw_payload(k, "[]"), "format"),
    "payload-with-a-claim-twice": (
        lambda k: raw_payload(k, json.dumps(claims()).replace("{", '{"scope":"admin",', 1)),
        "format",
    ),
    "payload-with-nan": (lambda k: token(k, custom=math.nan), "format"),
    "payload-with-infinity": (lambda k: raw_payload(k, json.dumps(claims(exp=-1)).replace("-1", "1e999")), "format"),
    "payload-nested-beyond-reason": (lambda k: sign(k["es384"], DEEP[:9_000].encode(), header=TYP), "format"),
    "payload-nested-too-deeply": (lambda k: raw_payload(k, '{"x":' * 40 + "1" + "}" * 40), "format"),
    "payload-with-a-number-beyond-the-interpreter": (lambda k: raw_payload(k, '{"exp":' + "9" * 5_000 + "}"), "format"),
    "alg-none": (lambda k: unsigned({"alg": "none"}) + ".", "format"),
    "alg-none-with-a-signature": (lambda k: unsigned({"alg": "none"}) + ".AAAA", "alg"),
    "alg-absent": (lambda k: token(k, header={"alg": ABSENT}), "alg"),
    "alg-no-string": (lambda k: token(k, header={"alg": ["ES384"]}), "alg"),
    "alg-hmac-with-the-public-key": (forged_with_public_key, "alg"),
    "alg-hmac-with-the-app-secret": (lambda k: token(k, "hmac", alg="HS256"), "alg"),
    "alg-unknown": (lambda k: token(k, header={"alg": "ES999"}), "alg"),
    "key-in-header": (
        lambda k: token(k, "stranger", header={"jwk": k["stranger"].as_dict(private=False)}),
        "header",
    ),
    "header-jku": (lambda k: token(k, header={"jku": "https://evil.example/jwks"}), "header"),
    "header-x5u": (lambda k: token(k, header={"x5u": "https://evil.example/cert"}), "header"),
    "header-x5c": (lambda k: token(k, header={"x5c": ["MII"]}), "header"),
    "header-b64": (lambda k: token(k, header={"b64": True}), "header"),
    "header-crit": (lambda k: token(k, header={"crit": ["kid"]}), "header"),
    "kid-no-string": (lambda k: token(k, header={"kid": 7}), "header"),
    "kid-of-2000-characters": (lambda k: token(k, header={"kid": "k" * 1_100}), "header"),
    "typ-no-string": (lambda k: token(k, header={"typ": ["at+jwt"]}), "header"),
    "typ-absent": (lambda k: token(k, header={"typ": ABSENT}), "typ"),
    "typ-empty": (lambda k: token(k, header={"typ": ""}), "typ"),
    "typ-jwt": (lambda k: token(k, header={"typ": "JWT"}), "typ"),
    "typ-application-jwt": (lambda k: token(k, header={"typ": "application/jwt"}), "typ"),
    "typ-with-a-space": (lambda k: token(k, header={"typ": "at+jwt "}), "typ"),
    "typ-with-another-tree": (lambda k: token(k, header={"typ": "text/at+jwt"}), "typ"),
    "typ-of-a-logout-token": (lambda k: logout_token(k, "logout+jwt"), "typ"),
    "typ-of-introspection": (lambda k: token(k, header={"typ": "token-introspection+jwt"}), "typ"),
    "id-token": (lambda k: id_token(k), "typ"),
    "id-token-that-says-jwt": (lambda k: id_token(k, typ="JWT"), "typ"),
    "id-token-that-says-at-jwt": (lambda k: id_token(k, typ="at+jwt"), "client_id"),
    "id-token-with-all-claims-of-an-access-token": (lambda k: token(k, nonce=NONCE), "nonce"),
    "logout-token-that-says-at-jwt": (lambda k: logout_token(k, "at+jwt"), "events"),
    "events-null": (lambda k: token(k, events=None), "events"),
    "nonce-null": (lambda k: token(k, nonce=None), "nonce"),
    "kid-unknown": (lambda k: token(k, "unpublished"), "kid"),
    "kid-absent-and-two-keys-fit": (lambda k: token(k, "rsa", alg="RS256", header={"kid": ABSENT}), "kid"),
    "key-type-does-not-fit": (lambda k: token(k, header={"kid": "rsa"}), "key"),
    "key-curve-does-not-fit": (lambda k: token(k, header={"kid": "es256"}), "key"),
    "signed-by-a-stranger": (lambda k: token(k, "stranger"), "signature"),
    "payload-tampered": (tampered, "signature"),
    "signature-of-another-alg": (lambda k: token(k, "rsa", alg="RS256", header={"alg": "PS256"}), "signature"),
    "signature-too-short": (lambda k: token(k).rpartition(".")[0] + ".AAAA", "signature"),
    "iss-absent": (lambda k: token(k, iss=ABSENT), "iss"),
    "iss-another": (lambda k: token(k, iss="https://evil.example/oidc"), "iss"),
    "iss-with-a-slash-more": (lambda k: token(k, iss=ISSUER + "/"), "iss"),
    "iss-no-string": (lambda k: token(k, iss=[ISSUER]), "iss"),
    "sub-absent": (lambda k: token(k, sub=ABSENT), "sub"),
    "sub-empty": (lambda k: token(k, sub=""), "sub"),
    "sub-a-number": (lambda k: token(k, sub=7), "sub"),
    "sub-over-255": (lambda k: token(k, sub="x" * 256), "sub"),
    "aud-absent": (lambda k: token(k, aud=ABSENT), "aud"),
    "aud-empty": (lambda k: token(k, aud=""), "aud"),
    "aud-empty-list": (lambda k: token(k, aud=[]), "aud"),
    "aud-list-with-a-number": (lambda k: token(k, aud=[API, 7]), "aud"),
    "aud-an-object": (lambda k: token(k, aud={API: True}), "aud"),
    "client_id-absent": (lambda k: token(k, client_id=ABSENT), "client_id"),
    "client_id-empty": (lambda k: token(k, client_id=""), "client_id"),
    "client_id-a-list": (lambda k: token(k, client_id=["spa-app"]), "client_id"),
    "exp-absent": (lambda k: token(k, exp=ABSENT), "exp"),
    "exp-at-the-end-of-the-leeway": (lambda k: token(k, exp=NOW - 60), "exp"),
    "exp-long-ago": (lambda k: token(k, exp=0), "exp"),
    "exp-a-boolean": (lambda k: token(k, exp=True), "exp"),
    "exp-a-string": (lambda k: token(k, exp=str(NOW + 60)), "exp"),
    "exp-beyond-all-time": (lambda k: token(k, exp=10**400), "exp"),
    "iat-absent": (lambda k: token(k, iat=ABSENT), "iat"),
    "iat-beyond-the-leeway": (lambda k: token(k, iat=NOW + 61), "iat"),
    "iat-a-boolean": (lambda k: token(k, iat=True), "iat"),
    "iat-negative": (lambda k: token(k, iat=-1), "iat"),
    "nbf-beyond-the-leeway": (lambda k: token(k, nbf=NOW + 61), "nbf"),
    "nbf-a-boolean": (lambda k: token(k, nbf=False), "nbf"),
    "nbf-null": (lambda k: token(k, nbf=None), "nbf"),
    "scope-a-list": (lambda k: token(k, scope=["read:items"]), "scope"),
    "scope-null": (lambda k: token(k, scope=None), "scope"),
    "scope-parted-by-a-line-break": (lambda k: token(k, scope="read:items\nadmin"), "scope"),
    "scope-parted-by-another-separator": (lambda k: token(k, scope="read:items\x1fadmin"), "scope"),
    "scope-non-ascii": (lambda k: token(k, scope="read:items\u00a0admin"), "scope"),
    "scope-with-a-quote": (lambda k: token(k, scope='read:"items"'), "scope"),
    "jti-a-number": (lambda k: token(k, jti=7), "jti"),
    "organization_id-null": (lambda k: token(k, organization_id=None), "organization_id"),
    "organization_id-empty": (lambda k: token(k, organization_id=""), "organization_id"),
    "organization_id-a-list": (lambda k: token(k, organization_id=["org-1"]), "organization_id"),
    "auth_time-a-boolean": (lambda k: token(k, auth_time=True), "auth_time"),
    "auth_time-a-string": (lambda k: token(k, auth_time=str(NOW)), "auth_time"),
    "act-a-string": (lambda k: token(k, act="admin"), "act"),
    "act-null": (lambda k: token(k, act=None), "act"),
}


@pytest.mark.parametrize(("make", "check"), REFUSED.values(), ids=REFUSED)
def test_refused(
    make: Any, check: str, private_keys: Any, keys: KeySet, metadata: ProviderMetadata, config: LogtoConfig
) -> None:
    """An access token with this fault is refused, and the error names the check, not the token."""
    raw = make(private_keys)
    with pytest.raises(VerificationError) as caught:
        verify_access_token(raw, keys=keys, metadata=metadata, config=config, now=NOW)
    assert caught.value.check == check
    assert caught.value.__context__ is None
    assert not raw or raw not in str(caught.value)
    assert caught.value.message.isascii()


# id: how the token is made
ACCEPTED: dict[str, Any] = {
    "es256": lambda k: token(k, "es256", alg="ES256"),
    "es384": lambda k: token(k),
    "es512": lambda k: token(k, "es512", alg="ES512"),
    "rs256-by-a-key-without-alg": lambda k: token(k, "rsa", alg="RS256"),
    "ps256": lambda k: token(k, "rsa", alg="PS256"),
    "eddsa": lambda k: token(k, "ed", alg="EdDSA"),
    "no-kid-and-one-key-fits": lambda k: token(k, "es512", alg="ES512", header={"kid": ABSENT}),
    "typ-in-upper-case": lambda k: token(k, header={"typ": "AT+JWT"}),
    "typ-as-a-media-type": lambda k: token(k, header={"typ": "application/at+jwt"}),
    "typ-as-a-media-type-in-any-case": lambda k: token(k, header={"typ": "Application/AT+jwt"}),
    "unknown-header-member": lambda k: token(k, header={"x-tenant": "eu"}),
    "aud-list": lambda k: token(k, aud=[API, "https://other.example.com"]),
    "aud-of-an-organization": lambda k: token(k, aud="urn:logto:organization:org-1"),
    "organization_id": lambda k: token(k, organization_id="org-1"),
    "of-a-machine": lambda k: token(k, sub="spa-app"),
    "scope-absent": lambda k: token(k, scope=ABSENT),
    "scope-empty": lambda k: token(k, scope=""),
    "scope-with-two-spaces": lambda k: token(k, scope="read:items  write:items"),
    "jti-absent": lambda k: token(k, jti=ABSENT),
    "exp-just-within-the-leeway": lambda k: token(k, exp=NOW - 59),
    "exp-with-a-fraction": lambda k: token(k, exp=NOW + 0.5),
    "iat-at-the-leeway": lambda k: token(k, iat=NOW + 60),
    "iat-years-ago": lambda k: token(k, iat=1),
    "nbf-at-the-leeway": lambda k: token(k, nbf=NOW + 60),
    "auth_time": lambda k: token(k, auth_time=NOW - 10**6),
    "act": lambda k: token(k, act={"sub": "admin-1"}),
    "claims-unknown-and-null": lambda k: token(k, tenant={"plan": ["gold"]}, picture=None),
}


@pytest.mark.parametrize("make", ACCEPTED.values(), ids=ACCEPTED)
def test_accepted(make: Any, private_keys: Any, keys: KeySet, metadata: ProviderMetadata, config: LogtoConfig) -> None:
    """An access token like this one is accepted; its claims come back, and the key that signed it."""
    found, key = verify_access_token(make(private_keys), keys=keys, metadata=metadata, config=config, now=NOW)
    assert (found.iss, found.client_id) == (ISSUER, "spa-app")
    assert key.fingerprint in keys.fingerprints


def test_the_claims_are_typed(private_keys: Any, keys: KeySet, metadata: ProviderMetadata, config: LogtoConfig) -> None:
    """Scopes, organization and actor of a token can be asked for, and what is unknown is kept."""
    raw = token(private_keys, organization_id="org-1", act={"sub": "admin-1"}, tenant="gold", exp=NOW + 60.75)
    found, _ = verify_access_token(raw, keys=keys, metadata=metadata, config=config, now=NOW)
    assert found.scopes == {"read:items", "write:items"}
    assert (found.organization, found.actor, found.is_machine) == ("org-1", "admin-1", False)
    assert (found.exp, found.raw()["tenant"]) == (NOW + 60, "gold")


def test_an_id_token_is_told_what_to_send_instead(
    private_keys: Any, keys: KeySet, metadata: ProviderMetadata, config: LogtoConfig
) -> None:
    """The commonest mistake, an ID token for an access token, gets a message with the remedy."""
    with pytest.raises(VerificationError, match="Is it an ID token.* access token with `resource`"):
        verify_access_token(id_token(private_keys), keys=keys, metadata=metadata, config=config, now=NOW)


@pytest.mark.parametrize("listed", [["ES384"], ["PS256"]], ids=["only-es384", "only-ps256"])
def test_algorithm_not_of_this_issuer(listed: list[str], private_keys: Any, keys: KeySet, config: LogtoConfig) -> None:
    """A good algorithm is refused when the issuer does not list it, even with a published key that could verify it."""
    metadata = parse_metadata(discovery_document(id_token_signing_alg_values_supported=listed), issuer=ISSUER)
    raw = token(private_keys, "rsa", alg="RS256")
    with pytest.raises(VerificationError) as caught:
        verify_access_token(raw, keys=keys, metadata=metadata, config=config, now=NOW)
    assert caught.value.check == "alg"


def test_hmac_is_refused_even_if_the_metadata_listed_it(private_keys: Any, keys: KeySet, config: LogtoConfig) -> None:
    """Our own list decides too: metadata built by hand cannot let HMAC in."""
    metadata = ProviderMetadata(ISSUER, f"{ISSUER}/auth", f"{ISSUER}/token", f"{ISSUER}/jwks", ("HS256", "none"))
    raw = token(private_keys, "hmac", alg="HS256")
    with pytest.raises(VerificationError) as caught:
        verify_access_token(raw, keys=keys, metadata=metadata, config=config, now=NOW)
    assert caught.value.check == "alg"


def test_an_unknown_key_is_a_lack_of_keys(
    private_keys: Any, keys: KeySet, metadata: ProviderMetadata, config: LogtoConfig
) -> None:
    """A `kid` that is not published asks for newer keys first; it is no verdict on the token."""
    with pytest.raises(KeyNotFound):
        verify_access_token(token(private_keys, "unpublished"), keys=keys, metadata=metadata, config=config, now=NOW)


def test_a_fingerprint_is_of_id_algorithm_and_material(private_keys: Any) -> None:
    """Keys that share an id, or a material, are still different keys; the same key read twice is the same."""
    jwk = private_keys["rsa"].as_dict(private=False)
    others = [jwk | {"kid": "another"}, jwk | {"alg": "RS256"}, private_keys["rsa-2"].as_dict(private=False)]
    others[2]["kid"] = jwk["kid"]
    found = [parse_key_set({"keys": [entry]}).fingerprints for entry in (jwk, *others)]
    assert len(frozenset().union(*found)) == 4
    assert parse_key_set({"keys": [jwk | {"x-note": "more"}]}).fingerprints == found[0]


def answer(**changes: Any) -> dict[str, Any]:
    """Return what Logto says of an active opaque token, with changes."""
    good = {
        "active": True,
        "iss": ISSUER,
        "sub": "user-1",
        "client_id": "spa-app",
        "exp": NOW + 3600,
        "iat": NOW,
        "scope": "openid profile",
        "token_type": "Bearer",
    }
    return {name: value for name, value in (good | changes).items() if value is not ABSENT}


# id: (what is different, the check that refuses it)
UNTOLD: dict[str, tuple[dict[str, Any], str]] = {
    "refresh-token-of-logto": ({"token_type": ABSENT}, "token_type"),
    "refresh-token-of-hydra": ({"token_use": "refresh_token"}, "token_type"),
    "token-type-of-dpop": ({"token_type": "DPoP"}, "token_type"),
    "token-type-a-list": ({"token_type": ["Bearer"]}, "token_type"),
    "iss-another": ({"iss": "https://evil.example/oidc"}, "iss"),
    "iss-a-number": ({"iss": 7}, "iss"),
    "client_id-absent": ({"client_id": ABSENT}, "client_id"),
    "client_id-empty": ({"client_id": ""}, "client_id"),
    "sub-empty": ({"sub": ""}, "sub"),
    "sub-over-255": ({"sub": "x" * 256}, "sub"),
    "aud-a-number": ({"aud": 7}, "aud"),
    "aud-empty-list": ({"aud": []}, "aud"),
    "exp-passed": ({"exp": NOW - 60}, "exp"),
    "exp-a-string": ({"exp": str(NOW + 60)}, "exp"),
    "iat-beyond-the-leeway": ({"iat": NOW + 61}, "iat"),
    "nbf-beyond-the-leeway": ({"nbf": NOW + 61}, "nbf"),
    "scope-a-list": ({"scope": ["openid"]}, "scope"),
    "organization_id-a-list": ({"organization_id": ["org-1"]}, "organization_id"),
    "act-a-string": ({"act": "admin"}, "act"),
}


@pytest.mark.parametrize(("changes", "check"), UNTOLD.values(), ids=UNTOLD)
def test_introspected_and_refused(changes: dict[str, Any], check: str, config: LogtoConfig) -> None:
    """What the issuer says of an active token is held to the same rules; a refresh token is active and no access."""
    with pytest.raises(VerificationError) as caught:
        read_introspected_claims(answer(**changes), config=config, now=NOW, lifetime=30)
    assert caught.value.check == check


def test_introspected_claims(config: LogtoConfig) -> None:
    """What the issuer said is what the claims say; `active` is no claim."""
    found = read_introspected_claims(answer(username="ada", aud=[API]), config=config, now=NOW, lifetime=30)
    assert (found.sub, found.client_id, found.exp) == ("user-1", "spa-app", NOW + 3600)
    assert (found.scopes, found.audiences, found.username) == ({"openid", "profile"}, {API}, "ada")
    assert "active" not in found.raw()


@pytest.mark.parametrize("unsaid", [ABSENT, None], ids=["absent", "null"])
def test_what_introspection_leaves_open_is_filled_in(unsaid: Any, config: LogtoConfig) -> None:
    """A token without user is its client's, without audience nobody's, and lasts as long as it is remembered."""
    names = ("iss", "sub", "exp", "iat", "scope", "aud", "nbf", "organization_id")
    found = read_introspected_claims(answer(**dict.fromkeys(names, unsaid)), config=config, now=NOW + 0.5, lifetime=30)
    assert (found.iss, found.sub, found.is_machine) == (ISSUER, "spa-app", True)
    assert (found.exp, found.iat, found.aud, found.audiences) == (NOW + 30, NOW, (), frozenset())
    assert (found.scopes, found.organization) == (frozenset(), None)


def test_introspection_without_a_memory_still_lets_a_token_in(config: LogtoConfig) -> None:
    """A token without `exp` is good at this moment, also where nothing is remembered."""
    found = read_introspected_claims(answer(exp=ABSENT), config=config, now=NOW + 0.9, lifetime=0)
    assert found.exp > NOW
