"""Sealed text: JSON encrypted under a key for one purpose, issuer and client. Knows no cookie, clock or session.

A value is a compact JWE (RFC 7516 §3.1) with `A256KW` and `A256GCM`, so every value has a key of its own. joserfc
seals. Opening happens with every browser that a process meets, so it takes the two primitives of `cryptography`
directly: the header is one of ours to the letter, and nothing in it is left to decide.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from joserfc.jwe import JWERegistry
    from joserfc.jwk import OctKey

__all__ = ["Reason", "Sealer", "Unsealable"]

Reason = Literal["malformed", "unknown_key", "tampered", "foreign", "too_large"]

_VERSION = "1"
_ALGORITHMS = ("A256KW", "A256GCM")
_MAX_CIPHERTEXT = 65_536
"""Characters of base64url; joserfc opens no more."""
_AROUND_CIPHERTEXT = len("." * 4) + 54 + 16 + 22
"""Characters of a value besides header and ciphertext: dots, wrapped key, initialization vector, tag."""
_MAX_VALUE = 1_024 + _AROUND_CIPHERTEXT + _MAX_CIPHERTEXT
_PARTS = re.compile(
    r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{54})\.([A-Za-z0-9_-]{16})\.([A-Za-z0-9_-]{0,65536})\.([A-Za-z0-9_-]{22})"
)
"""Header, wrapped key, initialization vector, ciphertext and tag in their exact sizes (RFC 7516 §7.1)."""
_ANY_JWE = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*){4}")


class Unsealable(Exception):
    """A value that does not open. `reason` is a word for logs; `known_key` says that its header names a key of ours."""

    def __init__(self, reason: Reason, *, known_key: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.known_key = known_key


class Sealer:
    """Seals mappings of JSON values, and opens what it or another with one of the same secrets has sealed.

    The first secret seals, all of them open. Keys are derived at first use; nothing of them shows in a repr.
    """

    __slots__ = ("_belongs_to", "_keys", "_secrets")

    def __init__(self, secrets: Sequence[str], *, purpose: str, issuer: str, client_id: str) -> None:
        if not secrets:
            raise ValueError("a Sealer needs a secret")
        self._secrets = tuple(secret.encode() for secret in secrets)
        self._belongs_to = (purpose, issuer, client_id)
        self._keys: _Keys | None = None

    def seal(self, payload: Mapping[str, Any]) -> str:
        """Return text of base64url characters and dots. Raise `Unsealable` for a payload too large to open."""
        plaintext = self._envelope(payload)
        if _encoded_length(len(plaintext)) > _MAX_CIPHERTEXT:
            raise Unsealable("too_large")
        return self._derived().encrypt(plaintext)

    def open(self, value: str) -> dict[str, Any]:
        """Return the payload. Raise `Unsealable` for everything else that a browser may send."""
        # 1. Sizes first: nothing below looks at more than can be opened.
        if len(value) > _MAX_VALUE:
            raise Unsealable("too_large")
        # 2. The header is text that we wrote, character for character.
        key = self._derived().by_header.get(value.partition(".")[0])
        if key is None:
            raise Unsealable("unknown_key" if _ANY_JWE.fullmatch(value) else "malformed")
        # 3. Decrypt, and compare what the value says it belongs to.
        plaintext = self._derived().decrypt(value, key)
        if plaintext is None:
            raise Unsealable("tampered", known_key=True)
        return self._payload(plaintext)

    def room(self, payload: Mapping[str, Any], limit: int) -> int:
        """Return how many bytes of JSON fit beside the payload in `limit` sealed characters; negative if none."""
        header = len(self._derived().header)
        return (limit - header - _AROUND_CIPHERTEXT) * 3 // 4 - len(self._envelope(payload))

    def _envelope(self, payload: Mapping[str, Any]) -> bytes:
        purpose, issuer, client_id = self._belongs_to
        return encode_json({"p": purpose, "i": issuer, "c": client_id, "d": payload})

    def _payload(self, plaintext: bytes) -> dict[str, Any]:
        envelope = _decode_json(plaintext)
        if not isinstance(envelope, dict) or not isinstance(envelope.get("d"), dict):
            raise Unsealable("malformed", known_key=True)
        if (envelope.get("p"), envelope.get("i"), envelope.get("c")) != self._belongs_to:
            raise Unsealable("foreign", known_key=True)
        payload: dict[str, Any] = envelope["d"]
        return payload

    def _derived(self) -> _Keys:
        keys = self._keys
        if keys is None:
            keys = self._keys = _Keys([_derive(secret, self._belongs_to) for secret in self._secrets])
        return keys


class _Keys:
    """Keys by the header that names them. Made at first use, because it imports joserfc."""

    __slots__ = ("_protected", "_registry", "_sealing", "by_header", "header")

    def __init__(self, derived: Sequence[bytes]) -> None:
        from joserfc.jwe import JWERegistry
        from joserfc.jwk import OctKey

        # Without `algorithms` joserfc takes whatever it recommends; both kinds of algorithm are looked up in this list.
        self._registry: JWERegistry = JWERegistry(algorithms=list(_ALGORITHMS))
        self._protected = _header(derived[0])
        self._sealing: OctKey = OctKey.import_key(derived[0])
        self.header = _encoded_header(self._protected)
        self.by_header: dict[str, OctKey] = {_encoded_header(_header(key)): OctKey.import_key(key) for key in derived}

    def encrypt(self, plaintext: bytes) -> str:
        from joserfc.jwe import encrypt_compact

        return encrypt_compact(dict(self._protected), plaintext, self._sealing, registry=self._registry)

    def decrypt(self, value: str, key: OctKey) -> bytes | None:
        """Return the plaintext (RFC 7516 §5.2 steps 5 to 19, RFC 3394 §2.2.2), or None.

        What a crafted value raises must not travel on, not even as a context.
        """
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap

        parts = _PARTS.fullmatch(value)
        if parts is None:
            return None
        header, wrapped, nonce, ciphertext, tag = parts.groups()
        try:
            once = aes_key_unwrap(key.raw_value, _from_base64url(wrapped))
            sealed = _from_base64url(ciphertext) + _from_base64url(tag)
            return AESGCM(once).decrypt(_from_base64url(nonce), sealed, header.encode())
        except (InvalidTag, InvalidUnwrap, ValueError):
            return None


def encode_json(value: object) -> bytes:
    """Return compact JSON. Lone surrogates, which JSON of an issuer may hold, survive the way back."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")


def _decode_json(plaintext: bytes) -> object:
    try:
        return json.loads(plaintext)
    except (ValueError, RecursionError):
        return None


def _derive(secret: bytes, belongs_to: Sequence[str]) -> bytes:
    """Derive a key of 256 bits (HKDF with SHA-256, RFC 5869). Lengths go before the parts, so that none can shift."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    parts = [part.encode() for part in ("logto-asgi sealing", _VERSION, *belongs_to)]
    info = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(secret)


def _header(key: bytes) -> dict[str, str]:
    """Return the protected header; its `kid` names the key without telling anything of it."""
    kid = _base64url(hmac.digest(key, b"logto-asgi kid", hashlib.sha256)[:9])
    return {"alg": _ALGORITHMS[0], "enc": _ALGORITHMS[1], "kid": kid}


def _encoded_header(header: Mapping[str, str]) -> str:
    return _base64url(json.dumps(header, separators=(",", ":")).encode())


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _from_base64url(text: str) -> bytes:
    """Decode the one spelling of these bytes. Raise `ValueError` for another, whose spare bits are not zero."""
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if _base64url(data) != text:
        raise ValueError("not the one spelling of these bytes")
    return data


def _encoded_length(size: int) -> int:
    return (size * 4 + 2) // 3
