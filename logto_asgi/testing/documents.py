"""The two documents that everybody may read: the provider's metadata and its public keys.

It knows no user and no token.
"""

from __future__ import annotations

import logging
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from logto_asgi.testing.clients import GRANT_TYPES
from logto_asgi.testing.core import Core
from logto_asgi.testing.keys import ALGORITHM
from logto_asgi.testing.parameters import Parameters
from logto_asgi.testing.users import OPENID_SCOPES

__all__ = ["DiscoveryDocument", "KeySetDocument"]

_log = logging.getLogger("logto_asgi.testing")

_ENDPOINTS = {
    "authorization_endpoint": "/auth",
    "token_endpoint": "/token",
    "userinfo_endpoint": "/me",
    "jwks_uri": "/jwks",
    "end_session_endpoint": "/session/end",
    "revocation_endpoint": "/token/revocation",
    "introspection_endpoint": "/token/introspection",
}
_FACTS = {
    "scopes_supported": sorted(OPENID_SCOPES),
    "response_types_supported": ["code"],
    "response_modes_supported": ["query", "fragment", "form_post"],
    "grant_types_supported": list(GRANT_TYPES),
    "subject_types_supported": ["public"],
    "id_token_signing_alg_values_supported": [ALGORITHM],
    "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
    "code_challenge_methods_supported": ["S256"],
    "prompt_values_supported": ["none", "login", "consent"],
    "authorization_response_iss_parameter_supported": True,
}


class DiscoveryDocument:
    """`/.well-known/openid-configuration` (OpenID Connect Discovery §3)."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._told = False

    def __call__(self, request: Request, params: Parameters) -> Response:
        """Answer the metadata; every address is made of the issuer, never of the `Host` header."""
        issuer = self._core.issuer
        self._tell_of_another_address(request.headers["host"])
        endpoints = {name: issuer + path for name, path in _ENDPOINTS.items()}
        return JSONResponse({"issuer": issuer, **endpoints, **_FACTS})

    def _tell_of_another_address(self, host: str) -> None:
        """Log once who is asked where it is not: the app that asks refuses the document, and cannot know the remedy."""
        issuer = urlsplit(self._core.issuer)
        if self._told or host.lower() == issuer.netloc.lower():
            return
        self._told = True
        _log.warning(
            "The development provider is asked at %s, and its issuer is %s: apps that look for it there refuse it. "
            'Write DevelopmentProvider(issuer="%s", …), or start it where its issuer is.',
            host,
            self._core.issuer,
            issuer._replace(netloc=host).geturl(),
        )


class KeySetDocument:
    """`/jwks` (RFC 7517 §5)."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def __call__(self, request: Request, params: Parameters) -> Response:
        """Answer the public keys, or 304 when the caller has them."""
        headers = {"Cache-Control": "no-cache, max-age=0, must-revalidate", "ETag": self._core.keys.etag()}
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        return JSONResponse(self._core.keys.public(), headers=headers)
