"""Public keys of an issuer: which of its JWK Set can be trusted to verify, and which one fits a token.

It knows no claims and no network. Keys are imported one by one, because one odd key must not void the whole set, and
only from the members that make the key: what else a JWK says is judged here and not by a library.
"""

from __future__ import annotations

import binascii
import hashlib
import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from logto_asgi.errors import IssuerResponseInvalid, VerificationError

__all__ = ["ALGORITHMS", "Algorithm", "KeyNotFound", "KeySet", "PublicKey", "decode_base64url", "parse_key_set"]

logger = logging.getLogger(__name__)

MAX_KEYS = 64
RSA_BITS = range(2048, 8193)
"""Shorter keys can be factored, longer ones only cost time (NIST SP 800-131A)."""

_BASE64URL = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)
_LAST = {2: "AQgw", 3: "AEIMQUYcgkosw048"}
"""Characters that may end a text which is so many beyond a multiple of four: the bits that decode to nothing are 0."""


@dataclass(frozen=True, slots=True)
class Algorithm:
    """What a JWS algorithm needs: key type, curve (if its keys have one) and the hash of `at_hash`."""

    key_type: str
    curve: str | None
    digest: str


ALGORITHMS: Mapping[str, Algorithm] = MappingProxyType(
    {
        "ES256": Algorithm("EC", "P-256", "sha256"),
        "ES384": Algorithm("EC", "P-384", "sha384"),
        "ES512": Algorithm("EC", "P-521", "sha512"),
        "RS256": Algorithm("RSA", None, "sha256"),
        "RS384": Algorithm("RSA", None, "sha384"),
        "RS512": Algorithm("RSA", None, "sha512"),
        "PS256": Algorithm("RSA", None, "sha256"),
        "PS384": Algorithm("RSA", None, "sha384"),
        "PS512": Algorithm("RSA", None, "sha512"),
        "EdDSA": Algorithm("OKP", "Ed25519", "sha512"),
        "Ed25519": Algorithm("OKP", "Ed25519", "sha512"),
    }
)
"""Every algorithm that a token may be signed with (RFC 7518 §3.1, RFC 8037 §3.1, RFC 9864 §2). No `none`, no HMAC."""

_CURVES = frozenset(algorithm.curve for algorithm in ALGORITHMS.values() if algorithm.curve)
_MEMBERS = {"EC": ("kty", "crv", "x", "y"), "OKP": ("kty", "crv", "x"), "RSA": ("kty", "n", "e")}


class KeyNotFound(VerificationError):
    """No key of the set has this `kid` (or, without one, fits the algorithm): the set may be older than the token."""

    def __init__(self, kid: str | None) -> None:
        super().__init__("kid", "The token is signed with a key that the issuer does not publish.")
        self.kid = kid


@dataclass(frozen=True, slots=True)
class PublicKey:
    """One imported key. `material` is what joserfc verifies with."""

    kid: str | None
    key_type: str
    curve: str | None
    alg: str | None
    material: Any = field(repr=False, compare=False)
    fingerprint: bytes = field(repr=False)
    """Of id, algorithm and material together: another key under the same id has another one."""

    def fits(self, alg: str) -> bool:
        """Tell whether `alg` may be used with this key, also where the key names no algorithm (RFC 8725 §3.1)."""
        wanted = ALGORITHMS[alg]
        return (self.key_type, self.curve) == (wanted.key_type, wanted.curve) and self.alg in (None, alg)


@dataclass(frozen=True, slots=True)
class KeySet:
    """The usable keys of an issuer at one moment."""

    keys: tuple[PublicKey, ...]
    fingerprints: frozenset[bytes] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fingerprints", frozenset(key.fingerprint for key in self.keys))

    def find(self, *, kid: str | None, alg: str) -> PublicKey:
        """Return the one key for this header. Raise `KeyNotFound`, or `VerificationError` when none or several fit."""
        named = [key for key in self.keys if kid is None or key.kid == kid]
        fitting = [key for key in named if key.fits(alg)]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise VerificationError("kid", "The token does not say which of several keys signed it.")
        if named and kid is not None:
            raise VerificationError("key", "The token's algorithm does not fit the key that it names.")
        raise KeyNotFound(kid)


def parse_key_set(document: Mapping[str, Any]) -> KeySet:
    """Import a JWK Set (RFC 7517 §5): skip and log bad keys, raise `IssuerResponseInvalid` when none is left."""
    entries = document.get("keys")
    if not isinstance(entries, list):
        raise IssuerResponseInvalid("The issuer's key set has no list `keys`.")
    keys = []
    for position, entry in enumerate(entries[:MAX_KEYS]):
        key, fault = _import(entry)
        if key is None:
            logger.info("Key %d of the issuer's key set is left out: %s.", position, fault)
        else:
            keys.append(key)
    if not keys:
        raise IssuerResponseInvalid("The issuer's key set has no key that could verify a token.")
    return KeySet(tuple(keys))


def decode_base64url(text: str) -> bytes:
    """Decode base64url without padding, in its only spelling (RFC 7515 §2). Raise `ValueError` for any other."""
    surplus = len(text) % 4
    if not _BASE64URL.fullmatch(text) or surplus == 1:
        raise ValueError("not base64url")
    if surplus and text[-1] not in _LAST[surplus]:
        raise ValueError("not base64url in its only spelling")
    return binascii.a2b_base64(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4))


def _import(entry: Any) -> tuple[PublicKey | None, str]:
    if not isinstance(entry, dict):
        return None, "it is not an object"
    for fault, is_bad in _FAULTS:
        if is_bad(entry):
            return None, fault
    try:
        members = {name: entry[name] for name in _MEMBERS[entry["kty"]]}
        material = _import_material(members)
    except Exception as error:  # noqa: BLE001 - libraries raise many kinds for crafted keys; all mean "not usable"
        return None, f"it cannot be read ({type(error).__name__})"
    kid, alg = entry.get("kid"), entry.get("alg")
    return PublicKey(kid, entry["kty"], entry.get("crv"), alg, material, _fingerprint(kid, alg, members)), ""


def _fingerprint(kid: str | None, alg: str | None, members: dict[str, Any]) -> bytes:
    return hashlib.sha256(json.dumps([kid, alg, members], sort_keys=True).encode()).digest()


def _import_material(members: dict[str, str | list[str]]) -> Any:
    from joserfc.jwk import JWKRegistry

    return JWKRegistry.import_key(members)


def _is_unusable_rsa(entry: dict[str, Any]) -> bool:
    if entry["kty"] != "RSA":
        return False
    try:
        modulus, exponent = (int.from_bytes(decode_base64url(entry[name])) for name in ("n", "e"))
    except (KeyError, TypeError, ValueError):
        return True
    return modulus.bit_length() not in RSA_BITS or exponent.bit_length() > 64


_FAULTS: tuple[tuple[str, Callable[[dict[str, Any]], bool]], ...] = (
    ("its type is not RSA, EC or OKP", lambda entry: entry.get("kty") not in ("RSA", "EC", "OKP")),
    ("it is private", lambda entry: "d" in entry),
    ("it is not for signatures", lambda entry: entry.get("use", "sig") != "sig"),
    ("its operations do not include verify", lambda entry: "verify" not in _list(entry.get("key_ops", ["verify"]))),
    ("its algorithm is not ours", lambda entry: entry.get("alg", "ES384") not in tuple(ALGORITHMS)),
    ("its curve is not ours", lambda entry: entry["kty"] != "RSA" and entry.get("crv") not in tuple(_CURVES)),
    ("its id is not a short string", lambda entry: not _is_kid(entry.get("kid", "-"))),
    ("its size is not between 2048 and 8192 bits", _is_unusable_rsa),
)


def _is_kid(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 1024


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
