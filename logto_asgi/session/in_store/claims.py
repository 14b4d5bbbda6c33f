"""What lies in a store under a state: that somebody finishes the sign-in, or what it led to. Knows no store.

Whoever comes to the call-back with a made-up code has one made. So they are short, and nothing in them is secret; the
signature keeps whoever writes to the store from leading a state to somebody's session.
"""

from __future__ import annotations

import base64
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from logto_asgi.session.in_store.records import Unreadable

__all__ = ["Claim", "Claims"]

_SHAPE = re.compile(r"(([cs])([0-9]{1,15})-([0-9a-f]{8})-[0-9a-f]{16}(?:-([0-9a-f]{64}))?)\.([A-Za-z0-9_-]{22})")
"""Claimed or settled, when, how the digest of the code begins, chance, the key of the session; signature. At most 64
characters without a session, which Redis keeps in a third of the room of longer ones."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A sign-in that somebody finishes since `at` (seconds since 1970), or that was settled then."""

    at: int
    settled: bool = False
    session_key: str | None = None
    """Where the session lies that it led to, if it led to one."""


class Claims:
    """Signs and reads claims. The first secret signs, all verify.

    `key` is where a claim lies, and `code_digest` the SHA-256 of the code (hex): with another one it does not open.
    """

    __slots__ = ("_keys",)

    def __init__(self, cookie_secrets: Sequence[str], *, issuer: str, client_id: str) -> None:
        self._keys = [_derive(secret, "logto-asgi claim", "1", issuer, client_id) for secret in cookie_secrets]

    def sign(self, claim: Claim, *, key: str, code_digest: str) -> str:
        """Return the text of a claim: another one each time, so that a store can tell two who claim at once apart."""
        text = f"{'s' if claim.settled else 'c'}{claim.at}-{code_digest[:8]}-{secrets.token_hex(8)}"
        if claim.session_key is not None:
            text += f"-{claim.session_key}"
        return f"{text}.{_signature(self._keys[0], text, key, code_digest)}"

    def read(self, value: str, *, key: str, code_digest: str) -> Claim:
        """Return the claim that a text holds. Raise `Unreadable`."""
        parts = _SHAPE.fullmatch(value)
        if parts is None:
            raise Unreadable("malformed")
        text, word, at, code, session_key, signature = parts.groups()
        if code != code_digest[:8]:
            raise Unreadable("other_code")
        expected = [_signature(each, text, key, code_digest) for each in self._keys]
        if not any(hmac.compare_digest(signature, each) for each in expected):
            raise Unreadable("unknown_key", may_be_newer=True)
        return Claim(int(at), word == "s", session_key)


def _derive(secret: str, *parts: str) -> bytes:
    """Derive a key for this purpose, issuer and client only. Lengths go before the parts, so that none can shift."""
    purpose = b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)
    return hmac.digest(secret.encode(), purpose, "sha256")


def _signature(by: bytes, text: str, key: str, code_digest: str) -> str:
    """Return 128 bits of an HMAC with SHA-256, in base64url."""
    digest = hmac.digest(by, f"{key} {code_digest} {text}".encode(), "sha256")
    return base64.urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()
