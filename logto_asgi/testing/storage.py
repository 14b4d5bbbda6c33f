"""What the development provider remembers, all of it in memory: sessions, grants, codes and tokens.

It knows no HTTP and decides nothing; it only keeps what belongs together and forgets it on request.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Self

from logto_asgi.testing.clients import Client

__all__ = [
    "AuthorizationCode",
    "AuthorizationRequest",
    "Grant",
    "Interaction",
    "OpaqueToken",
    "RefreshToken",
    "SignOnSession",
    "Storage",
    "SubjectToken",
    "new_value",
]


def new_value() -> str:
    """Return 256 random bits as text: a code, an opaque token, an id."""
    return secrets.token_urlsafe(32)


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """A checked authorization request (OpenID Connect Core §3.1.2.1)."""

    client: Client
    redirect_uri: str
    response_mode: str
    state: str | None = field(repr=False)
    nonce: str | None = field(repr=False)
    scopes: frozenset[str]
    resources: tuple[str, ...]
    code_challenge: str | None = field(repr=False)
    prompts: frozenset[str]
    max_age: int | None
    login_hint: str | None
    id_token_hint: str | None = field(repr=False)
    first_screen: str | None
    one_time_token: str | None = field(repr=False)


@dataclass(slots=True)
class SignOnSession:
    """A browser that is signed in at the provider, for every app at once."""

    sub: str
    auth_time: int
    id: str = field(default_factory=new_value, repr=False)
    sids: dict[str, str] = field(default_factory=dict, repr=False)
    """The session id that each app knows, by app id."""
    consented: set[str] = field(default_factory=set)
    """Ids of third-party apps that the user agreed to."""


@dataclass(slots=True)
class Interaction:
    """A sign-in page that is open in a browser."""

    request: AuthorizationRequest
    expires_at: float
    session: SignOnSession | None = None
    """Set when the user is known and only the consent is missing."""
    id: str = field(default_factory=new_value, repr=False)


@dataclass(slots=True)
class Grant:
    """What a user gave an app in one authorization. All tokens hang on it and die with it."""

    client_id: str
    sub: str
    session_id: str = field(repr=False)
    scopes: frozenset[str]
    """Scopes of OpenID Connect and of Logto's own."""
    resources: dict[str, frozenset[str]]
    """Scopes at the time of the authorization, by resource."""
    organization_scopes: frozenset[str]
    requested: frozenset[str]
    """Every scope that was asked for; a refresh may ask for no other."""
    nonce: str | None = field(repr=False)
    sid: str | None = field(repr=False)
    auth_time: int | None
    revoked: bool = False

    @classmethod
    def without_sign_in(cls, client_id: str, sub: str, scopes: frozenset[str]) -> Self:
        """Return a grant that came about without a browser: it brings no refresh token and no ID token."""
        return cls(client_id, sub, "", scopes, {}, frozenset(), scopes, None, None, None)


@dataclass(slots=True)
class AuthorizationCode:
    """A code and what it is bound to (RFC 6749 §4.1.2, RFC 7636 §4.4)."""

    grant: Grant
    redirect_uri: str
    code_challenge: str | None = field(repr=False)
    expires_at: float
    consumed: bool = False


@dataclass(slots=True)
class RefreshToken:
    """A refresh token; `consumed_at` is set when another replaced it (seconds since 1970)."""

    grant: Grant
    issued_at: float
    expires_at: float
    consumed_at: float | None = None
    value: str = field(default_factory=new_value, repr=False)


@dataclass(slots=True)
class OpaqueToken:
    """An access token for userinfo."""

    grant: Grant
    scopes: frozenset[str]
    issued_at: float
    expires_at: float
    actor: str | None = None
    """The `sub` of who acts in the user's name (RFC 8693 §4.1)."""


@dataclass(slots=True)
class SubjectToken:
    """What an administrator or a user made, to be exchanged for access tokens of a user (RFC 8693 §2.1)."""

    sub: str
    expires_at: float | None
    """Seconds since 1970; None means never."""
    single_use: bool


class Storage:
    """Everything that was issued, by its value."""

    def __init__(self) -> None:
        self.sessions: dict[str, SignOnSession] = {}
        self.interactions: dict[str, Interaction] = {}
        self.codes: dict[str, AuthorizationCode] = {}
        self.refresh_tokens: dict[str, RefreshToken] = {}
        self.access_tokens: dict[str, OpaqueToken] = {}
        self.one_time_tokens: dict[str, str] = {}
        self.subject_tokens: dict[str, SubjectToken] = {}

    def open_interaction(self, interaction: Interaction, now: float) -> None:
        """Keep an open sign-in page, and drop those that have expired."""
        self.interactions = {key: each for key, each in self.interactions.items() if each.expires_at > now}
        self.interactions[interaction.id] = interaction

    def revoke(self, matches: Callable[[Grant], bool]) -> None:
        """End every grant that matches; its tokens are refused from now on."""
        for grant in self._grants():
            if matches(grant):
                grant.revoked = True

    def forget_token(self, value: str) -> bool:
        """End one token that is no JWT; with a refresh token its grant ends. Return whether there was one."""
        refresh_token = self.refresh_tokens.get(value)
        if refresh_token is not None:
            refresh_token.grant.revoked = True
        found = [table.pop(value, None) for table in (self.access_tokens, self.subject_tokens)]
        return refresh_token is not None or any(found)

    def end_sessions(self, sub: str) -> None:
        """Forget every browser that is signed in as this user."""
        self.sessions = {key: session for key, session in self.sessions.items() if session.sub != sub}

    def _grants(self) -> Iterable[Grant]:
        for table in (self.codes, self.refresh_tokens, self.access_tokens):
            yield from (issued.grant for issued in table.values())
