"""Take a signed token apart and check its signature (RFC 7515). It knows no claims.

The header is read and judged here, before any library sees it: joserfc accepts headers that carry their own key, falls
back to HS256 for an empty list of algorithms, and refuses harmless long headers. joserfc only does the arithmetic.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from logto_asgi.errors import VerificationError
from logto_asgi.oidc.keys import ALGORITHMS, KeySet, PublicKey, decode_base64url
from logto_asgi.oidc.strict_json import MalformedJSON, parse_object

if TYPE_CHECKING:
    from joserfc.jwa import JWSAlgModel

__all__ = ["MAX_HEADER", "MAX_TOKEN", "SignedToken", "open_signed", "open_with", "split_token"]

MAX_TOKEN = 16 * 1024
"""Characters. An ID token lives in a cookie of a few kilobytes; this is far beyond."""
MAX_HEADER = 2 * 1024
MAX_SIGNATURE = 1400
"""Characters; RSA of 8192 bits makes 1366."""

_ASCII = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
_REFUSED_MEMBERS = ("b64", "crit", "jwk", "jku", "x5u", "x5c")
"""They change how the token is read, or bring or point to a key (RFC 7515 §4.1, RFC 7797; RFC 8725 §3.10)."""


@dataclass(frozen=True, slots=True)
class SignedToken:
    """A token in its parts; nothing of it is verified yet."""

    alg: str
    kid: str | None
    typ: str | None
    signing_input: bytes = field(repr=False)
    payload: str = field(repr=False)
    signature: bytes = field(repr=False)


def split_token(raw: str, *, allowed: Collection[str]) -> SignedToken:
    """Read the parts and the header of a compact JWS (RFC 7515 §7.1), or raise `VerificationError`.

    `allowed` are the issuer's algorithms; only those that are ours as well pass.
    """
    if len(raw) > MAX_TOKEN:
        raise VerificationError("size", "The token is too long.")
    parts = raw.split(".")
    if len(parts) != 3 or not all(parts) or not _ASCII.fullmatch(raw):
        raise VerificationError("format", "The token is not a signed token in compact form.")
    header_text, payload, signature_text = parts
    if len(header_text) > MAX_HEADER or len(signature_text) > MAX_SIGNATURE:
        raise VerificationError("size", "The token's header or signature is too long.")
    alg, kid, typ = _read_header(header_text)
    if alg not in allowed or alg not in ALGORITHMS:
        raise VerificationError("alg", "The token is signed with an algorithm that this issuer must not use.")
    return SignedToken(
        alg=alg,
        kid=kid,
        typ=typ,
        signing_input=f"{header_text}.{payload}".encode(),
        payload=payload,
        signature=_decode(signature_text, "signature"),
    )


def open_signed(token: SignedToken, *, keys: KeySet) -> dict[str, Any]:
    """Check the signature and return the payload. Raise `KeyNotFound` or `VerificationError`."""
    return open_with(token, keys.find(kid=token.kid, alg=token.alg))


def open_with(token: SignedToken, key: PublicKey) -> dict[str, Any]:
    """Check the signature with the key that was found for it, and return the payload. Raise `VerificationError`."""
    if not _is_signed_by(key, token):
        raise VerificationError("signature", "The token's signature is wrong.")
    return _decode_object(token.payload, "payload")


@lru_cache(maxsize=64)  # An issuer's tokens all have the same header. What is refused is never kept.
def _read_header(text: str) -> tuple[str, str | None, str | None]:
    """Return algorithm, key id and type of a header that has nothing in it that is never accepted."""
    header = _decode_object(text, "header")
    refused = [name for name in _REFUSED_MEMBERS if name in header]
    if refused:
        raise VerificationError("header", f"The token's header has `{refused[0]}`, which is never accepted.")
    alg, kid, typ = header.get("alg"), header.get("kid"), header.get("typ")
    if not isinstance(alg, str):
        raise VerificationError("alg", "The token's header names no algorithm.")
    if kid is not None and not (isinstance(kid, str) and 0 < len(kid) <= 1024):
        raise VerificationError("header", "The token's `kid` is not a short string.")
    if typ is not None and not isinstance(typ, str):
        raise VerificationError("header", "The token's `typ` is not a string.")
    return alg, kid, typ


def _is_signed_by(key: PublicKey, token: SignedToken) -> bool:
    model = _model(token.alg)
    try:
        model.check_key(key.material)
        return model.verify(token.signing_input, token.signature, key.material)
    except Exception:  # noqa: BLE001 - crafted signatures make libraries raise many kinds; none is a valid signature
        return False


@cache
def _model(alg: str) -> JWSAlgModel:
    """Return the algorithm itself: the functions of joserfc above it add a registry whose defaults include HS256."""
    from joserfc.jwa import JWS_ALGORITHMS

    return next(model for model in JWS_ALGORITHMS if model.name == alg)


def _decode(text: str, what: str) -> bytes:
    try:
        return decode_base64url(text)
    except ValueError:
        pass
    raise VerificationError("format", f"The token's {what} is not base64url.")


def _decode_object(text: str, what: str) -> dict[str, Any]:
    data = _decode(text, what)
    try:
        return parse_object(data)
    except MalformedJSON as error:
        fault = str(error)
    raise VerificationError("format", f"The token's {what} is not acceptable: {fault}.")
