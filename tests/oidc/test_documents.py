"""The issuer's two documents and the JSON beneath: which are refused, which keys are skipped, one line each."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from joserfc.jwk import ECKey, OKPKey
from oidc_signing import ABSENT, ISSUER, b64, discovery_document

from logto_asgi.errors import IssuerResponseInvalid
from logto_asgi.oidc.keys import parse_key_set
from logto_asgi.oidc.metadata import discovery_url, parse_metadata
from logto_asgi.oidc.strict_json import MAX_DEPTH, MalformedJSON, parse_object

BAD_METADATA: dict[str, tuple[dict[str, Any], str]] = {
    # id: (change of a good document, what the error names)
    "issuer-another": ({"issuer": "https://auth.example.com/oidc"}, "https://auth.example.com/oidc"),
    "issuer-with-a-slash-more": ({"issuer": ISSUER + "/"}, "LOGTO_ENDPOINT"),
    "issuer-absent": ({"issuer": ABSENT}, "names no issuer"),
    "issuer-a-number": ({"issuer": 7}, "names no issuer"),
    "authorization_endpoint-absent": ({"authorization_endpoint": ABSENT}, "no `authorization_endpoint`"),
    "token_endpoint-absent": ({"token_endpoint": ABSENT}, "no `token_endpoint`"),
    "jwks_uri-null": ({"jwks_uri": None}, "no `jwks_uri`"),
    "algorithms-absent": ({"id_token_signing_alg_values_supported": ABSENT}, "alg_values_supported"),
    "algorithms-only-hmac": ({"id_token_signing_alg_values_supported": ["HS256", "none"]}, "ES384"),
    "algorithms-a-string": ({"id_token_signing_alg_values_supported": "ES384"}, "list of strings"),
    "algorithms-empty": ({"id_token_signing_alg_values_supported": []}, "ES384"),
    "http-to-another-machine": ({"token_endpoint": "http://tenant.logto.app/oidc/token"}, "`token_endpoint`"),
    "http-optional-endpoint": ({"revocation_endpoint": "http://tenant.logto.app/x"}, "`revocation_endpoint`"),
    "http-userinfo": ({"userinfo_endpoint": "http://10.0.0.1/me"}, "`userinfo_endpoint`"),
    "http-almost-loopback": ({"jwks_uri": "http://127.0.0.1.evil.example/jwks"}, "`jwks_uri`"),
    "scheme-file": ({"jwks_uri": "file:///etc/passwd"}, "`jwks_uri`"),
    "scheme-javascript": ({"end_session_endpoint": "javascript:alert(1)"}, "`end_session_endpoint`"),
    "no-host": ({"jwks_uri": "https:///jwks"}, "`jwks_uri`"),
    "user-in-url": ({"jwks_uri": "https://a:b@tenant.logto.app/jwks"}, "`jwks_uri`"),
    "fragment": ({"authorization_endpoint": f"{ISSUER}/auth#x"}, "`authorization_endpoint`"),
    "line-break": ({"authorization_endpoint": f"{ISSUER}/auth\r\nX: y"}, "`authorization_endpoint`"),
    "backslash": ({"authorization_endpoint": "https://tenant.logto.app\\@evil.example/"}, "`authorization_endpoint`"),
    "bad-port": ({"token_endpoint": "https://[::1/token"}, "`token_endpoint`"),
    "endpoint-a-list": ({"token_endpoint": [f"{ISSUER}/token"]}, "`token_endpoint`"),
    "endpoint-over-2-kib": ({"token_endpoint": f"{ISSUER}/{'x' * 2_100}"}, "`token_endpoint`"),
    "flag-a-string": ({"authorization_response_iss_parameter_supported": "false"}, "iss_parameter_supported"),
    "flag-a-number": ({"backchannel_logout_supported": 1}, "`backchannel_logout_supported`"),
}


@pytest.mark.parametrize(("change", "named"), BAD_METADATA.values(), ids=BAD_METADATA)
def test_metadata_is_refused(change: dict[str, Any], named: str) -> None:
    """A discovery document with this fault is refused, and the error names the field or the remedy."""
    with pytest.raises(IssuerResponseInvalid) as caught:
        parse_metadata(discovery_document(**change), issuer=ISSUER)
    assert named in str(caught.value)
    assert caught.value.__context__ is None


def test_another_issuer_is_named_on_both_sides() -> None:
    """Who reads the error sees what is configured, what was found, and which setting to change."""
    with pytest.raises(IssuerResponseInvalid) as caught:
        parse_metadata(discovery_document(issuer="https://auth.example.com/oidc"), issuer=ISSUER)
    message = str(caught.value)
    assert all(part in message for part in (ISSUER, "https://auth.example.com/oidc", "LOGTO_ENDPOINT"))


def test_metadata_is_read() -> None:
    """Only asymmetric algorithms stay on the list; what is optional may be absent."""
    optional = ("userinfo_endpoint", "end_session_endpoint", "revocation_endpoint", "backchannel_logout_supported")
    document = discovery_document(
        authorization_response_iss_parameter_supported=ABSENT, **dict.fromkeys(optional, ABSENT)
    )
    metadata = parse_metadata(document, issuer=ISSUER)
    assert not {"none", "HS256"} & set(metadata.id_token_signing_alg_values_supported)
    assert "ES384" in metadata.id_token_signing_alg_values_supported
    assert not any(getattr(metadata, name) for name in optional)
    assert metadata.authorization_response_iss_parameter_supported is False


@pytest.mark.parametrize("host", ["localhost:3001", "127.0.0.1", "[::1]:3001", "logto.localhost"])
def test_http_on_loopback_is_for_development(host: str) -> None:
    """A provider on this machine needs no certificate."""
    names = ("authorization_endpoint", "token_endpoint", "jwks_uri")
    document = discovery_document(**{name: f"http://{host}/{name}" for name in names})
    assert parse_metadata(document, issuer=ISSUER).jwks_uri == f"http://{host}/jwks_uri"


def test_discovery_url() -> None:
    """A slash at the end of the issuer is not doubled (Discovery §4.1)."""
    assert discovery_url("https://a.example/") == discovery_url("https://a.example")
    assert discovery_url("https://a.example/oidc") == "https://a.example/oidc/.well-known/openid-configuration"


def rsa(bits: int, exponent: int = 65537) -> dict[str, Any]:
    """Return a public key with a modulus of that size; whether it can be factored does not matter here."""
    modulus = (1 << (bits - 1)) | 1
    return {
        "kty": "RSA",
        "n": b64(modulus.to_bytes((bits + 7) // 8)),
        "e": b64(exponent.to_bytes((exponent.bit_length() + 7) // 8)),
        "kid": "odd",
    }


EC: dict[str, Any] = dict(ECKey.generate_key("P-384", {"kid": "odd"}).as_dict(private=False))
PRIVATE: dict[str, Any] = dict(ECKey.generate_key("P-384", {"kid": "odd"}).as_dict(private=True))
SECP256K1: dict[str, Any] = dict(ECKey.generate_key("secp256k1", {"kid": "odd"}).as_dict(private=False))
X25519: dict[str, Any] = dict(OKPKey.generate_key("X25519", {"kid": "odd"}).as_dict(private=False))

SKIPPED: dict[str, Any] = {
    "no-object": "es384",
    "null": None,
    "kty-absent": {"kid": "odd"},
    "kty-oct": {"kty": "oct", "k": b64(b"x" * 48), "kid": "odd"},
    "kty-unknown": {"kty": "AKP", "pub": "x", "kid": "odd"},
    "kty-a-list": {**EC, "kty": ["EC"]},
    "private": PRIVATE,
    "use-enc": {**EC, "use": "enc"},
    "use-nonsense": {**EC, "use": "both"},
    "key_ops-without-verify": {**EC, "key_ops": ["deriveBits"]},
    "key_ops-a-string": {**EC, "key_ops": "verify"},
    "alg-hmac": {**EC, "alg": "HS384"},
    "alg-of-encryption": {**EC, "alg": "ECDH-ES"},
    "alg-a-list": {**EC, "alg": ["ES384"]},
    "crv-unknown": {**EC, "crv": "P-999"},
    "crv-secp256k1": SECP256K1,
    "crv-x25519": X25519,
    "crv-absent": {name: value for name, value in EC.items() if name != "crv"},
    "crv-a-list": {**EC, "crv": ["P-384"]},
    "kid-a-number": {**EC, "kid": 7},
    "kid-empty": {**EC, "kid": ""},
    "point-not-on-the-curve": {**EC, "x": EC["y"]},
    "point-absent": {name: value for name, value in EC.items() if name != "y"},
    "point-no-base64": {**EC, "x": "!"},
    "point-a-number": {**EC, "x": 7},
    "rsa-of-1024-bits": rsa(1024),
    "rsa-of-2047-bits": rsa(2047),
    "rsa-of-9000-bits": rsa(9000),
    "rsa-exponent-too-large": rsa(2048, (1 << 70) | 1),
    "rsa-exponent-even": rsa(2048, 2),
    "rsa-modulus-absent": {"kty": "RSA", "e": "AQAB", "kid": "odd"},
    "rsa-modulus-a-number": {"kty": "RSA", "e": "AQAB", "n": 7, "kid": "odd"},
}


@pytest.mark.filterwarnings("ignore")  # joserfc warns of short keys, which as an error would hide that it takes them
@pytest.mark.parametrize("entry", SKIPPED.values(), ids=SKIPPED)
def test_a_bad_key_is_skipped_and_spares_the_others(
    entry: Any, jwks: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """One key that cannot be used is logged and left out; the good ones stay (RFC 7517 §5)."""
    with caplog.at_level(logging.INFO, logger="logto_asgi"):
        keys = parse_key_set({"keys": [entry, *jwks["keys"]]})
    assert [key.kid for key in keys.keys] == [key["kid"] for key in jwks["keys"]]
    assert "Key 0" in caplog.text


@pytest.mark.parametrize(
    "change", [{"use": "sig"}, {"key_ops": ["verify"]}, {"x5u": 7}, {"alg": "ES384"}, {"ext": True}]
)
def test_a_good_key_stays(change: dict[str, Any]) -> None:
    """What a key says beside its numbers does not spoil it."""
    assert len(parse_key_set({"keys": [EC | change]}).keys) == 1


BAD_SETS: dict[str, dict[str, Any]] = {
    "no-keys": {},
    "keys-an-object": {"keys": {"a": EC}},
    "empty": {"keys": []},
    "only-bad-ones": {"keys": [SKIPPED["kty-oct"]]},
}


@pytest.mark.parametrize("document", BAD_SETS.values(), ids=BAD_SETS)
def test_a_set_without_a_usable_key_is_refused(document: dict[str, Any]) -> None:
    """It is a fault of the issuer, so that an older set goes on."""
    with pytest.raises(IssuerResponseInvalid):
        parse_key_set(document)


def test_a_huge_set_is_cut(jwks: dict[str, Any]) -> None:
    """More than 64 keys are not read."""
    assert len(parse_key_set({"keys": [EC] * 1_000}).keys) == 64


def nested(levels: int) -> bytes:
    return b'{"a":' * (levels - 1) + b"{}" + b"}" * (levels - 1)


BAD_JSON: dict[str, bytes] = {
    "empty": b"",
    "text": b"hello",
    "list": b"[]",
    "string": b'"a"',
    "number": b"7",
    "null": b"null",
    "two-objects": b"{}{}",
    "a-member-twice": b'{"a":1,"a":1}',
    "a-member-twice-below": b'{"a":[{"b":1,"b":2}]}',
    "a-member-twice-by-escapes": b'{"a":1,"\\u0061":2}',
    "nan": b'{"a":NaN}',
    "infinity": b'{"a":-Infinity}',
    "number-without-end": b'{"a":1e999}',
    "digits-without-end": b'{"a":' + b"9" * 5_000 + b"}",
    "too-deep": nested(MAX_DEPTH + 1),
    "too-deep-in-lists": b'{"a":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}",
    "a-hundred-thousand-deep": b'{"a":' + b"[" * 100_000,
    "not-utf-8": b'{"a":"\xff"}',
    "utf-16": '{"a":1}'.encode("utf-16"),
    "byte-order-mark": b"\xef\xbb\xbf{}",
    "half-a-surrogate": b'{"a":"\\ud800"}',
    "half-a-surrogate-as-a-name": b'{"\\udfff":1}',
    "control-character": b'{"a":"\n"}',
}


@pytest.mark.parametrize("data", BAD_JSON.values(), ids=BAD_JSON)
def test_json_is_refused(data: bytes) -> None:
    """JSON that two parsers may read differently, or that costs too much, is refused; the error does not carry it."""
    with pytest.raises(MalformedJSON) as caught:
        parse_object(data)
    assert caught.value.__context__ is None


def test_json_is_read() -> None:
    """All of JSON is there, also a pair of surrogates and the deepest level that is allowed."""
    value = {"a": [1, 2.5, True, None, {"ü": "😀"}]}
    assert parse_object(json.dumps(value).encode()) == value
    assert parse_object(nested(MAX_DEPTH))
