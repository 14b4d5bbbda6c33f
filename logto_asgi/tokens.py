"""Outgoing tokens: the right one for a resource or organization, kept, and refreshed once for all who wait.

Knows sessions and the issuer's client; knows no request, response or user object.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from logto_asgi.claims import is_organization_id
from logto_asgi.errors import (
    AccessTokenMismatch,
    AccessTokenRefused,
    IssuerError,
    IssuerUnavailable,
    RefreshTokenMissing,
    SessionEnded,
    SessionTooLarge,
    SetupError,
    StoreUnavailable,
)
from logto_asgi.lines import Lines
from logto_asgi.models import AccessToken, ReservedResource, Session, TokenSet
from logto_asgi.refreshing import Refresher
from logto_asgi.session.backend import Overtaken, Saved, SessionBackend, Turn
from logto_asgi.short_memory import ShortMemory
from logto_asgi.token_rules import TokenKey, margin_of

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig
    from logto_asgi.events import Events
    from logto_asgi.oidc.client import OidcClient

__all__ = ["AccessTokens"]

Outcome = tuple[Session, AccessToken | None]
"""A session's next state, and the token that led to it, if it was one."""

_REFUSAL_KEPT = 10
"""Seconds for which a refusal of one token is not asked for again."""
_NOTES_KEPT = 4_096
_TRIES = 5
"""How often a refresh starts over because somebody else changed the session first."""
_REST = 30
"""Seconds for which claims that could not be renewed are used as they are, before the issuer is asked again."""
_PATIENCE = 3.0
"""Seconds that a request waits for new claims which it can do without; the refresh goes on."""
_EVERYBODY = ""
"""In place of a session's id: no session at all can reach the issuer."""
_PLAIN: TokenKey = (None, None)


class AccessTokens:
    """Hands out access tokens of sessions; one refresh per session at a time, shared by everyone who waits."""

    def __init__(
        self,
        config: LogtoConfig,
        sessions: SessionBackend,
        client: Callable[[], OidcClient],
        clock: Callable[[], float],
        events: Events,
    ) -> None:
        self._config = config
        self._sessions = sessions
        self._clock = clock
        self._events = events
        self._refresher = Refresher(config, sessions, client, clock, events)
        self._lines: Lines[Outcome] = Lines()
        self._refusals: ShortMemory[tuple[str, TokenKey], AccessTokenRefused] = ShortMemory(
            lifetime=_REFUSAL_KEPT, limit=_NOTES_KEPT, clock=clock
        )
        self._resting: ShortMemory[str, bool] = ShortMemory(lifetime=_REST, limit=_NOTES_KEPT, clock=clock)

    async def get(
        self,
        session: Session,
        *,
        resource: str | None = None,
        organization_id: str | None = None,
        force_refresh: bool = False,
        min_ttl: int | None = None,
    ) -> tuple[Session, AccessToken]:
        """Return the newest state of the session and a token that lives longer than the refresh margin.

        With `min_ttl`, longer than so many seconds, as far as the issuer's tokens do. Raises `SessionEnded`,
        `RefreshTokenMissing`, `AccessTokenRefused`, `AccessTokenMismatch`, `IssuerUnavailable`, `IssuerRefused`,
        `IssuerResponseInvalid`, `StoreUnavailable`, and `SetupError` for a resource that sign-in never asks for.
        """
        self._check_configured(resource, organization_id)
        current = await self._current(session)
        key = (resource, organization_id)
        if not force_refresh:
            token = self._usable(current, key, min_ttl)
            if token is not None:
                return self._sessions.used(current, token), token
            self._check_refusals(current, key)

        def enough(newest: Session) -> bool:
            return not force_refresh and self._usable(newest, key, min_ttl) is not None

        work = partial(self._in_turn, partial(self._obtain, key), enough)
        newest, token = await self._lines.join(current, ("token", key, min_ttl), work, fresh=force_refresh)
        return newest, token or newest.access_tokens[key]

    async def renew(self, session: Session) -> Session:
        """Refresh now, whatever is kept: new claims (Core §12.2), and the issuer's word that the session lives.

        Raises as `get`.
        """
        current = await self._current(session)
        work = partial(self._in_turn, partial(self._obtain, _PLAIN), _never)
        return (await self._lines.join(current, "renew", work, fresh=True))[0]

    async def checked(self, session: Session, max_age: int, *, strict: bool) -> Session:
        """Return a state for which the issuer vouched within the last `max_age` seconds, refreshed if need be.

        Its claims are as new where the issuer sends an ID token with a refresh, as Logto does. When that cannot be done
        for now, or there is no refresh token, `strict` raises (as `get`); otherwise the older claims go on. Raises in
        any case what the issuer says of the user: `SessionEnded`, and `AccessTokenRefused` for `access_denied`.
        """
        if not self.is_stale(session, max_age):
            return session
        current = await self._current(session)
        if not self.is_stale(current, max_age) or (not strict and self._must_rest(current)):
            return current
        if strict or _is_about_the_user(self._refusals.get((current.id, _PLAIN))):
            self._check_refusals(current, _PLAIN)

        def recent(newest: Session) -> bool:
            return not self.is_stale(newest, max_age)

        try:
            async with asyncio.timeout(None if strict else _PATIENCE):
                return (await self._lines.join(current, "check", partial(self._in_turn, self._vouch, recent)))[0]
        except TimeoutError:
            return self._without_new_claims(current, "time-out")
        except _SOFT as error:
            if strict or _is_about_the_user(error):
                raise
            if isinstance(error, IssuerUnavailable) and error.unreachable:
                self._resting.put(_EVERYBODY, True)
            return self._without_new_claims(current, error.code)

    def _without_new_claims(self, session: Session, why: str) -> Session:
        self._resting.put(session.id, True)
        self._events.note("claims.stale", f"older claims are used, they could not be renewed: {why}")
        return session

    def is_stale(self, session: Session, max_age: int) -> bool:
        """Tell whether the issuer last vouched for the session `max_age` seconds ago or earlier."""
        return self._clock() - max(session.checked_at, session.created_at) >= max_age

    async def clear(self, session: Session) -> Session:
        """Forget the access tokens that the session keeps; the next `get` asks the issuer.

        Raises `SessionEnded` and `StoreUnavailable`.
        """
        current = await self._current(session)
        self._refusals.forget(lambda noted: noted[0] == current.id)
        work = partial(self._in_turn, self._clear, _never)
        return (await self._lines.join(current, "clear", work, fresh=True, asks_issuer=False))[0]

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109 - cancels nothing
        """Wait up to `timeout` seconds for the refreshes of this event loop that are under way."""
        await self._lines.drain(timeout)

    def first_token(self, tokens: TokenSet) -> AccessToken:
        """Return the access token of a sign-in as one to keep: it is for userinfo, for no resource."""
        return self._refresher.as_access_token(tokens, _PLAIN)

    # -- Under way -----------------------------------------------------------------------------------------------------

    async def _in_turn(
        self, act: Callable[[Turn], Coroutine[Any, Any, Outcome]], enough: Callable[[Session], bool], session: Session
    ) -> Outcome:
        """Act when it is this session's turn, unless a state that is `enough` turns up first."""
        for _ in range(_TRIES):
            with suppress(Overtaken):
                async with self._sessions.turn(session, enough) as turn:
                    return (turn.session, None) if enough(turn.session) else await act(turn)
        raise IssuerUnavailable("Others keep changing this session. Try again in a moment.")

    async def _obtain(self, key: TokenKey, turn: Turn) -> Outcome:
        try:
            return await self._refresher.refresh(turn, key)
        except AccessTokenRefused as refused:
            bare = AccessTokenRefused(refused.message, error=refused.error)  # without the requests it was raised in
            self._refusals.put((turn.session.id, key), bare)
            raise

    async def _vouch(self, turn: Turn) -> Outcome:
        """Refresh for the claims' sake. A token that has expired comes along and needs no refresh of its own."""
        session = turn.session
        due = [token for token in session.access_tokens.values() if self._usable(session, token.key) is None]
        key = max(due, key=lambda token: (token.key != _PLAIN, token.used_at)).key if due else _PLAIN
        try:
            return await self._obtain(key, turn)
        except (AccessTokenRefused, AccessTokenMismatch):
            if key == _PLAIN:
                raise
        return await self._obtain(_PLAIN, turn)

    async def _clear(self, turn: Turn) -> Outcome:
        session = turn.session
        cleared = replace(session, version=session.version + 1, access_tokens=MappingProxyType({}))
        if await turn.save(cleared, spent=None) is Saved.ENDED:
            raise SessionEnded("This session has ended. Sign in again.")
        return turn.session, None

    # -- What is kept --------------------------------------------------------------------------------------------------

    async def _current(self, session: Session) -> Session:
        current = await self._sessions.current(session)
        if current is None:
            raise SessionEnded("This session has ended, or the browser sent an old copy of it. Sign in again.")
        return current

    def _usable(self, session: Session, key: TokenKey, min_ttl: int | None = None) -> AccessToken | None:
        token = session.access_tokens.get(key)
        if token is None:
            return None
        margin = margin_of(token, margin=self._config.refresh_margin, min_ttl=min_ttl)
        return token if self._clock() < token.expires_at - margin else None

    def _must_rest(self, session: Session) -> bool:
        resting = self._resting.get(session.id) or self._resting.get(_EVERYBODY)
        return session.refresh_token is None or resting is not None

    def _check_refusals(self, session: Session, key: TokenKey) -> None:
        noted = self._refusals.get((session.id, key))
        if noted is not None:
            raise AccessTokenRefused(noted.message, error=noted.error)

    def _check_configured(self, resource: str | None, organization_id: str | None) -> None:
        if resource is not None and resource not in self._config.resources:
            raise SetupError(
                f"The resource {resource!r} was never asked for at sign-in. Add it: "
                f"LogtoConfig(resources=[{resource!r}]) or LOGTO_RESOURCES, and sign in again."
            )
        if organization_id is not None and not is_organization_id(organization_id):
            raise AccessTokenRefused("There is no organization with this id.", error="invalid_request")
        if organization_id is not None and ReservedResource.ORGANIZATION not in self._config.resources:
            raise SetupError(
                "Organization tokens need the scope urn:logto:scope:organizations. Add it: "
                "LogtoConfig(scopes=[UserScope.ORGANIZATIONS]) or LOGTO_SCOPES, and sign in again."
            )


_SOFT = (
    IssuerError,
    StoreUnavailable,
    RefreshTokenMissing,
    SessionTooLarge,
    AccessTokenRefused,
    AccessTokenMismatch,
)
"""Why claims cannot be renewed for now, though nothing says that the session is over."""


def _is_about_the_user(error: Exception | None) -> bool:
    """Tell whether the issuer says no to this user in this app (Logto's access control), not to one token."""
    return isinstance(error, AccessTokenRefused) and error.error == "access_denied"


def _never(_: Session) -> bool:
    return False
