"""Every ID token that is refused and every one that is accepted, one line each (Core §2, §3.1.3.7, §12.2; RFC 8725)."""

from __future__ import annotations

import hmac
import json
import math
from typing import Any

import pytest
from oidc_signing import (
    ABSENT,
    ACCESS_TOKEN,
    APP_ID,
    CODE,
    ISSUER,
    NONCE,
    NOW,
    SECRET,
    b64,
    claims,
    discovery_document,
    sign,
)

from logto_asgi.claims import IdTokenClaims
from logto_asgi.config import LogtoConfig
from logto_asgi.errors import VerificationError
from logto_asgi.oidc.keys import KeyNotFound, KeySet, parse_key_set
from logto_asgi.oidc.metadata import ProviderMetadata, parse_metadata
from logto_asgi.oidc.peek import read_unverified_claims
from logto_asgi.oidc.verification import verify_id_token, verify_refreshed_id_token

AT_HASH = {  # of ACCESS_TOKEN, computed apart from the library with `openssl dgst`
    "ES256": "ziBUtZEpY5JqE5mEv5FPew",
    "ES384": "zYjzApEQQZU8fzCOGWg4lUJj0iPjau7v",
    "EdDSA": "cnP2tFajuI-mNsLd3mkqVdjTOvXLjgSgH330YQ8DdMs",
}
C_HASH = "uwbvX7o2BDC4FYks10lp2d1sgKm3TiJL"


def token(
    keys: dict[str, Any], key: str = "es384", /, *, header: Any = None, alg: str = "ES384", **changes: Any
) -> str:
    """Return a token that is right but for the changes."""
    return sign(keys[key], claims(**changes), alg=alg, header=header)


def forged_with_public_key(keys: dict[str, Any]) -> str:
    """Return a token whose HMAC secret is the issuer's public key, in the form in which it is published."""
    secret = keys["rsa"].as_pem(private=False)
    signing_input = f"{b64(json.dumps({'alg': 'HS256', 'kid': 'rsa'}).encode())}.{b64(json.dumps(claims()).encode())}"
    return f"{signing_input}.{b64(hmac.digest(secret, signing_input.encode(), 'sha256'))}"


def unsigned(keys: dict[str, Any]) -> str:
    return f"{b64(json.dumps({'alg': 'none', 'kid': 'es384'}).encode())}.{b64(json.dumps(claims()).encode())}."


def tampered(keys: dict[str, Any]) -> str:
    head, _, signature = token(keys).split(".")
    return f"{head}.{b64(json.dumps(claims(sub='admin')).encode())}.{signature}"


def with_header(keys: dict[str, Any], head: bytes) -> str:
    return f"{b64(head)}.{token(keys).split('.', 1)[1]}"


def own_key_in_header(keys: dict[str, Any]) -> str:
    return token(keys, "stranger", header={"jwk": keys["stranger"].as_dict(private=False)})


def respelled(keys: dict[str, Any]) -> str:
    """Return a token whose last character has bits that decode to nothing: another text, the same bytes."""
    raw = token(keys, "rsa", alg="RS256")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return raw[:-1] + alphabet[alphabet.index(raw[-1]) ^ 1]


# id: (how the token is made, the check that refuses it)
REFUSED: dict[str, tuple[Any, str]] = {
    "empty": (lambda k: "", "format"),
    "two-parts": (lambda k: token(k).rpartition(".")[0], "format"),
    "encrypted-five-parts": (lambda k: token(k) + ".a.b", "format"),
    "no-signature-part": (lambda k: token(k).rpartition(".")[0] + ".", "format"),
    "space-in-it": (lambda k: token(k) + " ", "format"),
    "non-ascii": (lambda k: token(k) + "é", "format"),
    "half-a-surrogate": (lambda k: token(k).replace(".", ".\ud800", 1), "format"),
    "padding": (lambda k: token(k) + "==", "format"),
    "other-spelling-of-the-signature": (respelled, "format"),
    "token-over-16-kib": (lambda k: token(k, picture="x" * 16_000), "size"),
    "header-over-2-kib": (lambda k: token(k, header={"x5t": "x" * 2_000}), "size"),
    "signature-too-long": (lambda k: token(k) + "A" * 1_400, "size"),
    "header-not-json": (lambda k: with_header(k, b"{alg}"), "format"),
    "header-with-a-member-twice": (
        lambda k: with_header(k, b'{"alg":"ES384","alg":"ES384","kid":"es384"}'),
        "format",
    ),
    "payload-not-json": (lambda k: sign(k["es384"], b"hello"), "format"),
    "payload-a-list": (lambda k: sign(k["es384"], b"[]"), "format"),
    "payload-with-a-claim-twice": (
        lambda k: sign(k["es384"], json.dumps(claims()).replace("{", '{"sub":"admin",', 1).encode()),
        "format",
    ),
    "payload-with-nan": (lambda k: token(k, extra=math.nan), "format"),
    "alg-none": (unsigned, "format"),
    "alg-none-with-a-signature": (lambda k: unsigned(k) + "AAAA", "alg"),
    "alg-absent": (lambda k: token(k, header={"alg": ABSENT}), "alg"),
    "alg-no-string": (lambda k: token(k, header={"alg": ["ES384"]}), "alg"),
    "alg-hmac-with-the-public-key": (forged_with_public_key, "alg"),
    "alg-hmac-with-the-app-secret": (lambda k: token(k, "hmac", alg="HS256"), "alg"),
    "alg-unknown": (lambda k: token(k, header={"alg": "ES999"}), "alg"),
    "key-in-header": (own_key_in_header, "header"),
    "header-jku": (lambda k: token(k, header={"jku": "https://evil.example/jwks"}), "header"),
    "header-x5u": (lambda k: token(k, header={"x5u": "https://evil.example/cert"}), "header"),
    "header-x5c": (lambda k: token(k, header={"x5c": ["MII"]}), "header"),
    "header-b64": (lambda k: token(k, header={"b64": True}), "header"),
    "header-crit": (lambda k: token(k, header={"crit": ["kid"]}), "header"),
    "kid-no-string": (lambda k: token(k, header={"kid": 7}), "header"),
    "kid-empty": (lambda k: token(k, header={"kid": ""}), "header"),
    "typ-no-string": (lambda k: token(k, header={"typ": 7}), "header"),
    "typ-of-an-access-token": (lambda k: token(k, header={"typ": "at+jwt"}), "typ"),
    "typ-of-a-logout-token": (lambda k: token(k, header={"typ": "logout+jwt"}), "typ"),
    "kid-unknown": (lambda k: token(k, "unpublished"), "kid"),
    "kid-absent-and-two-keys-fit": (lambda k: token(k, "rsa", alg="RS256", header={"kid": ABSENT}), "kid"),
    "key-type-does-not-fit": (lambda k: token(k, header={"kid": "rsa"}), "key"),
    "key-type-does-not-fit-the-key-without-alg": (
        lambda k: token(k, "es256", alg="ES256", header={"kid": "rsa"}),
        "key",
    ),
    "key-curve-does-not-fit": (lambda k: token(k, header={"kid": "es256"}), "key"),
    "signed-by-a-stranger": (lambda k: token(k, "stranger"), "signature"),
    "payload-tampered": (tampered, "signature"),
    "signature-of-another-alg": (lambda k: token(k, "rsa", alg="RS256", header={"alg": "PS256"}), "signature"),
    "signature-too-short": (lambda k: token(k).rpartition(".")[0] + ".AAAA", "signature"),
    "iss-absent": (lambda k: token(k, iss=ABSENT), "iss"),
    "iss-another": (lambda k: token(k, iss="https://evil.example/oidc"), "iss"),
    "iss-with-a-slash-more": (lambda k: token(k, iss=ISSUER + "/"), "iss"),
    "iss-in-another-case": (lambda k: token(k, iss=ISSUER.upper()), "iss"),
    "iss-no-string": (lambda k: token(k, iss=[ISSUER]), "iss"),
    "sub-absent": (lambda k: token(k, sub=ABSENT), "sub"),
    "sub-empty": (lambda k: token(k, sub=""), "sub"),
    "sub-a-number": (lambda k: token(k, sub=7), "sub"),
    "sub-over-255": (lambda k: token(k, sub="x" * 256), "sub"),
    "aud-absent": (lambda k: token(k, aud=ABSENT), "aud"),
    "aud-another": (lambda k: token(k, aud="other-app"), "aud"),
    "aud-a-prefix-of-ours": (lambda k: token(k, aud=APP_ID + "-2"), "aud"),
    "aud-list-of-others": (lambda k: token(k, aud=["other-app"]), "aud"),
    "aud-empty-list": (lambda k: token(k, aud=[]), "aud"),
    "aud-list-with-a-number": (lambda k: token(k, aud=[APP_ID, 7], azp=APP_ID), "aud"),
    "aud-several-without-azp": (lambda k: token(k, aud=[APP_ID, "other-app"]), "aud"),
    "azp-another": (lambda k: token(k, azp="other-app"), "azp"),
    "azp-another-with-several-aud": (lambda k: token(k, aud=[APP_ID, "o"], azp="o"), "azp"),
    "azp-no-string": (lambda k: token(k, azp=None), "azp"),
    "exp-absent": (lambda k: token(k, exp=ABSENT), "exp"),
    "exp-at-the-end-of-the-leeway": (lambda k: token(k, exp=NOW - 60), "exp"),
    "exp-long-ago": (lambda k: token(k, exp=0), "exp"),
    "exp-a-boolean": (lambda k: token(k, exp=True), "exp"),
    "exp-a-string": (lambda k: token(k, exp=str(NOW + 60)), "exp"),
    "exp-beyond-all-time": (lambda k: token(k, exp=10**400), "exp"),
    "exp-infinite": (lambda k: sign(k["es384"], json.dumps(claims(exp=-1)).replace("-1", "1e999").encode()), "format"),
    "iat-absent": (lambda k: token(k, iat=ABSENT), "iat"),
    "iat-beyond-the-leeway": (lambda k: token(k, iat=NOW + 61), "iat"),
    "iat-a-boolean": (lambda k: token(k, iat=True), "iat"),
    "iat-negative": (lambda k: token(k, iat=-1), "iat"),
    "nbf-beyond-the-leeway": (lambda k: token(k, nbf=NOW + 61), "nbf"),
    "nbf-a-boolean": (lambda k: token(k, nbf=False), "nbf"),
    "nonce-absent": (lambda k: token(k, nonce=ABSENT), "nonce"),
    "nonce-another": (lambda k: token(k, nonce="of-another-sign-in"), "nonce"),
    "nonce-null": (lambda k: token(k, nonce=None), "nonce"),
    "at_hash-of-another-token": (lambda k: token(k, at_hash=b64(bytes(24))), "at_hash"),
    "at_hash-by-sha256-under-es384": (lambda k: token(k, at_hash=AT_HASH["ES256"]), "at_hash"),
    "at_hash-non-ascii": (lambda k: token(k, at_hash="é"), "at_hash"),
    "at_hash-null": (lambda k: token(k, at_hash=None), "at_hash"),
    "c_hash-of-another-code": (lambda k: token(k, c_hash=b64(bytes(24))), "c_hash"),
    "sid-no-string": (lambda k: token(k, sid=7), "sid"),
    "auth_time-a-boolean": (lambda k: token(k, auth_time=True), "auth_time"),
}


@pytest.mark.parametrize(("make", "check"), REFUSED.values(), ids=REFUSED)
def test_refused(
    make: Any, check: str, private_keys: Any, keys: KeySet, metadata: ProviderMetadata, config: LogtoConfig
) -> None:
    """An ID token with this fault is refused, and the error names the check, not the token."""
    raw = make(private_keys)
    with pytest.raises(VerificationError) as caught:
        verify_id_token(
            raw,
            keys=keys,
            metadata=metadata,
            config=config,
            now=NOW,
            nonce=NONCE,
            access_token=ACCESS_TOKEN,
            code=CODE,
        )
    assert caught.value.check == check
    assert caught.value.__context__ is None
    assert not raw or raw not in str(caught.value)


# id: how the token is made
ACCEPTED: dict[str, Any] = {
    "es256": lambda k: token(k, "es256", alg="ES256"),
    "es384": lambda k: token(k),
    "es512": lambda k: token(k, "es512", alg="ES512"),
    "rs256-by-a-key-without-alg": lambda k: token(k, "rsa", alg="RS256"),
    "rs384": lambda k: token(k, "rsa", alg="RS384"),
    "rs512": lambda k: token(k, "rsa", alg="RS512"),
    "ps256": lambda k: token(k, "rsa", alg="PS256"),
    "ps384": lambda k: token(k, "rsa", alg="PS384"),
    "ps512": lambda k: token(k, "rsa", alg="PS512"),
    "eddsa": lambda k: token(k, "ed", alg="EdDSA"),
    "ed25519": lambda k: token(k, "ed", alg="Ed25519"),
    "no-kid-and-one-key-fits": lambda k: token(k, "es512", alg="ES512", header={"kid": ABSENT}),
    "typ-jwt": lambda k: token(k, header={"typ": "JWT"}),
    "typ-in-lower-case": lambda k: token(k, header={"typ": "jwt"}),
    "unknown-header-member": lambda k: token(k, header={"x-tenant": "eu"}),
    "long-header": lambda k: token(k, header={"x5t": "x" * 1_000}),
    "aud-list-of-one": lambda k: token(k, aud=[APP_ID]),
    "aud-list-with-ours-twice": lambda k: token(k, aud=[APP_ID, APP_ID]),
    "aud-several-with-azp": lambda k: token(k, aud=[APP_ID, "other-app"], azp=APP_ID),
    "azp-ours": lambda k: token(k, azp=APP_ID),
    "exp-just-within-the-leeway": lambda k: token(k, exp=NOW - 59),
    "exp-with-a-fraction": lambda k: token(k, exp=NOW + 0.5),
    "iat-at-the-leeway": lambda k: token(k, iat=NOW + 60),
    "iat-with-a-fraction": lambda k: token(k, iat=NOW - 0.25),
    "iat-years-ago": lambda k: token(k, iat=1),
    "nbf-at-the-leeway": lambda k: token(k, nbf=NOW + 60),
    "at_hash-by-sha256": lambda k: token(k, "es256", alg="ES256", at_hash=AT_HASH["ES256"]),
    "at_hash-by-sha384": lambda k: token(k, at_hash=AT_HASH["ES384"]),
    "at_hash-by-sha512-under-eddsa": lambda k: token(k, "ed", alg="EdDSA", at_hash=AT_HASH["EdDSA"]),
    "c_hash": lambda k: token(k, c_hash=C_HASH),
    "auth_time-though-not-asked": lambda k: token(k, auth_time=NOW - 10**6),
    "sub-of-255": lambda k: token(k, sub="x" * 255),
    "claims-unknown-and-null": lambda k: token(k, name=None, picture=None, tenant={"plan": ["gold"]}),
    "wrong-type-of-a-claim-that-decides-nothing": lambda k: token(k, email_verified="false"),
}


@pytest.mark.parametrize("make", ACCEPTED.values(), ids=ACCEPTED)
def test_accepted(make: Any, private_keys: Any, keys: KeySet, metadata: ProviderMetadata, config: LogtoConfig) -> None:
    """An ID token like this one is accepted, and its claims come back."""
    found = verify_id_token(
        make(private_keys),
        keys=keys,
        metadata=metadata,
        config=config,
        now=NOW,
        nonce=NONCE,
        access_token=ACCESS_TOKEN,
        code=CODE,
    )
    assert (found.iss, found.nonce) == (ISSUER, NONCE)


MAX_AGE = {  # id: (auth_time, max_age, is it accepted)
    "recent": (NOW - 10, 300, True),
    "at-the-leeway": (NOW - 360, 300, True),
    "too-old": (NOW - 361, 300, False),
    "absent": (ABSENT, 300, False),
    "from-the-future": (NOW + 61, 300, False),
    "just-now-for-zero": (NOW, 0, True),
    "too-old-for-zero": (NOW - 61, 0, False),
}


@pytest.mark.parametrize(("auth_time", "max_age", "is_accepted"), MAX_AGE.values(), ids=MAX_AGE)
def test_max_age(
    auth_time: Any,
    max_age: int,
    is_accepted: bool,
    private_keys: Any,
    keys: KeySet,
    metadata: ProviderMetadata,
    config: LogtoConfig,
) -> None:
    """When an age was asked for, `auth_time` must be there and recent enough (Core §3.1.2.1)."""
    raw = token(private_keys, auth_time=auth_time)
    failed = None
    try:
        verify_id_token(raw, keys=keys, metadata=metadata, config=config, now=NOW, max_age=max_age)
    except VerificationError as error:
        failed = error.check
    assert failed == (None if is_accepted else "auth_time")


REFRESHED: dict[str, tuple[dict[str, Any], dict[str, Any], str | None]] = {
    # id: (claims at sign-in, claims now, the check that refuses)
    "same": ({}, {}, None),
    "later": ({}, {"iat": NOW + 1, "exp": NOW + 7200}, None),
    "without-nonce": ({}, {"nonce": ABSENT}, None),
    "aud-in-a-list": ({}, {"aud": [APP_ID]}, None),
    "another-sub": ({}, {"sub": "user-2"}, "sub"),
    "another-nonce": ({}, {"nonce": "another"}, "nonce"),
    "a-nonce-that-was-not-there": ({"nonce": ABSENT}, {}, "nonce"),
    "one-aud-more": ({"azp": APP_ID}, {"aud": [APP_ID, "other-app"], "azp": APP_ID}, "aud"),
    "azp-that-was-not-there": ({}, {"azp": APP_ID}, "azp"),
    "azp-that-is-gone": ({"azp": APP_ID}, {}, "azp"),
    "iss-was-another": ({"iss": "https://old.example/oidc"}, {}, "iss"),
    "expired": ({}, {"exp": NOW - 60}, "exp"),
    "at_hash-of-another-token": ({}, {"at_hash": b64(bytes(24))}, "at_hash"),
}


@pytest.mark.parametrize(("before", "after", "check"), REFRESHED.values(), ids=REFRESHED)
def test_refreshed(
    before: dict[str, Any],
    after: dict[str, Any],
    check: str | None,
    private_keys: Any,
    keys: KeySet,
    metadata: ProviderMetadata,
    config: LogtoConfig,
) -> None:
    """A refreshed ID token passes every check of the first one, and continues it (Core §12.2)."""
    found = None
    try:
        verify_refreshed_id_token(
            token(private_keys, **after),
            previous=IdTokenClaims.parse(claims(**before)),
            keys=keys,
            metadata=metadata,
            config=config,
            now=NOW,
            access_token=ACCESS_TOKEN,
        )
    except VerificationError as error:
        found = error.check
    assert found == check


ISSUERS_ALGORITHMS = {"rs256-where-only-es384-is-listed": ["ES384"], "rs256-where-only-ps256-is-listed": ["PS256"]}


@pytest.mark.parametrize("listed", ISSUERS_ALGORITHMS.values(), ids=ISSUERS_ALGORITHMS)
def test_algorithm_not_of_this_issuer(listed: list[str], private_keys: Any, keys: KeySet, config: LogtoConfig) -> None:
    """A good algorithm is refused when the issuer does not list it, even with a published key that could verify it."""
    metadata = parse_metadata(discovery_document(id_token_signing_alg_values_supported=listed), issuer=ISSUER)
    with pytest.raises(VerificationError) as caught:
        verify_id_token(token(private_keys, "rsa", alg="RS256"), keys=keys, metadata=metadata, config=config, now=NOW)
    assert caught.value.check == "alg"


def test_hmac_is_refused_even_if_the_metadata_listed_it(private_keys: Any, keys: KeySet, config: LogtoConfig) -> None:
    """Our own list decides too: metadata built by hand cannot let HMAC in."""
    metadata = ProviderMetadata(ISSUER, f"{ISSUER}/auth", f"{ISSUER}/token", f"{ISSUER}/jwks", ("HS256", "none"))
    with pytest.raises(VerificationError) as caught:
        verify_id_token(token(private_keys, "hmac", alg="HS256"), keys=keys, metadata=metadata, config=config, now=NOW)
    assert caught.value.check == "alg"


def test_the_alg_of_a_key_binds_it(private_keys: Any, metadata: ProviderMetadata, config: LogtoConfig) -> None:
    """A key that is published for RS256 does not verify PS256 (RFC 7517 §4.4)."""
    jwk = private_keys["rsa"].as_dict(private=False) | {"alg": "RS256"}
    with pytest.raises(VerificationError) as caught:
        verify_id_token(
            token(private_keys, "rsa", alg="PS256"),
            keys=parse_key_set({"keys": [jwk]}),
            metadata=metadata,
            config=config,
            now=NOW,
        )
    assert caught.value.check == "key"


def test_no_kid_and_no_key_fits_asks_for_newer_keys(
    private_keys: Any, metadata: ProviderMetadata, config: LogtoConfig
) -> None:
    """Without a `kid`, the lack of any fitting key is a lack of keys, for which the client refetches."""
    only_rsa = parse_key_set({"keys": [private_keys["rsa"].as_dict(private=False)]})
    raw = token(private_keys, header={"kid": ABSENT})
    with pytest.raises(KeyNotFound) as caught:
        verify_id_token(raw, keys=only_rsa, metadata=metadata, config=config, now=NOW)
    assert caught.value.kid is None


def test_two_keys_of_one_kid_are_told_apart_by_type(
    private_keys: Any, metadata: ProviderMetadata, config: LogtoConfig
) -> None:
    """Keys of different types may share a `kid` (RFC 7517 §4.5)."""
    jwks = [private_keys["rsa"].as_dict(private=False) | {"kid": "x"}, private_keys["es384"].as_dict(private=False)]
    jwks[1]["kid"] = "x"
    raw = token(private_keys, header={"kid": "x"})
    found = verify_id_token(raw, keys=parse_key_set({"keys": jwks}), metadata=metadata, config=config, now=NOW)
    assert found.sub == "user-1"


def test_times_come_back_as_whole_seconds(
    private_keys: Any, keys: KeySet, metadata: ProviderMetadata, config: LogtoConfig
) -> None:
    """Fractions of seconds, which RFC 7519 §2 allows, are cut off."""
    raw = token(private_keys, exp=NOW + 60.75, iat=NOW - 0.5, auth_time=NOW - 3.25)
    found = verify_id_token(raw, keys=keys, metadata=metadata, config=config, now=NOW)
    assert (found.exp, found.iat, found.auth_time) == (NOW + 60, NOW - 1, NOW - 4)


def test_booleans_are_never_guessed(
    private_keys: Any, keys: KeySet, metadata: ProviderMetadata, config: LogtoConfig
) -> None:
    """An `email_verified` that is a string is no boolean and is dropped."""
    raw = token(private_keys, email_verified="false")
    assert verify_id_token(raw, keys=keys, metadata=metadata, config=config, now=NOW).email_verified is None


OPAQUE = {
    "opaque": "abc",
    "two-parts": "a.b",
    "garbage": "a.b.c",
    "list": f"a.{b64(b'[]')}.c",
    "long": "a.b." + "c" * 20_000,
}


@pytest.mark.parametrize("raw", OPAQUE.values(), ids=OPAQUE)
def test_opaque_tokens_say_nothing(raw: str) -> None:
    """Reading an access token that is no JWT gives None, not an error."""
    assert read_unverified_claims(raw) is None


def test_unverified_claims_are_read(private_keys: Any) -> None:
    """The audience of an access token can be compared with what was asked for."""
    assert (read_unverified_claims(token(private_keys, aud="https://api.example.com")) or {})["aud"] == (
        "https://api.example.com"
    )


def test_secret_is_not_a_key(config: LogtoConfig) -> None:
    """The table's HMAC forgery uses the app's real secret, so that it would verify if HMAC were let in."""
    assert config.app_secret is not None
    assert config.app_secret.get_secret_value() == SECRET
