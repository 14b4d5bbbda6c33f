"""Make the tokens and documents of an issuer, right ones and wrong ones. It knows nothing of the library."""

from __future__ import annotations

import base64
import json
import warnings
from typing import Any

from joserfc.jwa import JWS_ALGORITHMS

NOW = 1_800_000_000
ENDPOINT = "https://tenant.logto.app"
ISSUER = f"{ENDPOINT}/oidc"
APP_ID = "shop-app"
SECRET = "s3cret:with/odd+characters&more-of-them"
NONCE = "nonce-of-this-sign-in"
ACCESS_TOKEN = "opaque-access-token"
CODE = "the-authorization-code"
ABSENT = object()
"""Leaves a claim or header member out."""


def b64(data: bytes) -> str:
    """Encode base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def claims(**changes: Any) -> dict[str, Any]:
    """Return the claims of a good ID token, with changes."""
    good = {"iss": ISSUER, "sub": "user-1", "aud": APP_ID, "exp": NOW + 3600, "iat": NOW, "nonce": NONCE}
    return {name: value for name, value in (good | changes).items() if value is not ABSENT}


def sign(key: Any, payload: dict[str, Any] | bytes, *, alg: str = "ES384", header: dict[str, Any] | None = None) -> str:
    """Sign anything, with any header, as no careful library would."""
    members = {"alg": alg, "kid": key.kid, **(header or {})}
    head = json.dumps({name: value for name, value in members.items() if value is not ABSENT}).encode()
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    signing_input = f"{b64(head)}.{b64(body)}"
    model = next(model for model in JWS_ALGORITHMS if model.name == alg)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return f"{signing_input}.{b64(model.sign(signing_input.encode(), key))}"


def discovery_document(**changes: Any) -> dict[str, Any]:
    """Return Logto's discovery document, as far as it matters, with changes."""
    good = {
        "issuer": ISSUER,
        "authorization_endpoint": f"{ISSUER}/auth",
        "token_endpoint": f"{ISSUER}/token",
        "userinfo_endpoint": f"{ISSUER}/me",
        "jwks_uri": f"{ISSUER}/jwks",
        "end_session_endpoint": f"{ISSUER}/session/end",
        "revocation_endpoint": f"{ISSUER}/token/revocation",
        "id_token_signing_alg_values_supported": [
            "HS256", "none", "ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA",
            "Ed25519",
        ],
        "authorization_response_iss_parameter_supported": True,
        "backchannel_logout_supported": True,
        "backchannel_logout_session_supported": True,
        "scopes_supported": ["openid"],
    }  # fmt: skip
    return {name: value for name, value in (good | changes).items() if value is not ABSENT}
