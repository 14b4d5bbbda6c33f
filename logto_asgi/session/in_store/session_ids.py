"""Session ids as cookie values, signed so that nobody can try ids on a store. Knows no store, session or request.

A value is `<id>.<signature>`, by itsdangerous. The first secret signs, all verify.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from itsdangerous import Signer

__all__ = ["SessionIds", "SignedId", "is_sealed_session"]

_SHAPE = re.compile(rb"([A-Za-z0-9_-]{43})\.([A-Za-z0-9_-]{43})")
"""256 bits and 256 bits, in base64url."""
_SEALED = re.compile(rb"c[1-4]\.[A-Za-z0-9_-]{8}\.")
"""How a session begins that lies whole in its cookie; no signed id begins so."""


@dataclass(frozen=True, slots=True)
class SignedId:
    """The session id of a genuine value, and whether an older secret than the first signed it."""

    id: str = field(repr=False)
    is_outdated: bool


class SessionIds:
    """Signs session ids, and reads what it or another with one of the same secrets has signed."""

    __slots__ = ("_any", "_first")

    def __init__(self, secrets: Sequence[str], *, issuer: str, client_id: str) -> None:
        salt = _salt("logto-asgi session id", "1", issuer, client_id)
        self._first = _signer(secrets[:1], salt)
        self._any = _signer(secrets, salt)

    def sign(self, session_id: str) -> str:
        """Return the cookie value."""
        return self._any.sign(session_id).decode()

    def read(self, value: bytes) -> SignedId | None:
        """Return what a value stands for, None where no secret of ours has signed it."""
        parts = _SHAPE.fullmatch(value)
        if parts is None:
            return None
        text, signature = parts.groups()
        if self._first.verify_signature(text, signature):
            return SignedId(text.decode(), is_outdated=False)
        if self._any.verify_signature(text, signature):
            return SignedId(text.decode(), is_outdated=True)
        return None

    @staticmethod
    def has_shape(value: bytes) -> bool:
        """Tell whether a value looks like a signed id, by whatever secret."""
        return _SHAPE.fullmatch(value) is not None


def is_sealed_session(value: bytes) -> bool:
    """Tell whether a cookie value is a whole session, from before the app had a store."""
    return _SEALED.match(value) is not None


def _signer(secrets: Sequence[str], salt: bytes) -> Signer:
    # itsdangerous signs with the last of its keys, and would derive with SHA-1.
    return Signer(list(reversed(secrets)), salt=salt, key_derivation="hmac", digest_method=hashlib.sha256)


def _salt(*parts: str) -> bytes:
    """Join with lengths before the parts, so that none can shift."""
    return b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)
