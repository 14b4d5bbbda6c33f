"""The signing keys of the development provider: EC P-384, ES384, as a Logto tenant has them by default.

It signs what it is given and knows no claim.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

__all__ = ["ALGORITHM", "SigningKeys"]

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

    def read(self, token: str) -> dict[str, Any] | None:
        """Return the claims of a JWT that one of these keys signed, expired or not; None for any other string."""
        for key in self._keys:
            try:
                return dict(jwt.decode(token, key, algorithms=[ALGORITHM]).claims)
            except (JoseError, ValueError, TypeError):
                continue
        return None


def _new_key() -> ECKey:
    return ECKey.generate_key("P-384", {"alg": ALGORITHM, "use": "sig"}, private=True, auto_kid=True)
