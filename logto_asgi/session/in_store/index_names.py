"""Names under which a store finds the sessions of a user, or of a session at the issuer. Knows no session or store.

HMACs, so that whoever reads the store learns nobody's `sub`.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from logto_asgi.claims import IdTokenClaims

__all__ = ["IndexNames"]


class IndexNames:
    """Makes names under a key of each secret: the first is written, all are looked up.

    Without `__dict__`, so that nobody prints or serialises a secret by accident.
    """

    __slots__ = ("_belongs_to", "_keys", "_secrets")

    def __init__(self, secrets: Sequence[str], *, issuer: str, client_id: str) -> None:
        self._secrets = tuple(secrets)
        self._belongs_to = (issuer, client_id)
        self._keys: list[bytes] | None = None

    def __repr__(self) -> str:
        return "<IndexNames>"

    def of(self, claims: IdTokenClaims) -> list[str]:
        """Return the names to note a session under: its user, and its session at the issuer where it names one."""
        names = [self.subs(claims.sub)[0]]
        if claims.sid is not None:
            names.append(self.sids(claims.sid)[0])
        return names

    def subs(self, sub: str) -> list[str]:
        """Return a user's names, the one of the first secret first."""
        return self._names("sub", sub)

    def sids(self, sid: str) -> list[str]:
        """Return the names of a session at the issuer, the one of the first secret first."""
        return self._names("sid", sid)

    def _names(self, kind: str, value: str) -> list[str]:
        if self._keys is None:
            self._keys = [self._derive(secret) for secret in self._secrets]
        text = f"{kind} {value}".encode("utf-8", "surrogatepass")
        return [f"{kind}:{hmac.digest(key, text, hashlib.sha256).hex()}" for key in self._keys]

    def _derive(self, secret: str) -> bytes:
        """Derive a key of 256 bits (HKDF with SHA-256, RFC 5869), for this issuer and client only."""
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        parts = [part.encode() for part in ("logto-asgi index", "1", *self._belongs_to)]
        info = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(secret.encode())
