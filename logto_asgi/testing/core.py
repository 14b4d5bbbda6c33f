"""What all endpoints of the development provider share, and the tokens that it signs.

It knows no HTTP: an endpoint brings the request, this brings the clients, the users, the keys and the clock.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from logto_asgi.claims import organization_urn
from logto_asgi.testing.clients import Client
from logto_asgi.testing.keys import SigningKeys
from logto_asgi.testing.storage import Grant, OpaqueToken, SignOnSession, Storage, new_value
from logto_asgi.testing.users import Directory

__all__ = ["Core", "Lifetimes", "Rotation"]

Rotation = Literal["logto", "always", "never"]


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long things live, in seconds. The defaults are Logto's."""

    access_token: int = 3600
    id_token: int = 3600
    refresh_token: int = 14 * 86400
    session: int = 14 * 86400
    interaction: int = 3600
    code: int = 60
    grace: float = 3
    """How long a spent refresh token goes on working."""


@dataclass(slots=True)
class Core:
    """The provider without its endpoints."""

    issuer: str
    clients: dict[str, Client]
    directory: Directory
    resources: dict[str, frozenset[str]]
    lifetimes: Lifetimes
    rotate: Rotation
    clock: Callable[[], float]
    login_hint_signs_in: bool = True
    keys: SigningKeys = field(default_factory=SigningKeys, repr=False)
    storage: Storage = field(default_factory=Storage, repr=False)

    @property
    def path(self) -> str:
        """Return the path of the issuer, such as `/oidc`."""
        return urlsplit(self.issuer).path

    @property
    def cookie_name(self) -> str:
        """Return the name of the session cookie. Cookies ignore ports, so the port is in the name."""
        return f"logto_development_{urlsplit(self.issuer).port or 0}"

    def session(self, cookie: str | None) -> SignOnSession | None:
        """Return the live session of a browser: not too old, and its user still let in."""
        session = self.storage.sessions.get(cookie or "")
        if session is None or self.directory.active(session.sub) is None:
            return None
        return session if self.clock() < session.auth_time + self.lifetimes.session else None

    def sign_on(self, sub: str, previous: SignOnSession | None) -> SignOnSession:
        """Return a session for a user who signed in just now; what the same user had before stays with it."""
        now = int(self.clock())
        if previous is not None and previous.sub == sub:
            previous.auth_time = now
            return previous
        if previous is not None:
            self.storage.sessions.pop(previous.id, None)
        session = SignOnSession(sub, now)
        self.storage.sessions[session.id] = session
        return session

    def sid(self, session: SignOnSession, client: Client) -> str | None:
        """Return the session id for an app that takes back-channel logout, None for the others (as Logto)."""
        if client.backchannel_logout_uri is None:
            return None
        return session.sids.setdefault(client.app_id, new_value())

    def id_token(self, grant: Grant, scopes: Collection[str]) -> str:
        """Sign an ID token with the claims of these scopes (OpenID Connect Core §2)."""
        now = int(self.clock())
        optional = {"nonce": grant.nonce, "sid": grant.sid, "auth_time": grant.auth_time}
        return self.keys.sign(
            {
                **self.directory.claims(grant.sub, scopes),
                **{name: value for name, value in optional.items() if value is not None},
                "iss": self.issuer,
                "aud": grant.client_id,
                "iat": now,
                "exp": now + self.lifetimes.id_token,
            }
        )

    def access_token(
        self,
        sub: str | None,
        client_id: str | None,
        *,
        resource: str | None,
        organization_id: str | None = None,
        scopes: Collection[str] = (),
        header: Mapping[str, Any] | None = None,
        **extra: Any,
    ) -> str:
        """Sign an access token for a resource, an organization or both (RFC 9068 §2.2).

        No scope leaves the claim out, and so does None in `extra`.
        """
        now = int(self.clock())
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "aud": resource or organization_urn(organization_id or ""),
            "sub": sub,
            "client_id": client_id,
            "iat": now,
            "exp": now + self.lifetimes.access_token,
            "jti": new_value(),
            "scope": " ".join(sorted(scopes)) or None,
            "organization_id": organization_id if resource else None,
            **extra,
        }
        kept = {name: value for name, value in claims.items() if value is not None}
        return self.keys.sign(kept, {"typ": "at+jwt", **(header or {})})

    def opaque_token(self, grant: Grant, scopes: Collection[str], actor: str | None = None) -> str:
        """Issue an access token for userinfo, which says nothing by itself."""
        now, value = self.clock(), new_value()
        token = OpaqueToken(grant, frozenset(scopes), now, now + self.lifetimes.access_token, actor)
        self.storage.access_tokens[value] = token
        return value

    def live_token(self, value: str) -> OpaqueToken | None:
        """Return an opaque access token that has not expired, whose grant stands and whose user is let in."""
        token = self.storage.access_tokens.get(value)
        if token is None or token.grant.revoked or token.expires_at <= self.clock():
            return None
        return token if self.directory.active(token.grant.sub) else None
