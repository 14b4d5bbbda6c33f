"""The endpoints around a signed-in user: userinfo, revocation, sign-out.

It knows no sign-in and issues no token. Back-channel logout calls are left out.
"""

from __future__ import annotations

from urllib.parse import urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from logto_asgi.testing import screens
from logto_asgi.testing.authorization import redirect
from logto_asgi.testing.clients import Client, authenticate
from logto_asgi.testing.core import Core
from logto_asgi.testing.keys import is_jwt
from logto_asgi.testing.parameters import Parameters
from logto_asgi.testing.refusals import Refusal

__all__ = ["EndSessionEndpoint", "RevocationEndpoint", "UserinfoEndpoint"]


class UserinfoEndpoint:
    """`/me` (OpenID Connect Core §5.3)."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def __call__(self, request: Request, params: Parameters) -> Response:
        """Answer the claims of an opaque access token; a resource's JWT is refused."""
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        token = self._core.live_token(value) if scheme.lower() == "bearer" else None
        if token is None:
            raise Refusal("invalid_token", "invalid token provided", challenge="Bearer")
        if "openid" not in token.scopes:
            raise Refusal("insufficient_scope", "access token missing openid scope", challenge="Bearer")
        claims = self._core.directory.claims(token.grant.sub, token.scopes, userinfo=True)
        return JSONResponse(claims, headers={"Cache-Control": "no-store"})


class RevocationEndpoint:
    """`/token/revocation` (RFC 7009 §2)."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def __call__(self, request: Request, params: Parameters) -> Response:
        """End a token and the grant it hangs on. An unknown token, or another app's, is no error (§2.2)."""
        params.refuse_repeated(("token", "token_type_hint", "client_id", "client_secret"))
        authorization = request.headers.get("authorization")
        client = authenticate(self._core.clients, authorization, params, self._core.clock())
        value = params.require("token")
        if is_jwt(value):
            raise Refusal("unsupported_token_type", "Structured JWT Tokens cannot be revoked")
        storage = self._core.storage
        token = storage.refresh_tokens.get(value) or storage.access_tokens.get(value)
        if token is not None and token.grant.client_id == client.app_id:
            token.grant.revoked = True
        return Response(status_code=200)


class EndSessionEndpoint:
    """`/session/end` (OpenID Connect RP-Initiated Logout §2), without a question."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def __call__(self, request: Request, params: Parameters) -> Response:
        """End the browser's session for every app, then go where the app asked."""
        known = ("id_token_hint", "post_logout_redirect_uri", "state", "ui_locales", "client_id", "logout_hint")
        try:
            params.refuse_repeated(known)
            target = self._target(params)
        except Refusal as refusal:
            return screens.refused(refusal)
        self._end(request.cookies.get(self._core.cookie_name))
        response = redirect(target) if target else screens.signed_out()
        response.delete_cookie(self._core.cookie_name, path="/", httponly=True, samesite="lax")
        return response

    def _target(self, params: Parameters) -> str | None:
        """Return where to go: a registered URI of the app that asks. Without an app the URI is ignored."""
        client, target = self._client(params), params.get("post_logout_redirect_uri")
        if client is None or target is None:
            return None
        if target not in client.post_logout_redirect_uris:
            raise Refusal("invalid_request", "post_logout_redirect_uri not registered")
        state = params.get("state")
        separator = "&" if urlsplit(target).query else "?"
        return target if state is None else f"{target}{separator}{urlencode({'state': state})}"

    def _client(self, params: Parameters) -> Client | None:
        app_id, hint = params.get("client_id"), params.get("id_token_hint")
        if hint is not None:
            claims = self._core.keys.read(hint)
            if claims is None:
                raise Refusal("invalid_request", "could not validate id_token_hint")
            if app_id is not None and app_id != claims.get("aud"):
                raise Refusal("invalid_request", "client_id does not match the provided id_token_hint")
            app_id = str(claims.get("aud"))
        if app_id is None:
            return None
        if app_id not in self._core.clients:
            raise Refusal("invalid_client", "client is invalid")
        return self._core.clients[app_id]

    def _end(self, cookie: str | None) -> None:
        """Forget the session. Grants with offline_access survive it, as they do at Logto."""
        session = self._core.storage.sessions.pop(cookie or "", None)
        if session is None:
            return
        self._core.storage.revoke(lambda grant: grant.session_id == session.id and "offline_access" not in grant.scopes)
