"""Outgoing tokens: the right one for a resource or organization, kept, and refreshed once for all who wait.

Knows sessions and the issuer's client; knows no request, response or user object.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from logto_asgi.errors import (
    AccessTokenRefused,
    InvalidGrant,
    IssuerError,
    IssuerRefused,
    IssuerResponseInvalid,
    IssuerUnavailable,
    LogtoError,
    RefreshTokenMissing,
    SessionEnded,
    SetupError,
    VerificationError,
)
from logto_asgi.models import AccessToken, ReservedResource, Session, TokenSet
from logto_asgi.token_rules import REFUSALS_OF_ONE_TOKEN, TokenKey, access_token_of, refusal_of

if TYPE_CHECKING:
    from logto_asgi.config import LogtoConfig
    from logto_asgi.oidc.client import OidcClient
    from logto_asgi.session.backends import CookieBackend

__all__ = ["AccessTokens"]

logger = logging.getLogger("logto_asgi")


@dataclass(frozen=True, slots=True)
class _Flight:
    key: TokenKey
    task: asyncio.Task[tuple[Session, AccessToken]]


class AccessTokens:
    """Hands out access tokens of sessions; one refresh per session at a time, shared by everyone who waits."""

    def __init__(
        self,
        config: LogtoConfig,
        sessions: CookieBackend,
        client: Callable[[], OidcClient],
        clock: Callable[[], float],
    ) -> None:
        self._config = config
        self._sessions = sessions
        self._client = client
        self._clock = clock
        self._flights: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Flight]] = WeakKeyDictionary()

    async def get(
        self,
        session: Session,
        *,
        resource: str | None = None,
        organization_id: str | None = None,
        force_refresh: bool = False,
    ) -> tuple[Session, AccessToken]:
        """Return the newest state of the session and a token that lives longer than the refresh margin.

        Raises `SessionEnded`, `RefreshTokenMissing`, `AccessTokenRefused`, `AccessTokenMismatch`, `IssuerUnavailable`,
        `IssuerRefused`, `IssuerResponseInvalid`, and `SetupError` for a resource that sign-in never asks for.
        """
        self._check_configured(resource, organization_id)
        current = self._current(session)
        key = (resource, organization_id)
        if not force_refresh:
            token = self._usable(current, key)
            if token is not None:
                return self._touched(current, token), token
        return await self._obtain(current, key, force_refresh)

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109 - cancels nothing
        """Wait up to `timeout` seconds for the refreshes of this event loop that are under way."""
        flights = self._flights.get(asyncio.get_running_loop())
        if flights:
            await asyncio.wait([flight.task for flight in flights.values()], timeout=timeout)

    def _current(self, session: Session) -> Session:
        current = self._sessions.current(session)
        if current is None:
            raise SessionEnded("This session has ended, or the browser sent an old copy of it. Sign in again.")
        return current

    def _usable(self, session: Session, key: TokenKey) -> AccessToken | None:
        token = session.access_tokens.get(key)
        if token is None:
            return None
        # A token that lives shorter than twice the margin would never be used: half its life is the margin then.
        margin = min(self._config.refresh_margin, (token.expires_at - token.issued_at) // 2)
        return token if self._clock() < token.expires_at - margin else None

    def _touched(self, session: Session, token: AccessToken) -> Session:
        """Note the use now and then, so that the least recently used token is the first to leave a full cookie."""
        now = int(self._clock())
        if len(session.access_tokens) < 2 or now - token.used_at < self._config.roll_interval:
            return session
        successor = _with_token(session, replace(token, used_at=now))
        return successor if self._sessions.save(successor, spent=None) else session

    async def _obtain(self, session: Session, key: TokenKey, force: bool) -> tuple[Session, AccessToken]:
        loop = asyncio.get_running_loop()
        flights = self._flights.setdefault(loop, {})
        while (flight := flights.get(session.id)) is not None:
            shared = flight.key == key and not force
            try:
                result = await asyncio.shield(flight.task)
            except LogtoError as error:
                if shared or isinstance(error, IssuerUnavailable | SessionEnded):
                    raise
                continue
            if shared:
                return result
            current = self._current(session)
            token = None if force else self._usable(current, key)
            if token is not None:
                return current, token
        task = loop.create_task(self._refresh(self._current(session), key), name="logto_asgi refresh")
        flights[session.id] = _Flight(key, task)
        task.add_done_callback(lambda done: self._landed(flights, session.id, done))
        return await asyncio.shield(task)

    @staticmethod
    def _landed(flights: dict[str, _Flight], session_id: str, task: asyncio.Task[tuple[Session, AccessToken]]) -> None:
        flights.pop(session_id, None)
        if not task.cancelled():
            task.exception()  # Everyone who waited may have hung up: marks it as seen.

    async def _refresh(self, session: Session, key: TokenKey) -> tuple[Session, AccessToken]:
        if session.refresh_token is None:
            raise RefreshTokenMissing(
                "The access token has expired and the session has no refresh token. Sign in again; to get one, "
                "ask for the scope offline_access with prompt=consent (both are defaults with a Logto endpoint)."
            )
        try:
            session, tokens = await self._ask(session, key)
        except AccessTokenRefused as refused:
            await self._recover(session, key, refused)
            raise
        session = await self._keep_rotated(session, tokens)
        session = await self._check_id_token(session, tokens)
        token = self._as_access_token(tokens, key)
        successor = _with_token(session, token)
        if not self._sessions.save(successor, spent=None):
            raise SessionEnded("This session ended while its token was being refreshed. Sign in again.")
        return successor, token

    async def _recover(self, session: Session, key: TokenKey, refused: AccessTokenRefused) -> None:
        """Save the session after a refusal that may have spent its refresh token.

        Logto's engine rotates before it looks at the resource, and an error carries no new token; the spent one works
        for three seconds more, so a plain refresh within these gets another.
        """
        if refused.error == "invalid_target" and key != (None, None):
            with contextlib.suppress(LogtoError):
                await self._refresh(session, (None, None))

    async def _ask(self, session: Session, key: TokenKey) -> tuple[Session, TokenSet]:
        """Make the refresh request; after `invalid_grant` look once whether somebody else rotated in the meantime."""
        resource, organization_id = key
        try:
            return session, await self._client().refresh(
                session.refresh_token or "", resource=resource, organization_id=organization_id
            )
        except InvalidGrant:
            newest = self._sessions.newest(session.id)
            if newest is None or newest.refresh_token in (None, session.refresh_token):
                self._end_refused(session)
                raise SessionEnded("The issuer has ended this session. Sign in again.") from None
            return await self._ask(newest, key)
        except IssuerRefused as error:
            if error.error in REFUSALS_OF_ONE_TOKEN:
                raise AccessTokenRefused(
                    refusal_of(error.error, resource, organization_id), error=error.error
                ) from error
            raise

    async def _keep_rotated(self, session: Session, tokens: TokenSet) -> Session:
        """Save a rotated refresh token before anything that came with it is looked at."""
        if tokens.refresh_token in (None, session.refresh_token):
            return session
        rotated = replace(session, version=session.version + 1, refresh_token=tokens.refresh_token)
        if self._sessions.save(rotated, spent=session.refresh_token):
            return rotated
        await self._revoke_quietly(tokens.refresh_token)
        raise SessionEnded("This session ended while its token was being refreshed. Sign in again.")

    def _end_refused(self, session: Session) -> None:
        """End a session whose refresh token the issuer refused, unless a browser has shown a newer state of it."""
        if self._sessions.is_newest(session):
            self._sessions.end(session)
            logger.info("session ended: the issuer refused its refresh token (invalid_grant)")
        else:
            logger.info("refresh token refused (invalid_grant): an old copy, another process has a newer one")

    async def _check_id_token(self, session: Session, tokens: TokenSet) -> Session:
        try:
            claims = await self._client().verify_refreshed(tokens, session.claims)
        except VerificationError as error:
            if error.check == "sub":
                self._sessions.end(session)
                await self._revoke_quietly(session.refresh_token)
                logger.warning("session ended: the refreshed ID token belongs to another user")
                raise SessionEnded("The issuer answered for another user. Sign in again.") from error
            logger.warning("refreshed ID token refused: %s", error.check)
            raise IssuerResponseInvalid(
                f"The issuer's refreshed ID token failed the check of {error.check}."
            ) from error
        if claims is None:
            return session
        return replace(
            session, version=session.version + 1, claims=claims, id_token=session.id_token and tokens.id_token
        )

    async def _revoke_quietly(self, refresh_token: str | None) -> None:
        if refresh_token is None:
            return
        try:
            await self._client().revoke(refresh_token)
        except IssuerError as error:
            logger.info("could not revoke a refresh token that is no longer needed: %s", error.code)

    def _as_access_token(self, tokens: TokenSet, key: TokenKey) -> AccessToken:
        return access_token_of(tokens, key, now=int(self._clock()), strict=self._config.is_logto)

    def first_token(self, tokens: TokenSet) -> AccessToken:
        """Return the access token of a sign-in as one to keep: it is for userinfo, for no resource."""
        return self._as_access_token(tokens, (None, None))

    def _check_configured(self, resource: str | None, organization_id: str | None) -> None:
        if resource is not None and resource not in self._config.resources:
            raise SetupError(
                f"The resource {resource!r} was never asked for at sign-in. Add it: "
                f"LogtoConfig(resources=[{resource!r}]) or LOGTO_RESOURCES, and sign in again."
            )
        if organization_id is not None and ReservedResource.ORGANIZATION not in self._config.resources:
            raise SetupError(
                "Organization tokens need the scope urn:logto:scope:organizations. Add it: "
                "LogtoConfig(scopes=[UserScope.ORGANIZATIONS]) or LOGTO_SCOPES, and sign in again."
            )


def _with_token(session: Session, token: AccessToken) -> Session:
    tokens = MappingProxyType({**session.access_tokens, token.key: token})
    return replace(session, version=session.version + 1, access_tokens=tokens)
