"""The introspection endpoint: what an opaque token is good for (RFC 7662). It issues no token and ends none."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from logto_asgi.testing.clients import Client, authenticate
from logto_asgi.testing.core import Core
from logto_asgi.testing.keys import is_jwt
from logto_asgi.testing.parameters import Parameters
from logto_asgi.testing.refusals import Refusal

__all__ = ["IntrospectionEndpoint"]


class IntrospectionEndpoint:
    """`/token/introspection`."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def __call__(self, request: Request, params: Parameters) -> Response:
        """Answer what a token is, or `{"active": false}` and not why (§2.2). A JWT is refused, as in Logto."""
        params.refuse_repeated(("token", "token_type_hint", "client_id", "client_secret"))
        authorization = request.headers.get("authorization")
        client = authenticate(self._core.clients, authorization, params, self._core.clock())
        value = params.require("token")
        if is_jwt(value):
            raise Refusal("unsupported_token_type", "Structured JWT Tokens cannot be introspected")
        facts = self._access_token(value, client) or self._refresh_token(value, client)
        return JSONResponse({"active": facts is not None, **(facts or {})}, headers={"Cache-Control": "no-store"})

    def _access_token(self, value: str, client: Client) -> dict[str, Any] | None:
        token = self._core.live_token(value)
        if token is None or not _may_know(client, token.grant.client_id):
            return None
        act = {} if token.actor is None else {"act": {"sub": token.actor}}
        facts = self._facts(token.grant.sub, token.grant.client_id, token.issued_at, token.expires_at, token.scopes)
        return {**act, **facts, "token_type": "Bearer"}

    def _refresh_token(self, value: str, client: Client) -> dict[str, Any] | None:
        """Answer a refresh token, which is active too: only the lack of `token_type` tells it from an access token."""
        token = self._core.storage.refresh_tokens.get(value)
        if token is None or not _may_know(client, token.grant.client_id):
            return None
        if token.grant.revoked or token.consumed_at is not None or token.expires_at <= self._core.clock():
            return None
        return self._facts(
            token.grant.sub, token.grant.client_id, token.issued_at, token.expires_at, token.grant.requested
        )

    def _facts(
        self, sub: str, client_id: str, issued_at: float, expires_at: float, scopes: frozenset[str]
    ) -> dict[str, Any]:
        """Return the members that every active token has. An opaque one of Logto has no `aud`."""
        scope = {"scope": " ".join(sorted(scopes))} if scopes else {}
        times = {"iat": int(issued_at), "exp": int(expires_at)}
        return {"sub": sub, "client_id": client_id, "iss": self._core.issuer, **times, **scope}


def _may_know(client: Client, owner: str) -> bool:
    """Say whether an app may ask about a token: a confidential one about all, a public one about its own."""
    return not client.is_public or client.app_id == owner
