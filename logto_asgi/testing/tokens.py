"""The token endpoint: codes and refresh tokens against tokens, as Logto does it.

It hands the grants of machines and the exchange of tokens on to their own modules. It knows no page and no browser.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from logto_asgi.testing.client_credentials import ClientCredentials
from logto_asgi.testing.clients import (
    AUTHORIZATION_CODE,
    CLIENT_CREDENTIALS,
    REFRESH_TOKEN,
    TOKEN_EXCHANGE,
    Client,
    authenticate,
)
from logto_asgi.testing.core import Core
from logto_asgi.testing.parameters import Parameters
from logto_asgi.testing.refusals import Refusal
from logto_asgi.testing.storage import Grant, RefreshToken
from logto_asgi.testing.token_exchange import TokenExchange
from logto_asgi.testing.users import ORGANIZATIONS_SCOPE

__all__ = ["TokenEndpoint"]

_KNOWN = (
    *("client_id", "client_secret", "grant_type", "code", "redirect_uri", "code_verifier", "refresh_token", "scope"),
    *("organization_id", "subject_token", "subject_token_type", "actor_token", "actor_token_type"),
)


class TokenEndpoint:
    """`/token` (RFC 6749 §3.2)."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._grants: Mapping[str, Callable[[Client, Parameters], dict[str, Any]]] = {
            AUTHORIZATION_CODE: self._exchange_code,
            REFRESH_TOKEN: self._refresh,
            CLIENT_CREDENTIALS: ClientCredentials(core),
            TOKEN_EXCHANGE: TokenExchange(core),
        }

    def __call__(self, request: Request, params: Parameters) -> Response:
        """Authenticate the app and answer its grant."""
        params.refuse_repeated(_KNOWN)
        authorization = request.headers.get("authorization")
        client = authenticate(self._core.clients, authorization, params, self._core.clock())
        grant_type = params.require("grant_type")
        answer = self._grants.get(grant_type)
        if answer is None:
            raise Refusal("unsupported_grant_type", "unsupported grant_type requested")
        if grant_type not in client.grant_types:
            raise Refusal("unauthorized_client", "requested grant type is not allowed for this client")
        return JSONResponse(answer(client, params), headers={"Cache-Control": "no-store", "Pragma": "no-cache"})

    def _exchange_code(self, client: Client, params: Parameters) -> dict[str, Any]:
        """Answer an authorization code (RFC 6749 §4.1.3); a second use ends the grant (§4.1.2)."""
        value, redirect_uri = params.require("code"), params.require("redirect_uri")
        code = self._core.storage.codes.get(value)
        if code is None or code.grant.client_id != client.app_id:
            raise _invalid_grant()
        if code.expires_at <= self._core.clock() or code.grant.revoked:
            raise _invalid_grant()
        _check_verifier(params.get("code_verifier"), code.code_challenge)
        if code.redirect_uri != redirect_uri:
            raise _invalid_grant()
        if code.consumed:
            code.grant.revoked = True
            raise _invalid_grant()
        code.consumed = True
        token = self._new_refresh_token(code.grant) if "offline_access" in code.grant.scopes else None
        # The code exchange knows no organization: organization_id is ignored here, as Logto does.
        return self._tokens(code.grant, code.grant.requested, params.all("resource"), None, token)

    def _refresh(self, client: Client, params: Parameters) -> dict[str, Any]:
        """Answer a refresh token (RFC 6749 §6)."""
        token = self._find_refresh_token(params.require("refresh_token"), client)
        scopes = frozenset(params.words("scope")) or token.grant.requested
        if scopes - token.grant.requested:
            raise Refusal("invalid_scope", "refresh token missing requested scope")
        organization_id = params.get("organization_id")
        if organization_id is not None:
            self._check_organization(token.grant, organization_id)
        token = self._rotate(token, client)
        return self._tokens(token.grant, scopes, params.all("resource"), organization_id, token)

    def _find_refresh_token(self, value: str, client: Client) -> RefreshToken:
        now, token = self._core.clock(), self._core.storage.refresh_tokens.get(value)
        if token is None or token.grant.client_id != client.app_id:
            raise _invalid_grant()
        if token.expires_at <= now or token.grant.revoked:
            raise _invalid_grant()
        if self._core.directory.active(token.grant.sub) is None:
            raise _invalid_grant()
        # A spent token goes on working for the grace period; later it is taken for a theft, and the grant ends.
        if token.consumed_at is not None and now > token.consumed_at + self._core.lifetimes.grace:
            token.grant.revoked = True
            raise _invalid_grant()
        return token

    def _check_organization(self, grant: Grant, organization_id: str) -> None:
        if ORGANIZATIONS_SCOPE not in grant.scopes:
            raise Refusal("insufficient_scope", "refresh token missing required scope")
        if self._core.directory.membership(grant.sub, organization_id) is None:
            raise Refusal("access_denied", "user is not a member of the organization")

    def _rotate(self, token: RefreshToken, client: Client) -> RefreshToken:
        """Return the refresh token to answer with: a new one for public apps, or past 70 % of its life."""
        now = self._core.clock()
        old = now - token.issued_at >= 0.7 * (token.expires_at - token.issued_at)
        wanted = {"always": True, "never": False, "logto": client.is_public or old}[self._core.rotate]
        if not wanted and token.consumed_at is None:
            return token
        token.consumed_at = now if token.consumed_at is None else token.consumed_at
        return self._new_refresh_token(token.grant)

    def _new_refresh_token(self, grant: Grant) -> RefreshToken:
        now = self._core.clock()
        token = RefreshToken(grant, now, now + self._core.lifetimes.refresh_token)
        self._core.storage.refresh_tokens[token.value] = token
        return token

    def _tokens(
        self,
        grant: Grant,
        scopes: frozenset[str],
        resources: tuple[str, ...],
        organization_id: str | None,
        refresh_token: RefreshToken | None,
    ) -> dict[str, Any]:
        token, given = self._access_token(grant, scopes, resources, organization_id)
        answer = {
            "access_token": token,
            "expires_in": self._core.lifetimes.access_token,
            "id_token": self._core.id_token(grant, scopes & grant.scopes) if "openid" in scopes else None,
            "refresh_token": refresh_token.value if refresh_token else None,
            "scope": " ".join(sorted(given)) or None,
            "token_type": "Bearer",
        }
        return {name: value for name, value in answer.items() if value is not None}

    def _access_token(
        self, grant: Grant, scopes: frozenset[str], resources: tuple[str, ...], organization_id: str | None
    ) -> tuple[str, frozenset[str]]:
        """Return a token and its scopes. The cases: two resources, a resource, an organization, both, neither."""
        resource = resources[0] if len(resources) == 1 else None
        if len(resources) > 1 or (resource is None and organization_id is None):
            return self._core.opaque_token(grant, scopes & grant.scopes), scopes & grant.scopes
        if resource is None:
            given = self._organization_scopes(grant, organization_id) & scopes & grant.organization_scopes
            return self._sign(grant, None, organization_id, given), given
        if resource not in grant.resources:
            raise Refusal("invalid_target", "resource indicator is missing, or unknown")
        given = self._resource_scopes(grant, resource, organization_id) & scopes
        return self._sign(grant, resource, organization_id, given), given

    def _sign(self, grant: Grant, resource: str | None, organization_id: str | None, scopes: frozenset[str]) -> str:
        return self._core.access_token(
            grant.sub, grant.client_id, resource=resource, organization_id=organization_id, scopes=scopes
        )

    def _organization_scopes(self, grant: Grant, organization_id: str | None) -> frozenset[str]:
        """Return what the user may do in an organization right now."""
        return self._core.directory.membership(grant.sub, organization_id or "") or frozenset()

    def _resource_scopes(self, grant: Grant, resource: str, organization_id: str | None) -> frozenset[str]:
        """Return the scopes of a resource.

        A role given later needs a new authorization, one taken away acts at once.
        """
        if organization_id is not None:
            asked = self._core.resources[resource] & grant.requested
            return asked & self._organization_scopes(grant, organization_id)
        user = self._core.directory.get(grant.sub)
        return frozenset(scope for scope in grant.resources[resource] if user and user.may(resource, scope))


def _check_verifier(verifier: str | None, challenge: str | None) -> None:
    """Compare a verifier with its challenge (RFC 7636 §4.6). A verifier without a challenge is refused as well."""
    if verifier is None and challenge is None:
        return
    digest = hashlib.sha256((verifier or "").encode()).digest()
    computed = base64.urlsafe_b64encode(digest).decode().rstrip("=")
    if verifier is None or challenge is None or not hmac.compare_digest(computed, challenge):
        raise _invalid_grant()


def _invalid_grant() -> Refusal:
    return Refusal("invalid_grant", "grant request is invalid")
