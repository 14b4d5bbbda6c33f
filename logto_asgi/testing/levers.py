"""Levers: what a test may do to the development provider, and tokens that it makes without a sign-in.

It knows no endpoint; the provider puts both together.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from logto_asgi.testing.clients import Client
from logto_asgi.testing.controls import Faults
from logto_asgi.testing.core import Core
from logto_asgi.testing.storage import Grant, SubjectToken, new_value
from logto_asgi.testing.token_exchange import IMPERSONATION_TTL
from logto_asgi.testing.users import DemoUser

__all__ = ["Levers"]

_NOBODYS_CLIENT = "test-client"
"""Whom a token was issued to, where the provider knows no client."""


class Levers:
    """The part of `DevelopmentProvider` that tests and demos call."""

    _core: Core
    _faults: Faults

    @property
    def issuer(self) -> str:
        """Return the issuer, as it stands in discovery and in tokens."""
        return self._core.issuer

    @property
    def endpoint(self) -> str:
        """Return what an app configures as `LOGTO_ENDPOINT`: the issuer without `/oidc`."""
        return self.issuer.removesuffix("/oidc")

    @property
    def users(self) -> tuple[DemoUser, ...]:
        """Return who can sign in, those who registered included."""
        return self._core.directory.users

    def add_client(self, client: Client) -> None:
        """Add an app, or replace the one with the same id."""
        self._core.clients[client.app_id] = client

    # What ends

    def expire_access_tokens(self) -> None:
        """Let every opaque access token end now. A JWT says itself when it ends: move the clock for those."""
        now = self._core.clock()
        for token in self._core.storage.access_tokens.values():
            token.expires_at = min(token.expires_at, now)

    def revoke(self, sub: str) -> None:
        """End every grant and session of a user: the next refresh is `invalid_grant`."""
        self._core.storage.revoke(lambda grant: grant.sub == sub)
        self._core.storage.end_sessions(sub)

    def revoke_token(self, token: str) -> None:
        """End one opaque, refresh, impersonation or personal access token. Raise `KeyError` for any other string.

        A JWT cannot be revoked: it is good until it expires, or until its key is rotated away.
        """
        if not self._core.storage.forget_token(token):
            raise KeyError("no such token; a JWT cannot be revoked")

    def suspend(self, sub: str, suspended: bool = True) -> None:
        """Suspend a user, or let it in again: no sign-in, no refresh, no userinfo."""
        self._core.directory.suspend(sub, suspended)

    def set_claims(self, sub: str, **claims: Any) -> None:
        """Change claims of a user; the next ID token and userinfo answer show them. Unknown names need no scope."""
        self._core.directory.set_claims(sub, claims)

    def rotate_keys(self) -> None:
        """Sign with a new key from now on; the previous one stays published."""
        self._core.keys.rotate()

    # What goes wrong

    def fail_next(
        self,
        endpoint: str,
        status: int = 503,
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, object] | str | None = None,
    ) -> None:
        """Let the next request to an endpoint fail before anything is done. Ordered twice, the next two fail."""
        self._faults.fail(endpoint, status, headers, body)

    def delay(self, endpoint: str, seconds: float, *, after: bool = False) -> None:
        """Make an endpoint slow, before its work or `after` it, until it is called with 0 seconds."""
        self._faults.delay(endpoint, seconds, after)

    # Tokens without a sign-in

    def one_time_token(self, sub: str) -> str:
        """Return a magic link's token: one sign-in of this user, together with its e-mail as `login_hint`."""
        token = new_value()
        self._core.storage.one_time_tokens[token] = sub
        return token

    def mint_id_token(self, sub: str, *, header: Mapping[str, Any] | None = None, **overrides: Any) -> str:
        """Sign an ID token for the first client. `overrides` replace claims; None takes one away."""
        now = int(self._core.clock())
        scopes = ("openid", "profile", "email", "roles")
        claims: dict[str, Any] = {
            **self._core.directory.claims(sub, scopes),
            "iss": self.issuer,
            "aud": self._first_client(),
            "iat": now,
            "exp": now + self._core.lifetimes.id_token,
            **overrides,
        }
        kept = {name: value for name, value in claims.items() if name not in overrides or value is not None}
        return self._core.keys.sign(kept, header)

    def mint_access_token(
        self,
        sub: str | None,
        *,
        resource: str | None = None,
        organization_id: str | None = None,
        scopes: Collection[str] = (),
        client_id: str | None = None,
        header: Mapping[str, Any] | None = None,
        **overrides: Any,
    ) -> str:
        """Sign an access token for a resource, an organization or both, whether or not either is known here.

        `sub` may be anybody; a machine's is its `client_id`, which is the first client's unless given (`"test-client"`
        where there is none) and is left out when empty. `overrides` replace claims, and None takes one away. Raise
        `ValueError` for a token without any audience.
        """
        if resource is None and organization_id is None and "aud" not in overrides:
            raise ValueError("an access token is for a resource or an organization: give one of them, or aud=…")
        return self._core.access_token(
            sub,
            (self._first_client() or _NOBODYS_CLIENT) if client_id is None else client_id or None,
            resource=resource,
            organization_id=organization_id,
            scopes=scopes,
            header=header,
            **overrides,
        )

    def opaque_access_token(self, sub: str, *, client_id: str | None = None, scopes: Collection[str] = ()) -> str:
        """Return an access token without a resource: for userinfo, when `scopes` have `openid`, and introspection."""
        return self._core.opaque_token(self._grant(sub, client_id, scopes), scopes)

    def impersonation_token(self, sub: str) -> str:
        """Return what an administrator gets to act as a user: one exchange within 600 seconds."""
        return self._subject_token(SubjectToken(sub, self._core.clock() + IMPERSONATION_TTL, single_use=True))

    def personal_access_token(self, sub: str) -> str:
        """Return a token that a user made for scripts: any number of exchanges, until it is revoked."""
        return self._subject_token(SubjectToken(sub, None, single_use=False))

    def _subject_token(self, token: SubjectToken) -> str:
        value = new_value()
        self._core.storage.subject_tokens[value] = token
        return value

    def _grant(self, sub: str, client_id: str | None, scopes: Collection[str]) -> Grant:
        return Grant.without_sign_in(client_id or self._first_client() or _NOBODYS_CLIENT, sub, frozenset(scopes))

    def _first_client(self) -> str | None:
        return next(iter(self._core.clients), None)
