"""A made-up bearer token on every request, for the time of a test. Knows the runtime's doors, and no app."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Receive, Scope, Send

from logto_asgi.claims import AccessTokenClaims, organization_urn
from logto_asgi.errors import LogtoError
from logto_asgi.middleware import LogtoMiddleware
from logto_asgi.models import AccessToken
from logto_asgi.presented import brings_token
from logto_asgi.runtime import Logto
from logto_asgi.testing.standin import invented
from logto_asgi.testing.standing import Answers, Standing, standing_for
from logto_asgi.token_rules import TokenKey

__all__ = ["Call", "Caller"]

_HOUR = 3600

_lock = threading.Lock()
_callers: list[Caller] = []
_serve = LogtoMiddleware.__call__


@dataclass(frozen=True, slots=True)
class Call:
    """What the caller's token says, and what it could be exchanged for."""

    claims: Mapping[str, Any]
    """Of `sub`, `client_id`, `scope` and so on; who issued it, and when, is made up."""
    resource: str | None = None
    organization_id: str | None = None
    access_tokens: Mapping[TokenKey, str | LogtoError] = field(default_factory=dict, repr=False)

    def audience(self, runtime: Logto) -> str | None:
        """Return what the token is for; None where neither the test nor the configuration says."""
        if self.resource is None and self.organization_id is not None:
            return organization_urn(self.organization_id)
        return self.resource or runtime.config.api_resource


class Caller(Standing):
    """Brings a token to each request of one runtime that has none, and vouches for it."""

    def __init__(self, runtime: Logto, call: Call) -> None:
        super().__init__(runtime)
        self._call = call
        self._token = f"made-up-{secrets.token_urlsafe(16)}"
        self._audience = call.audience(runtime)

    def answers(self) -> Answers:
        """Stand in where tokens are verified and exchanged."""
        bearer, client_tokens = self._runtime.bearer, self._runtime.client_tokens
        return [
            (bearer, "known", self._known),
            (bearer, "verify", self._verify),
            (client_tokens, "on_behalf_of", self._on_behalf_of),
        ]

    def put_up(self) -> None:
        """Call from now on: requests get their token where they enter the middleware."""
        super().put_up()
        with _lock:
            _callers.append(self)
            LogtoMiddleware.__call__ = _serve_with_token  # type: ignore[assignment, method-assign]

    def take_down(self) -> None:
        """Leave; with the last one the middleware is what it was."""
        with _lock:
            _callers.remove(self)
            if not _callers:
                LogtoMiddleware.__call__ = _serve  # type: ignore[method-assign]
        super().take_down()

    def bring_token(self, scope: Scope) -> None:
        """Add the token to a request, unless it brings one itself: that one decides then, as ever."""
        if not brings_token(scope):
            scope["headers"] = [*scope["headers"], (b"authorization", f"Bearer {self._token}".encode())]

    def _known(self, token: str, *, opaque: bool = False) -> AccessTokenClaims | None:
        bearer = self._runtime.bearer
        return self._claims() if token == self._token else type(bearer).known(bearer, token, opaque=opaque)

    async def _verify(self, token: str, *, opaque: bool = False) -> AccessTokenClaims:
        bearer = self._runtime.bearer
        return self._claims() if token == self._token else await type(bearer).verify(bearer, token, opaque=opaque)

    def _claims(self) -> AccessTokenClaims:
        now = int(self._runtime.clock())
        made_up = {"iss": self._runtime.config.issuer, "aud": self._audience, "iat": now, "exp": now + _HOUR}
        if self._call.resource and self._call.organization_id:
            made_up["organization_id"] = self._call.organization_id
        return AccessTokenClaims.parse({**made_up, **self._call.claims})

    async def _on_behalf_of(
        self,
        access_token: str,
        *,
        resource: str | None = None,
        organization_id: str | None = None,
        **options: Any,
    ) -> AccessToken:
        client_tokens = self._runtime.client_tokens
        if access_token != self._token:
            options |= {"resource": resource, "organization_id": organization_id}
            return await type(client_tokens).on_behalf_of(client_tokens, access_token, **options)
        client_tokens._check_credentials("To exchange a caller's token takes")
        value = self._call.access_tokens.get((resource, organization_id)) or invented(resource, organization_id)
        if isinstance(value, LogtoError):
            raise value
        now = int(self._runtime.clock())
        return AccessToken(value, now + _HOUR, (), resource, organization_id, now, now)


async def _serve_with_token(middleware: LogtoMiddleware, scope: Scope, receive: Receive, send: Send) -> None:
    caller = standing_for(middleware.logto)
    if scope["type"] in ("http", "websocket") and isinstance(caller, Caller):
        caller.bring_token(scope)
    await _serve(middleware, scope, receive, send)
