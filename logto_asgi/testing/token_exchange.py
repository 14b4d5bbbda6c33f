"""Token exchange: an access token of a user for another token of that user, as Logto gives it (RFC 8693).

It knows no page and no session. The endpoint has authenticated the app and looked whether it may.
"""

from __future__ import annotations

from typing import Any

from logto_asgi.testing.client_credentials import one_resource
from logto_asgi.testing.clients import Client
from logto_asgi.testing.core import Core
from logto_asgi.testing.parameters import Parameters
from logto_asgi.testing.refusals import Refusal
from logto_asgi.testing.storage import Grant
from logto_asgi.testing.users import OPENID_SCOPES

__all__ = ["IMPERSONATION_TTL", "TokenExchange"]

IMPERSONATION_TTL = 600
"""Seconds for which an impersonation token can be exchanged."""

_ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
_SINGLE_USE = {
    "urn:logto:token-type:impersonation_token": True,
    "urn:logto:token-type:personal_access_token": False,
}


class TokenExchange:
    """Answers the grant type of RFC 8693. Logto's answer has no `issued_token_type`, against §2.2.1."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def __call__(self, client: Client, params: Parameters) -> dict[str, Any]:
        """Return an access token of the subject: opaque, for a resource, for an organization or for both."""
        value, kind = params.require("subject_token"), params.require("subject_token_type")
        sub = self._subject(value, kind)
        organization_id, resource = params.get("organization_id"), one_resource(self._core, params)
        scopes = frozenset(params.words("scope")) & self._allowed(sub, resource, organization_id)
        actor = self._actor(params)
        token = self._token(client, sub, resource, organization_id, scopes, actor)
        if _SINGLE_USE.get(kind):
            del self._core.storage.subject_tokens[value]
        return {
            "access_token": token,
            "expires_in": self._core.lifetimes.access_token,
            "scope": " ".join(sorted(scopes)),
            "token_type": "Bearer",
        }

    def _subject(self, value: str, kind: str) -> str:
        """Return the `sub` of a subject token: three kinds, each known by its own means."""
        if kind == _ACCESS_TOKEN:
            sub = self._of_access_token(value)
        elif kind in _SINGLE_USE:
            sub = self._of_subject_token(value, single_use=_SINGLE_USE[kind])
        else:
            raise Refusal("invalid_grant", "unsupported subject token type")
        if self._core.directory.active(sub) is None:
            raise Refusal("invalid_grant", "subject token invalid (referenced account not found)")
        return sub

    def _of_access_token(self, value: str) -> str:
        """Return the `sub` of a live access token, whoever it was issued to. Logto exchanges one more than once."""
        opaque = self._core.live_token(value)
        if opaque is not None:
            return opaque.grant.sub
        claims = self._core.keys.read(value, typ="at+jwt")
        if claims is None or claims.get("iss") != self._core.issuer or claims.get("exp", 0) <= self._core.clock():
            raise Refusal("invalid_grant", "invalid subject token")
        return str(claims.get("sub"))

    def _of_subject_token(self, value: str, *, single_use: bool) -> str:
        token = self._core.storage.subject_tokens.get(value)
        if token is None or token.single_use != single_use:
            raise Refusal("invalid_grant", "subject token not found")
        if token.expires_at is not None and token.expires_at <= self._core.clock():
            raise Refusal("invalid_grant", "subject token is expired")
        return token.sub

    def _allowed(self, sub: str, resource: str | None, organization_id: str | None) -> frozenset[str]:
        """Return what the user may do there right now. Raise `access_denied` for one who is no member."""
        directory = self._core.directory
        if organization_id is not None:
            given = directory.membership(sub, organization_id)
            if given is None:
                raise Refusal("access_denied", "user is not a member of the organization")
            return given & self._core.resources[resource] if resource else given
        if resource is None:
            return OPENID_SCOPES
        user = directory.get(sub)
        return frozenset(scope for scope in self._core.resources[resource] if user and user.may(resource, scope))

    def _actor(self, params: Parameters) -> str | None:
        """Return the `sub` of the actor token, which is an opaque access token with the scope openid."""
        value = params.get("actor_token")
        if value is None:
            return None
        if params.get("actor_token_type") != _ACCESS_TOKEN:
            raise Refusal("invalid_grant", "unsupported actor token type")
        token = self._core.live_token(value)
        if token is None:
            raise Refusal("invalid_grant", "invalid actor token")
        if "openid" not in token.scopes:
            raise Refusal("invalid_grant", "actor token must have openid scope")
        return token.grant.sub

    def _token(
        self,
        client: Client,
        sub: str,
        resource: str | None,
        organization_id: str | None,
        scopes: frozenset[str],
        actor: str | None,
    ) -> str:
        if resource is None and organization_id is None:
            return self._core.opaque_token(Grant.without_sign_in(client.app_id, sub, scopes), scopes, actor)
        act = {} if actor is None else {"act": {"sub": actor}}
        return self._core.access_token(
            sub, client.app_id, resource=resource, organization_id=organization_id, scopes=scopes, **act
        )
