"""Read what an access token of our own says, without verifying it. Pure.

The token came from the issuer over TLS and is for a resource to verify; we only look whether it is for the right one.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from logto_asgi.oidc.strict_json import parse_object

__all__ = ["read_unverified_claims"]

_LONGEST = 16_384
"""Characters of a token that is looked into."""


def read_unverified_claims(token: str) -> dict[str, Any] | None:
    """Return the claims of a JWT (RFC 7519 §7.2), or None for an opaque token. Never use them to let somebody in."""
    parts = token.split(".")
    if len(parts) != 3 or len(token) > _LONGEST:
        return None
    try:
        payload = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        return parse_object(payload)
    except (ValueError, binascii.Error):
        return None
