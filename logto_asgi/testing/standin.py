"""A made-up session in place of the cookie's, for the time of a test. Knows the runtime's doors, and no app."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from logto_asgi.claims import IdTokenClaims, UserInfo
from logto_asgi.errors import LogtoError
from logto_asgi.models import AccessToken, Session
from logto_asgi.runtime import Logto
from logto_asgi.session.loaded import Loaded
from logto_asgi.testing.asked import may_have
from logto_asgi.testing.standing import Answers, Standing
from logto_asgi.token_rules import TokenKey

__all__ = ["Somebody", "StandIn", "invented"]

_HOUR = 3600
_MADE_UP = "made-up-"


@dataclass(frozen=True, slots=True)
class Somebody:
    """Who is signed in, and what the issuer would answer."""

    claims: Mapping[str, Any]
    scopes: tuple[str, ...] | None = None
    """What was granted; None means all that the configuration asks for."""
    access_tokens: Mapping[TokenKey, str | LogtoError] = field(default_factory=dict, repr=False)
    granted: Mapping[TokenKey, tuple[str, ...]] = field(default_factory=dict)
    """Scopes of the access tokens."""
    user_info: Mapping[str, Any] | LogtoError | None = None
    """None means what the claims say."""


class StandIn(Standing):
    """Answers for one runtime: its cookie, its tokens and its userinfo. Without somebody, nobody is signed in."""

    def __init__(self, runtime: Logto, somebody: Somebody | None) -> None:
        super().__init__(runtime)
        self._session = None if somebody is None else _session(runtime, somebody)
        self._access_tokens = {} if somebody is None else somebody.access_tokens
        self._granted = {} if somebody is None else somebody.granted
        self._user_info = None if somebody is None or self._session is None else _user_info(self._session, somebody)

    def answers(self) -> Answers:
        """Stand in where requests ask for the session, and where it reaches the cookie."""
        sessions, tokens = self._runtime.sessions, self._runtime.tokens
        return [
            (sessions, "load", self._load),
            (sessions, "headers_to_send", self._headers_to_send),
            (tokens, "get", self._get_token),
            (tokens, "renew", self._unchanged),
            (tokens, "clear", self._unchanged),
            (self._runtime, "fetch_user_info", self._fetch_user_info),
        ]

    def _load(self, headers: Iterable[tuple[bytes, bytes]]) -> Loaded:
        sessions = self._runtime.sessions
        loaded = type(sessions).load(sessions, headers)
        loaded.presented, loaded.problem, loaded.clear, loaded.id = None, None, False, None
        loaded.session = self._session
        if self._session is not None:
            now = int(self._runtime.clock())
            loaded.session = replace(self._session, created_at=now, sealed_at=now, checked_at=now)
        return loaded

    def _headers_to_send(self, loaded: Loaded, *, may_roll: bool) -> list[str]:
        """Write no made-up session; a real one is, if somebody signs in meanwhile."""
        if loaded.session is not None and loaded.session.id.startswith(_MADE_UP):
            return []
        sessions = self._runtime.sessions
        return type(sessions).headers_to_send(sessions, loaded, may_roll=may_roll)

    async def _get_token(
        self,
        session: Session,
        *,
        resource: str | None = None,
        organization_id: str | None = None,
        force_refresh: bool = False,
        min_ttl: int | None = None,
    ) -> tuple[Session, AccessToken]:
        self._runtime.tokens._check_configured(resource, organization_id)
        value = self._access_tokens.get((resource, organization_id)) or invented(resource, organization_id)
        if isinstance(value, LogtoError):
            raise value
        granted = self._granted.get((resource, organization_id), ())
        # Of two apps in one, only that which asks for a scope at sign-in gets it.
        scopes = tuple(scope for scope in granted if may_have(scope, self._runtime.config))
        now = int(self._runtime.clock())
        return session, AccessToken(value, now + _HOUR, scopes, resource, organization_id, now, now)

    async def _unchanged(self, session: Session) -> Session:
        """Refresh nothing and clear nothing: what the test says goes on."""
        return session

    async def _fetch_user_info(self, session: Session) -> tuple[Session, UserInfo]:
        if isinstance(self._user_info, LogtoError):
            raise self._user_info
        assert self._user_info is not None  # noqa: S101 -- nobody's session never comes here
        return session, self._user_info


def _session(runtime: Logto, somebody: Somebody) -> Session:
    now = int(runtime.clock())
    of_every_token = {"iss": runtime.config.issuer, "aud": runtime.config.app_id, "iat": now, "exp": now + _HOUR}
    return Session(
        id=_MADE_UP + secrets.token_urlsafe(16),
        version=1,
        created_at=now,
        sealed_at=now,
        claims=IdTokenClaims.parse({**of_every_token, **somebody.claims}),
        scopes=runtime.config.scopes if somebody.scopes is None else somebody.scopes,
    )


def _user_info(session: Session, somebody: Somebody) -> UserInfo | LogtoError:
    given = somebody.user_info
    if isinstance(given, LogtoError):
        return given
    if given is None:
        of_id_tokens = IdTokenClaims.model_fields.keys() - UserInfo.model_fields.keys()
        given = {name: value for name, value in session.claims.raw().items() if name not in of_id_tokens}
    info = UserInfo.parse({"sub": session.claims.sub, **given})
    if info.sub != session.claims.sub:
        raise ValueError(f"user_info is of {info.sub!r}, and {session.claims.sub!r} is signed in: leave out its `sub`")
    return info


def invented(resource: str | None, organization_id: str | None) -> str:
    """Return a token that says in words what it would be for."""
    purpose = [resource, f"organization {organization_id}" if organization_id else None]
    return f"access token for {' in '.join(each for each in purpose if each) or 'userinfo'}"
