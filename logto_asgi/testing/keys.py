"""The signing keys of the development provider: EC P-384, ES384, as a Logto tenant has them by default.

It signs what it is given and knows no claim.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

__all__ = ["ALGORITHM", "SigningKeys", "is_jwt"]

ALGORITHM = "ES384"


class SigningKeys:
    """The key that signs, and the one before it, which stays published (two at most, like Logto)."""

    def __init__(self) -> None:
        self._keys = [_new_key()]

    def rotate(self) -> None:
        """Sign with a new key from now on; publish the previous one beside it."""
        self._keys = [_new_key(), self._keys[0]]

    def public(self) -> dict[str, Any]:
        """Return the JWK Set (RFC 7517 §5), newest key first."""
        return {"keys": [key.as_dict(private=False) for key in self._keys]}

    def etag(self) -> str:
        """Return a validator for the JWK Set (RFC 9110 §8.8.3)."""
        return f'"{hashlib.sha256(json.dumps(self.public()).encode()).hexdigest()[:32]}"'

    def sign(self, claims: Mapping[str, Any], header: Mapping[str, Any] | None = None) -> str:
        """Return a JWT with `alg` and `kid`, and no `typ` unless `header` says one."""
        key = self._keys[0]
        full = {"alg": ALGORITHM, "kid": key.kid, **(header or {})}
        return jwt.encode(full, dict(claims), key, algorithms=[ALGORITHM], default_type=None)

    def read(self, token: str, *, typ: str | None = None) -> dict[str, Any] | None:
        """Return the claims of a JWT that one of these keys signed, expired or not; None for any other string.

        `typ` is what its header must say (RFC 9068 §4); None accepts every one.
        """
        for key in self._keys:
            try:
                decoded = jwt.decode(token, key, algorithms=[ALGORITHM])
                return dict(decoded.claims) if typ in (None, decoded.header.get("typ")) else None
            except (JoseError, ValueError, TypeError):
                continue
        return None


def is_jwt(token: str) -> bool:
    """Say whether a string has three parts, the first of which is a JSON object (RFC 7515 §7.1)."""
    parts = token.split(".")
    try:
        first = json.loads(base64.urlsafe_b64decode(parts[0] + "=" * (-len(parts[0]) % 4)))
    except ValueError:  # of base64, of UTF-8 or of JSON
        return False
    return len(parts) == 3 and isinstance(first, dict)


def _new_key() -> ECKey:
    return ECKey.generate_key("P-384", {"alg": ALGORITHM, "use": "sig"}, private=True, auto_kid=True)
